"""Faces followed through time: closed forms for boxes between, before and after sightings; who is who; when a track ends."""

import numpy as np

from worldfoundry.guardrails.face_tracks import boxes_per_frame, follow

HERE = np.array([10.0, 10, 30, 30, 1])


def moved(dx, dy=0.0):
    return HERE + np.array([dx, dy, dx, dy, 0])


def test_boxes_between_two_sightings_are_interpolated_and_hold_their_neighbours():
    (track,) = follow({0: HERE[None], 4: moved(8)[None]}, max_gap=8)
    boxes = boxes_per_frame([track], 5, reach=0, margin=0)
    np.testing.assert_allclose(boxes[2], [[12, 10, 36, 30]])  # where it is in frames 1, 2, 3: 12-32, 14-34, 16-36
    assert [len(found) for found in boxes] == [1] * 5


def test_a_face_stays_hidden_for_reach_frames_beyond_its_sightings():
    (track,) = follow({10: HERE[None], 14: moved(4)[None]}, max_gap=8)
    boxes = boxes_per_frame([track], 30, reach=3, margin=0)
    assert [t for t, found in enumerate(boxes) if len(found)] == list(range(7, 18))
    left, _, right, _ = boxes[17][0]
    assert left <= 14 < 34 <= right - 2  # where it was seen last, and where its velocity takes it


def test_a_margin_is_a_share_of_the_box():
    (track,) = follow({0: HERE[None]}, max_gap=8)
    np.testing.assert_allclose(boxes_per_frame([track], 1, 0, 0.1)[0], [[8, 8, 32, 32]])


def test_faces_that_move_past_each_other_keep_their_tracks():
    """Constant velocity tells two crossing faces apart, of which each is nearer to the other's last place."""
    seen = {t: np.stack([moved(7 * t), moved(60 - 7 * t, 12)]) for t in range(9)}
    tracks = follow(seen, max_gap=4)
    assert len(tracks) == 2
    for track in tracks:
        steps = np.diff([box[0] for box in track.boxes])
        assert len(track.frames) == 9
        assert abs(steps).tolist() == [7.0] * 8
        assert len(set(np.sign(steps))) == 1


def test_a_face_not_seen_for_long_is_another():
    seen = {t: np.zeros((0, 5)) for t in range(30)} | {0: HERE[None], 5: HERE[None], 25: HERE[None]}
    tracks = follow(seen, max_gap=12)
    assert [track.frames for track in tracks] == [[0, 5], [25]]
    assert [len(found) for found in boxes_per_frame(tracks, 30, reach=2, margin=0)] == [1] * 8 + [0] * 15 + [1] * 5 + [0] * 2


def test_nothing_seen_hides_nothing():
    assert follow({0: np.zeros((0, 5)), 4: np.zeros((0, 5))}, max_gap=4) == []
    assert [found.shape for found in boxes_per_frame([], 2, 4, 0.1)] == [(0, 4), (0, 4)]
