"""Distillation of a diffusion world model into a few sampling steps: multistep consistency (arXiv 2403.06807, algorithm 2).

The noise levels that the teacher's sampler visits are cut into as many segments as the student has steps. From any level of a
segment the student has to jump, in one Euler step, to where the teacher's path through that point leaves the segment:

    x at sigma  --teacher, several Euler steps-->  x' at sigma'        target = the x0 whose single Euler step gives x'

With `hops` steps of the path per target and the student's own jump (without gradients) for the rest, this is consistency
distillation. By default the path is walked to the segment's end: a target then costs more and has no error of the student's in
it, which is what a short training needs, and only the levels that the student's sampler visits are trained.
The student is the teacher with a LoRA attached; nothing else is trained.

Legend: B batch, C latent channels, T H W latent frames/rows/columns.
"""

import torch
from torch import Tensor

from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.loss import mean_over_made_frames
from worldfoundry.diffusion.parametrization import per_sample
from worldfoundry.diffusion.samplers import Denoise
from worldfoundry.nn.lora import LoRA
from worldfoundry.training.config import DistillationConfig
from worldfoundry.training.method import Share, StepOutput
from worldfoundry.training.methods.diffusion import DiffusionMethod


class DistillationMethod:
    """Train a LoRA so that the network with it jumps where the network without it walks."""

    def __init__(
        self, lora: LoRA, teacher: DiffusionMethod, config: DistillationConfig, levels: Tensor, *, guidance_scale: float = 0.0
    ) -> None:
        """`teacher` draws conditions and holds the frozen network; `levels` are its sampler's falling sigmas, ending at 0; the
        student learns the teacher with guidance. Raises ConfigError for a path that does not divide into segments."""
        self.module, self.teacher, self.config, self.guidance_scale = lora, teacher, config, guidance_scale
        self.length = segment_length(len(levels) - 1, config.steps)
        device = next(teacher.module.parameters()).device
        self.levels = levels.to(device, torch.float32)
        teacher.module.requires_grad_(False)

    @property
    def share(self) -> Share:
        return self.teacher.share

    @share.setter
    def share(self, share: Share) -> None:
        self.teacher.share = share

    def training_step(self, batch: dict[str, Tensor], generator: torch.Generator) -> StepOutput:
        """`batch` is that of `DiffusionMethod`. The error is relative to a network output of unit variance."""
        network, device = self.teacher.module, self.levels.device
        x0_BCTHW, condition, weight_B1THW = self.teacher.draw(batch, generator)
        x0_BCTHW, condition, weight_B1THW = x0_BCTHW.to(device), condition.to(device), weight_B1THW.to(device)
        everyones = len(x0_BCTHW) * self.share.count
        segment_B = torch.randint(self.config.steps, (everyones,), generator=generator)
        offset_B = torch.randint(self.length, (everyones,), generator=generator)
        noise_BCTHW = self.share.of(torch.randn((everyones, *x0_BCTHW.shape[1:]), generator=generator))
        last_B = self.share.of((segment_B + 1) * self.length).to(device)
        first_B = last_B - self.length
        if self.config.hops is not None:  # the student then also finishes targets, so it has to know the levels between
            first_B = first_B + self.share.of(offset_B).to(device)
        sigma_B = self.levels[first_B]
        x_BCTHW = x0_BCTHW + per_sample(sigma_B, x0_BCTHW) * noise_BCTHW.to(device)

        def student(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
            with self.module.attached(network):
                return self.teacher.denoiser(x_BCTHW, sigma_B, condition)

        def plain(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
            return self.teacher.denoiser(x_BCTHW, sigma_B, condition)

        guide = guided(self.teacher.denoiser, condition, condition.unconditional(), self.guidance_scale)
        target_BCTHW = jump_target(
            guide if self.guidance_scale else plain, student, x_BCTHW, self.levels, first_B, last_B, self.config.hops
        )
        error_BCTHW = (student(x_BCTHW, sigma_B) - target_BCTHW).square() * weight_B1THW
        loss_weight_B = self.teacher.denoiser.parametrization.loss_weight(sigma_B)
        error_B = mean_over_made_frames(error_BCTHW, condition) * loss_weight_B
        return StepOutput(loss=error_B.mean())

    def compile(self) -> None:
        """Compile block by block; the student's blocks are the teacher's with more in them, a second graph for all."""
        self.teacher.compile()


@torch.no_grad()
def jump_target(
    teacher: Denoise, student: Denoise, x_BCTHW: Tensor, levels: Tensor, first_B: Tensor, last_B: Tensor, hops: int | None
) -> Tensor:
    """The x0 from which one Euler step takes x at `levels[first]` to the end of its path at `levels[last]` (first < last).

    The teacher walks the first `hops` intervals of the path (None: all), and the student jumps over those that are left.
    """
    at_B, here_BCTHW = first_B.clone(), x_BCTHW
    for _ in range(hops if hops is not None else int((last_B - first_B).max())):
        going_B = at_B < last_B
        sigma_B = levels[torch.minimum(at_B, last_B - 1)]
        following_B = levels[torch.minimum(at_B + 1, last_B)]
        there_BCTHW = euler_step(teacher(here_BCTHW, sigma_B), here_BCTHW, sigma_B, following_B)
        here_BCTHW = torch.where(per_sample(going_B, here_BCTHW).bool(), there_BCTHW, here_BCTHW)
        at_B = at_B + going_B
    end_B, left_B = levels[last_B], at_B < last_B
    if left_B.any():
        sigma_B = levels[torch.minimum(at_B, last_B - 1)]
        there_BCTHW = euler_step(student(here_BCTHW, sigma_B), here_BCTHW, sigma_B, end_B)
        here_BCTHW = torch.where(per_sample(left_B, here_BCTHW).bool(), there_BCTHW, here_BCTHW)
    ratio = per_sample(end_B / levels[first_B], x_BCTHW)
    return (here_BCTHW - ratio * x_BCTHW) / (1 - ratio)


def euler_step(x0_BCTHW: Tensor, x_BCTHW: Tensor, sigma_B: Tensor, following_B: Tensor) -> Tensor:
    """From sigma to the following level along the straight line towards x0 (a step of `samplers.sample_euler`)."""
    return x0_BCTHW + per_sample(following_B / sigma_B, x_BCTHW) * (x_BCTHW - x0_BCTHW)


def segment_length(teacher_steps: int, steps: int) -> int:
    """How many of the teacher's steps one of the student's stands for. Raises ConfigError where they do not divide."""
    if teacher_steps % steps:
        raise ConfigError(
            f"The teacher's {teacher_steps!r} steps do not divide among the student's {steps!r}.",
            f"Take {-(-teacher_steps // steps) * steps} of the teacher's.",
        )
    return teacher_steps // steps
