"""A scene in MuJoCo's XML: textures from a bank, materials, meshes with true-to-scale texture coordinates, geoms.

MuJoCo projects a flat texture along z, which smears it over the sides of a primitive; a texture that has to look right on all
sides needs a cube texture (one picture per side: small objects) or a mesh with coordinates (`box`: walls, furniture, houses).
Lengths are metres and half sizes, as in MuJoCo; angles are degrees. Every method returns XML text to be placed in a body.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from worldfoundry.simulation.render import load_mujoco
from worldfoundry.simulation.textures import NEUTRAL, Bank

# Named colours for captions, as they look on a neutral texture.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.13, 0.11),
    "orange": (0.95, 0.48, 0.10),
    "yellow": (0.95, 0.80, 0.16),
    "green": (0.18, 0.58, 0.22),
    "turquoise": (0.15, 0.65, 0.65),
    "blue": (0.14, 0.30, 0.78),
    "purple": (0.50, 0.22, 0.65),
    "pink": (0.93, 0.50, 0.66),
    "white": (0.95, 0.95, 0.93),
    "grey": (0.50, 0.50, 0.52),
    "black": (0.12, 0.12, 0.13),
}
# The six sides of a box: (normal axis, sign, axis of u, its sign, axis of v). v runs up wherever the side is upright.
SIDES = ((0, 1, 1, 1, 2), (0, -1, 1, -1, 2), (1, 1, 0, -1, 2), (1, -1, 0, 1, 2), (2, 1, 0, 1, 1), (2, -1, 0, -1, 1))
UNTOUCHED = 'contype="0" conaffinity="0"'
NO_SHADOW = 'group="1"'  # see `views.SHADOWLESS`


def numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.5g}" for value in values)


class Scene:
    """Collects what one model is made of. `rng` draws the tints and variants that are left open."""

    def __init__(self, bank: Bank, rng: np.random.Generator) -> None:
        self.bank, self.rng = bank, rng
        self.files: dict[str, bytes] = {}
        self.assets: list[str] = []
        self.named: dict[str, str] = {}
        self.world: list[str] = []

    def pick(self, *patterns: str) -> str:
        """The name of a random variant, in the bank, of one of these patterns."""
        names = [name for name in self.bank if name.split(".")[0] in patterns]
        return names[self.rng.integers(len(names))]

    def material(
        self, texture: str, colour: Sequence[float] = (1, 1, 1), *, cube: bool = False, tile_m: float = 1.0, shine: float = 0.1
    ) -> str:
        """A material of a bank texture times a colour. `tile_m` is the size of one picture on planes and height fields."""
        kind = "cube" if cube else "2d"
        key = f"{texture}.{kind}"
        if key not in self.named:
            self.named[key] = f"t{len(self.named)}"
            self.files[f"{texture}.png"] = self.bank[texture]
            self.assets.append(f'<texture name="{self.named[key]}" type="{kind}" file="{texture}.png"/>')
        repeat = numbers((1 / tile_m, 1 / tile_m))
        rgba = numbers((*colour, 1))
        name = f"m{len(self.assets)}"
        self.assets.append(
            f'<material name="{name}" texture="{self.named[key]}" texuniform="true" texrepeat="{repeat}" rgba="{rgba}" '
            f'specular="{shine:.3f}" shininess="{min(shine * 2, 1):.3f}"/>'
        )
        return name

    def paint(self, colour: Sequence[float], *, shine: float = 0.2, glow: float = 0.0) -> str:
        """A material of one colour; `glow` makes it as bright in the shade."""
        name = f"m{len(self.assets)}"
        self.assets.append(
            f'<material name="{name}" rgba="{numbers((*colour, 1))}" specular="{shine:.3f}" shininess="{min(shine * 2, 1):.3f}" '
            f'emission="{glow:.3f}"/>'
        )
        return name

    def surface(self, *patterns: str, cube: bool = False, tile_m: float = 1.0, pale: bool = False) -> str:
        """A material of any of these patterns; neutral ones are tinted, `pale` only slightly (walls, ceilings)."""
        return self.tinted(self.pick(*patterns), cube=cube, tile_m=tile_m, pale=pale)

    def tinted(self, texture: str, *, cube: bool = False, tile_m: float = 1.0, pale: bool = False) -> str:
        """`surface` of one texture that was picked before."""
        colour = self.rng.uniform(0.72 if pale else 0.25, 1.0, 3) if texture.split(".")[0] in NEUTRAL else (1, 1, 1)
        return self.material(texture, tuple(colour), cube=cube, tile_m=tile_m)

    def mesh(self, vertices: np.ndarray, faces: np.ndarray | None = None, texcoords: np.ndarray | None = None) -> str:
        """A mesh asset; without faces, the convex hull of the vertices. The same mesh twice is one asset."""
        text = f'vertex="{numbers(vertices.ravel())}"'
        if faces is not None:
            text += f' face="{" ".join(map(str, faces.ravel()))}"'
        if texcoords is not None:
            text += f' texcoord="{numbers(texcoords.ravel())}"'
        if text not in self.named:
            self.named[text] = f"s{len(self.named)}"
            self.assets.append(f'<mesh name="{self.named[text]}" inertia="shell" {text}/>')
        return self.named[text]

    def box(
        self,
        half: Sequence[float],
        position: Sequence[float],
        material: str,
        *,
        tile_m: float | None = 1.0,
        yaw: float = 0.0,
        shadow: bool = True,
    ) -> str:
        """A box to look at (it touches nothing) whose texture repeats every `tile_m`, or fills each side once (None)."""
        size = np.asarray(half, float)
        vertices, texcoords, faces = [], [], []
        for normal, sign, u_axis, u_sign, v_axis in SIDES:
            start = len(vertices)
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[normal], corner[u_axis], corner[v_axis] = sign, u * u_sign, v
                vertices.append(corner * size)
                scale = (1.0, 1.0) if tile_m is None else (2 * size[u_axis] / tile_m, 2 * size[v_axis] / tile_m)
                texcoords.append(((u + 1) / 2 * scale[0], (1 - v) / 2 * scale[1]))
            turn = np.dot(
                np.cross(vertices[start + 1] - vertices[start], vertices[start + 2] - vertices[start]), vertices[start]
            )
            order = (0, 1, 2, 0, 2, 3) if turn > 0 else (0, 2, 1, 0, 3, 2)
            faces.append([start + i for i in order])
        name = self.mesh(np.array(vertices), np.array(faces), np.array(texcoords))
        where = f'pos="{numbers(position)}" euler="0 0 {yaw:.5g}"'
        return f'<geom type="mesh" mesh="{name}" {where} material="{material}" {UNTOUCHED} {"" if shadow else NO_SHADOW}/>'

    def gable(self, half: Sequence[float], position: Sequence[float], material: str, *, tile_m: float, yaw: float = 0.0) -> str:
        """A saddle roof with its ridge along x; `half` are half length, half depth and full height, `position` its base."""
        x, y, z = half
        slope = float(np.hypot(y, z))
        flat = np.array([[-x, -y, 0], [x, -y, 0], [x, 0, z], [-x, 0, z], [x, y, 0], [-x, y, 0], [-x, 0, z], [x, 0, z]])
        sides = np.array([[x, -y, 0], [x, y, 0], [x, 0, z], [-x, y, 0], [-x, -y, 0], [-x, 0, z]])
        length, rise = 2 * x / tile_m, slope / tile_m
        across, up = 2 * y / tile_m, z / tile_m
        texcoords = [(0, rise), (length, rise), (length, 0), (0, 0)] * 2 + [(0, up), (across, up), (across / 2, 0)] * 2
        faces = [(0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7), (8, 9, 10), (11, 12, 13)]
        name = self.mesh(np.concatenate([flat, sides]), np.array(faces), np.array(texcoords, float))
        where = f'pos="{numbers(position)}" euler="0 0 {yaw:.5g}"'
        return f'<geom type="mesh" mesh="{name}" {where} material="{material}" {UNTOUCHED}/>'

    def shape(
        self,
        kind: str,
        half: Sequence[float],
        position: Sequence[float],
        material: str,
        *,
        euler: Sequence[float] = (0, 0, 0),
        shadow: bool = True,
    ) -> str:
        """A primitive to look at (it touches nothing)."""
        where = f'size="{numbers(half)}" pos="{numbers(position)}" euler="{numbers(euler)}"'
        return f'<geom type="{kind}" {where} material="{material}" {UNTOUCHED} {"" if shadow else NO_SHADOW}/>'

    def add(self, *parts: str) -> None:
        """Place XML in the world body."""
        self.world.extend(parts)

    def compile(
        self,
        height: int,
        width: int,
        *,
        centre: Sequence[float],
        extent_m: float,
        far_m: float,
        shadow_clip_m: float,
        sky: tuple[Sequence[float], Sequence[float]] | None = None,
        ambient: float = 0.35,
        timestep_s: float = 0.002,
    ) -> Any:
        """The compiled model. `extent_m` scales MuJoCo's clipping planes; `shadow_clip_m` is how far its shadow map reaches."""
        # The shadow map and small triangles, not the pixels, are what rendering costs; small pictures need less of both.
        small = height <= 160
        shadow_size = 512 if small and shadow_clip_m < 20 else 1024
        quality = f'shadowsize="{shadow_size}" offsamples="4" ' + ('numslices="20" numstacks="12"' if small else "")
        visual = (
            f'<visual><global offwidth="{width}" offheight="{height}"/><quality {quality}/>'
            f'<map znear="{0.02 / extent_m:.6f}" zfar="{far_m / extent_m:.4f}" shadowclip="{shadow_clip_m / extent_m:.4f}"/>'
            f'<headlight ambient="{numbers((ambient, ambient, ambient * 1.04))}" diffuse=".18 .18 .18" specular="0 0 0"/></visual>'
        )
        if sky is not None:
            top, horizon = (numbers(colour) for colour in sky)
            self.assets.append(
                f'<texture name="sky" type="skybox" builtin="gradient" rgb1="{top}" rgb2="{horizon}" width="64" height="384"/>'
            )
        xml = (
            f'<mujoco><compiler angle="degree"/><option timestep="{timestep_s}" integrator="implicitfast"/>'
            f'<statistic center="{numbers(centre)}" extent="{extent_m}"/>{visual}'
            f"<asset>{''.join(self.assets)}</asset><worldbody>{''.join(self.world)}</worldbody></mujoco>"
        )
        return load_mujoco().MjModel.from_xml_string(xml, self.files)
