"""Camera tracks as RealEstate10K writes them: one text file per clip.

Line 1 is where the clip comes from. Every other line is one frame: time in microseconds, focal lengths and principal point
divided by width and height (fx fy cx cy), two zeros, and the 3x4 matrix world → camera, row by row. The camera's axes are OpenCV's:
x right, y down, z forwards. Axis legend: T frames.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import atomic_path

NUMBERS = 19  # a frame's line


@dataclass(frozen=True, kw_only=True)
class CameraTrack:
    """times_us_T int64; intrinsics_T4 (fx, fy, cx, cy) in parts of width and height; world_to_camera_T34; `source` is one line."""

    times_us_T: np.ndarray
    intrinsics_T4: np.ndarray
    world_to_camera_T34: np.ndarray
    source: str = ""

    @property
    def camera_to_world_T44(self) -> np.ndarray:
        """Poses of the camera in the world, (T, 4, 4)."""
        square = np.tile(np.eye(4), (len(self.times_us_T), 1, 1))
        square[:, :3] = self.world_to_camera_T34
        return np.linalg.inv(square)

    def pixel_intrinsics_T33(self, height: int, width: int) -> np.ndarray:
        """Pinhole matrices in pixels for pictures of this size, (T, 3, 3)."""
        matrix = np.tile(np.eye(3), (len(self.times_us_T), 1, 1))
        fx, fy, cx, cy = self.intrinsics_T4.T
        matrix[:, 0, 0], matrix[:, 0, 2], matrix[:, 1, 1], matrix[:, 1, 2] = fx * width, cx * width, fy * height, cy * height
        return matrix


def make_track(
    times_s_T: np.ndarray, intrinsics_33: np.ndarray, c2w_T44: np.ndarray, size: tuple[int, int], source: str
) -> CameraTrack:
    """A track of one fixed lens, from pixel intrinsics, camera-to-world poses and (height, width)."""
    height, width = size
    lens = (
        intrinsics_33[0, 0] / width,
        intrinsics_33[1, 1] / height,
        intrinsics_33[0, 2] / width,
        intrinsics_33[1, 2] / height,
    )
    return CameraTrack(
        times_us_T=np.round(times_s_T * 1e6).astype(np.int64),
        intrinsics_T4=np.tile(lens, (len(times_s_T), 1)),
        world_to_camera_T34=np.linalg.inv(c2w_T44)[:, :3],
        source=source,
    )


def write_realestate10k(path: Path, track: CameraTrack) -> None:
    """Write the track so that reading it gives the same float64 numbers; the file is whole or absent."""
    lines = [track.source.replace("\n", " ")]
    for time_us, lens, matrix in zip(track.times_us_T, track.intrinsics_T4, track.world_to_camera_T34, strict=True):
        numbers = (*lens.tolist(), 0, 0, *matrix.ravel().tolist())
        lines.append(f"{int(time_us)} " + " ".join(repr(number) for number in numbers))
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_realestate10k(path: Path) -> CameraTrack:
    """Read a track. Raises DataError that names file and line for a missing file, a line of another length, or no frame."""
    try:
        first, *lines = Path(path).read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The camera track {str(path)!r} cannot be read: {error}.") from error
    rows = [_row(line, f"{str(path)!r}, line {i}") for i, line in enumerate(lines, start=2) if line.strip()]
    if not rows:
        raise DataError(f"The camera track {str(path)!r} has no frames.", "After the first line, each line is one frame.")
    table = np.array(rows)
    return CameraTrack(
        times_us_T=table[:, 0].astype(np.int64),
        intrinsics_T4=table[:, 1:5],
        world_to_camera_T34=table[:, 7:].reshape(-1, 3, 4),
        source=first.strip(),
    )


def _row(line: str, where: str) -> list[float]:
    try:
        values = [float(part) for part in line.split()]
    except ValueError as error:
        raise DataError(f"{where}: not numbers.", f"A frame is {NUMBERS} numbers.") from error
    if len(values) != NUMBERS or not np.isfinite(values).all():
        raise DataError(f"{where}: {len(values)} numbers or not finite ones.", f"A frame is {NUMBERS} finite numbers.")
    return values
