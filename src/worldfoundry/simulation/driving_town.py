"""A town along one bending road: houses, trees, lamps, parked and moving cars, people; drawn from a seed.

Everything is placed by road coordinates: s metres along the middle line, d metres to its left. Cars are 4 to 8 m long, lanes
3.4 m wide; traffic keeps to the right. Local frames of cars: x forwards, y left, z up, origin on the ground below the middle.
"""

import math
from dataclasses import dataclass

import numpy as np

from worldfoundry.simulation.scene import NO_SHADOW, Scene, numbers

PATTERNS = {
    **{"asphalt": 2, "grass": 2, "concrete": 2, "tile": 2, "facade": 10, "brick": 2, "roof": 3, "leaves": 3, "bark": 1},
    **{"plain_wood": 2, "plaster": 1},
}
LANE, ROAD_HALF, KERB = 1.75, 3.7, 3.0  # middle of a lane, half the road, width of a pavement
# Colours of real traffic, and how common they are.
PAINTS = {
    "white": ((0.92, 0.92, 0.91), 0.24),
    "black": ((0.06, 0.06, 0.07), 0.2),
    "grey": ((0.36, 0.37, 0.39), 0.2),
    "silver": ((0.68, 0.69, 0.71), 0.12),
    "blue": ((0.10, 0.20, 0.46), 0.1),
    "red": ((0.58, 0.07, 0.07), 0.08),
    "green": ((0.12, 0.28, 0.18), 0.03),
    "yellow": ((0.85, 0.66, 0.10), 0.03),
}
# length, width, height, height of the bonnet, cabin from … to along x, as parts of the length
MODELS = {
    "car": ((4.4, 1.8, 1.48, 0.86), (-0.42, 0.22)),
    "hatchback": ((3.9, 1.74, 1.5, 0.9), (-0.49, 0.2)),
    "van": ((5.2, 2.0, 2.2, 1.15), (-0.5, 0.36)),
    "truck": ((7.5, 2.4, 3.0, 1.1), (0.22, 0.48)),
}


