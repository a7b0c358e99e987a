"""The sample footage: whole, small, and what its own description says."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.core.video_io import probe_video, read_video
from worldfoundry.data.sample import sample_footage

FOLDER = sample_footage()
EPISODES = sorted(FOLDER.glob("episode_*.mp4"))


def table(video):
    return pq.read_table(video.with_name(video.stem + ".episode.parquet"))


def test_every_episode_has_its_table_and_the_reverse():
    assert len(EPISODES) == json.loads((FOLDER / "dataset.json").read_text())["options"]["episodes"]
    assert {path.stem for path in EPISODES} == {path.name.removesuffix(".episode.parquet") for path in FOLDER.glob("*.parquet")}


def test_rows_equal_frames():
    for video in EPISODES:
        assert probe_video(video).num_frames == table(video).num_rows


@pytest.mark.parametrize("index", [0, 57, len(EPISODES) - 1])
def test_frames_decode_at_the_times_of_the_table(index):
    clip, rows = read_video(EPISODES[index]), table(EPISODES[index])
    np.testing.assert_allclose(clip.times_s, rows.column("timestamp").to_numpy(), atol=1e-4)
    assert clip.frames.shape == (rows.num_rows, 64, 64, 3)
    assert {len(action) for action in rows.column("action").to_pylist()} == {2}
    assert b"worldfoundry" in rows.schema.metadata


def test_the_rod_in_the_picture_is_where_the_table_says():
    errors, spread = [], []
    for video in EPISODES[::12]:
        frames, states = read_video(video).frames[::10].astype(int), np.array(table(video).column("state").to_pylist())[::10]
        magenta = np.clip(np.minimum(frames[..., 0], frames[..., 2]) - frames[..., 1] - 60, 0, None)
        column = (magenta.sum(1) * np.arange(64)).sum(1) / magenta.sum((1, 2))
        errors += list(column - 31.5 - 23.8 * states[:, 0])  # 23.8 px per metre at the middle of the table
        spread += list(column)
    assert np.std(spread) > 8
    assert np.abs(errors).max() < 4.5


def test_the_real_clip_is_real_and_has_one_cut():
    clip = read_video(FOLDER / "city.mp4")
    assert clip.frames.shape == (190, 180, 320, 3)
    change = np.abs(np.diff(clip.frames[:, ::4, ::4].astype(int), axis=0)).mean((1, 2, 3))
    assert (change > 5 * np.median(change)).sum() == 1


def test_it_is_small_and_its_licence_lies_beside_it():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6_000_000
    text = (FOLDER / "LICENSE.md").read_text()
    assert "CC0" in text
    assert json.loads((FOLDER / "dataset.json").read_text())["command"].split("--out OUT ")[1] in text.replace("  ", " ")


@pytest.mark.sim
def test_the_documented_command_makes_these_episodes():
    pusher = pytest.importorskip("worldfoundry.simulation.pusher")
    try:
        with pusher.open_pusher_world(64) as world:
            episode = pusher.run_episode(world, 160, (0, 7))
    except UsageError as error:
        pytest.skip(str(error))
    rows = table(FOLDER / "episode_000007.mp4")
    # Contacts amplify what another build of MuJoCo rounds differently, so only the first second is held to be equal.
    np.testing.assert_allclose(np.array(rows.column("state").to_pylist())[:12], episode.states[:12], atol=1e-4)
    difference = read_video(FOLDER / "episode_000007.mp4").frames[:12].astype(int) - episode.frames[:12]
    assert np.abs(difference).mean() < 6
