"""Models of the transformers library in a folder on this machine, never from the network."""

from pathlib import Path
from typing import Any

from worldfoundry.core.errors import CheckpointError, MissingExtraError


def transformers_library() -> Any:
    """The library itself. Raises MissingExtraError if it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "text") from error
    return transformers


def read_folder(folder: Path, reader: Any, **options: Any) -> Any:
    """What `reader` (a `from_pretrained`) makes of a folder. Raises CheckpointError if it cannot read it."""
    try:
        return reader(str(folder), local_files_only=True, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(f"{str(folder)!r} cannot be read: {reason}", "Copy the whole folder again.") from error


def read_network(folder: Path, reader: Any, *, what: str) -> Any:
    """A network in eval mode without gradients. Raises CheckpointError if tensors are missing: transformers would draw them."""
    network, told = read_folder(folder, reader, use_safetensors=True, output_loading_info=True, torch_dtype="auto")
    if told["missing_keys"]:
        raise CheckpointError(
            f"The {what} {str(folder)!r} lacks {len(told['missing_keys'])} tensors, for example {min(told['missing_keys'])!r}.",
            "Copy the whole folder again.",
        )
    return network.eval().requires_grad_(False)
