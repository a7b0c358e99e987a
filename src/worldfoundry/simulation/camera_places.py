"""Places for a camera to fly through: furnished rooms and gardens with houses, drawn from a seed.

Nothing moves here but the camera. Each piece is a named body, so that a caption can say what is really in the picture.
Local frames of furniture: the back is towards +y, the floor at z = 0. Metres, half sizes, degrees.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from worldfoundry.simulation.scene import COLOURS, Scene, numbers

ROOM_PATTERNS = {"wood": 4, "plain_wood": 3, "tile": 3, "plaster": 2, "brick": 2, "fabric": 2, "marble": 1, "stripes": 1}
THINGS = {"checker": 1, "speckle": 1, "books": 3, "painting": 5, "leaves": 2}
OUTDOOR_PATTERNS = {"grass": 3, "gravel": 1, "sand": 1, "bark": 2, "roof": 3, "facade": 5, "concrete": 1}
PATTERNS = {**ROOM_PATTERNS, **THINGS, **OUTDOOR_PATTERNS}


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """An upright cylinder that the camera keeps away from."""

    x: float
    y: float
    radius: float
    top: float


@dataclass(kw_only=True)
class Place:
    """What a flight has to know: how it is called, where one may be (half sizes and heights), what is in the way, what to look at."""

    words: str
    half: tuple[float, float]
    heights: tuple[float, float]
    focus: tuple[float, float, float]
    nouns: dict[str, str] = field(default_factory=dict)
    obstacles: list[Obstacle] = field(default_factory=list)
    light: str = ""  # how a caption calls it

    def put(self, scene: Scene, noun: str, parts: list[str], x: float, y: float, yaw: float, radius: float, top: float) -> None:
        """Place a piece as a body of its own."""
        name = f"{noun.replace(' ', '_')}_{len(self.nouns)}"
        self.nouns[name] = noun
        self.obstacles.append(Obstacle(x=x, y=y, radius=radius, top=top))
        where = f'pos="{numbers((x, y, 0))}" euler="0 0 {yaw:.5g}"'
        scene.add(f'<body name="{name}" {where}>{"".join(parts)}</body>')


def coloured(scene: Scene, *patterns: str) -> tuple[str, str]:
    """(colour word, material) for things to be named by their colour."""
    colour = list(COLOURS)[scene.rng.integers(len(COLOURS))]
    return colour, scene.material(scene.pick(*patterns), COLOURS[colour], cube=True, shine=0.1)


# --- rooms ---------------------------------------------------------------------------------------------------------


def room(scene: Scene) -> Place:
    """A closed room: floor, ceiling, walls with windows, door and pictures; furniture along the walls, a table, things."""
    rng = scene.rng
    x, y, height = rng.uniform(2.3, 3.3), rng.uniform(2.1, 3.0), rng.uniform(2.5, 2.9)
    floor_kind = str(rng.choice(["wood", "tile", "fabric"]))
    floor = scene.surface(floor_kind, pale=True)
    paper = scene.pick("plaster", "brick", "stripes")
    walls = scene.tinted(paper, pale=True)
    ceiling = scene.paint((0.93, 0.93, 0.91), shine=0, glow=0.25)
    scene.add(
        scene.box((x, y, 0.05), (0, 0, -0.05), floor, tile_m=1.4, shadow=False),
        scene.box((x, y, 0.05), (0, 0, height + 0.05), ceiling, shadow=False),
    )
    for k in range(4):
        length, away = ((y, x), (x, y))[k % 2]
        angle = math.radians(90 * k)
        position = ((away + 0.05) * math.cos(angle), (away + 0.05) * math.sin(angle), height / 2)
        scene.add(scene.box((0.05, length + 0.1, height / 2), position, walls, tile_m=1.6, yaw=90.0 * k, shadow=False))
    words = {"wood": "wooden floor", "tile": "tiled floor", "fabric": "carpeted floor"}[floor_kind]
    around = {"plaster": "plain walls", "brick": "brick walls", "stripes": "striped wallpaper"}[paper.split(".")[0]]
    place = Place(
        words=f"a room with {around} and a {words}",
        half=(x - 0.35, y - 0.35),
        heights=(0.7, height - 0.5),
        focus=(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.4)), 0.75),
    )
    dining_table(scene, place)
    along_walls(scene, place, x, y, height)
    for _ in range(rng.integers(2, 6)):
        toy(scene, place, x, y)
    place.light = lights_indoors(scene, height)
    return place


def lights_indoors(scene: Scene, height: float) -> str:
    """One light that casts shadows, as if through the ceiling, a weak one against it, and a lamp to look at; returns its words."""
    rng = scene.rng
    angle, lean, warm = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.5), rng.uniform(-0.05, 0.07)
    side = (lean * math.cos(angle), lean * math.sin(angle))
    main, fill = numbers((0.5 + warm, 0.5, 0.47 - warm)), numbers((0.2, 0.2, 0.21))
    scene.add(
        f'<light directional="true" pos="{numbers((-3 * side[0], -3 * side[1], 3))}" dir="{numbers((*side, -1))}" '
        f'diffuse="{main}" specular=".15 .15 .15"/>',
        f'<light directional="true" castshadow="false" dir="{numbers((-2 * side[0], -2 * side[1], -0.5))}" diffuse="{fill}" '
        f'specular="0 0 0"/>',
        scene.shape("sphere", (0.16,), (0, 0, height - 0.25), scene.paint((1, 0.97, 0.88), glow=0.9)),
        scene.shape("cylinder", (0.01, 0.06), (0, 0, height - 0.05), scene.paint((0.2, 0.2, 0.2))),
    )
    return "in warm light" if warm > 0.03 else "in cool light" if warm < -0.015 else "in soft, even light"


def dining_table(scene: Scene, place: Place) -> None:
    """A table near the middle with things on it, and chairs around."""
    rng, (x, y, _) = scene.rng, place.focus
    top, legs = scene.surface("plain_wood"), scene.surface("plain_wood", cube=True)
    half = (rng.uniform(0.45, 0.7), rng.uniform(0.32, 0.45))
    parts = [scene.box((*half, 0.025), (0, 0, 0.72), top)]
    for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        parts.append(scene.shape("cylinder", (0.03, 0.35), (sx * (half[0] - 0.06), sy * (half[1] - 0.06), 0.35), legs))
    for i in range(rng.integers(3, 7)):
        size, kind = rng.uniform(0.04, 0.09), str(rng.choice(["box", "sphere", "cylinder"]))
        _, material = coloured(scene, "fabric", "marble", "stripes", "checker", "speckle")
        at = (half[0] * (-0.8 + 1.6 * (i + rng.uniform(0.2, 0.8)) / 7), half[1] * rng.uniform(-0.7, 0.7), 0.745 + size)
        parts.append(scene.shape(kind, (size,) * 3 if kind == "box" else (size, size), at, material))
    yaw = float(rng.uniform(0, 180))
    place.put(scene, "wooden table", parts, x, y, yaw, max(half) + 0.1, 0.95)
    for k in range(rng.integers(1, 5)):
        angle = math.radians(yaw + 90 * k)
        away = half[k % 2] + 0.25
        chair(scene, place, x + away * math.cos(angle), y + away * math.sin(angle), math.degrees(angle) - 90)


def chair(scene: Scene, place: Place, x: float, y: float, yaw: float) -> None:
    seat = scene.surface("plain_wood")
    parts = [scene.box((0.2, 0.2, 0.02), (0, 0, 0.44), seat), scene.box((0.2, 0.02, 0.22), (0, 0.19, 0.68), seat)]
    for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        parts.append(scene.box((0.018, 0.018, 0.21), (sx * 0.17, sy * 0.17, 0.21), seat))
    place.put(scene, "wooden chair", parts, x, y, yaw, 0.28, 0.95)


def along_walls(scene: Scene, place: Place, x: float, y: float, height: float) -> None:
    """Each wall gets a piece of furniture, and a window, a door or pictures on either side of it."""
    rng = scene.rng
    pieces = [sofa, bookshelf, cupboard, bed, plant]
    openings = [window, door, window, picture]
    order, sights = rng.permutation(len(pieces)), rng.permutation(len(openings))
    for k in range(4):
        along, away = ((y, x), (x, y))[k % 2]
        shift = float(rng.uniform(-0.35, 0.35) * along)
        noun, parts, half_width, half_depth, top = pieces[order[k]](scene)
        angle, yaw = math.radians(90 * k), 90.0 * k - 90
        out, side = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        px, py = out * (away - half_depth - 0.02) + side * shift
        place.put(scene, noun, parts, float(px), float(py), yaw, max(half_width, half_depth) + 0.05, top)
        # Beside the piece, on the longer part of the wall.
        sign = -1.0 if shift > 0 else 1.0
        noun, parts, _, _, _ = openings[sights[k]](scene, height)
        gx, gy = out * (away - 0.01) + side * sign * along * 0.62
        scene.add(f'<body name="{noun}_{k}" pos="{numbers((gx, gy, 0))}" euler="0 0 {yaw:.5g}">{"".join(parts)}</body>')
        place.nouns[f"{noun}_{k}"] = noun


Piece = tuple[str, list[str], float, float, float]


def sofa(scene: Scene) -> Piece:
    colour, material = coloured(scene, "fabric")
    width = float(scene.rng.uniform(0.75, 1.0))
    parts = [
        scene.shape("box", (width, 0.4, 0.21), (0, 0, 0.21), material),
        scene.shape("box", (width, 0.1, 0.21), (0, 0.3, 0.6), material),
        *(scene.shape("box", (0.09, 0.4, 0.3), (s * (width - 0.08), 0, 0.3), material) for s in (-1, 1)),
    ]
    return f"{colour} sofa", parts, width, 0.4, 0.85


def bookshelf(scene: Scene) -> Piece:
    width, height = float(scene.rng.uniform(0.4, 0.7)), float(scene.rng.uniform(0.75, 1.0))
    frame, front = scene.surface("plain_wood"), scene.material(scene.pick("books"))
    parts = [
        scene.box((width, 0.15, height), (0, 0, height), frame),
        scene.box((width - 0.03, 0.005, height - 0.04), (0, -0.152, height), front, tile_m=height - 0.04),
    ]
    return "bookshelf", parts, width, 0.16, 2 * height


def cupboard(scene: Scene) -> Piece:
    width, height = float(scene.rng.uniform(0.4, 0.6)), float(scene.rng.uniform(0.45, 1.0))
    wood, knob = scene.surface("plain_wood", "wood"), scene.paint((0.75, 0.72, 0.6), shine=0.8)
    parts = [
        scene.box((width, 0.25, height), (0, 0, height), wood, tile_m=0.9),
        scene.box((0.004, 0.004, height - 0.03), (0, -0.25, height), scene.paint((0.1, 0.08, 0.06))),
        *(scene.shape("sphere", (0.02,), (s * 0.06, -0.26, height), knob) for s in (-1, 1)),
    ]
    return "cupboard", parts, width, 0.26, 2 * height


def bed(scene: Scene) -> Piece:
    colour, cover = coloured(scene, "fabric", "stripes", "checker")
    wood, white = scene.surface("plain_wood"), scene.paint((0.94, 0.94, 0.92), shine=0.02)
    parts = [
        scene.box((0.5, 0.95, 0.14), (0, 0, 0.14), wood),
        scene.shape("box", (0.49, 0.93, 0.1), (0, 0, 0.36), cover),
        scene.shape("ellipsoid", (0.34, 0.2, 0.08), (0, 0.68, 0.48), white),
        scene.box((0.5, 0.03, 0.42), (0, 0.94, 0.42), wood),
    ]
    return f"bed with a {colour} cover", parts, 0.9, 0.97, 0.85


def plant(scene: Scene) -> Piece:
    rng = scene.rng
    pot, leaf = scene.surface("brick", "plaster", cube=True), scene.material(scene.pick("leaves"), cube=True)
    parts = [scene.shape("cylinder", (0.16, 0.17), (0, 0, 0.17), pot)]
    for _ in range(7):
        angle, tilt = rng.uniform(0, 360), rng.uniform(15, 60)
        out = 0.26 * math.sin(math.radians(tilt))
        at = (out * math.cos(math.radians(angle)), out * math.sin(math.radians(angle)), rng.uniform(0.55, 1.0))
        parts.append(scene.shape("ellipsoid", (0.07, 0.025, 0.28), at, leaf, euler=(0, tilt, angle)))
    return "plant", parts, 0.3, 0.4, 1.25


def window(scene: Scene, height: float) -> Piece:
    sky, frame = scene.paint((0.66, 0.82, 0.97), shine=0.5, glow=0.55), scene.paint((0.95, 0.95, 0.94))
    middle, half = height * 0.58, height * 0.22
    parts = [scene.box((0.5, 0.015, half), (0, 0, middle), sky)]
    parts += [scene.box((0.54, 0.025, 0.03), (0, 0, middle + s * half), frame) for s in (-1, 0, 1)]
    parts += [scene.box((0.03, 0.025, half), (s * 0.51, 0, middle), frame) for s in (-1, 0, 1)]
    return "window", parts, 0.55, 0.03, 0


def door(scene: Scene, _height: float) -> Piece:
    wood, frame = scene.surface("plain_wood", "wood"), scene.paint((0.9, 0.9, 0.88))
    parts = [scene.box((0.42, 0.02, 1.0), (0, 0, 1.0), wood, tile_m=0.8)]
    parts += [scene.box((0.04, 0.03, 1.02), (s * 0.45, 0, 1.02), frame) for s in (-1, 1)]
    parts += [scene.box((0.49, 0.03, 0.04), (0, 0, 2.03), frame)]
    parts += [scene.shape("sphere", (0.03,), (0.34, -0.04, 1.0), scene.paint((0.8, 0.75, 0.5), shine=0.9))]
    return "door", parts, 0.5, 0.03, 0


def picture(scene: Scene, height: float) -> Piece:
    wide = float(scene.rng.uniform(0.3, 0.5))
    art, frame = scene.material(scene.pick("painting")), scene.paint((0.25, 0.18, 0.1))
    parts = [
        scene.box((wide + 0.03, 0.012, wide * 0.75 + 0.03), (0, 0, height * 0.6), frame),
        scene.box((wide, 0.004, wide * 0.75), (0, -0.014, height * 0.6), art, tile_m=None),
    ]
    return "picture", parts, wide, 0.02, 0


def toy(scene: Scene, place: Place, x: float, y: float) -> None:
    """A ball or box on the floor, away from the middle."""
    rng, size = scene.rng, float(scene.rng.uniform(0.08, 0.18))
    kind = str(rng.choice(["sphere", "box"]))
    colour, material = coloured(scene, "fabric", "marble", "stripes", "checker", "speckle")
    at = rng.uniform(-0.75, 0.75, 2) * (x, y)
    parts = [scene.shape(kind, (size,) * (1 if kind == "sphere" else 3), (0, 0, size), material)]
    noun = f"{colour} {'ball' if kind == 'sphere' else 'box'}"
    place.put(scene, noun, parts, float(at[0]), float(at[1]), float(rng.uniform(0, 90)), size * 1.3, 2 * size)


# --- outdoors ------------------------------------------------------------------------------------------------------


def outdoors(scene: Scene) -> Place:
    """A meadow with houses, trees, bushes, rocks and a path, hills behind them."""
    rng = scene.rng
    ground = str(rng.choice(["grass", "grass", "gravel", "sand"]))
    tile_m = float(rng.uniform(1.5, 2.5))
    # A box: as a plane of this size, the ground alone took as long as all the rest (measured with llvmpipe).
    scene.add(scene.box((90, 90, 0.05), (0, 0, -0.05), scene.surface(ground), tile_m=tile_m, shadow=False))
    words = {"grass": "a meadow", "gravel": "a gravel yard", "sand": "a sandy yard"}[ground]
    place = Place(words=words, half=(7.5, 7.5), heights=(0.9, 4.5), focus=(0.0, 0.0, 1.4))
    path = scene.surface("gravel", "sand", "concrete", "tile", tile_m=1.5)
    scene.add(
        scene.box((14, 0.8, 0.01), (0, float(rng.uniform(-4, 4)), 0.004), path, yaw=float(rng.uniform(-15, 15)), shadow=False)
    )
    hills(scene)
    spots = [(9.5 * math.cos(a), 9.5 * math.sin(a)) for a in rng.uniform(0, 2 * math.pi) + np.arange(5) * 2 * math.pi / 5]
    for x, y in spots[: rng.integers(3, 6)]:
        house(scene, place, x, y)
    for maker, number in ((tree, rng.integers(4, 9)), (bush, rng.integers(3, 8)), (rock, rng.integers(2, 6))):
        for _ in range(number):
            free = free_spot(place, rng)
            if free is not None:
                maker(scene, place, *free)
    angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 0.9)
    side = (lean * math.cos(angle), lean * math.sin(angle))
    scene.add(
        f'<light directional="true" pos="{numbers((-8 * side[0], -8 * side[1], 8))}" dir="{numbers((*side, -1))}" '
        f'diffuse=".72 .69 .62" specular=".1 .1 .1"/>'
    )
    place.light = "under a low sun with long shadows" if lean > 0.65 else "in bright sunshine from high above"
    return place


def free_spot(place: Place, rng: np.random.Generator, margin: float = 0.9) -> tuple[float, float] | None:
    """A place on the ground away from all obstacles; None after many tries."""
    for _ in range(40):
        x, y = rng.uniform(-9, 9, 2)
        if all(math.hypot(x - o.x, y - o.y) > o.radius + margin for o in place.obstacles):
            return float(x), float(y)
    return None


def hills(scene: Scene) -> None:
    material = scene.surface("grass", cube=True)
    for angle in np.arange(0, 360, 30) + scene.rng.uniform(0, 30):
        away, a = scene.rng.uniform(55, 75), math.radians(angle)
        size = (scene.rng.uniform(16, 28), scene.rng.uniform(16, 28), scene.rng.uniform(4, 11))
        scene.add(scene.shape("ellipsoid", size, (away * math.cos(a), away * math.sin(a), -0.5), material, shadow=False))


def house(scene: Scene, place: Place, x: float, y: float) -> None:
    rng = scene.rng
    wide, deep, high = rng.uniform(1.8, 2.8), rng.uniform(1.6, 2.2), rng.uniform(1.4, 2.4)
    walls = scene.material(scene.pick("facade"))
    roof = scene.material(scene.pick("roof"))
    parts = [
        scene.box((wide, deep, high), (0, 0, high), walls, tile_m=4 * 1.5),
        scene.gable((wide + 0.25, deep + 0.3, rng.uniform(1.0, 1.7)), (0, 0, 2 * high - 0.02), roof, tile_m=1.6),
        scene.box((0.42, 0.03, 0.95), (rng.uniform(-0.5, 0.5) * wide, -deep - 0.01, 0.95), scene.surface("plain_wood")),
    ]
    place.put(scene, "house", parts, x, y, math.degrees(math.atan2(y, x)) - 90, max(wide, deep) + 0.5, 2 * high + 2)


def tree(scene: Scene, place: Place, x: float, y: float) -> None:
    rng = scene.rng
    bark, leaf = scene.material(scene.pick("bark"), cube=True), scene.material(scene.pick("leaves"), cube=True)
    trunk = rng.uniform(0.8, 1.4)
    parts = [scene.shape("cylinder", (rng.uniform(0.1, 0.2), trunk), (0, 0, trunk), bark)]
    for _ in range(rng.integers(2, 5)):
        size = rng.uniform(0.6, 1.1)
        at = (*rng.uniform(-0.45, 0.45, 2), 2 * trunk + rng.uniform(0.1, 1.0))
        parts.append(scene.shape("ellipsoid", (size, size * rng.uniform(0.8, 1), size * rng.uniform(0.7, 1)), at, leaf))
    place.put(scene, "tree", parts, x, y, 0.0, 1.25, 2 * trunk + 2.2)


def bush(scene: Scene, place: Place, x: float, y: float) -> None:
    size = scene.rng.uniform(0.3, 0.6)
    leaf = scene.material(scene.pick("leaves"), cube=True)
    parts = [scene.shape("ellipsoid", (size, size * 0.9, size * 0.8), (0, 0, size * 0.5), leaf)]
    place.put(scene, "bush", parts, x, y, 0.0, size, size * 1.4)


def rock(scene: Scene, place: Place, x: float, y: float) -> None:
    size = scene.rng.uniform(0.2, 0.5)
    stone = scene.surface("concrete", "gravel", cube=True)
    parts = [scene.shape("ellipsoid", (size, size * 0.7, size * 0.6), (0, 0, size * 0.3), stone)]
    place.put(scene, "rock", parts, x, y, float(scene.rng.uniform(0, 180)), size, size)


PLACES = {"room": room, "outdoors": outdoors}
