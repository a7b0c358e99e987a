"""A LeRobot v3.0 folder written and read: bit-exact columns, frames by time, kills at every point, every refusal."""

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
from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video
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


@pytest.fixture
def copy(folder, tmp_path):
    """A dataset to damage."""
    return shutil.copytree(folder, tmp_path / "copy")


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


# --- refusals ------------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_refused_unless_resumed_with_the_same_schema(copy, tmp_path):
    with pytest.raises(DataError, match=r"already holds a dataset. Pass resume=True"):
        new_writer(copy)
    with pytest.raises(DataError, match=r"fps is 10, not 12; features differ in 'observation.images.front'"):
        LeRobotWriter(copy, 12, "arm", features=FEATURES, cameras=CAMERAS, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("text")
    with pytest.raises(DataError, match="exists and is no LeRobot dataset"):
        new_writer(tmp_path / "other", resume=True)
    with pytest.raises(DataError, match="no dataset to go on with"):
        LeRobotWriter.resume(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("features", "cameras", "says"),
    [
        ({}, {}, "at least one feature"),
        ({"index": Feature(dtype="int64", shape=(1,))}, {}, "cannot be called 'index'"),
        ({"a/b": Feature(dtype="int64", shape=(1,))}, {}, "cannot be called 'a/b'"),
        ({"a": Feature(dtype="video", shape=(2, 2, 3))}, {}, "has dtype 'video'"),
        ({"a": Feature(dtype="float32", shape=())}, {}, r"cannot have shape \(\)"),
        ({}, {"c": (31, 32)}, "31x32; H.264 needs even sizes"),
    ],
)
def test_impossible_schemas_are_refused(features, cameras, says, tmp_path):
    with pytest.raises(DataError, match=says):
        LeRobotWriter(tmp_path / "d", 10, features=features, cameras=cameras)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c, v: c.pop("action"), r"lacks the column\(s\) action"),
        (lambda c, v: v.pop("wrist"), r"lacks the camera\(s\) observation.images.wrist"),
        (lambda c, v: c.update(acton=c["action"]), "no column 'acton'. Did you mean 'action'"),
        (lambda c, v: c.update(action=c["action"][:-1]), "differ in length: action 16"),
        (lambda c, v: v.update(wrist=v["wrist"] / 255), r"is float64 \[17, 32, 32, 3\], not uint8"),
        (lambda c, v: v.update(wrist=v["front"]), r"is uint8 \[17, 48, 64, 3\], not uint8 \[17, 32, 32, 3\]"),
    ],
)
def test_episodes_that_do_not_fit_the_schema_are_refused(change, says, tmp_path):
    writer = new_writer(tmp_path / "d")
    c, v = columns(0), videos(0)
    change(c, v)
    with pytest.raises(DataError, match=says):
        writer.add_episode(c, v, "t")
    assert writer.done == frozenset()


def test_an_episode_needs_a_task_and_a_free_index_and_a_dataset_an_episode(tmp_path):
    writer = new_writer(tmp_path / "d")
    with pytest.raises(DataError, match="needs a task"):
        writer.add_episode(columns(0), videos(0), " ")
    with pytest.raises(DataError, match="has no episodes"):
        writer.finalize()
    fill(writer, [0])
    with pytest.raises(DataError, match="Episode 0 cannot be added"):
        writer.add_episode(columns(0), videos(0), "t", episode_index=0)


