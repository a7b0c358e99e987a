"""The training loop: draw a batch, step, average, log, save. It knows no model and no data format.

A run folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/` (resumable state, see `state.py`). With a budget in
steps, a run that was killed and resumed equals the uninterrupted one bit for bit. With a budget in minutes the number
of steps is measured while running and the learning-rate schedule follows the share of the budget that is spent.

Started by torchrun, every rank runs this same loop. What they share is in `distributed.py`; here it shows as `self.ranks`,
all of whose answers are trivial for one process.
"""

import copy
import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldfoundry.core.devices import fast_bfloat16, matrix_rate
from worldfoundry.core.errors import UsageError, WorldFoundryError
from worldfoundry.core.files import atomic_path, read_fields, sole_writer, write_json
from worldfoundry.core.progress import MetricsLog, progress, read_metrics, say
from worldfoundry.training.config import LoopConfig, OptimConfig
from worldfoundry.training.distributed import distribute, is_main, process_group
from worldfoundry.training.ema import EMA, moving_average
from worldfoundry.training.method import BatchStream, Method, Shared, StagedMethod, StatefulMethod, decay_groups
from worldfoundry.training.muon import Muon
from worldfoundry.training.state import (
    clean_leftovers,
    has_state,
    load_optimizer,
    load_state,
    optimizer_tensors,
    save_state,
    understood,
)

