"""The whole road in one command: footage → clips → tokenizer → world model → futures of held-out clips → guards → report.

Axis legend: N windows, T frames, H height, W width, C = 3 (RGB), A action numbers.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from worldfoundry.core.contracts import Verdict, WorldVideo
from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import GuardError
from worldfoundry.core.progress import clock, progress, say
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.pipeline import curate
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.sample import sample_footage
from worldfoundry.evaluation.baselines import copy_last_frame, nearest_training_clip
from worldfoundry.evaluation.compare import Evaluation, evaluate_predictions
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.config import Request, SchedulerConfig
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.config import QuickstartConfig, TrainDiffusionConfig, TrainTokenizerConfig, WindowConfig
from worldfoundry.recipes.tokenizer_validation import reconstruct
from worldfoundry.recipes.train_diffusion import DiffusionRun, train_diffusion
from worldfoundry.recipes.train_tokenizer import TokenizerRun, train_tokenizer
from worldfoundry.recipes.windows import Window, iter_windows, spread_windows
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig, OptimConfig

MODEL = "model"
SHUFFLED = "model, other clips' actions"
ZERO = "model, zero actions"
CEILING = "tokenizer ceiling"
COPY_THROUGH = "copy-last-frame through tokenizer"
NEAREST = "nearest training clip"
BATCH = 16
MIRROR_PUSHER = (-1.0, 1.0)


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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows (by number) that are generated together; number i among them has the noise of `request.seed + i`."""

    rows: list[int]
    request: Request


@dataclass(frozen=True, kw_only=True)
class Futures:
    """Truth and candidates on the held-out windows, uint8 [N, T, H, W, 3], with what the guards said of each video.

    `requests` are what the model was asked, one per window.
    """

    windows: list[Window]
    truth: np.ndarray
    candidates: dict[str, np.ndarray]
    prefix_frames: int
    verdicts: tuple[Verdict, ...]
    requests: list[Request]

    @property
    def sources(self) -> list[str]:
        """What each window was cut from: windows of one video are alike, so intervals must draw them together."""
        return [window.record.source_id for window in self.windows]


def quickstart(config: QuickstartConfig) -> Path:
    """Walk the road; returns the path of report.html. Every step resumes where a killed run stopped."""
    from worldfoundry.recipes.quickstart_report import write_quickstart_report

    road = Road(config=config)
    out = config.out
    pick_device(config.device)  # a device that is not here is said before the work, not after it
    with road.step("curate"):
        curate(CurateConfig(input=str(config.data or sample_footage()), out=out / "clips"))
    window = WindowConfig(mirror_action=MIRROR_PUSHER if config.data is None else None)
    with road.step("train the tokenizer"):
        tokenizer = train_tokenizer(tokenizer_recipe(config, window))
    with road.step("train the world model"):
        world = train_diffusion(diffusion_recipe(config, window, tokenizer.folder))
    dataset = ClipDataset(out / "clips")
    with road.step("generate and guard"):
        futures = predict(config, dataset, world, window)
        written = save_futures(futures, world, out / "generated")
    with road.step("evaluate"):
        evaluation = evaluate(futures, world)
        evaluation.save(out / "results.json")
    report = write_quickstart_report(road, tokenizer, world, futures, evaluation)
    _summary(road, tokenizer, world, evaluation, report, written)
    return report


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


