"""Technical quality of frames at full size: focus, noise, exposure, and (with its statistics at hand) NIQE.

Axis legend: T frames, H height, W width, C = 3 (RGB). Luma runs from 0 to 255. One score of a span is the median over its
frames, so that one blurred or flashed frame does not decide; clipped shares are means.
"""

from collections.abc import Callable, Sequence

import numpy as np

from worldfoundry.curation.scores.plugin import load_plugin, plugin_number
from worldfoundry.curation.shots import to_luma
from worldfoundry.perception.niqe import NiqeModel

BLACK, WHITE = 4.0, 251.0  # luma levels: at or beyond these, detail is lost
NOISE_BLOCK = 16  # pixels
FLAT_SHARE = 0.25  # of blocks, the least textured: what varies there is noise

QUALITY_COLUMNS = ("focus", "noise", "luma_mean", "clipped_dark", "clipped_bright", "niqe")


def quality_scores(frames_HWC: Sequence[np.ndarray], niqe: NiqeModel | None = None) -> dict[str, float | None]:
    """Technical quality of a few uint8 frames at full size, all of one span.

    focus       deviation of the Laplacian over that of luma: 0 = blurred away, about 0.1 to 0.6 for footage,
                    4.5 for white noise; None for a uniform picture
    noise           standard deviation in luma levels, of what varies from pixel to pixel in the flattest quarter; 0 and up
    luma_mean       0 to 255
    clipped_dark, clipped_bright   share of pixels at the black and white ends, 0 to 1
    niqe            unnaturalness, 8 to 10 for good photographs and more for worse; None without `niqe`, or
                    in a frame of fewer than four whole blocks of 96 x 96 pixels
    """
    if len(frames_HWC) == 0:
        return dict.fromkeys(QUALITY_COLUMNS)
    lumas = [to_luma(frame[None])[0] for frame in frames_HWC]
    return {
        "focus": _median([focus(luma) for luma in lumas]),
        "noise": _median([noise_level(luma) for luma in lumas]),
        "luma_mean": round(float(np.mean([luma.mean() for luma in lumas])), 2),
        "clipped_dark": round(float(np.mean([(luma <= BLACK).mean() for luma in lumas])), 5),
        "clipped_bright": round(float(np.mean([(luma >= WHITE).mean() for luma in lumas])), 5),
        "niqe": _median([niqe.score(luma) for luma in lumas]) if niqe else None,
    }


def focus(luma_HW: np.ndarray) -> float | None:
    """Deviation of the 4-neighbour Laplacian relative to that of luma; None where luma is uniform or has no inside."""
    deviation = float(luma_HW.std())
    if min(luma_HW.shape) < 3 or deviation < 0.5:
        return None
    inner = luma_HW[1:-1, 1:-1]
    laplacian = luma_HW[:-2, 1:-1] + luma_HW[2:, 1:-1] + luma_HW[1:-1, :-2] + luma_HW[1:-1, 2:] - 4 * inner
    return float(laplacian.std()) / deviation


def noise_level(luma_HW: np.ndarray) -> float | None:
    """Robust sigma of Immerkaer's high pass (1996), which no plane or ramp passes, over the flattest quarter of blocks.

    Blocks at the ends of the range are left out, since clipping hides noise. None if no block is left.
    """
    rows, columns = ((size - 2) // NOISE_BLOCK for size in luma_HW.shape)
    if rows < 1 or columns < 1:
        return None
    across = luma_HW[:, :-2] - 2 * luma_HW[:, 1:-1] + luma_HW[:, 2:]
    high = across[:-2] - 2 * across[1:-1] + across[2:]  # white noise of deviation 1 becomes 6
    shape = (rows, NOISE_BLOCK, columns, NOISE_BLOCK)
    high, inner = (x[: rows * NOISE_BLOCK, : columns * NOISE_BLOCK].reshape(shape) for x in (high, luma_HW[1:-1, 1:-1]))
    mean = inner.mean(axis=(1, 3))
    sigma = np.sqrt((high**2).mean(axis=(1, 3))) / 6
    sigma = np.sort(sigma[(mean > 2 * BLACK) & (mean < 255 - 2 * BLACK)])
    return float(np.median(sigma[: max(1, int(len(sigma) * FLAT_SHARE))])) if len(sigma) else None


def aesthetic_score(frames_HWC: Sequence[np.ndarray], place: str) -> float:
    """What the plug-in at `place` (`package.module:function`) says of a span: it gets a list of uint8 HWC frames and gives a number.

    Raises UsageError if it cannot be loaded or gives no finite number.
    """
    function: Callable[..., object] = load_plugin(place)
    return round(plugin_number(place, function(list(frames_HWC))), 5)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 5) if known else None
