"""A face drawn from ellipses, which the face detectors take for one: tests need no photograph of a person."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

GREY = (90, 110, 120)
SKIN, DARK = (205, 160, 135), (60, 40, 30)
# (centre x, centre y, radius x, radius y, colour), in widths of the picture, back to front.
PARTS = [
    (0.50, 0.440, 0.330, 0.420, DARK),
    (0.50, 0.520, 0.290, 0.380, SKIN),
    *(
        (x, y, rx, ry, colour)
        for x in (0.38, 0.62)
        for y, rx, ry, colour in (
            (0.460, 0.085, 0.055, (150, 105, 88)),
            (0.465, 0.060, 0.032, (235, 230, 225)),
            (0.465, 0.030, 0.032, (40, 25, 20)),
            (0.395, 0.085, 0.018, DARK),
        )
    ),
    (0.50, 0.580, 0.055, 0.070, (180, 130, 108)),
    (0.47, 0.635, 0.020, 0.014, (110, 70, 58)),
    (0.53, 0.635, 0.020, 0.014, (110, 70, 58)),
    (0.50, 0.740, 0.120, 0.035, (150, 60, 60)),
    (0.50, 0.735, 0.110, 0.010, (90, 30, 30)),
]
# The detector finds eyes to mouth and chin, here in widths of the drawing: left, top, right, bottom.
FACE = np.array([0.23, 0.18, 0.78, 0.90])


def draw_face(size: int) -> np.ndarray:
    """uint8 (size, size, 3), a head on grey."""
    side = 8 * size
    picture = Image.new("RGB", (side, side), GREY)
    for x, y, rx, ry, colour in PARTS:
        ImageDraw.Draw(picture).ellipse([(x - rx) * side, (y - ry) * side, (x + rx) * side, (y + ry) * side], fill=colour)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(side * 0.012)).resize((size, size), Image.Resampling.LANCZOS))


def scene(height: int, width: int, faces: list[tuple[int, int, int]]) -> np.ndarray:
    """uint8 (height, width, 3), grey with a drawn head of `size` at each (left, top, size); heads may reach over the edge."""
    frame = np.full((height, width, 3), GREY, np.uint8)
    for left, top, size in faces:
        x, y = max(left, 0), max(top, 0)
        part = draw_face(size)[y - top : height - top, x - left : width - left]
        frame[y : y + len(part), x : x + part.shape[1]] = part
    return frame