def predict(config: QuickstartConfig, dataset: ClipDataset, run: DiffusionRun, window: WindowConfig) -> Futures:
    """Futures of held-out windows under true, shuffled and zero actions, and what the guards say of prompts and futures."""
    world, prefix = run.world, run.world.config.num_prefix_frames
    windows, verdicts = guarded_windows(
        world.guardrails, spread_windows(dataset, run.parts.held_out, window, config.evaluate_clips)
    )
    truth = np.stack([w.frames for w in windows])
    batches = _batches(config, world, windows)
    candidates = {MODEL: _sample(world, batches, truth, _actions(windows))}
    for clip in candidates[MODEL]:
        verdicts += world.guardrails.check_video(clip, world.config.fps)
    if world.config.action_names:
        actions = np.stack([w.actions for w in windows if w.actions is not None])
        others = np.roll(actions, len(actions) // 2, axis=0)  # windows lie in order of their clips: far away is another clip
        for name, future in ((SHUFFLED, others), (ZERO, np.zeros_like(actions))):
            changed = np.concatenate([actions[:, : prefix - 1], future[:, prefix - 1 :]], axis=1)
            candidates[name] = _sample(world, batches, truth, changed)
    through = copy_last_frame(truth, prefix)
    candidates[CEILING] = reconstruct(world.tokenizer, torch.from_numpy(truth))
    candidates[COPY_THROUGH] = _given(reconstruct(world.tokenizer, torch.from_numpy(through)), truth, prefix)
    candidates[NEAREST] = nearest_training_clip(truth, prefix, _training_windows(dataset, run, window))
    requests = {
        row: batch.request.replace(seed=batch.request.seed + i) for batch in batches for i, row in enumerate(batch.rows)
    }
    return Futures(
        windows=windows, truth=truth, candidates=candidates, prefix_frames=prefix, verdicts=tuple(verdicts),
        requests=[requests[row] for row in range(len(windows))],
    )  # fmt: skip


def guarded_windows(guardrails: Guardrails, windows: list[Window]) -> tuple[list[Window], list[Verdict]]:
    """The windows whose caption (the prompt) the guards let pass, and all that the guards said.

    Raises BlockedError or GuardUnavailable if none is left.
    """
    said = {caption: guardrails.check_text(caption) for caption in sorted({w.record.caption for w in windows} - {""})}
    blocked = [caption for caption, verdicts in said.items() if any(verdict.blocks for verdict in verdicts)]
    kept = [w for w in windows if w.record.caption not in blocked]
    if not kept:
        guardrails.enforce_text(blocked[0])
    if len(kept) < len(windows):
        say(f"{len(windows) - len(kept)} of {len(windows)} held-out windows are left out: a guard objects to their captions")
    return kept, [verdict for verdicts in said.values() for verdict in verdicts]


def _batches(config: QuickstartConfig, world: DiffusionWorld, windows: list[Window]) -> list[Batch]:
    """Windows that share a prompt share a batch; no two windows share a seed."""
    by_prompt: dict[str, list[int]] = {}
    for i, window in enumerate(windows):
        by_prompt.setdefault(window.record.caption if world.config.text_encoder != "none" else "", []).append(i)
    batches, seed = [], config.seed
    for prompt, rows in by_prompt.items():
        for start in range(0, len(rows), BATCH):
            batches.append(Batch(rows=rows[start : start + BATCH], request=world.resolve(prompt=prompt, seed=seed)))
            seed += len(batches[-1].rows)
    return batches


def _sample(world: DiffusionWorld, batches: list[Batch], truth: np.ndarray, actions: np.ndarray | None) -> np.ndarray:
    """The future of every window's prefix, uint8 [N, T, H, W, 3]."""
    out = np.empty_like(truth)
    with progress("generating", len(truth), "clips") as bar:
        for batch in batches:
            prefixes = [truth[row, : batch.request.num_prefix_frames] for row in batch.rows]
            out[batch.rows] = world.sample(batch.request, prefixes, None if actions is None else actions[batch.rows])
            bar.advance(len(batch.rows))
    return out


def _actions(windows: list[Window]) -> np.ndarray | None:
    actions = [w.actions for w in windows if w.actions is not None]
    return np.stack(actions) if len(actions) == len(windows) else None


def _given(clips: np.ndarray, truth: np.ndarray, prefix: int) -> np.ndarray:
    clips[:, :prefix] = truth[:, :prefix]
    return clips


def _training_windows(dataset: ClipDataset, run: DiffusionRun, window: WindowConfig, every: int = 2) -> np.ndarray:
    """Every second training window, for the nearest-neighbour control."""
    plain = window.replace(mirror_action=None)
    return np.stack([w.frames for clip in iter_windows(dataset, run.parts.train, plain) for w in clip[::every]])


def save_futures(futures: Futures, run: DiffusionRun, folder: Path) -> list[Path]:
    """Write the generated clips as mp4 with sidecars, except those that a guard objects to; returns the files."""
    world, written = run.world, []
    for i, window in enumerate(futures.windows):
        clip = futures.candidates[MODEL][i]
        try:
            verdicts = world.guardrails.enforce_video(clip, world.config.fps)
        except GuardError as error:
            say(f"{window.name}: not written: {error.message}")
            continue
        request = futures.requests[i]
        record = {**request.to_dict(), "window": window.name, "source": window.record.source_id}
        video = WorldVideo(frames=clip, fps=request.fps, seed=request.seed, config=record, verdicts=verdicts)
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
    road: Road, tokenizer: TokenizerRun, run: DiffusionRun, evaluation: Evaluation, report: Path, written: list[Path]
) -> None:
    """Closing lines for the person at the terminal."""
    model, copy = (evaluation.value("psnr_moving", name) for name in (MODEL, evaluation.baseline))
    total = sum(road.seconds.values())
    say("── done: " + ", ".join(f"{name} {clock(s)}" for name, s in road.seconds.items()) + f"; {clock(total)} in all")
    say(f"tokenizer: held-out PSNR {tokenizer.metrics['held_out_psnr_db']} dB")
    say(f"world model: {run.facts['steps']} steps; moving pixels {model:.2f} dB, copy-last-frame {copy:.2f} dB")
    say(f"look at  {report}")
    first = str(written[0]) if written else "FIRST.png"
    say(
        "go on    " + shlex.join(["worldfoundry", "generate", "--world", str(run.folder), "--input", first, "--out", "out.mp4"])
    )
