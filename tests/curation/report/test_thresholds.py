"""What the page's script gets: the run's own thresholds where a slider stands for them, everything else handed on."""

from pathlib import Path
from typing import Any

from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import build_graph
from worldfoundry.curation.report.thresholds import evenly, threshold_data
from worldfoundry.curation.scores.dedup import Match

CLIP = {"source_id": "s", "image": False, "start_s": 0.0, "end_s": 3.0, "duration_s": 3.0, "kept": True}
SIZE = {"source_fps": 10.0, "source_height": 48, "source_width": 64, "caption": ""}


def clip(i: int, **changes: Any) -> dict[str, Any]:
    return {**CLIP, **SIZE, "clip_id": f"c{i}", "motion": float(i), "focus": 0.1 * i, "camera_motion": "pan", **changes}


def data(clips: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    config = CurateConfig.from_dict({"input": "in", "out": Path("my clips"), **changes})
    return threshold_data(clips, {}, build_graph(config), config)


def column(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(column for column in found["columns"] if column["name"] == name)


def test_sliders_start_at_the_strictest_thresholds_of_the_run() -> None:
    where = ["focus>=0.1", "focus>=0.15", "focus<=2", "motion>=3", "duration_s<=9"]
    found = data([clip(1), clip(2)], min_s=1.5, min_motion=2.0, where=where)
    assert (column(found, "focus")["low"], column(found, "focus")["high"]) == (0.15, 2.0)
    assert (column(found, "motion")["low"], column(found, "motion")["flag"]) == (3.0, "--min-motion")
    assert (column(found, "duration_s")["low"], column(found, "duration_s")["high"]) == (1.5, 9.0)
    assert found["fixed_conditions"] == []
    assert found["command"] == "worldfoundry curate select 'my clips'"


def test_conditions_without_a_slider_are_handed_on_and_still_reject() -> None:
    where = ["camera_motion=pan", "duration_s>=1", "focus!=0.2", "caption!=x"]
    found = data([clip(1), clip(2, kept=False, caption="x")], where=where)
    assert found["fixed_conditions"] == where
    assert found["fixed_out"] == [0, 1]
    assert found["tags"] == []


def test_words_have_a_box_even_if_no_clip_has_them() -> None:
    (tag,) = data([clip(1), clip(2, camera_motion=None)], where=["camera_motion!=shake"])["tags"]
    assert (tag["words"], tag["out"], tag["values"]) == (["pan", "shake"], [0, 1], [0, None])


def test_an_image_has_no_motion_and_what_json_lacks_is_a_word() -> None:
    found = data([clip(1, image=True), clip(2), clip(3, focus=float("nan")), clip(4, focus=float("-inf"))])
    assert column(found, "motion")["values"] == [None, 2.0, 3.0, 4.0]
    assert column(found, "focus")["values"][2:] == ["NaN", "-Infinity"]
    assert found["length_s"] == [None, 3.0, 3.0, 3.0]


def test_scores_that_are_the_same_of_all_clips_or_of_none_have_no_slider() -> None:
    found = data([clip(1, noise=2.0), clip(2, noise=2.0)])
    assert found["same"] == {"noise": 2.0, "source_height": 48, "source_width": 64, "source_fps": 10.0}
    assert "niqe" in found["unmeasured"]
    assert column(data([clip(1, noise=2.0)], where=["noise<=3"]), "noise")["high"] == 3.0


def test_pairs_come_with_who_has_what_the_other_shows_and_the_better_clip_first() -> None:
    pair = Match(a="c0", b="c1", kind="perceptual", score=0.9, covers_a=1.0, covers_b=0.5)
    clips = [clip(0, matches=[pair]), clip(1, matches=[], source_width=128), clip(2)]
    found = data(clips, scores={"dedup": "perceptual"})
    assert found["pairs"] == [[0, 1, 1, 0]]
    assert found["rank"] == [1, 0]
    assert found["uncompared"] == [2]


def test_evenly_takes_the_first_and_keeps_the_order() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]  # type: ignore[arg-type]
    assert evenly(range(3), 5) == [0, 1, 2]  # type: ignore[arg-type]
