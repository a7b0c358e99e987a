"""From what a request gives (frames, text, actions) to the tensors of a `Condition`.

Axis legend: B batch, C latent channels, T latent frames, F pixel frames, H height, W width, L context rows, D context width,
A action numbers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldfoundry.conditioning.action import action_features
from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.inference.frames import conditioning_length


def start_frames(given_BFHWC: np.ndarray, temporal_compression: int) -> np.ndarray:
    """Of n frames the last 1 + tc·⌊(n − 1)/tc⌋, [B, F, H, W, 3]."""
    return given_BFHWC[:, -conditioning_length(given_BFHWC.shape[1], temporal_compression) :]


def end_frames(given_BFHWC: np.ndarray, num_frames: int, temporal_compression: int) -> np.ndarray:
    """Frames whose latents, but for the first, end a clip of `num_frames`: [B, 1 + tc·m, H, W, 3].

    A latent frame covers tc frames. Where the given ones do not fill the first of them, their first one stands still before
    them; where the clip is rounded up, their last one stands still after them, and is cropped later.
    """
    beyond = -(num_frames - 1) % temporal_compression
    before = 1 + -(given_BFHWC.shape[1] + beyond) % temporal_compression
    first, last = given_BFHWC[:, :1], given_BFHWC[:, -1:]
    return np.concatenate([first.repeat(before, 1), given_BFHWC, last.repeat(beyond, 1)], axis=1)


@torch.inference_mode()
def encode_frames(tokenizer: VideoTokenizer, x_BCFHW: Tensor, patch_spatial: int) -> Tensor:
    """Frames in [-1, 1], any height and width → raw latents in float32; the picture is filled up to whole patches."""
    spec = tokenizer.spec
    down, right = -x_BCFHW.shape[3] % (spec.h * patch_spatial), -x_BCFHW.shape[4] % (spec.w * patch_spatial)
    return tokenizer.encode(torch.nn.functional.pad(x_BCFHW, (0, right, 0, down, 0, 0), mode="replicate")).float()


def to_unit_range(frames_BFHWC: np.ndarray, device: torch.device) -> Tensor:
    """uint8 → float [-1, 1], [B, 3, F, H, W]."""
    return torch.from_numpy(frames_BFHWC).to(device).movedim(-1, 1).float() / 127.5 - 1


def window_actions(actions_BFA: np.ndarray, first_frame: int, frames: int, rms: Sequence[float], tc: int) -> Tensor:
    """Action features of the `frames` = 1 + tc·k frames from `first_frame` on; past the last action nothing acts."""
    given = actions_BFA[:, first_frame : first_frame + frames]
    padded = torch.nn.functional.pad(torch.from_numpy(given).float(), (0, 0, 0, frames - given.shape[1]))
    return action_features(padded, torch.tensor(rms), tc)
