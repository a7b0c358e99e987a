"""The mark: read back exactly, after cropping, cutting, resizing and re-encoding; nothing is read where nothing was written."""

import json

import numpy as np
import pytest

from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.core.watermark import BITS, PERIOD, TILE, _decoded, can_mark, mark, payload_bits, read, votes

ID = 0xDEADBEEF


def moving(count=17, height=128, width=160, seed=0):
    """A still picture of patches, in front of which a disc moves."""
    still = np.random.default_rng(seed).uniform(40, 215, (height // 16, width // 16, 3)).repeat(16, 0).repeat(16, 1)
    y, x = np.mgrid[:height, :width]
    discs = [((y - 60) ** 2 + (x - 30 - 4 * t) ** 2 < 400)[..., None] for t in range(count)]
    return np.stack([np.where(disc, 200, still) for disc in discs]).astype(np.uint8)


@pytest.fixture(scope="module")
def clip():
    return moving()


@pytest.fixture(scope="module")
def marked(clip):
    return mark(clip, ID)


def test_the_mark_is_faint_and_the_given_frames_stay(clip, marked):
    difference = marked.astype(int) - clip
    assert 0 < np.abs(difference).max() <= 3
    assert 10 * np.log10(255**2 / np.mean(difference**2.0)) > 43
    assert np.array_equal(clip, moving())


def test_payload_is_the_id_and_its_checksum():
    assert len(payload_bits(ID)) == BITS
    assert int("".join(map(str, payload_bits(ID)[:32])), 2) == ID
    assert sum(payload_bits(ID)[32:] != payload_bits(ID ^ 1)[32:]) >= 1


@pytest.mark.parametrize("id", [0, 1, ID, 2**32 - 1])
def test_every_id_is_read_back(clip, id):
    found = read(mark(clip, id))
    assert (found.id, found.scale) == (id, 1.0)


def test_nothing_is_read_in_unmarked_clips(clip):
    assert read(clip).id is None
    assert read(np.full_like(clip, 90)).id is None
    assert read(clip[: PERIOD - 1]).id is None


def test_crops_and_cuts_are_found_at_every_shift(marked):
    assert read(marked[:, 13:, 27:]).id == ID
    assert read(marked[3:]).id == ID
    assert read(marked[2 : 2 + PERIOD]).id == ID


def test_reencoding_and_half_size(marked, tmp_path):
    path = write_video(tmp_path / "small.mp4", marked, 12, crf=23)
    assert read(read_video(path).frames).id == ID
    found = read(np.stack([frame.reshape(64, 2, 80, 2, 3).mean(axis=(1, 3)) for frame in marked]).round().astype(np.uint8))
    assert (found.id, found.scale) == (ID, 0.5)


def test_the_weakest_bits_may_be_wrong(marked):
    clarity, votes_B = votes(marked)
    assert clarity > 8
    assert np.array_equal(votes_B > 0, payload_bits(ID) == 1)
    weakest = np.argsort(np.abs(votes_B))
    for wrong, id in ((3, ID), (20, None)):
        turned_B = votes_B.copy()
        turned_B[weakest[:wrong]] *= -1
        assert _decoded(turned_B) == id


def test_too_small_or_short_is_refused():
    for frames in (np.zeros((PERIOD, TILE - 1, 200, 3), np.uint8), np.zeros((PERIOD - 1, 200, 200, 3), np.uint8)):
        assert not can_mark(frames)
        with pytest.raises(ValueError, match="a mark needs"):
            mark(frames, ID)


def test_save_marks_what_is_large_enough_and_says_so(clip, tmp_path):
    video = WorldVideo(frames=clip, fps=12, seed=3, config={"a": 1})
    said = json.loads(video.save(tmp_path / "a.mp4").with_suffix(".json").read_text())["watermark"]
    assert f"{read(read_video(tmp_path / 'a.mp4').frames).id:08x}" == said["id"]
    assert json.loads(video.save(tmp_path / "b.mp4").with_suffix(".json").read_text())["watermark"] == said
    other = WorldVideo(frames=clip, fps=12, seed=4, config={"a": 1}).save(tmp_path / "c.mp4")
    assert json.loads(other.with_suffix(".json").read_text())["watermark"] != said
    plain = video.save(tmp_path / "d.mp4", watermark=False)
    assert json.loads(plain.with_suffix(".json").read_text())["watermark"]["id"] is None
    assert read(read_video(plain).frames).id is None
    tiny = WorldVideo(frames=clip[:, :32, :32], fps=12, seed=3).save(tmp_path / "e.mp4")
    assert "64x64" in json.loads(tiny.with_suffix(".json").read_text())["watermark"]["why"]
