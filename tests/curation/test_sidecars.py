"""Episode tables: nearest rows, and every way in which one can disagree."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldfoundry.curation.rows import SourceError
from worldfoundry.curation.sidecars import Episode, check_episode, read_caption, read_episode

TIMES = np.arange(10) / 5.0


def episode(times_s: np.ndarray) -> Episode:
    return Episode(times_s_N=times_s, actions_NA=np.arange(len(times_s))[:, None].astype(np.float32), states_NA=None)


def test_a_table_is_read_with_its_metadata(zoo: Any) -> None:
    state = [[float(i), 0.5] for i in range(10)]
    path = zoo.episode("v", TIMES, np.ones((10, 3)), {"action_names": ["a", "b", "c"], "caption": "a push"}, state=state)
    read = read_episode(path)
    assert read.actions_NA.shape == (10, 3)
    assert read.actions_NA.dtype == np.float32
    assert read.states_NA is not None
    assert read.states_NA.shape == (10, 2)
    assert read.about == {"action_names": ["a", "b", "c"], "caption": "a push"}
    assert read_episode(zoo.episode("plain", TIMES, np.ones((10, 1)))).about == {}


@given(
    rows=st.lists(st.integers(min_value=0, max_value=1000), min_size=1, max_size=30, unique=True),
    frames=st.lists(st.floats(min_value=0, max_value=10), min_size=1, max_size=20),
)
def test_rows_at_are_the_nearest(rows: list[int], frames: list[float]) -> None:
    times = np.sort(np.array(rows)) / 100
    found = episode(times).rows_at(np.array(frames))
    best = np.abs(times[None] - np.array(frames)[:, None]).min(axis=1)
    np.testing.assert_allclose(np.abs(times[found] - frames), best, atol=1e-12)


def code_of(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_episode(path)
    assert path.name in caught.value.message
    return caught.value.code


def test_bad_tables_have_their_own_codes(zoo: Any) -> None:
    good = np.ones((10, 2))
    assert code_of(zoo.text("t.episode.parquet")) == "SIDECAR_UNREADABLE"
    pq.write_table(pa.table({"timestamp": TIMES}), zoo.folder / "c.episode.parquet")
    assert code_of(zoo.folder / "c.episode.parquet") == "SIDECAR_COLUMNS"
    assert code_of(zoo.episode("ragged", TIMES, [[1.0]] * 9 + [[1.0, 2.0]])) == "SIDECAR_COLUMNS"
    assert code_of(zoo.episode("words", TIMES, [["x"]] * 10)) == "SIDECAR_COLUMNS"
    assert code_of(zoo.episode("nan", TIMES, np.where(np.arange(20).reshape(10, 2) == 7, np.nan, good))) == "SIDECAR_NOT_FINITE"
    assert code_of(zoo.episode("null", TIMES, [[1.0]] * 9 + [[None]])) == "SIDECAR_NOT_FINITE"
    assert code_of(zoo.episode("late", np.where(TIMES == 1.0, np.inf, TIMES), good)) == "SIDECAR_NOT_FINITE"
    assert code_of(zoo.episode("back", TIMES[::-1].copy(), good)) == "SIDECAR_TIMES"
    assert code_of(zoo.episode("none", TIMES[:0], good[:0])) == "SIDECAR_SHORT"


def test_a_table_must_fit_its_video() -> None:
    check_episode(episode(TIMES), TIMES, 5.0)
    check_episode(episode(np.arange(12) / 5.0), TIMES, 5.0)  # a last state after the last frame is common
    with pytest.raises(SourceError, match="9 rows, fewer than the video's 10 frames") as caught:
        check_episode(episode(TIMES[:9]), TIMES, 5.0)
    assert caught.value.code == "SIDECAR_SHORT"
    with pytest.raises(SourceError, match=r"Frame 9 is at 1\.800 s") as caught:
        check_episode(episode(TIMES / 2), TIMES, 5.0)
    assert caught.value.code == "SIDECAR_TIMES"


def test_captions_become_one_line(zoo: Any) -> None:
    assert read_caption(zoo.text("c.txt", "  a robot\n\tpushes ")) == "a robot pushes"
    (zoo.folder / "latin.txt").write_bytes(b"caf\xe9")
    assert read_caption(zoo.folder / "latin.txt").startswith("caf")
