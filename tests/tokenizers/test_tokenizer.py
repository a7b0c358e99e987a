import pytest
import torch

from worldfoundry.core.checkpoint import load_component, save_component
from worldfoundry.core.contracts import VideoTokenizer
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import NAMED
from worldfoundry.tokenizers.tokenizer import ContinuousTokenizer, DiscreteTokenizer, pad_to_multiple

DEBUG = [name for name in NAMED if name.startswith("debug")]
VIDEO = [name for name in DEBUG if NAMED[name].modality == "video"]
DISCRETE = [name for name in DEBUG if NAMED[name].levels]


def make(name, **changes):
    torch.manual_seed(0)
    return build_tokenizer(NAMED[name].replace(**changes).to_dict()).eval().requires_grad_(False)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", DEBUG)
def test_kinds_and_shapes_follow_the_spec(name):
    module = make(name)
    spec, x = module.spec, noise(1, 3, 1 + 2 * NAMED[name].temporal_compression, 16, 24)
    assert isinstance(module, VideoTokenizer)
    assert isinstance(module, DiscreteTokenizer if spec.discrete else ContinuousTokenizer)
    z = module.encode(x)
    assert z.shape == (1, spec.channels, spec.latent_frames(x.shape[2]), 16 // spec.h, 24 // spec.w)
    assert module.decode(z).shape == x.shape
    torch.testing.assert_close(module(x), module.decode(z))


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("frame", [1, 4, 9, 16])
def test_a_changed_frame_leaves_earlier_latents_as_they_are(name, frame):
    module, x = make(name), noise(1, 3, 17, 16, 24)
    changed = x.clone()
    changed[:, :, frame:] = noise(1, 3, 17 - frame, 16, 24).flip(-1)
    first = -(-frame // module.spec.t)  # the latent frame that holds it
    features = module._features
    before, after = features(x), features(changed)
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.allclose(before[:, :, first], after[:, :, first])


@pytest.mark.parametrize("name", VIDEO)
def test_a_changed_latent_leaves_earlier_frames_as_they_are(name):
    module = make(name)
    z = noise(1, module.spec.channels, 4, 2, 3)
    changed = z.clone()
    changed[:, :, 2] += 1
    first = 1 + module.spec.t  # frame 0, then t frames of latent 1
    before, after = module.decode(z), module.decode(changed)
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.allclose(before[:, :, first : first + module.spec.t], after[:, :, first : first + module.spec.t])


@pytest.mark.parametrize("name", VIDEO)
def test_an_image_is_the_first_frame_of_any_video(name):
    module, x = make(name), noise(2, 3, 17, 16, 24)
    latents, image = module._features(x), module._features(x[:, :, :1])
    torch.testing.assert_close(image, latents[:, :, :1], atol=1e-5, rtol=0)
    torch.testing.assert_close(module.decode(image), module.decode(latents)[:, :, :1], atol=1e-5, rtol=0)


def test_an_image_tokenizer_takes_frames_one_by_one():
    module, x = make("debug-ci8x8"), noise(2, 3, 3, 16, 24)
    frames = [module.encode(x[:, :, i : i + 1]) for i in range(3)]
    torch.testing.assert_close(module.encode(x), torch.cat(frames, dim=2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DISCRETE)
def test_indices_stand_for_the_codes(name):
    module, x = make(name), noise(2, 3, 1 + NAMED[name].temporal_compression, 16, 24)
    codes, indices = module.encode(x), module.encode_indices(x)
    assert indices.shape == (2, *codes.shape[2:])
    assert indices.dtype == torch.int32
    assert 0 <= indices.min() <= indices.max() < module.config.codebook_size
    assert torch.equal(module.quantizer.indices_to_codes(indices), codes)
    assert torch.equal(module.decode_indices(indices), module.decode(codes))


@pytest.mark.parametrize("name", ["debug", "debug-dv4x8x8", "debug-di8x8"])
def test_the_reconstruction_sends_a_gradient_to_every_weight(name):
    module = make(name).requires_grad_(True)
    x = noise(1, 3, 1 + 2 * NAMED[name].temporal_compression, 32, 32)
    (module(x) - x).abs().mean().backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A key's bias adds one number to all scores of a query, which softmax ignores: its gradient is rounding noise or zero.
    assert [n for n in silent if not n.endswith(".k.bias")] == []


@pytest.mark.parametrize("name", ["debug", "debug-dv4x8x8", "debug-ci8x8"])
def test_half_precision_stays_close(name):
    module, x = make(name), noise(1, 3, 1 + NAMED[name].temporal_compression, 16, 16)
    z, half = module._features(x), make(name).to(torch.bfloat16)
    assert half.encode(x).dtype == half.decode(z).dtype == torch.bfloat16
    torch.testing.assert_close(half._features(x).float(), z, atol=0.1 * float(z.abs().max()), rtol=0)


# --- latent statistics -----------------------------------------------------------------------------------------------


def test_without_statistics_latents_are_normal_already():
    module, z = make("debug"), noise(1, 4, 3, 2, 2)
    assert torch.equal(module.normalize(z), z)
    assert torch.equal(module.denormalize(z), z)


def test_statistics_are_per_channel_and_frame_and_the_last_repeats():
    module = make("debug")
    mean, std = noise(4, 2), noise(4, 2).abs() + 0.5
    module.set_statistics(mean, std)
    assert module.config.statistics_frames == 2
    z = noise(2, 4, 5, 2, 3)
    normal = module.normalize(z)
    for frame, stored in enumerate([0, 1, 1, 1, 1]):
        for channel in range(4):
            want = (z[:, channel, frame] - mean[channel, stored]) / std[channel, stored]
            torch.testing.assert_close(normal[:, channel, frame], want)
    torch.testing.assert_close(module.denormalize(normal), z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_tokenizer_is_stored_as_one(tmp_path, dtype):
    module = make("debug").to(dtype)
    again = load_component(save_component(tmp_path / "half", module, kind="tokenizer", provenance={}))
    assert again.dtype == dtype
    assert again.latent_mean.dtype == torch.float32


def test_statistics_come_to_where_the_latents_are():
    """Cached latents lie on the CPU while the weights may lie on a GPU; the meta device stands for either."""
    module = make("debug")
    module.set_statistics(noise(4, 2), torch.ones(4, 2))
    z = torch.zeros(1, 4, 3, 2, 2, device="meta")
    assert module.normalize(z).device == module.denormalize(z).device == z.device


def test_statistics_keep_their_precision_when_weights_are_cast():
    module, mean = make("debug"), noise(4, 3)
    module.set_statistics(mean, mean.abs() + 1)
    module.to(torch.bfloat16)
    assert module.dtype == torch.bfloat16
    assert torch.equal(module.latent_mean, mean)
    z = noise(1, 4, 3, 2, 2).to(torch.bfloat16)
    assert module.normalize(z).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (torch.zeros(4), torch.ones(4)),
        (torch.zeros(3, 2), torch.ones(3, 2)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
        (torch.full((4, 1), float("nan")), torch.ones(4, 1)),
    ],
)
def test_statistics_that_cannot_be_are_refused(mean, std):
    with pytest.raises(DataError, match="Latent statistics"):
        make("debug").set_statistics(mean, std)


def test_a_checkpoint_folder_gives_the_same_tokenizer_back(tmp_path):
    module, x = make("debug-dv4x8x8"), noise(1, 3, 5, 16, 16)
    module.set_statistics(noise(4, 3), torch.ones(4, 3))
    save_component(tmp_path / "tokenizer", module, kind="tokenizer", provenance={})
    loaded = load_component(tmp_path / "tokenizer", expect="tokenizer")
    assert loaded.config == module.config
    assert torch.equal(loaded.encode(x), module.encode(x))
    assert torch.equal(loaded.latent_mean, module.latent_mean)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (torch.zeros(1, 3, 16, 16), r"takes video \[batch, 3, frames, height, width\], not \[1, 3, 16, 16\]"),
        (torch.zeros(1, 4, 5, 16, 16), r"not \[1, 4, 5, 16, 16\]"),
        (torch.zeros(1, 3, 5, 16, 16, dtype=torch.uint8), r"uint8.*Divide by 127.5"),
        (torch.zeros(1, 3, 7, 16, 16), r"frames must be 1 \+ 4·k, not 7.*to 9"),
        (torch.zeros(1, 3, 0, 16, 16), r"not \[1, 3, 0, 16, 16\]"),
        (torch.zeros(0, 3, 5, 16, 16), r"not \[0, 3, 5, 16, 16\]"),
        (torch.zeros(1, 3, 5, 20, 16), "multiples of 8 and 8, not 20 and 16"),
        (torch.zeros(1, 3, 5, 16, 0), r"not \[1, 3, 5, 16, 0\]"),
    ],
)
def test_video_that_does_not_fit_is_refused_in_words(video, says):
    with pytest.raises(UsageError, match=says):
        make("debug").encode(video)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, 16, 16), (1, 3, 0, 16, 16)])
