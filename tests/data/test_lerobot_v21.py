"""LeRobot v2.1 and v2.0 folders, made here by the published layout: read as v3.0 is."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.data.lerobot import Feature, LeRobotDataset, LeRobotWriter, find_problems
from worldfoundry.data.lerobot.columns import to_numpy

FPS = 15
LENGTHS = (9, 20, 4)
TASKS = ("open the drawer", "close the drawer", "open the drawer")
CAMERA = "observation.images.top"
ORDER = {"open the drawer": 0, "close the drawer": 1}


def actions(index):
    return np.random.default_rng(index).normal(size=(LENGTHS[index], 2)).astype(np.float32)


def frames(index):
    levels = 20 + 50 * index + 3 * np.arange(LENGTHS[index])
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 48, 3)).astype(np.uint8)


def write_v21(folder, version="v2.1", video_fps=FPS):
    """What lerobot 0.1 to 0.3 left on disk; two episodes per chunk here, so that chunks are exercised."""
    chunk = "chunk-{episode_chunk:03d}"
    scalar = {"shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(LENGTHS),
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "total_videos": len(LENGTHS),
        "total_chunks": 2,
        "chunks_size": 2,
        "fps": FPS,
        "splits": {"train": f"0:{len(LENGTHS)}"},
        "data_path": f"data/{chunk}/episode_{{episode_index:06d}}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/episode_{{episode_index:06d}}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["pan", "lift"]}},
            CAMERA: {
                "dtype": "video",
                "shape": [3, 32, 48],
                "names": ["channel", "height", "width"],
                "video_info": {"video.fps": 15.0, "video.codec": "h264", "video.is_depth_map": False},
            },
            "timestamp": {"dtype": "float32", **scalar},
            **{key: {"dtype": "int64", **scalar} for key in ("frame_index", "episode_index", "index", "task_index")},
        },
    }
    write_json(folder / "meta/info.json", info)
    episodes, stats = [], []
    for index, length in enumerate(LENGTHS):
        action, k = actions(index), np.arange(length)
        table = {
            "action": pa.array(action.tolist(), pa.list_(pa.float32())),
            "timestamp": pa.array((k / FPS).astype(np.float32)),
            "frame_index": k,
            "episode_index": np.full(length, index),
            "index": k + sum(LENGTHS[:index]),
            "task_index": np.full(length, ORDER[TASKS[index]]),
        }
        name = f"chunk-{index // 2:03d}/episode_{index:06d}.parquet"
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), folder / "data" / name)
        video = folder / f"videos/chunk-{index // 2:03d}/{CAMERA}/episode_{index:06d}.mp4"
        write_video(video, frames(index), video_fps)
        episodes.append({"episode_index": index, "tasks": [TASKS[index]], "length": length})
        values = {name: getattr(action.astype(np.float64), name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
        stats.append({"episode_index": index, "stats": {"action": {**values, "count": [length]}}})
    write_lines(folder / "meta/episodes.jsonl", episodes)
    write_lines(folder / "meta/tasks.jsonl", [{"task_index": i, "task": task} for task, i in ORDER.items()])
    write_lines(folder / "meta/episodes_stats.jsonl", stats)
    return folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    return write_v21(tmp_path / "v21")


def test_episodes_and_windows(folder):
    dataset = LeRobotDataset(folder)
    assert (dataset.version, dataset.fps, dataset.robot_type, dataset.num_frames) == ("v2.1", FPS, "so100", 33)
    assert dataset.tasks == {0: "open the drawer", 1: "close the drawer"}
    for index, length in enumerate(LENGTHS):
        episode = dataset.episode(index)
        assert episode.columns["action"].tobytes() == actions(index).tobytes()
        assert episode.task == TASKS[index]
        assert episode.timestamps.tolist() == [k / FPS for k in range(length)]
        np.testing.assert_allclose(episode.videos[CAMERA].mean(axis=(1, 2, 3)), frames(index)[:, 0, 0, 0], atol=1.3)
        window = dataset.window(int(dataset.starts[index]) + 1, 3, ["top"])
        assert np.array_equal(window.videos[CAMERA], episode.videos[CAMERA][1:4])
    assert len(dataset.window_starts(5)) == (9 - 4) + (20 - 4)
    assert find_problems(dataset) == []


def test_the_same_episodes_read_alike_from_v3(folder, tmp_path):
    features = {"action": Feature(dtype="float32", shape=(2,))}
    with LeRobotWriter(tmp_path / "v3", FPS, features=features, cameras={"top": (32, 48)}) as writer:
        for index in range(3):
            writer.add_episode({"action": actions(index)}, {"top": frames(index)}, TASKS[index])
    old, new = LeRobotDataset(folder), LeRobotDataset(tmp_path / "v3")
    for index in range(3):
        one, two = old.episode(index), new.episode(index)
        assert list(one.columns) == list(two.columns)
        assert all(one.columns[key].tobytes() == two.columns[key].tobytes() for key in one.columns)
        assert (one.task, one.timestamps.tolist()) == (two.task, two.timestamps.tolist())
        assert np.abs(one.videos[CAMERA].astype(int) - two.videos[CAMERA]).max() <= 2
    np.testing.assert_allclose(old.stats["action"].std, new.stats["action"].std, rtol=1e-12)


def test_statistics_of_the_episodes_become_those_of_the_dataset(folder):
    dataset = LeRobotDataset(folder)
    whole = np.concatenate([actions(index) for index in range(3)]).astype(np.float64)
    for stats in (dataset.stats["action"], dataset.compute_stats()["action"]):
        np.testing.assert_allclose(stats.mean, whole.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(stats.std, whole.std(axis=0), rtol=1e-12)
        assert stats.names == ("action.pan", "action.lift")
        assert stats.count == 33
    (folder / "meta/episodes_stats.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no statistics. Compute them from the data: compute_stats\(\)"):
        _ = LeRobotDataset(folder).stats


def test_v20_keeps_its_statistics_in_one_file(tmp_path):
    folder = write_v21(tmp_path / "v20", version="v2.0")
    (folder / "meta/episodes_stats.jsonl").unlink()
    write_json(folder / "meta/stats.json", {"action": {"min": [0, 0], "max": [1, 0], "mean": [0.5, 0], "std": [0.1, 0]}})
    stats = LeRobotDataset(folder).stats["action"]
    assert stats.mean.tolist() == [0.5, 0]
    assert stats.constant == ("action.lift",)


def test_images_inside_the_data_files(folder, tmp_path):
    from PIL import Image

    shots = np.random.default_rng(0).integers(0, 255, (LENGTHS[1], 8, 10, 3), dtype=np.uint8)
    for i, shot in enumerate(shots):
        Image.fromarray(shot).save(tmp_path / f"{i}.png")
    rows = [{"bytes": (tmp_path / f"{i}.png").read_bytes(), "path": f"{i}.png"} for i in range(len(shots))]
    path = folder / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).append_column("observation.image", pa.array(rows)), path)
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.image"] = {"dtype": "image", "shape": [8, 10, 3], "names": ["height", "width", "channel"]}
    write_json(folder / "meta/info.json", info)
    dataset = LeRobotDataset(folder)
    assert dataset.camera_keys == (CAMERA, "observation.image")
    assert np.array_equal(dataset.window((1, 3), 4, ["observation.image"]).videos["observation.image"], shots[3:7])
    with pytest.raises(DataError, match=r"lacks the column 'observation.image'"):
        dataset.episode(0)


def test_missing_parts_are_named(folder):
    (folder / f"videos/chunk-001/{CAMERA}/episode_000002.mp4").unlink()
    dataset = LeRobotDataset(folder)
    assert len(dataset.episode(2, ()).columns["action"]) == 4
    with pytest.raises(DataError, match=r"The video of camera .* episode 2 .* is missing: .*episode_000002.mp4"):
        dataset.episode(2)
    assert [line for line in find_problems(dataset) if "episode_000002.mp4" in line]
    (folder / "data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(DataError, match=r"episode_000001.parquet' is missing"):
        LeRobotDataset(folder).episode(1)
    write_lines(folder / "meta/episodes.jsonl", [{"episode_index": 0, "tasks": [], "length": 9}])
    with pytest.raises(DataError, match=r"promises 3 episodes; meta/episodes.jsonl lacks episode 1"):
        LeRobotDataset(folder)
    (folder / "meta/episodes.jsonl").unlink()
    with pytest.raises(DataError, match=r"episodes.jsonl' is missing"):
        LeRobotDataset(folder)


@pytest.mark.parametrize("video_fps", [10, 14])
def test_videos_of_another_frame_rate(video_fps, tmp_path):
    dataset = LeRobotDataset(write_v21(tmp_path / "d", video_fps=video_fps))
    with pytest.raises(DataError, match="is shorter or of another frame rate"):
        dataset.episode(0)
    assert len(find_problems(dataset)) == 3


def test_it_is_read_not_added_to(folder):
    with pytest.raises(DataError, match=r"is a v2.1 dataset; only v3.0 can be added to"):
        LeRobotWriter.resume(folder)


def test_a_slice_of_list_columns_keeps_its_rows(folder):
    column = pq.read_table(folder / "data/chunk-000/episode_000001.parquet")["action"].slice(4, 3)
    assert np.array_equal(to_numpy(column, "action", Feature(dtype="float32", shape=(2,)), "x"), actions(1)[4:7])
