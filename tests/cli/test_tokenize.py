"""`worldfoundry tokenize`, `convert` and `models` as they are typed: results, and one clear line for every misuse."""

import json

import numpy as np
import pytest
import torch

from worldfoundry.cli.main import main
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.video_io import probe_video, write_video
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A clip, tokenizers that differ in one thing each, their tokens, and things that are none."""
    root = tmp_path_factory.mktemp("cli")
    write_video(root / "clip.mp4", np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8), 10.0)
    kinds = {"cont": {}, "seven": {"z_channels": 7, "latent_channels": 7}, "disc": {"levels": (8, 5, 5, 5)},
             "finer": {"levels": (8, 8, 5, 5)}, "loud": {}}  # fmt: skip
    for i, (name, changes) in enumerate(kinds.items()):
        torch.manual_seed(i)
        tokenizer = build_tokenizer(named_config("debug").replace(**changes).to_dict())
        if name == "loud":
            with torch.no_grad():
                list(tokenizer.encoder.parameters())[-1].fill_(6e4)
                tokenizer.to_latent.weight.fill_(2.0)
        save_component(root / name, tokenizer, kind="tokenizer", provenance={})
    for name in ("cont", "disc"):
        assert (
            main(["tokenize", str(root / "clip.mp4"), "--tokenizer", str(root / name), "--out", str(root / f"{name}-t")]) == 0
        )
    (root / "note.txt").write_text("no tensors")
    (root / "note.safetensors").write_text("no tensors either")
    (root / "empty").mkdir()
    return root


def test_there_and_back(place, tmp_path, capsys):
    for dtype in ([], ["--dtype", "bfloat16"]):
        out = tmp_path / f"back{len(dtype)}"
        argv = ["tokenize", str(place / "cont-t"), "--tokenizer", str(place / "cont"), "--out", str(out), "--decode", *dtype]
        assert main(argv) == 0
        assert probe_video(out / "clip.mp4").num_frames == 5
    argv = ["tokenize", str(place / "clip.mp4"), "--tokenizer", str(place / "cont"), "--out", str(place / "cont-t")]
    assert main(argv) == 0
    assert "encoded 0 clips" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("{p}/clip.mp4 --tokenizer {p}/cont --out {p}/cont-t --dtype bfloat16", "made with dtype 'float32', but 'bfloat16'"),
        ("{p}/clip.mp4 --tokenizer {p}/cont --out {p}/disc-t", "made with content 'indices'"),
        ("{p}/clip.mp4 --tokenizer {p}/loud --out {t} --dtype float16", "NaN or infinity in torch.float16"),
        ("{p}/clip.mp4 --tokenizer {p}/cont --out {t} --dtype float8", "Unknown dtype 'float8'"),
        ("{p}/clip.mp4 --tokenizer {p}/note.safetensors --out {t}", "is a file, not a checkpoint folder"),
        ("{p}/clip.mp4 --tokenizer {p}/empty --out {t}", "has no config.json"),
        ("{p}/note.txt --tokenizer {p}/cont --out {t}", "None of the 1 files"),
        ("{p}/empty --tokenizer {p}/cont --out {t}", "holds no video or image"),
        ("{p}/absent --tokenizer {p}/cont --out {t}", "does not exist"),
        ("{p}/cont-t --tokenizer {p}/disc --out {t} --decode", "holds latents, but this tokenizer decodes indices"),
        ("{p}/disc-t --tokenizer {p}/cont --out {t} --decode", "holds indices, but this tokenizer decodes latents"),
        (
            "{p}/disc-t --tokenizer {p}/finer --out {t} --decode --force",
            "made with levels [8, 5, 5, 5], but this tokenizer has",
        ),
        ("{p}/cont-t --tokenizer {p}/seven --out {t} --decode --force", "made with channels 4, but this tokenizer has 7"),
        ("{p}/cont-t --tokenizer {p}/loud --out {t} --decode", "made by another tokenizer: its weights differ"),
        ("{p}/note.txt --tokenizer {p}/cont --out {t} --decode", "is no shard of latents"),
        ("{p}/note.safetensors --tokenizer {p}/cont --out {t} --decode", "holds no latents"),
        ("{p}/empty --tokenizer {p}/cont --out {t} --decode", "holds no latents"),
    ],
)
def test_misuse_of_tokenize_is_one_clear_line(argv, words, place, tmp_path, capsys):
    capsys.readouterr()
    assert main(["tokenize", *argv.format(p=place, t=tmp_path / "out").split()]) == 2
    error = capsys.readouterr().err
    line = next(line for line in error.splitlines() if line.startswith("error: "))
    assert words in line
    assert "Traceback" not in error


def test_a_damaged_shard_is_named(place, tmp_path, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "manifest.json").write_bytes((place / "cont-t" / "manifest.json").read_bytes())
    (tmp_path / "t" / "00000.safetensors").write_text("no tensors")
    argv = ["tokenize", str(tmp_path / "t"), "--tokenizer", str(place / "cont"), "--out", str(tmp_path / "o"), "--decode"]
    assert main(argv) == 2
    assert "00000.safetensors' is damaged" in capsys.readouterr().err


def test_a_config_that_its_weights_contradict_is_one_line_with_the_tensors(place, tmp_path, capsys):
    folder = tmp_path / "tok"
    folder.mkdir()
    for file in (place / "cont").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "channels": 16}))
    assert main(["tokenize", str(place / "clip.mp4"), "--tokenizer", str(folder), "--out", str(tmp_path / "o")]) == 2
    error = capsys.readouterr().err
    assert error.count("config says") == 3
    assert "of another shape of" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("{p}/note.txt {t}", "cannot be read safely"),
        ("{p}/absent {t}", "There is no checkpoint"),
        ("{p}/empty {t}", "holds none of autoencoder.jit"),
        ("{p}/disc {t} --to diffusers", "holds continuous video tokenizers"),
        ("{p}/cont {p}/disc", "already exists"),
    ],
)
def test_misuse_of_convert_is_one_clear_line(argv, words, place, tmp_path, capsys):
    assert main(["convert", *argv.format(p=place, t=tmp_path / "out").split()]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
