"""The whole of curation: every file is accounted for, a killed run resumes to the same tables, nothing is ever mixed."""

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from worldfoundry.core.errors import ResourceError, UsageError
from worldfoundry.curation import pack as pack_module
from worldfoundry.curation.config import CurateConfig, ShotConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.tables import SCHEMAS, read_table
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.shards import read_index

CONTENT = ("sources", "shots", "clips", "rejected", "quarantine")


def config(source: Path | str, out: Path, **changes: Any) -> CurateConfig:
    return CurateConfig.from_dict({"input": str(source), "out": out, "min_s": 1.0, "max_s": 4.0, "isolate": False, **changes})


def content(out: Path) -> dict[str, Any]:
    """Everything that must be the same however the dataset came to be: tables and the hashes of the shards."""
    tables: dict[str, Any] = {name: read_table(out / "tables", name) for name in CONTENT}
    return tables | {"shards": {str(p.relative_to(out)): read_index(p).sha256 for p in sorted(out.glob("shards/*/*.tar"))}}


def fill(zoo: Any) -> None:
    """A few sources: one shot, three shots, an episode, an image, a duplicate, two bad files."""
    zoo.video("one.mp4", num_frames=30)
    zoo.shots("three.mp4", [18, 20, 5])
    zoo.video("pusher.mp4", num_frames=24, seed=4)
    zoo.episode("pusher", np.arange(24) / 12, np.arange(48).reshape(24, 2), {"action_names": ["x", "y"], "caption": "a push"})
    zoo.image("still.png", seed=5)
    shutil.copy(zoo.folder / "one.mp4", zoo.folder / "two.mp4")
    zoo.text("bad.mp4")
    zoo.video("short.mp4", num_frames=6, seed=9)


def test_the_zoo_is_accounted_for(zoo: Any, tmp_path: Path) -> None:
    frames = zoo.frames(24)
    good = {
        "good.mp4": zoo.video("good.mp4", num_frames=24, seed=1),
        "odd.mkv": zoo.encoded("odd.mkv", zoo.frames(24, 47, 65), codec="ffv1", pixel_format="bgr0"),
        "tall.mp4": zoo.rotated("tall.mp4", num_frames=24, seed=2),
        "uneven.mkv": zoo.encoded("uneven.mkv", frames, pts=np.cumsum([0, 2] + [1] * 22).tolist()),
        "ten_bit.mp4": zoo.encoded("ten_bit.mp4", frames, pixel_format="yuv420p10le"),
        "full_chroma.mp4": zoo.encoded("full_chroma.mp4", zoo.frames(24, 96, 128), pixel_format="yuv444p"),
        "hevc.mp4": zoo.encoded("hevc.mp4", frames, codec="libx265", options={"x265-params": "log-level=none"}),
        "picture.jpg": zoo.image("picture.jpg"),
        "cut_off.mp4": zoo.cut_off("cut_off.mp4", 0.6, moov_first=True),
        "damaged.mp4": zoo.damaged("damaged.mp4"),
        "bad_start.mp4": zoo.damaged("bad_start.mp4", at=0.02),
        "moving.gif": zoo.encoded("moving.gif", zoo.frames(24, seed=3), codec="gif", pixel_format="rgb8"),
        "one_after_another.ts": zoo.encoded("one_after_another.ts", frames),
    }
    good["one_after_another.ts"].write_bytes(2 * good["one_after_another.ts"].read_bytes())
    bad = {
        "empty.mp4": (zoo.text("empty.mp4", ""), "EMPTY_FILE"),
        "text.mp4": (zoo.text("text.mp4"), "NOT_MEDIA"),
        "sound.mp4": (zoo.audio_only("sound.mp4"), "NO_VIDEO_STREAM"),
        "no_index.mp4": (zoo.cut_off("no_index.mp4", 0.6, moov_first=False), "MOOV_MISSING"),
        "stub.mp4": (zoo.cut_off("stub.mp4", 0.35, moov_first=True, num_frames=20), "TRUNCATED"),
        "one_frame.mp4": (zoo.video("one_frame.mp4", num_frames=1), "TOO_SHORT"),
        "black.mp4": (zoo.encoded("black.mp4", np.zeros_like(frames)), "BLANK"),
        "picture.png": (zoo.text("picture.png"), "NOT_MEDIA"),
    }
    summary = curate(config(zoo.folder, tmp_path / "out"))
    tables = {name: read_table(tmp_path / "out" / "tables", name) for name in SCHEMAS}
    assert {Path(r["uri"]).name: r["code"] for r in tables["quarantine"]} == {name: code for name, (_, code) in bad.items()}
    assert {Path(row["uri"]).name for row in tables["sources"]} == set(good)
    assert {Path(r["uri"]).name: r["problem"] for r in tables["sources"] if r["partial"]} == {
        "cut_off.mp4": "TRUNCATED",
        "damaged.mp4": "DECODE_ERROR",
        "bad_start.mp4": "DECODE_ERROR",
        "one_after_another.ts": "PTS_NONMONOTONIC",
    }
    assert summary.files == len(good) + len(bad)
    assert (summary.sources, summary.partial, sum(summary.quarantined.values())) == (len(good), 4, len(bad))
    # Everything kept can be read back, with the size and count that the table says.
    dataset = ClipDataset(tmp_path / "out")
    assert len(dataset) == summary.clips >= len(good)
    for record in dataset.records:
        assert dataset.video(record).shape == (record.num_frames, record.height, record.width, 3)
    shapes = {Path(r["uri"]).name: (r["width"], r["height"], r["num_frames"], r["fps"]) for r in tables["clips"]}
    assert shapes["tall.mp4"] == (48, 64, 24, 12.0)
    assert shapes["odd.mkv"] == (66, 48, 24, 12.0)
    assert shapes["uneven.mkv"] == (64, 48, 25, 12.0)
    assert shapes["picture.jpg"] == (64, 48, 1, 0.0)
    assert next(r["bucket"] for r in tables["clips"] if r["encoding"] == "image").startswith("image_")
    assert all(row["message"] for row in tables["quarantine"])


