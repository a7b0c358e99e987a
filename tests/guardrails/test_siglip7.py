"""Cosmos' frame classifier on tiny random checkpoints: same features as transformers, the published head's names, strict refusals."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldfoundry.core.contracts import VideoItem
from worldfoundry.core.errors import CheckpointError, ConfigError
from worldfoundry.guardrails.check import check_guard
from worldfoundry.guardrails.siglip7 import CLASSES, Siglip7Config, Siglip7Guard
from worldfoundry.perception.siglip import load_siglip_vision

transformers = pytest.importorskip("transformers")
WIDTH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SigLIP (both towers) with random weights, saved by transformers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    picture, text = sizes | {"image_size": 28, "patch_size": 14}, sizes | {"vocab_size": 10, "projection_size": WIDTH}
    model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=picture, text_config=text)).eval()
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    return folder


def write_head(path, answer):
    """A classifier that always gives the class `answer`, under the names of safety_filter.pt."""
    torch.manual_seed(1)
    layers = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 512),
        torch.nn.BatchNorm1d(512),
        torch.nn.ReLU(),
        torch.nn.Linear(512, 256),
        torch.nn.BatchNorm1d(256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 7),
    )
    layers[6].bias.data[CLASSES.index(answer)] = 20
    torch.save({"model": {f"network.layers.{name}": tensor for name, tensor in layers.state_dict().items()}}, path)
    return path


def item(frames=5):
    generator = np.random.default_rng(0)
    return VideoItem(frames=generator.integers(0, 256, (frames, 30, 40, 3), dtype=np.uint8), fps=8)


def test_features_are_those_of_transformers(folder):
    x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model.vision_model(pixel_values=x).pooler_output
    torch.testing.assert_close(load_siglip_vision(folder)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("answer", CLASSES)
def test_any_class_but_safe_blocks(folder, tmp_path, answer):
    guard = Siglip7Guard(Siglip7Config(folder=folder, head=write_head(tmp_path / "safety_filter.pt", answer)))
    verdict = guard.check(item())
    assert verdict.status == ("safe" if answer == "safe" else "unsafe")
    assert verdict.category == ("" if answer == "safe" else answer)
    assert verdict.evidence["frames_checked"] >= 2


def test_it_keeps_the_contract_and_reads_safetensors(folder, tmp_path):
    file = write_head(tmp_path / "head.pt", "safe")
    save_file(torch.load(file, weights_only=True)["model"], tmp_path / "head.safetensors")
    check_guard(Siglip7Guard(Siglip7Config(folder=folder, head=tmp_path / "head.safetensors")))


def test_it_does_not_start_without_its_weights(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"no weights.*siglip7\.folder"):
        Siglip7Guard(Siglip7Config())
    with pytest.raises(CheckpointError, match="does not exist"):
        Siglip7Guard(Siglip7Config(folder=folder, head=tmp_path / "absent.pt"))
    (tmp_path / "broken.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Siglip7Guard(Siglip7Config(folder=folder, head=tmp_path / "broken.pt"))
    torch.save({"model": {"network.layers.0.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="disagree"):
        Siglip7Guard(Siglip7Config(folder=folder, head=tmp_path / "other.pt"))
