"""`worldfoundry evaluate tokenizer` as it is typed: one table with baselines, honest about what did not fit."""

import json

import numpy as np
import pytest
import torch

from worldfoundry.cli.main import main
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.video_io import write_video
from worldfoundry.evaluation.results import read_results
from worldfoundry.recipes import evaluate_tokenizer
from worldfoundry.recipes.evaluate_tokenizer import code_usage
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

PLAIN = ["--metrics", "psnr", "ssim", "--num-frames", "5", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four moving clips of two sizes, one too short, one broken, and two tokenizers."""
    root = tmp_path_factory.mktemp("eval")
    (root / "clips").mkdir()
    ramp = np.linspace(0, 200, 48)[None, None, :, None]
    for i in range(4):
        shift = 3.0 * np.arange(6 if i < 3 else 3)[:, None, None, None]
        frames = np.broadcast_to(ramp + shift + 10 * i, (len(shift), 32 if i else 40, 48, 3))
        write_video(root / "clips" / f"clip{i}.mp4", frames.astype(np.uint8), 10.0)
    (root / "clips" / "broken.mp4").write_bytes(b"no video")
    torch.manual_seed(0)
    for name, levels in (("cont", ()), ("disc", (8, 5, 5, 5))):
        config = named_config("debug").replace(levels=levels)
        save_component(root / name, build_tokenizer(config.to_dict()), kind="tokenizer", provenance={})
    return root


def test_one_table_with_baselines(place, tmp_path, capsys):
    tokenizers = ["--tokenizer", str(place / "cont"), str(place / "disc")]
    code = main(["evaluate", "tokenizer", str(place / "clips"), *tokenizers, "--out", str(tmp_path), "--show", "1", *PLAIN])
    assert code == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["clips"], found["frames"], found["height"], found["width"]) == (3, 5, 32, 48)
    assert "1 have fewer than 5 frames" in found["note"]
    assert "1 cannot be read" in found["note"]
    names = ["cont", "disc"]
    baselines = [f"{what} of {name}" for name in names for what in ("Bicubic down-up, values", "JPEG, bits", "H.264, bits")]
    assert set(found["candidates"]) == {*names, *baselines}
    facts = found["facts"]
    assert facts["cont"]["compression"] == "4x8x8"
    assert facts["cont"]["values_per_clip"] == 4 * 2 * 4 * 6
    assert facts["cont"]["bits_per_pixel"] == pytest.approx(4 * 2 * 4 * 6 * 16 / (5 * 32 * 48))
    assert facts["disc"]["codebook"] == 1000
    assert 1 <= facts["disc"]["code_perplexity"] <= 1000
    assert facts["H.264, bits of cont"]["spent"] <= 4 * 2 * 4 * 6 * 16
    assert "cannot go that low on 3 of 3 clips" in facts["JPEG, bits of disc"]["note"]
    rows = {(row["metric"], row["candidate"]): row for row in read_results(tmp_path / "results.json")}
    assert len(rows) == 2 * 8
    psnr = rows["psnr", "cont"]
    assert psnr["n"] == 3
    assert psnr["low"] <= psnr["value"] <= psnr["high"]
    assert psnr["difference_to"] == "H.264, bits of cont"
    assert psnr["difference"] == pytest.approx(psnr["value"] - rows["psnr", "H.264, bits of cont"]["value"])
    assert rows["psnr", "H.264, bits of cont"]["value"] > psnr["value"]  # the tokenizer was never trained
    page = (tmp_path / "report.html").read_text()
    assert page.count("<video") == 1 + 8
    assert "cannot go that low" in page
    assert "cannot go that low" in capsys.readouterr().out


def test_tokenizers_of_one_budget_share_their_baselines(place, tmp_path):
    torch.manual_seed(1)
    save_component(tmp_path / "other", build_tokenizer(named_config("debug").to_dict()), kind="tokenizer", provenance={})
    tokenizers = ["--tokenizer", str(place / "cont"), str(tmp_path / "other"), "--baselines", "bicubic"]
    assert main(["evaluate", "tokenizer", str(place / "clips"), *tokenizers, "--out", str(tmp_path / "o"), *PLAIN]) == 0
    found = json.loads((tmp_path / "o" / "results.json").read_text())
    assert found["candidates"] == ["cont", "Bicubic down-up, values of cont", "other"]
    assert {row["candidate"]: row["difference_to"] for row in found["rows"]}["other"] == "Bicubic down-up, values of cont"


def test_code_usage_of_a_uniform_and_a_single_code():
    assert code_usage([np.arange(8).reshape(2, 4)], 16)["code_perplexity"] == pytest.approx(8)
    assert code_usage([np.arange(8)], 16)["codes_used"] == 0.5
    assert code_usage([np.zeros(5, int)], 16) == {"codes_used": 1 / 16, "code_perplexity": 1.0, "codes_seen": 5}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "No tokenizer was given."),
        (["--tokenizer", "nowhere-at-all"], "'nowhere-at-all'"),
        (["--tokenizer", "{cont}", "--num-frames", "99"], "None of the 5 clips"),
        (["--tokenizer", "{cont}", "--crop", "64", "64"], "smaller than the crop 64x64"),
        (["--tokenizer", "{cont}", "{cont}"], "Two tokenizers are called 'cont'"),
        (["--tokenizer", "{cont}", "--metrics", "psnr_moving"], "about predictions"),
        (["--tokenizer", "{cont}", "/nowhere/at/all"], "There is no checkpoint folder '/nowhere/at/all'"),
        (["--peer", "/nowhere"], "cannot be loaded with diffusers"),
        (["--peer", "{cont}"], "Give it as --tokenizer."),
        (["--tokenizer", "{cont}", "--dtype", "float8"], "Unknown dtype 'float8'"),
    ],
)
def test_bad_input_is_one_clear_line(flags, words, place, tmp_path, capsys):
    flags = [flag.format(cont=place / "cont") for flag in flags]
    given = [] if "--num-frames" in flags else ["--num-frames", "5"]
    given += [] if "--metrics" in flags else ["--metrics", "psnr"]
    assert main(["evaluate", "tokenizer", str(place / "clips"), "--out", str(tmp_path), *given, *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize("second", ["{cont}", "/nowhere/at/all"])
def test_nothing_is_measured_before_all_tokenizers_are_known_to_be_there(second, place, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_tokenizer, "_measure", lambda *_: pytest.fail("measured"))
    tokenizers = ["--tokenizer", str(place / "cont"), second.format(cont=place / "cont")]
    assert main(["evaluate", "tokenizer", str(place / "clips"), "--out", str(tmp_path), *PLAIN, *tokenizers]) == 2
