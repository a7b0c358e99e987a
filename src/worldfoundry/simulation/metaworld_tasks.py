"""Metaworld's fifty scripted tasks (Sawyer arm), seen by cameras of our own and recorded in its declared schema.

An action (4,) lies in −1 … 1: the hand's x, y, z target moves by a hundredth of it (metres) in each simulator step of 1/80 s,
and the fourth number closes (> 0) or opens the gripper. It is held for `hold` steps, one frame. Metaworld's own benchmark hides
the goal from the script and marks it in the picture; here the script sees it, and the picture does not show it.
Tasks and scripts: Yu et al. 2019, arXiv 1910.10897; package `metaworld` 3.1 (MIT).
"""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from worldfoundry.core.errors import MissingExtraError, UsageError, did_you_mean
from worldfoundry.simulation.lerobot_out import FLAG, Recording, RecordingSchema, vector
from worldfoundry.simulation.manipulation_config import METAWORLD, ManipulationConfig
from worldfoundry.simulation.manipulation_scene import shadow_size
from worldfoundry.simulation.render import load_mujoco, open_renderer, renderer_name

STEPS_PER_SECOND = 80
LONGEST = 500  # steps that Metaworld allows in an episode
AFTERWARDS = 5  # frames that are still recorded once the task is done
ACTION_NAMES = ("x", "y", "z", "gripper")
STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper")
NOW = (*STATE_NAMES, *(f"thing{i}_{part}" for i in range(2) for part in ("x", "y", "z", "q0", "q1", "q2", "q3")))
ENVIRONMENT_NAMES = (*NOW, *(f"before_{name}" for name in NOW), "goal_x", "goal_y", "goal_z")  # Metaworld's observation
VIEWS = {"exo": 152.0, "exo2": 28.0}  # degrees; both look from the arm's side, where the fronts of things are

INSTRUCTIONS = {
    "assembly": "pick up the wrench and put its ring over the peg",
    "basketball": "put the basketball into the hoop",
    "bin-picking": "move the cube from one bin into the other",
    "box-close": "put the lid on the box",
    "button-press": "press the button on the front of the box",
    "button-press-topdown": "press the button on top of the box",
    "button-press-topdown-wall": "reach over the wall and press the button on top of the box",
    "button-press-wall": "go around the wall and press the button on the front of the box",
    "coffee-button": "press the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "lift the wrench off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door",
    "door-open": "open the door",
    "door-unlock": "unlock the door",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "turn the faucet off",
    "faucet-open": "turn the faucet on",
    "hammer": "pick up the hammer and drive the nail in",
    "hand-insert": "put the hand into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg into the hole in the box",
    "peg-unplug-side": "pull the peg out of the box",
    "pick-out-of-hole": "take the puck out of the hole",
    "pick-place": "pick up the puck and hold it at the goal",
    "pick-place-wall": "lift the puck over the wall to the goal",
    "plate-slide": "slide the plate into the goal",
    "plate-slide-back": "slide the plate back out of the goal",
    "plate-slide-back-side": "slide the plate back out of the goal, sideways",
    "plate-slide-side": "slide the plate into the goal, sideways",
    "push": "push the puck to the goal",
    "push-back": "push the puck back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "reach the goal with the hand",
    "reach-wall": "reach over the wall to the goal with the hand",
    "shelf-place": "put the block on the shelf",
    "soccer": "push the ball into the goal",
    "stick-pull": "pull the box with the stick",
    "stick-push": "push the box with the stick",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "close the window",
    "window-open": "open the window",
}


def task_names(config: ManipulationConfig) -> tuple[str, ...]:
    """The chosen tasks by Metaworld's names without `-v3`. Raises UsageError for one that it does not have."""
    names = [task.removeprefix(METAWORLD).removesuffix("-v3") for task in config.task]
    if "all" in names:
        return tuple(INSTRUCTIONS)
    for name in names:
        if name not in INSTRUCTIONS:
            raise UsageError(f"Metaworld has no task {name!r}.", did_you_mean(name, tuple(INSTRUCTIONS)))
    return tuple(names)


def schema(config: ManipulationConfig) -> RecordingSchema:
    """Columns and cameras of Metaworld's datasets. Raises UsageError for an unknown task."""
    task_names(config)
    return RecordingSchema(
        fps=STEPS_PER_SECOND / config.hold,
        robot_type="sawyer",
        features={
            "observation.state": vector(STATE_NAMES),
            "observation.environment_state": vector(ENVIRONMENT_NAMES),
            "action": vector(ACTION_NAMES),
            "next.reward": vector(("reward",)),
            "next.success": FLAG,
            "next.done": FLAG,
        },
        cameras={name: (config.size, config.size) for name in config.cameras},
    )


