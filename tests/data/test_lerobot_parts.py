"""The parts of LeRobot support: columns bit for bit, statistics in closed form, joined videos that decode to their pieces."""

import pickle
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldfoundry.core.errors import DataError, MediaError
from worldfoundry.core.video_io import read_video, write_video
from worldfoundry.data.lerobot.columns import check_column, to_arrow, to_numpy
from worldfoundry.data.lerobot.join import encoder_header, join_videos
from worldfoundry.data.lerobot.layout import NUMBER_DTYPES, Feature, camera_key
from worldfoundry.data.lerobot.rows import RowCache
from worldfoundry.data.lerobot.stats import FeatureStats, column_stats, frames_stats, merge_stats

RNG = np.random.default_rng(0)


def any_values(dtype, shape):
    """All bit patterns are as likely, except those that are no numbers."""
    if dtype == "bool":
        return RNG.random(shape) < 0.5
    values = np.frombuffer(RNG.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
    return np.where(np.isfinite(values), values, 1).astype(dtype)


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (2, 1, 2)])
def test_columns_come_back_bit_for_bit_through_parquet(dtype, shape, tmp_path):
    feature = Feature(dtype=dtype, shape=shape)
    values = any_values(dtype, (7, *feature.frame_shape))
    pq.write_table(pa.table({"x": to_arrow(values, feature)}), tmp_path / "x.parquet")
    back = to_numpy(pq.read_table(tmp_path / "x.parquet")["x"], "x", feature, "here")
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()


def test_other_ways_to_store_a_vector_are_read_alike():
    feature = Feature(dtype="float32", shape=(2,))
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)):
        column = pa.chunked_array([pa.array(values[:2].tolist(), kind), pa.array(values[2:].tolist(), kind)])
        assert np.array_equal(to_numpy(column, "x", feature, "here"), values)
        assert np.array_equal(to_numpy(column.slice(1, 2), "x", feature, "here"), values[1:])
    scalars = pa.chunked_array([pa.array([[1.0], [2.0]])])
    assert to_numpy(scalars, "x", Feature(dtype="float32", shape=(1,)), "here").tolist() == [1, 2]


@pytest.mark.parametrize("rows", [[[1.0, 2.0], None], [[1.0, None], [3.0, 4.0]], [[1.0], [2.0, 3.0, 4.0], [5.0]]])
def test_ragged_and_missing_values_are_refused(rows):
    column = pa.chunked_array([pa.array(rows, pa.list_(pa.float32()))])
    with pytest.raises(DataError, match=r"'action' of episode 3"):
        to_numpy(column, "action", Feature(dtype="float32", shape=(2,)), "episode 3")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((4, 2)), "is float64, but the dataset's feature is float32"),
        (np.zeros((3, 2), np.float32), r"shape \[3, 2\], not \[4, 2\]"),
        (np.array([[0, 0], [0, 0], [0, np.nan], [0, 0]], np.float32), "NaN or infinity at frame 2"),
    ],
)
def test_a_column_that_would_change_on_the_way_is_refused(values, says):
    with pytest.raises(DataError, match=says):
        check_column("action", Feature(dtype="float32", shape=(2,)), values, 4)


def test_column_statistics_are_numpys_and_merge_to_those_of_the_whole():
    values = RNG.normal(3, 2, size=(50, 4)).astype(np.float32)
    values[:, 2] = 0.25
    whole = column_stats(values, ("a", "b", "c", "d"))
    np.testing.assert_allclose(whole.std, values.astype(np.float64).std(axis=0))
    assert np.array_equal(whole.quantiles["q50"], np.median(values.astype(np.float64), axis=0))
    assert whole.constant == ("c",)
    merged = merge_stats([column_stats(values[:7]), column_stats(values[7:8]), column_stats(values[8:])])
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    assert merged.count == 50


