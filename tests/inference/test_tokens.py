"""Clips through a tokenizer and back: nothing is lost or mixed up, resuming is exact, misuse is one clear line."""

import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import DataError, MediaError, UsageError
from worldfoundry.core.video_io import probe_video, read_video, write_video
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.latents import LatentCache
from worldfoundry.inference import token_sources, tokens
from worldfoundry.inference.token_sources import Frames
from worldfoundry.inference.tokens import detokenize, to_frames, token_identity, tokenize, tokenizer_identity
from worldfoundry.tokenizers import chunks
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.tokenizers.tokenizer import pad_to_multiple

FACTS = {"num_frames": 5, "height": 8, "width": 8, "fps": 10.0, "source": "a.mp4"}


def small(seed=0, **changes):
    torch.manual_seed(seed)
    config = named_config("debug").replace(**changes)
    return build_tokenizer(config.to_dict()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return small()


@pytest.fixture(scope="module")
def discrete():
    return small(levels=(8, 5, 5, 5))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three short videos of odd lengths and sizes."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name, shape in (("a", (6, 20, 24, 3)), ("b", (9, 16, 16, 3)), ("c", (1, 16, 24, 3))):
        write_video(folder / f"{name}.mp4", rng.integers(0, 255, shape, dtype=np.uint8), 10.0)
    return folder


def test_namesakes_and_subfolders_do_not_overwrite_each_other(tokenizer, tmp_path):
    source, out, back = (tmp_path / name for name in ("in", "out", "back"))
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "a.bmp", "sub/a.png"):
        Image.fromarray(np.zeros((13, 9, 3), np.uint8)).save(source / name)
    assert tokenize(source, tokenizer, out).made == 3
    names = {"a.png", "a.bmp", "sub/a"}
    assert set(LatentCache.open(out).keys()) == names
    assert {p.relative_to(back).as_posix() for p in detokenize(out, tokenizer, back)} == {f"{name}.mp4" for name in names}
    assert probe_video(back / "sub" / "a.mp4").height == 14


@pytest.mark.parametrize("kind", ["tokenizer", "discrete"])
def test_shards_hold_what_the_tokenizer_gives_and_decode_to_the_clip(kind, clips, tmp_path, request):
    network = request.getfixturevalue(kind)
    done = tokenize(clips, network, tmp_path / "out", shard_mb=1e-6)
    assert (done.made, done.found, done.shards) == (3, 0, 3)
    cache = LatentCache.open(tmp_path / "out")
    assert cache.identity["dtype"] == "float32"
    assert cache.facts("a") | {"source_bytes": 0} == {
        "num_frames": 6, "height": 20, "width": 24, "fps": 10.0, "source": "a.mp4", "source_bytes": 0, "caption": "",
    }  # fmt: skip
    frames = torch.from_numpy(read_video(clips / "a.mp4").frames)
    x = pad_to_multiple(frames[None].movedim(-1, 1).float() / 127.5 - 1, network.spec)
    if kind == "discrete":
        assert cache.get("a")["indices"].dtype == torch.uint16
        assert torch.equal(cache.get("a")["indices"].int(), network.encode_indices(x)[0].int())
    else:
        assert torch.equal(cache.get("a")["latents"], network.encode(x)[0])
    detokenize(tmp_path / "out", network, tmp_path / "back")
    made = read_video(tmp_path / "back" / "a.mp4")
    assert made.frames.shape == (6, 20, 24, 3)
    assert made.fps == 10.0
    direct = write_video(tmp_path / "direct.mp4", to_frames(network(x))[0, :6, :20].numpy(), 10.0)
    assert np.array_equal(made.frames, read_video(direct).frames)
    assert [p.name for p in detokenize(tmp_path / "out" / "00001.safetensors", network, tmp_path / "one")] == ["b.mp4"]


@pytest.fixture
def two_latents_a_chunk(monkeypatch):
    """A budget that no picture fits, but for chunks of two latent frames."""
    monkeypatch.setattr(tokens, "latent_frames_per_chunk", lambda *_: 2)
    monkeypatch.setattr(chunks, "latent_frames_per_chunk", lambda *_: 2)