class Road:
    """The middle line as points every metre; between them it is interpolated."""

    def __init__(self, rng: np.random.Generator, length_m: int) -> None:
        bends = [0.0, 0.0]
        while len(bends) * 40 < length_m + 80:
            bends.append(float(rng.choice([0.0, 1.0, -1.0])) * rng.uniform(0.004, 0.014))
        s = np.arange(length_m + 1.0)
        curvature = np.interp(s, 40.0 * np.arange(len(bends)), bends)
        self.heading = np.concatenate([[0.0], np.cumsum((curvature[1:] + curvature[:-1]) / 2)])
        middle = (self.heading[1:] + self.heading[:-1]) / 2
        self.x = np.concatenate([[0.0], np.cumsum(np.cos(middle))])
        self.y = np.concatenate([[0.0], np.cumsum(np.sin(middle))])
        self.s, self.length_m = s, float(length_m)

    def at(self, s: float, d: float) -> tuple[float, float, float]:
        """(x, y, heading in radians) of road coordinates."""
        heading = float(np.interp(s, self.s, self.heading))
        x, y = float(np.interp(s, self.s, self.x)), float(np.interp(s, self.s, self.y))
        return x - d * math.sin(heading), y + d * math.cos(heading), heading

    def distance(self, x: float, y: float) -> float:
        """From a point to the middle line."""
        return float(np.hypot(self.x - x, self.y - y).min())


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Something that others must not hit. size_m is length, width, height; speed along the road, negative against s."""

    name: str
    category: str
    colour: str
    size_m: tuple[float, float, float]
    start_s: float
    d: float
    speed: float

    def pose(self, road: Road, time_s: float) -> tuple[float, float, float]:
        """(x, y, yaw): on the road, facing the way it goes."""
        x, y, heading = road.at(self.start_s + self.speed * time_s, self.d)
        against = self.speed < 0 or (self.speed == 0 and self.d > 0)
        return x, y, heading + math.pi * against


def strip(scene: Scene, road: Road, left: float, right: float, z: float, material: str, tile_m: float) -> str:
    """A band along the whole road between two offsets, with thickness so that it is a solid."""
    rows, texcoords = [], []
    stations = np.arange(0, road.length_m + 1, 4.0)
    for s in stations:
        for d in (left, right):
            x, y, _ = road.at(s, d)
            rows += [(x, y, z), (x, y, z - 0.3)]
            texcoords += [(s / tile_m, d / tile_m)] * 2
    faces = []
    for i in range(len(stations) - 1):
        a, b = 4 * i, 4 * (i + 1)  # left top, left bottom, right top, right bottom
        faces += [
            (a, a + 2, b + 2),
            (a, b + 2, b),
            (a, b, b + 1),
            (a, b + 1, a + 1),
            (a + 2, a + 3, b + 3),
            (a + 2, b + 3, b + 2),
        ]
        faces += [(a + 1, b + 1, b + 3), (a + 1, b + 3, a + 3)]
    name = scene.mesh(np.array(rows), np.array(faces), np.array(texcoords))
    return f'<geom type="mesh" mesh="{name}" material="{material}" contype="0" conaffinity="0" {NO_SHADOW}/>'


def lay_road(scene: Scene, road: Road) -> str:
    """Ground, asphalt, pavements and lane marks; returns what a caption calls the street."""
    under = scene.pick("grass", "concrete")
    ground = scene.tinted(under, tile_m=4.0)
    asphalt, pavement = scene.material(scene.pick("asphalt"), shine=0.02), scene.surface("concrete", "tile")
    white = scene.paint((0.9, 0.9, 0.88), shine=0)
    scene.add(
        f'<geom type="plane" size="600 600 1" material="{ground}" {NO_SHADOW}/>',
        strip(scene, road, ROAD_HALF, -ROAD_HALF, 0.03, asphalt, 4.0),
        strip(scene, road, ROAD_HALF + KERB, ROAD_HALF, 0.14, pavement, 2.0),
        strip(scene, road, -ROAD_HALF, -ROAD_HALF - KERB, 0.14, pavement, 2.0),
    )
    dash = scene.mesh(np.array([(x, y, z) for x in (-1.4, 1.4) for y in (-0.07, 0.07) for z in (-0.01, 0.01)]))
    for s in np.arange(2, road.length_m - 2, 6.0):
        x, y, heading = road.at(s, 0)
        where = f'pos="{numbers((x, y, 0.04))}" euler="0 0 {math.degrees(heading):.4f}"'
        scene.add(f'<geom type="mesh" mesh="{dash}" {where} material="{white}" contype="0" conaffinity="0" {NO_SHADOW}/>')
    return "a street with lawns, houses and trees" if under.startswith("grass") else "a paved town street with houses and trees"


def build_houses(scene: Scene, road: Road) -> None:
    """Fronts on both sides, with gaps, and none on the road where it bends back."""
    rng = scene.rng
    fronts = [scene.material(scene.pick("facade")) for _ in range(6)]
    roofs = [scene.material(scene.pick("roof")) for _ in range(2)]
    for side in (-1, 1):
        s = rng.uniform(0, 8)
        while s < road.length_m:
            wide, deep = rng.uniform(5, 9), rng.uniform(4, 6)
            back = ROAD_HALF + KERB + rng.uniform(1.5, 5) + deep
            x, y, heading = road.at(s + wide, side * back)
            if rng.random() < 0.86 and road.distance(x, y) > back - 1.5:
                high = float(rng.choice([3.0, 4.5, 4.5, 6.0, 7.5, 9.0]))
                yaw = math.degrees(heading)
                front = fronts[rng.integers(len(fronts))]
                scene.add(scene.box((wide, deep, high), (x, y, high), front, tile_m=12.0, yaw=yaw))
                if high < 6:
                    roof = roofs[rng.integers(len(roofs))]
                    half = (wide + 0.3, deep + 0.4, rng.uniform(2, 3.5))
                    scene.add(scene.gable(half, (x, y, 2 * high), roof, tile_m=3, yaw=yaw))
            s += 2 * wide + rng.uniform(0.5, 7)


def plant_trees(scene: Scene, road: Road) -> None:
    """Trees and lamp posts at the pavements' edges."""
    rng = scene.rng
    bark = scene.material(scene.pick("bark"), cube=True)
    leaves = [scene.material(scene.pick("leaves"), cube=True) for _ in range(2)]
    metal, glow = scene.paint((0.3, 0.31, 0.33)), scene.paint((1, 0.96, 0.85), glow=0.6)
    for side in (-1, 1):
        for i, s in enumerate(np.arange(4, road.length_m - 2, 10.0)):
            x, y, heading = road.at(s + rng.uniform(-2, 2), side * (ROAD_HALF + KERB + 0.5))
            if i % 3 == 2:
                arm = side * 0.7
                parts = scene.shape("cylinder", (0.07, 2.6), (0, 0, 2.6), metal, shadow=False)
                parts += scene.shape("box", (0.05, 0.7, 0.04), (0, -arm, 5.2), metal, shadow=False)
                parts += scene.shape("box", (0.12, 0.25, 0.05), (0, -2 * arm, 5.15), glow, shadow=False)
            elif rng.random() < 0.7:
                trunk, size = rng.uniform(0.9, 1.4), rng.uniform(1.0, 1.7)
                parts = scene.shape("cylinder", (0.13, trunk), (0, 0, trunk), bark)
                crown = (size, size, size * rng.uniform(0.9, 1.3))
                parts += scene.shape("ellipsoid", crown, (0, 0, 2 * trunk + size * 0.6), leaves[i % 2])
            else:
                continue
            scene.add(f'<body pos="{numbers((x, y, 0.1))}" euler="0 0 {math.degrees(heading):.4f}">{parts}</body>')


