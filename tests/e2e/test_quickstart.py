"""The whole road at a size of seconds, through the console script, as a user walks it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file

import worldfoundry as wf
from worldfoundry.core.progress import read_metrics
from worldfoundry.core.video_io import read_video
from worldfoundry.data.sample import sample_footage
from worldfoundry.evaluation.baselines import BACKGROUND, COPY_LAST
from worldfoundry.evaluation.flow import CONSTANT_VELOCITY
from worldfoundry.recipes import futures as road

COMMAND = [sys.executable, "-m", "worldfoundry"]
SETTINGS = ["--base", "none", "--minutes", "0.12", "--evaluate-clips", "4", "--text", "none"]


def run(*arguments, timeout=280):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Six of the sample episodes, and a file that is no video."""
    folder = tmp_path_factory.mktemp("footage")
    for video in sorted(sample_footage().glob("episode_*.mp4"))[:6]:
        for file in (video, video.with_suffix(".episode.parquet")):
            shutil.copy(file, folder)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def out(footage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("road") / "out"
    done = run("quickstart", "--data", footage, "--out", folder, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "look at" in done.stderr
    return folder


def test_every_candidate_is_scored_at_every_horizon(out):
    results = json.loads((out / "results.json").read_text())
    found = {(row["candidate"], row["horizon"]) for row in results["rows"]}
    names = {road.MODEL, road.SHUFFLED, road.ZERO, road.CEILING, road.COPY_THROUGH, road.NEAREST}
    names |= {COPY_LAST, CONSTANT_VELOCITY, BACKGROUND}
    assert {name for name, _ in found} == names
    assert len({horizon for _, horizon in found}) == 4
    for row in results["rows"]:
        assert {"value", "n", "low", "high", "tier", "protocol"} <= row.keys()


def test_the_report_is_self_contained_and_says_what_happened(out):
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']https?://""", page)
    assert page.count("data:video/mp4;base64,") >= 4 * 5
    for words in ("What it can and cannot do", "Held-out clips", "training loss", "Guards", "Do the actions matter?"):
        assert words in page


def test_the_tokenizer_is_worth_having_and_both_losses_were_logged(out):
    metrics = json.loads((out / "tokenizer-run" / "metrics.json").read_text())
    assert metrics["held_out_psnr_db"] > 20
    for name in ("tokenizer-run", "world-run"):
        losses = [row["loss"] for row in read_metrics(out / name / "metrics.jsonl") if "loss" in row]  # others: validations
        assert losses
        assert min(losses) > 0


def test_held_out_sources_were_not_trained_on(out):
    facts = json.loads((out / "world-run" / "world" / "provenance.json").read_text())
    held_out = set(facts["held_out_sources"])
    assert held_out
    tokenizer = json.loads((out / "tokenizer-run" / "tokenizer" / "provenance.json").read_text())
    assert set(tokenizer["held_out_sources"]) == held_out
    clips = pq.read_table(out / "clips" / "tables" / "clips.parquet").to_pylist()
    cached = set()
    for shard in (out / "world-run" / "latents").glob("*.safetensors"):
        cached |= {name.split("/")[0] for name in load_file(shard)}
    trained = {clip["source_id"] for clip in clips if clip["key"] in cached}
    assert trained
    assert trained | held_out == {clip["source_id"] for clip in clips}
    assert not trained & held_out


def test_the_broken_file_is_in_quarantine(out):
    rows = pq.read_table(out / "clips" / "tables" / "quarantine.parquet").to_pylist()
    assert [(Path(row["uri"]).name, row["code"]) for row in rows] == [("broken.mp4", "NOT_MEDIA")]


def test_the_world_generates_from_an_image_of_any_size_and_actions(out, footage, tmp_path):
    Image.fromarray(np.full((50, 90, 3), 128, np.uint8)).save(tmp_path / "first.png")
    actions = sorted(footage.glob("*.parquet"))[0]
    target = tmp_path / "out.mp4"
    done = run(
        "generate",
        "--world",
        out / "world-run" / "world",
        "--input",
        tmp_path / "first.png",
        "--actions",
        actions,
        "--out",
        target,
    )
    assert done.returncode in (0, 3), done.stderr  # a model of seconds may flicker enough for the flash guard
    if done.returncode == 0:
        assert read_video(target).frames.shape == (17, 64, 64, 3)
        assert json.loads(target.with_suffix(".json").read_text())["config"]["num_frames"] == 17


def test_generated_clips_start_with_the_true_frames(out):
    written = sorted((out / "generated").glob("*.mp4"))
    for path in written:
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["config"]["num_prefix_frames"] == 5
        assert sidecar["config"]["seed"] == sidecar["seed"]
        assert read_video(path).frames.shape == (17, 64, 64, 3)


def test_every_clip_has_its_own_noise_and_says_which(out):
    seeds = [json.loads(path.read_text())["seed"] for path in (out / "generated").glob("*.json")]
    assert len(seeds) == len(set(seeds))


def test_files_through_the_tokenizer_and_back(out, footage, tmp_path):
    video, tokenizer = sorted(footage.glob("episode_*.mp4"))[0], out / "tokenizer-run" / "tokenizer"
    assert run("tokenize", video, "--tokenizer", tokenizer, "--out", tmp_path / "z").returncode == 0
    assert run("tokenize", tmp_path / "z", "--tokenizer", tokenizer, "--out", tmp_path / "back", "--decode").returncode == 0
    true, back = read_video(video).frames, read_video(next((tmp_path / "back").glob("*.mp4"))).frames
    assert true.shape == back.shape
    assert np.abs(true.astype(int) - back.astype(int)).mean() < 20


def test_the_same_command_finds_everything_done(out, footage):
    before = (out / "world-run" / "checkpoints" / "last").resolve().name
    done = run("quickstart", "--data", footage, "--out", out, *SETTINGS)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    assert (out / "world-run" / "checkpoints" / "last").resolve().name == before


def test_other_settings_do_not_mix_with_a_finished_road(out, footage):
    done = run("quickstart", "--data", footage, "--out", out, *SETTINGS[:2], "--minutes", "0.2", *SETTINGS[4:])
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


def test_killed_in_the_middle_it_goes_on(footage, tmp_path):
    arguments = ["quickstart", "--data", str(footage), "--out", str(tmp_path / "out"), *SETTINGS]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "out" / "tokenizer-run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert wf.load(tmp_path / "out" / "world-run" / "world").config.num_frames == 17
