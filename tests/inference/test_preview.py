"""Previews: a least-squares map is the best linear one, pictures are small, and a guard sees them first."""

import numpy as np
import torch
from PIL import Image

from worldfoundry.core.contracts import Verdict
from worldfoundry.inference.preview import LatentPreview, fit_latent_to_rgb, save_previews


class Averages:
    """A tokenizer whose latents are a linear map of mean colours: a linear preview is exact."""

    class spec:
        t, h, w, channels = 4, 8, 8, 3

    MIX = torch.tensor([[0.5, 0.2, 0.0], [0.0, 1.0, 0.3], [0.1, 0.0, -2.0]])

    def encode(self, x):
        first, rest = x[:, :, :1], x[:, :, 1:]
        pool = torch.nn.functional.avg_pool3d
        return torch.einsum("bcthw,cd->bdthw", torch.cat([pool(first, (1, 8, 8)), pool(rest, (4, 8, 8))], dim=2), self.MIX)

    def decode(self, z):
        rgb = torch.einsum("bdthw,dc->bcthw", z, torch.linalg.inv(self.MIX))
        x = rgb.repeat_interleave(8, 3).repeat_interleave(8, 4)
        return torch.cat([x[:, :, :1], x[:, :, 1:].repeat_interleave(4, 2)], dim=2)

    def normalize(self, z):
        return (z - 0.25) / 3


def test_a_linear_tokenizer_is_previewed_exactly():
    tokenizer = Averages()
    rgb = torch.rand(1, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = torch.einsum("bcthw,cd->bdthw", rgb, tokenizer.MIX)
    seen = LatentPreview(tokenizer)(tokenizer.normalize(z))
    want = rgb.add(1).mul(127.5).round().movedim(1, -1).numpy()
    assert seen.shape == (1, 2, 4, 5, 3)
    assert np.abs(seen.astype(int) - want.astype(int)).max() <= 1


def test_a_real_tokenizer_gives_a_finite_map(make_world):
    tokenizer = make_world().tokenizer
    weight = fit_latent_to_rgb(tokenizer, torch.device("cpu"))
    assert weight.shape == (5, 3)
    assert torch.isfinite(weight).all()


def test_strips_are_written_every_n_steps_but_not_at_the_last(make_world, make_frames, tmp_path):
    world = make_world()
    callback = save_previews(world, tmp_path / "out.mp4", 2)
    request = world.resolve(num_inference_steps=6)
    world.sample(request, [make_frames(5)], None, callback_on_step_end=callback)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.step002.png", "out.step004.png"]
    with Image.open(tmp_path / "out.step004.png") as picture:
        assert picture.size == (3 * 96, 96)


class Objects:
    name, takes = "objects", "video"

    def check(self, item):
        return Verdict(status="unsafe", guard="objects", reason="no")


def test_a_preview_that_a_guard_objects_to_is_not_written(make_world, tmp_path, capsys):
    world = make_world()
    world.guardrails.video = (Objects(),)
    callback = save_previews(world, tmp_path / "out.mp4", 1)
    world.sample(world.resolve(num_inference_steps=2), [None], None, callback_on_step_end=callback)
    assert not list(tmp_path.iterdir())
    assert "the preview of step 1 is not written: The preview was blocked" in capsys.readouterr().err
