"""Videos of every kind, made with PyAV: good ones, unusual ones and broken ones."""

import json
import wave
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from worldfoundry.core.errors import DownloadError
from worldfoundry.core.video_io import write_video
from worldfoundry.curation import shots_network

UPRIGHT = [0x10000, 0, 0, 0, 0x10000, 0]
QUARTER_TURN = [0, 0x10000, 0, -0x10000 % 2**32, 0, 0]


class Zoo:
    """Makes files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def frames(self, num_frames: int = 24, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
        """One shot, uint8 THWC: a smooth random picture that drifts by a pixel per frame."""
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        return np.stack([np.roll(picture, t, axis=1) for t in range(num_frames)])

    def video(self, name: str, *, fps: float = 12.0, gop: int = 12, **shape: int) -> Path:
        """A good clip, as `core.video_io` writes it."""
        return write_video(self.folder / name, self.frames(**shape), fps, gop=gop)

    def shots(self, name: str, lengths: Iterable[int], fps: float = 12.0) -> Path:
        """Several shots with hard cuts between them."""
        parts = [self.frames(length, seed=10 + i) for i, length in enumerate(lengths)]
        return write_video(self.folder / name, np.concatenate(parts), fps)

    def encoded(
        self,
        name: str,
        frames: np.ndarray,
        *,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
        pts: Iterable[int] | None = None,
        time_base: Fraction = Fraction(1, 12),
        options: dict[str, str] | None = None,
    ) -> Path:
        """Any codec, pixel format, container (by the name) and timestamps."""
        path = self.folder / name
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(codec, rate=round(1 / time_base) if pts is None else 12, options=options or {})
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
            stream.codec_context.time_base = stream.time_base = time_base
            for t, array in zip(range(len(frames)) if pts is None else pts, frames, strict=True):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = t, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def rotated(self, name: str, **shape: int) -> Path:
        """A video whose track header says: show it turned by a quarter."""
        path = self.video(name, **shape)
        content = path.read_bytes()
        upright, turned = (b"".join(n.to_bytes(4, "big") for n in matrix) for matrix in (UPRIGHT, QUARTER_TURN))
        header = content.index(b"tkhd")
        at = content.index(upright, header)
        path.write_bytes(content[:at] + turned + content[at + len(turned) :])
        return path

    def image(self, name: str, height: int = 48, width: int = 64, seed: int = 0) -> Path:
        Image.fromarray(self.frames(1, height, width, seed)[0]).save(self.folder / name)
        return self.folder / name

    def text(self, name: str, content: str = "this is no video") -> Path:
        (self.folder / name).write_text(content)
        return self.folder / name

    def audio_only(self, name: str) -> Path:
        """A WAV file under a video's name."""
        with wave.open(str(self.folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(16000))
        return self.folder / name

    def cut_off(self, name: str, share: float, *, moov_first: bool, num_frames: int = 120) -> Path:
        """The first part of a file; with the index at the front it is still readable, with the index behind it is not."""
        options = {"movflags": "+faststart"} if moov_first else {}
        path = self.folder / name
        with av.open(str(path), "w", format="mp4", options=options) as container:
            stream: Any = container.add_stream("libx264", rate=12, options={"x264-params": "keyint=12:scenecut=0"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            for array in self.frames(num_frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
            container.mux(stream.encode(None))
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return path

    def damaged(self, name: str, num_frames: int = 120, num_bytes: int = 3000, at: float = 0.5) -> Path:
        """Wrong bytes from a share `at` of the file on (its pictures are noisy, so that nearly all of it is pictures)."""
        noise = np.random.default_rng(5).integers(-40, 40, (num_frames, 48, 64, 3))
        frames = np.clip(self.frames(num_frames) + noise, 0, 255).astype(np.uint8)
        path = write_video(self.folder / name, frames, 12.0)
        content = bytearray(path.read_bytes())
        start = int(at * len(content))
        content[start : start + num_bytes] = np.random.default_rng(1).integers(0, 256, num_bytes, dtype=np.uint8).tobytes()
        path.write_bytes(bytes(content))
        return path

    def episode(
        self,
        name: str,
        times_s: np.ndarray,
        actions: np.ndarray | list[Any],
        about: dict[str, Any] | None = None,
        **columns: Any,
    ) -> Path:
        """The table beside `<name>.mp4`."""
        table = pa.table(
            {"frame_index": np.arange(len(times_s)), "timestamp": times_s, "action": [list(a) for a in actions], **columns}
        )
        if about is not None:
            table = table.replace_schema_metadata({"worldfoundry": json.dumps(about)})
        path = self.folder / f"{name}.episode.parquet"
        pq.write_table(table, path)
        return path


@pytest.fixture(autouse=True)
def _without_transnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TransNet V2 cannot be had: no test goes online or comes out differently where the weights happen to be cached."""

    def nowhere(name: str) -> Path:
        raise DownloadError(f"The model {name!r} is not in the cache.", "These tests do without it.")

    monkeypatch.setattr(shots_network, "get_model", nowhere)


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return Zoo(tmp_path / "input")
