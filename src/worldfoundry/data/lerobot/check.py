"""Everything that is wrong with a dataset, found before a training finds it: rows, timestamps, and every frame's time."""

from collections.abc import Iterable

import numpy as np

from worldfoundry.core.errors import DataError, MediaError
from worldfoundry.data.lerobot.frames import TOLERANCE, check_span, frame_times, no_frame
from worldfoundry.data.lerobot.reader import LeRobotDataset


def find_problems(dataset: LeRobotDataset, cameras: Iterable[str] | None = None) -> list[str]:
    """One line per damaged episode or video; empty for a sound dataset. Videos are read, not decoded."""
    problems = []
    for index in range(dataset.num_episodes):
        try:
            dataset.episode(index, cameras=())
        except DataError as error:
            problems.append(str(error))
    for key in dataset.camera_keys if cameras is None else dataset.resolve_cameras(cameras):
        if dataset.features[key].dtype == "video":
            problems += _video_problems(dataset, key)
    return problems


def _video_problems(dataset: LeRobotDataset, key: str) -> list[str]:
    problems = []
    path, times_s, rate_fits = None, np.zeros(0), True  # of the file at hand: neighbours share one
    for entry in dataset.entries:
        span = entry.videos.get(key)
        who = f"camera {key!r}, episode {entry.index}"
        if span is None:
            problems.append(f"meta/episodes does not say where the video of {who} lies.")
            continue
        try:
            check_span(span, entry.length, dataset.fps, who)
            if span.path != path:
                path, times_s = span.path, frame_times(span.path)
                rate_fits, said = _rate(times_s, dataset.fps)
                problems += [] if rate_fits else [f"The video of {who} has {said}, not {dataset.fps:g}: {str(path)!r}."]
        except (DataError, MediaError) as error:
            problems.append(str(error))
            continue
        wanted = span.start_s + np.arange(entry.length) / dataset.fps
        far = _distance(wanted, times_s) * dataset.fps > TOLERANCE
        if rate_fits and far.any():
            frame = int(far.argmax())
            problems.append(str(no_frame(span, frame, wanted[frame], dataset.fps, who)))
    return problems


def _rate(times_s: np.ndarray, fps: float) -> tuple[bool, str]:
    """Whether frames come as often as `fps` says or a whole number of times as often (then all wanted ones are there)."""
    if len(times_s) < 2:
        return True, "one frame"
    rate = 1 / float(np.median(np.diff(times_s)))
    return round(rate / fps) >= 1 and abs(rate / fps - round(rate / fps)) < 0.01, f"{rate:.4g} frames per second"


def _distance(wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """From each wanted time to the nearest that is there."""
    after = np.searchsorted(there, wanted).clip(0, len(there) - 1)
    before = (after - 1).clip(0)
    return np.minimum(np.abs(wanted - there[after]), np.abs(wanted - there[before]))
