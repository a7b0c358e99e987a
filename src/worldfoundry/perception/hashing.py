"""Which weights a network really holds, as a short hash that goes into the protocol of every number made with them."""

import hashlib

import torch
from torch import nn


def weights_hash(net: nn.Module, length: int = 16) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, shortened: the same on every machine for the same weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())  # as bytes: NumPy knows neither bfloat16 nor the float8 types
    return digest.hexdigest()[:length]
