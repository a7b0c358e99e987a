"""The whole road in one command: footage → clips → world model → futures of held-out clips → guards → report.

The world model is a shipped one, trained on; with `--base none` it and its tokenizer begin from nothing.

Axis legend: N windows, T frames, H height, W width, C = 3 (RGB), A action numbers.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import GuardError, UsageError
from worldfoundry.core.progress import clock, say
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.sample import sample_footage
from worldfoundry.evaluation.compare import Evaluation, evaluate_predictions
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.inference.load import load
from worldfoundry.inference.record import guarded
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.config import QuickstartConfig, TrainDiffusionConfig, TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.futures import BASE, MODEL, SHUFFLED, ZERO, Futures, predict, training_stacks, window_of
from worldfoundry.recipes.train_diffusion import DiffusionRun, train_diffusion
from worldfoundry.recipes.train_tokenizer import TokenizerRun, train_tokenizer
from worldfoundry.recipes.windows import spread_windows
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig, OptimConfig

MIRROR_PUSHER = (-1.0, 1.0)
FINETUNE_STRIDE = 24  # frames between windows: to encode them should not take longer than to train on them
NEAREST_OF = 500  # training clips that the nearest-neighbour control searches


@dataclass(kw_only=True)
class Road:
    """What the steps hand on to the report."""

    config: QuickstartConfig
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step and announce it."""
        say(f"── {name}")
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start


def quickstart(config: QuickstartConfig) -> Path:
    """Walk the road; returns the path of report.html. Every step resumes where a killed run stopped."""
    from worldfoundry.recipes.quickstart_report import write_quickstart_report

    road = Road(config=config)
    out = config.out
    pick_device(config.device)  # a device or a base that is not here is said before the work, not after it
    base = base_world(config)
    with road.step("curate"):
        curate(CurateConfig(input=str(config.data or sample_footage()), out=out / "clips"))
    window = (WindowConfig() if base is None else window_of(base).replace(stride=FINETUNE_STRIDE)).replace(
        mirror_action=MIRROR_PUSHER if config.data is None else None
    )
    tokenizer = None
    if base is None:
        with road.step("train the tokenizer"):
            tokenizer = train_tokenizer(tokenizer_recipe(config, window))
    with road.step("train the world model"):
        recipe = diffusion_recipe(config, window, tokenizer.folder) if tokenizer else finetune_recipe(config, window)
        world = train_diffusion(recipe)
    dataset = ClipDataset(out / "clips")
    with road.step("generate and guard"):
        windows = spread_windows(dataset, world.parts.held_out, window, config.evaluate_clips)
        training = training_stacks(dataset, world.parts.train, window, NEAREST_OF)
        others = {} if base is None else {BASE: base}
        futures = predict(world.world, windows, seed=config.seed, training=training, others=others)
        written = save_futures(futures, world, out / "generated")
    with road.step("evaluate"):
        evaluation = evaluate(futures, world)
        evaluation.save(out / "results.json")
    report = write_quickstart_report(road, tokenizer, world, futures, evaluation)
    _summary(road, tokenizer, world, evaluation, report, written)
    return report


def base_world(config: QuickstartConfig) -> DiffusionWorld | None:
    """The world to train on, None for `none`. Raises CheckpointError or UsageError for a name or folder that is none."""
    if config.base == "none":
        return None
    world = load(config.base, dtype=torch.float32)
    if not isinstance(world, DiffusionWorld):
        raise UsageError(f"{config.base!r} is no diffusion world.", "Give --base a shipped world, a world folder, or none.")
    return world


def finetune_recipe(config: QuickstartConfig, window: WindowConfig) -> TrainDiffusionConfig:
    """All minutes for training the base on the new clips, at a lower learning rate than a beginner's."""
    return TrainDiffusionConfig(
        data=config.out / "clips",
        init=Path(config.base),
        out=config.out / "world-run",
        text=config.text,
        window=window,
        loss=DiffusionLossConfig(change_weight=3.0),
        loop=LoopConfig(
            minutes=config.minutes,
            seed=config.seed,
            ema_decay=0.995,
            save_every_s=20.0,
            optim=OptimConfig(lr=5e-4, betas=(0.9, 0.98), warmup_steps=50),
        ),
        device=config.device,
    )


