"""A linear start is the best linear code, held exactly by the published network."""

import pytest
import torch

from worldfoundry.core.errors import UsageError
from worldfoundry.nn.haar import patchify_video, unpatchify_video
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.tokenizers.linear_start import can_start_linear, linear_start


def video(count=6, seed=0):
    """Smooth drifting patterns in [-1, 1]: something that a few components can nearly hold."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 9, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(9, 32, 32), mode="trilinear").clamp(-1, 1)


def pca_reconstruction(x, train, components, patch_size=4):
    """The textbook: project the rows of Haar bands onto the leading eigenvectors of their covariance."""
    rows = patchify_video(train, patch_size).movedim(1, -1).flatten(0, -2).double()
    mean = rows.mean(0)
    basis = torch.linalg.eigh((rows - mean).T @ (rows - mean))[1][:, -components:]
    bands = patchify_video(x, patch_size).movedim(1, -1).double()
    back = (bands - mean) @ basis @ basis.T + mean
    return unpatchify_video(back.movedim(-1, 1).float(), patch_size)


def test_it_reconstructs_as_pca_does():
    tokenizer = build_tokenizer(named_config("debug-cv4x4x4").to_dict())
    train, x = video(), video(seed=1)
    kept = linear_start(tokenizer, train)
    want = pca_reconstruction(x, train, tokenizer.config.latent_channels)
    error, scale = (tokenizer(x) - want).abs().max(), want.abs().max()
    assert 0.5 < kept < 1
    assert error < 0.02 * scale


@pytest.mark.parametrize("latents", [6, 24, 26])
def test_more_channels_than_bands_leave_the_rest_unused(latents):
    """2x2x2 patches have 24 bands: fewer than the 31 pairs of channels, and than 26 latents."""
    small = named_config("debug-cv4x4x4").replace(
        patch_size=2, spatial_compression=2, temporal_compression=2, latent_channels=latents, z_channels=latents
    )
    tokenizer = build_tokenizer(small.to_dict())
    train, x = video(), video(seed=1)
    linear_start(tokenizer, train)
    want = pca_reconstruction(x, train, min(latents, 24), patch_size=2)
    assert (tokenizer(x) - want).abs().max() < 0.02 * want.abs().max()


def test_it_stays_causal_and_trainable():
    tokenizer = build_tokenizer(named_config("debug-cv4x4x4").to_dict())
    x = video(2)
    linear_start(tokenizer, x)
    later = x.clone()
    later[:, :, 5:] = 0
    assert torch.equal(tokenizer.encode(x)[:, :, :2], tokenizer.encode(later)[:, :, :2])
    before = (tokenizer(x) - x).square().mean()
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=1e-4)
    for _ in range(12):
        optimizer.zero_grad()
        (tokenizer(x) - x).square().mean().backward()
        optimizer.step()
    assert (tokenizer(x) - x).square().mean() < before


@pytest.mark.parametrize("name", ["debug-cv4x8x8", "debug-dv4x8x8", "debug-ci8x8"])
def test_networks_that_cannot_hold_it_are_refused(name):
    config = named_config(name)
    assert not can_start_linear(config)
    with pytest.raises(UsageError, match="linear start needs"):
        linear_start(build_tokenizer(config.to_dict()), video(1))