def test_a_second_run_changes_nothing_and_does_nothing(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    first = curate(config(zoo.folder, tmp_path / "out"))
    before = content(tmp_path / "out")
    second = curate(config(zoo.folder, tmp_path / "out"))
    assert content(tmp_path / "out") == before
    assert (first.processed, second.processed) == (6, 0)
    assert (first.files, first.sources, first.duplicates, first.clips) == (7, 4, 1, 5)
    assert first.rejected == {"TOO_SHORT": 2}
    assert first.quarantined == {"NOT_MEDIA": 1, "TOO_SHORT": 1}
    assert len(read_table(tmp_path / "out" / "tables", "runs")) == 2
    elsewhere = curate(config(zoo.folder, tmp_path / "again"))
    assert content(tmp_path / "again") == before, "another folder gets the same dataset"
    assert elsewhere.clips == first.clips


def test_shots_captions_and_actions_reach_the_clips(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    zoo.text("three.txt", "three rooms")
    curate(config(zoo.folder, tmp_path / "out", trim_frames=0))
    dataset = ClipDataset(tmp_path / "out")
    clips = read_table(tmp_path / "out" / "tables", "clips")
    three = [c for c in clips if c["uri"].endswith("three.mp4")]
    assert [(c["start_s"], c["end_s"], c["num_frames"], c["caption"]) for c in three] == [
        (0.0, 1.5, 18, "three rooms"),
        (1.5, pytest.approx(38 / 12, abs=1e-4), 20, "three rooms"),
    ]
    (pusher,) = [r for r in dataset.records if r.has_actions]
    assert (pusher.caption, pusher.action_names) == ("a push", ("x", "y"))
    np.testing.assert_array_equal(dataset.actions(pusher), np.arange(48).reshape(24, 2))
    assert dataset.metadata(pusher)["episode"]["caption"] == "a push"


def test_actions_are_cut_with_the_clip(zoo: Any, tmp_path: Path) -> None:
    zoo.shots("two.mp4", [20, 30])
    zoo.episode("two", np.arange(50) / 12 + 0.01, np.arange(50)[:, None], {}, state=[[float(-i)] for i in range(50)])
    curate(config(zoo.folder, tmp_path / "out", trim_frames=2))
    dataset = ClipDataset(tmp_path / "out")
    cut = {r.start_s: dataset.actions(r) for r in dataset.records}
    np.testing.assert_array_equal(cut[0.0], np.arange(0, 18)[:, None])
    np.testing.assert_array_equal(cut[round(22 / 12, 6)], np.arange(22, 50)[:, None])
    state = dataset._index(dataset.records[0]).read(dataset.records[0].key, "state.npy")
    assert np.array_equal(np.frombuffer(state[-72:], np.float32), -np.arange(18, dtype=np.float32))


@pytest.mark.parametrize(
    ("times", "actions", "code"),
    [
        (np.arange(20) / 12, np.ones((20, 2)), "SIDECAR_SHORT"),
        (np.arange(24) / 12, np.full((24, 2), np.nan), "SIDECAR_NOT_FINITE"),
        (np.arange(24) / 6, np.ones((24, 2)), "SIDECAR_TIMES"),
    ],
)
def test_a_bad_sidecar_quarantines_and_mending_it_helps(
    zoo: Any, tmp_path: Path, times: np.ndarray, actions: np.ndarray, code: str
) -> None:
    zoo.video("v.mp4", num_frames=24)
    zoo.episode("v", times, actions)
    assert curate(config(zoo.folder, tmp_path / "out")).quarantined == {code: 1}
    zoo.episode("v", np.arange(24) / 12, np.ones((24, 2)))
    mended = curate(config(zoo.folder, tmp_path / "out"))
    assert (mended.quarantined, mended.clips) == ({}, 1)
    zoo.episode("v", np.arange(24) / 12, np.zeros((24, 2)))
    assert curate(config(zoo.folder, tmp_path / "out")).clips == 1
    dataset = ClipDataset(tmp_path / "out")
    actions = dataset.actions(dataset.records[0])
    assert actions is not None
    assert not actions.any(), "the shard holds the actions of now"


def test_moved_files_keep_their_clips(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    curate(config(zoo.folder, tmp_path / "out"))
    before = content(tmp_path / "out")
    moved = tmp_path / "moved"
    (zoo.folder / "sub").mkdir()
    (zoo.folder / "three.mp4").rename(zoo.folder / "sub" / "renamed.mp4")
    zoo.folder.rename(moved)
    assert curate(config(moved, tmp_path / "out")).processed == 0
    after = content(tmp_path / "out")
    assert after["shards"] == before["shards"]
    assert {c["clip_id"] for c in after["clips"]} == {c["clip_id"] for c in before["clips"]}
    assert all(c["uri"].startswith(str(moved)) for c in after["clips"])


def test_grown_input_is_added_and_vanished_input_is_refused(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=24, seed=1)
    curate(config(zoo.folder, tmp_path / "out"))
    shards = content(tmp_path / "out")["shards"]
    zoo.video("b.mp4", num_frames=24, seed=2)
    grown = curate(config(zoo.folder, tmp_path / "out"))
    assert (grown.processed, grown.clips) == (1, 2)
    assert shards.items() < content(tmp_path / "out")["shards"].items(), "finished shards never change"
    (zoo.folder / "a.mp4").unlink()
    with pytest.raises(UsageError, match=r"1 files that the input lacks, such as .*a\.mp4.*--overwrite"):
        curate(config(zoo.folder, tmp_path / "out"))
    assert len(ClipDataset(tmp_path / "out")) == 2, "a refusal leaves everything in place"
    assert curate(config(zoo.folder, tmp_path / "out", overwrite=True)).clips == 1


def test_other_folders_are_refused(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=30)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.pdf").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"holds other files \(thesis\.pdf\) and no clip dataset"):
            curate(config(zoo.folder, tmp_path / "mine", overwrite=overwrite))
    with pytest.raises(UsageError, match="is a file, not a folder"):
        curate(config(zoo.folder, tmp_path / "mine" / "thesis.pdf"))


def test_a_folder_of_the_older_format_is_refused_in_one_line(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=30)
    (tmp_path / "out" / "work" / "abc").mkdir(parents=True)
    (tmp_path / "out" / "work" / "abc" / "commit.json").write_text("{}")
    with pytest.raises(UsageError, match=r"another version of curate.*--overwrite"):
        curate(config(zoo.folder, tmp_path / "out"))
    assert curate(config(zoo.folder, tmp_path / "out", overwrite=True)).clips == 1


def test_the_output_may_lie_inside_the_input(zoo: Any) -> None:
    zoo.video("a.mp4", num_frames=24)
    for _ in range(2):
        assert curate(config(zoo.folder, zoo.folder / "out")).files == 1


def test_the_work_folder_can_be_lost(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    curate(config(zoo.folder, tmp_path / "out"))
    before = content(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "work")
    assert curate(config(zoo.folder, tmp_path / "out")).processed == 6
    assert content(tmp_path / "out") == before


def test_shards_are_closed_at_their_size(zoo: Any, tmp_path: Path) -> None:
    for seed in range(5):
        zoo.video(f"v{seed}.mp4", num_frames=24, seed=seed)
    size = (zoo.folder / "v0.mp4").stat().st_size / 1e6
    curate(config(zoo.folder, tmp_path / "out", shard_mb=1.5 * size))
    assert [len(read_index(p).samples) for p in sorted((tmp_path / "out").glob("shards/*/*.tar"))] == [2, 2, 1]
    assert not list((tmp_path / "out" / "work").rglob("*.mp4")), "packed samples leave the work folder"


def test_an_url_is_curated_like_a_folder(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/zoo/{path.name}": path.read_bytes() for path in zoo.folder.iterdir()})
    try:
        remote = curate(config("memory://zoo", tmp_path / "remote"))
    finally:
        memory.rm("/zoo", recursive=True)
    curate(config(zoo.folder, tmp_path / "local"))
    assert content(tmp_path / "remote")["shards"] == content(tmp_path / "local")["shards"]
    assert remote.duplicates == 1
    assert all(c["uri"].startswith("memory://") for c in read_table(tmp_path / "remote" / "tables", "clips"))


def test_no_video_at_all_is_bad_usage_and_only_bad_video_is_not(zoo: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no video or image file"):
        curate(config(zoo.folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    zoo.text("bad.mp4")
    summary = curate(config(zoo.folder, tmp_path / "out"))
    assert (summary.clips, summary.quarantined) == (0, {"NOT_MEDIA": 1})
    assert {path.stem for path in (tmp_path / "out" / "tables").iterdir()} == set(SCHEMAS)
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_missing_entry_of_a_list_is_one_row(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=24)
    zoo.text("list.txt", "a.mp4\ngone.mp4\n")
    assert curate(config(zoo.folder / "list.txt", tmp_path / "out")).quarantined == {"MISSING": 1}
    (row,) = read_table(tmp_path / "out" / "tables", "quarantine")
    assert (row["source_id"], row["stage"], row["code"]) == (None, "fingerprint", "MISSING")


def test_a_full_disk_stops_cleanly_and_the_next_run_completes(
    zoo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(zoo)
    curate(config(zoo.folder, tmp_path / "whole"))
    real, calls = pack_module.write_shard, []

    def second_fails(path: Path, samples: Any) -> Any:
        calls.append(path)
        if len(calls) == 2:
            raise ResourceError("No space left.")
        return real(path, samples)

    with monkeypatch.context() as full:
        full.setattr(pack_module, "write_shard", second_fails)
        with pytest.raises(ResourceError):
            curate(config(zoo.folder, tmp_path / "out"))
    assert not (tmp_path / "out" / "tables").exists()
    assert curate(config(zoo.folder, tmp_path / "out")).processed == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_two_runs_at_once_are_refused(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=24)
    seen = []

    def executor(work: Any, rows: Any) -> Any:
        with pytest.raises(UsageError, match="Another curation is writing"):
            curate(config(zoo.folder, tmp_path / "out"))
        seen.append(True)
        return map(work, rows)

    curate(config(zoo.folder, tmp_path / "out"), executor=executor)
    assert seen


def test_any_order_of_execution_gives_the_same_dataset(zoo: Any, tmp_path: Path) -> None:
    fill(zoo)
    curate(config(zoo.folder, tmp_path / "forward"))
    curate(config(zoo.folder, tmp_path / "backward"), executor=lambda function, rows: map(function, list(rows)[::-1]))
    assert content(tmp_path / "forward") == content(tmp_path / "backward")


def test_the_resolved_config_is_saved(zoo: Any, tmp_path: Path) -> None:
    zoo.video("a.mp4", num_frames=24)
    settled = {"shots": ShotConfig(network="off"), "scores": ScoreConfig(embed_captions="off")}
    asked = config(zoo.folder, tmp_path / "out", crf=21, **settled)
    curate(asked)
    assert CurateConfig.from_yaml(tmp_path / "out" / "config.yaml") == asked
    (run,) = read_table(tmp_path / "out" / "tables", "runs")
    assert json.loads(run["config"]) == asked.parameters()
