"""VGG16's trunk and the perceptual distance: layouts, scaling, closed forms; the packaged weights on known damage."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.perception.hashing import weights_hash
from worldfoundry.perception.lpips import PerceptualDistance, load_hed_perceptual, with_heads
from worldfoundry.perception.vgg16 import BLOCKS, CHANNELS, LPIPS_SCALE, from_torchvision, load_hed_trunk

NUMBERS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # of the convolutions in torchvision's `features`


def torchvision_state(seed=0):
    generator, state = torch.Generator().manual_seed(seed), {"classifier.0.weight": torch.zeros(2, 2)}
    for numbers, sizes in zip(NUMBERS, BLOCKS, strict=True):
        for number, a, b in zip(numbers, sizes[:-1], sizes[1:], strict=True):
            state[f"features.{number}.weight"] = torch.randn(b, a, 3, 3, generator=generator) * (2 / (9 * a)) ** 0.5
            state[f"features.{number}.bias"] = torch.randn(b, generator=generator) * 0.1
    return state


def pictures(n=2, size=32, seed=3):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return PerceptualDistance(from_torchvision(torchvision_state())).eval().requires_grad_(False)


def test_the_trunk_is_vgg16_after_the_scaling_that_lpips_states():
    state, x = torchvision_state(), pictures()
    y = (x - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    with torch.no_grad():
        maps = from_torchvision(state)(x)
        for i, numbers in enumerate(NUMBERS):
            y = F.max_pool2d(y, 2) if i else y
            for number in numbers:
                y = F.relu(F.conv2d(y, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1))
            torch.testing.assert_close(maps[i], y, atol=5e-5, rtol=1e-4)  # of values up to 12: rounding in another order
    assert [m.shape[1] for m in maps] == list(CHANNELS)
    assert LPIPS_SCALE[0][0] == pytest.approx(127.5 * 0.97)


def test_keras_layout_is_read_as_the_same_network_on_bgr(tmp_path):
    state = {}
    theirs = torchvision_state()
    for i, numbers in enumerate(NUMBERS):
        for j, number in enumerate(numbers):
            state[f"conv{i + 1}_{j + 1}.kernel"] = theirs[f"features.{number}.weight"].permute(2, 3, 1, 0).contiguous()
            state[f"conv{i + 1}_{j + 1}.bias"] = theirs[f"features.{number}.bias"]
    save_file(state, tmp_path / "model.safetensors")
    x = pictures()
    bgr = ((x + 1) * 127.5).flip(1) - torch.tensor([104.00699, 116.66877, 122.67892]).view(1, 3, 1, 1)
    first = F.relu(F.conv2d(bgr, theirs["features.0.weight"], theirs["features.0.bias"], padding=1))
    first = F.relu(F.conv2d(first, theirs["features.2.weight"], theirs["features.2.bias"], padding=1))
    torch.testing.assert_close(load_hed_trunk(tmp_path)(x)[0], first, atol=1e-3, rtol=1e-4)
    del state["conv5_3.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing blocks\.4\.2\.bias"):
        load_hed_trunk(tmp_path)


def test_distance_is_zero_to_itself_symmetric_and_grows_with_noise(net):
    x = pictures()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    assert (net(x, x) == 0).all()
    torch.testing.assert_close(net(x, x + noise), net(x + noise, x))
    values = [net(x, (x + s * noise).clamp(-1, 1)).mean().item() for s in (0, 0.05, 0.15, 0.5)]
    assert values == sorted(values)
    assert values[0] < values[1] < values[3]


def test_distance_is_the_weighted_difference_of_unit_vectors(net):
    """The closed form on maps of one pixel each: |a - b|² weighted by channel, summed over the layers."""
    generator = torch.Generator().manual_seed(0)
    a, b = ([F.normalize(torch.rand(1, c, 1, 1, generator=generator), dim=1) for c in CHANNELS] for _ in range(2))
    want = sum(((x - y).flatten().square() * head).sum() for x, y, head in zip(a, b, net.heads, strict=True))
    torch.testing.assert_close(net.between(a, b), want.view(1))


def test_one_picture_against_many_equals_one_by_one(net):
    x = pictures(3)
    torch.testing.assert_close(
        net.between(net.maps(x[:1]), net.maps(x)), net(x[:1].repeat(3, 1, 1, 1), x), atol=1e-6, rtol=1e-4
    )


def test_heads_are_read_and_those_of_another_size_refused(tmp_path):
    save_file(
        {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(CHANNELS)}, tmp_path / "model.safetensors"
    )
    loaded, trunk = with_heads(from_torchvision(torchvision_state()), tmp_path), from_torchvision(torchvision_state())
    assert loaded.heads[4].shape == (512,)
    for a, b in zip(loaded.trunk(pictures()), trunk(pictures()), strict=True):  # fewer products, the same numbers
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    save_file({f"lin{i}.model.1.weight": torch.rand(1, 64, 1, 1) for i in range(5)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"heads\.1 is \[64\]"):
        with_heads(from_torchvision(torchvision_state()), tmp_path)


def test_the_hash_follows_the_weights_and_nothing_else():
    same, other = (from_torchvision(torchvision_state(seed)) for seed in (0, 1))
    assert weights_hash(from_torchvision(torchvision_state())) == weights_hash(same) != weights_hash(other)


@pytest.mark.skipif(
    not (is_fetched("hed-vgg16") and is_fetched("lpips-heads")),
    reason="needs `worldfoundry models get hed-vgg16` and lpips-heads",
)
def test_packaged_weights_order_known_damage():
    net = load_hed_perceptual(model_folder("hed-vgg16"), model_folder("lpips-heads"))
    assert all((head >= 0).all() for head in net.heads)
    generator = torch.Generator().manual_seed(0)
    x = F.interpolate(torch.rand(1, 3, 8, 8, generator=generator), (64, 64), mode="bicubic").clamp(0, 1) * 2 - 1
    noise = torch.randn(x.shape, generator=generator)
    values = [net(x, (x + s / 127.5 * noise).clamp(-1, 1)).item() for s in (0, 10, 25, 50)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[3] > 5 * values[1] > 0
