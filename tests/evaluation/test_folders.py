"""Two folders of clips: matching, one clear line for what does not fit, and the verb from end to end."""

import json
import re

import numpy as np
import pytest

from worldfoundry.cli.evaluate import run
from worldfoundry.core.errors import DataError, MediaError, UsageError
from worldfoundry.core.video_io import write_video
from worldfoundry.evaluation.check import moving_squares
from worldfoundry.evaluation.config import EvaluateGenerationConfig
from worldfoundry.evaluation.folders import read_pairs

CLIPS = moving_squares(clips=3)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path / "cache"))  # the default set must not depend on this machine's cache
    for folder in ("made", "true"):
        for i, clip in enumerate(CLIPS):
            write_video(tmp_path / folder / f"clip_{i}.mp4", clip, 12)
    return tmp_path / "made", tmp_path / "true"


def test_the_verb_writes_numbers_and_a_page(folders, tmp_path, capsys):
    made, true = folders
    config = EvaluateGenerationConfig(generated=made, reference=true, prefix_frames=2, out=tmp_path / "out", show=2)
    assert run(config) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert all(row["value"] == 100.0 for row in rows if row["candidate"] == "generated" and row["metric"] == "psnr")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<video") == 2 * 2
    said = capsys.readouterr().out
    assert "3 clips" in said
    assert "left out: KD[transnetv2]: needs transnetv2 (32.7 MB); add --fetch" in said
    assert "Not measured" in page


def test_metrics_are_chosen_by_name_and_a_typo_is_said_before_anything_is_read(folders, tmp_path):
    made, true = folders
    options = {"generated": made, "reference": true, "prefix_frames": 2, "out": tmp_path / "out", "show": 0}
    run(EvaluateGenerationConfig(**options, metrics=("SSIM", "psnr")))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert list(dict.fromkeys(row["metric"] for row in rows)) == ["ssim", "psnr"]
    (made / "clip_0.mp4").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"Did you mean 'ssim'"):
        run(EvaluateGenerationConfig(**options, metrics=("ssmi",)))


def test_what_has_no_partner_is_left_out_and_said(folders):
    made, true = folders
    (made / "clip_0.mp4").unlink()
    (true / "clip_2.mp4").unlink()
    pairs = read_pairs(made, true, 2)
    assert pairs.names == ("clip_1",)
    assert "1 of 2 true clips have no generated one and are left out (clip_0)" in pairs.note
    assert "1 of 2 generated clips have no true one and are left out (clip_2)" in pairs.note


def test_longer_clips_are_cut_to_the_shortest_and_that_is_said(folders):
    made, true = folders
    write_video(made / "clip_1.mp4", CLIPS[1][:6], 12)
    pairs = read_pairs(made, true, 2)
    assert pairs.reference.shape == pairs.generated.shape == (3, 6, 48, 48, 3)
    assert "cut to the shortest, 6 frames" in pairs.note


def spoil_size(made):
    write_video(made / "clip_1.mp4", CLIPS[1][:, :32, :32], 12)


def spoil_rate(made):
    write_video(made / "clip_1.mp4", CLIPS[1], 24)


def spoil_length(made):
    write_video(made / "clip_1.mp4", CLIPS[1][:1], 12)


def spoil_names(made):
    for path in list(made.iterdir()):
        path.rename(made / f"x_{path.name}")


def spoil_twice(made):
    (made / "clip_0.mkv").write_bytes((made / "clip_0.mp4").read_bytes())


def spoil_empty(made):
    for path in list(made.iterdir()):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, "'clip_1' is 32x32 pixels, the true one 48x48"),
        (spoil_rate, "'clip_1' has 24 frames per second, the true one 12"),
        (spoil_length, "'clip_1' has 1 frames, and the first 2 were given"),
        (spoil_names, "has the name of one in"),
        (spoil_twice, "two videos named 'clip_0'"),
        (spoil_empty, "holds no video"),
    ],
)
def test_one_clear_line(folders, spoil, message):
    made, true = folders
    spoil(made)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_pairs(made, true, 2)
    assert error.value.hint


def test_a_damaged_file_is_named(folders):
    made, true = folders
    (made / "clip_1.mp4").write_bytes(b"not a video at all" * 100)
    with pytest.raises(MediaError, match=r"clip_1\.mp4"):
        read_pairs(made, true, 2)


def test_frames_are_matched_exactly(folders):
    made, true = folders
    pairs = read_pairs(made, true, 2)
    np.testing.assert_array_equal(pairs.reference, pairs.generated)
