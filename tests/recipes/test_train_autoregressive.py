"""Training an autoregressive world: what is refused before any work, resuming across stages, text that starts at nothing, scores."""

import json

import pytest
import torch

from worldfoundry.autoregressive.config import SIZES, TransformerConfig
from worldfoundry.autoregressive.transformer import TextContext, Transformer
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError, ConfigError, UsageError
from worldfoundry.core.progress import read_metrics
from worldfoundry.inference.load import load
from worldfoundry.recipes.base_tokens import read_token_base, start_network, token_size
from worldfoundry.recipes.config import StageConfig, WindowConfig
from worldfoundry.recipes.token_validation import token_scores
from worldfoundry.recipes.train_autoregressive import shaped, text_contexts, train_autoregressive
from worldfoundry.recipes.train_autoregressive_config import TokenValidationConfig, TrainAutoregressiveConfig
from worldfoundry.recipes.train_medusa import train_medusa
from worldfoundry.recipes.train_medusa_config import TrainMedusaConfig
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import LoopConfig, MedusaConfig, OptimConfig, TokenLossConfig
from worldfoundry.training.loop import train

CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 32), ("c", 9, 32, 16), ("d", 9, 16, 16)]
WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.25)
SMALL = TransformerConfig(
    vocab_size=1000, dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 2, 2),
    max_seq_len=64, medusa_heads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers") / "dv"
    module = build_tokenizer(named_config("debug-dv4x8x8").to_dict()).eval()
    return save_component(folder, module, kind="tokenizer", provenance={})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(SIZES, "small", SMALL)


def settings(data, tokenizer, out, **changes):
    loop = LoopConfig(
        steps=4, precision="float32", compile="off", save_every_s=1e-6, log_every=1, optim=OptimConfig(lr=0.01, warmup_steps=0)
    )
    standing = {
        "tokenizer": tokenizer, "model": "small", "window": WINDOW, "batch_size": 2, "loop": loop, "device": "cpu",
        "validation": TokenValidationConfig(windows=2),
    }  # fmt: skip
    return TrainAutoregressiveConfig(data=data, out=out, **{**standing, **changes})


def filled(config, seed=0):
    network = Transformer(config)
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(seed + i))
    return network.eval()


def test_a_run_resumes_across_stages_to_the_same_weights(make_dataset, tokenizer, tmp_path, monkeypatch):
    data = make_dataset(CLIPS)
    stages = (StageConfig(share=0.5, num_frames=5, batch_size=3),)

    def run(out, stop_at=None):
        def stop(step, ema):
            if step == stop_at:
                raise KeyboardInterrupt
            return {}

        monkeypatch.setattr(
            "worldfoundry.recipes.train_autoregressive.train",
            lambda *a, **k: train(*a, **{**k, "callback": stop, "callback_every_s": 0.0}),
        )
        return train_autoregressive(settings(data, tokenizer, out, stages=stages, image_share=0.3))

    whole = load(run(tmp_path / "whole").folder).network
    for cut in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"cut{cut}", stop_at=cut)
        again = load(run(tmp_path / f"cut{cut}").folder).network.state_dict()
        assert all(torch.equal(value, again[name]) for name, value in whole.state_dict().items())
    names = sorted(path.name for path in (tmp_path / "whole" / "tokens").iterdir())
    assert names == ["1x16x16-every8-images", "5x16x16-every8", "9x16x16-every8"]
    assert whole.config.latent_shape == (3, 2, 2)
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert all({"loss", "nll", "accuracy", "mfu"} <= row.keys() for row in rows if "loss" in row)


