"""`worldfoundry guard`: the verdict on stdout, the exit code for scripts."""

import json
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.core.errors import BlockedError
from worldfoundry.core.video_io import write_video
from worldfoundry.guardrails.api import guard, pieces
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import Guardrails

ONLY_LIST = GuardPolicy(text_guards=("blocklist",), reason="a test needs no weights")
LIST = ["--policy.text-guards", "blocklist", "--policy.reason", "a test needs no weights"]


@pytest.fixture
def flashing(tmp_path):
    """Two seconds at 12 fps, black and white in turn."""
    frames = np.zeros((24, 32, 32, 3), np.uint8)
    frames[::2] = 255
    return write_video(tmp_path / "flash.mp4", frames, 12)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["text", "the arm lifts the red cube", *LIST], 0, ["safe", "blocklist"]),
        (["text", "", *LIST], 0, ["nothing to judge"]),
        (["text", "a man murders his neighbour", *LIST], 3, ["unsafe", "violence", "'murders'"]),
        (
            ["text", "a man murders his neighbour", *LIST, "--policy.actions", "violence", "warn", "--explain"],
            3,
            ["violence warn: a test"],
        ),
        (["text", "机器人", *LIST], 4, ["skipped", "unread_scripts"]),
        (["text", "机器人", *LIST, "--policy.blocklist.unread-scripts", "allow"], 0, ["went unread"]),
        (["text", "x", "--policy.text-guards"], 4, ["no text guard is configured"]),
        (["text", "x", "--policy.action", "off", "--policy.reason", "a test"], 4, ["skipped", "a test"]),
    ],
)
def test_prompts(argv, code, words, capsys):
    assert main(["guard", *argv]) == code
    out = capsys.readouterr().out
    assert all(word in out for word in words), out


def test_videos_and_images(tmp_path, flashing, capsys):
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "still.png")
    assert main(["guard", "video", str(flashing)]) == 3
    assert "UNSAFE: flash (photosensitive)" in capsys.readouterr().out
    assert main(["guard", "image", str(tmp_path / "still.png")]) == 0
    capsys.readouterr()
    assert main(["guard", "video", str(flashing), "--json"]) == 3
    verdicts = {v["guard"]: v for v in json.loads(capsys.readouterr().out)}
    assert verdicts["flash"]["status"] == "unsafe"
    assert verdicts["flash"]["evidence"]["frames_checked"] == 24


def test_explain_shows_evidence_thresholds_and_the_way_to_change_them(flashing, capsys):
    assert main(["guard", "video", str(flashing), "--explain", "--policy.flash.area", "0.2"]) == 3
    out = capsys.readouterr().out
    for words in (
        "frames_checked    24",
        "--policy.flash.area 0.2",
        "--policy.actions photosensitive warn",
        "preset balanced",
        " ms]",
    ):
        assert words in out, out
    assert main(["guard", "text", "a man murders his neighbour", "--explain", *LIST]) == 3
    assert "murders" in capsys.readouterr().out


def test_three_lines_of_python(flashing):
    report = guard.text("a man murders his neighbour", ONLY_LIST)
    assert (report.safe, report.status) == (False, "unsafe")
    assert str(report).startswith("prompt: unsafe: blocklist (violence): matches 'murders'")
    with pytest.raises(BlockedError):
        report.enforce()
    assert guard.text("the arm lifts the red cube", ONLY_LIST).enforce() is None
    assert guard.image(np.full((64, 64, 3), 90, np.uint8)).safe
    assert guard.video(flashing).status == guard.video(str(flashing)).status == "unsafe"
    assert guard.video(np.full((5, 64, 64, 3), 90, np.uint8), 12).safe
    assert wf.guard is guard


@pytest.mark.parametrize(
    "argv", [["video", "gone.mp4"], ["image", "gone.png"], ["text", "x", "--policy.text-guards", "blocklst"]]
)
def test_bad_input_is_2(argv, capsys):
    assert main(["guard", *argv]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_long_video_is_checked_in_pieces_that_share_a_second(tmp_path):
    frames = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    path = write_video(tmp_path / "long.mp4", frames, 10)
    parts = [piece.frames.mean(axis=(1, 2, 3)).round() for piece in pieces(path, max_bytes=30 * 32 * 32 * 3)]
    assert [len(part) for part in parts] == [30, 30, 30, 30, 20]
    for before, after in pairwise(parts):
        np.testing.assert_array_equal(before[-10:], after[:10])
    whole = np.concatenate([parts[0], *(part[10:] for part in parts[1:])])
    assert len(whole) == 100


def test_flashing_across_a_border_is_found(flashing):
    guardrails = Guardrails.from_policy(GuardPolicy())
    found = [guardrails.check_video(p.frames, p.fps)[0].status for p in pieces(flashing, max_bytes=1)]
    assert "unsafe" in found


def test_the_mark_of_generated_videos_is_found(tmp_path, flashing, capsys):
    frames = np.random.default_rng(0).integers(60, 190, (1, 8, 10, 3), dtype=np.uint8).repeat(16, 0).repeat(12, 1).repeat(12, 2)
    path = wf.WorldVideo(frames=frames, fps=12, seed=3).save(tmp_path / "made.mp4")
    id = json.loads(path.with_suffix(".json").read_text())["watermark"]["id"]
    assert main(["guard", "watermark", str(path)]) == 0
    assert f"marked {id}" in capsys.readouterr().out
    assert main(["guard", "watermark", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == id
    assert main(["guard", "watermark", str(flashing)]) == 1
    assert "no mark found" in capsys.readouterr().out
