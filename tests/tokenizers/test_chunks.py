"""A clip in chunks gives what the whole clip gives, in bounded memory, for every way of cutting it."""

import pytest
import torch

from worldfoundry.core.errors import UsageError
from worldfoundry.nn.frame_cache import FrameCache
from worldfoundry.tokenizers import chunks
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.chunks import decode_stream, decode_windows, encode_stream, encode_windows
from worldfoundry.tokenizers.config import NAMED

VIDEO = [name for name in NAMED if name.startswith("debug") and NAMED[name].modality == "video"]
CLOSE = {"atol": 1e-5, "rtol": 0}


def make(name, **changes):
    torch.manual_seed(0)
    return build_tokenizer(NAMED[name].replace(**changes).to_dict()).eval().requires_grad_(False)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def whole(module, x):
    """All at once, as one chunk."""
    features = module._encode(x, FrameCache())
    return features, module._decode(module._bottleneck(features), FrameCache())


@pytest.fixture
def tiny_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "ACTIVATION_BYTES", 1)


@pytest.mark.parametrize("window", [1, 2, 3, 16])
@pytest.mark.parametrize("name", VIDEO)
def test_chunks_of_one_latent_equal_the_whole(name, window, tiny_chunks):
    module = make(name, attention_window=window)
    x = noise(2, 3, 1 + 4 * module.spec.t, 16, 24)
    features, video = whole(module, x)
    with torch.no_grad():
        assert len(chunks.frame_chunks(module.config, x, x.dtype)) == 5
        torch.testing.assert_close(module._features(x), features, **CLOSE)
        torch.testing.assert_close(module._video(module._bottleneck(features)), video, **CLOSE)


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1), (2, 3), (4, 1)])
def test_chunks_of_any_length_equal_the_whole(cuts):
    module = make("debug", attention_window=2)
    z = noise(1, module.spec.channels, 5, 2, 3)
    cache, parts = None, []
    for chunk in z.split(cuts, dim=2):
        x, cache = module.decode_chunk(chunk, cache)
        parts.append(x)
    torch.testing.assert_close(torch.cat(parts, dim=2), module.decode(z), **CLOSE)
    cache, latents = None, []
    frames = [1 + 4 * (cuts[0] - 1)] + [4 * cut for cut in cuts[1:]]
    for chunk in module.decode(z).clamp(-1, 1).split(frames, dim=2):
        part, cache = module.encode_chunk(chunk, cache)
        latents.append(part)
    torch.testing.assert_close(torch.cat(latents, dim=2), module.encode(module.decode(z).clamp(-1, 1)), **CLOSE)


def test_the_window_counts_only_beyond_it():
    """Clips of at most `window` latent frames give what unlimited attention gives; longer ones do not."""
    narrow, wide = make("debug", attention_window=3), make("debug", attention_window=100)
    x = noise(1, 3, 17, 16, 16)
    assert torch.equal(narrow.encode(x[:, :, :9]), wide.encode(x[:, :, :9]))
    assert not torch.allclose(narrow.encode(x)[:, :, 3:], wide.encode(x)[:, :, 3:])


def test_the_window_is_as_long_at_levels_with_more_frames():
    changes = {"attn_resolutions": (256, 128, 64)}
    narrow, wide = (make("debug-cv8x8x8", **changes, attention_window=window) for window in (3, 100))
    assert len(narrow.encoder.levels[0].attentions)
    assert len(narrow.decoder.levels[-1].attentions)
    x = noise(1, 3, 25, 16, 16)
    z = wide.encode(x[:, :, :17])
    assert torch.equal(narrow.encode(x[:, :, :17]), z)
    assert torch.equal(narrow.decode(z), wide.decode(z))
    assert not torch.allclose(narrow.encode(x)[:, :, 3:], wide.encode(x)[:, :, 3:])


