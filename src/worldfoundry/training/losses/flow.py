"""Optical-flow terms: what moves in the input has to move alike in the reconstruction (arXiv 2501.03575, section 4.2).

The default takes the flow of the input (dense inverse search, Kroeger et al. 2016, as OpenCV has it), warps reconstructed frames onto
their neighbours with it, and compares the two where the motion is visible in both directions. The flow itself needs no
gradient, so any estimator serves. With a differentiable flow network, `flow_network_loss` is the paper's form: L1 between
the flows of input and reconstruction.

Axis legend: P pairs of neighbouring frames, B batch, C channels, T frames, H height, W width. Flows are [P, 2, H, W] in pixels,
x right, y down; a flow of (a, b) says where each pixel of a is found in b.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldfoundry.core.errors import MissingExtraError
from worldfoundry.evaluation.flow import lucas_kanade

FlowEstimator = Callable[[Tensor, Tensor], Tensor]
"""(a, b), both [P, 3, H, W] in [-1, 1] → flow [P, 2, H, W]. `flow_network_loss` needs a differentiable one."""

# Forward-backward check of Sundaram et al. 2010: visible where |f + f'|² < 0.01 (|f|² + |f'|²) + 0.5.
RELATIVE, ABSOLUTE = 0.01, 0.5


def warped_neighbour_loss(x_BCTHW: Tensor, reconstruction_BCTHW: Tensor, pairs: list[int], estimator: FlowEstimator) -> Tensor:
    """L1 between frame t and frame t + 1 warped onto it, of the reconstruction, for t in `pairs`, where nothing is occluded."""
    flow, visible_P1HW = visible_flow(*_neighbours(x_BCTHW, pairs), estimator)
    here, there = _neighbours(reconstruction_BCTHW, pairs)
    difference_P1HW = (warp(there, flow) - here).abs().mean(dim=1, keepdim=True)
    return (difference_P1HW * visible_P1HW).sum() / visible_P1HW.sum().clamp(min=1)


def flow_network_loss(x_BCTHW: Tensor, reconstruction_BCTHW: Tensor, pairs: list[int], network: FlowEstimator) -> Tensor:
    """L1 between the flows of input and reconstruction, forward and backward."""
    true_a, true_b = _neighbours(x_BCTHW, pairs)
    made_a, made_b = _neighbours(reconstruction_BCTHW, pairs)
    with torch.no_grad():
        target = torch.cat([network(true_a, true_b), network(true_b, true_a)])
    return (torch.cat([network(made_a, made_b), network(made_b, made_a)]) - target).abs().mean()


def random_pairs(num_frames: int, count: int, generator: torch.Generator) -> list[int]:
    """`count` different t, such that t and t + 1 are frames; fewer if there are fewer."""
    return torch.randperm(num_frames - 1, generator=generator)[:count].tolist()


@torch.no_grad()
def visible_flow(a_PCHW: Tensor, b_PCHW: Tensor, estimator: FlowEstimator) -> tuple[Tensor, Tensor]:
    """Flow from a to b, and 1 where the flow back agrees with it and ends inside the picture, [P, 1, H, W]."""
    forward, backward = estimator(a_PCHW, b_PCHW), estimator(b_PCHW, a_PCHW)
    returned = warp(backward, forward)
    gap = (forward + returned).square().sum(1, keepdim=True)
    size = forward.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    return forward, ((gap < RELATIVE * size + ABSOLUTE) & _inside(forward)).float()


def dense_inverse_search(a_PCHW: Tensor, b_PCHW: Tensor) -> Tensor:
    """OpenCV's DIS on gray bytes, on the CPU. Raises MissingExtraError without OpenCV."""
    search = _search()
    gray = (np.ascontiguousarray(_bytes(pictures).mean(-1).round().astype(np.uint8)) for pictures in (a_PCHW, b_PCHW))
    flows = [search.calc(a, b, None) for a, b in zip(*gray, strict=True)]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(a_PCHW.device)


def pyramid_lucas_kanade(a_PCHW: Tensor, b_PCHW: Tensor) -> Tensor:
    """Our own estimator, on the CPU, a pair at a time."""
    flows = [lucas_kanade(a, b) for a, b in zip(_bytes(a_PCHW), _bytes(b_PCHW), strict=True)]
    return torch.stack(flows).to(a_PCHW.device)


ESTIMATORS: dict[str, FlowEstimator] = {"dis": dense_inverse_search, "lucas-kanade": pyramid_lucas_kanade}


def flow_estimator(name: str) -> FlowEstimator:
    """One of ESTIMATORS, known to work here. Raises MissingExtraError at once, not hours later when the term sets in."""
    if name == "dis":
        _search()
    return ESTIMATORS[name]


def _search() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise MissingExtraError("cv2", "curate") from error
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def warp(picture_PCHW: Tensor, flow_P2HW: Tensor) -> Tensor:
    """picture(p + flow(p)), bilinear; beyond the border the border goes on."""
    where = _targets(flow_P2HW)
    size = torch.tensor([flow_P2HW.shape[-1], flow_P2HW.shape[-2]], device=where.device)
    grid_PHW2 = (2 * where.movedim(1, -1) + 1) / size - 1
    return F.grid_sample(picture_PCHW.float(), grid_PHW2, padding_mode="border", align_corners=False)


def _targets(flow_P2HW: Tensor) -> Tensor:
    """Pixel coordinates that the flow points at."""
    height, width = flow_P2HW.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y]).to(flow_P2HW) + flow_P2HW


def _inside(flow_P2HW: Tensor) -> Tensor:
    x, y = _targets(flow_P2HW).unbind(1)
    height, width = flow_P2HW.shape[-2:]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))[:, None]


def _neighbours(clips_BCTHW: Tensor, pairs: list[int]) -> tuple[Tensor, Tensor]:
    """Frames t and t + 1 of all clips, each [P, C, H, W] with P = B · len(pairs)."""
    later = [t + 1 for t in pairs]
    here, there = (clips_BCTHW[:, :, frames].transpose(1, 2).flatten(0, 1) for frames in (pairs, later))
    return here, there


def _bytes(pictures_PCHW: Tensor) -> np.ndarray:
    """uint8 [P, H, W, C]."""
    return pictures_PCHW.detach().add(1).mul(127.5).clamp(0, 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
