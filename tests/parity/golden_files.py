"""Reading the golden files: tiny networks of NVIDIA's published code with random weights, inputs and outputs."""

import json
from pathlib import Path

from safetensors import safe_open

GOLDEN = Path(__file__).parent / "golden"


def read_golden(case, folder=GOLDEN):
    """(weights as float32, other tensors, metadata config) of one golden file."""
    with safe_open(folder / f"{case}.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    weights = {n.removeprefix("weights."): t.float() for n, t in tensors.items() if n.startswith("weights.")}
    return weights, {n: t for n, t in tensors.items() if not n.startswith("weights.")}, config
