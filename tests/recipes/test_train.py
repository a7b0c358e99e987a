"""The training recipes: what is refused before any work, what a refused run leaves alone, what a finished one says."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.core import shipped
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.recipes.config import TrainDiffusionConfig, TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.train_diffusion import train_diffusion
from worldfoundry.recipes.train_tokenizer import train_tokenizer
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig

WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.3)
CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 16), ("c", 9, 16, 16)]


def loop(steps=2):
    return LoopConfig(steps=steps, precision="float32", compile="off")


def tokenizer_config(data, out, **changes):
    settings = {"model": "debug-cv4x4x4", "window": WINDOW, "loop": loop(), "device": "cpu", "batch_size": 1}
    return TrainTokenizerConfig(data=data, out=out, **{**settings, **changes})


def diffusion_config(data, tokenizer, out, **changes):
    settings = {"model": "debug", "text": "none", "window": WINDOW, "loop": loop(), "device": "cpu", "batch_size": 2}
    return TrainDiffusionConfig(data=data, tokenizer=tokenizer, out=out, **{**settings, **changes})


@pytest.fixture
def data(make_dataset):
    return make_dataset(CLIPS, actions=True)


@pytest.fixture
def tokenizer(data, tmp_path):
    return train_tokenizer(tokenizer_config(data, tmp_path / "tokenizer-run")).folder


def test_a_world_is_measured_on_what_neither_training_saw(data, tokenizer, tmp_path):
    run = train_diffusion(diffusion_config(data, tokenizer, tmp_path / "world-run"))
    held_out = [json.loads((folder / "provenance.json").read_text())["held_out_sources"] for folder in (tokenizer, run.folder)]
    assert held_out[0] == held_out[1] == sorted({record.source_id for record in run.parts.held_out})
    world = wf.load(run.folder)
    assert world.config.action_names == ("time", "clip")
    assert (world.config.fps, world.config.num_frames, world.config.num_prefix_frames) == (12, 9, 5)


def test_optional_actions_keep_the_clips_without_and_give_them_zeros(make_dataset, tmp_path):
    sources = [source for source, *_ in CLIPS]
    data = make_dataset(CLIPS, actions=set(sources[::2]), name="mixed")
    tokenizer = train_tokenizer(tokenizer_config(data, tmp_path / "run")).folder
    only = train_diffusion(diffusion_config(data, tokenizer, tmp_path / "only"))
    mixed = train_diffusion(diffusion_config(data, tokenizer, tmp_path / "mixed", actions="optional"))
    assert {r.source_id for r in only.parts.train} < {r.source_id for r in mixed.parts.train}
    assert not all(record.has_actions for record in mixed.parts.train)
    assert only.world.config.action_names == mixed.world.config.action_names == ("time", "clip")
    assert mixed.world.config.action_rms[1] < only.world.config.action_rms[1]  # zeros count


def test_trailing_zeros_of_prefix_weights_are_not_frames_that_were_given(data, tokenizer, tmp_path):
    config = diffusion_config(data, tokenizer, tmp_path / "out", loss=DiffusionLossConfig(prefix_weights=(0.0, 1.0, 0.0)))
    assert train_diffusion(config).world.config.num_prefix_frames == 1


def test_a_prefix_that_leaves_nothing_to_learn_is_refused(data, tokenizer, tmp_path):
    config = diffusion_config(data, tokenizer, tmp_path / "out", window=WINDOW.replace(num_frames=5))
    with pytest.raises(UsageError, match="up to 2 latent frames, but a window of 5 frames has 2"):
        train_diffusion(config)
    ends = DiffusionLossConfig(prefix_weights=(0.0, 1.0), suffix_share=0.5)
    with pytest.raises(UsageError, match=r"gives the last of 2 latent frames, .* at least 1: nothing would be left between"):
        train_diffusion(config.replace(loss=ends.to_dict()))


def test_a_refused_run_leaves_the_config_of_the_one_that_is_there(data, tokenizer, tmp_path):
    with pytest.raises(UsageError, match="another config, loop"):
        train_tokenizer(tokenizer_config(data, tmp_path / "tokenizer-run", loop=loop(steps=3)))
    assert yaml.safe_load((tmp_path / "tokenizer-run" / "config.yaml").read_text())["loop"]["steps"] == 2


def test_clips_whose_actions_disagree_are_refused_before_training(data, tokenizer, tmp_path, monkeypatch):
    records = ClipDataset(data).records
    other = tuple(type(r)(**{**vars(r), "action_names": ("x", "y")}) for r in records[1:])
    monkeypatch.setattr("worldfoundry.data.clips._read_records", lambda _: [records[0], *other])
    with pytest.raises(DataError, match="different actions"):
        train_diffusion(diffusion_config(data, tokenizer, tmp_path / "out"))
    assert not (tmp_path / "out" / "latents").exists()


def test_a_tokenizer_goes_by_its_shipped_name(data, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    shutil.copytree(tokenizer, tmp_path / "weights" / "nano-test")
    world = train_diffusion(diffusion_config(data, Path("nano-test"), tmp_path / "world-run"))
    assert wf.load(world.folder).tokenizer.spec == wf.load(tokenizer).spec
    tuned = train_tokenizer(tokenizer_config(data, tmp_path / "tuned", init=Path("nano-test")))
    assert "A tokenizer (nano-test)" in (tuned.folder / "README.md").read_text()
    for what in (["diffusion", "--tokenizer"], ["tokenizer", "--init"]):
        words = ["train", what[0], str(data), "--out", str(tmp_path / "no"), what[1], "nano-tset"]
        assert main([*words, "--window.num-frames", "9"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-2:] == [
            "error: There is no checkpoint folder and no shipped model 'nano-tset'.",
            "Did you mean 'nano-test'? Shipped: nano-test.",
        ]
