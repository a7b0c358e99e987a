"""Scale and centre-crop frames to a size.

Axis legend: T frames, H height, W width, C = 3 (RGB).
"""

import numpy as np
from PIL import Image


def fit(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 THWC scaled so that the picture covers height x width (antialiased bicubic), then cropped at the centre."""
    if frames.shape[1:3] == (height, width):
        return frames
    scale = max(height / frames.shape[1], width / frames.shape[2])
    size = max(height, round(frames.shape[1] * scale)), max(width, round(frames.shape[2] * scale))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    scaled = [np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC)) for frame in frames]
    return np.stack(scaled)[:, top : top + height, left : left + width]
