"""The scores end as columns of the tables, one per clip, whatever the file; duplicates are rejected with the pair that decided."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from worldfoundry.core.errors import CheckpointError, ConfigError, DataError, UsageError
from worldfoundry.core.video_io import write_video
from worldfoundry.curation.api import curate
from worldfoundry.curation.lowres import Look, watch_frames
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.motion import MOTION_COLUMNS
from worldfoundry.curation.scores.prepare import prepare
from worldfoundry.curation.scores.stages import score_stages
from worldfoundry.curation.stage import check_stage
from worldfoundry.data.buckets import bucket_name


def film(num_frames: int = 36, seed: int = 0, height: int = 48, width: int = 64, speed: int = 1) -> np.ndarray:
    """A smooth picture that passes from right to left, as when the camera pans right."""
    coarse = np.random.default_rng(seed).integers(30, 226, (height // 8 + 2, 64, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((512, height), Image.Resampling.BICUBIC))
    return np.stack([wide[:, speed * t : speed * t + width] for t in range(num_frames)])


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(out / "tables" / f"{table}.parquet").to_pylist()


def run(folder: Path, **scores: Any) -> Path:
    curate(folder / "in", folder / "out", isolate=False, scores=scores)
    return folder / "out"


def test_every_clip_has_its_scores(tmp_path: Path) -> None:
    pan = film(speed=2)
    boxed = np.zeros((36, 64, 64, 3), np.uint8)
    boxed[:, 8:56] = pan
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "pan.mp4", pan, 12.0)
    write_video(tmp_path / "in" / "boxed.mp4", boxed, 12.0)
    write_video(tmp_path / "in" / "still.mp4", np.stack([pan[0]] * 36), 12.0)
    Image.fromarray(pan[0]).save(tmp_path / "in" / "one.png")
    clips = {Path(row["uri"]).stem: row for row in rows(run(tmp_path, captions="measured"), "clips")}
    assert [clips[name]["camera_motion"] for name in ("pan", "still", "one")] == ["pan", "static", None]
    assert clips["pan"]["camera_pan"] == pytest.approx(2 * 12 / 80, rel=0.1)
    assert (clips["still"]["near_static"], clips["pan"]["near_static"]) == (1.0, 0.0)
    assert [clips["boxed"][n] for n in ("crop_left", "crop_top", "crop_width", "crop_height")] == [0, 8, 64, 48]
    assert clips["pan"]["border_share"] == 0
    assert clips["boxed"]["luma_mean"] < clips["pan"]["luma_mean"]
    assert clips["pan"]["niqe"] is None
    assert "the camera pans right" in clips["pan"]["caption"]
    assert clips["one"]["caption"].startswith("A picture: evenly lit."), "an image has no duration, and does not move"
    assert clips["one"]["luma_mean"] == pytest.approx(clips["still"]["luma_mean"], abs=2)


def test_conditions_read_the_scores(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "pan.mp4", film(speed=2), 12.0)
    done = curate(tmp_path / "in", tmp_path / "out", isolate=False, where=["camera_motion!=pan"])
    assert done.rejected == {"CAMERA_MOTION_EXCLUDED": 1}
    done = curate(tmp_path / "in", tmp_path / "out", isolate=False, where=["motion_amount>=0.1"])
    assert (done.clips, done.rejected) == (1, {})


def test_the_better_of_two_copies_stays(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = film(48, speed=3, height=96, width=128)
    small = np.stack([np.asarray(Image.fromarray(f).resize((64, 48), Image.Resampling.BOX)) for f in frames])
    write_video(tmp_path / "in" / "large.mp4", frames, 12.0)
    write_video(tmp_path / "in" / "mirrored.mp4", small[:, :, ::-1], 12.0)
    write_video(tmp_path / "in" / "other.mp4", film(48, seed=3, speed=3), 12.0)
    out = run(tmp_path, dedup="perceptual")
    kept = {Path(row["uri"]).stem: row["clip_id"] for row in rows(out, "clips")}
    assert set(kept) == {"large", "other"}
    (gone,) = rows(out, "rejected")
    assert (Path(gone["uri"]).stem, gone["reasons"], gone["duplicate_of"]) == ("mirrored", ["DUPLICATE"], kept["large"])
    assert (gone["duplicate_kind"], gone["duplicate_score"]) == ("perceptual", pytest.approx(0.9, abs=0.1))


def test_frames_are_shown_once_in_so_many_seconds(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", film(36), 12.0)
    seen: dict[str, list[float]] = {"all": [], "some": []}
    shapes: set[tuple[int, ...]] = set()

    def some(picture_HWC: np.ndarray, time_s: float) -> None:
        shapes.add(picture_HWC.shape)
        seen["some"].append(time_s)

    looks = [Look(size=(4, 4), add=lambda picture, time_s: seen["all"].append(time_s)), Look(size=None, add=some, every_s=1.0)]
    watch_frames(video, looks)
    assert len(seen["all"]) == 36
    assert seen["some"] == pytest.approx([0.0, 1.0, 2.0])
    assert shapes == {(48, 64, 3)}


def mean_level(frames: list[np.ndarray]) -> float:
    return float(np.mean(frames))


def test_a_plugin_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_scores", sys.modules[__name__])
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", film(), 12.0)
    (clip,) = rows(run(tmp_path, aesthetic="my_scores:mean_level"), "clips")
    assert clip["aesthetic"] == pytest.approx(128, abs=30)


def test_what_is_missing_is_said_before_the_work(tmp_path: Path) -> None:
    for wrong, error, message in [
        ({"aesthetic": "no_such_module:f"}, UsageError, "cannot be loaded"),
        ({"embedder": str(tmp_path)}, CheckpointError, "holds no network"),
        ({"captions": str(tmp_path)}, CheckpointError, "no vision-language model"),
    ]:
        with pytest.raises(error, match=message):
            prepare(ScoreConfig(**wrong))
    with pytest.raises((ConfigError, ValueError), match="embedder is empty"):
        ScoreConfig(dedup="semantic")


@pytest.mark.parametrize("column", ["steps_TN", "quality_SN"])
def test_watchers_keep_their_contract(tmp_path: Path, column: str) -> None:
    video = write_video(tmp_path / "a.mp4", film(), 12.0)
    from worldfoundry.core.video_io import probe_video

    stage = next(stage for stage in score_stages(ScoreConfig()) if column in stage.outputs)
    (row,) = check_stage(stage, {"path": video, "info": probe_video(video)})
    assert len(row[column]) >= 2


def test_a_taxonomy_of_another_embedder_is_refused(tmp_path: Path) -> None:
    from worldfoundry.curation.scores.video_type import read_taxonomy, taxonomy_of

    taxonomy_of("a", [np.ones(3)], ["x"]).save(tmp_path / "t.json")
    with pytest.raises(DataError, match="was made with 'a'"):
        read_taxonomy(tmp_path / "t.json", "effnet-lite0")


def test_an_image_is_judged_by_what_pictures_have(tmp_path: Path) -> None:
    """Bars are cut away, quality is scored; what needs time is null, and no condition on it rejects the image."""
    (tmp_path / "in").mkdir()
    inner = film(1)[0]
    Image.fromarray(np.pad(inner, ((8, 8), (0, 0), (0, 0)))).save(tmp_path / "in" / "boxed.png")
    where = [f"{name}>=1e9" for name in MOTION_COLUMNS if name != "camera_motion"]
    where += ["camera_motion=nothing", "motion>=1e9", "duration_s>=1e9", "luma_mean>=10"]
    curate(tmp_path / "in", tmp_path / "out", isolate=False, where=where, scores={"dedup": "perceptual"})
    (clip,) = rows(tmp_path / "out", "clips")
    assert (clip["encoding"], clip["num_frames"], clip["crop"], clip["height"]) == ("image", 1, [0, 8, 64, 48], 48)
    assert clip["bucket"] == bucket_name(64, 48, 1, image=True) != bucket_name(64, 48, 1, image=False)
    assert {name: clip[name] for name in (*MOTION_COLUMNS, "duplicate_of")} == dict.fromkeys((*MOTION_COLUMNS, "duplicate_of"))
    assert min(clip["luma_mean"], clip["focus"], clip["border_share"]) > 0


def test_stages_that_images_skip_are_those_that_need_time() -> None:
    config = ScoreConfig(embedder="effnet-lite0", captions="measured", dedup="semantic", embed_captions="on", text=True)
    assert [stage.name for stage in score_stages(config) if not stage.images] == ["camera_path", "movement", "signature"]
