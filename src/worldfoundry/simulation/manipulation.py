"""The manipulation kind: a Panda arm at a table, or Metaworld's Sawyer, recorded as a LeRobot v3.0 dataset.

Here an episode of the Panda is drawn, acted, rendered and recorded; `metaworld_tasks.py` does the same for Metaworld.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from worldfoundry.core.model_store import get_model
from worldfoundry.simulation import lerobot_out, metaworld_tasks
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.lerobot_out import FLAG, Recording, RecordingSchema, vector
from worldfoundry.simulation.manipulation_config import ManipulationConfig
from worldfoundry.simulation.manipulation_expert import Expert, draw_manner
from worldfoundry.simulation.manipulation_scene import Bank, build_model, draw_layout, make_bank
from worldfoundry.simulation.manipulation_world import ACTION_NAMES, ENVIRONMENT_NAMES, FPS, STATE_NAMES, ManipulationWorld
from worldfoundry.simulation.panda import PandaMeshes, load_meshes
from worldfoundry.simulation.render import load_mujoco, open_renderer, renderer_name

START = ((0.36, -0.25, 0.20), (0.52, 0.25, 0.36))  # where the fingertips begin
TILT = (0.15, 0.15, 0.5)  # roll, pitch and yaw of the hand at the start, at most


def panda_schema(config: ManipulationConfig) -> RecordingSchema:
    """Columns and cameras of the Panda's datasets."""
    return RecordingSchema(
        fps=FPS,
        robot_type="franka_panda",
        features={
            "observation.state": vector(STATE_NAMES),
            "observation.environment_state": vector(ENVIRONMENT_NAMES),
            "action": vector(ACTION_NAMES),
            "next.success": FLAG,
            "next.done": FLAG,
        },
        cameras={name: (config.size, config.size) for name in config.cameras},
    )


def record_panda(config: ManipulationConfig, meshes: PandaMeshes, bank: Bank, index: int) -> Recording:
    """Draw, act and render episode `index`. Row i of `action` acts between frames i and i+1; what follows is `next.…`."""
    rng = np.random.default_rng((config.seed, index))
    layout = draw_layout(rng, config.task[index % len(config.task)])
    manner = draw_manner(rng, config.mistakes)
    start, tilt = rng.uniform(*START), rng.uniform(-1, 1, 3) * TILT
    model = build_model(meshes, bank, layout, rng, config.size)
    world = ManipulationWorld(model, layout, start, tilt)
    views: dict[str, list[np.ndarray]] = {name: [] for name in config.cameras}
    rows: dict[str, list[Any]] = {key: [] for key in panda_schema(config).features}
    with open_renderer(model, config.size, config.size, shadows=config.shadows) as renderer:
        for action in Expert(world, manner).actions():
            for name, pictures in views.items():
                renderer.update_scene(world.data, camera=name)
                pictures.append(renderer.render().copy())
            rows["observation.state"].append(world.state())
            rows["observation.environment_state"].append(world.environment())
            rows["action"].append(action)
            world.step(action)
            rows["next.success"].append(world.success())
            if len(rows["action"]) == config.frames:
                break
        drawn_by = renderer_name()
    rows["next.done"] = [False] * (len(rows["action"]) - 1) + [True]
    columns = {key: np.stack([np.asarray(value) for value in values]) for key, values in rows.items()}
    return Recording(
        columns=columns, videos={k: np.stack(v) for k, v in views.items()}, task=layout.instruction, renderer=drawn_by
    )


def panda_recorder(config: ManipulationConfig) -> Callable[[int], Recording]:
    """`record(index)` for one process; meshes and textures are loaded here."""
    meshes, bank = load_meshes(get_model("panda")), make_bank()
    return lambda index: record_panda(config, meshes, bank, index)


def schema_of(config: ManipulationConfig) -> RecordingSchema:
    return metaworld_tasks.schema(config) if config.is_metaworld else panda_schema(config)


def facts(config: ManipulationConfig) -> dict[str, Any]:
    """What dataset.json says beside the options. Raises UsageError for an unknown Metaworld task."""
    schema = schema_of(config)
    return {
        "format": "LeRobot v3.0",
        "fps": schema.fps,
        "robot_type": schema.robot_type,
        "action_names": schema.features["action"].names,
        "state_names": schema.features["observation.state"].names,
    }


@contextmanager
def open_episodes(config: ManipulationConfig) -> Iterator[Callable[[int], str]]:
    """`write(index)` records one episode into `config.out`."""
    load_mujoco()
    record = metaworld_tasks.recorder(config) if config.is_metaworld else panda_recorder(config)
    with lerobot_out.open_dataset(config.out, schema_of(config), config.crf) as writer:
        yield lerobot_out.writing(writer, record)


def prepare(config: ManipulationConfig) -> None:
    """Fetch the arm's meshes once, not once per process. Raises DownloadError, or MissingExtraError without metaworld."""
    if config.is_metaworld:
        metaworld_tasks.recorder(config)
    else:
        get_model("panda")


KIND = Kind(
    prepare=prepare,
    facts=facts,
    open_episodes=open_episodes,
    is_whole=lambda config, index: lerobot_out.is_whole(config.out, index),
    finish=lambda config: lerobot_out.finish(config.out, config.crf),
    count_frames=lambda config: lerobot_out.count_frames(config.out),
)
