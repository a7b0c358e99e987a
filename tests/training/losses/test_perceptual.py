"""Perceptual and Gram terms: 0 for equal pictures, closed forms for simple features, which VGG files are taken."""

import pytest
import torch

from worldfoundry.core.errors import CheckpointError
from worldfoundry.perception.vgg16 import BLOCKS, LPIPS_SCALE, Vgg16Trunk
from worldfoundry.training.losses.perceptual import (
    LAYER_WEIGHTS,
    VggFeatures,
    gram,
    gram_loss,
    load_features,
    perceptual_loss,
    random_frames,
)

VGG19 = (2, 2, 4, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def torchvision_state(lengths, width=4):
    """A VGG of torchvision's names with few channels."""
    state, number, ins = {}, 0, 3
    for length in lengths:
        for _ in range(length):
            state[f"features.{number}.weight"] = 0.1 * torch.randn(width, ins, 3, 3, generator=generator(number))
            state[f"features.{number}.bias"] = torch.zeros(width)
            number, ins = number + 2, width
        number += 1
    return {**state, "classifier.0.weight": torch.zeros(1, 1)}


def features(height=16, batch=2, seed=0):
    return [torch.randn(batch, 3, height // 2**i, height // 2**i, generator=generator(seed + i)) for i in range(5)]


def test_equal_pictures_cost_nothing():
    a = features()
    assert perceptual_loss(a, a) == 0
    assert gram_loss(a, a, num_frames=1) == 0


def test_the_perceptual_term_is_the_weighted_l1():
    a = features()
    assert perceptual_loss([f + 0.5 for f in a], a) == pytest.approx(0.5 * sum(LAYER_WEIGHTS), rel=1e-5)


def test_the_gram_matrix_of_constant_features_is_their_outer_product():
    values = torch.tensor([1.0, 2.0, -3.0])
    f = values.view(1, 3, 1, 1).expand(4, 3, 5, 6)
    assert torch.allclose(gram(f, num_frames=2), torch.outer(values, values).expand(2, 3, 3))


def test_the_gram_matrix_forgets_places_and_frames_but_not_features():
    f = torch.randn(6, 3, 4, 4, generator=generator())
    shuffled = (
        f.flatten(2)[:, :, torch.randperm(16, generator=generator())].view_as(f).view(2, 3, 3, 4, 4).flip(1).flatten(0, 1)
    )
    assert torch.allclose(gram(f, 3), gram(shuffled, 3), atol=1e-6)
    assert not torch.allclose(gram(f, 3), gram(f.flip(1), 3), atol=1e-3)


def test_the_gram_term_of_doubled_constant_features_is_known():
    ones = [torch.ones(1, 2, 4, 4) for _ in range(5)]
    assert gram_loss([2 * f for f in ones], ones, 1) == pytest.approx(9 * sum(LAYER_WEIGHTS), rel=1e-5)  # (4 - 1)²


def test_random_frames_are_the_same_of_both_clips_and_differ_from_each_other():
    clip = torch.arange(2 * 5.0).view(2, 1, 5, 1, 1).expand(2, 3, 5, 2, 2)
    true, made = random_frames([clip, clip + 100], 3, generator())
    assert true.shape == (6, 3, 2, 2)
    assert torch.equal(true + 100, made)
    seen = true[:, 0, 0, 0].view(2, 3).tolist()
    assert all(len(set(row)) == 3 for row in seen)
    assert all(0 <= v < 5 for v in seen[0])
    assert all(5 <= v < 10 for v in seen[1])
    assert random_frames([clip], 9, generator())[0].shape[0] == 10  # no more than there are


@pytest.mark.parametrize(("lengths", "suffix"), [([len(b) - 1 for b in BLOCKS], ".pth"), (VGG19, ".safetensors")])
def test_torchvision_files_give_five_maps(tmp_path, lengths, suffix):
    from safetensors.torch import save_file

    state, file = torchvision_state(lengths), tmp_path / f"vgg{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, file)
    net = load_features(file)
    x = torch.rand(1, 3, 32, 32, generator=generator()) * 2 - 1
    maps = net(x)
    assert [tuple(m.shape) for m in maps] == [(1, 4, 32 // 2**i, 32 // 2**i) for i in range(5)]
    scaled = ((x + 1) * 127.5 - torch.tensor(LPIPS_SCALE[0]).view(1, 3, 1, 1)) / torch.tensor(LPIPS_SCALE[1]).view(1, 3, 1, 1)
    for number in (0, 2):
        kernel, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
        scaled = torch.nn.functional.conv2d(scaled, kernel, bias, padding=1).relu()
    assert torch.allclose(maps[0], scaled, atol=1e-5)
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("what", ["another network", "no tensors", "text", "absent"])
def test_other_files_are_refused_in_one_line(tmp_path, what):
    file = tmp_path / "vgg.pth"
    if what == "another network":
        torch.save(torchvision_state([2, 2]), file)
    elif what == "no tensors":
        torch.save({"epoch": 3}, file)
    elif what == "text":
        file.write_text("hello")
    with pytest.raises(CheckpointError, match=r"VGG") as caught:
        load_features(file)
    assert "\n" not in caught.value.message


def test_dividing_features_of_a_network_without_biases_is_dividing_its_input():
    trunk = Vgg16Trunk(bgr=True, scale=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    for i, p in enumerate(trunk.parameters()):
        torch.nn.init.zeros_(p) if p.ndim == 1 else torch.nn.init.normal_(p, std=0.05, generator=generator(i))
    x = torch.rand(1, 3, 16, 16, generator=generator()) * 2 - 1
    for a, b in zip(VggFeatures(trunk, 2.0)(x), VggFeatures(trunk, 1.0)((x + 1) / 2 - 1), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
