"""Every way in which a LeRobot folder, an episode or a request can be wrong ends in one clear line."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import write_json
from worldfoundry.core.video_io import write_video
from worldfoundry.data.lerobot import Feature, LeRobotDataset, LeRobotWriter, find_problems

FPS = 10
LENGTHS = (17, 1, 30, 13)
FEATURES = {"action": Feature(dtype="float32", shape=(3,))}
CAMERAS = {"front": (48, 64), "wrist": (32, 32)}
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


def columns(index):
    return {"action": np.full((LENGTHS[index], 3), index, np.float32)}


def videos(index):
    return {name: np.full((LENGTHS[index], height, width, 3), 90, np.uint8) for name, (height, width) in CAMERAS.items()}


def new_writer(folder, **options):
    return LeRobotWriter(folder, FPS, "arm", features=FEATURES, cameras=CAMERAS, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with new_writer(tmp_path_factory.mktemp("lerobot") / "d") as writer:
        for index in range(4):
            writer.add_episode(columns(index), videos(index), "push")
    return writer.folder


@pytest.fixture
def copy(folder, tmp_path):
    """A dataset to damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def change_info(folder, **changes):
    info = json.loads((folder / "meta/info.json").read_text())
    write_json(folder / "meta/info.json", {**info, **changes})


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
    writer.add_episode(columns(0), videos(0), "push")
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


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"dtype": "image", "shape": [8, 8, 3], "names": None}, "'still' is of dtype 'image', which this reads"),
        ({"dtype": "video", "shape": [8, 8, 3], "names": None, "info": {"video.codec": "av1"}}, "'still' is av1 video, which"),
    ],
)
def test_datasets_of_others_are_added_to_only_where_the_files_stay_alike(entry, says, copy):
    features = json.loads((copy / "meta/info.json").read_text())["features"]
    change_info(copy, features={**features, "still": entry})
    with pytest.raises(DataError, match=says):
        LeRobotWriter.resume(copy)


def test_rows_of_another_kind_are_not_added_to(copy):
    """The official recorder takes statistics of matrices per column, older versions wrote no quantiles."""
    path = copy / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["stats/action/q99"]), path)
    with pytest.raises(DataError, match=r"its meta/episodes has other columns than are written here \(stats/action/q99\)"):
        LeRobotWriter.resume(copy)
    assert LeRobotDataset(copy).num_episodes == 4


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
