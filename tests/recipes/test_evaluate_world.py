"""A world's futures are scored against every control, on a dataset that it was not trained on."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.cli.main import main
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.evaluation.compare import CONTROLS
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.recipes.config import TrainDiffusionConfig, TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.evaluate_world import check_dataset
from worldfoundry.recipes.futures import CEILING, COPY_THROUGH, MODEL, NEAREST, SHUFFLED, ZERO, Batch, decoder_ceilings
from worldfoundry.recipes.train_diffusion import train_diffusion
from worldfoundry.recipes.train_tokenizer import train_tokenizer
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import LoopConfig

SETTINGS = {
    "window": WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.3),
    "loop": LoopConfig(steps=1, precision="float32", compile="off"),
    "device": "cpu",
    "batch_size": 1,
}
SEEN, UNSEEN = [("a", 17, 16, 16), ("b", 17, 16, 16)], [("c", 21, 16, 16), ("d", 21, 16, 16)]


def trained(data, out):
    tokenizer = train_tokenizer(TrainTokenizerConfig(data=data, out=out / "t", model="debug-cv4x4x4", **SETTINGS)).folder
    config = TrainDiffusionConfig(data=data, tokenizer=tokenizer, out=out / "w", model="debug", text="none", **SETTINGS)
    return train_diffusion(config).folder


def test_every_candidate_is_scored_on_every_horizon_and_the_dataset_of_training_is_refused(make_dataset, tmp_path, capsys):
    seen, unseen = make_dataset(SEEN, actions=True, name="seen"), make_dataset(UNSEEN, actions=True, name="unseen")
    world, out = trained(seen, tmp_path), tmp_path / "scores"
    words = ["evaluate", "world", "--world", str(world), "--out", str(out), "--training", str(seen), "--metrics", "psnr_moving"]
    words += ["--horizons", "2", "--max-clips", "4", "--resamples", "100", "--num-inference-steps", "2", "--device", "cpu"]
    assert main([*words, "--data", "new", str(unseen)]) == 0
    found = json.loads((out / "results.json").read_text())["domains"]["new"]
    candidates = {MODEL, SHUFFLED, ZERO, CEILING, COPY_THROUGH, NEAREST, *CONTROLS}
    assert {(row["candidate"], row["horizon"]) for row in found["rows"]} == {
        (candidate, horizon) for candidate in candidates for horizon in {row["horizon"] for row in found["rows"]}
    }
    assert len({row["horizon"] for row in found["rows"]}) == 3
    assert found["protocol"]["clips"] == "another dataset, by its hash, than the one that the world was trained on"
    assert found["protocol"]["steps"] == 2
    assert SHUFFLED in (out / "report.html").read_text().replace("&#x27;", "'").replace("&#39;", "'")
    capsys.readouterr()
    assert main([*words, "--data", "new", str(unseen), "old", str(seen)]) == 2
    assert f"The world was trained on the dataset {str(seen)!r}" in capsys.readouterr().err

    loaded, dataset = wf.load(world), ClipDataset(unseen)
    loaded.provenance.pop("data")
    assert check_dataset(loaded, dataset).startswith("not checked")
    with pytest.raises(UsageError, match="trained on the dataset"):
        check_dataset(wf.load(world), ClipDataset(seen))
    loaded.config = loaded.config.replace(action_names=("x", "y"))
    with pytest.raises(DataError, match=r"takes the actions 'x/y', but the clips of .* have 'time/clip'"):
        check_dataset(loaded, dataset)


NETWORK = TransformerConfig(
    vocab_size=1000, dim=12, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 2, 2),
    max_seq_len=64,
)  # fmt: skip


def autoregressive(folder, **changes):
    """An untrained world of the size of `trained`; every draw is about as likely."""
    tokenizer = build_tokenizer(named_config("debug-dv4x8x8").to_dict()).eval()
    standing = {"num_frames": 9, "height": 16, "width": 16, "fps": 12, "num_prefix_frames": 5}
    defaults = AutoregressiveDefaults.from_dict({**standing, **changes})
    return save_ar_world(folder, AutoregressiveWorld(Transformer(NETWORK), tokenizer, defaults), provenance={}, card="")


def test_worlds_of_both_kinds_stand_in_one_table(make_dataset, tmp_path):
    seen, unseen = make_dataset(SEEN, actions=True, name="seen"), make_dataset(UNSEEN, actions=True, name="unseen")
    tokens, other, out = str(autoregressive(tmp_path / "tokens")), str(trained(seen, tmp_path)), tmp_path / "scores"
    words = ["evaluate", "world", "--world", tokens, "--others", other, "--out", str(out), "--data", "new", str(unseen)]
    words += [
        "--metrics",
        "psnr_moving",
        "--max-clips",
        "3",
        "--resamples",
        "100",
        "--num-prefix-frames",
        "1",
        "--temperature",
        "0",
    ]
    assert main([*words, "--device", "cpu"]) == 0
    found = json.loads((out / "results.json").read_text())["domains"]["new"]
    assert set(found["candidates"]) == {MODEL, f"{other}, zero actions", CEILING, COPY_THROUGH, *CONTROLS}
    assert found["prefix_frames"] == 1
    assert found["protocol"]["temperature"] == 0
    assert found["protocol"]["others"][f"{other}, zero actions"]["steps"] == wf.load(other).config.num_inference_steps


def test_options_and_names_that_fit_no_world_are_one_line(make_dataset, tmp_path, capsys):
    unseen, tokens = str(make_dataset(UNSEEN)), str(autoregressive(tmp_path / "tokens"))
    small = str(autoregressive(tmp_path / "small", num_frames=5))

    def said(*words, world=tokens):
        assert main(["evaluate", "world", "--world", world, "--data", "new", unseen, "--out", str(tmp_path), *words]) == 2
        return capsys.readouterr().err

    assert "has no num_inference_steps.\nLeave --num-inference-steps out." in said("--num-inference-steps", "2")
    assert "takes no adapter" in said("--adapter", "x")
    assert "'nano-diffusion' makes no tokens that 'nano-decoder' could draw" in said(world="nano-diffusion+nano-decoder")
    assert "'nano-dv8x16x16' is not a world" in said(world="nano-dv8x16x16")
    assert "makes 5 frames of 16x16" in said("--others", small)


def test_a_diffusion_decoders_ceiling_is_what_it_draws_of_the_true_tokens(monkeypatch, tmp_path):
    class Decoder:
        tokens = SimpleNamespace(encode_indices=lambda x_BCTHW: x_BCTHW[:, 0])
        device = torch.device("cpu")

        def decode(self, indices_BTHW, *, fps, generators):
            first = [generator.initial_seed() for generator in generators]
            return ((indices_BTHW + 1) * 127.5).round().byte().numpy()[..., None] + np.array(first, np.uint8)[
                :, None, None, None, None
            ]

    monkeypatch.setattr("worldfoundry.recipes.futures.load_token_decoder", lambda *_, **__: Decoder())
    plain = wf.load(autoregressive(tmp_path / "plain"))
    drawn = wf.load(autoregressive(tmp_path / "drawn", token_decoder="some/decoder"))
    truth = np.arange(2 * 9 * 16 * 16, dtype=np.uint8).reshape(2, 9, 16, 16, 1).repeat(3, -1) // 2
    batches = [Batch(rows=[i], request=SimpleNamespace(seed=i, fps=12.0)) for i in (0, 1)]
    assert decoder_ceilings([plain], batches, truth) == {}
    found = decoder_ceilings([plain, drawn, drawn], batches, truth)
    assert list(found) == ["decoder ceiling"]
    assert np.array_equal(found["decoder ceiling"][1], truth[1] + np.uint8(1))
