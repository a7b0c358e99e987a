"""From latents to pixels, of a whole clip or window after window: the decoder is causal, so nothing is seen where windows meet.

Axis legend: B batch, C latent channels, T latent frames, F pixel frames, H height, W width.
"""

import numpy as np
import torch
from torch import Tensor

from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.nn.frame_cache import FrameCache
from worldfoundry.tokenizers.tokenizer import Tokenizer


class StreamDecoder:
    """Takes the raw latents of one clip piece by piece; `last` holds its last `keep` frames in [-1, 1], [B, 3, F, H, W]."""

    def __init__(self, tokenizer: Tokenizer, *, keep: int = 1) -> None:
        self.tokenizer, self.keep = tokenizer, keep
        self.last: Tensor | None = None
        self._cache: FrameCache | None = None

    @torch.inference_mode()
    def __call__(self, z_BCTHW: Tensor) -> np.ndarray:
        """The next latents → their frames, uint8 [B, F, H, W, 3]."""
        x_BCFHW, self._cache = self.tokenizer.decode_chunk(z_BCTHW, self._cache)
        x_BCFHW = x_BCFHW.float().clamp(-1, 1)
        seen = x_BCFHW if self.last is None else torch.cat([self.last, x_BCFHW], dim=2)
        self.last = seen[:, :, -self.keep :]
        return to_bytes(x_BCFHW)


@torch.inference_mode()
def decode_whole(tokenizer: VideoTokenizer, z_BCTHW: Tensor) -> np.ndarray:
    """The raw latents of a clip → uint8 [B, F, H, W, 3]."""
    return to_bytes(tokenizer.decode(z_BCTHW).float().clamp(-1, 1))


def to_bytes(x_BCFHW: Tensor) -> np.ndarray:
    """[-1, 1] → uint8, channels last."""
    return x_BCFHW.add(1).mul(127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
