"""Face pixelation: a drawn face is hidden in every frame while it moves and while it is missed; nothing else changes."""

import numpy as np
import pytest
from drawn_face import scene

from worldfoundry.core import shipped
from worldfoundry.core.contracts import FrameTransform, VideoItem
from worldfoundry.core.errors import CheckpointError
from worldfoundry.guardrails.faces import FaceFilter, FacesConfig, pixelate, whole
from worldfoundry.perception.mtcnn import Faces


@pytest.fixture(scope="module")
def faces():
    return FaceFilter(FacesConfig())


class Seen:
    """Stands in for the detector: the boxes of each picture by its brightest byte, which is the frame's number."""

    def __init__(self, boxes):
        self.boxes, self.asked = boxes, []

    def __call__(self, pictures, *, min_face, confidence):
        numbers = [int(picture.max()) for picture in pictures]
        self.asked += numbers
        rows = [(box, i) for i, number in enumerate(numbers) for box in self.boxes.get(number, [])]
        boxes = np.array([box[:4] for box, _ in rows], float).reshape(-1, 4)
        scores = np.array([box[4] if len(box) > 4 else 1.0 for box, _ in rows])
        return Faces(boxes_N4=boxes, scores_N=scores, picture_N=np.array([i for _, i in rows], int))


def with_boxes(boxes, count=20, size=(80, 80), **options):
    """What the filter says of a video of `count` frames in which the detector sees `boxes`."""
    transform = FaceFilter(FacesConfig(**options))
    transform.detector = Seen(boxes)
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[:, 0, 0] = np.arange(count)[:, None]
    _, verdict = transform.apply(VideoItem(frames=frames, fps=8))
    return verdict.evidence, transform.detector.asked


def test_a_moving_face_is_hidden_in_every_frame_and_nothing_else_changes(faces):
    places = [(20 + 3 * t, 30 + t, 56) for t in range(14)]
    frames = np.stack([scene(128, 160, [place]) for place in places])
    before = frames.copy()
    frames.flags.writeable = False
    out, verdict = faces.apply(VideoItem(frames=frames, fps=8))
    assert isinstance(faces, FrameTransform)
    assert (verdict.status, verdict.guard) == ("safe", "faces")
    assert verdict.evidence["faces"] == 1
    assert verdict.evidence["frames_searched"] == 5  # 0, 4, 8, 12 and the last
    for t, (left, top, size) in enumerate(places):
        ((x0, y0, x1, y1),) = verdict.evidence["boxes"][str(t)]
        eyes_and_mouth = np.array([0.30, 0.40, 0.70, 0.78]) * size + [left, top, left, top]
        assert (np.array([x0, y0]) <= eyes_and_mouth[:2]).all()
        assert (np.array([x1, y1]) >= eyes_and_mouth[2:]).all()
        outside = np.ones(frames.shape[1:3], bool)
        outside[y0:y1, x0:x1] = False
        assert (out[t][outside] == frames[t][outside]).all()
        assert len(np.unique(out[t][y0:y1, x0:x1].reshape(-1, 3), axis=0)) <= 25
    assert (frames == before).all()
    again, same = faces.apply(VideoItem(frames=frames, fps=8))
    assert (again == out).all()
    assert same == verdict


def test_without_a_face_the_frames_stay_as_they_are(faces):
    frames = np.stack([scene(90, 120, [])] * 3)
    out, verdict = faces.apply(VideoItem(frames=frames, fps=8))
    assert (out == frames).all()
    assert "no face found" in verdict.reason


def test_a_hidden_face_is_not_found_again(faces):
    frames = np.stack([scene(128, 160, [(40, 30, 64)])] * 2)
    out, _ = faces.apply(VideoItem(frames=frames, fps=8))
    assert faces.apply(VideoItem(frames=out, fps=8))[1].evidence["faces"] == 0


def test_one_missed_sighting_leaves_no_frame_open():
    box = [20, 20, 50, 50]
    evidence, asked = with_boxes({0: [box], 4: [box], 12: [box], 16: [box], 19: [box]})
    assert asked == [0, 4, 8, 12, 16, 19]
    assert sorted(map(int, evidence["boxes"])) == list(range(20))


def test_a_face_seen_once_is_hidden_as_far_as_the_next_frames_looked_at():
    evidence, _ = with_boxes({8: [[20, 20, 50, 50]]})
    assert sorted(map(int, evidence["boxes"])) == list(range(4, 13))


def test_faces_below_twenty_pixels_are_left_but_not_if_they_were_larger_once():
    assert with_boxes({0: [[20, 20, 39, 60]]})[0]["faces"] == 0
    assert with_boxes({0: [[20, 20, 40, 40]]})[0]["faces"] == 1
    shrinking, _ = with_boxes({t: [[20, 20, 42 - t / 4, 42 - t / 4]] for t in (0, 4, 8, 12, 16, 19)})
    assert sorted(map(int, shrinking["boxes"])) == list(range(20))


def test_a_face_of_which_it_was_sure_once_stays_hidden_while_it_is_less_sure():
    box = [20, 20, 50, 50]
    doubtful = {t: [[*box, 0.4]] for t in (0, 4, 8, 12, 16, 19)}
    assert with_boxes(doubtful)[0]["faces"] == 0
    sure_once, _ = with_boxes(doubtful | {12: [[*box, 0.8]]})
    assert sorted(map(int, sure_once["boxes"])) == list(range(20))


def test_large_frames_are_searched_small_and_it_says_so():
    evidence, _ = with_boxes({0: [[10, 10, 40, 40]]}, count=1, size=(128, 256), max_side=128, margin=0)
    assert evidence["boxes"] == {"0": [[20, 20, 80, 80]]}
    assert evidence["smallest_px"] == 40


def test_blocks_have_the_mean_colour_of_what_they_hide():
    frame = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    out = pixelate(frame, np.array([[10, 5, 40, 25]]), 5)
    region = frame[5:25, 10:40].reshape(5, 4, 5, 6, 3).astype(float).mean((1, 3))
    assert np.abs(out[5:25:4, 10:40:6].astype(float) - region).max() <= 0.5
    assert len(np.unique(out[5:25, 10:40].reshape(-1, 3), axis=0)) <= 25
    small = pixelate(frame, np.array([[0, 0, 3, 2]]), 5)
    assert (small == frame).all()  # not fewer pixels than blocks: nothing to hide


def test_boxes_are_cut_to_the_frame():
    boxes = np.array([[-5.5, 2.2, 10.1, 12.9], [60, 60, 70, 70], [3, -9, 8, -2]])
    assert whole(boxes, 50, 40).tolist() == [[0, 2, 11, 13]]


@pytest.mark.parametrize(
    "item",
    [
        None,
        VideoItem(frames=np.zeros((0, 8, 8, 3), np.uint8), fps=8),
        VideoItem(frames=np.zeros((2, 8, 8, 3)), fps=8),
        VideoItem(frames=np.zeros((2, 8, 8, 3), np.uint8), fps=0),
    ],
    ids=["nothing", "no frames", "floats", "no rate"],
)
def test_what_is_no_video_blocks_in_one_line(faces, item):
    _, verdict = faces.apply(item)
    assert verdict.status == "error"
    assert verdict.reason
    assert "\n" not in verdict.reason


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    (tmp_path / "mtcnn").mkdir()
    (tmp_path / "mtcnn" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="SHA-256"):
        FaceFilter(FacesConfig())
    with pytest.raises(CheckpointError, match="do not exist"):
        FaceFilter(FacesConfig(retinaface=tmp_path / "absent.pth"))