def test_what_padding_cannot_mend_is_refused_in_words(shape):
    with pytest.raises(UsageError, match="takes video"):
        make("debug").encode(torch.zeros(shape), strict=False)


def test_a_size_beyond_the_video_is_refused():
    with pytest.raises(UsageError, match=r"give \[1, 16, 16\] frames, rows and columns, not the \(1, 16, 17\)"):
        make("debug").decode(torch.zeros(1, 4, 1, 2, 2), size=(1, 16, 17))


def test_nan_in_latents_is_not_blamed_on_half_precision():
    with pytest.raises(DataError, match="Its input or its weights hold NaN"):
        make("debug").to(torch.bfloat16).decode(torch.full((1, 4, 1, 2, 2), float("nan")))


@pytest.mark.parametrize("latents", [torch.zeros(1, 5, 2, 2, 2), torch.zeros(4, 2, 2, 2), torch.zeros(1, 4, 0, 2, 2)])
def test_latents_that_do_not_fit_are_refused_in_words(latents):
    with pytest.raises(UsageError, match=r"latents are floats \[batch, 4, frames, height, width\]"):
        make("debug").decode(latents)


def test_indices_that_do_not_fit_are_refused_in_words():
    module = make("debug-dv4x8x8")
    with pytest.raises(DataError, match=r"from 0 to 1000 do not fit a codebook of 1000 codes"):
        module.decode_indices(torch.tensor([0, 1000]).view(1, 1, 1, 2))
    with pytest.raises(UsageError, match=r"\[batch, frames, height, width\], not \[2\]"):
        module.decode_indices(torch.tensor([0, 1]))