def test_a_finished_run_tells_its_scores_beside_uniform_and_copying(make_dataset, tokenizer, tmp_path):
    data = make_dataset(CLIPS)
    run = train_autoregressive(settings(data, tokenizer, tmp_path / "run"))
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert said["uniform_nll"] == pytest.approx(6.9078, abs=1e-4)
    assert 0 <= run.metrics["copy_accuracy"] <= 1
    assert run.metrics["held_out_nll"] > 0
    both = settings(data, tokenizer, tmp_path / "both", validation=TokenValidationConfig(windows=2, data=(data,)))
    assert set(train_autoregressive(both).metrics) == set(run.metrics)  # one set: no names


def test_scores_of_a_network_that_is_sure_of_what_it_copies():
    """Unembedding zero: every token costs ln V. Copying is right exactly where frames are the same."""
    network = filled(SMALL)
    torch.nn.init.zeros_(network.unembed.weight)
    still = torch.arange(4).view(1, 1, 2, 2).expand(2, 3, 2, 2).contiguous()
    half = still.clone()
    half[:, 1:, 0] += 5
    found = token_scores(network, {"still": still, "half": half}, 1)
    assert found["held_out_nll"] == found["uniform_nll"] == pytest.approx(6.9078, abs=1e-4)
    assert (found["still/copy_accuracy"], found["half/copy_accuracy"]) == (1.0, 0.75)  # the third frame is the second again
    assert found["copy_accuracy"] == pytest.approx(0.875)


def test_text_is_added_without_a_jump_and_then_learns(tmp_path):
    """What an added cross-attention computes at its first step is what the base computed."""
    folder = save_component(tmp_path / "base", filled(SMALL), kind="autoregressive", provenance={})
    base = read_token_base(folder)
    wider = shaped(token_size(None, base, folder), WINDOW, named_config("debug-dv4x8x8").spec, 8)
    network = start_network(wider, base, seed=1)
    tokens = torch.randint(0, 1000, (2, 12), generator=torch.Generator().manual_seed(3))
    text = TextContext(rows_BMD=torch.randn(2, 3, 8), mask_BM=torch.ones(2, 3, dtype=torch.bool))
    before = base.network(tokens)
    torch.testing.assert_close(network(tokens), before)
    torch.testing.assert_close(network(tokens, text), before)
    network(tokens, text).square().sum().backward()
    assert all(block.cross_attention.to_out.weight.grad.abs().sum() > 0 for block in network.blocks)


def test_a_begin_of_video_token_is_a_new_row_and_the_others_stay(tmp_path):
    config = SMALL.replace(vocab_size=960, max_seq_len=64)
    folder = save_component(tmp_path / "base", filled(config), kind="autoregressive", provenance={})
    base = read_token_base(folder)
    network = start_network(config.replace(bov=True, vocab_size=960), base, seed=1)
    assert network.embed.weight.shape == (1024, 12)
    assert torch.equal(network.embed.weight[:960], base.network.embed.weight[:960])
    with pytest.raises(UsageError, match="The base predicts 960 codes, but the tokenizer has 1000"):
        start_network(SMALL, base, seed=1)
    with pytest.raises(UsageError, match="has dim 12, but 'nano' has 256"):
        token_size("nano", base, folder)


def test_captions_without_a_word_are_attended_to_all_the_same():
    class Encoder:
        name, width, max_length = "few", 4, 3

        def encode(self, prompts):
            rows = torch.zeros(len(prompts), 3, 4)
            for row, prompt in zip(rows, prompts, strict=True):
                row[: len(prompt)] = 1
            return rows

        def count_tokens(self, prompt):
            return len(prompt)

    found = text_contexts(Encoder(), ["", "ab"])
    assert found.mask_BM.tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "nano-cv8x8x8"}, "'nano-cv8x8x8' is a continuous tokenizer: it has no codes to predict"),
        ({"loss": TokenLossConfig(prefix_latents=3)}, "gives 3 latent frames, but a window of 9 frames has 3"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_any_work(make_dataset, tokenizer, tmp_path, changes, message):
    config = settings(make_dataset(CLIPS), tokenizer, tmp_path / "out").replace(**changes)
    with pytest.raises(UsageError, match=message):
        train_autoregressive(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "set tokenizer"),
        ({"tokenizer": "x", "text": "t5"}, "text t5 needs t5"),
        ({"tokenizer": "x", "stages": [{"share": 0.5, "height": 64}]}, "stages differ in frames, not in size"),
        ({"tokenizer": "x", "stages": [{"share": 0.5, "num_frames": 41}]}, "not longer than the window's 33 frames"),
        ({"tokenizer": "x", "stages": [{"share": 0.5}] * 2}, "must sum to less than 1"),
    ],
)
def test_options_that_contradict_each_other_are_one_clear_line(fields, message):
    with pytest.raises(ConfigError, match=message):
        TrainAutoregressiveConfig.from_dict({"data": "a", "out": "b", **fields})


