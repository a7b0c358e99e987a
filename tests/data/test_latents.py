"""The latent cache: what was put comes back, a kill loses only the unfinished shard, identities do not mix."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from worldfoundry.core.errors import DataError, ResourceError
from worldfoundry.data.latents import LatentCache


def entry(i: int) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((3, 4, 5), float(i)), "length": torch.tensor([i])}


def test_entries_come_back_bit_for_bit_in_memory_and_from_disk(tmp_path: Path) -> None:
    odd = {"half": torch.randn(3, 2).half().t(), "brain": torch.randn(2).bfloat16()}
    with LatentCache(tmp_path / "c", identity={"tokenizer": "t1"}) as cache:
        for i in range(5):
            cache.put(f"clip/{i}", entry(i))
        cache.put("odd", odd)
        before = cache.get("odd")
    reopened = LatentCache(tmp_path / "c", identity={"tokenizer": "t1"})
    assert reopened.keys() == ["clip/0", "clip/1", "clip/2", "clip/3", "clip/4", "odd"]
    assert len(reopened) == 6
    for name in odd:
        assert torch.equal(reopened.get("odd")[name], odd[name])
        assert torch.equal(before[name], odd[name])
    assert torch.equal(reopened.get("clip/3")["latents"], entry(3)["latents"])


def test_a_killed_writer_loses_at_most_the_unfinished_shard(tmp_path: Path) -> None:
    script = f"""
import os, torch
from worldfoundry.data.latents import LatentCache
cache = LatentCache({str(tmp_path / "c")!r}, identity=dict(tokenizer="t"), shard_mb=0.001)
for i in range(10):
    cache.put(f"k{{i}}", {{"x": torch.full((100,), float(i))}})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with LatentCache(tmp_path / "c", identity={"tokenizer": "t"}, shard_mb=0.001) as cache:
        assert cache.keys() == [f"k{i}" for i in range(8)]  # two entries of 400 bytes fit a shard of 1000
        for i in range(8, 12):
            cache.put(f"k{i}", {"x": torch.full((100,), float(i))})
    cache = LatentCache(tmp_path / "c", identity={"tokenizer": "t"})
    assert [int(cache.get(f"k{i}")["x"][0]) for i in range(12)] == list(range(12))


def test_another_identity_is_refused(tmp_path: Path) -> None:
    LatentCache(tmp_path, identity={"tokenizer": "A", "dtype": "float32"}).close()
    with pytest.raises(DataError, match=r"made with tokenizer 'A', but 'B'"):
        LatentCache(tmp_path, identity={"tokenizer": "B", "dtype": "float32"})
    with pytest.raises(DataError, match=r"made with dtype 'float32', but 'bfloat16'"):
        LatentCache(tmp_path, identity={"tokenizer": "A", "dtype": "bfloat16"})
    with pytest.raises(DataError, match=r"made with text None, but 'minilm'"):
        LatentCache(tmp_path, identity={"tokenizer": "A", "dtype": "float32", "text": "minilm"})
    assert LatentCache.open(tmp_path).identity == {"tokenizer": "A", "dtype": "float32"}


def test_shards_of_unknown_origin_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    with LatentCache(tmp_path, identity={"tokenizer": "A"}) as cache:
        cache.put("a", entry(1))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"no 'manifest.json' says what they are"):
        LatentCache(tmp_path, identity={"tokenizer": "B"})
    assert not (tmp_path / "manifest.json").exists()


def test_shards_are_bounded_and_the_index_names_every_entry(tmp_path: Path) -> None:
    sizes = [300, 300, 300, 5000, 100]  # float32: 1.2 kB, 1.2 kB, 1.2 kB, 20 kB, 0.4 kB
    with LatentCache(tmp_path, identity={"tokenizer": "t"}, shard_mb=0.003) as cache:
        for i, size in enumerate(sizes):
            cache.put(f"sub/{i}", {"latents": torch.full((size,), float(i))}, {"num_frames": size, "caption": f"größer {i}"})
        assert cache.facts("sub/4") == {"num_frames": 100, "caption": "größer 4"}
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    assert [row["shard"] for row in rows] == [f"{n:05d}.safetensors" for n in (0, 0, 1, 2, 3)]
    for row, size in zip(rows, sizes, strict=True):
        with safe_open(tmp_path / row["shard"], "pt") as shard:
            assert shard.get_tensor(f"{row['key']}/{row['tensors'][0]}").numel() == row["num_frames"] == size
    reopened = LatentCache.open(tmp_path)
    assert reopened.facts("sub/3") == {"num_frames": 5000, "caption": "größer 3"}
    assert reopened.shard_keys("00000.safetensors") == ["sub/0", "sub/1"]


def test_an_index_that_a_kill_left_behind_is_completed(tmp_path: Path) -> None:
    with LatentCache(tmp_path, identity={"tokenizer": "t"}) as cache:
        cache.put("a", entry(0))
    killed = LatentCache(tmp_path, identity={"tokenizer": "t"})
    killed.put("b", entry(1))
    killed.flush()  # and no close
    assert pq.read_table(tmp_path / "index.parquet")["key"].to_pylist() == ["a"]
    LatentCache.open(tmp_path).close()
    assert pq.read_table(tmp_path / "index.parquet")["key"].to_pylist() == ["a", "b"]


def test_a_folder_that_is_no_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no 'manifest\.json'"):
        LatentCache.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other/2"}')
    with pytest.raises(DataError, match="format 'other/2'"):
        LatentCache.open(tmp_path)


def test_misuse_and_damage_are_clear(tmp_path: Path) -> None:
    with LatentCache(tmp_path, identity={"tokenizer": "t"}) as cache:
        cache.put("a", entry(0))
        for key, tensors in [("a", entry(1)), ("b", {}), ("b", {"x/y": torch.zeros(1)})]:
            with pytest.raises(ValueError, match="put once"):
                cache.put(key, tensors)
        with pytest.raises(DataError, match="no entry 'z'"):
            cache.get("z")
    (tmp_path / "00000.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(DataError, match=r"00000\.safetensors' is damaged"):
        LatentCache(tmp_path, identity={"tokenizer": "t"})


def test_a_full_disk_keeps_entries_and_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LatentCache(tmp_path, identity={"tokenizer": "t"})
    cache.put("a", entry(0))
    write = Path.write_bytes

    def no_space(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(ResourceError, match="No space left"):
        cache.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    monkeypatch.setattr(Path, "write_bytes", write)
    cache.close()
    assert LatentCache(tmp_path, identity={"tokenizer": "t"}).keys() == ["a"]
