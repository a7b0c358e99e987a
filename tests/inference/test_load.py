"""`wf.load` by name and folder, and worlds whose parts do not belong together."""

import re

import pytest
import torch

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.core import shipped
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError
from worldfoundry.inference.load import check_same_latents, load_tokenizer
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A package that ships one tokenizer, in bfloat16."""
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug").to_dict())
    return save_component(
        tmp_path / "weights" / "nano-test", tokenizer, kind="tokenizer", provenance={"a": 1}, dtype=torch.bfloat16
    )


def test_a_shipped_name_loads_and_is_listed(weights, capsys):
    tokenizer = wf.load("nano-test")
    assert tokenizer.dtype == torch.bfloat16
    assert tokenizer.latent_mean.dtype == torch.float32  # statistics keep their own
    assert tokenizer.provenance == {"a": 1}
    assert wf.load("nano-test", dtype="float32").dtype == torch.float32
    assert not any(tensor.is_meta for tensor in tokenizer.state_dict().values())
    assert main(["models", "list"]) == 0
    assert re.search(r"nano-test +tokenizer, ", capsys.readouterr().out)
    with pytest.raises(CheckpointError, match="Did you mean 'nano-test'"):
        wf.load("nano-tset")


def test_loading_draws_no_random_numbers(weights):
    """The network is never initialised: building 14 billion weights only to overwrite them takes longer than reading them."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    wf.load("nano-test")
    assert torch.equal(before, torch.get_rng_state())


def test_a_world_needs_one_latent_space(tmp_path):
    check_same_latents(16, 16, tmp_path)
    with pytest.raises(CheckpointError, match="transformer predicts latents of 16 channels, its vae has 4"):
        check_same_latents(16, 4, tmp_path)


def test_what_must_be_a_tokenizer_is_one(weights, tmp_path):
    assert load_tokenizer("nano-test").dtype == load_tokenizer(weights).dtype == torch.bfloat16
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"world' is a world\. Give a tokenizer's folder, such as the `vae`"):
        load_tokenizer(tmp_path / "world")
    with pytest.raises(CheckpointError, match="Did you mean 'nano-test'"):
        load_tokenizer("nano-tset")
