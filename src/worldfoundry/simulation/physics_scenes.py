"""The eight physics scenarios of the Cosmos paper (arXiv 2501.03575, section 5.3.2): how each begins, drawn from a seed.

A scenario returns the bodies that matter, in the order of their mask ids (1, 2, …). What happens is not decided here: it is
simulated, and told afterwards by `physics_outcomes.py`. Metres, degrees, kg/m³; the action is around the origin, z up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from worldfoundry.simulation.scene import COLOURS, UNTOUCHED, Scene, numbers

OBJECT_PATTERNS = ("fabric", "plaster", "marble", "speckle", "stripes", "checker")
NOUNS = {"sphere": "ball", "box": "box", "cylinder": "cylinder", "ellipsoid": "ellipsoid", "capsule": "capsule"}
HALF_PIPE = np.linspace(-1, 1, 129) ** 2  # heights of the U-slope along x, 0 … 1


@dataclass(frozen=True, kw_only=True)
class Body:
    """One object. `noun` is how a caption calls it; `half` are MuJoCo's half sizes; `xml` is its MJCF body."""

    name: str
    noun: str
    shape: str
    half: tuple[float, ...]
    moves: bool
    xml: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a scenario begins. `facts` are what its outcome is judged by (an angle, the direction of a row)."""

    bodies: tuple[Body, ...]
    aim_z: float = 0.35
    distance: tuple[float, float] = (2.4, 3.0)
    planar: bool = False  # the action is in the x-z plane: look from its sides
    spin: float = 0.0  # of the last body about its own z, rad/s
    facts: dict[str, float] = field(default_factory=dict)


def look(scene: Scene) -> tuple[str, str]:
    """(adjective, material) of an object: a named colour on a neutral pattern, or wood."""
    if scene.rng.random() < 0.15:
        return "wooden", scene.material(scene.pick("plain_wood"), cube=True)
    colour = list(COLOURS)[scene.rng.integers(len(COLOURS))]
    texture = scene.pick(*OBJECT_PATTERNS)
    pattern = texture.split(".")[0]
    adjective = {"stripes": f"{colour} striped", "checker": f"{colour} checkered"}.get(pattern, colour)
    return adjective, scene.material(texture, COLOURS[colour], cube=True, shine=float(scene.rng.uniform(0.05, 0.6)))


def body(
    scene: Scene,
    name: str,
    shape: str,
    half: Sequence[float],
    position: Sequence[float],
    *,
    euler: Sequence[float] = (0, 0, 0),
    noun: str | None = None,
    moves: bool = True,
    density: float | None = None,
    contact: str = "",
) -> Body:
    """A body of one primitive that falls freely, or stands still."""
    adjective, material = look(scene)
    density = float(scene.rng.uniform(300, 1500)) if density is None else density
    geom = f'<geom type="{shape}" size="{numbers(half)}" material="{material}" density="{density:.1f}" {contact}/>'
    joint = "<freejoint/>" if moves else ""
    xml = f'<body name="{name}" pos="{numbers(position)}" euler="{numbers(euler)}">{joint}{geom}</body>'
    return Body(
        name=name, noun=f"{adjective} {noun or NOUNS[shape]}", shape=shape, half=tuple(map(float, half)), moves=moves, xml=xml
    )


def random_half(rng: np.random.Generator, shape: str, size: float) -> tuple[float, ...]:
    if shape == "box":
        return (size, size * rng.uniform(0.6, 1), size * rng.uniform(0.7, 1))
    if shape == "ellipsoid":
        return (size, size * rng.uniform(0.6, 0.8), size * rng.uniform(0.5, 0.7))
    return {"sphere": (size,), "cylinder": (size * 0.8, size), "capsule": (size * 0.55, size * 0.7)}[shape]


def free_fall(scene: Scene) -> Setup:
    """One to three objects fall, and bounce more or less."""
    rng, bodies = scene.rng, []
    for i in range(rng.integers(1, 4)):
        shape = str(rng.choice(["box", "sphere", "sphere", "cylinder", "ellipsoid", "capsule"]))
        angle = 2 * math.pi * i / 3 + rng.uniform(-0.6, 0.6)
        away = rng.uniform(0.15, 0.5)
        position = (away * math.cos(angle), away * math.sin(angle), rng.uniform(0.8, 1.45))
        contact = f'solref=".01 {rng.uniform(0.06, 0.7):.3f}" solimp=".95 .99 .001"'
        half = random_half(rng, shape, rng.uniform(0.11, 0.18))
        bodies.append(body(scene, f"object{i}", shape, half, position, euler=(*rng.uniform(0, 360, 2), 0), contact=contact))
    return Setup(bodies=tuple(bodies), aim_z=0.65, distance=(2.5, 3.0))


def tilted_plank(scene: Scene) -> Setup:
    """A ball, a lying cylinder or a box on a plank that rests on a block. It rolls, slides or sticks."""
    rng, half = scene.rng, 0.9
    angle = float(rng.uniform(12, 34))
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    plank = body(
        scene, "plank", "box", (half, 0.3, 0.02), (0, 0, half * s + 0.025), euler=(0, angle, 0), noun="plank", moves=False
    )
    support_half = (half * s + 0.62 * s - 0.02) / 2
    support = body(scene, "support", "box", (0.09, 0.22, support_half), (-0.7 * c, 0, support_half), noun="block", moves=False)
    shape, radius = str(rng.choice(["sphere", "cylinder", "box"])), 0.11
    size = {"sphere": (radius,), "cylinder": (radius, 0.13), "box": (radius, radius, radius)}[shape]
    lean = (90, 0, 0) if shape == "cylinder" else (0, angle, 0)
    up = radius + 0.021
    position = (-0.66 * c + up * s, 0, half * s + 0.025 + 0.66 * s + up * c)
    friction = float(rng.uniform(0.15, 0.6)) if shape == "box" else 0.9
    # The larger friction of two surfaces counts, unless one has priority.
    mover = body(scene, "mover", shape, size, position, euler=lean, contact=f'friction="{friction:.3f}" priority="1"')
    return Setup(
        bodies=(plank, support, mover), planar=True, facts={"angle_deg": angle, "friction": friction, "radius_m": radius}
    )


def u_slope(scene: Scene) -> Setup:
    """Balls in a half-pipe, let go from high up one or both of its sides."""
    rng = scene.rng
    scene.assets.append('<hfield name="u" nrow="3" ncol="129" size="1.2 .35 .7 .05"/>')
    material = scene.surface("concrete", "wood", "fabric", "tile", tile_m=0.6)
    slope = Body(
        name="slope",
        noun="half-pipe",
        shape="hfield",
        half=(1.2, 0.35, 0.35),
        moves=False,
        xml=f'<body name="slope"><geom type="hfield" hfield="u" material="{material}" friction=".9" condim="6"/></body>',
    )
    balls, sides = [], rng.permutation([-1.0, 1.0])
    for i in range(rng.integers(1, 3)):
        radius, x = rng.uniform(0.08, 0.12), float(sides[i] * rng.uniform(0.65, 0.95))
        height = 0.7 * (x / 1.2) ** 2 + radius * 1.35
        contact = 'condim="6" friction=".8 .002 .0004"'
        balls.append(body(scene, f"ball{i}", "sphere", (radius,), (x, (i - 0.5) * 0.006, height), contact=contact))
    return Setup(bodies=(slope, *balls), planar=True)


def stack(scene: Scene, low: float, high: float) -> Setup:
    """Three to five blocks that lean to one side; `low` … `high` is how far, see `overhang` (more than 1 cannot stand)."""
    rng, bodies, z = scene.rng, [], 0.0
    side = float(rng.choice([-1, 1]))
    half_z = rng.uniform(0.08, 0.13, rng.integers(3, 6))
    widths = 0.22 - 0.02 * np.arange(len(half_z))
    steps = rng.uniform(0.2, 1.0, len(half_z)) * (np.arange(len(half_z)) > 0)
    x = np.cumsum(steps)
    x *= rng.uniform(low, high) / overhang(x, widths, half_z)
    for i in range(len(half_z)):
        half = (widths[i], widths[i] * 0.8, half_z[i])
        position = (side * x[i], rng.uniform(-0.01, 0.01), z + half_z[i])
        bodies.append(body(scene, f"block{i}", "box", half, position, noun="block", density=600))
        z += 2 * half_z[i] + 0.0005
    return Setup(bodies=tuple(bodies), aim_z=0.4, distance=(1.9, 2.4))


def overhang(x: np.ndarray, widths: np.ndarray, half_z: np.ndarray) -> float:
    """The largest distance of the centre of mass of all blocks above a block from that block's middle, in its half widths.

    Linear in the offsets x; a stack stands if it is below 1 (all blocks are of one density, their depth is 0.8 of their width).
    """
    mass = widths**2 * half_z
    above = [np.average(x[i + 1 :], weights=mass[i + 1 :]) for i in range(len(x) - 1)]
    return float(np.max(np.abs(above - x[:-1]) / widths[:-1]))


def stable_stack(scene: Scene) -> Setup:
    """A stack whose blocks stand well on each other."""
    return stack(scene, 0.05, 0.4)


def unstable_stack(scene: Scene) -> Setup:
    """A stack that leans too far to stand."""
    return stack(scene, 1.08, 1.4)


def dominoes(scene: Scene) -> Setup:
    """A row, straight or curved, whose first piece already leans; sometimes one gap is too wide."""
    rng, bodies = scene.rng, []
    number, bend = int(rng.integers(6, 11)), rng.uniform(-10, 10)
    gap_at = int(rng.integers(2, number)) if rng.random() < 0.3 else -1
    x = y = heading = 0.0
    places = []
    for i in range(number):
        places.append((x, y, heading))
        step = 0.4 if i + 1 == gap_at else 0.155
        heading += bend
        x += step * math.cos(math.radians(heading))
        y += step * math.sin(math.radians(heading))
    centre = np.mean([place[:2] for place in places], axis=0)
    adjective, material = look(scene)
    other = look(scene)
    for i, (px, py, yaw) in enumerate(places):
        a, m = (adjective, material) if i % 2 == 0 else other
        quat = turned(yaw, 14.0 if i == 0 else 0.0)
        geom = f'<geom type="box" size=".02 .09 .15" material="{m}" density="600"/>'
        # Leaning pieces stand on an edge: a little higher than upright ones.
        z = 0.1505 if i else 0.15 * math.cos(math.radians(14)) + 0.02 * math.sin(math.radians(14))
        xml = f'<body name="domino{i}" pos="{numbers((px - centre[0], py - centre[1], z))}" quat="{numbers(quat)}">'
        bodies.append(
            Body(
                name=f"domino{i}", noun=f"{a} domino", shape="box", half=(0.02, 0.09, 0.15), moves=True,
                xml=f"{xml}<freejoint/>{geom}</body>",
            )
        )  # fmt: skip
    return Setup(bodies=tuple(bodies), aim_z=0.12, distance=(1.8, 2.2))


def turned(yaw_deg: float, lean_deg: float) -> tuple[float, float, float, float]:
    """wxyz of a lean towards the heading, after a turn about z."""
    a, b = math.radians(yaw_deg) / 2, math.radians(lean_deg) / 2
    return (math.cos(a) * math.cos(b), -math.sin(a) * math.sin(b), math.cos(a) * math.sin(b), math.sin(a) * math.cos(b))


def seesaw(scene: Scene) -> Setup:
    """A box rests on the low end of a beam; something falls on the high end."""
    rng, tilt = scene.rng, 13.0
    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    adjective, material = look(scene)
    geom = f'<geom type="cylinder" size=".1 .2" material="{material}" {UNTOUCHED}/>'
    pivot = Body(
        name="pivot", noun=f"{adjective} roller", shape="cylinder", half=(0.1, 0.2), moves=False,
        xml=f'<body name="pivot" pos="0 0 .1" euler="90 0 0">{geom}</body>',
    )  # fmt: skip
    adjective, material = look(scene)
    beam = Body(
        name="beam", noun=f"{adjective} beam", shape="box", half=(0.8, 0.16, 0.02), moves=True,
        xml=f'<body name="beam" pos="0 0 .222" euler="0 {-tilt} 0"><joint name="hinge" type="hinge" axis="0 1 0" damping=".02"/>'
        f'<geom type="box" size=".8 .16 .02" material="{material}" density="400" friction="1"/></body>',
    )  # fmt: skip
    load = body(
        scene, "load", "box", (0.1, 0.1, 0.1), (-0.66 * c - 0.12 * s, 0, 0.222 - 0.66 * s + 0.121 * c),
        euler=(0, -tilt, 0), density=300,
    )  # fmt: skip
    shape = str(rng.choice(["sphere", "box"]))
    half = (0.13,) if shape == "sphere" else (0.12, 0.12, 0.12)
    weight = body(scene, "weight", shape, half, (0.62, 0, rng.uniform(0.9, 1.4)), density=float(rng.choice([120, 500, 1200])))
    return Setup(bodies=(pivot, beam, load, weight), aim_z=0.5, distance=(2.5, 3.0), planar=True)


def gyroscope(scene: Scene) -> Setup:
    """A spinning disc on a tip. Fast ones precess; slow ones fall over."""
    rng = scene.rng
    adjective, disc = look(scene)
    _, axle = look(scene)
    spin, lean, radius = float(rng.uniform(15, 75)), float(rng.uniform(6, 16)), float(rng.uniform(0.19, 0.25))
    geoms = (
        f'<geom type="sphere" size=".02" density="3000" friction=".6" material="{axle}"/>'
        f'<geom type="cylinder" size=".016 .18" pos="0 0 .18" density="500" material="{axle}"/>'
        f'<geom type="cylinder" size="{radius:.3f} .03" pos="0 0 .18" density="1500" material="{disc}"/>'
        # A bar over the disc, so that its turning can be seen whatever its pattern.
        f'<geom type="box" size="{radius * 0.98:.3f} .03 .033" pos="0 0 .18" density="1" material="{axle}"/>'
    )
    top = Body(
        name="top", noun=f"{adjective} spinning top", shape="disc", half=(radius, radius, 0.18), moves=True,
        xml=f'<body name="top" pos="0 0 .02" euler="{lean:.2f} 0 0"><freejoint/>{geoms}</body>',
    )  # fmt: skip
    return Setup(bodies=(top,), aim_z=0.2, distance=(1.1, 1.5), spin=spin, facts={"spin_rad_per_s": spin, "lean_deg": lean})


SCENARIOS: dict[str, Callable[[Scene], Setup]] = {
    scenario.__name__: scenario
    for scenario in (free_fall, tilted_plank, u_slope, stable_stack, unstable_stack, dominoes, seesaw, gyroscope)
}
