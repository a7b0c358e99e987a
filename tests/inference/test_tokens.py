"""Files through a tokenizer and back: no result overwrites another, and a damaged token file is named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from worldfoundry.core.errors import UsageError
from worldfoundry.core.video_io import probe_video
from worldfoundry.inference.tokens import detokenize, tokenize
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

FACTS = {"num_frames": 5, "height": 8, "width": 8, "fps": 10.0, "source": "a.mp4"}


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return build_tokenizer(named_config("debug").to_dict()).eval().requires_grad_(False)


def test_namesakes_and_subfolders_do_not_overwrite_each_other(tokenizer, tmp_path):
    source, out, back = (tmp_path / name for name in ("in", "out", "back"))
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "a.bmp", "sub/a.png"):
        Image.fromarray(np.zeros((13, 9, 3), np.uint8)).save(source / name)
    names = {"a.png", "a.bmp", "sub/a"}
    assert {p.relative_to(out).as_posix() for p in tokenize(source, tokenizer, out, name="t")} == {
        f"{name}.safetensors" for name in names
    }
    assert set(json.loads((out / "manifest.json").read_text())["files"]) == {f"{name}.safetensors" for name in names}
    assert {p.relative_to(back).as_posix() for p in detokenize(out, tokenizer, back)} == {f"{name}.mp4" for name in names}
    assert probe_video(back / "sub" / "a.mp4").height == 14


@pytest.mark.parametrize(
    ("facts", "value", "words"),
    [
        ({"num_frames": -5}, 0.0, "num_frames"),
        ({"height": "tall"}, 0.0, "height"),
        ({"fps": -1}, 0.0, "fps"),
        ({}, float("nan"), "NaN"),
    ],
)
def test_a_damaged_token_file_is_named(tokenizer, tmp_path, facts, value, words):
    file = tmp_path / "a.safetensors"
    latents = torch.full((tokenizer.spec.channels, 2, 2, 2), value)
    save_file({"latents": latents}, file, metadata={"clip": json.dumps({**FACTS, **facts})})
    with pytest.raises(UsageError, match=rf"a\.safetensors.*{words}"):
        detokenize(file, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
