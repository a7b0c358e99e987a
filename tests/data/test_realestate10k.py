"""RealEstate10K text: what is written is read, number for number; a damaged line is named."""

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.data.realestate10k import make_track, read_realestate10k, write_realestate10k


@pytest.fixture
def track():
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, :3, :3] = np.linalg.qr(rng.normal(size=(5, 3, 3)))[0]
    poses[:, :3, 3] = rng.normal(size=(5, 3))
    lens = np.array([[70.0, 0, 32], [0, 72.0, 24], [0, 0, 1]])
    return make_track(np.arange(5) / 20, lens, poses, (48, 64), "somewhere"), poses, lens


def test_what_is_written_is_read_exactly(track, tmp_path):
    written, _, _ = track
    write_realestate10k(tmp_path / "a.txt", written)
    found = read_realestate10k(tmp_path / "a.txt")
    np.testing.assert_array_equal(found.times_us_T, written.times_us_T)
    np.testing.assert_array_equal(found.intrinsics_T4, written.intrinsics_T4)
    np.testing.assert_array_equal(found.world_to_camera_T34, written.world_to_camera_T34)
    assert found.source == "somewhere"


def test_poses_and_lens_come_back_in_pixels(track):
    written, poses, lens = track
    np.testing.assert_allclose(written.camera_to_world_T44, poses, atol=1e-12)
    np.testing.assert_allclose(written.pixel_intrinsics_T33(48, 64)[3], lens)
    np.testing.assert_allclose(written.pixel_intrinsics_T33(96, 128)[3, :2], 2 * lens[:2])


def test_a_line_is_time_lens_two_zeros_and_the_matrix(track, tmp_path):
    written, _, _ = track
    write_realestate10k(tmp_path / "a.txt", written)
    values = [float(value) for value in (tmp_path / "a.txt").read_text().splitlines()[2].split()]
    assert len(values) == 19
    assert values[0] == 50_000
    assert values[5:7] == [0, 0]
    np.testing.assert_array_equal(np.reshape(values[7:], (3, 4)), written.world_to_camera_T34[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url\n1 2 3\n", "line 2: 3 numbers"),
        ("url\n" + "x " * 19, "line 2: not numbers"),
        ("url\n", "no frames"),
        ("", "no frames"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_realestate10k(tmp_path / "bad.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt.*cannot be read"):
        read_realestate10k(tmp_path / "none.txt")