def test_normalising_gives_mean_zero_and_deviation_one_and_constants_zero():
    values = RNG.normal(3, 2, size=(50, 4)).astype(np.float32)
    values[:, 2] = 0.1
    stats = column_stats(values)
    normal = stats.normalize(values)
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(normal.std(axis=0), [1, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(stats.denormalize(normal), values, atol=1e-5)
    scalars = column_stats(values[:, 0]).normalize(values[:, 0])
    assert np.array_equal(scalars, normal[:, 0])


def test_camera_statistics_are_those_of_the_pixels_in_0_1():
    frames = RNG.integers(20, 230, (30, 6, 8, 3), dtype=np.uint8)
    stats = frames_stats(frames)
    pixels = frames.reshape(-1, 3) / 255
    for name, expected in (("min", pixels.min(0)), ("max", pixels.max(0)), ("mean", pixels.mean(0)), ("std", pixels.std(0))):
        np.testing.assert_allclose(getattr(stats, name).ravel(), expected, atol=1e-12)
    assert stats.mean.shape == (3, 1, 1)
    assert stats.count == 30
    assert frames_stats(np.zeros((1000, 2, 2, 3), np.uint8)).count == 100


def test_statistics_survive_json(tmp_path):
    stats = column_stats(RNG.normal(size=(9, 2)))
    back = FeatureStats.from_json("x", stats.to_json(), (), tmp_path)
    assert all(np.array_equal(getattr(back, name), getattr(stats, name)) for name in ("min", "max", "mean", "std"))
    assert all(np.array_equal(back.quantiles[q], stats.quantiles[q]) for q in stats.quantiles)
    with pytest.raises(DataError, match="statistics of 'x'"):
        FeatureStats.from_json("x", {"mean": [0.0]}, (), tmp_path)


@pytest.mark.parametrize("fps", [1, 10, 29.97, 30, 12.5, 240])
def test_joined_videos_decode_to_their_pieces_at_exact_times(fps, tmp_path):
    """Pieces of one and two frames are the hard ones: they are decoded with less delay than the others."""
    lengths = [1, 2, 25, 12, 3, 1, 14]
    pieces = []
    for i, length in enumerate(lengths):
        frames = RNG.integers(0, 255, (length, 32, 48, 3), dtype=np.uint8)
        pieces.append((write_video(tmp_path / f"{i}.mp4", frames, fps), length))
    assert len({encoder_header(path) for path, _ in pieces}) == 1
    join_videos(pieces, fps, tmp_path / "joined.mp4")
    joined = read_video(tmp_path / "joined.mp4")
    assert np.array_equal(joined.frames, np.concatenate([read_video(path).frames for path, _ in pieces]))
    with av.open(str(tmp_path / "joined.mp4")) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts * stream.time_base for packet in container.demux(stream) if packet.pts is not None)
    assert times == [k / Fraction(fps).limit_denominator(90000) for k in range(sum(lengths))]


def test_a_piece_of_another_length_than_promised_is_refused(tmp_path):
    piece = write_video(tmp_path / "a.mp4", np.zeros((5, 16, 16, 3), np.uint8), 10)
    with pytest.raises(MediaError, match="holds 5 frames, not 6"):
        join_videos([(piece, 6)], 10, tmp_path / "b.mp4")


@pytest.mark.parametrize("limit_bytes", [0, 200, 1 << 20])
def test_rows_are_the_tables_rows_whatever_is_kept(limit_bytes, tmp_path):
    pq.write_table(pa.table({"x": np.arange(100)}), tmp_path / "a.parquet", row_group_size=7)
    cache = RowCache(limit_bytes)
    for _ in range(60):
        first = int(RNG.integers(0, 100))
        count = int(RNG.integers(1, 101 - first))
        rows = cache.read(tmp_path / "a.parquet", first, count, "the test")
        assert rows["x"].to_pylist() == list(range(first, first + count))
    assert cache.held_bytes == sum(table.nbytes for table in cache.groups.values()) <= max(limit_bytes, 56)
    assert not pickle.loads(pickle.dumps(cache)).groups
    with pytest.raises(DataError, match="has 100 rows; the test needs rows up to 101"):
        cache.read(tmp_path / "a.parquet", 99, 2, "the test")


def test_names_of_cameras_and_dimensions():
    assert camera_key("front") == "observation.images.front"
    assert camera_key("observation.image") == "observation.image"
    assert Feature(dtype="float32", shape=(2,), names=["x", "y"]).dimension_names("action") == ("action.x", "action.y")
    assert Feature(dtype="float32", shape=(2,), names={"motors": ["x", "y"]}).dimension_names("a") == ("a.x", "a.y")
    assert Feature(dtype="float32", shape=(1, 2)).dimension_names("a") == ("a[0]", "a[1]")
    assert Feature(dtype="float32", shape=(1,), names=["z"]).dimension_names("reward") == ("reward",)