def test_padding_makes_any_clip_fit_and_keeps_what_was_there():
    module, x = make("debug"), noise(1, 3, 6, 13, 17)
    padded = pad_to_multiple(x, module.spec)
    assert padded.shape == (1, 3, 9, 16, 24)
    assert torch.equal(padded[:, :, :6, :13, :17], x)
    assert torch.equal(padded[:, :, 6:, :13, :17], x[:, :, 5:].expand(-1, -1, 3, -1, -1))
    assert module(padded).shape == padded.shape


# --- what users hand in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 5, 7])
def test_any_size_is_padded_and_cropped_on_request(frames):
    module, x = make("debug"), noise(1, 3, frames, 13, 22)
    with pytest.raises(UsageError):
        module.encode(x)
    z = module.encode(x, strict=False)
    assert torch.equal(z, module.encode(pad_to_multiple(x, module.spec)))
    assert module.decode(z, size=(frames, 13, 22)).shape == x.shape


@pytest.mark.parametrize("value", [1.5, -3.0, 255.0, float("nan"), float("inf")])
def test_values_outside_the_range_are_refused(value):
    module, x = make("debug"), noise(1, 3, 5, 16, 16)
    x[0, 0, 2, 3, 4] = value
    with pytest.raises(UsageError, match=r"takes video in \[-1, 1\]"):
        module.encode(x)


def test_overflow_in_half_precision_is_an_error():
    module = make("debug").to(torch.float16)
    with torch.no_grad():
        module.from_latent.weight.fill_(6e4)
    with pytest.raises(DataError, match=r"gave NaN or infinity in torch.float16.*float32"):
        module.decode(torch.full((1, 4, 2, 2, 2), 100.0))


def test_overflow_before_the_rounding_is_not_taken_for_a_code():
    module = make("debug-dv4x8x8").to(torch.float16)
    with torch.no_grad():
        module.to_latent.weight.fill_(6e4)
    with pytest.raises(DataError, match="encode gave NaN or infinity"):
        module.encode(noise(1, 3, 5, 16, 16))


def test_kernels_stay_channels_last_through_casts_and_loading():
    module = make("debug")
    module.load_state_dict(make("debug").state_dict())
    for moved in (module, module.to(torch.bfloat16)):
        assert moved.encoder.conv_out.spatial.weight[:, :, 0].is_contiguous(memory_format=torch.channels_last)