def vehicle(scene: Scene, name: str, category: str, colour: str) -> str:
    """The body of a car, van or truck, to be moved as a mocap body."""
    (length, width, height, bonnet), (rear, front) = MODELS[category]
    paint = scene.paint(PAINTS[colour][0], shine=0.7)
    glass, rubber = scene.paint((0.07, 0.09, 0.11), shine=0.9), scene.paint((0.05, 0.05, 0.055), shine=0.05)
    lamp, tail = scene.paint((1, 0.98, 0.88), glow=0.4), scene.paint((0.75, 0.03, 0.03), glow=0.35)
    x, y = length / 2, width / 2

    def hull(points: list[tuple[float, float, float]], material: str) -> str:
        """The convex body through (x, half width, z) on both sides."""
        vertices = np.array([(px, sign * py, pz) for px, py, pz in points for sign in (-1, 1)])
        return f'<geom type="mesh" mesh="{scene.mesh(vertices)}" material="{material}" contype="0" conaffinity="0"/>'

    low = 0.3
    parts = [hull([(-x, y * 0.94, low), (x, y * 0.9, low), (x, y * 0.86, bonnet * 0.78), (x * 0.9, y * 0.96, bonnet * 0.93),
                   (front * length, y, bonnet), (-x * 0.97, y, bonnet), (-x, y * 0.94, bonnet * 0.8)], paint)]  # fmt: skip
    a, b, lean = rear * length, front * length, (height - bonnet) * (0.75 if category != "truck" else 0.15)
    back = 0.1 if category in ("van", "truck") else 0.55
    parts.append(hull([(a, y * 0.95, bonnet), (b + 0.25, y * 0.95, bonnet), (b + 0.25 - lean, y * 0.78, height - 0.06),
                       (a + lean * back, y * 0.78, height - 0.06)], glass))  # fmt: skip
    parts.append(hull([(a + lean * back, y * 0.79, height - 0.08), (b + 0.25 - lean, y * 0.79, height - 0.08),
                       (b + 0.1 - lean, y * 0.74, height), (a + lean * back + 0.15, y * 0.74, height)], paint))  # fmt: skip
    if category == "van":
        # Two centimetres over the edge of the glass behind it: faces at the same place flicker.
        load, middle = (b - a) * 0.36 + 0.02, (height + bonnet) / 2
        parts.append(scene.shape("box", (load, y * 0.97, (height - bonnet) / 2), (a + load - 0.04, 0, middle), paint))
    if category == "truck":
        cover = scene.surface("plaster", pale=True, cube=True)
        parts.append(scene.shape("box", (length * 0.34, y, (height - 0.7) / 2), (-length * 0.15, 0, (height + 0.7) / 2), cover))
    for sx in (-0.31, 0.32):
        for side in (-1, 1):
            parts.append(scene.shape("cylinder", (0.33, 0.11), (sx * length, side * (y - 0.1), 0.33), rubber, euler=(90, 0, 0)))
    for side in (-1, 1):
        parts.append(scene.shape("box", (0.03, 0.17, 0.07), (x - 0.02, side * (y * 0.66), bonnet * 0.72), lamp))
        parts.append(scene.shape("box", (0.03, 0.14, 0.08), (-x + 0.01, side * (y * 0.72), bonnet * 0.78), tail))
    return f'<body name="{name}" mocap="true">{"".join(parts)}</body>'


