"""`worldfoundry generate` with an autoregressive world: its own options, those of the other kind, batches."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.cli.main import main
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

NETWORK = TransformerConfig(
    vocab_size=15, dim=12, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 4, 4),
    max_seq_len=48, medusa_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world with random weights; a picture beside it."""
    place = tmp_path_factory.mktemp("worlds")
    torch.manual_seed(0)
    tokens = named_config("debug").replace(latent_channels=2, levels=(5, 3), statistics_frames=1)
    defaults = AutoregressiveDefaults(num_frames=9, height=32, width=32, fps=5)  # at so few a second nothing flashes
    world = AutoregressiveWorld(Transformer(NETWORK), build_tokenizer(tokens.to_dict()).requires_grad_(False), defaults)
    save_ar_world(place / "world", world, provenance={}, card="")
    Image.fromarray(np.full((50, 90, 3), 120, np.uint8)).save(place / "first.png")
    return place


def generate(folder, *flags):
    world, first = str(folder / "world"), str(folder / "first.png")
    return main(["generate", "--world", world, "--input", first, *map(str, flags)])


def test_its_options_reach_the_record(folder, tmp_path):
    flags = ["--temperature", 0.5, "--top-p", 0.9, "--top-k", 3, "--speculate", "copy", "--num-frames", 7]
    assert generate(folder, "--out", tmp_path / "out.mp4", *flags) == 0
    record = json.loads((tmp_path / "out.json").read_text())["config"]
    assert [record[n] for n in ("temperature", "top_p", "top_k", "speculate", "num_frames")] == [0.5, 0.9, 3, "copy", 7]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-inference-steps", 3], "--num-inference-steps is for diffusion worlds, but"),
        (["--guidance-scale", 0], "--guidance-scale is for diffusion worlds"),
        (["--adapter", "nano-diffusion-1step"], "--adapter is for diffusion worlds"),
        (["--later-prompts", "then it falls"], "--later-prompts is for diffusion worlds"),
        (["--top-p", 1.5], "--top-p: must be less than or equal to 1"),
        (["--temperature", -1], "--temperature: must be greater than or equal to 0"),
        (["--prompt", "a red ball"], "trained without text"),
        (["--offload", "parts"], "cannot be offloaded"),
    ],
)
def test_what_it_cannot_do_is_one_line(folder, tmp_path, capsys, flags, message):
    assert generate(folder, "--out", tmp_path / "out.mp4", *flags) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") <= 2  # what, and what to do


def test_its_options_are_refused_for_a_diffusion_world(tmp_path, capsys):
    flags = ["generate", "--world", "nano-diffusion", "--top-k", "5", "--out", str(tmp_path / "out.mp4")]
    assert main(flags) == 2
    assert "--top-k is for autoregressive worlds, but 'nano-diffusion' is a diffusion one." in capsys.readouterr().err


def test_a_batch_makes_what_is_asked_and_says_what_cannot_be(folder, tmp_path, capsys):
    lines = [{"name": "a", "seed": 1}, {"name": "b", "speculate": "medusa"}, {"name": "c", "step_cache": 0.1}]
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert generate(folder, "--batch", tmp_path / "requests.jsonl", "--out", tmp_path / "videos") == 2
    assert sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4")) == ["a", "b"]
    assert "line 3: --step-cache is for diffusion worlds" in capsys.readouterr().err
