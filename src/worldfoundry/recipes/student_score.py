"""How near a student's samples come to its teacher's from the same noise.

Axis legend: B windows, C latent channels, T latent frames, H W latent rows/columns, L context rows, D context width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from worldfoundry.conditioning.condition import Condition
from worldfoundry.inference.config import SchedulerConfig
from worldfoundry.inference.sampling import sample_window, sampling_levels, seeded
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.nn.lora import LoRA


def score_student(
    world: DiffusionWorld, lora: LoRA, rows: Mapping[str, Tensor], contexts_BLD: Tensor, *, path: Tensor,
    short: SchedulerConfig, steps: int, given: int, guidance_scale: float, batch_size: int,
) -> dict[str, float]:  # fmt: skip
    """Root mean square distances over the frames after `given` latent ones, in deviations of a latent.

    `student` samples with the schedule `short` in `steps` steps, the teacher along its `path` (`teacher`) and in as few steps as
    the student (`few`). `rows` are a stream's columns of the windows to look at; window i has noise of seed i in all three.
    """
    given = min(given, rows["latents"].shape[2] - 1)
    sums: dict[str, float] = {}
    for index in torch.arange(len(rows["latents"])).split(batch_size):
        part = {name: column[index] for name, column in rows.items()}
        z_BCTHW, condition = _conditions(world, part, contexts_BLD[index], given)
        first, full = int(index[0]), world.scheduler.replace(sampler="euler", final_sigmas_type="zero")
        levels = sampling_levels(short, steps)
        made = {
            "clip": z_BCTHW,
            "teacher": _sample(world, full, path, condition, guidance_scale, z_BCTHW, first),
            "few": _sample(world, short, levels, condition, guidance_scale, z_BCTHW, first),
        }
        with lora.attached(world.network):
            made["student"] = _sample(world, short, levels, condition, 0.0, z_BCTHW, first)
        for one, other in (
            ("student", "teacher"),
            ("few", "teacher"),
            ("student", "clip"),
            ("few", "clip"),
            ("teacher", "clip"),
        ):
            distance = (made[one] - made[other])[:, :, given:].square().mean(dim=(1, 2, 3, 4)).sum()
            sums[f"{one}_to_{other}"] = sums.get(f"{one}_to_{other}", 0.0) + float(distance)
    count = float(len(rows["latents"]))
    return {"windows": count} | {name: round((total / count) ** 0.5, 4) for name, total in sums.items()}


def _conditions(
    world: DiffusionWorld, part: Mapping[str, Tensor], contexts_BLD: Tensor, given: int
) -> tuple[Tensor, Condition]:
    z_BCTHW = part["latents"].float().to(world.device)
    actions, numbers = part.get("actions"), world.network.config.action_dim
    if actions is None and numbers:  # as in training: nothing acts
        actions = torch.zeros(len(z_BCTHW), z_BCTHW.shape[2], numbers)
    condition = Condition(
        context_BLD=contexts_BLD, fps_B=part["fps"], actions_BTA=actions,
        augment_sigma=world.scheduler.augment_sigma,
        prefix_BCTHW=z_BCTHW[:, :, :given] * world.scheduler.sigma_data if given else None,
    )  # fmt: skip
    return z_BCTHW, condition.to(world.device)


def _sample(
    world: DiffusionWorld, scheduler: SchedulerConfig, levels: Tensor, condition: Condition, guidance_scale: float,
    like_BCTHW: Tensor, seed: int,
) -> Tensor:  # fmt: skip
    unconditional = condition.unconditional() if guidance_scale else None
    C, T, H, W = like_BCTHW.shape[1:]
    return sample_window(
        world.denoiser, scheduler, levels, condition, unconditional, guidance_scale, (C, T, H, W),
        seeded(seed, len(like_BCTHW)), world.device,
    )  # fmt: skip
