"""Clips on disk: packets copied where that is exact, frames of a span and only those, an even rate from an uneven one."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from worldfoundry.core.errors import MediaError
from worldfoundry.core.video_io import iter_decoded, probe_video, read_video, write_video
from worldfoundry.curation.api import curate
from worldfoundry.curation.encode import Coding, EncodedClip, check_clip, clip_times, encode_clip, encode_image
from worldfoundry.curation.lowres import decode_lowres
from worldfoundry.curation.plan import plan_clips
from worldfoundry.curation.shots import Transition
from worldfoundry.curation.tables import read_table
from worldfoundry.data.buckets import bucket_name
from worldfoundry.data.clips import ClipDataset

CODING = Coding(crf=1, gop=12, copy_gop=24)


def encode(path: Path, cuts: tuple[int, ...] = (), coding: Coding = CODING) -> list[tuple[EncodedClip, tuple[int, int]]]:
    frames, _ = decode_lowres(path)
    transitions = [Transition(kind="cut", start=c, end=c, confidence=1.0) for c in cuts]
    plans = plan_clips("s", frames, transitions, max_s=60, trim_frames=0)
    info = probe_video(path)
    out = [path.with_name(f"out{i}.mp4") for i in range(len(plans))]
    return [(encode_clip(path, info, frames, p, o, coding), (p.first, p.last)) for p, o in zip(plans, out, strict=True)]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def test_a_whole_good_file_is_copied_packet_by_packet(zoo: Any) -> None:
    source = zoo.video("a.mp4", num_frames=30)
    ((clip, _),) = encode(source)
    assert clip.encoding == "copy"
    assert packets(clip.path) == packets(source)
    assert (clip.num_frames, clip.fps, clip.width, clip.height) == (30, 12.0, 64, 48)
    assert clip.strip_webp[:4] == b"RIFF"


@pytest.mark.parametrize("why", ["long groups", "open groups", "another codec", "4:4:4", "turned", "never copy"])
def test_what_breaks_a_promise_is_encoded_again(zoo: Any, why: str) -> None:
    frames, coding = zoo.frames(30), CODING
    if why == "long groups":
        source = zoo.video("a.mp4", num_frames=30, gop=30)
        coding = replace(CODING, copy_gop=24)
    elif why == "open groups":
        source = zoo.encoded(
            "a.mp4", frames, options={"x264-params": "keyint=8:min-keyint=8:scenecut=0:open-gop=1:bframes=3:b-adapt=0"}
        )
    elif why == "another codec":
        source = zoo.encoded("a.mp4", frames, codec="libx265", options={"x265-params": "log-level=none:keyint=12"})
    elif why == "4:4:4":
        source = zoo.encoded("a.mp4", frames, pixel_format="yuv444p", options={"g": "12"})
    elif why == "turned":
        source = zoo.rotated("a.mp4", num_frames=30)
    else:
        source, coding = zoo.video("a.mp4", num_frames=30), replace(CODING, copy_gop=0)
    ((clip, _),) = encode(source, coding=coding)
    assert clip.encoding == "x264"
    written, frames_of = probe_video(clip.path), read_video(clip.path).frames
    assert (written.codec, written.pixel_format, written.rotation) == ("h264", "yuv420p", 0)
    original = read_video(source).frames
    assert frames_of.shape == original.shape == (30, *((64, 48) if why == "turned" else (48, 64)), 3)
    assert np.abs(frames_of.astype(int) - original).mean() < 5


def samples(path: Path) -> np.ndarray:
    """Y above U and V as decoded, (T, H * 3 / 2, W)."""
    return np.stack([frame.to_ndarray() for _, frame in iter_decoded(path)])


@pytest.mark.parametrize(("codec", "pixel_format"), [("libx264", "yuv420p"), ("libx264", "yuvj420p"), ("libx265", "yuv420p")])
def test_without_loss_a_clip_holds_the_samples_of_its_source(zoo: Any, codec: str, pixel_format: str) -> None:
    options = {"x265-params": "log-level=none:keyint=25"} if codec == "libx265" else {"g": "25"}
    source = zoo.encoded("a.mp4", zoo.frames(40), codec=codec, pixel_format=pixel_format, options=options)
    for clip, (first, last) in encode(source, cuts=(17,), coding=replace(CODING, crf=0)):
        assert (samples(clip.path) == samples(source)[first:last]).all()


@pytest.mark.parametrize("crf", [1, 18, 30])
def test_by_way_of_rgb_a_clip_would_be_further_from_its_source(zoo: Any, monkeypatch: pytest.MonkeyPatch, crf: int) -> None:
    source = zoo.encoded("a.mkv", zoo.frames(30), options={"crf": "10"})
    psnr = []
    for keeps in (True, False):
        monkeypatch.setattr("worldfoundry.curation.encode.keeps_samples", lambda info, keeps=keeps: keeps)
        ((clip, _),) = encode(source, coding=replace(CODING, crf=crf))
        error = samples(clip.path).astype(float) - samples(source)
        psnr.append(10 * np.log10(255**2 / (error**2).mean()))
    assert psnr[0] >= psnr[1]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.webm"])
def test_spans_hold_exactly_their_frames_in_every_container(zoo: Any, name: str) -> None:
    frames = zoo.frames(60)
    codec, options = {
        "a.webm": ("libvpx-vp9", {"g": "25", "deadline": "realtime"}),
        "a.avi": ("mpeg4", {"g": "25", "qscale": "2"}),
    }.get(name, ("libx264", {"g": "25", "crf": "10"}))
    source = zoo.encoded(name, frames, codec=codec, options=options)
    whole = read_video(source).frames
    for clip, (first, last) in encode(source, cuts=(17, 41)):
        again = read_video(clip.path).frames
        assert len(again) == last - first == clip.num_frames
        error = np.abs(again.astype(int) - whole[first:last]).mean(axis=(1, 2, 3))
        neighbour = np.abs(again[:-1].astype(int) - whole[first + 1 : last]).mean()
        assert error.max() < 4
        assert error.max() < 0.5 * neighbour, "the frames must be these, not those beside them"


def test_a_varying_rate_becomes_the_frame_on_show_at_each_tick(zoo: Any) -> None:
    pts = np.cumsum([0, *([1] * 10), 3, *([1] * 10), 2, 1, 1])
    frames = zoo.frames(len(pts))
    source = zoo.encoded("v.mkv", frames, pts=pts.tolist(), time_base=Fraction(1, 12), options={"crf": "1"})
    table, _ = decode_lowres(source)
    assert (table.variable_rate, table.fps) == (True, 12.0)
    ((clip, _),) = encode(source)
    assert clip.num_frames == pts[-1] + 1
    shown = np.searchsorted(pts, np.arange(pts[-1] + 1), side="right") - 1
    expected = read_video(source).frames[shown]
    error = np.abs(read_video(clip.path).frames.astype(int) - expected).mean(axis=(1, 2, 3))
    assert error.max() < 5
    assert error.max() < 0.5 * np.abs(expected[1].astype(int) - expected[0]).mean()
    np.testing.assert_allclose(clip.times_s_T, np.arange(pts[-1] + 1) / 12, atol=2e-3)


def test_odd_sizes_are_padded_to_even(zoo: Any) -> None:
    source = zoo.encoded("odd.mkv", zoo.frames(12, 47, 65), codec="ffv1", pixel_format="bgr0")
    ((clip, _),) = encode(source)
    assert (clip.width, clip.height) == (66, 48)


def test_images_are_clips_of_one_frame(zoo: Any) -> None:
    clip = encode_image(zoo.frames(1, 47, 65)[0], zoo.folder / "i.mp4", CODING)
    assert (clip.encoding, clip.num_frames, clip.fps, clip.width, clip.height) == ("image", 1, 0.0, 66, 48)


def test_the_check_notices_missing_frames_and_rubbish(zoo: Any) -> None:
    with pytest.raises(MediaError, match="30 frames instead of 31") as caught:
        check_clip(zoo.video("a.mp4", num_frames=30), 31)
    assert caught.value.code == "ENCODE_FAILED"
    with pytest.raises(MediaError, match="does not decode"):
        check_clip(zoo.text("t.mp4"), 3)


def test_clip_times_are_the_frames_own(zoo: Any) -> None:
    frames, _ = decode_lowres(zoo.video("a.mp4", num_frames=24, fps=30000 / 1001))
    (plan,) = plan_clips("s", frames, [], max_s=60, trim_frames=0)
    np.testing.assert_allclose(clip_times(frames, plan), np.arange(24) * 1001 / 30000, atol=1e-4)


# --- borders ---------------------------------------------------------------------------------------------------------


def boxed(inner: np.ndarray, top: int, left: int, colour: int = 0) -> np.ndarray:
    """Frames inside bars of equal width on both sides."""
    return np.pad(inner, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=colour)


def rows_of(folder: Path, **options: Any) -> list[dict[str, Any]]:
    curate(folder, folder.parent / "out", isolate=False, **options)
    return sorted(read_table(folder.parent / "out" / "tables", "clips"), key=lambda row: (row["uri"], row["start_s"]))


def picture_of(out: Path, index: int) -> np.ndarray:
    dataset = ClipDataset(out)
    return dataset.video(sorted(dataset.records, key=lambda record: record.start_s)[index])


def test_letterbox_is_cut_away_from_the_clip(zoo: Any) -> None:
    inner = zoo.frames(36, 48, 64)
    write_video(zoo.folder / "a.mp4", boxed(inner, 8, 0), 12.0, crf=4)
    (clip,) = rows_of(zoo.folder, crf=4)
    assert (clip["crop"], clip["width"], clip["height"], clip["encoding"]) == ([0, 8, 64, 48], 64, 48, "x264")
    shown = picture_of(zoo.folder.parent / "out", 0)
    assert shown.shape == inner.shape
    assert np.abs(shown.astype(int) - inner).mean() < 5
    assert clip["bucket"] == bucket_name(64, 48, 36, image=False)


def test_cropping_can_be_switched_off_and_then_copies(zoo: Any) -> None:
    write_video(zoo.folder / "a.mp4", boxed(zoo.frames(36, 48, 64), 8, 0), 12.0)
    (clip,) = rows_of(zoo.folder, encode={"crop": "off"})
    assert (clip["crop"], clip["height"], clip["encoding"]) == (None, 64, "copy")
    assert clip["crop_height"] == 48, "it is still measured"


def test_each_clip_of_a_mixed_source_is_cropped_by_itself(zoo: Any) -> None:
    wide, whole, tall = (
        boxed(zoo.frames(36, 48, 96, 1), 12, 0),
        zoo.frames(36, 72, 96, 2),
        boxed(zoo.frames(36, 72, 64, 3), 0, 16),
    )
    write_video(zoo.folder / "mixed.mp4", np.concatenate([wide, whole, tall]), 12.0, crf=4)
    clips = rows_of(zoo.folder)
    assert [clip["crop"] for clip in clips] == [[0, 12, 96, 48], None, [16, 0, 64, 72]]
    assert [(clip["width"], clip["height"]) for clip in clips] == [(96, 48), (96, 72), (64, 72)]
    assert picture_of(zoo.folder.parent / "out", 2).shape[1:3] == (72, 64)


def test_a_bar_that_shows_something_in_one_frame_is_kept(zoo: Any) -> None:
    frames = boxed(zoo.frames(36, 48, 64), 8, 0)
    frames[20, 58:63, 10:50] = 255  # a line of subtitles between the frames looked at
    write_video(zoo.folder / "a.mp4", frames, 12.0)
    (clip,) = rows_of(zoo.folder)
    assert (clip["crop"], clip["height"], clip["crop_height"]) == (None, 64, 48)


@pytest.mark.parametrize(("colour", "mode", "height"), [(200, "black", 64), (200, "any", 48), (0, "any", 48)])
def test_bars_of_another_colour_go_only_if_asked_for(zoo: Any, colour: int, mode: str, height: int) -> None:
    write_video(zoo.folder / "a.mp4", boxed(zoo.frames(36, 48, 64), 8, 0, colour), 12.0)
    (clip,) = rows_of(zoo.folder, encode={"crop": mode})
    assert clip["height"] == height
