"""The tokenizer recipe: every kind of tokenizer, fine-tuning from both layouts, validation with pictures, packaged configs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from worldfoundry.core.config import parse_args
from worldfoundry.core.errors import CheckpointError, ConfigError, DataError
from worldfoundry.core.progress import read_metrics
from worldfoundry.recipes.config import TrainTokenizerConfig, ValidationConfig, WindowConfig
from worldfoundry.recipes.tokenizer_validation import code_usage, scores, write_preview
from worldfoundry.recipes.train_tokenizer import train_tokenizer
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED, named_config
from worldfoundry.tokenizers.diffusers import config_to_diffusers, to_diffusers
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import LoopConfig

CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 16), ("c", 9, 16, 16)]
WINDOW = WindowConfig(num_frames=9, height=16, width=16, held_out_fraction=0.3)
PACKAGED = sorted(file.stem for file in (TrainTokenizerConfig.packaged or WINDOW).glob("*.yaml"))


@pytest.fixture
def data(make_dataset):
    return make_dataset(CLIPS)


def config_of(data, out, **changes):
    loop = LoopConfig(steps=2, precision="float32", compile="off", log_every=1)
    settings = {"model": "debug", "window": WINDOW, "loop": loop, "device": "cpu", "batch_size": 1}
    return TrainTokenizerConfig(data=data, out=out, **{**settings, **changes})


def diffusers_folder(folder):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug").replace(z_channels=4).to_dict())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_to_diffusers(tokenizer)))
    state = {name: tensor.contiguous() for name, tensor in to_diffusers(tokenizer).items()}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return folder, tokenizer


@pytest.mark.parametrize("model", ["debug", "debug-dv4x8x8", "debug-ci8x8", "debug-di8x8"])
def test_every_kind_of_tokenizer_trains_validates_and_is_exported(data, tmp_path, model):
    run = train_tokenizer(config_of(data, tmp_path / "out", model=model, image_every=2))
    discrete = bool(named_config(model).levels)
    assert {"held_out_psnr_db", "held_out_ssim", "held_out_windows"} <= run.metrics.keys()
    assert ("code_usage" in run.metrics) == discrete
    last = read_metrics(tmp_path / "out" / "metrics.jsonl")[-1]
    assert last["step"] == 2
    assert last["held_out_psnr_db"] > 0
    assert ("code_perplexity" in last) == discrete
    with Image.open(tmp_path / "out" / "previews" / "step_00000002.jpg") as sheet:
        assert sheet.width == 6 * 16
    statistics = json.loads((run.folder / "config.json").read_text())["statistics_frames"]
    assert statistics == (1 if named_config(model).modality == "image" else 2)


def test_fine_tuning_takes_our_layout_and_diffusers(data, tmp_path):
    theirs, _ = diffusers_folder(tmp_path / "theirs")
    first = train_tokenizer(config_of(data, tmp_path / "one", init=theirs))
    again = train_tokenizer(config_of(data, tmp_path / "two", init=first.folder))
    assert json.loads((again.folder / "config.json").read_text())["z_channels"] == 4
    assert "(tokenizer)" in (again.folder / "README.md").read_text()


def test_fine_tuning_starts_from_the_loaded_weights(data, tmp_path):
    folder, tokenizer = diffusers_folder(tmp_path / "theirs")
    loop = LoopConfig(steps=1, precision="float32", compile="off", optim={"lr": 1e-12})
    run = train_tokenizer(config_of(data, tmp_path / "out", init=folder, loop=loop))
    trained = __import__("worldfoundry").load(run.folder)
    assert isinstance(trained, Tokenizer)
    for (name, before), after in zip(tokenizer.named_parameters(), trained.parameters(), strict=True):
        assert torch.allclose(before, after, atol=1e-6), name


def test_a_config_that_does_not_fit_its_weights_is_one_line(data, tmp_path):
    folder, _ = diffusers_folder(tmp_path / "theirs")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "num_layers": 2}))
    with pytest.raises(CheckpointError) as caught:
        train_tokenizer(config_of(data, tmp_path / "out", init=folder))
    assert "\n" not in caught.value.message


def test_a_validation_longer_than_any_held_out_clip_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="held-out clips has 21 frames"):
        train_tokenizer(config_of(data, tmp_path / "out", validation=ValidationConfig(num_frames=21)))


def test_scores_are_pooled_psnr_and_ssim():
    true = np.full((2, 3, 8, 8, 3), 100, np.uint8)
    assert scores(true, true)["held_out_ssim"] == 1
    made = true.copy()
    made[0] += 10
    assert scores(true, made)["held_out_psnr_db"] == pytest.approx(20 * np.log10(255 / np.sqrt(50)), abs=1e-3)


def test_code_usage_counts_codes_and_their_entropy():
    class Indices(type(build_tokenizer(named_config("debug-dv4x8x8").to_dict()))):
        def encode_indices(self, x_BCTHW):
            return torch.tensor([0, 1, 2, 3] * 5).view(1, 5, 2, 2).expand(len(x_BCTHW), -1, -1, -1)

    tokenizer = Indices(named_config("debug-dv4x8x8"))
    found = code_usage(tokenizer, torch.zeros(3, 17, 16, 16, 3, dtype=torch.uint8))
    assert found == {"code_usage": 4 / 1000, "code_perplexity": 4.0, "codes_seen": 60}


def test_a_preview_shows_originals_above_reconstructions(tmp_path):
    true, made = np.zeros((2, 9, 16, 16, 3), np.uint8), np.full((2, 9, 16, 16, 3), 200, np.uint8)
    with Image.open(write_preview(tmp_path / "p.jpg", true, made)) as picture:
        sheet = np.asarray(picture.convert("L")).astype(int)
    assert sheet.shape == (4 * 16 + 2, 6 * 16)
    assert sheet[:14].max() < 20
    assert abs(sheet[18:30] - 200).max() < 20


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_configs_are_found_by_name_and_name_known_models(name, tmp_path):
    arguments = ["clips", "--out", str(tmp_path), "--config", name]
    config = parse_args(TrainTokenizerConfig, arguments, "train")
    assert config.model in NAMED
    assert config.loss.perceptual.weight > 0


def test_there_are_packaged_configs_and_a_typo_is_told():
    assert {"nano-cv8x8x8", "nano-dv8x16x16"} <= set(PACKAGED)
    with pytest.raises(ConfigError, match="nano-cv8x8") as caught:
        parse_args(TrainTokenizerConfig, ["clips", "--out", "x", "--config", "nano-cv8x8"], "train")
    assert "nano-cv8x8x8" in caught.value.hint