def test_folders_that_are_no_dataset(tmp_path, copy):
    with pytest.raises(DataError, match="does not exist"):
        LeRobotDataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is not a LeRobot dataset: it has no meta/info.json"):
        LeRobotDataset(tmp_path)
    change_info(copy, codebase_version="v4.1")
    with pytest.raises(DataError, match=r"codebase_version 'v4.1'; this reads v2.0, v2.1, v3.0"):
        LeRobotDataset(copy)
    (copy / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        LeRobotDataset(copy)


def change_info(folder, **changes):
    info = json.loads((folder / "meta/info.json").read_text())
    write_json(folder / "meta/info.json", {**info, **changes})


def test_indices_out_of_range(folder):
    dataset = LeRobotDataset(folder)
    for read in (lambda: dataset.episode(4), lambda: dataset.episode(-1), lambda: dataset.window((4, 0), 1)):
        with pytest.raises(DataError, match=r"Episode -?\d is out of range: .* has 4 episodes"):
            read()
    with pytest.raises(DataError, match="Frame 61 is out of range"):
        dataset.window(61, 1)
    with pytest.raises(DataError, match=r"Episode 0 has 17 frames: no window of 3 begins at its frame 15. Take an index from"):
        dataset.window(15, 3)


def test_require_says_what_a_training_would_miss(folder):
    dataset = LeRobotDataset(folder)
    dataset.require(columns=["action"], cameras=["front"], fps=10.0, num_frames=30)
    for wants, says in (
        ({"columns": ["actions"]}, "no column 'actions'. Did you mean 'action'"),
        ({"columns": [FRONT]}, "it is of dtype 'video'"),
        ({"cameras": ["left"]}, "no camera 'left'"),
        ({"fps": 30}, "has 10 frames per second, not 30"),
        ({"num_frames": 31}, "has 31 frames; the longest has 30"),
    ):
        with pytest.raises(DataError, match=says):
            dataset.require(**wants)


def test_a_wrong_frame_rate_is_noticed(copy):
    change_info(copy, fps=5)
    with pytest.raises(DataError, match=r"do not fit its 5 frames per second \(they look like 10 fps\)"):
        LeRobotDataset(copy).episode(0, ())


def test_a_feature_without_its_column(copy):
    info = json.loads((copy / "meta/info.json").read_text())
    change_info(copy, features={**info["features"], "force": {"dtype": "float32", "shape": [1], "names": None}})
    with pytest.raises(DataError, match=r"lacks the column 'force' that info.json lists; it has action,"):
        LeRobotDataset(copy).episode(0, ())
    change_info(copy, features={**info["features"], "speech": {"dtype": "language", "shape": [1], "names": None}})
    assert "speech" not in LeRobotDataset(copy).episode(0, ()).columns


def test_missing_and_damaged_files(copy):
    video = copy / f"videos/{WRIST}/chunk-000/file-000.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    dataset = LeRobotDataset(copy)
    with pytest.raises(DataError, match=r"camera 'observation.images.wrist', episode 2"):
        dataset.episode(2)
    video.unlink()
    with pytest.raises(DataError, match=r"The video of camera 'observation.images.wrist', episode 0 of .* is missing"):
        dataset.episode(0)
    check_front = dataset.episode(0, ["front"])  # the other camera is whole
    assert set(check_front.videos) == {FRONT}
    assert len(find_problems(dataset)) == 4
    assert find_problems(dataset, ["front"]) == []
    (copy / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        LeRobotDataset(copy).episode(0, ())
    (copy / "data/chunk-000/file-000.parquet").unlink()
    with pytest.raises(DataError, match=r"file-000.parquet' is missing"):
        LeRobotDataset(copy).episode(0, ())


def test_a_video_that_ends_before_its_episode(copy):
    frames = np.zeros((40, 32, 32, 3), np.uint8)
    write_video(copy / f"videos/{WRIST}/chunk-000/file-000.mp4", frames, FPS)
    dataset = LeRobotDataset(copy)
    assert len(dataset.episode(1).videos[WRIST]) == 1
    with pytest.raises(DataError, match=r"episode 2 of .* has no frame at 4.000 s \(frame 22 of the episode at 10 fps\)"):
        dataset.episode(2)
    assert [("episode 2" in line, "episode 3" in line) for line in find_problems(dataset)] == [(True, False), (False, True)]


def test_an_index_that_disagrees_with_itself(copy):
    path = copy / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["data/file_index"]), path)
    with pytest.raises(DataError, match=r"lacks the column\(s\) data/file_index"):
        LeRobotDataset(copy)
    ends = table.schema.get_field_index(f"videos/{FRONT}/to_timestamp")
    pq.write_table(table.set_column(ends, f"videos/{FRONT}/to_timestamp", pa.array([1.0, 1.8, 4.8, 6.1])), path)
    with pytest.raises(DataError, match=r"lasts 1.000 s; 17 frames need 1.700 s"):
        LeRobotDataset(copy).episode(0)
    pq.write_table(table.slice(0, 3), path)
    with pytest.raises(DataError, match="promises 4 episodes, meta/episodes lists 3"):
        LeRobotDataset(copy)
    pq.write_table(table, path)
    change_info(copy, total_frames=60)
    with pytest.raises(DataError, match="promises 60 frames, its episodes have 61"):
        LeRobotDataset(copy)
    change_info(copy, total_frames=61)
    rows = pq.read_table(copy / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.concat_tables([rows.slice(1), rows.slice(0, 1)]), copy / "data/chunk-000/file-000.parquet")
    with pytest.raises(DataError, match="are not where the index says"):
        LeRobotDataset(copy).episode(0, ())
