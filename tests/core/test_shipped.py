"""Names of shipped models: found, listed, and mistaken ones explained."""

import pytest

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.shipped import model_place, shipped_models


@pytest.fixture
def root(tmp_path):
    """A weights folder with a tokenizer, a world, and a folder that is neither."""
    for name, file, content in (
        ("nano-cv8x8x8", "config.json", '{"kind": "tokenizer"}'),
        ("nano-world", "model_index.json", "{}"),
        ("notes", "readme.txt", ""),
    ):
        (tmp_path / "weights" / name).mkdir(parents=True)
        (tmp_path / "weights" / name / file).write_text(content)
    (tmp_path / "weights" / "nano-cv8x8x8" / "model.safetensors").write_bytes(b"0" * 1_500_000)
    return tmp_path / "weights"


def test_models_are_listed_with_kind_and_size(root):
    found = shipped_models(root)
    assert {name: model.kind for name, model in found.items()} == {"nano-cv8x8x8": "tokenizer", "nano-world": "world"}
    assert found["nano-cv8x8x8"].size_mb == 1.5
    assert shipped_models(root / "absent") == {}


def test_a_name_is_its_folder_and_an_existing_folder_wins(root, tmp_path, monkeypatch):
    assert model_place("nano-cv8x8x8", root) == root / "nano-cv8x8x8"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano-cv8x8x8").mkdir()
    assert model_place("nano-cv8x8x8", root).resolve() == tmp_path / "nano-cv8x8x8"


def test_a_wrong_name_gets_the_closest_and_all(root, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no shipped model 'nano-cv8x8'.*mean 'nano-cv8x8x8'.*: nano-cv8x8x8, nano-world"
    ):
        model_place("nano-cv8x8", root)
    with pytest.raises(CheckpointError, match=r"no shipped model 'zzz'\. Shipped: nano-cv8x8x8, nano-world\.$"):
        model_place("zzz", root)
    with pytest.raises(CheckpointError, match=r"no checkpoint folder '/nowhere/tok'.*worldfoundry train"):
        model_place("/nowhere/tok", root)
    with pytest.raises(CheckpointError, match="no checkpoint folder 'zzz'"):
        model_place("zzz", tmp_path / "absent")
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"a\.safetensors' is a file, not a checkpoint folder"):
        model_place(tmp_path / "a.safetensors", root)
