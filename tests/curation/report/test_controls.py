"""The page's controls, driven in a real browser: what they say would stay is what `curate select` then keeps."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldfoundry.cli.main import main
from worldfoundry.core.video_io import write_video
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate

pytestmark = pytest.mark.timeout(1200)  # for machines that are busy otherwise


@pytest.fixture
def dataset(zoo: Any, tmp_path: Path) -> Path:
    """Shots of several lengths, movements and sharpness, a near-duplicate, and an image."""
    coarse, still = zoo.frames(40, seed=1), zoo.frames(1, seed=2).repeat(30, axis=0)
    soft = np.clip(zoo.frames(50, seed=3).astype(float) / 3 + 80, 0, 255).astype(np.uint8)
    write_video(zoo.folder / "it's <script>.mp4", np.concatenate([coarse, still, soft, zoo.frames(16, seed=4)]), 12.0)
    write_video(zoo.folder / "again.mp4", zoo.frames(40, seed=1)[:, ::-1, ::-1][:, ::-1], 12.0, crf=30)
    write_video(zoo.folder / "again, longer.mp4", zoo.frames(44, seed=1), 12.0, crf=20)
    zoo.image("still.png")
    options = {"input": str(zoo.folder), "out": tmp_path / "it's out", "isolate": False, "scores": {"dedup": "perceptual"}}
    return curate(CurateConfig.from_dict({**options, "where": ["luma_mean<=250"]})).report


def promised(page: Any) -> tuple[int, int]:
    """How many clips the page says would stay, and how many of them are encoded already."""
    stay = int(page.text("#stay-clips").split()[0])
    fresh = re.search(r"(\d+) of them not encoded", page.text("#stay-notes"))
    return stay, stay - (int(fresh[1]) if fresh else 0)


def kept_by(command: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Run what the page says; the number of clips that it keeps."""
    program, *arguments = shlex.split(command)
    assert program == "worldfoundry"
    capsys.readouterr()
    assert main(arguments) == 0
    found = re.search(r"clips kept +(\d+)", capsys.readouterr().out)
    assert found
    return int(found[1])


def test_dragged_and_typed_thresholds_do_what_select_does(
    open_page: Any, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_page(dataset) as page:
        everything, encoded = promised(page)
        assert encoded == everything
        assert "(as in this run)" in page.text("#stay-change")
        assert "--where 'luma_mean<=250'" in page.text("#command")
        first = page.text("#command")

        handle = "[data-name=motion] .handle.low"
        left, _, width, _ = page.box("[data-name=motion] .plot")
        x, y, w, h = page.box(handle)
        page.drag((x + w / 2, y + h / 2), (left + 0.4 * width, y + h / 2))
        moved = page.text("#command")
        assert moved != first
        assert float(re.search(r"--min-motion ([\d.]+)", moved)[1]) > 0  # type: ignore[index]
        dragged, _ = promised(page)
        assert dragged < everything

        page.evaluate("document.querySelector('[data-name=duration_s] .handle.low').focus()")
        page.press("ArrowRight", times=3)
        page.press("PageUp")
        command = page.text("#command")
        assert float(re.search(r"--min-s ([\d.]+)", command)[1]) > 2  # type: ignore[index]
        assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == re.search(r"--min-s (\S+)", command)[1]  # type: ignore[index]
        stay, encoded = promised(page)
        assert stay <= dragged

        page.evaluate("document.querySelector('#reset').click()")
        assert (page.text("#command"), promised(page)[0]) == (first, everything)
    assert kept_by(command, capsys) == encoded
    assert kept_by(first, capsys) == everything


def test_looser_thresholds_and_boxes_do_what_select_does(
    open_page: Any, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_page(dataset, width=800, dark=True) as page:
        before = promised(page)
        page.evaluate("document.querySelector('[data-name=duration_s] .handle.low').focus()")
        page.press("Home")
        page.press("ArrowRight", times=2)
        stay, encoded = promised(page)
        assert stay > encoded == before[1], "a clip that was too short comes back, and was never encoded"
        page.evaluate("document.querySelector('[data-name=camera_motion] input').click()")
        page.settle()
        command = page.text("#command")
        assert re.search(r"'camera_motion!=\w+'", command)
        _, encoded = promised(page)
    assert kept_by(command, capsys) == encoded


def test_a_line_of_shots_is_read_with_the_arrow_keys(open_page: Any, dataset: Path) -> None:
    with open_page(dataset) as page:
        page.evaluate("[...document.querySelectorAll('.track')].at(-1).focus()")
        told = "[...document.querySelectorAll('.told')].at(-1).textContent"
        assert "4 shots, 3 cuts" in page.evaluate(told)
        page.press("ArrowRight")
        assert "shot 0: 0.00 – 3.33 s" in page.evaluate(told)
        page.press("ArrowRight")
        assert "clip 0.00 – " in page.evaluate(told)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
