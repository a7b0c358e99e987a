"""How a clip looks, by a linear head over its embedding. The head is the user's, in a safetensors file: `weight` (1, D) and `bias` (1,).

Several linear layers one behind the other (`0.weight`, `2.weight`, …), as published heads have them, count as one.

Axis legend: D features, N outputs of a layer.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldfoundry.core.errors import DataError

SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """score = weight_D @ embedding_D + bias, for embeddings of length 1."""

    weight_D: np.ndarray
    bias: float

    def __call__(self, embedding_D: np.ndarray) -> float:
        """Raises DataError for an embedding of another length."""
        if embedding_D.shape != self.weight_D.shape:
            raise DataError(
                f"The aesthetic head takes {len(self.weight_D)} features, but embeddings have {len(embedding_D)}.",
                "Give the --scores.embedder that it was trained on.",
            )
        return round(float(self.weight_D @ embedding_D) + self.bias, 5)


def read_head(path: Path) -> LinearHead:
    """Read a head and multiply its layers out. Raises DataError if the file holds something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"The aesthetic head {str(path)!r} cannot be read.", "It is a safetensors file.") from error
    names = sorted((name for name in tensors if name.endswith("weight")), key=_number)
    if not names or any(tensors[name].ndim != 2 for name in names):
        raise DataError(f"{str(path)!r} holds no linear head.", "It wants `weight` (1, D) and `bias` (1,).")
    matrix_ND, bias_N = None, np.zeros(1)
    for name in names:
        layer_NM = tensors[name].astype(np.float64)
        shift_N = tensors.get(f"{name[: -len('weight')]}bias", np.zeros(len(layer_NM))).astype(np.float64)
        if matrix_ND is not None and layer_NM.shape[1] != len(matrix_ND):
            raise DataError(
                f"The layer {name!r} of {str(path)!r} does not fit the one before it.", "Name layers in their order."
            )
        bias_N = shift_N if matrix_ND is None else layer_NM @ bias_N + shift_N
        matrix_ND = layer_NM if matrix_ND is None else layer_NM @ matrix_ND
    if matrix_ND is None or len(matrix_ND) != 1:
        raise DataError(f"The head {str(path)!r} does not end in one number.", "It wants `weight` (1, D) and `bias` (1,).")
    return LinearHead(weight_D=matrix_ND[0].astype(np.float32), bias=float(bias_N[0]))


def _number(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]