@pytest.mark.parametrize("kind", ["tokenizer", "discrete"])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 8, 9, 16, 17, 30])
def test_a_clip_in_chunks_is_the_whole_clip(kind, num_frames, two_latents_a_chunk, tmp_path, request):
    network = request.getfixturevalue(kind)
    frames = np.random.default_rng(num_frames).integers(0, 255, (num_frames, 20, 24, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 10.0)
    x = torch.from_numpy(read_video(tmp_path / "a.mp4").frames)[None].movedim(-1, 1).float() / 127.5 - 1
    padded = pad_to_multiple(x, network.spec)
    tokenize(tmp_path / "a.mp4", network, tmp_path / "z")
    stored = LatentCache.open(tmp_path / "z").get("a")
    detokenize(tmp_path / "z", network, tmp_path / "back")
    whole = network.encode(padded)  # with gradients: in one piece
    size = num_frames, 20, 24
    with torch.inference_mode():  # cuts the clip at the same places
        if kind == "discrete":
            assert torch.equal(stored["indices"].int(), network.encode_indices(padded)[0])
            x = network.decode_indices(stored["indices"].int()[None], size=size)
        else:
            assert torch.equal(stored["latents"], network.encode(padded)[0])
            assert torch.allclose(stored["latents"], whole[0], atol=1e-5)
            x = network.decode(stored["latents"][None], size=size)
    direct = write_video(tmp_path / "direct.mp4", to_frames(x)[0].numpy(), 10.0)
    made = read_video(tmp_path / "back" / "a.mp4").frames
    assert made.shape == (*size, 3)
    assert np.array_equal(made, read_video(direct).frames)


def test_no_more_than_a_chunk_of_frames_is_in_memory(tokenizer, two_latents_a_chunk, tmp_path, monkeypatch):
    """Frames are counted while they live: on the way in until their chunk is through, on the way out until they are written."""
    write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 10.0)
    alive, most = set(), 0

    def film(number):
        nonlocal most
        for i in range(number):
            frame = np.full((16, 16, 3), i % 256, np.uint8)
            alive.add(i)
            weakref.finalize(frame, alive.discard, i)
            most = max(most, len(alive))
            yield frame

    monkeypatch.setattr(token_sources, "stream_media", lambda _: (10.0, film(200)))
    tokenize(tmp_path / "a.mp4", tokenizer, tmp_path / "z")
    assert LatentCache.open(tmp_path / "z").facts("a")["num_frames"] == 200
    assert most <= 2 * (2 * tokenizer.spec.t) + 2

    decoded, ahead = 0, []

    def decode_chunk(z_BCTHW, cache=None):
        nonlocal decoded
        x, following = type(tokenizer).decode_chunk(tokenizer, z_BCTHW, cache)
        decoded += x.shape[2]
        return x, following

    def write(target, frames, fps):
        for number, _ in enumerate(frames, 1):
            ahead.append(decoded - number)

    monkeypatch.setattr(tokenizer, "decode_chunk", decode_chunk)
    monkeypatch.setattr(tokens, "write_video", write)
    detokenize(tmp_path / "z", tokenizer, tmp_path / "back")
    assert len(ahead) == 200
    assert max(ahead) < 2 * tokenizer.spec.t


def test_a_clip_without_frames_or_of_changing_size_is_refused():
    with pytest.raises(MediaError, match=r"'a\.mp4' holds no video frame"):
        Frames("a.mp4", 10.0, iter([]))
    changing = Frames("a.mp4", 10.0, iter([np.zeros((4, 6, 3), np.uint8), np.zeros((8, 6, 3), np.uint8)]))
    with pytest.raises(MediaError, match="changes its size from 6x4 to 6x8 at frame 1"):
        list(changing)


def test_long_clips_of_a_dataset_are_read_in_parts(make_dataset, monkeypatch):
    dataset = ClipDataset(make_dataset([("s0", 30, 32, 48)]))
    monkeypatch.setattr(token_sources, "RECORD_FRAMES", 7)
    frames = token_sources.sources(dataset.folder)[0].read()
    assert np.array_equal(np.stack(list(frames)), dataset.video(dataset.records[0]))
    assert (frames.count, frames.height, frames.width, frames.fps) == (30, 32, 48, 12.0)


