"""The latent cache: what was put comes back, a kill loses only the unfinished shard, identities do not mix."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worldfoundry.core.errors import DataError, ResourceError
from worldfoundry.data.latents import LatentCache


def entry(i: int) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((3, 4, 5), float(i)), "length": torch.tensor([i])}


def test_entries_come_back_bit_for_bit_in_memory_and_from_disk(tmp_path: Path) -> None:
    odd = {"half": torch.randn(3, 2).half().t(), "brain": torch.randn(2).bfloat16()}
    with LatentCache(tmp_path / "c", identity="t1") as cache:
        for i in range(5):
            cache.put(f"clip/{i}", entry(i))
        cache.put("odd", odd)
        before = cache.get("odd")
    reopened = LatentCache(tmp_path / "c", identity="t1")
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
cache = LatentCache({str(tmp_path / "c")!r}, identity="t", shard_mb=0.001)
for i in range(10):
    cache.put(f"k{{i}}", {{"x": torch.full((100,), float(i))}})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with LatentCache(tmp_path / "c", identity="t", shard_mb=0.001) as cache:
        assert cache.keys() == [f"k{i}" for i in range(9)]  # three entries of 400 bytes fill a shard of 1000
        for i in range(9, 12):
            cache.put(f"k{i}", {"x": torch.full((100,), float(i))})
    cache = LatentCache(tmp_path / "c", identity="t")
    assert [int(cache.get(f"k{i}")["x"][0]) for i in range(12)] == list(range(12))


def test_another_identity_is_refused(tmp_path: Path) -> None:
    LatentCache(tmp_path, identity="tokenizer A").close()
    with pytest.raises(DataError, match=r"'tokenizer A', but 'tokenizer B'"):
        LatentCache(tmp_path, identity="tokenizer B")


def test_misuse_and_damage_are_clear(tmp_path: Path) -> None:
    with LatentCache(tmp_path, identity="t") as cache:
        cache.put("a", entry(0))
        for key, tensors in [("a", entry(1)), ("b", {}), ("b", {"x/y": torch.zeros(1)})]:
            with pytest.raises(ValueError, match="put once"):
                cache.put(key, tensors)
        with pytest.raises(DataError, match="no entry 'z'"):
            cache.get("z")
    (tmp_path / "00000.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(DataError, match=r"00000\.safetensors' is damaged"):
        LatentCache(tmp_path, identity="t")


def test_a_full_disk_keeps_entries_and_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LatentCache(tmp_path, identity="t")
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
    assert LatentCache(tmp_path, identity="t").keys() == ["a"]
