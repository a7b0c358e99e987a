"""A table in a room, with things on it and a Panda arm behind: what is drawn at random, and the MuJoCo model of it.

`draw_layout` decides what the task is about (things, places, words) and needs no simulator; `build_model` decides how it looks
(surfaces, light, cameras) and compiles it. Metres, radians; x points away from the arm, y to its left, z = 0 is the table.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.simulation.panda import PandaMeshes, panda_spec
from worldfoundry.simulation.render import load_mujoco
from worldfoundry.simulation.textures import PATTERNS

THINGS = 3
AREA = ((0.36, 0.62), (-0.28, 0.28))  # where things and goals lie
APART = 0.14  # between the centres of any two of them
PLATE_RADIUS, PLATE_HEIGHT, MAT_HALF = 0.08, 0.012, 0.065

COLOURS = {
    "red": (0.80, 0.10, 0.09),
    "green": (0.12, 0.52, 0.18),
    "blue": (0.10, 0.24, 0.78),
    "yellow": (0.92, 0.74, 0.10),
    "orange": (0.92, 0.40, 0.05),
    "purple": (0.44, 0.15, 0.60),
}
GOAL_COLOURS = {"white": (0.93, 0.93, 0.92), "grey": (0.45, 0.46, 0.48), "pink": (0.93, 0.58, 0.68), "teal": (0.10, 0.50, 0.52)}

SURFACES = {
    "table": ("plain_wood", "wood", "marble", "plaster", "fabric"),
    "floor": ("tile", "concrete", "wood", "checker"),
    "wall": ("plaster", "concrete", "brick", "stripes"),
    "thing": ("plaster", "speckle", "fabric", "marble"),
}
TINTED = ("marble", "plaster", "fabric", "stripes", "checker")
VARIANTS, TEXTURE = 3, 192

Bank = dict[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A cube or cylinder on the table. half: half of its height and of its width; at: (x, y); yaw in radians."""

    colour: str
    shape: str
    half_width: float
    half_height: float
    at: tuple[float, float]
    yaw: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an episode is about. The first thing is the one to be moved; goal_height is that of the surface it ends on."""

    task: str
    things: tuple[Thing, ...]
    goal_at: tuple[float, float]
    goal_height: float
    goal_colour: str

    @property
    def instruction(self) -> str:
        first = self.things[0].name
        if self.task == "push":
            return f"push the {first} onto the {self.goal_colour} mat"
        if self.task == "stack":
            return f"put the {first} on top of the {self.things[1].name}"
        return f"pick up the {first} and place it on the {self.goal_colour} plate"


def draw_layout(rng: np.random.Generator, task: str) -> Layout:
    """Three things of different colours and, unless they are to be stacked, a plate or a mat; none touches another."""
    colours = [str(name) for name in rng.permutation(list(COLOURS))]
    places = _draw_places(rng, task)
    things = []
    for i in range(THINGS):
        cube = rng.random() < 0.65 or (task == "stack" and i == 1) or (task == "push" and i == 0)
        half = float(rng.uniform(0.024, 0.030))
        height = half if cube else float(rng.uniform(0.028, 0.038))
        yaw = float(rng.uniform(-np.pi / 4, np.pi / 4))
        shape = "cube" if cube else "cylinder"
        things.append(Thing(colour=colours[i], shape=shape, half_width=half, half_height=height, at=places[i], yaw=yaw))
    stack = task == "stack"
    return Layout(
        task=task,
        things=tuple(things),
        goal_at=places[1] if stack else places[THINGS],
        goal_height=2 * things[1].half_height if stack else PLATE_HEIGHT if task == "pick-place" else 0.0,
        goal_colour=str(rng.choice(list(GOAL_COLOURS))),
    )


def _draw_places(rng: np.random.Generator, task: str) -> list[tuple[float, float]]:
    """Centres apart from each other, by rejection; the way of a push, and room to start it, is kept free."""
    low, high = np.transpose(AREA)
    while True:
        places = rng.uniform(low, high, (THINGS + (task != "stack"), 2))
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
        if gaps.min() < APART or (task == "push" and not _push_is_free(places)):
            continue
        return [(float(x), float(y)) for x, y in places]


def _push_is_free(places: np.ndarray) -> bool:
    start, goal, others = places[0], places[-1], places[1:-1]
    length = np.linalg.norm(goal - start)
    along = (goal - start) / length
    behind = start - 0.12 * along
    (low_x, high_x), (low_y, high_y) = AREA
    reachable = low_x - 0.06 < behind[0] < high_x + 0.04 and low_y - 0.1 < behind[1] < high_y + 0.1
    passing = np.clip((others - behind) @ along, 0, length + 0.12)
    beside = np.linalg.norm(others - behind - passing[:, None] * along, axis=1)
    return bool(0.15 < length < 0.3 and reachable and (beside > 0.11).all())


def make_bank(seed: int = 0) -> Bank:
    """A few variants of every pattern that a scene may show, uint8 (N, N, 3); made once per process."""
    names = sorted({name for choices in SURFACES.values() for name in choices})
    pictures = {}
    for i, name in enumerate(names):
        rngs = [np.random.default_rng((seed, i, k)) for k in range(VARIANTS)]
        pictures[name] = tuple(PATTERNS[name](rng, TEXTURE).clip(0, 255).astype(np.uint8) for rng in rngs)
    return pictures


def build_model(meshes: PandaMeshes, bank: Bank, layout: Layout, rng: np.random.Generator, size: int) -> Any:
    """Compile the scene with surfaces, light and cameras drawn from `rng`. Bodies of things are `thing0`, `thing1`, …"""
    mujoco = load_mujoco()
    spec = panda_spec(meshes)
    spec.option.timestep, spec.option.impratio = 0.002, 10.0
    spec.option.cone, spec.option.integrator = mujoco.mjtCone.mjCONE_ELLIPTIC, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.enableflags |= mujoco.mjtEnableBit.mjENBL_MULTICCD  # cylinders stand on more than one point
    spec.visual.global_.offwidth = spec.visual.global_.offheight = size
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = shadow_size(size), 4
    spec.visual.map.shadowclip, spec.visual.map.znear, spec.visual.map.zfar = 1.5, 0.01, 12.0
    spec.stat.extent, spec.stat.center = 1.0, [0.4, 0, 0.15]
    _add_room(mujoco, spec, bank, rng)
    _add_things(mujoco, spec, bank, layout, rng)
    _add_light(spec, rng)
    _add_cameras(mujoco, spec, rng)
    return spec.compile()


def shadow_size(size: int) -> int:
    """Side of the shadow map in pixels: it costs more than a small picture does."""
    return 512 if size <= 160 else 1024


def _add_room(mujoco: Any, spec: Any, bank: Bank, rng: np.random.Generator) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    table, floor, wall = (_add_material(mujoco, spec, bank, rng, use) for use in ("table", "floor", "wall"))
    world = spec.worldbody
    world.add_geom(
        name="table", type=box, size=[0.55, 0.75, 0.02], pos=[0.3, 0, -0.02], material=table, friction=[1, 0.005, 1e-4]
    )
    for x in (-0.18, 0.78):
        for y in (-0.68, 0.68):
            world.add_geom(type=box, size=[0.03, 0.03, 0.34], pos=[x, y, -0.38], material=table)
    world.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1], pos=[0, 0, -0.72], material=floor)
    for position, half in (([-1.3, 0, 0.8], [0.05, 3, 1.6]), ([0, 1.9, 0.8], [3, 0.05, 1.6]), ([0, -1.9, 0.8], [3, 0.05, 1.6])):
        world.add_geom(type=box, pos=position, size=half, material=wall)


def _add_things(mujoco: Any, spec: Any, bank: Bank, layout: Layout, rng: np.random.Generator) -> None:
    kinds = {"cube": mujoco.mjtGeom.mjGEOM_BOX, "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER}
    for i, thing in enumerate(layout.things):
        half = [thing.half_width, thing.half_width, thing.half_height]
        turn = [np.cos(thing.yaw / 2), 0, 0, np.sin(thing.yaw / 2)]
        body = spec.worldbody.add_body(name=f"thing{i}", pos=[*thing.at, thing.half_height + 0.001], quat=turn)
        body.add_freejoint(name=f"thing{i}")
        body.add_geom(
            type=kinds[thing.shape],
            size=half if thing.shape == "cube" else [thing.half_width, thing.half_height, 0],
            material=_add_material(mujoco, spec, bank, rng, "thing", COLOURS[thing.colour]),
            mass=float(rng.uniform(0.05, 0.1)),
            condim=4,
            friction=[0.8, 0.01, 1e-4],
        )
    at = list(layout.goal_at)
    if layout.task == "stack":
        return
    material = _add_material(mujoco, spec, bank, rng, "thing", GOAL_COLOURS[layout.goal_colour])
    if layout.task == "push":  # a mat is flat and does not stop a thing
        spec.worldbody.add_geom(
            type=kinds["cube"], pos=[*at, 0], size=[MAT_HALF, MAT_HALF, 0.0015], material=material, contype=0, conaffinity=0
        )
        return
    half, inner = PLATE_HEIGHT / 2, 0.75 * PLATE_RADIUS
    # Seen is a disc, touched is a box: contacts between boxes are solved with four points, so that nothing creeps.
    spec.worldbody.add_geom(
        type=kinds["cylinder"], pos=[*at, half], size=[PLATE_RADIUS, half, 0], material=material, contype=0, conaffinity=0
    )
    spec.worldbody.add_geom(type=kinds["cube"], pos=[*at, half], size=[inner, inner, half], group=4)


def _add_material(
    mujoco: Any, spec: Any, bank: Bank, rng: np.random.Generator, use: str, colour: tuple[float, float, float] | None = None
) -> str:
    """A surface for `use`, of a given colour or one of its own; returns the material's name."""
    pattern = str(rng.choice(SURFACES[use]))
    picture = bank[pattern][rng.integers(VARIANTS)]
    name = f"surface{len(spec.materials)}"
    texture = spec.add_texture(
        name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, width=picture.shape[1], height=picture.shape[0], nchannel=3
    )
    texture.data = picture.tobytes()
    tint = np.array(colour) * rng.uniform(0.9, 1.1) if colour else rng.uniform(0.6, 1.0) + rng.uniform(-0.12, 0.12, 3)
    repeat = {"table": 1.2, "floor": 0.8, "wall": 0.7, "thing": 8.0}[use]
    material = spec.add_material(name=name, texuniform=True, texrepeat=[repeat, repeat])
    material.specular, material.shininess = float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.2, 0.6))
    if colour or pattern in TINTED:
        material.rgba = [*np.clip(tint, 0, 1), 1]
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def _add_light(spec: Any, rng: np.random.Generator) -> None:
    """One sun-like lamp that casts shadows, from in front of the arm or its sides, and light from everywhere."""
    warm, bright = float(rng.uniform(-0.04, 0.04)), float(rng.uniform(0.45, 0.7))
    direction = np.array([rng.uniform(-0.8, 0.1), rng.uniform(-0.6, 0.6), -1.0])
    colour = [bright + warm, bright, bright - warm]
    start = np.array([0.4, 0, 0]) - 2.0 * direction
    spec.worldbody.add_light(directional=True, castshadow=True, pos=start, dir=direction, diffuse=colour, specular=[0.25] * 3)
    spec.visual.headlight.ambient = [float(rng.uniform(0.36, 0.48))] * 3
    spec.visual.headlight.diffuse = [float(rng.uniform(0.12, 0.25))] * 3
    spec.visual.headlight.specular = [0.0] * 3


def _add_cameras(mujoco: Any, spec: Any, rng: np.random.Generator) -> None:
    views = {"exo": ((1.12, 0.42, 0.56), (0.38, 0.0, 0.13)), "exo2": ((0.86, -0.78, 0.46), (0.40, 0.0, 0.12))}
    for name, (position, target) in views.items():
        eye = np.array(position) + rng.uniform(-0.08, 0.08, 3)
        quat = _looking(mujoco, eye, np.array(target) + rng.uniform(-0.03, 0.03, 3))
        spec.worldbody.add_camera(name=name, pos=eye, quat=quat, fovy=float(rng.uniform(46, 51)))
    hand = spec.body("attachment")
    hand.add_camera(name="wrist", pos=[-0.07, 0.0, 0.01], quat=[0.0, 0.7071, -0.7071, 0.0], fovy=float(rng.uniform(62, 70)))


def _looking(mujoco: Any, eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The quaternion of a camera at `eye` that looks at `target`, upright."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(right, forward), -forward], axis=1).ravel())
    return quat