@pytest.mark.parametrize("name", ["debug", "debug-dv4x8x8", "debug-ci8x8"])
def test_only_a_pass_that_is_recorded_takes_the_clip_at_once(name, monkeypatch):
    """A loaded tokenizer needs no `torch.no_grad()` to keep its memory bounded; image tokenizers cut clips too."""
    monkeypatch.setattr(chunks, "ACTIVATION_BYTES", 1)
    module, passes = make(name), []
    for network in (module.encoder, module.decoder):
        network.register_forward_hook(lambda *_: passes.append(1))
    x = noise(1, 3, 1 + 2 * module.spec.t, 16, 16)
    module.decode(module.encode(x))
    assert len(passes) == 6
    passes.clear()
    module.requires_grad_(True)(x).sum().backward()
    assert len(passes) == 2
    passes.clear()
    module.requires_grad_(False).encode(x.requires_grad_()).sum().backward()
    assert len(passes) == 1
    assert x.grad is not None


def test_the_memory_of_image_tokenizers_is_counted_by_their_flat_patch():
    image, video = NAMED["Cosmos-0.1-Tokenizer-CI8x8"], NAMED["Cosmos-0.1-Tokenizer-CV4x8x8"]
    images, latents = (chunks.latent_frames_per_chunk(config, 1, 128, 128, torch.float32) for config in (image, video))
    assert images == latents, "a patch of 4x4x4 makes of four frames what one of 4x4 makes of an image"


def test_default_windows_are_the_trained_contexts():
    assert NAMED["Cosmos-Tokenize1-CV8x8x8-720p"].window == 16
    assert NAMED["Cosmos-Tokenize1-DV8x16x16-720p"].window == 7
    assert NAMED["Cosmos-Tokenize1-CV4x8x8-360p"].window == 31


@pytest.mark.parametrize("cut", [1, 3, 4, 17])
def test_a_stream_waits_until_a_latent_is_full(cut):
    module, x = make("debug"), noise(1, 3, 17, 16, 16)
    latents = list(encode_stream(module, x.split(cut, dim=2)))
    torch.testing.assert_close(torch.cat(latents, dim=2), module.encode(x), **CLOSE)
    frames = list(decode_stream(module, latents))
    torch.testing.assert_close(torch.cat(frames, dim=2), module.decode(module.encode(x)), **CLOSE)


def test_frames_that_fill_no_latent_are_named():
    module = make("debug")
    with pytest.raises(UsageError, match="ended with 2 frames"):
        list(encode_stream(module, noise(1, 3, 7, 16, 16).split(1, dim=2)))


def test_a_later_chunk_has_no_frame_of_its_own():
    module, x = make("debug"), noise(1, 3, 9, 16, 16)
    _, cache = module.encode_chunk(x[:, :, :5])
    with pytest.raises(UsageError, match=r"a multiple of 4 in a later chunk, not 5.*Keep the rest"):
        module.encode_chunk(x[:, :, :5], cache)


@pytest.mark.parametrize("shape", [(1, 3, 4, 24, 16), (1, 3, 4, 16, 24), (2, 3, 4, 16, 16)])
def test_a_chunk_of_another_size_is_refused(shape):
    module = make("debug")
    _, cache = module.encode_chunk(noise(1, 3, 5, 16, 16))
    with pytest.raises(UsageError, match="begin another clip"):
        module.encode_chunk(noise(*shape), cache)


def test_ten_thousand_frames_stream_with_a_cache_that_does_not_grow():
    module = make("debug")
    cache, sizes, frames = None, set(), 0
    with torch.inference_mode():
        for i in range(25):
            z, cache = module.encode_chunk(noise(1, 3, 401 if i == 0 else 400, 8, 8), cache)
            frames += 401 if i == 0 else 400
            assert z.shape[2] == 100 + (i == 0)
            sizes.add(sum(past.numel() for past in cache.future.values()))
    assert frames == 10_001
    assert len(sizes) == 1


def test_image_tokenizers_stream_frame_by_frame():
    module, x = make("debug-ci8x8"), noise(1, 3, 4, 16, 16)
    latents = torch.cat(list(encode_stream(module, x.split(1, dim=2))), dim=2)
    torch.testing.assert_close(latents, module.encode(x), **CLOSE)


def test_windows_begin_anew():
    """The released code's way: each window is a clip of its own, so its first frame is an image."""
    module, x = make("debug"), noise(1, 3, 18, 16, 16)
    windows = encode_windows(module, x, 9)
    assert torch.equal(windows[1], module.encode(x[:, :, 9:]))
    assert decode_windows(module, windows).shape == x.shape