def recorder(config: ManipulationConfig) -> Callable[[int], Recording]:
    """`record(index)` for one process. Raises MissingExtraError without metaworld, UsageError without OpenGL."""
    load_mujoco()  # first, so that the headless platform is chosen
    for package in ("metaworld", "packaging"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "sim")
    names = task_names(config)
    warnings.filterwarnings("ignore", message="Constant", module="metaworld")  # its scripts ask for more than is allowed
    return lambda index: record(config, names[index % len(names)], index)


def make_task(name: str, seed: int) -> tuple[Any, Any, np.ndarray]:
    """A task at a start and goal drawn from `seed`, its script, and the first observation (39,)."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    env = ALL_V3_ENVIRONMENTS[f"{name}-v3"]()
    env._freeze_rand_vec, env._set_task_called = False, True
    env.seeded_rand_vec = True  # else start and goal come from the global generator of NumPy
    env._partially_observable = False  # else the goal is zero and a dozen scripts fail …
    vars(env).pop("sawyer_observation_space", None)  # … and so it is if step() clips to the bounds cached before
    env.seed(seed)
    observation, _ = env.reset()
    return env, ENV_POLICY_MAP[f"{name}-v3"](), observation


def record(config: ManipulationConfig, name: str, index: int) -> Recording:
    """Act and render one episode. Row i of `action` acts between frames i and i+1; what follows is `next.…`."""
    rng = np.random.default_rng((config.seed, index))
    env, script, observation = make_task(name, int(rng.integers(2**31)))
    cameras = _cameras(env.model, config, rng)
    rows: dict[str, list[Any]] = {key: [] for key in schema(config).features}
    views: dict[str, list[np.ndarray]] = {camera: [] for camera in config.cameras}
    with open_renderer(env.model, config.size, config.size, shadows=config.shadows) as renderer:
        options = load_mujoco().MjvOption()
        options.sitegroup[:] = 0  # the goal's markers
        left = min(config.frames, LONGEST // config.hold)
        while left:
            for camera, pictures in views.items():
                renderer.update_scene(env.data, cameras[camera], options)
                pictures.append(renderer.render().copy())
            action = np.clip(script.get_action(observation), -1, 1).astype(np.float32)
            rows["observation.state"].append(observation[:4].astype(np.float32))
            rows["observation.environment_state"].append(observation.astype(np.float32))
            rows["action"].append(action)
            success, reward = False, 0.0
            for _ in range(config.hold):
                observation, reward, _, _, info = env.step(action)
                success = success or bool(info["success"])
            rows["next.reward"].append(np.float32(reward))
            rows["next.success"].append(success)
            done_before = any(rows["next.success"][:-1])
            left = min(left - 1, AFTERWARDS) if success and not done_before else left - 1
        drawn_by = renderer_name()
    env.close()
    rows["next.done"] = [False] * (len(rows["action"]) - 1) + [True]
    columns = {key: np.stack([np.asarray(value) for value in values]) for key, values in rows.items()}
    videos = {camera: np.stack(pictures) for camera, pictures in views.items()}
    return Recording(columns=columns, videos=videos, task=INSTRUCTIONS[name], renderer=drawn_by)


def _cameras(model: Any, config: ManipulationConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Cameras by name for `update_scene`, and the light; Metaworld's own corner camera is upside down."""
    mujoco = load_mujoco()
    model.vis.quality.shadowsize, model.vis.quality.offsamples = shadow_size(config.size), 4
    model.vis.global_.offwidth = model.vis.global_.offheight = config.size
    model.light_diffuse[:] = np.clip(model.light_diffuse * rng.uniform(0.8, 1.15) + rng.uniform(-0.04, 0.04, 3), 0, 1)
    found: dict[str, Any] = {"wrist": "gripperPOV"}
    for name, azimuth in VIEWS.items():
        camera = mujoco.MjvCamera()
        camera.lookat[:] = np.array([0, 0.66, 0.12]) + rng.uniform(-0.04, 0.04, 3)
        camera.azimuth, camera.elevation = azimuth + rng.uniform(-10, 10), rng.uniform(-36, -26)
        camera.distance = rng.uniform(1.0, 1.2)
        found[name] = camera
    return found
