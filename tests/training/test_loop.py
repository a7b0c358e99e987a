"""The loop's promises: resumed = uninterrupted (bit for bit), kill -9 loses little, signals save, runs never mix."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from worldfoundry.core.errors import CheckpointError, UsageError, WorldFoundryError
from worldfoundry.core.progress import read_metrics
from worldfoundry.training.config import LoopConfig, OptimConfig, ParallelConfig
from worldfoundry.training.ema import EMA
from worldfoundry.training.loop import claim, learning_rate, train
from worldfoundry.training.method import StepOutput
from worldfoundry.training.state import load_optimizer, load_state, optimizer_tensors, save_state
from worldfoundry.training.streams import TensorStream

SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_loop import run_toy
run_toy(Path({run!r}), steps=60, save_every_s=0.001, pause_s={pause})
"""


class ToyMethod:
    """Noisy linear regression, with dropout, so that every kind of randomness takes part."""

    def __init__(self, pause_s=0.0):
        torch.manual_seed(1)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.pause_s = pause_s

    def training_step(self, batch, generator):
        time.sleep(self.pause_s)
        noise = torch.randn(batch["y"].shape, generator=generator)
        return StepOutput(loss=(self.module(batch["x"]) - batch["y"] - 0.1 * noise).square().mean())

    def compile(self):
        raise AssertionError("not asked for")


def toy_stream(seed=0):
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    return TensorStream({"x": x, "y": x.sum(1, keepdim=True)}, batch_size=7, seed=seed)


def run_toy(run, steps=60, save_every_s=1000.0, pause_s=0.0, callback=None, lr=1e-3):
    method = ToyMethod(pause_s)
    config = toy_config(steps=steps, save_every_s=save_every_s, optim=OptimConfig(lr=lr))
    result = train(method, toy_stream(), config, run, callback=callback)
    return method.module.state_dict(), result


def toy_config(**changes):
    return LoopConfig(**{"precision": "float32", "compile": "off", "log_every": 5, **changes})


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def start_script(run, pause):
    code = SCRIPT.format(tests=os.path.dirname(__file__), run=str(run), pause=pause)
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)


def wait_for_state(run, process, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = load_state(run) if (run / "checkpoints" / "last").exists() else None
        if found and found[1]["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no state at step {step}: {process.poll()}")


def test_the_loss_falls(tmp_path):
    run_toy(tmp_path, steps=300, lr=0.03)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["step"] == 300


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, kill):
    whole, whole_result = run_toy(tmp_path / "whole", save_every_s=0.001)
    process = start_script(tmp_path / "cut", pause=0.02)
    wait_for_state(tmp_path / "cut", process, step=5)
    process.send_signal(kill)
    process.wait(timeout=60)
    assert load_state(tmp_path / "cut")[1]["step"] < 60
    resumed, resumed_result = run_toy(tmp_path / "cut", save_every_s=0.001)
    assert equal(whole, resumed)
    assert equal(whole_result.ema.average, resumed_result.ema.average)
    logged = (
        [(row["step"], row["loss"]) for row in read_metrics(tmp_path / run / "metrics.jsonl")] for run in ("whole", "cut")
    )
    assert next(logged) == next(logged)  # steps that were done twice are logged once


def test_moments_are_restored_in_the_layout_of_their_parameter():
    """Fused AdamW walks weights and moments in memory order: a channels-last kernel with plain moments goes wrong silently."""

    def optimizer_of(steps, saved=None):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        x = torch.randn(1, 3, 4, 4)
        optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, fused=True)
        if saved is not None:
            conv.load_state_dict(saved[0])
            load_optimizer(optimizer, saved[1])
        for _ in range(steps):
            optimizer.zero_grad()
            conv(x).square().sum().backward()
            optimizer.step()
        return conv.state_dict(), {k: v.detach().contiguous().clone() for k, v in optimizer_tensors(optimizer).items()}

    whole, _ = optimizer_of(5)
    weights, moments = optimizer_of(3)
    resumed, _ = optimizer_of(2, ({k: v.clone() for k, v in weights.items()}, moments))
    assert equal(whole, resumed)


