"""The training of a diffusion decoder as a recipe: through the command line to a folder that decodes, resumed bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError, DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.token_decoder import TokenDecoder
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.train_decoder import train_decoder
from worldfoundry.recipes.train_decoder_config import TrainDecoderConfig
from worldfoundry.recipes.train_decoder_data import decoder_columns
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training import loop as loop_module
from worldfoundry.training.config import LoopConfig, LoRAConfig, OptimConfig

WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.3)
CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 16), ("c", 9, 16, 16)]
LOOP = LoopConfig(steps=4, precision="float32", compile="off", save_every_s=1e-6, optim=OptimConfig(lr=1e-3, warmup_steps=1))


@pytest.fixture
def data(make_dataset):
    return make_dataset(CLIPS)


@pytest.fixture
def world(tmp_path):
    """A world with random weights, whose latents are 4x4x4."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug-cv4x4x4").to_dict()).eval()
    dit = DiTConfig(
        in_channels=12, out_channels=12, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=8,
        adaln_lora_dim=4, max_frames=4, max_h=8, max_w=8, condition_mask=True,
    )  # fmt: skip
    network = DiT(dit)
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    defaults = WorldDefaults(num_frames=9, height=16, width=16, fps=12, num_prefix_frames=5, guidance_scale=0.0, context_rows=3)
    made = DiffusionWorld(
        network.eval().requires_grad_(False), tokenizer, SchedulerConfig(), defaults, encoder=NullTextEncoder(8, 3)
    )
    provenance = {"config": {"window": WINDOW.to_dict()}, "held_out_sources": ["c"]}
    return save_world(tmp_path / "world", made, provenance=provenance, card="")


@pytest.fixture
def tokens(tmp_path):
    """A discrete tokenizer of 4x8x8."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer(named_config("debug-dv4x8x8").to_dict()).eval()
    return save_component(tmp_path / "tokens", tokenizer, kind="tokenizer", provenance={})


def options(data, world, tokens, out, **changes):
    settings = {"loop": LOOP, "batch_size": 2, "device": "cpu", "lora": LoRAConfig(rank=2), "token_channels": 4}
    return TrainDecoderConfig(data=data, world=world, tokenizer=tokens, out=out, **{**settings, **changes})


def test_the_command_leaves_a_decoder(data, world, tokens, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", "decoder", str(data), "--world", str(world), "--tokenizer", str(tokens), "--out", str(run)]
    loop = ["--loop.minutes", "None", "--loop.steps", "2", "--loop.compile", "off", "--loop.precision", "float32"]
    assert main([*words, *loop, "--batch-size", "2", "--lora.rank", "2", "--device", "cpu"]) == 0
    assert f"wf.load({str(run / 'decoder')!r}).decode(" in capsys.readouterr().err
    assert {path.name for path in (run / "decoder").iterdir()} == {
        "model.safetensors", "config.json", "provenance.json", "README.md",
    }  # fmt: skip
    facts = json.loads((run / "decoder" / "provenance.json").read_text())
    assert (facts["steps"], facts["windows"]) == (2, 4)
    decoder = wf.load(run / "decoder")
    assert isinstance(decoder, TokenDecoder)
    assert (decoder.config.chunk_frames, decoder.config.overlap_frames, decoder.config.token_codes) == (3, 2, 1000)
    made = decoder.decode(torch.zeros(1, 5, 2, 2, dtype=torch.int32), fps=12, generators=[torch.Generator().manual_seed(0)])
    assert made.shape == (1, 17, 16, 16, 3)


def test_a_killed_run_goes_on_as_if_it_had_not_been(data, world, tokens, tmp_path, monkeypatch):
    whole = train_decoder(options(data, world, tokens, tmp_path / "whole"))
    run_step = loop_module.Trainer.run_step

    def dies(self):
        if self.step == 2:
            raise KeyboardInterrupt
        return run_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module.Trainer, "run_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_decoder(options(data, world, tokens, tmp_path / "killed"))
    resumed = train_decoder(options(data, world, tokens, tmp_path / "killed"))
    one, other = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert any(tensor.any() for name, tensor in one.items() if name.endswith(".up"))


def test_tokens_and_latents_are_of_the_same_windows(data, world, tokens, tmp_path):
    loaded, discrete = wf.load(world), wf.load(tokens)
    config, dataset = options(data, world, tokens, tmp_path / "run"), ClipDataset(data)
    rows = decoder_columns(config, dataset, loaded, loaded.tokenizer, discrete)
    assert rows["latents"].shape == (4, 12, 3, 4, 4)
    assert rows["tokens"].shape == (4, 3, 2, 2)
    first = next(record for record in dataset.records if record.source_id != "c")
    video = torch.from_numpy(dataset.video(first)[8:17]).movedim(-1, 0)[None].float() / 127.5 - 1
    second = 1
    assert (discrete.encode_indices(video) == rows["tokens"][second]).float().mean() > 0.9  # encoded in half precision on some
    known = loaded.tokenizer.normalize(loaded.tokenizer.encode(video))
    torch.testing.assert_close(known[0], rows["latents"][second].float(), atol=0.05, rtol=0.05)
    taken = config.replace(latents=tmp_path / "run" / "latents", stride=4, out=tmp_path / "other")
    with pytest.raises(DataError, match="have 6 windows, but there are latents of 4"):
        decoder_columns(taken, dataset, loaded, loaded.tokenizer, discrete)


def test_a_continuous_tokenizer_is_refused(data, world, tmp_path):
    with pytest.raises(CheckpointError, match="this tokenizer is continuous"):
        train_decoder(options(data, world, world / "vae", tmp_path / "run"))
