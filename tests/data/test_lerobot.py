"""A LeRobot v3.0 folder written and read: bit-exact columns, frames by time, kills at every point."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.data.lerobot import Feature, LeRobotDataset, LeRobotWriter, find_problems, pack

FPS = 10
LENGTHS = (17, 1, 30, 13)
TASKS = ("lift the cube", "push", "lift the cube", "открой ящик")
FEATURES = {
    "action": Feature(dtype="float32", shape=(3,), names=["x", "y", "grip"]),
    "observation.state": Feature(dtype="float64", shape=(2, 2)),
    "next.reward": Feature(dtype="float32", shape=(1,)),
    "next.done": Feature(dtype="bool", shape=(1,)),
    "contacts": Feature(dtype="int64", shape=(2,)),
    "note": Feature(dtype="string", shape=(1,)),
}
CAMERAS = {"front": (48, 64), "wrist": (32, 32)}
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def columns(index, length=None):
    length, rng = length or LENGTHS[index], np.random.default_rng(index)
    action = rng.normal(size=(length, 3)).astype(np.float32)
    action[:, 2] = 0.25
    return {
        "action": action,
        "observation.state": rng.normal(size=(length, 2, 2)),
        "next.reward": rng.random(length).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
        "contacts": rng.integers(-(2**62), 2**62, (length, 2)),
        "note": np.array([f"é{k}" if k else "" for k in range(length)]),
    }


def videos(index, length=None):
    """Grey levels that count frames (16 … 240 in steps of 7) and name the episode and camera at the top left."""
    made = {}
    for camera, (name, (height, width)) in enumerate(CAMERAS.items()):
        frames = np.empty((length or LENGTHS[index], height, width, 3), np.uint8)
        frames[:] = (16 + 7 * np.arange(len(frames)))[:, None, None, None]
        frames[:, :16, :16] = 20 + 40 * index + 20 * camera
        made[name] = frames
    return made


def check_videos(episode, index, start=0):
    for camera, key in enumerate((FRONT, WRIST)):
        frames = episode.videos[key].astype(float)
        numbers = (frames[:, 18:, 18:].mean(axis=(1, 2, 3)) - 16) / 7
        np.testing.assert_allclose(numbers, start + np.arange(len(episode)), atol=0.2)
        np.testing.assert_allclose(frames[:, 2:14, 2:14].mean(axis=(1, 2, 3)), 20 + 40 * index + 20 * camera, atol=3)


def new_writer(folder, **options):
    return LeRobotWriter(folder, FPS, "arm", features=FEATURES, cameras=CAMERAS, **options)


def fill(writer, indices=(0, 1, 2, 3)):
    for index in indices:
        writer.add_episode(columns(index), videos(index), TASKS[index])


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """All episodes waiting, not finalised (x264 does not give the same bytes twice for so small pictures)."""
    folder = tmp_path_factory.mktemp("lerobot") / "staged"
    fill(new_writer(folder))
    return folder


@pytest.fixture(scope="module")
def folder(staged):
    folder = shutil.copytree(staged, staged.parent / "run=3")  # "=" is special to readers of partitioned tables
    LeRobotWriter.resume(folder).finalize()
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- round trip ----------------------------------------------------------------------------------------------------


def test_columns_come_back_bit_for_bit_and_frames_in_their_place(folder):
    dataset = LeRobotDataset(folder)
    assert (dataset.version, dataset.fps, dataset.robot_type) == ("v3.0", FPS, "arm")
    assert (dataset.num_episodes, dataset.num_frames, dataset.camera_keys) == (4, sum(LENGTHS), (FRONT, WRIST))
    for index, length in enumerate(LENGTHS):
        episode = dataset.episode(index)
        for key, values in columns(index).items():
            assert episode.columns[key].tolist() == values.tolist()
            assert episode.columns[key].dtype == (object if key == "note" else values.dtype)
        assert episode.task == TASKS[index]
        assert episode.timestamps.tolist() == [k / FPS for k in range(length)]
        assert np.array_equal(episode.columns["timestamp"], (np.arange(length) / FPS).astype(np.float32))
        assert np.array_equal(episode.columns["index"], sum(LENGTHS[:index]) + np.arange(length))
        check_videos(episode, index)
    assert find_problems(dataset) == []


def test_every_window_is_a_slice_of_its_episode(folder):
    dataset = LeRobotDataset(folder)
    whole = [dataset.episode(index) for index in range(4)]
    for start in dataset.window_starts(5):
        window = dataset.window(start, 5)
        episode, first = dataset.locate(start)
        assert (window.episode_index, window.start) == (episode, first)
        for key in (FRONT, WRIST):
            assert np.array_equal(window.videos[key], whole[episode].videos[key][first : first + 5])
        assert np.array_equal(window.columns["action"], whole[episode].columns["action"][first : first + 5])
        assert np.array_equal(window.timestamps, whole[episode].timestamps[first : first + 5])
    assert np.array_equal(dataset.window((2, 7), 9, ("wrist",)).videos[WRIST], whole[2].videos[WRIST][7:16])


def test_window_starts_are_all_that_fit(folder):
    dataset = LeRobotDataset(folder)
    assert len(dataset.window_starts(13)) == sum(max(0, length - 12) for length in LENGTHS)
    assert dataset.window_starts(13, stride=4).tolist() == [0, 4, 18, 22, 26, 30, 34, 48]
    with pytest.raises(DataError, match=r"No episode .* has 31 frames; the longest has 30"):
        dataset.window_starts(31)


def test_any_subset_of_cameras(folder):
    dataset = LeRobotDataset(folder)
    assert set(dataset.episode(0, ()).videos) == set()
    assert set(dataset.episode(0, ["wrist"]).videos) == {WRIST}
    assert set(dataset.episode(0, [FRONT]).videos) == {FRONT}
    with pytest.raises(DataError, match=r"no camera 'frnt'. Did you mean"):
        dataset.episode(0, ["frnt"])


def test_stored_statistics_are_those_of_the_data(folder):
    dataset = LeRobotDataset(folder)
    actions = np.concatenate([columns(index)["action"] for index in range(4)]).astype(np.float64)
    stored, computed = dataset.stats, dataset.compute_stats()
    assert np.array_equal(stored["action"].mean, actions.mean(axis=0))
    assert np.array_equal(stored["action"].quantiles["q99"], np.quantile(actions, 0.99, axis=0))
    assert stored["action"].constant == ("action.grip",)
    assert stored["action"].count == sum(LENGTHS)
    assert set(stored) - set(computed) == {FRONT, WRIST}
    assert all(np.array_equal(stored[key].std, computed[key].std) for key in computed)
    pixels = np.concatenate([videos(index)["front"].reshape(-1, 3) for index in range(4)]) / 255
    np.testing.assert_allclose(stored[FRONT].mean.ravel(), pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(stored[FRONT].std.ravel(), pixels.std(axis=0), rtol=1e-9)


def test_the_dataset_goes_to_other_processes(folder):
    dataset = LeRobotDataset(folder)
    expected = dataset.window(3, 4).columns["action"]
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).window(3, 4).columns["action"], expected)


def test_what_is_handed_out_may_be_changed(folder):
    dataset = LeRobotDataset(folder)
    window = dataset.window(3, 4)
    window.columns["action"][:] = 0
    window.videos[FRONT][:] = 0
    assert dataset.window(3, 4).columns["action"].any()


# --- the published layout ------------------------------------------------------------------------------------------


def test_info_json_has_the_published_fields(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "arm",
        "total_episodes": 4,
        "total_frames": 61,
        "total_tasks": 3,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 10,
        "splits": {"train": "0:4"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert list(features) == [*FEATURES, FRONT, WRIST, "timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert features["action"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "grip"]}
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    with av.open(str(folder / f"videos/{FRONT}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        said = features[FRONT]["info"]
        assert (said["video.height"], said["video.width"]) == (stream.height, stream.width)
        assert (said["video.codec"], said["video.pix_fmt"]) == (stream.codec.canonical_name, stream.pix_fmt)
        assert said["video.fps"] == stream.average_rate
        assert not container.streams.audio
    assert features[FRONT]["shape"] == [48, 64, 3]
    assert features[FRONT]["names"] == ["height", "width", "channels"]


def test_parquet_files_have_the_published_columns(folder):
    data = pq.read_schema(folder / "data/chunk-000/file-000.parquet")
    assert data.field("action").type == pa.list_(pa.float32(), 3)
    assert data.field("next.done").type == pa.bool_()
    assert data.field("timestamp").type == pa.float32()
    assert {data.field(key).type for key in ("frame_index", "episode_index", "index", "task_index")} == {pa.int64()}
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    row = rows[2]
    assert (row["episode_index"], row["tasks"], row["length"]) == (2, ["lift the cube"], 30)
    assert (row["dataset_from_index"], row["dataset_to_index"]) == (18, 48)
    places = ("data/", "meta/episodes/", f"videos/{FRONT}/", f"videos/{WRIST}/")
    assert [row[f"{place}{name}_index"] for place in places for name in ("chunk", "file")] == [0] * 8
    assert (row[f"videos/{FRONT}/from_timestamp"], row[f"videos/{FRONT}/to_timestamp"]) == (1.8, 4.8)
    for key in (*FEATURES, "timestamp", "index"):
        names = () if key == "note" else ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
        assert [name for name in row if name.startswith(f"stats/{key}/")] == [
            f"stats/{key}/{n}" for n in (*names[:4], *names[5:], *names[4:5])
        ]
    assert np.shape(row[f"stats/{FRONT}/mean"]) == (3, 1, 1)
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert dict(zip(tasks["task"].to_pylist(), tasks["task_index"].to_pylist(), strict=True)) == {
        "lift the cube": 0,
        "push": 1,
        "открой ящик": 2,
    }
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_files_stay_below_their_limits_and_fill_folders_in_order(tmp_path):
    rng = np.random.default_rng(0)
    features = {"noise": Feature(dtype="float64", shape=(2000,))}
    limits = {"chunks_size": 2, "data_files_size_in_mb": 1, "video_files_size_in_mb": 1}
    noise = [rng.normal(size=(22, 2000)) for _ in range(6)]
    frames = rng.integers(0, 255, (22, 192, 192, 3), dtype=np.uint8)
    with LeRobotWriter(tmp_path / "d", 30, features=features, cameras={"c": (192, 192)}, **limits) as writer:
        for values in noise:
            writer.add_episode({"noise": values}, {"c": frames}, "t")
    files = {path: path.stat().st_size for path in sorted((tmp_path / "d").rglob("file-*"))}
    for kind in ("data", "meta/episodes", "videos/observation.images.c"):
        places = [str(path.relative_to(tmp_path / "d" / kind).with_suffix("")) for path in files if kind in str(path)]
        assert len(places) >= 3
        assert places == [f"chunk-{i // 2:03d}/file-{i % 2:03d}" for i in range(len(places))]
    assert max(files.values()) < 1.02 * 2**20
    dataset = LeRobotDataset(tmp_path / "d")
    assert all(np.array_equal(dataset.episode(i, ()).columns["noise"], noise[i]) for i in range(6))
    assert find_problems(dataset) == []


# --- interruption --------------------------------------------------------------------------------------------------

STEPS = ("_pack_data", "_pack_videos", "_write_episodes", "_write_tasks", "_write_info", "rmtree")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_finalize_that_dies_anywhere_is_repeated_to_the_same_bytes(step, after, staged, folder, tmp_path, monkeypatch):
    shutil.copytree(staged, tmp_path / "d")
    where = pack.shutil if step == "rmtree" else pack
    original = getattr(where, step)

    def dies(*args, **kwargs):
        if after:
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, step, dies)
        with pytest.raises(KeyboardInterrupt):
            LeRobotWriter.resume(tmp_path / "d").finalize()
    LeRobotWriter.resume(tmp_path / "d").finalize()
    assert contents(tmp_path / "d") == contents(folder)


def test_a_killed_writer_loses_at_most_the_unfinished_episode(folder, tmp_path):
    script = (
        "import sys, time, numpy as np\n"
        "from worldfoundry.data.lerobot import *\n"
        "features = {'action': Feature(dtype='float32', shape=(1,))}\n"
        "writer = LeRobotWriter(sys.argv[1], 10, features=features, cameras={'c': (128, 128)})\n"
        "for i in range(1000):\n"
        "    writer.add_episode({'action': np.full(20, i, np.float32)}, {'c': np.full((20, 128, 128, 3), i % 250, np.uint8)}, 't')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "d")])
    while not (tmp_path / "d/unfinished/episode_000003").exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(DataError, match=r"never finalised. Run LeRobotWriter.resume"):
        LeRobotDataset(tmp_path / "d")
    writer = LeRobotWriter.resume(tmp_path / "d")
    count = len(writer.done)
    assert count >= 4
    writer.add_episode({"action": np.full(20, count, np.float32)}, {"c": np.zeros((20, 128, 128, 3), np.uint8)}, "t")
    writer.finalize()
    dataset = LeRobotDataset(tmp_path / "d")
    assert [dataset.episode(i, ()).columns["action"][0] for i in range(dataset.num_episodes)] == list(range(count + 1))
    assert find_problems(dataset) == []
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"data", "meta", "videos"}


def test_an_exception_inside_with_keeps_the_episodes_for_later(tmp_path):
    def interrupted():
        with new_writer(tmp_path / "d") as writer:
            fill(writer, [0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert LeRobotWriter.resume(tmp_path / "d").done == {0}


def test_episodes_added_later_lie_in_new_files_and_the_old_ones_stay(folder, tmp_path):
    with new_writer(tmp_path / "d") as writer:
        fill(writer, range(2))
    before = contents(tmp_path / "d")
    with new_writer(tmp_path / "d", resume=True) as writer:
        assert writer.done == {0, 1}
        fill(writer, range(2, 4))
    after = contents(tmp_path / "d")
    assert all(
        after[name] == content for name, content in before.items() if name.startswith(("data", "videos", "meta/episodes"))
    )
    one, two = LeRobotDataset(folder), LeRobotDataset(tmp_path / "d")
    for index in range(4):
        ours, theirs = two.episode(index), one.episode(index)
        assert all(ours.columns[key].tolist() == theirs.columns[key].tolist() for key in theirs.columns)
        check_videos(ours, index)
    for key in one.stats:
        np.testing.assert_allclose(two.stats[key].mean, one.stats[key].mean, rtol=1e-12)
        np.testing.assert_allclose(two.stats[key].std, one.stats[key].std, rtol=1e-9)
    assert find_problems(two) == []


def test_several_writers_may_add_in_any_order(folder, tmp_path):
    new_writer(tmp_path / "d")
    for index in (3, 0, 2):
        LeRobotWriter.resume(tmp_path / "d").add_episode(columns(index), videos(index), TASKS[index], episode_index=index)
    with pytest.raises(DataError, match=r"lacks episode\(s\) 1"):
        LeRobotWriter.resume(tmp_path / "d").finalize()
    writer = LeRobotWriter.resume(tmp_path / "d")
    assert writer.add_episode(columns(1), videos(1), TASKS[1]) == 1  # the lowest that is free
    writer.finalize()
    ours, theirs = contents(tmp_path / "d"), contents(folder)
    assert all(ours[name] == theirs[name] for name in theirs if not name.endswith(".mp4"))
    for index in range(4):
        check_videos(LeRobotDataset(tmp_path / "d").episode(index), index)
