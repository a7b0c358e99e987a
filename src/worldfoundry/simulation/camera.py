"""`simulate camera`: flights through furnished rooms and gardens, with exact poses, intrinsics and depth.

On disk, for episode 7: `episode_000007.mp4`, its caption `.txt`, the poses `.camera.txt` (RealEstate10K), `.depth.npz`
(`depth_m` float16 THW, infinite in the sky), `.masks.npz` (`masks` uint16 THW: n is the object whose `mask_id` is n, 0 the rest) and,
last, `.json` (place, flight, intrinsics, objects, what is in the picture).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.data.realestate10k import make_track, write_realestate10k
from worldfoundry.simulation.camera_captions import Seen
from worldfoundry.simulation.camera_captions import describe as describe_flight
from worldfoundry.simulation.camera_flights import Flight, draw_flight
from worldfoundry.simulation.camera_places import PATTERNS, PLACES, Place
from worldfoundry.simulation.config import CameraConfig
from worldfoundry.simulation.episodes import write_npz, write_text
from worldfoundry.simulation.kind import Kind
from worldfoundry.simulation.scene import Scene
from worldfoundry.simulation.textures import Bank, make_bank
from worldfoundry.simulation.views import Views, look_at, open_views, quaternion

FPS = 20
SEEN = 0.006  # the share of a picture from which on a thing is worth a word


@dataclass(frozen=True, kw_only=True)
class CameraEpisode:
    """A compiled place and a flight through it, not yet drawn."""

    place_name: str
    place: Place
    flight: Flight
    model: Any


def build_episode(bank: Bank, name: str, frames: int, seed: tuple[int, int], shape: tuple[int, int]) -> CameraEpisode:
    """Draw place, lens and flight; the same seed gives the same poses."""
    rng = np.random.default_rng(seed)
    scene = Scene(bank, rng)
    place = PLACES[name](scene)
    fovy_deg = float(rng.uniform(55, 75))
    scene.add(f'<body name="eye" mocap="true"><camera name="eye" fovy="{fovy_deg:.4f}"/></body>')
    flight = draw_flight(place, rng, frames, FPS)
    outside = name == "outdoors"
    blue = rng.uniform(0.3, 0.65)
    model = scene.compile(
        *shape,
        centre=(0, 0, 1),
        extent_m=4.0,
        far_m=150.0 if outside else 20.0,
        shadow_clip_m=14.0 if outside else 4.5,
        sky=((blue, blue * 1.25, min(blue * 1.9, 1.0)), (0.85, 0.89, 0.94)),
        ambient=float(rng.uniform(0.34, 0.44)),
    )
    return CameraEpisode(place_name=name, place=place, flight=flight, model=model)


def fly(views: Views, flight: Flight) -> Iterator[np.ndarray]:
    """Put the camera where it is at each frame; yields its pose (4, 4)."""
    for position, target in zip(flight.position_T3, flight.target_T3, strict=True):
        views.data.mocap_pos[0] = position
        views.data.mocap_quat[0] = quaternion(look_at(position, target))
        views.mujoco.mj_forward(views.model, views.data)
        views.look("eye")
        yield views.camera_to_world("eye")


@dataclass(frozen=True, kw_only=True)
class Footage:
    """depths and masks (H, W) of each frame (empty if not asked for), poses_T44 camera to world.

    shares_SN: how much of the picture each object of `place.nouns` took, in pictures about a sixth of the clip apart.
    """

    depths: list[np.ndarray]
    masks: list[np.ndarray]
    poses_T44: np.ndarray
    shares_SN: np.ndarray


def film(views: Views, episode: CameraEpisode, config: CameraConfig, video: Any) -> Footage:
    """Draw the flight into a video file, and note depth, masks, poses and what was seen."""
    depths, masks, poses, shares = [], [], [], []
    objects = views.object_ids(list(episode.place.nouns))
    last = len(episode.flight.position_T3) - 1
    looked_at = {round(last * i / 6) for i in range(7)}

    def pictures() -> Iterator[np.ndarray]:
        for t, c2w in enumerate(fly(views, episode.flight)):
            poses.append(c2w)
            if config.depth:
                depths.append(views.depth_m())
            if config.masks or t in looked_at:
                mask = objects()
                masks.append(mask)
                if t in looked_at:
                    shares.append(np.bincount(mask.ravel(), minlength=len(episode.place.nouns) + 1)[1:] / mask.size)
            yield views.rgb()

    write_video(video, pictures(), FPS, crf=config.crf)
    kept = masks if config.masks else []
    return Footage(depths=depths, masks=kept, poses_T44=np.stack(poses), shares_SN=np.array(shares))


def seen_in(place: Place, shares_SN: np.ndarray) -> Seen:
    """What a caption may name: things that at some time took at least SEEN of the picture."""
    nouns, largest = list(place.nouns.values()), shares_SN.max(axis=0)
    things: dict[str, int] = {}
    for i in np.argsort(-largest, kind="stable"):
        if largest[i] > SEEN:
            things[nouns[i]] = things.get(nouns[i], 0) + 1

    def foremost(share_N: np.ndarray) -> str | None:
        return nouns[int(share_N.argmax())] if share_N.max(initial=0) > 5 * SEEN else None

    return Seen(things=things, first=foremost(shares_SN[0]), last=foremost(shares_SN[-1]))


def objects_of(place: Place, shares_SN: np.ndarray) -> list[dict[str, Any]]:
    """Ids, names and nouns of the masks, with the largest share of a picture that each took."""
    largest = shares_SN.max(axis=0)
    return [
        {"mask_id": i + 1, "name": name, "noun": noun, "largest_share": round(float(largest[i]), 4)}
        for i, (name, noun) in enumerate(place.nouns.items())
    ]


def facts(config: CameraConfig) -> dict[str, Any]:
    """What is the same in every episode."""
    return {
        "fps": FPS,
        "camera_axes": "OpenCV: x right, y down, z forwards; pixel centres at +0.5",
        "units": "metres, seconds; depth along the camera's axis",
        "masks": "uint16; n is the object whose mask_id is n in the episode's JSON, 0 is everything else",
        "place_of_episode": f"places[i % {len(config.places)}]",
    }


@contextmanager
def open_episodes(config: CameraConfig) -> Iterator[Callable[[int], str]]:
    """`write(index)` draws and writes one episode into `config.out` and returns the renderer's name."""
    bank = make_bank(PATTERNS, seed=1)

    def write(index: int) -> str:
        seed = (config.seed, index)
        episode = build_episode(bank, config.places[index % len(config.places)], config.frames, seed, config.shape)
        stem = config.out / f"episode_{index:06d}"
        with open_views(episode.model, *config.shape) as views:
            footage = film(views, episode, config, stem.with_name(f"{stem.name}.mp4"))
            lens, name = views.intrinsics("eye"), views.renderer_name
        source = f"worldfoundry simulate camera, seed {config.seed}, episode {index}"
        track = make_track(np.arange(config.frames) / FPS, lens, footage.poses_T44, config.shape, source)
        write_realestate10k(stem.with_name(f"{stem.name}.camera.txt"), track)
        if config.depth:
            write_npz(stem.with_name(f"{stem.name}.depth.npz"), "depth_m", np.stack(footage.depths))
        if config.masks:
            write_npz(stem.with_name(f"{stem.name}.masks.npz"), "masks", np.stack(footage.masks))
        seen = seen_in(episode.place, footage.shares_SN)
        text, short = describe_flight(episode.place, episode.flight, seen, FPS, seed)
        write_text(stem.with_name(f"{stem.name}.txt"), text)
        about = {
            "place": episode.place_name,
            "flight": episode.flight.style,
            "caption": text,
            "caption_short": short,
            "visible": list(seen.things),
            "objects": objects_of(episode.place, footage.shares_SN),
            "intrinsics": lens.tolist(),
            "fps": FPS,
            "seed": list(seed),
            "renderer": name,
        }
        write_json(stem.with_name(f"{stem.name}.json"), about)
        return name

    yield write


KIND = Kind(
    facts=facts,
    open_episodes=open_episodes,
    is_whole=lambda config, index: (config.out / f"episode_{index:06d}.json").exists(),
)
