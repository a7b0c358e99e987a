"""EfficientNet-lite0: the published names find their places, "same" padding is TensorFlow's, and the real weights see a street."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.model_store import is_fetched, model_folder
from worldfoundry.core.video_io import read_video
from worldfoundry.data import sample
from worldfoundry.evaluation.features import as_pictures, resize
from worldfoundry.perception.effnet_lite0 import FEATURES, EfficientNetLite0, from_published, load_effnet_lite0, same_padding

STREET = {
    821,
    517,
    468,
    718,
}  # ImageNet's numbers of steel arch bridge, crane, cab, pier: what a street between high buildings resembles


def published(seed=0):
    """Random tensors under the published names, batch statistics included."""
    net, generator = EfficientNetLite0(), torch.Generator().manual_seed(seed)
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for i, block in enumerate(net.blocks):
        names[f"blocks.{i}.expand"] = (f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
        names[f"blocks.{i}.depthwise"] = (f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        names[f"blocks.{i}.project"] = (f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
        assert (block.expand is None) == (i == 0)
    state = {}
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        module, kind = name.rsplit(".", 1)
        place, _, part = module.rpartition(".")
        theirs = "_fc" if module == "classifier" else names[place][0 if part == "conv" else 1]
        value = torch.randn(tensor.shape, generator=generator) * 0.2
        state[f"{theirs}.{kind}"] = (
            value.abs() + 0.5 if kind == "running_var" else value + (kind == "weight" and part == "norm")
        )
    return state


def by_hand(state, x):
    """The features, straight from the published names: stem, first block, second block's widening, to catch a swapped name."""

    def norm(x, name):
        parts = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    x = F.relu6(norm(F.conv2d(same_padding(x, 3, 2), state["_conv_stem.weight"], stride=2), "_bn0"))
    x = F.conv2d(F.pad(x, (1, 1, 1, 1)), state["_blocks.0._depthwise_conv.weight"], groups=32)
    x = norm(F.conv2d(F.relu6(norm(x, "_blocks.0._bn1")), state["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    return F.relu6(norm(F.conv2d(x, state["_blocks.1._expand_conv.weight"]), "_blocks.1._bn0"))


def test_published_names_find_their_places():
    state = published()
    net, x = from_published(state), torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        ours = net.blocks[1].expand(net.blocks[0](net.stem((x * 127.5 + 127.5 - 127) / 128)))
        torch.testing.assert_close(ours, by_hand(state, (x * 127.5 + 0.5) / 128))
        features = net.features(x)
        assert features.shape == (2, FEATURES)
        assert (features >= 0).all()
        torch.testing.assert_close(net(x), F.linear(features, state["_fc.weight"], state["_fc.bias"]))
        assert torch.equal(net.features(x), features)
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert not net.training


def test_a_missing_tensor_is_named():
    state = published()
    del state["_blocks.3._bn1.weight"]
    with pytest.raises(CheckpointError, match=r"missing blocks\.3\.depthwise\.norm\.weight"):
        from_published(state)


@pytest.mark.parametrize("size", [7, 8, 224])
def test_same_padding_gives_ceil_of_the_size_over_the_stride(size):
    x = torch.zeros(1, 1, size, size)
    for kernel, stride in ((3, 1), (3, 2), (5, 2), (1, 1)):
        padded = same_padding(x, kernel, stride)
        assert (padded.shape[2] - kernel) // stride + 1 == -(-size // stride)
    assert same_padding(torch.ones(1, 1, 8, 8), 3, 2)[0, 0, 0, 0] == 1  # even size: the odd zero is right and below
    assert same_padding(torch.ones(1, 1, 8, 8), 3, 2)[0, 0, -1, -1] == 0


@pytest.mark.skipif(not is_fetched("effnet-lite0"), reason="needs `worldfoundry models get effnet-lite0`")
def test_published_weights_know_a_street_from_a_table():
    """Two moments of a street are far more alike than a street and a tabletop, and the street is classified as things of a street."""
    net = load_effnet_lite0(model_folder("effnet-lite0"))
    footage = Path(sample.__file__).parent / "sample_footage"
    street, table = (read_video(footage / name, max_frames=20).frames for name in ("city.mp4", "episode_000000.mp4"))
    x = torch.cat([resize(as_pictures(frames[[0, 19]]), 224, 224) for frames in (street, table)])
    features = F.normalize(net.features(x), dim=1)
    alike = features @ features.T
    assert min(alike[0, 1], alike[2, 3]) > alike[:2, 2:].max() + 0.1
    assert set(net(x[:2]).argmax(1).tolist()) <= STREET
