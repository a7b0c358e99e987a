"""Cosmos-Predict2's tokenizer: diffusers' network behind our contract, with tiny random weights."""

import sys

import pytest
import torch

import worldfoundry as wf
from worldfoundry.core.errors import CheckpointError, MissingExtraError
from worldfoundry.tokenizers.check import check_tokenizer
from worldfoundry.tokenizers.wan import from_diffusers

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def network():
    torch.manual_seed(0)
    fields = {
        "base_dim": 4,
        "z_dim": 4,
        "num_res_blocks": 1,
        "latents_mean": [0.1, 0.2, 0.3, 0.4],
        "latents_std": [1.0, 2.0, 3.0, 4.0],
    }
    return diffusers.AutoencoderKLWan(**fields).eval().requires_grad_(False)


def test_a_saved_folder_keeps_the_contract_and_the_numbers(network, tmp_path):
    network.save_pretrained(tmp_path)
    tokenizer = wf.load(tmp_path)
    check_tokenizer(tokenizer)
    x = torch.rand(1, 3, 5, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z = tokenizer.encode(x)
    assert torch.equal(z, network.encode(x).latent_dist.mode())
    assert torch.equal(tokenizer.decode(z), network.decode(z).sample)
    torch.testing.assert_close(tokenizer.normalize(z)[:, 3], (z[:, 3] - 0.4) / 4)


def test_half_precision_keeps_exact_statistics(network):
    tokenizer = from_diffusers(network.state_dict(), network.config).to(torch.bfloat16)
    z = tokenizer.encode(torch.zeros(1, 3, 1, 8, 8))
    assert z.dtype == tokenizer.dtype == torch.bfloat16
    want = (z[0, :, 0, 0, 0].float() - torch.tensor([0.1, 0.2, 0.3, 0.4])) / torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.equal(tokenizer.normalize(z.float())[0, :, 0, 0, 0], want)


def test_weights_of_another_size_are_named(network):
    with pytest.raises(CheckpointError, match="Wan tokenizer disagree"):
        from_diffusers(network.state_dict(), {**network.config, "base_dim": 8})


def test_without_diffusers_the_error_is_the_pip_line(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'worldfoundry\[dev\]'"):
        from_diffusers(network.state_dict(), network.config)
