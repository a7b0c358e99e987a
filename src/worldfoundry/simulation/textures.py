"""Procedural textures: small square pictures that repeat without a seam, made in NumPy once per process.

`make_bank` draws several variants of each pattern; scenes pick from the bank and tint the neutral ones. A variant costs a few
milliseconds, so a bank is made once for many episodes. All pictures are uint8 (N, N, 3); inside, float in 0 … 255.
"""

import io
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

Rng = np.random.Generator


def noise(rng: Rng, size: int, roughness: float = 1.2, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Seamless cloud noise in 0 … 1, (size, size): spectrum 1 / f^roughness. `stretch` > 1 smears along y or x."""
    fy = np.fft.fftfreq(size)[:, None] * size * stretch[0]
    fx = np.fft.rfftfreq(size)[None, :] * size * stretch[1]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1.0
    amplitude = frequency**-roughness
    amplitude[0, 0] = 0.0
    phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
    field = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(size, size))
    return np.clip(0.5 + field / (5.0 * field.std()), 0, 1)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (y, x) in 0 … 1."""
    y, x = np.mgrid[0:size, 0:size] / size
    return y, x


def shade(colour: Iterable[float], brightness: np.ndarray) -> np.ndarray:
    """One colour, scaled pixel by pixel."""
    return np.asarray(tuple(colour), float) * brightness[..., None]


def wood(rng: Rng, size: int) -> np.ndarray:
    boards = int(rng.integers(3, 7))
    _, x = grid(size)
    board = np.floor(x * boards).astype(int)
    tone = rng.uniform(0.78, 1.12, boards)[board]
    grain = noise(rng, size, 1.0, (2.0, 0.15))
    seams = np.where((x * boards) % 1 < 0.035, 0.55, 1.0)
    base = np.array([150, 104, 62]) * rng.uniform(0.7, 1.25) + rng.uniform(-12, 12, 3)
    return shade(base, (0.62 + 0.75 * grain) * tone * seams)


def plain_wood(rng: Rng, size: int) -> np.ndarray:
    _, x = grid(size)
    grain = noise(rng, size, 1.1, (2.0, 0.12))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * x + 2.2 * grain))
    base = np.array([176, 126, 78]) * rng.uniform(0.65, 1.15) + rng.uniform(-10, 10, 3)
    return shade(base, 0.72 + 0.22 * rings + 0.3 * grain)


def brick(rng: Rng, size: int) -> np.ndarray:
    y, x = grid(size)
    row = np.floor(y * 8).astype(int)
    shifted = (x * 4 + 0.5 * (row % 2)) % 4
    column = np.floor(shifted).astype(int)
    mortar = ((y * 8) % 1 < 0.11) | (shifted % 1 < 0.055)
    tone = rng.uniform(0.75, 1.12, (8, 4))[row, column]
    base = np.array([148, 74, 54]) * rng.uniform(0.75, 1.2) + rng.uniform(-14, 14, 3)
    bricks = shade(base, tone)
    return np.where(mortar[..., None], [168, 163, 154], bricks) * (0.72 + 0.5 * noise(rng, size, 0.9))[..., None]


def tile(rng: Rng, size: int) -> np.ndarray:
    y, x = grid(size)
    joint = ((x * 4) % 1 < 0.035) | ((y * 4) % 1 < 0.035)
    tone = rng.uniform(0.92, 1.05, (4, 4))[np.floor(y * 4).astype(int), np.floor(x * 4).astype(int)]
    base = rng.uniform(130, 205) + rng.uniform(-12, 12, 3)
    return shade(base, np.where(joint, 0.62, tone) * (0.86 + 0.28 * noise(rng, size, 1.3)))


def checker(rng: Rng, size: int) -> np.ndarray:
    y, x = grid(size)
    dark = (np.floor(x * 4) + np.floor(y * 4)) % 2 > 0
    return shade((235, 235, 232), np.where(dark, rng.uniform(0.35, 0.6), 1.0) * (0.9 + 0.2 * noise(rng, size)))


def stripes(rng: Rng, size: int) -> np.ndarray:
    _, x = grid(size)
    dark = (x * float(rng.integers(3, 7))) % 1 < rng.uniform(0.3, 0.6)
    return shade((238, 238, 235), np.where(dark, rng.uniform(0.35, 0.6), 1.0) * (0.9 + 0.2 * noise(rng, size)))


def speckle(rng: Rng, size: int) -> np.ndarray:
    spots = noise(rng, size, 0.75) > rng.uniform(0.62, 0.7)
    return shade((230, 230, 228), np.where(spots, 0.5, 1.0) * (0.88 + 0.24 * noise(rng, size)))


def fabric(rng: Rng, size: int) -> np.ndarray:
    y, x = grid(size)
    weave = np.sin(x * 2 * np.pi * 32) * np.sin(y * 2 * np.pi * 32) > 0
    return shade((226, 225, 222), 0.74 + 0.14 * weave + 0.24 * noise(rng, size, 1.0))


def plaster(rng: Rng, size: int) -> np.ndarray:
    warm = rng.uniform(-8, 8)
    return shade((224 + warm, 222, 218 - warm), 0.86 + 0.22 * noise(rng, size, 0.9))


def concrete(rng: Rng, size: int) -> np.ndarray:
    return shade(rng.uniform(125, 165) + rng.uniform(-5, 5, 3), 0.72 + 0.56 * noise(rng, size, 0.9))


def marble(rng: Rng, size: int) -> np.ndarray:
    veins = np.abs(noise(rng, size, 1.6) - 0.5) < 0.018
    return shade((222, 220, 216), np.where(veins, 0.72, 1.0) * (0.84 + 0.26 * noise(rng, size, 1.6)))


