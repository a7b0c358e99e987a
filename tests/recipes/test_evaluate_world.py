"""A world's futures are scored against every control, on a dataset that it was not trained on."""

import json

import pytest

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.evaluation.compare import CONTROLS
from worldfoundry.recipes.config import TrainDiffusionConfig, TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.evaluate_world import check_dataset
from worldfoundry.recipes.futures import CEILING, COPY_THROUGH, MODEL, NEAREST, SHUFFLED, ZERO
from worldfoundry.recipes.train_diffusion import train_diffusion
from worldfoundry.recipes.train_tokenizer import train_tokenizer
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
