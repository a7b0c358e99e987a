import pytest
import torch

from worldfoundry.nn.haar import patchify_image, patchify_video, unpatchify_image, unpatchify_video


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_video_is_reconstructed_and_halved(patch):
    video = noise(2, 3, 1 + 2 * patch, 3 * patch, 2 * patch)
    bands = patchify_video(video, patch)
    assert bands.shape == (2, 3 * patch**3, 3, 3, 2)
    torch.testing.assert_close(unpatchify_video(bands, patch), video, atol=1e-12, rtol=0)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_images_are_reconstructed_and_halved(patch):
    images = noise(2, 3, 3 * patch, 2 * patch)
    bands = patchify_image(images, patch)
    assert bands.shape == (2, 3 * patch**2, 3, 2)
    torch.testing.assert_close(unpatchify_image(bands, patch), images, atol=1e-12, rtol=0)


@pytest.mark.parametrize("patch", [2, 4])
def test_a_constant_keeps_its_value_in_the_first_band_and_nothing_elsewhere(patch):
    bands = patchify_video(torch.full((1, 2, 1 + patch, patch, patch), 0.7), patch)
    torch.testing.assert_close(bands[:, :2], torch.full_like(bands[:, :2], 0.7))
    assert bands[:, 2:].abs().max() < 1e-6


@pytest.mark.parametrize(("axis", "band"), [(2, 4), (3, 2), (4, 1)])
def test_bands_of_video_count_time_height_width(axis, band):
    """A clip that alternates ±1 along one axis is the high band of that axis, positive where it starts with +1."""
    shape = [1, 1, 2, 2, 2]
    signs = torch.ones(shape)
    signs.index_fill_(axis, torch.tensor([1]), -1.0)
    video = torch.cat((torch.zeros(1, 1, 1, 2, 2), signs), dim=2)
    last = patchify_video(video, 2)[0, :, 1].flatten()
    assert last.tolist() == [float(k == band) for k in range(8)]


@pytest.mark.parametrize(("axis", "band"), [(2, 1), (3, 2)])
def test_bands_of_images_count_width_height(axis, band):
    signs = torch.ones(1, 1, 2, 2).index_fill(axis, torch.tensor([1]), -1.0)
    assert patchify_image(signs, 2).flatten().tolist() == [float(k == band) for k in range(4)]


def test_colour_channels_run_fastest():
    video = torch.stack([torch.full((1, 1, 2, 2), value) for value in (0.1, 0.2, 0.3)], dim=1)
    torch.testing.assert_close(patchify_video(video, 2)[0, :3].flatten(), torch.tensor([0.1, 0.2, 0.3]))


def test_one_image_is_a_video_whose_frame_fills_a_patch():
    """Without change over time all bands with a high time digit are zero and the rest are the image's own."""
    image = noise(1, 3, 4, 4)
    bands = patchify_video(image.unsqueeze(2), 2).unflatten(1, (2, 2, 2, 3))[:, :, :, :, :, 0]
    assert bands[:, 1].abs().max() < 1e-12
    of_image = patchify_image(image, 2).unflatten(1, (2, 2, 3))
    torch.testing.assert_close(bands[:, 0], of_image.transpose(1, 2))