def grass(rng: Rng, size: int) -> np.ndarray:
    base = np.array([74, 112, 48]) * rng.uniform(0.75, 1.2) + rng.uniform(-10, 10, 3)
    return shade(base, (0.5 + noise(rng, size, 0.6)) * (0.75 + 0.5 * noise(rng, size, 1.5)))


def gravel(rng: Rng, size: int) -> np.ndarray:
    return shade(rng.uniform(120, 160) + rng.uniform(-5, 5, 3), 0.45 + 1.1 * noise(rng, size, 0.45))


def sand(rng: Rng, size: int) -> np.ndarray:
    base = np.array([196, 172, 130]) + rng.uniform(-12, 12, 3)
    return shade(base, 0.8 + 0.4 * noise(rng, size, 0.8))


def asphalt(rng: Rng, size: int) -> np.ndarray:
    return shade(
        rng.uniform(78, 100) + rng.uniform(-3, 3, 3), (0.7 + 0.6 * noise(rng, size, 0.35)) * (0.85 + 0.3 * noise(rng, size))
    )


def leaves(rng: Rng, size: int) -> np.ndarray:
    base = np.array([66, 104, 44]) * rng.uniform(0.75, 1.25) + rng.uniform(-12, 12, 3)
    return shade(base, 0.3 + 1.4 * noise(rng, size, 0.55))


def bark(rng: Rng, size: int) -> np.ndarray:
    return shade(np.array([104, 80, 58]) * rng.uniform(0.8, 1.2), 0.45 + 1.0 * noise(rng, size, 0.8, (1.5, 0.2)))


def roof(rng: Rng, size: int) -> np.ndarray:
    y, x = grid(size)
    row = np.floor(y * 8)
    edge = (y * 8) % 1
    gap = (x * 8 + 0.5 * (row % 2)) % 1 < 0.07
    base = np.array([[142, 72, 52], [92, 84, 82], [120, 96, 74]][rng.integers(3)]) + rng.uniform(-10, 10, 3)
    return shade(base, np.where(gap, 0.6, 0.65 + 0.4 * edge) * (0.75 + 0.5 * noise(rng, size, 0.9)))


def painting(rng: Rng, size: int) -> np.ndarray:
    low, high, third = rng.uniform(30, 225, (3, 3))
    field, other = noise(rng, size, 1.9), noise(rng, size, 1.9)
    picture = low + (high - low) * field[..., None]
    return np.where((other > 0.55)[..., None], 0.3 * picture + 0.7 * third, picture)


def books(rng: Rng, size: int) -> np.ndarray:
    """Two shelves of book backs."""
    y, x = grid(size)
    count = 18
    column = np.floor(x * count).astype(int)
    shelf = np.floor(y * 2).astype(int)
    backs = rng.uniform(40, 190, (2, count, 3))[shelf, column]
    top = rng.uniform(0.12, 0.4, (2, count))[shelf, column]
    inside = ((y * 2) % 1 > top) & ((y * 2) % 1 < 0.94)
    picture = np.where(inside[..., None], backs * np.where((x * count) % 1 < 0.12, 0.6, 1.0)[..., None], [58, 42, 30])
    return np.where(((y * 2) % 1 >= 0.94)[..., None], [122, 86, 54], picture)


def facade(rng: Rng, size: int) -> np.ndarray:
    """Four by four windows of a house front; one picture stands for about twelve metres."""
    y, x = grid(size)
    walls = np.array([[182, 164, 140], [150, 92, 72], [168, 168, 166], [196, 186, 160], [120, 122, 128], [172, 140, 112]])
    picture = shade(walls[rng.integers(6)] * rng.uniform(0.85, 1.1), 0.84 + 0.3 * noise(rng, size, 1.0))
    u, v = (x * 4) % 1, (y * 4) % 1
    half, low, high = rng.uniform(0.2, 0.36), 0.2, rng.uniform(0.68, 0.84)
    window = (np.abs(u - 0.5) < half) & (v > low) & (v < high)
    frame = (np.abs(u - 0.5) < half + 0.045) & (v > low - 0.045) & (v < high + 0.045)
    glass = rng.choice([38.0, 60.0, 92.0, 140.0], (4, 4), p=[0.35, 0.3, 0.22, 0.13])
    panes = glass[np.floor(y * 4).astype(int), np.floor(x * 4).astype(int)] * (1.25 - 0.5 * v)
    bar = (np.abs(u - 0.5) < 0.016) | (np.abs(v - (low + high) / 2) < 0.014)
    picture = np.where(frame[..., None], rng.choice([225.0, 90.0, 205.0]), picture)
    return np.where((window & ~bar)[..., None], shade((0.88, 1.0, 1.14), panes), picture)


PATTERNS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    pattern.__name__: pattern
    for pattern in (
        *(wood, plain_wood, brick, tile, checker, stripes, speckle, fabric, plaster, concrete, marble),
        *(grass, gravel, sand, asphalt, leaves, bark, roof, painting, books, facade),
    )
}
NEUTRAL = ("checker", "stripes", "speckle", "fabric", "plaster", "marble")  # near white: to be tinted

Bank = dict[str, bytes]


def make_bank(counts: dict[str, int], seed: int, size: int = 256) -> Bank:
    """Name → PNG bytes, with names `PATTERN.0`, `PATTERN.1`, …; the same seed gives the same pictures."""
    bank: Bank = {}
    for pattern, count in counts.items():
        for i in range(count):
            rng = np.random.default_rng((seed, sorted(PATTERNS).index(pattern), i))
            bank[f"{pattern}.{i}"] = as_png(PATTERNS[pattern](rng, size))
    return bank


def as_png(picture: np.ndarray) -> bytes:
    """A float or uint8 picture (N, N, 3) as PNG, barely compressed: it is decoded many times and stored nowhere."""
    buffer = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
