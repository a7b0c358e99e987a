"""Motion between two pictures by our own pyramid Lucas-Kanade, and what it predicts: everything goes on as it went.

From coarse to fine, at every pixel: the shift that explains best, by least squares over a window, how the picture changed
(Lucas and Kanade 1981; the pyramid is Bouguet's). Where a window has no texture the shift stays what the coarser level said. The
flow is averaged over the window after each step, because a step takes it to be the same all over the window.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB). Flows are float32 (2, H, W): x right, y down, in pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CONSTANT_VELOCITY = "constant velocity (pyramid Lucas-Kanade)"
WINDOW = 9  # pixels
STEPS = 5  # refinements at each level
SMALLEST = 12  # pixels: where the pyramid ends
TEXTURE = 1e-4  # of squared gradients in [0, 1]²: added to the matrix, so that flat windows do not move


def constant_velocity(reference: np.ndarray, prefix_frames: int) -> np.ndarray:
    """uint8 (N, T, H, W, 3): each pixel of the last prefix frame goes on at the velocity between the last two prefix frames.

    The flow is carried along with the pixels. With one prefix frame nothing is known of motion: the last frame is repeated.
    """
    clips = reference.copy()
    last = reference[:, prefix_frames - 1]
    before = reference[:, max(prefix_frames - 2, 0)]
    for clip, a_HWC, b_HWC in zip(clips, before, last, strict=True):
        # Backward flow: where a pixel of the last frame was one frame earlier.
        velocity = lucas_kanade(b_HWC, a_HWC)
        picture = torch.from_numpy(b_HWC).permute(2, 0, 1).float()
        for t in range(prefix_frames, reference.shape[1]):
            velocity = warp(velocity, velocity)
            picture = warp(picture, velocity)
            clip[t] = picture.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return clips


def lucas_kanade(first_HWC: np.ndarray, second_HWC: np.ndarray) -> Tensor:
    """The flow (2, H, W) for which second(x + flow(x)) = first(x), of uint8 pictures."""
    pyramid = [_gray(first_HWC), _gray(second_HWC)]
    levels = [pyramid]
    while min(levels[-1][0].shape[-2:]) >= 2 * SMALLEST:
        levels.append([F.avg_pool2d(picture, 2) for picture in levels[-1]])
    flow = torch.zeros(2, *levels[-1][0].shape[-2:])
    for first, second in reversed(levels):
        height, width = first.shape[-2:]
        if flow.shape[-2:] != (height, width):
            flow = 2 * F.interpolate(flow[None], (height, width), mode="bilinear", align_corners=False)[0]
        for _ in range(STEPS):
            flow = _windows((flow + _step(first, warp(second[0], flow)[None]))[:, None])[:, 0]
    return flow


def warp(picture_CHW: Tensor, flow: Tensor) -> Tensor:
    """picture(x + flow(x)), bilinear; beyond the border the border goes on."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([(x + flow[0] + 0.5) * 2 / width - 1, (y + flow[1] + 0.5) * 2 / height - 1], -1)
    return F.grid_sample(picture_CHW[None], grid[None], padding_mode="border", align_corners=False)[0]


def _step(first: Tensor, moved: Tensor) -> Tensor:
    """The small shift that best explains first - moved, per window: a 2x2 system at each pixel."""
    padded = F.pad(moved, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    change = first - moved
    xx, yy, xy, xt, yt = (_windows(p)[0, 0] for p in (dx * dx, dy * dy, dx * dy, dx * change, dy * change))
    xx, yy = xx + TEXTURE, yy + TEXTURE
    determinant = xx * yy - xy * xy
    return torch.stack([yy * xt - xy * yt, xx * yt - xy * xt]).div(determinant).clamp(-1, 1)


def _windows(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


def _gray(picture_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(picture_HWC.astype(np.float32).mean(-1) / 255)[None, None]
