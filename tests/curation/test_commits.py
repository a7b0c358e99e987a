"""Commits: whole or absent, of one key, and every value comes back as it was stored."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.curation.commits import Commits
from worldfoundry.curation.plan import plan_image
from worldfoundry.curation.rows import Failure
from worldfoundry.curation.shots import Transition
from worldfoundry.curation.sidecars import Episode


def test_columns_come_back(tmp_path: Path) -> None:
    episode = Episode(times_s_N=np.arange(3.0), actions_NA=np.ones((3, 2), np.float32), states_NA=None, about={"$odd": [1]})
    columns = {
        "numbers": [1, 2.5, None, True, "x"],
        "array_T": np.arange(4, dtype=np.int16),
        "nested": {"plans": [plan_image("s")], "rate": Fraction(30000, 1001), "$key": {"a": np.float32(0.5)}},
        "transitions": (Transition(kind="cut", start=1, end=1, confidence=0.5),),
        "episode": episode,
    }
    written, commits = Commits(tmp_path).write("some", "k1", columns=columns, wall_s=1.5), Commits(tmp_path)
    read = commits.read("some", "k1")
    assert read is not None
    for commit in (written, read):
        assert commit["numbers"] == columns["numbers"]
        assert commit["array_T"].dtype == np.int16
        np.testing.assert_array_equal(commit["array_T"], np.arange(4))
        assert commit["nested"] == {"plans": [plan_image("s")], "rate": Fraction(30000, 1001), "$key": {"a": 0.5}}
        assert commit["transitions"] == list(columns["transitions"])
        assert commit["episode"].about == {"$odd": [1]}
        np.testing.assert_array_equal(commit["episode"].actions_NA, episode.actions_NA)
    assert read.event == {"stage": "some", "wall_s": 1.5, "cpu_s": 0.0, "decoded_frames": 0}
    with pytest.raises(DataError, match="returned set"):
        commits.write("bad", "k", columns={"x": {1, 2}})


def test_another_key_is_no_commit_and_its_files_go_when_it_is_replaced(tmp_path: Path) -> None:
    commits = Commits(tmp_path)
    commits.write("a", "old", columns={"x": np.zeros(2)})
    commits.write("ab", "other", columns={"x": np.zeros(2)})
    assert commits.read("a", "new") is None
    commits.write("a", "new", columns={"x": np.ones(2)})
    assert commits.read("a", "old") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-new.npz", "a.json", "ab-other.npz", "ab.json"]


def test_files_and_failures(tmp_path: Path) -> None:
    commits, staging = Commits(tmp_path / "s"), tmp_path / "s" / ".staging"
    staging.mkdir(parents=True)
    (staging / "clip.strip.webp").write_bytes(b"w")
    commits.write("encode", "k", columns={}, staging=staging)
    assert {name: path.name for name, path in commits.files("encode", "k").items()} == {"strip.webp": "encode-k.strip.webp"}
    assert not staging.exists()
    commits.write("encode", "k", failure=Failure(stage="encode", code="X", message="m", attempt=2))
    again = commits.read("encode", "k")
    assert again is not None
    assert again.failure == Failure(stage="encode", code="X", message="m", attempt=2)
    commits.forget("encode")
    assert commits.read("encode") is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_commits_that_are_held_hold_no_file_open(tmp_path: Path) -> None:
    """A run holds those of all its sources, and a process may open a thousand files."""
    written = Commits(tmp_path)
    written.write("some", "k1", columns={"array_T": np.arange(4)})
    held, before = [], len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        commit = written.read("some", "k1")
        assert commit is not None
        np.testing.assert_array_equal(commit["array_T"], np.arange(4))
        held.append(commit)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
