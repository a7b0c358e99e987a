"""Pictures of any shape in a world of several: padded as in training, the network told where, and cropped afterwards."""

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.data.resize import pad_to, padding_mask
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.canvas import canvas, fit_picture, natural_size
from worldfoundry.inference.world_folder import save_world

SHAPES = {"1x1": (64, 64), "16x9": (48, 80), "9x16": (80, 48), "4x3": (48, 64), "3x4": (64, 48)}


@pytest.fixture(scope="module")
def world(make_world):
    world = make_world(shapes={"1x1": (64, 64), "16x9": (48, 80)}, action_names=(), action_rms=())
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    return world


def textured(count, height, width):
    rng = np.random.default_rng(0)
    return np.repeat(rng.integers(0, 255, (1, height, width, 3), dtype=np.uint8), count, axis=0)


@pytest.mark.parametrize(("height", "width"), [(50, 90), (20, 80), (64, 64), (90, 50), (31, 47), (33, 32), (1, 40)])
def test_given_frames_are_padded_exactly_as_in_training(height, width):
    """Scaled to their natural size and padded on the canvas, they are what `pad_to` made of the clips, and so is the mask."""
    frames = textured(2, height, width)
    size = natural_size(SHAPES, height, width)
    place = canvas(SHAPES, *size, 16)
    assert (place.height, place.width) in SHAPES.values()
    whole = place.pad(fit_picture(frames, SHAPES, *size)[None])
    assert np.array_equal(whole[0], pad_to(frames, place.height, place.width))
    assert np.array_equal(place.mask(), padding_mask(height, width, place.height, place.width))
    assert np.array_equal(place.crop(whole)[0], fit_picture(frames, SHAPES, *size))


@pytest.mark.parametrize(("height", "width"), [(36, 64), (45, 90), (100, 20), (24, 40), (25, 33)])
def test_any_size_fits_into_the_smallest_frame_of_a_trained_shape(height, width):
    place = canvas(SHAPES, height, width, 16)
    assert (place.rows, place.columns) == (height, width)
    assert place.height % 16 == place.width % 16 == 0
    assert 0 <= place.top <= place.height - height
    assert 0 <= place.left <= place.width - width
    assert place.height < height + 16 or place.width < width + 16


def test_without_shapes_the_picture_is_all():
    place = canvas({}, 33, 47, 8)
    assert not place.padded
    assert (place.height, place.width, place.top, place.left) == (33, 47, 0, 0)


def spy_on(world, monkeypatch):
    """The conditions that a world's network is told."""
    seen, denoiser = [], world.denoiser
    monkeypatch.setattr(
        world, "denoiser", lambda x, sigma, condition, memo=None: seen.append((x, condition)) or denoiser(x, sigma, condition)
    )
    return seen


@pytest.mark.parametrize("guidance_scale", [0.0, 2.0])
def test_a_wide_input_gives_a_wide_video_and_the_network_is_told_of_the_padding(world, monkeypatch, guidance_scale):
    seen, given = spy_on(world, monkeypatch), textured(5, 10, 40)
    clip = world.generate(input=given, guidance_scale=guidance_scale)
    assert clip.frames.shape == (9, 20, 80, 3)
    assert (clip.config["height"], clip.config["width"]) == (20, 80)
    assert np.array_equal(clip.frames[:5], fit_picture(given, world.config.shapes, 20, 80))
    x, condition = seen[0]
    assert x.shape[-2:] == (6, 10)
    masks = condition.padding_mask_B1HW
    assert np.array_equal(masks[0, 0].numpy(), padding_mask(10, 40, 48, 80))
    whole = torch.from_numpy(pad_to(given, 48, 80)).movedim(-1, 0)[None].float() / 127.5 - 1
    want = world.tokenizer.normalize(world.tokenizer.encode(whole)) * world.scheduler.sigma_data
    torch.testing.assert_close(condition.prefix_BCTHW[:1], want, atol=1e-5, rtol=1e-5)


def test_the_mask_changes_what_is_generated(world, monkeypatch):
    request = world.resolve(height=20, width=80)
    told = world.sample(request, [None], None)
    monkeypatch.setattr("worldfoundry.inference.canvas.Canvas.padded", property(lambda self: False))
    assert not np.array_equal(told, world.sample(request, [None], None))


@pytest.mark.parametrize(("aspect", "size"), SHAPES.items())
def test_text_alone_at_every_trained_aspect(make_world, aspect, size):
    world = make_world(shapes=SHAPES, action_names=(), action_rms=())
    world.guardrails = Guardrails.from_policy(GuardPolicy(action="off", reason="random weights flash"))
    assert world.generate(aspect=aspect, num_frames=5).frames.shape == (5, *size, 3)


def test_a_size_that_was_asked_for_is_kept(world):
    clip = world.generate(input=textured(5, 10, 40), height=30, width=32)
    assert clip.frames.shape == (9, 30, 32, 3)


def test_a_long_video_and_an_end_in_a_padded_shape(world):
    start, end = textured(5, 10, 40), textured(4, 20, 80)
    clip = world.generate(input=start, end=end, num_frames=21)
    assert clip.frames.shape == (21, 20, 80, 3)
    assert np.array_equal(clip.frames[-4:], fit_picture(end, world.config.shapes, 20, 80))


def test_a_world_of_one_shape_crops_as_ever(make_world):
    clip = make_world(action_names=(), action_rms=()).generate(input=textured(5, 20, 80).clip(100, 140))
    assert clip.frames.shape == (9, 32, 32, 3)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"aspect": "4x3"}, r"not trained on the aspect '4x3'\. It has 1x1, 16x9"),
        ({"aspect": "1x1", "height": 64}, "Both an aspect and a size"),
    ],
)
def test_an_aspect_that_cannot_be_had(world, asked, words):
    with pytest.raises(UsageError, match=words):
        world.generate(**asked)


def test_images_are_decoded_with_their_own_statistics(make_world):
    """Of a clip of one latent frame the network's latents are brought back from the images' scale; longer clips are not."""
    plain = make_world(action_names=(), action_rms=())
    told = make_world(action_names=(), action_rms=(), image_latents={"mean": (0.1, -0.2, 0.3, 0.0), "std": 1.5})
    request = plain.resolve(num_frames=1)
    one, two = (world.sample_latents(request, [None], None) for world in (plain, told))
    torch.testing.assert_close(two, one * 1.5 + torch.tensor([0.1, -0.2, 0.3, 0.0]).view(1, -1, 1, 1, 1), atol=1e-4, rtol=1e-4)
    longer = plain.resolve(num_frames=5)
    assert torch.equal(plain.sample_latents(longer, [None], None), told.sample_latents(longer, [None], None))


def test_statistics_of_other_channels_are_refused(make_world, tmp_path):
    world = make_world(image_latents={"mean": (0.1, -0.2), "std": 1.5})
    folder = save_world(tmp_path / "world", world, provenance={}, card="")
    with pytest.raises(CheckpointError, match="image_latents of 2 channels, its vae has 4"):
        wf.load(folder)