def tokenizer_recipe(config: QuickstartConfig, window: WindowConfig) -> TrainTokenizerConfig:
    """The tokenizer's share of the minutes."""
    minutes = config.minutes * config.tokenizer_share
    return TrainTokenizerConfig(
        data=config.out / "clips",
        out=config.out / "tokenizer-run",
        model="debug-cv4x4x4",
        window=window,
        loop=LoopConfig(
            minutes=minutes,
            seed=config.seed,
            compile="off",
            save_every_s=20.0,
            optim=OptimConfig(lr=1.5e-3, betas=(0.9, 0.95), warmup_steps=30),
        ),
        device=config.device,
    )


def diffusion_recipe(config: QuickstartConfig, window: WindowConfig, tokenizer: Path) -> TrainDiffusionConfig:
    """The rest of the minutes."""
    minutes = config.minutes * (1 - config.tokenizer_share)
    return TrainDiffusionConfig(
        data=config.out / "clips",
        tokenizer=tokenizer,
        out=config.out / "world-run",
        model="quickstart",
        text=config.text,
        window=window,
        # A model of minutes knows where things are long before it can remove the last noise: it is trained mostly at high
        # noise and sampled in few steps that stay there.
        scheduler=SchedulerConfig(sigma_min=2.0, sigma_max=10.0, rho=5.0),
        num_inference_steps=3,
        loss=DiffusionLossConfig(sigma_mean=0.9, sigma_std=1.3, change_weight=4.0),
        loop=LoopConfig(
            minutes=minutes,
            seed=config.seed,
            ema_decay=0.998,
            save_every_s=20.0,
            optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), warmup_steps=100),
        ),
        device=config.device,
    )


def save_futures(futures: Futures, run: DiffusionRun, folder: Path) -> list[Path]:
    """Write the generated clips as mp4 with sidecars, except those that a guard objects to; returns the files."""
    world, written = run.world, []
    for i, window in enumerate(futures.windows):
        clip = futures.candidates[MODEL][i]
        try:
            frames, verdicts = world.guardrails.release(clip, world.config.fps)
        except GuardError as error:
            say(f"{window.name}: not written: {error.message}")
            continue
        request = futures.requests[i]
        record = {**request.to_dict(), "window": window.name, "source": window.record.source_id}
        record |= guarded(world.guardrails.policy, verdicts)
        video = WorldVideo(frames=frames, fps=request.fps, seed=request.seed, config=record, verdicts=verdicts)
        written.append(video.save(folder / f"{window.name}.mp4"))
    return written


def evaluate(futures: Futures, run: DiffusionRun) -> Evaluation:
    """Every candidate against the true futures, per horizon, paired by window with copy-last-frame; sources are resampled."""
    return evaluate_predictions(
        futures.truth,
        futures.candidates,
        futures.prefix_frames,
        fps=run.world.config.fps,
        groups=futures.sources,
        protocol={"clips": "held-out sources"},
    )


def action_response(futures: Futures, run: DiffusionRun) -> Evaluation | None:
    """True against shuffled and zero actions, paired with shuffled; None for a world without actions."""
    chosen = {name: futures.candidates[name] for name in (MODEL, SHUFFLED, ZERO) if name in futures.candidates}
    if SHUFFLED not in chosen:
        return None
    return evaluate_predictions(
        futures.truth,
        chosen,
        futures.prefix_frames,
        fps=run.world.config.fps,
        groups=futures.sources,
        baseline=SHUFFLED,
        horizons=1,
    )


def _summary(
    road: Road, tokenizer: TokenizerRun | None, run: DiffusionRun, evaluation: Evaluation, report: Path, written: list[Path]
) -> None:
    """Closing lines for the person at the terminal."""
    model, copy = (evaluation.value("psnr_moving", name) for name in (MODEL, evaluation.baseline))
    total = sum(road.seconds.values())
    say("── done: " + ", ".join(f"{name} {clock(s)}" for name, s in road.seconds.items()) + f"; {clock(total)} in all")
    if tokenizer is not None:
        say(f"tokenizer: held-out PSNR {tokenizer.metrics['held_out_psnr_db']} dB")
    say(f"world model: {run.facts['steps']} steps; moving pixels {model:.2f} dB, copy-last-frame {copy:.2f} dB")
    say(f"look at  {report}")
    first = str(written[0]) if written else "FIRST.png"
    say(
        "go on    " + shlex.join(["worldfoundry", "generate", "--world", str(run.folder), "--input", first, "--out", "out.mp4"])
    )
