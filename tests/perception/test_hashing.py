"""The hash of a network's weights: every dtype has one, and it changes with each thing that it stands for."""

import hashlib

import pytest
import torch
from torch import nn

from worldfoundry.perception.hashing import weights_hash


def network(dtype=torch.float32, shape=(2, 3), name="weight"):
    net = nn.Module()
    net.register_buffer(name, torch.arange(6).reshape(shape).to(dtype))
    net.register_buffer("scalar", torch.tensor(7, dtype=dtype))
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_it_is_sha256_of_names_types_shapes_and_bytes(dtype):
    net, digest = network(dtype), hashlib.sha256()
    for name in ("scalar", "weight"):
        tensor = getattr(net, name)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode() + tensor.numpy().tobytes())
    assert weights_hash(net, 64) == digest.hexdigest()


def test_every_type_name_and_shape_has_a_hash_of_its_own():
    types = [torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.float16, torch.complex64]
    nets = [*map(network, types), network(shape=(3, 2)), network(name="other")]
    assert len({weights_hash(net) for net in nets}) == len(nets)
    assert weights_hash(network(torch.bfloat16)) == weights_hash(network(torch.bfloat16))


def test_one_changed_bfloat16_is_seen_and_the_layout_in_memory_is_not():
    net, changed = (nn.Conv2d(4, 4, 3).to(torch.bfloat16) for _ in range(2))
    changed.load_state_dict(net.state_dict())
    changed.weight.data = changed.weight.data.contiguous(memory_format=torch.channels_last)
    assert weights_hash(net) == weights_hash(changed)
    changed.weight.data[0, 0, 0, 0] += 1
    assert weights_hash(net) != weights_hash(changed)
