"""Distil a diffusion world into a few-step student; leaves an adapter folder.

Axis legend: N captions, L context rows, D context width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldfoundry.core.devices import pick_device
from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import write_json
from worldfoundry.core.provenance import machine, provenance
from worldfoundry.data.clips import ClipDataset
from worldfoundry.inference.adapters import AdapterDefaults, base_hashes, save_adapter
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.inference.load import load
from worldfoundry.inference.sampling import sampling_levels
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.nn.lora import new_lora
from worldfoundry.recipes.student_data import student_columns, training_config
from worldfoundry.recipes.student_score import score_student
from worldfoundry.recipes.train_student_config import TrainStudentConfig
from worldfoundry.tokenizers.tokenizer import Tokenizer
from worldfoundry.training.config import DiffusionLossConfig
from worldfoundry.training.loop import claim, train
from worldfoundry.training.methods.diffusion import DiffusionMethod
from worldfoundry.training.methods.distillation import DistillationMethod, segment_length
from worldfoundry.training.streams import TensorStream


@dataclass(frozen=True, kw_only=True)
class StudentRun:
    """What `train_student` leaves: the adapter folder, and how near the student came to its teacher."""

    folder: Path
    facts: dict[str, Any]


def train_student(config: TrainStudentConfig) -> StudentRun:
    """Encode or take cached latents, distil (or resume) and export OUT/adapter. Raises UsageError for unfit input."""
    dataset, device = ClipDataset(config.data), pick_device(config.device)
    world, tokenizer = _teacher(config.world, device)
    base = base_hashes(world.network)
    identity = {"recipe": "student", "config": config.hash(), "data": dataset.hash(), "world": base[0]}
    claim(config.out, config.loop, identity)
    config.save(config.out / "config.yaml")
    rows, contexts_NLD = student_columns(config, dataset, world, tokenizer)
    path = teacher_levels(config, world)
    lora = new_lora(world.network, config.lora.targets, rank=config.lora.rank, alpha=config.lora.alpha, seed=config.loop.seed)
    guidance = world.config.guidance_scale if config.guidance_scale is None else config.guidance_scale
    drawer = DiffusionMethod(
        world.network, student_loss(world, tokenizer), contexts_NLD, fps=world.config.fps,
        frame_levels=world.scheduler.frame_levels, augment_sigma=world.scheduler.augment_sigma,
    )  # fmt: skip
    method = DistillationMethod(lora, drawer, config.distillation, path, guidance_scale=guidance)
    stream = TensorStream(rows, config.batch_size, config.loop.seed)
    result = train(method, stream, config.loop, config.out, identity=identity, title="student")
    result.ema.copy_to(lora)
    fresh, _ = _teacher(config.world, device)  # the network above may be compiled for one batch size
    sampling = student_scheduler(world.scheduler, path, config.distillation.steps)
    chosen = torch.linspace(0, len(rows["latents"]) - 1, min(config.compare, len(rows["latents"]))).long()
    shown = {name: column[chosen] for name, column in rows.items()}
    scores = score_student(
        fresh, lora, shown, contexts_NLD[shown["caption"]], path=path, short=sampling, steps=config.distillation.steps,
        given=given_latents(world, tokenizer), guidance_scale=guidance, batch_size=config.batch_size,
    )  # fmt: skip
    facts = provenance(
        recipe="train student", world=str(config.world), config=config.to_dict(), data=dataset.hash(), steps=result.steps,
        hours=round(result.seconds / 3600, 4), precision=result.precision, final_loss=round(result.final_loss, 6),
        parameters=sum(p.numel() for p in lora.parameters()), teacher_steps=len(path) - 1, metrics=scores,
    )  # fmt: skip
    defaults = AdapterDefaults(
        num_inference_steps=config.distillation.steps, guidance_scale=0.0,
        scheduler={name: value for name, value in sampling.to_dict().items() if value != world.scheduler.to_dict()[name]},
    )  # fmt: skip
    folder = save_adapter(
        config.out / "adapter",
        lora,
        fresh.network,
        defaults=defaults,
        provenance=facts,
        card=_card(config, facts),
        overwrite=True,
    )
    write_json(config.out / "metrics.json", scores)
    return StudentRun(folder=folder, facts=facts)


def _teacher(name: Path, device: torch.device) -> tuple[DiffusionWorld, Tokenizer]:
    """The world and its tokenizer, in float32. Raises CheckpointError for anything else."""
    world = load(name, dtype=torch.float32, device=device)
    if not isinstance(world, DiffusionWorld):
        raise CheckpointError(f"{str(name)!r} is no diffusion world.", "Give --world a world folder or a shipped world.")
    if not isinstance(world.tokenizer, Tokenizer):
        raise CheckpointError(f"The tokenizer of {str(name)!r} cannot be used in training: diffusers holds it.")
    return world, world.tokenizer


def teacher_levels(config: TrainStudentConfig, world: DiffusionWorld) -> Tensor:
    """The noise levels of the path that the teacher walks, ending at zero. Raises ConfigError where steps do not divide it."""
    steps = config.distillation.steps
    asked = config.distillation.teacher_steps or -(-world.config.num_inference_steps // steps) * steps
    segment_length(asked, steps)
    return sampling_levels(world.scheduler.replace(final_sigmas_type="zero"), asked)


def student_scheduler(scheduler: SchedulerConfig, path: Tensor, steps: int) -> SchedulerConfig:
    """The teacher's scheduler, changed so that Euler's method in `steps` steps visits the ends of the path's segments.

    Levels of either schedule are evenly spaced in a function of sigma, so every n-th of them is again such a schedule.
    """
    changes: dict[str, Any] = {"sampler": "euler", "final_sigmas_type": "zero"}
    if scheduler.schedule == "karras" and steps > 1:
        changes["sigma_min"] = float(path[(steps - 1) * ((len(path) - 1) // steps)])
    return scheduler.replace(**changes)


def student_loss(world: DiffusionWorld, tokenizer: Tokenizer) -> DiffusionLossConfig:
    """How prefixes and text are drawn: as in the world's training where that is known, else always the world's longest prefix."""
    known = training_config(world).get("loss")
    if isinstance(known, dict):
        return DiffusionLossConfig.from_dict(known, where="the world's provenance")
    given = given_latents(world, tokenizer)
    return DiffusionLossConfig(
        parametrization=world.scheduler.parametrization, sigma_data=world.scheduler.sigma_data,
        prefix_weights=(0.0,) * given + (1.0,), change_weight=0.0,
    )  # fmt: skip


def given_latents(world: DiffusionWorld, tokenizer: Tokenizer) -> int:
    """Latent frames of the world's usual prefix."""
    frames = world.config.num_prefix_frames
    return 1 + (frames - 1) // tokenizer.spec.t if frames else 0


