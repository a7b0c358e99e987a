"""`worldfoundry generate` as people type it: one line per mistake, exit codes, previews and batches."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from worldfoundry.cli.main import main
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A world that continues and interpolates frames, with random weights; a picture beside it."""
    place = tmp_path_factory.mktemp("worlds")
    torch.manual_seed(0)
    dit = DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=16, adaln_lora_dim=4,
        max_frames=8, max_h=16, max_w=16, condition_mask=True,
    )  # fmt: skip
    defaults = WorldDefaults(
        num_frames=9, height=32, width=32, num_prefix_frames=5, num_inference_steps=3, guidance_scale=0.0, context_rows=3
    )
    tokenizer = build_tokenizer(named_config("debug").to_dict()).eval().requires_grad_(False)
    for name, parameter in tokenizer.decoder.named_parameters():
        if name.startswith("conv_out"):
            parameter.mul_(0.1)  # random weights would flash, which a guard stops
    network = DiT(dit).eval().requires_grad_(False)
    world = DiffusionWorld(network, tokenizer, SchedulerConfig(), defaults, encoder=NullTextEncoder(16, 3))
    save_world(place / "world", world, provenance={}, card="")
    Image.fromarray(np.full((50, 90, 3), 120, np.uint8)).save(place / "first.png")
    return place


def generate(folder, tmp_path, *flags):
    return main(["generate", "--world", str(folder / "world"), "--out", str(tmp_path / "out.mp4"), *map(str, flags)])


def test_long_interpolated_with_previews_a_cache_and_int8(folder, tmp_path):
    first = folder / "first.png"
    flags = [
        "--input",
        first,
        "--end",
        first,
        "--num-frames",
        14,
        "--step-cache",
        0.1,
        "--preview-every",
        2,
        "--weights",
        "int8",
    ]
    assert generate(folder, tmp_path, *flags, "--offload", "sequential") == 0
    record = json.loads((tmp_path / "out.json").read_text())["config"]
    assert (record["num_frames"], record["step_cache"], record["end"]) == (14, 0.1, str(first))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"out.step00{n}.png" for n in (2, 4)]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--prompt", "x" * 10_001], 2, "at most 10000 characters"),
        (["--prompt", "x" * 10_000], 2, "trained without text"),
        (["--prompt", "робот поднимает куб"], 4, "could not"),
        (["--guidance-scale", "-1"], 2, "greater than or equal to 0"),
        (["--num-inference-steps", "0"], 2, "greater than or equal to 1"),
        (["--num-prefix-frames", "5", "--num-frames", "5", "--input", "CLIP"], 2, "The prefix has 5 frames"),
        (["--height", "100000"], 2, "patch rows"),
        (["--num-frames", "1000000000000"], 1, "would fit"),
        (["--end", "absent.png"], 2, "does not exist"),
        (["--batch", "absent.jsonl"], 2, "must be a folder"),
        (["--offload", "some"], 2, "offload"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, capsys, flags, code, words):
    from worldfoundry.core.video_io import write_video

    clip = write_video(tmp_path / "in.mp4", np.full((6, 40, 64, 3), 90, np.uint8), 24)
    assert generate(folder, tmp_path, *(clip if flag == "CLIP" else flag for flag in flags)) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line and not line.startswith("sampling:")]
    assert len(lines) <= 2  # what is wrong, and what to do
    assert lines[0].startswith("error: ")
    assert words in " ".join(lines)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("prompt", ["", "   "])
def test_an_empty_prompt_is_no_prompt(folder, tmp_path, prompt):
    assert generate(folder, tmp_path, "--prompt", prompt.strip()) == 0


@pytest.mark.parametrize("part", ["transformer", "vae", "scheduler"])
def test_a_missing_part_is_one_line(folder, tmp_path, capsys, part):
    import shutil

    shutil.copytree(folder / "world", tmp_path / "world")
    shutil.rmtree(tmp_path / "world" / part)
    assert generate(tmp_path, tmp_path) == 2
    assert f"lacks its part '{part}'" in capsys.readouterr().err


def test_a_batch_is_resumed(folder, tmp_path, capsys):
    rows = [{"seed": 1, "name": "one"}, {"sed": 1}, {"world": "x"}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [
        "generate",
        "--world",
        str(folder / "world"),
        "--batch",
        str(tmp_path / "r.jsonl"),
        "--out",
        str(tmp_path / "videos"),
    ]
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert "line 2: request: sed: unknown field. Did you mean 'seed'" in err
    assert "line 3: A line cannot set world" in err
    before = (tmp_path / "videos" / "one.mp4").stat().st_mtime_ns
    assert main(flags) == 2
    assert (tmp_path / "videos" / "one.mp4").stat().st_mtime_ns == before