def test_a_run_goes_on_from_a_world_at_another_resolution_with_its_tokenizer(make_dataset, tokenizer, tmp_path):
    data = make_dataset(CLIPS)
    world = train_autoregressive(settings(data, tokenizer, tmp_path / "run")).folder
    loop = LoopConfig(steps=1, precision="float32", compile="off", optim=OptimConfig(lr=1e-9, warmup_steps=0, weight_decay=0.0))
    smaller = WINDOW.replace(height=8, width=8)
    config = settings(data, None, tmp_path / "smaller", init=world, model=None, window=smaller, loop=loop)
    before, after = load(world), load(train_autoregressive(config).folder)
    assert after.network.config == before.network.config.replace(latent_shape=(3, 1, 1))
    assert (after.config.height, after.config.width) == (8, 8)
    for name, tensor in before.network.state_dict().items():
        torch.testing.assert_close(after.network.state_dict()[name], tensor, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="is not the tokenizer of the world to go on from"):
        train_autoregressive(config.replace(tokenizer="nano-dv8x16x16", out=tmp_path / "other"))


def test_heads_are_taught_on_the_worlds_own_tokens_and_resume(make_dataset, tokenizer, tmp_path, monkeypatch):
    data = make_dataset(CLIPS)
    world = train_autoregressive(settings(data, tokenizer, tmp_path / "run")).folder
    loop = settings(data, tokenizer, tmp_path).loop
    monkeypatch.setattr("worldfoundry.recipes.latents.encode", lambda *_: pytest.fail("encoded again"))

    def run(out, stop_at=None):
        def stop(step, ema):
            if step == stop_at:
                raise KeyboardInterrupt
            return {}

        monkeypatch.setattr(
            "worldfoundry.recipes.train_medusa.train",
            lambda *a, **k: train(*a, **{**k, "callback": stop, "callback_every_s": 0.0}),
        )
        config = TrainMedusaConfig(
            data=data, world=world, out=out, tokens=tmp_path / "run" / "tokens", batch_size=2, loop=loop, device="cpu",
            medusa=MedusaConfig(heads=3), validation=TokenValidationConfig(windows=2),
        )  # fmt: skip
        return train_medusa(config)

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at=2)
    made, again = load(whole.folder), load(run(tmp_path / "cut").folder)
    before = load(world).network.state_dict()
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
        assert name.startswith("medusa.") or torch.equal(value, before[name])
    assert made.network.config.medusa_heads == 3
    assert (made.config.speculate, made.config.draft_length) == ("medusa", 3)
    assert {"confirmed", "accuracy_1", "accuracy_3", "held_out_nll"} <= whole.metrics.keys()
    assert made.provenance["medusa"]["recipe"] == "train medusa"
    assert made.provenance["recipe"] == "train autoregressive"


def test_only_an_autoregressive_world_can_be_taught(make_dataset, tmp_path):
    with pytest.raises(CheckpointError, match="'nano-diffusion' is no autoregressive world"):
        train_medusa(TrainMedusaConfig(data=make_dataset(CLIPS), world="nano-diffusion", out=tmp_path / "out"))
