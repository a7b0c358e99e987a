"""TransNet V2: published names, the comparison of neighbours, colour histograms; the real weights find a cut."""

import pytest
import torch
import torch.nn.functional as F

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.perception.transnet_v2 import (
    FEATURES,
    LOOKUP,
    TransNetV2,
    colour_histograms,
    from_published,
    load_transnet_v2,
    neighbours,
)


def published(seed=0):
    """Random tensors under the published names."""
    generator, state = torch.Generator().manual_seed(seed), {}
    plain = {"projection": "frame_sim_layer.projection", "similarity": "frame_sim_layer.fc", "histogram": "color_hist_layer.fc"}
    plain |= {"hidden": "fc1", "cut": "cls_layer1", "transition": "cls_layer2"}
    for name, tensor in TransNetV2().state_dict().items():
        module, kind = name.rsplit(".", 1)
        if module.startswith("stages"):
            _, stage, half, part, *rest = module.split(".")
            where = f"SDDCNN.{stage}.DDCNN.{('first', 'second').index(half)}"
            layer = 0 if part == "space" else 1
            theirs = f"{where}.bn" if part == "norm" else f"{where}.Conv3D_{2 ** int(rest[0])}.layers.{layer}"
        else:
            theirs = plain[module]
        value = torch.randn(tensor.shape, generator=generator) * 0.1 if tensor.is_floating_point() else tensor
        state[f"{theirs}.{kind}"] = value.abs() + 0.5 if kind == "running_var" else value
    return state


def video(frames=7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, frames, 27, 48, 3), generator=generator, dtype=torch.uint8)


def test_published_names_find_their_places():
    state, x = published(), video()
    net = from_published(state)
    clip = x.permute(0, 4, 1, 2, 3).float() / 255
    parts = []
    for d in (1, 2, 4, 8):
        space = F.conv3d(clip, state[f"SDDCNN.0.DDCNN.0.Conv3D_{d}.layers.0.weight"], padding=(0, 1, 1))
        time = state[f"SDDCNN.0.DDCNN.0.Conv3D_{d}.layers.1.weight"]
        parts.append(F.conv3d(space, time, padding=(d, 0, 0), dilation=(d, 1, 1)))
    names = ("running_mean", "running_var", "weight", "bias")
    want = F.batch_norm(torch.cat(parts, 1), *(state[f"SDDCNN.0.DDCNN.0.bn.{k}"] for k in names), eps=1e-3)
    torch.testing.assert_close(net.stages[0].first(clip), want, atol=1e-5, rtol=1e-4)
    cut, transition = net(x)
    assert cut.shape == transition.shape == (2, 7)
    assert net.features(x).shape == (2, FEATURES)
    assert (net.features(x) >= 0).all()
    assert torch.equal(net.features(x), net.features(x))
    torch.testing.assert_close(net.features(x)[1:], net.features(x[1:]), atol=1e-6, rtol=1e-4)
    del state["fc1.bias"]
    with pytest.raises(CheckpointError, match=r"missing hidden\.bias"):
        from_published(state)


def test_neighbours_are_counted_from_50_before_to_50_after():
    x = torch.rand(1, 5, 3, generator=torch.Generator().manual_seed(0))
    found = neighbours(x)
    assert found.shape == (1, 5, LOOKUP)
    for t in range(5):
        for offset in (-4, -1, 0, 2, 60):
            k = 50 + offset
            if 0 <= t + offset < 5:
                torch.testing.assert_close(found[0, t, k], x[0, t] @ x[0, t + offset])
            elif k < LOOKUP:
                assert found[0, t, k] == 0


def test_a_histogram_counts_each_colour_once_per_pixel():
    frames = torch.zeros(1, 2, 27, 48, 3, dtype=torch.uint8)
    frames[0, 1, :, :24] = torch.tensor([255, 0, 32], dtype=torch.uint8)  # half the picture: bin (7, 0, 1)
    found = colour_histograms(frames)
    assert found[0, 0, 0] == 1
    torch.testing.assert_close(found[0, 1, [0, 7 * 64 + 1]], torch.full((2,), 0.5**0.5))


@pytest.mark.skipif(not is_fetched("transnetv2"), reason="needs `worldfoundry models get transnetv2`")
def test_published_weights_find_the_cut():
    generator = torch.Generator().manual_seed(0)
    scenes = F.interpolate(torch.rand(2, 3, 4, 6, generator=generator), (27, 80), mode="bicubic").clamp(0, 1) * 255
    shots = [torch.stack([scene[:, :, t : t + 48] for t in range(20)]) for scene in scenes]  # two pans, one after the other
    frames = torch.cat(shots).round().to(torch.uint8).permute(0, 2, 3, 1)[None]
    cut, _ = load_transnet_v2(model_folder("transnetv2"))(frames)
    assert cut[0].argmax() == 19  # the last frame of the first shot
    assert cut[0].sigmoid()[19] > 0.5
    assert (cut[0].sigmoid()[[5, 12, 30]] < 0.1).all()
