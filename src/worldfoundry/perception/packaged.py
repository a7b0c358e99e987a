"""Weights that come with the package and must be exactly those: the guards' networks, checked by SHA-256 before they are used."""

from torch import Tensor

from worldfoundry.core import shipped
from worldfoundry.core.checkpoint import read_weights
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import file_sha256


def read_packaged(name: str, sha256: str) -> dict[str, Tensor]:
    """The tensors of `worldfoundry/weights/NAME` in float32.

    Raises CheckpointError if the file is absent or is not the one with this SHA-256.
    """
    file = shipped.WEIGHTS / name / "model.safetensors"
    fix = "Install worldfoundry again: pip install --force-reinstall --no-deps worldfoundry"
    if not file.is_file():
        raise CheckpointError(f"The weights {str(file)!r} are missing.", fix)
    found = file_sha256(file)
    if found != sha256:
        raise CheckpointError(f"The weights {str(file)!r} have SHA-256 {found[:16]}…, not {sha256[:16]}….", fix)
    return {key: tensor.float() for key, tensor in read_weights(file.parent).items()}
