"""Where text stands in a picture: the detector of PP-OCR (differentiable binarisation, arXiv 1911.08947), run by onnxruntime.

Shown a picture without any text, this network invents large regions (measured: a quarter of a snow field). With a line of known
text below the picture it does not; so one is put there, and its strip is cut off again.

Axis legend: H height, W width, C = 3 (RGB).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldfoundry.core.errors import CheckpointError, MissingExtraError

LONG_SIDE = 640  # pixels: finds text from about 2 % of the picture's height on
STRIDE = 32  # pixels: the network wants whole multiples
CELL = 4  # pixels of the scaled picture per cell of the answer


@dataclass(frozen=True, kw_only=True)
class TextDetector:
    """A loaded detector; `session` is onnxruntime's."""

    session: Any

    def probability(self, frame_HWC: np.ndarray) -> np.ndarray:
        """uint8 RGB of any size → float32 (h, w), how surely each cell is text; the longer side has at most 160 cells."""
        scale = LONG_SIDE / max(frame_HWC.shape[:2])
        height, width = (max(STRIDE, round(size * scale / STRIDE) * STRIDE) for size in frame_HWC.shape[:2])
        picture = Image.new("RGB", (width, height + STRIDE), "black")
        picture.paste(Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BILINEAR))
        ImageDraw.Draw(picture).text((8, height + 5), "text", fill="white", font=ImageFont.load_default(20))
        x_HWC = np.asarray(picture, dtype=np.float32)[..., ::-1] / 127.5 - 1
        name = self.session.get_inputs()[0].name
        surely_HW = self.session.run(None, {name: np.ascontiguousarray(x_HWC.transpose(2, 0, 1)[None])})[0][0, 0]
        return surely_HW[:height].reshape(height // CELL, CELL, width // CELL, CELL).mean(axis=(1, 3))


def load_text_detector(folder: Path, threads: int = 1) -> TextDetector:
    """Read `model.onnx` of a fetched `text-detector`. Raises MissingExtraError without onnxruntime, CheckpointError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "curate") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    if not (folder / "model.onnx").is_file():
        raise CheckpointError(f"{str(folder)!r} holds no text detector.", "Get it: worldfoundry models get text-detector")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return TextDetector(session=session)