COMPILE_PAYS_AFTER_S = 100.0
Callback = Callable[[int, EMA], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run leaves: the averaged weights (whole on rank 0, nothing on others), and how much work it was."""

    ema: EMA
    steps: int
    seconds: float
    final_loss: float
    precision: str


class Trainer:
    """Everything that changes during a run. `train` is the way in."""

    def __init__(self, method: Method, data: BatchStream, config: LoopConfig, run: Path) -> None:
        self.ranks, self.data = distribute(method, data, config)
        self.method, self.config, self.run = method, config, run
        self.device = next(method.module.parameters()).device
        self.optimizer = _optimizer(method, config.optim)
        self.ema = moving_average(method.module, config)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step, self.seconds, self.loss = 0, 0.0, math.nan
        self.precision, self.flops, self.matrix_rate = "", 0.0, 0.0
        self.total_steps = config.steps or 0

    # -- one step ---------------------------------------------------------------------------------------------------

    def run_step(self) -> Mapping[str, float]:
        """One optimizer step; returns what is worth logging."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, self.step, self.progress())
        for part in (self.method, self.data):
            if isinstance(part, StagedMethod):
                part.begin_step(self.progress())
        self.ranks.seed_step(self.config.seed, self.step, None if isinstance(self.method, Shared) else self.generator)
        output = self._forward(self.data.next_batch(), self.precision)
        self.flops = output.flops / self.ranks.together
        output.loss.backward()
        norm = self.ranks.clip_gradients(self.method.module, self.config.optim.clip_grad_norm)
        if not math.isfinite(norm):
            raise WorldFoundryError(
                f"Training diverged at step {self.step}: the gradient is {norm!r}.",
                "Start again in a new --out with a lower --loop.optim.lr.",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.method.module)
        self.step += 1
        measured = self.ranks.mean({"loss": float(output.loss.detach()), **output.metrics})
        loss = measured["loss"]
        self.loss = loss if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * loss
        return {"loss": loss, "grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"], **measured}

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        if self.config.minutes is not None:
            return min(1.0, self.seconds / (60 * self.config.minutes))
        return self.step / self.total_steps

    def utilization(self, seconds: float) -> Mapping[str, float]:
        """`mfu`: the operations of the last step, which took `seconds`, as a share of what matrix products reach here."""
        if not self.flops:
            return {}
        if not self.matrix_rate:
            dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
            self.matrix_rate = matrix_rate(self.device, dtype)
            say(
                f"a step takes {self.flops / 1e9:.4g} GFLOP; {self.precision} products reach {self.matrix_rate / 1e9:.4g} GFLOP/s"
            )
        return {"mfu": round(self.flops / seconds / self.matrix_rate, 4)}

    def _forward(self, batch: Any, precision: str) -> Any:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return self.method.training_step(batch, self.generator)

    # -- choices made once ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Choose precision and compilation once; a resumed run keeps the precision it began with."""
        if not self.precision:
            auto = self.config.precision == "auto"
            self.precision = self.ranks.from_main(self._faster_precision()) if auto else self.config.precision
        if self._should_compile():
            self.method.compile()

    def _should_compile(self) -> bool:
        if self.config.compile != "auto":
            return self.config.compile == "on"
        has_compiler = self.device.type == "cuda" or shutil.which("g++") is not None
        return (
            self.ranks.count == 1
            and has_compiler
            and self.config.minutes is not None
            and self.config.minutes * 60 >= COMPILE_PAYS_AFTER_S
        )

    def _faster_precision(self) -> str:
        """Time one forward and backward in each precision (after one to warm up); randomness and data are put back."""
        if not fast_bfloat16(self.device):
            return "float32"
        data, noise, dropout = self.data.state_dict(), self.generator.get_state(), torch.get_rng_state()
        beside = self.method.state_tensors() if isinstance(self.method, StatefulMethod) else {}
        batch, times = self.data.next_batch(), {}
        for name in ("float32", "bfloat16"):
            for _ in range(2):
                start = time.perf_counter()
                self._forward(batch, name).loss.backward()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                times[name] = time.perf_counter() - start
        self.optimizer.zero_grad(set_to_none=True)
        self.data.load_state_dict(data)
        self.generator.set_state(noise)
        torch.set_rng_state(dropout)
        if isinstance(self.method, StatefulMethod):
            self.method.load_state_tensors(beside)
        return min(times, key=lambda name: times[name])

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the resumable state."""
        tensors = {f"model.{k}": v for k, v in self.method.module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.average.items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors |= {"rng.noise": self.generator.get_state(), "rng.torch": torch.get_rng_state()}
        if self.device.type == "cuda" and self.ranks.count == 1:
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        if isinstance(self.method, StatefulMethod):
            tensors |= {f"method.{k}": v for k, v in self.method.state_tensors().items()}
        facts = {
            "seconds": self.seconds,
            "loss": self.loss,
            "ema_n": self.ema.n,
            "precision": self.precision,
            "data": self.data.state_dict(),
        }
        save_state(self.run, self.step, tensors, facts, self.config.keep, self.ranks)

    def resume(self) -> bool:
        """Continue from the newest state if there is one."""
        found = load_state(self.run, self._kept_like)
        if found is None:
            return False
        tensors, facts = found
        with understood(self.run):
            self._restore(tensors, facts)
        return True

    def _kept_like(self, name: str) -> torch.Tensor | None:
        """The tensor in memory that a saved one belongs to: sharded alike, wherever it was saved."""
        kind, _, rest = name.partition(".")
        if kind == "optim":
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            return parameters[int(rest.partition(".")[0])]
        return self.ema.average.get(rest) if kind in ("model", "ema") else None

    def whole_ema(self) -> EMA:
        """The average with its shards put together; empty on ranks other than the first, all of which must call it."""
        if not self.ranks.sharded:
            return self.ema
        whole = copy.copy(self.ema)
        whole.average = self.ranks.whole(self.ema.average)
        return whole

    def _restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        self.method.module.load_state_dict(_strip(tensors, "model."))
        self.ema.average = {k: v.to(self.device) for k, v in _strip(tensors, "ema.").items()}
        load_optimizer(self.optimizer, tensors)
        self.generator.set_state(tensors["rng.noise"])
        torch.set_rng_state(tensors["rng.torch"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        if isinstance(self.method, StatefulMethod):
            self.method.load_state_tensors(_strip(tensors, "method."))
        self.step, self.seconds, self.loss = facts["step"], facts["seconds"], facts["loss"]
        self.ema.n, self.precision = facts["ema_n"], facts["precision"]
        self.data.load_state_dict(facts["data"])


def train(
    method: Method,
    data: BatchStream,
    config: LoopConfig,
    run: Path,
    *,
    identity: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    callback_every_s: float = 60.0,
    title: str = "training",
) -> TrainResult:
    """Train until the budget is spent; resume first if `run` holds a state of the same run.

    `identity` (config, data hash, …) names the run: a folder that holds another run is refused with a UsageError,
    and so is one that another process is writing.
    `callback(step, ema)` returns numbers to log. Ctrl-C and SIGTERM save and raise KeyboardInterrupt.
    Under torchrun all ranks call this; the folder, the log and the callback are the first one's.
    """
    with process_group(), sole_writer(run) if is_main() else nullcontext():
        if is_main():
            claim(run, config, identity or {})
            clean_leftovers(run)
        torch.manual_seed(config.seed)
        trainer = Trainer(method, data, config, run)
        if trainer.resume():
            say(f"{title}: resuming at step {trainer.step}")
        method.module.train()
        trainer.prepare()
        with (
            _metrics(run / "metrics.jsonl", trainer.step) if is_main() else nullcontext() as log,
            _stop_signals() as stop,
            progress(title, 100.0, "%") as bar,
        ):
            _run(trainer, log, stop, bar, callback, callback_every_s)
        ema = trainer.whole_ema()
    method.module.eval()
    return TrainResult(
        ema=ema, steps=trainer.step, seconds=trainer.seconds, final_loss=trainer.loss, precision=trainer.precision
    )


def _run(
    trainer: Trainer, log: MetricsLog | None, stop: list[int], bar: Any, callback: Callback | None, every_s: float
) -> None:
    config, bar.done = trainer.config, 100 * trainer.progress()
    next_save, next_call = trainer.seconds + config.save_every_s, trainer.seconds + every_s
    while trainer.progress() < 1.0:
        start = time.perf_counter()
        metrics = trainer.run_step()
        taken = time.perf_counter() - start
        trainer.seconds, stopped = trainer.ranks.largest([trainer.seconds + taken, bool(stop)])
        bar.advance(100 * trainer.progress() - bar.done, f"step {trainer.step}, loss {trainer.loss:.4g}")
        ended = trainer.progress() >= 1.0
        if log and (trainer.step % config.log_every == 0 or ended):
            log.log(trainer.step, seconds=round(trainer.seconds, 2), **metrics, **trainer.utilization(taken))
        if callback is not None and (trainer.seconds >= next_call or ended):
            ema = trainer.whole_ema()
            if log:
                log.log(trainer.step, seconds=round(trainer.seconds, 2), **callback(trainer.step, ema))
            next_call = trainer.seconds + every_s
        if trainer.seconds >= next_save or ended or stopped:
            trainer.save()
            next_save = trainer.seconds + config.save_every_s
        if stopped and not ended:
            say(f"stopped at step {trainer.step}; the same command goes on from there")
            raise KeyboardInterrupt


def learning_rate(config: OptimConfig, step: int, progress_share: float) -> float:
    """Linear warm-up over steps, then decay over the share of the budget that is spent."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    shapes = {"cosine": 0.5 * (1 + math.cos(math.pi * progress_share)), "linear": 1 - progress_share, "constant": 1.0}
    return config.lr * warm * (config.final_lr_ratio + (1 - config.final_lr_ratio) * shapes[config.decay])


