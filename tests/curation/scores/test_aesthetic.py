"""A linear head is read from a file, layer behind layer, and one that does not fit is refused before the work."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from worldfoundry.core.errors import DataError
from worldfoundry.curation.scores.aesthetic import read_head
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.prepare import prepare
from worldfoundry.curation.scores.stages import score_stages

X = np.random.default_rng(0).normal(size=5).astype(np.float32)


def test_one_layer_is_a_product_and_a_shift(tmp_path: Path) -> None:
    weight = np.arange(5, dtype=np.float32)[None]
    save_file({"weight": weight, "bias": np.array([2.0], np.float32)}, tmp_path / "head.safetensors")
    assert read_head(tmp_path / "head.safetensors")(X) == pytest.approx(float(weight[0] @ X) + 2, abs=1e-4)


def test_layers_are_applied_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    shapes = {"layers.0": (4, 5), "layers.2": (3, 4), "layers.10": (1, 3)}
    tensors = {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": random.normal(size=shape[0]).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "head.safetensors")
    expected = X.astype(np.float64)
    for name in shapes:
        expected = tensors[f"{name}.weight"] @ expected + tensors[f"{name}.bias"]
    assert read_head(tmp_path / "head.safetensors")(X) == pytest.approx(float(expected[0]), abs=1e-4)


def test_the_head_is_a_column_and_another_head_another_result(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    config = ScoreConfig(measure=False, embedder="effnet-lite0", aesthetic=str(path))
    keys = []
    for sign in (1, -1):
        save_file({"weight": sign * np.eye(1, 5, dtype=np.float32)}, path)
        stage = next(stage for stage in score_stages(config) if stage.name == "aesthetic")
        assert stage.added({"embeddings": [X, -X]}) == {
            "aesthetic": [pytest.approx(sign * X[0], abs=1e-4), pytest.approx(-sign * X[0], abs=1e-4)]
        }
        keys.append(stage.params_hash())
    assert keys[0] != keys[1], "the file's content is what counts"


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    for number, (tensors, message) in enumerate(
        [
            ({"weight": np.zeros((2, 5), np.float32)}, "does not end in one number"),
            ({"scale": np.zeros((1, 5), np.float32)}, "holds no linear head"),
            (
                {"0.weight": np.zeros((4, 5), np.float32), "1.weight": np.zeros((1, 3), np.float32)},
                "does not fit the one before",
            ),
        ]
    ):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        with pytest.raises(DataError, match=message):
            prepare(ScoreConfig(embedder="effnet-lite0", aesthetic=str(tmp_path / f"{number}.safetensors")))
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="cannot be read"):
        read_head(tmp_path / "text.safetensors")
    save_file({"weight": np.zeros((1, 7), np.float32)}, tmp_path / "seven.safetensors")
    with pytest.raises(DataError, match="takes 7 features, but embeddings have 5"):
        read_head(tmp_path / "seven.safetensors")(X)
    with pytest.raises(ValueError, match="embedder is empty"):
        ScoreConfig(aesthetic="head.safetensors")