def _card(config: TrainStudentConfig, facts: dict[str, Any]) -> str:
    scores, steps = facts["metrics"], config.distillation.steps
    return f"""---
library_name: worldfoundry
tags: [world-model, video-diffusion, lora, few-step]
---

# A student that samples in {steps} step{"s" if steps > 1 else ""}: an adapter of {config.world.name}

A LoRA (rank {config.lora.rank}, {facts["parameters"] / 1e6:.2f} M parameters) distilled for {facts["steps"]} steps ({facts["hours"]} h) on
{machine(facts["hardware"])} from the world's own {facts["teacher_steps"]}-step samples (multistep consistency, arXiv 2403.06807).

Root mean square distances between latents (in deviations; smaller is nearer) of the frames that were not given, on
{scores["windows"]:g} windows of the training clips with noise of their own. They say how near the student is to its teacher, not how
good either is; a blurred sample can be nearer to a clip than a sharp one.

| | to the teacher in {facts["teacher_steps"]} steps | to the clip |
|---|---|---|
| student, {steps} steps | {scores["student_to_teacher"]} | {scores["student_to_clip"]} |
| teacher, {steps} steps | {scores["few_to_teacher"]} | {scores["few_to_clip"]} |
| teacher, {facts["teacher_steps"]} steps | 0 | {scores["teacher_to_clip"]} |

    worldfoundry generate --world {config.world} --adapter . --input FIRST.png --out out.mp4

It fits the weights of that world alone (their hash is in `provenance.json`) and brings its own number of steps and noise levels.
"""
