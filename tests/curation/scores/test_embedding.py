"""Embedders of any origin give one vector of length 1 per clip; a taxonomy names the nearest label."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from worldfoundry.core.errors import CheckpointError, DataError, UsageError
from worldfoundry.curation.scores.embedding import EffNetEmbedder, as_tensor, clip_embedder, unit
from worldfoundry.curation.scores.video_type import classifier, read_taxonomy, taxonomy_of
from worldfoundry.perception.effnet_lite0 import EfficientNetLite0

FRAMES = list(np.random.default_rng(0).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8))


class MeanColour(nn.Module):
    """Features are the mean of each channel."""

    def features(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW.mean((2, 3))


def test_pictures_are_scaled_and_normalised() -> None:
    x = as_tensor([np.full((10, 20, 3), 255, np.uint8)], (4, 6), (127.5,) * 3, (127.5,) * 3)
    assert x.shape == (1, 3, 4, 6)
    assert (x == 1).all()


def test_a_clip_is_the_mean_of_its_frames_at_length_one() -> None:
    red, green = (np.zeros((8, 8, 3), np.uint8) + np.uint8(c) for c in ([255, 0, 0], [0, 255, 0]))
    vector = EffNetEmbedder(network=MeanColour())([red, green])
    assert vector == pytest.approx(np.array([0, 0, -1]), abs=1e-6)
    assert np.linalg.norm(unit(np.array([3.0, 4.0]))) == pytest.approx(1)
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]


def test_the_packaged_network_fits() -> None:
    torch.manual_seed(0)
    vector = EffNetEmbedder(network=EfficientNetLite0().eval())(FRAMES[:1])
    assert vector.shape == (1280,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def save_network(folder: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 16}
    torch.manual_seed(0)
    if kind == "picture":
        transformers.ViTModel(transformers.ViTConfig(**small, patch_size=8)).save_pretrained(folder)
    elif kind == "picture and words":
        words = {name: value for name, value in small.items() if name != "image_size"}
        text = {**words, "vocab_size": 8, "max_position_embeddings": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config={**small, "patch_size": 8}, projection_dim=16)
        transformers.CLIPModel(config).save_pretrained(folder)
    else:
        config = transformers.VideoMAEConfig(**small, patch_size=8, num_frames=4, tubelet_size=2)
        transformers.VideoMAEModel(config).save_pretrained(folder)


@pytest.mark.parametrize("kind", ["picture", "picture and words", "video"])
def test_a_transformers_folder_is_an_embedder(tmp_path: Path, kind: str) -> None:
    save_network(tmp_path / kind, kind)
    embed = clip_embedder(str(tmp_path / kind))
    assert (embed.name, embed.frames) == (kind, 4)
    vector = embed(FRAMES)
    assert vector.shape == (16,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert embed(FRAMES) == pytest.approx(vector)
    assert (embed(FRAMES[::-1]) == pytest.approx(vector, abs=1e-5)) == (kind != "video")  # only one knows of time


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no network"):
        clip_embedder(str(tmp_path))


def test_the_nearest_label_is_named_with_its_lead(tmp_path: Path) -> None:
    vectors = [np.array(v, float) for v in ([1, 0.1, 0], [1, -0.1, 0], [0, 1, 0])]
    taxonomy = taxonomy_of("effnet-lite0", vectors, ["road", "road", "kitchen"])
    assert taxonomy.labels == ("kitchen", "road")
    assert taxonomy.classify(np.array([2.0, 0, 0])) == {
        "video_type": "road",
        "video_type_similarity": 1.0,
        "video_type_margin": 1.0,
    }
    taxonomy.save(tmp_path / "types.json")
    again = read_taxonomy(tmp_path / "types.json", "effnet-lite0")
    assert again.labels == taxonomy.labels
    assert again.centroids_ND == pytest.approx(taxonomy.centroids_ND, abs=1e-5)
    with pytest.raises(DataError, match="was made with 'effnet-lite0'"):
        read_taxonomy(tmp_path / "types.json", "other")
    (tmp_path / "no.json").write_text('{"labels": {}}')
    with pytest.raises(DataError, match="is no taxonomy"):
        read_taxonomy(tmp_path / "no.json", "other")


def by_sign(embedding_D: np.ndarray) -> dict[str, float]:
    return {"plus": float(embedding_D[0]), "minus": -float(embedding_D[0])}


def test_a_classifier_may_be_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_types", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "nothing", lambda embedding_D: {}, raising=False)
    classify = classifier("my_types:by_sign", "effnet-lite0")
    assert classify(np.array([-0.25, 0])) == {
        "video_type": "minus",
        "video_type_similarity": 0.25,
        "video_type_margin": 0.5,
    }
    with pytest.raises(UsageError, match="a dictionary of a number per label"):
        classifier("my_types:nothing", "effnet-lite0")(np.zeros(2))