def test_sigterm_saves_the_very_step(tmp_path):
    process = start_script(tmp_path, pause=0.02)
    wait_for_state(tmp_path, process, step=3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert f"stopped at step {load_state(tmp_path)[1]['step']};" in err
    assert "KeyboardInterrupt" in err


def test_a_half_written_state_is_never_last(tmp_path):
    run_toy(tmp_path, steps=10, save_every_s=1e-9)  # after every step, however fast the machine
    assert os.readlink(tmp_path / "checkpoints" / "last") == "step_00000010"
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["last", "step_00000009", "step_00000010"]


def test_a_state_that_last_does_not_know_of_does_not_push_out_the_one_it_does(tmp_path):
    """kill -9 between putting a state in place and setting the link leaves a later state than `last`."""
    save_state(tmp_path, 9, {"x": torch.zeros(1)}, {}, keep=1)
    (tmp_path / "checkpoints" / "step_00000012").mkdir()
    save_state(tmp_path, 11, {"x": torch.ones(1)}, {}, keep=1)
    assert load_state(tmp_path)[1]["step"] == 11
    assert [p.name for p in (tmp_path / "checkpoints").glob("step_*")] == ["step_00000011"]


def test_a_damaged_state_can_be_removed_to_fall_back(tmp_path):
    run_toy(tmp_path, steps=10, save_every_s=1e-9)
    newest = (tmp_path / "checkpoints" / "last").resolve()
    (newest / "tensors.safetensors").write_bytes(b"damage")
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_state(tmp_path)
    assert str(newest) in caught.value.hint
    shutil.rmtree(newest)
    assert load_state(tmp_path)[1]["step"] == 9


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / ".step_00000003-0123abcd").mkdir(parents=True)
    (folder / ".step_00000003-0123abcd" / "tensors.safetensors").write_bytes(b"half")
    (folder / ".last-123").symlink_to("step_00000003")
    run_toy(tmp_path, steps=2)
    assert sorted(p.name for p in folder.iterdir()) == ["last", "step_00000002"]


@pytest.mark.parametrize(("facts", "what"), [("{}", "lacks 'step'"), ("[]", "is damaged"), ('{"step": 5}', "lacks 'seconds'")])
def test_a_state_that_lacks_facts_is_refused_in_one_line(tmp_path, facts, what):
    run_toy(tmp_path, steps=5)
    (tmp_path / "checkpoints" / "last" / "state.json").write_text(facts)
    with pytest.raises(CheckpointError, match=what) as caught:
        run_toy(tmp_path, steps=5)
    assert "\n" not in caught.value.message


def test_settings_may_change_until_something_is_saved(tmp_path):
    claim(tmp_path, toy_config(steps=1), {"recipe": "a"})
    claim(tmp_path, toy_config(steps=2), {"recipe": "a"})
    save_state(tmp_path, 1, {"x": torch.zeros(1)}, {}, keep=1)
    claim(tmp_path, toy_config(steps=2), {"recipe": "a"})
    with pytest.raises(UsageError, match="another loop, recipe"):
        claim(tmp_path, toy_config(steps=1), {"recipe": "b"})


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    run_toy(tmp_path, steps=5)
    with pytest.raises(UsageError, match="another loop"):
        run_toy(tmp_path, steps=6)


def test_how_a_run_is_shared_does_not_make_it_another(tmp_path):
    """So a state of two ranks is taken up by one, and runs saved before the option existed still are the same runs."""
    alone, shared = toy_config(steps=5), toy_config(steps=5, parallel=ParallelConfig(context=2))
    assert alone.hash() == shared.hash() != toy_config(steps=6).hash()
    claim(tmp_path, alone, {})
    save_state(tmp_path, 1, {"x": torch.zeros(1)}, {}, keep=1)
    claim(tmp_path, shared, {})
    assert "parallel" not in (tmp_path / "run.json").read_text()


def test_divergence_stops_before_the_weights_are_spoilt(tmp_path):
    method = ToyMethod()
    stream = toy_stream()
    stream.rows["y"][:] = float("inf")
    config = toy_config(steps=5)
    with pytest.raises(WorldFoundryError, match="diverged at step 0"):
        train(method, stream, config, tmp_path)
    assert all(torch.isfinite(p).all() for p in method.module.parameters())


def test_callback_numbers_are_logged(tmp_path):
    run_toy(tmp_path, steps=10, callback=lambda step, ema: {"validation": float(step)})
    assert {"validation": 10.0}.items() <= read_metrics(tmp_path / "metrics.jsonl")[-1].items()


def test_a_budget_in_minutes_ends_on_time_and_decays_to_the_end(tmp_path):
    config = toy_config(minutes=0.01, log_every=1)
    result = train(ToyMethod(), toy_stream(), config, tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert 0.6 <= result.seconds < 5
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)


def test_learning_rate_warms_up_and_decays():
    config = OptimConfig(lr=1.0, warmup_steps=10, final_lr_ratio=0.1)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 500, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 1000, 1.0) == pytest.approx(0.1)


def test_ema_of_a_constant_is_the_constant_and_forgets_the_start():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 100.0)
    ema = EMA(module, decay=0.999)
    nn.init.constant_(module.weight, 1.0)
    for _ in range(60):
        ema.update(module)
    assert ema.average["weight"].item() == pytest.approx(1.0, abs=1e-4)


def test_exactly_one_budget():
    with pytest.raises(ValueError, match="exactly one of steps and minutes"):
        LoopConfig(steps=1, minutes=1.0)
    with pytest.raises(ValueError, match="exactly one of steps and minutes"):
        LoopConfig()
