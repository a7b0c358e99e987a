"""OpenNSFW: names of the ONNX file find their places, the packaged copy gives the published network's numbers."""

import torch
import torch.nn.functional as F

from worldfoundry.perception.open_nsfw import STAGES, OpenNSFW, from_published, load_open_nsfw


def random_state():
    """Random tensors under the names of the ONNX file."""
    generator, state = torch.Generator().manual_seed(0), {}

    def add(name, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{name}_weights_fused_bn"] = torch.randn(shape, generator=generator) * fan_in**-0.5
        state[f"{name}_bias_fused_bn"] = torch.randn(shape[0], generator=generator) * 0.1

    add("Conv__440", 64, 3, 7, 7)
    number, channels = 441, 64
    for stage, (width, blocks, _) in enumerate(STAGES):
        for block in range(blocks):
            place = f"conv_stage{stage}_block{block}"
            if block == 0:
                add(f"{place}_proj_shortcut/BiasAdd", 4 * width, channels, 1, 1)
            add(f"{place}_branch2a/BiasAdd", width, channels, 1, 1)
            add(f"Conv__{number}", width, width, 3, 3)
            add(f"{place}_branch2c/BiasAdd", 4 * width, width, 1, 1)
            number, channels = number + 7, 4 * width
    state["fc_nsfw/MatMul/ReadVariableOp:0"] = torch.randn(channels, 2, generator=generator) * 0.03
    state["fc_nsfw/BiasAdd/ReadVariableOp:0"] = torch.tensor([0.3, -0.3])
    return state


def by_hand(state, x):
    """The network straight from the published names."""

    def conv(x, name, stride=1, padding=0):
        return F.conv2d(x, state[f"{name}_weights_fused_bn"], state[f"{name}_bias_fused_bn"], stride, padding)

    x = F.relu(conv(x.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None], "Conv__440", 2, 3))
    x, number = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2), 441
    for stage, (_, blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            place, s = f"conv_stage{stage}_block{block}", stride if block == 0 else 1
            short = conv(x, f"{place}_proj_shortcut/BiasAdd", s) if block == 0 else x
            y = F.relu(conv(F.relu(conv(x, f"{place}_branch2a/BiasAdd", s)), f"Conv__{number}", 1, 1))
            x, number = F.relu(conv(y, f"{place}_branch2c/BiasAdd") + short), number + 7
    logits = x.mean((2, 3)) @ state["fc_nsfw/MatMul/ReadVariableOp:0"] + state["fc_nsfw/BiasAdd/ReadVariableOp:0"]
    return logits.softmax(1)[:, 1]


def test_published_names_find_their_places():
    state = random_state()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    torch.testing.assert_close(from_published(state)(x), by_hand(state, x))
    assert sum(p.numel() for p in OpenNSFW().parameters()) == 5_891_266


def test_the_packaged_copy_gives_the_published_numbers():
    """onnxruntime on the published file says 1.973955e-06 and 5.014956e-07; half-precision weights change the logit by 0.003."""
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    p = load_open_nsfw()(F.interpolate(x, size=224, mode="bicubic").clamp(0, 255))
    torch.testing.assert_close(p.logit(), torch.tensor([1.973954795e-06, 5.014956059e-07]).logit(), atol=0.01, rtol=0)
