"""Actions come from arrays of real numbers and from nothing else."""

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.data.episodes import read_actions


def test_any_real_numbers_become_float32(tmp_path):
    for dtype in (np.int8, np.float16, np.float64, bool):
        np.save(tmp_path / "a.npy", np.eye(3, dtype=dtype))
        actions = read_actions(tmp_path / "a.npy")
        assert actions.dtype == np.float32
        assert np.array_equal(actions, np.eye(3))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(4), "finite numbers"),
        (np.zeros((0, 2)), "finite numbers"),
        (np.full((4, 2), np.inf), "finite numbers"),
        (np.zeros((4, 2), complex), "complex128"),
        (np.array([["a"]]), "real numbers"),
        (np.array([{}], object), "not a readable"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        read_actions(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"", b"not an array"])
def test_other_files_are_refused_without_advice_to_unpickle_them(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError) as error:
        read_actions(tmp_path / "a.npy")
    assert "pickle" not in str(error.value)
    np.savez(tmp_path / "b.npz", a=np.eye(2))
    with pytest.raises(DataError, match="archive"):
        read_actions(tmp_path / "b.npz")