def pedestrian(scene: Scene, name: str) -> str:
    """A simple figure, to be moved as a mocap body."""
    rng = scene.rng
    colours = (rng.uniform(0.1, 0.8, 3), rng.uniform(0.05, 0.35, 3), (0.78, 0.58, 0.46))
    coat, legs, skin = (scene.paint(tuple(colour), shine=0.05) for colour in colours)
    parts = [
        scene.shape("capsule", (0.19, 0.25), (0, 0, 1.12), coat),
        *(scene.shape("capsule", (0.08, 0.34), (0, s * 0.1, 0.42), legs) for s in (-1, 1)),
        *(scene.shape("capsule", (0.05, 0.26), (0, s * 0.25, 1.1), coat, euler=(s * 6, 0, 0)) for s in (-1, 1)),
        scene.shape("sphere", (0.13,), (0, 0, 1.62), skin),
    ]
    return f'<body name="{name}" mocap="true">{"".join(parts)}</body>'


def populate(scene: Scene, ego_s: float, duration_s: float, cruise: float) -> list[Agent]:
    """Oncoming traffic, a car ahead, one behind, parked cars and people; nobody in the way of the ego car."""
    rng, agents = scene.rng, []
    colours, shares = list(PAINTS), [share for _, share in PAINTS.values()]

    def add(category: str, s: float, d: float, speed: float) -> None:
        name = f"agent{len(agents)}"
        if category == "pedestrian":
            scene.add(pedestrian(scene, name))
            agents.append(Agent(name=name, category=category, colour="", size_m=(0.4, 0.6, 1.75), start_s=s, d=d, speed=speed))
            return
        colour = str(rng.choice(colours, p=shares))
        scene.add(vehicle(scene, name, category, colour))
        length, width, height, _ = MODELS[category][0]
        agents.append(
            Agent(name=name, category=category, colour=colour, size_m=(length, width, height), start_s=s, d=d, speed=speed)
        )

    def kind() -> str:
        return str(rng.choice(list(MODELS), p=[0.45, 0.3, 0.17, 0.08]))

    add(kind(), ego_s + rng.uniform(14, 24), -LANE, cruise * rng.uniform(0.95, 1.15))
    if rng.random() < 0.7:
        add(kind(), ego_s - rng.uniform(12, 20), -LANE, cruise * rng.uniform(0.75, 0.92))
    s = ego_s + rng.uniform(5, 20)
    while s < ego_s + 2.2 * cruise * duration_s + 50:
        add(kind(), s, LANE, -cruise * 0.9)
        s += rng.uniform(12, 40)
    for side in (-1, 1):
        s = ego_s - 20 + rng.uniform(0, 10)
        while s < ego_s + cruise * duration_s + 40:
            roll = rng.random()
            if roll < 0.3:
                # Parked on the pavement: a metre from the cameras that pass, and people still get by.
                add(str(rng.choice(["car", "hatchback", "van"], p=[0.5, 0.35, 0.15])), s, side * (ROAD_HALF + 1.0), 0.0)
            elif roll < 0.6:
                add("pedestrian", s, side * (ROAD_HALF + KERB - 0.4), float(rng.uniform(0.8, 1.5) * rng.choice([-1, 1])))
            s += rng.uniform(8, 14)
    return agents
