"""Conditions over stored scores: every sign, missing values, and words that name nothing."""

from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.select import select

KNOWN = ("motion", "blur", "camera")


def reasons(clip: dict[str, Any], **changes: Any) -> list[str]:
    base = {"image": False, "start_s": 0.0, "end_s": 3.0, "duration_s": 3.0, "source_fps": 10.0, "motion": 5.0}
    (row,) = select([{**base, **clip}], CurateConfig.from_dict({"input": "", "out": "", **changes}), KNOWN)
    assert row["kept"] == (not row["reasons"])
    return row["reasons"]


def test_length_is_inclusive_up_to_half_a_frame_and_images_have_none() -> None:
    assert reasons({"end_s": 1.96}) == []
    assert reasons({"end_s": 1.94}) == ["TOO_SHORT"]
    assert reasons({"end_s": 0.0, "image": True}) == []


def test_still_clips_are_rejected_if_asked() -> None:
    assert reasons({"motion": 2.0}, min_motion=2.5) == ["STATIC"]
    assert reasons({"motion": None, "image": True}, min_motion=2.5) == []


@pytest.mark.parametrize(
    "condition", ["motion>=99", "blur<=-1", "blur>=99", "camera=pan", "camera!=pan", "duration_s>=9", "source_fps>=9"]
)
def test_what_an_image_does_not_have_does_not_judge_it(condition: str) -> None:
    image = {"image": True, "end_s": 0.0, "duration_s": 0.0, "source_fps": 0.0, "motion": None, "blur": None}
    assert reasons(image, where=(condition,)) == []
    assert reasons({**image, "num_frames": 1}, where=("num_frames>=2",)) == ["NUM_FRAMES_LOW"], "that it has"


@pytest.mark.parametrize(
    ("condition", "clip", "expected"),
    [
        ("blur<=0.3", {"blur": 0.3}, []),
        ("blur <= 0.3", {"blur": 0.31}, ["BLUR_HIGH"]),
        ("blur>=0.3", {"blur": 0.2}, ["BLUR_LOW"]),
        ("blur>=0.3", {"blur": None}, []),
        ("camera!=shake", {"camera": "shake"}, ["CAMERA_EXCLUDED"]),
        ("camera!=shake", {"camera": "pan"}, []),
        ("camera=pan", {"camera": "zoom"}, ["CAMERA_EXCLUDED"]),
        ("duration_s<=2.5", {}, ["DURATION_S_HIGH"]),
    ],
)
def test_conditions(condition: str, clip: dict[str, Any], expected: list[str]) -> None:
    assert reasons(clip, where=(condition,)) == expected


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("blurry", "is no condition"),
        ("blr<=1", "no stage gives 'blr'.*'blur'"),
        ("blur<=much", "'much' is not a number"),
        ("camera>=2", "'camera' is a word"),
    ],
)
def test_bad_conditions_are_said_in_one_line(condition: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        select([{"image": True, "camera": "pan"}], CurateConfig(input="", out=Path(), where=(condition,)), KNOWN)
