"""What a clip shows, as one vector of length 1: frames through a picture network, or a clip through a video network.

Axis legend: N frames, B batch, C = 3 (RGB), T, H, W, D features.

The default is EfficientNet-lite0 (packaged, fetched once). Any other network comes as a folder of transformers with its
`preprocessor_config.json`; one whose config names `num_frames` is taken for a video network and shown that many frames at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_fields

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT = "effnet-lite0"


class ClipEmbedder(Protocol):
    """`name` goes into the tables beside the vectors; `frames` is how many frames of a clip it wants, spread evenly."""

    @property
    def name(self) -> str: ...
    @property
    def frames(self) -> int: ...
    def __call__(self, frames_HWC: Sequence[np.ndarray]) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class EffNetEmbedder:
    """Mean over frames of EfficientNet-lite0's features."""

    network: Any
    name: str = DEFAULT
    frames: int = 4

    def __call__(self, frames_HWC: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 frames of any size → float32 (1280,) of length 1."""
        import torch

        from worldfoundry.perception.effnet_lite0 import SIZE

        x_NCHW = as_tensor(frames_HWC, (SIZE, SIZE), (127.5,) * 3, (127.5,) * 3)
        with torch.inference_mode():
            return unit(self.network.features(x_NCHW).mean(0).numpy())


@dataclass(frozen=True, kw_only=True)
class TransformersEmbedder:
    """A picture or video network of transformers: its image features if it has such a head, else its pooled or mean last state."""

    network: Any
    name: str
    frames: int
    video: bool
    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, frames_HWC: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 frames of any size → float32 (D,) of length 1."""
        import torch

        x_NCHW = as_tensor(frames_HWC, self.size, self.mean, self.deviation)
        with torch.inference_mode():
            if self.video:
                spread = np.linspace(0, len(x_NCHW) - 1, self.frames).round().astype(int)
                return unit(_pooled(self.network(pixel_values=x_NCHW[spread][None])).numpy()[0])
            if hasattr(self.network, "get_image_features"):
                return unit(_pooled(self.network.get_image_features(pixel_values=x_NCHW)).mean(0).numpy())
            return unit(_pooled(self.network(pixel_values=x_NCHW)).mean(0).numpy())


def clip_embedder(name_or_folder: str, *, download: bool = True) -> ClipEmbedder:
    """`effnet-lite0`, or a folder of transformers.

    Raises DownloadError where the packaged weights are neither in the cache nor to be had, MissingExtraError without
    transformers, CheckpointError for a folder that cannot be read.
    """
    if name_or_folder == DEFAULT:
        from worldfoundry.core.model_store import get_model
        from worldfoundry.perception.effnet_lite0 import load_effnet_lite0

        return EffNetEmbedder(network=load_effnet_lite0(get_model(DEFAULT, download=download)))
    return _transformers_embedder(Path(name_or_folder))


def _transformers_embedder(folder: Path) -> TransformersEmbedder:
    from worldfoundry.core.transformers_folder import read_network, transformers_library

    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{str(folder)!r} holds no network.", f"Give {DEFAULT!r}, or a transformers folder with config.json."
        )
    fields = read_fields(folder / "config.json")
    vision = fields.get("vision_config") or fields
    told = read_fields(folder / "preprocessor_config.json") if (folder / "preprocessor_config.json").is_file() else {}
    side: Any = told.get("crop_size") or told.get("size") or vision.get("image_size") or 224
    if isinstance(side, dict):
        side = [side.get(name) or side.get("shortest_edge") or 224 for name in ("height", "width")]
    height, width = (int(side), int(side)) if isinstance(side, int) else (int(side[0]), int(side[1]))
    network = read_network(folder, transformers_library().AutoModel.from_pretrained, what="network").float()
    return TransformersEmbedder(
        network=network,
        name=folder.name,
        frames=int(fields.get("num_frames") or 4),
        video="num_frames" in fields,
        size=(height, width),
        mean=tuple(255 * value for value in told.get("image_mean") or (0.5, 0.5, 0.5)),
        deviation=tuple(255 * value for value in told.get("image_std") or (0.5, 0.5, 0.5)),
    )


def as_tensor(
    frames_HWC: Sequence[np.ndarray], size: tuple[int, int], mean: Sequence[float], deviation: Sequence[float]
) -> "Tensor":
    """uint8 frames → float32 (N, 3, *size): scaled (aspect not kept), then (byte - mean) / deviation per channel."""
    import torch
    from PIL import Image

    height, width = size
    small = [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BILINEAR)) for f in frames_HWC]
    x_NHWC = (np.stack(small).astype(np.float32) - np.array(mean, np.float32)) / np.array(deviation, np.float32)
    return torch.from_numpy(x_NHWC).permute(0, 3, 1, 2).contiguous()


def unit(vector_D: np.ndarray) -> np.ndarray:
    """The vector at length 1, float32; a vector of zeros stays."""
    return (vector_D / max(float(np.linalg.norm(vector_D)), 1e-12)).astype(np.float32)


def _pooled(output: Any) -> Any:
    """One vector per input: what the network pools itself, else the mean of its last hidden states."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    last = output.last_hidden_state
    return last.mean(1) if last.ndim == 3 else last.mean((2, 3))