def test_a_killed_run_goes_on_and_ends_as_an_uninterrupted_one(clips, tmp_path):
    folder = save_component(tmp_path / "tok", small(), kind="tokenizer", provenance={})
    script = f"""
import os
from pathlib import Path
import worldfoundry as wf
from worldfoundry.inference import tokens
encode, seen = tokens._encode, []
def stop_at_the_third(*args):
    seen.append(1)
    if len(seen) == 3:
        os.kill(os.getpid(), 9)
    encode(*args)
tokens._encode = stop_at_the_third
tokens.tokenize(Path({str(clips)!r}), wf.load({str(folder)!r}), Path({str(tmp_path / "out")!r}), shard_mb=1e-6)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -9
    network = small()
    assert LatentCache.open(tmp_path / "out").keys() == ["a"]  # b waited for its shard
    done = tokenize(clips, network, tmp_path / "out", shard_mb=1e-6)
    assert (done.made, done.found) == (2, 1)
    tokenize(clips, network, tmp_path / "whole", shard_mb=1e-6)
    for number in range(3):
        name = f"{number:05d}.safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert tokenize(clips, network, tmp_path / "out").made == 0


def test_other_options_are_refused(tokenizer, clips, tmp_path):
    tokenize(clips / "b.mp4", tokenizer, tmp_path / "out")
    half = small().to(torch.bfloat16)
    with pytest.raises(DataError, match="made with dtype 'float32', but 'bfloat16'"):
        tokenize(clips / "b.mp4", half, tmp_path / "out", made_by=tokenizer_identity(tokenizer))
    with pytest.raises(DataError, match="made with tokenizer"):
        tokenize(clips / "b.mp4", small(seed=1), tmp_path / "out")
    (tmp_path / "b.mp4").write_bytes((clips / "a.mp4").read_bytes())
    with pytest.raises(DataError, match="holds 'b' made from a file of"):
        tokenize(tmp_path / "b.mp4", tokenizer, tmp_path / "out")


class Words:
    """A text encoder whose row i holds the length of word i."""

    name, width, max_length = "words", 2, 4

    def encode(self, prompts):
        rows = torch.zeros(len(prompts), self.max_length, self.width)
        for i, prompt in enumerate(prompts):
            for j, word in enumerate(prompt.split()[: self.max_length]):
                rows[i, j] = len(word)
        return rows

    def count_tokens(self, prompt):
        return len(prompt.split())


def test_captions_come_along_with_their_embeddings(tokenizer, clips, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "b.mp4").write_bytes((clips / "b.mp4").read_bytes())
    (source / "b.txt").write_text("a red cube\n")
    tokenize(source, tokenizer, tmp_path / "out", encoder=Words())
    cache = LatentCache.open(tmp_path / "out")
    assert cache.facts("b")["caption"] == "a red cube"
    assert cache.get("b")["text"].tolist() == [[1, 1], [3, 3], [4, 4]]
    assert cache.identity["text"] == {"encoder": "words", "width": 2, "padded_length": 4}


def test_a_clip_dataset_keeps_its_keys_and_captions(tokenizer, tmp_path, make_dataset):
    dataset = ClipDataset(make_dataset([("s0", 5, 32, 48), ("s1", 9, 32, 32)]))
    done = tokenize(dataset.folder, tokenizer, tmp_path / "out")
    assert done.made == len(dataset.records)
    cache = LatentCache.open(tmp_path / "out")
    for record in dataset.records:
        facts = cache.facts(record.key)
        assert (facts["num_frames"], facts["caption"], facts["source"]) == (
            record.num_frames, record.caption, record.source_id,
        )  # fmt: skip


def test_latents_of_another_tokenizer_are_refused_unless_forced(tokenizer, clips, tmp_path):
    tokenize(clips / "b.mp4", tokenizer, tmp_path / "out")
    other = small(seed=1)
    with pytest.raises(DataError, match=r"made by another tokenizer: its weights differ.*--force"):
        detokenize(tmp_path / "out", other, tmp_path / "back")
    assert detokenize(tmp_path / "out", other, tmp_path / "back", force=True)[0].is_file()


def test_indices_and_latents_are_not_mixed_up(tokenizer, discrete, clips, tmp_path):
    tokenize(clips / "b.mp4", tokenizer, tmp_path / "z")
    tokenize(clips / "b.mp4", discrete, tmp_path / "i")
    with pytest.raises(DataError, match=r"holds latents, but this tokenizer decodes indices.*continuous tokenizer"):
        detokenize(tmp_path / "z", discrete, tmp_path / "back", force=True)
    with pytest.raises(DataError, match=r"holds indices, but this tokenizer decodes latents.*discrete tokenizer"):
        detokenize(tmp_path / "i", tokenizer, tmp_path / "back", force=True)
    finer = small(levels=(8, 8, 5, 5))
    with pytest.raises(DataError, match=r"made with levels \[8, 5, 5, 5\], but this tokenizer has \[8, 8, 5, 5\]"):
        detokenize(tmp_path / "i", finer, tmp_path / "back", force=True)
    wider = small(latent_channels=6, z_channels=6)
    with pytest.raises(DataError, match="made with channels 4, but this tokenizer has 6"):
        detokenize(tmp_path / "z", wider, tmp_path / "back", force=True)
    with LatentCache(tmp_path / "w", identity={"content": "training windows"}):
        pass
    with pytest.raises(DataError, match="holds training windows"):
        detokenize(tmp_path / "w", tokenizer, tmp_path / "back")


@pytest.mark.parametrize(
    ("facts", "value", "words"),
    [
        ({"num_frames": -5}, 0.0, "num_frames"),
        ({"height": "tall"}, 0.0, "height"),
        ({"fps": -1}, 0.0, "fps"),
        ({}, float("nan"), "NaN"),
    ],
)
def test_damaged_entries_are_named(tokenizer, tmp_path, facts, value, words):
    with LatentCache(tmp_path / "in", identity=token_identity(tokenizer)) as cache:
        cache.put("clip7", {"latents": torch.full((tokenizer.spec.channels, 2, 2, 2), value)}, {**FACTS, **facts})
    with pytest.raises(UsageError, match=rf"clip7.*{words}"):
        detokenize(tmp_path / "in", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_index_outside_the_codebook_is_named(discrete, clips, tmp_path):
    tokenize(clips / "b.mp4", discrete, tmp_path / "out")
    shard = tmp_path / "out" / "00000.safetensors"
    facts = json.dumps({"b": LatentCache.open(tmp_path / "out").facts("b")})
    tensors = load_file(shard)
    tensors["b/indices"] = torch.full_like(tensors["b/indices"], 1000)
    save_file(tensors, shard, metadata={"facts": facts})
    with pytest.raises(UsageError, match="1000"):
        detokenize(tmp_path / "out", discrete, tmp_path / "back")


def test_half_precision_that_overflows_is_said_not_clipped(clips, tmp_path):
    loud = small().to(torch.float16)
    with torch.no_grad():
        list(loud.encoder.parameters())[-1].fill_(6e4)  # the last bias: features of 60 000 each
        loud.to_latent.weight.fill_(2.0)
    with pytest.raises(DataError, match=r"NaN or infinity in torch\.float16"):
        tokenize(clips / "b.mp4", loud, tmp_path / "out")


def test_a_file_that_cannot_be_read_is_skipped_and_named(tokenizer, clips, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "b.mp4").write_bytes((clips / "b.mp4").read_bytes())
    (source / "broken.mp4").write_bytes(b"no video")
    done = tokenize(source, tokenizer, tmp_path / "out")
    assert (done.made, list(done.failed)) == (1, ["broken.mp4"])
    assert "broken.mp4" in json.loads((tmp_path / "out" / "manifest.json").read_text())["failed"]
    (source / "b.mp4").unlink()
    with pytest.raises(UsageError, match="None of the 1 files"):
        tokenize(source, tokenizer, tmp_path / "none")