def _optimizer(method: Method, config: OptimConfig) -> torch.optim.Optimizer:
    groups = decay_groups(method.module.named_parameters(), config.weight_decay)
    if config.name == "muon":
        return Muon(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def claim(run: Path, config: LoopConfig, identity: Mapping[str, Any]) -> None:
    """Write into the folder which run it holds; to be called before anything else is written there.

    Raises UsageError if the folder holds states of a run with another config or identity.
    """
    file, identity = run / "run.json", {"loop": config.identity(), **identity}
    if file.exists() and has_state(run):
        known = read_fields(file)
        changed = [k for k in {*known, *identity} if known.get(k) != identity.get(k)]
        if changed:
            raise UsageError(
                f"{str(run)!r} holds a run with another {', '.join(sorted(changed))}.",
                "Use a new --out, or the same settings to resume.",
            )
        return
    write_json(file, identity)


@contextmanager
def _metrics(file: Path, step: int) -> Iterator[MetricsLog]:
    """The log of a run that goes on after `step`."""
    _forget_after(file, step)
    log = MetricsLog(file)
    try:
        yield log
    finally:
        log.close()


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the rows of steps that a killed run did after its last save; they are done again."""
    rows = read_metrics(metrics) if metrics.exists() else []
    if any(row["step"] > step for row in rows):
        with atomic_path(metrics) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step), encoding="utf-8")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying; a second signal of the same kind dies at once."""
    seen: list[int] = []

    def note(number: int, _: Any) -> None:
        seen.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller owns the signals
        yield seen
        return
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _strip(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
