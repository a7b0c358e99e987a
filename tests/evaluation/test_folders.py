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
from worldfoundry.evaluation.folders import read_clips, source_of

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
    pairs = read_clips({"generated": made}, true, 2)
    assert pairs.names == ("clip_1",)
    assert "1 of 2 true clips have no generated one and are left out (clip_0)" in pairs.note
    assert "1 of 2 generated clips have no true one and are left out (clip_2)" in pairs.note


def test_longer_clips_are_cut_to_the_shortest_and_that_is_said(folders):
    made, true = folders
    write_video(made / "clip_1.mp4", CLIPS[1][:6], 12)
    pairs = read_clips({"generated": made}, true, 2)
    assert pairs.reference.shape == pairs.candidates["generated"].shape == (3, 6, 48, 48, 3)
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
        (spoil_length, "The generated clip 'clip_1' has 1 frame, and the first 2 were given"),
        (spoil_names, "has the name of one in"),
        (spoil_twice, "two videos named 'clip_0'"),
        (spoil_empty, "holds no video"),
    ],
)
def test_one_clear_line(folders, spoil, message):
    made, true = folders
    spoil(made)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_clips({"generated": made}, true, 2)
    assert error.value.hint


def test_a_damaged_file_is_named(folders):
    made, true = folders
    (made / "clip_1.mp4").write_bytes(b"not a video at all" * 100)
    with pytest.raises(MediaError, match=r"clip_1\.mp4"):
        read_clips({"generated": made}, true, 2)


def test_frames_are_matched_exactly(folders):
    made, true = folders
    pairs = read_clips({"generated": made}, true, 2)
    np.testing.assert_array_equal(pairs.reference, pairs.candidates["generated"])


def test_what_was_not_said_is_said_in_every_row(folders, tmp_path, capsys):
    made, true = folders
    for i, clip in enumerate(CLIPS):
        changed = clip.copy()
        changed[3:] = 255 - changed[3:]
        write_video(made / f"clip_{i}.mp4", changed, 12)
    assert run(EvaluateGenerationConfig(generated=made, reference=true, out=tmp_path / "out", show=0)) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    want = "since --prefix-frames was not said: 1 frame; but the first 3 look like the true ones"
    assert all(want in row["note"] for row in rows)
    assert want in capsys.readouterr().out


def test_more_folders_a_baseline_of_choice_and_the_nearest_training_clip(folders, tmp_path):
    made, true = folders
    for i, clip in enumerate(CLIPS[::-1]):
        write_video(tmp_path / "shuffled" / f"clip_{i}.mp4", clip, 12)
    config = EvaluateGenerationConfig(
        generated=made, reference=true, prefix_frames=2, out=tmp_path / "out", show=1, training=true, metrics=("psnr",),
        also={"shuffled actions": tmp_path / "shuffled"}, baseline="shuffled actions",
    )  # fmt: skip
    assert run(config) == 0
    rows = {row["candidate"]: row for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]}
    assert {"generated", "shuffled actions", "nearest training clip", "copy last frame"} <= rows.keys()
    assert rows["nearest training clip"]["value"] == 100.0  # the training clips are the true ones
    assert rows["generated"]["difference_to"] == "shuffled actions"
    assert rows["generated"]["difference"] == pytest.approx(100.0 - rows["shuffled actions"]["value"])
    assert (tmp_path / "out" / "report.html").read_text().count("<video") == 3
    with pytest.raises(UsageError, match="another name"):
        run(config.replace(also={"generated": made}))
    write_video(tmp_path / "short" / "a.mp4", CLIPS[0][:4], 12)
    with pytest.raises(DataError, match=r"No clip in .* has 8 frames"):
        run(config.replace(training=tmp_path / "short"))


def test_folders_without_partners_are_compared_as_sets_only(folders, tmp_path):
    made, true = folders
    spoil_names(made)
    (made / "x_clip_2.mp4").unlink()
    clips = read_clips({"generated": made}, true, 2, unpaired=True)
    assert clips.reference.shape[0] == 2
    assert "the first 2 clips of each folder, without partners" in clips.note
    config = EvaluateGenerationConfig(generated=made, reference=true, prefix_frames=2, out=tmp_path / "out", unpaired=True)
    with pytest.raises(UsageError, match="no metric of sets is at hand"):
        run(config)


def test_a_clips_source_is_in_its_sidecar_or_its_name(folders):
    made, true = folders
    assert source_of(true / "episode_7.cam0.mp4") == source_of(true / "episode_7.cam3.mp4") == "episode_7"
    for i in range(3):
        (true / f"clip_{i}.json").write_text(json.dumps({"source_id": f"video {i // 2}"}))
    assert read_clips({"generated": made}, true, 2).groups == ("video 0", "video 0", "video 1")


def test_masks_beside_the_true_clips_give_positions_of_objects(folders, tmp_path):
    made, true = folders
    for i, clip in enumerate(CLIPS):
        magenta = (clip[..., 1] < 60) & (clip[..., 0] > 200)
        np.savez(true / f"clip_{i}.masks.npz", masks=magenta.astype(np.uint8))
    config = EvaluateGenerationConfig(generated=made, reference=true, prefix_frames=2, out=tmp_path / "out", show=0)
    run(config)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    found = {
        row["candidate"]: row["value"] for row in rows if row["metric"] == "centroid_error_masks" and row["horizon"] == "all"
    }
    assert found["generated"] < 0.5
    assert found["copy last frame"] == pytest.approx(2 * 3.5, abs=0.5)  # two pixels a frame, for six frames
    np.savez(true / "clip_0.masks.npz", masks=np.zeros((8, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"clip_0\.masks\.npz"):
        run(config)


def test_a_constant_video_is_said_in_the_row(folders):
    made, true = folders
    write_video(made / "clip_1.mp4", np.full_like(CLIPS[1], 90), 12)
    assert read_clips({"generated": made}, true, 2).note == "1 of 3 generated clips show one picture from frame 3 on"
