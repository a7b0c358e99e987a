"""What a published pipeline folder (diffusers' layout) says beside its networks: how it samples, what it was trained on.

Worlds here: the pipelines of Cosmos-Predict1 (EDM) and Cosmos-Predict2 (rectified flow at Karras' noise levels). All are told
by T5 and end at sigma_min. Predict2's video pipeline shows its network given frames without noise, and tells it so by a noise
level per frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_fields
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults

PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
# `_class_name` of model_index.json → the defaults in which the pipeline differs from ours
PIPELINES: dict[str, dict[str, int]] = {
    "CosmosTextToWorldPipeline": {"num_prefix_frames": 0},
    "CosmosVideoToWorldPipeline": {"num_prefix_frames": 9},
    "Cosmos2TextToImagePipeline": {"num_prefix_frames": 0, "num_frames": 1, "height": 768, "width": 1360},
    "Cosmos2VideoToWorldPipeline": {"num_prefix_frames": 5, "num_frames": 93, "fps": 16},
}
# `_class_name` of scheduler_config.json → what it must say for its steps to be those of `diffusion.samplers.sample_euler`
SCHEDULERS: dict[str, dict[str, Any]] = {
    "EDMEulerScheduler": {"sigma_schedule": "karras", "prediction_type": "epsilon"},
    "FlowMatchEulerDiscreteScheduler": {"use_karras_sigmas": True, "shift": 1.0, "use_dynamic_shifting": False},
}
ASSUMED: dict[str, Any] = {"use_karras_sigmas": False, "use_dynamic_shifting": False}  # where a file leaves it out
# Predict2's pipelines put these levels in the place of what their scheduler's file says.
FLOW = SchedulerConfig(
    parametrization="rectified_flow", sigma_min=0.002, sigma_max=80.0, sigma_data=1.0, final_sigmas_type="sigma_min"
)
NEGATIVE_PROMPT = (
    "A low-quality video: blurry, noisy, jerky and flickering, badly lit, with blocky compression, distorted shapes, "
    "unnatural colors and a scene in which nothing moves."
)
"""What guidance moves away from where the request is silent; in our words, to the effect of the published default."""


def read_scheduler(file: Path) -> SchedulerConfig:
    """How a `scheduler_config.json` samples. Raises CheckpointError for another sampler."""
    fields = read_fields(file)
    name = str(fields.get("_class_name"))
    if name not in SCHEDULERS:
        raise _not_sampled(file, "_class_name", name, " or ".join(map(repr, SCHEDULERS)))
    for option, wanted in SCHEDULERS[name].items():
        found = fields.get(option, ASSUMED.get(option, wanted))
        if found != wanted:
            raise _not_sampled(file, option, found, repr(wanted))
    if name == "FlowMatchEulerDiscreteScheduler":
        return FLOW
    told = ("sigma_min", "sigma_max", "sigma_data", "rho", "final_sigmas_type")
    options = {option: fields[option] for option in told if option in fields}
    return SchedulerConfig.from_dict({"augment_noise": True, **options}, where=str(file))


def read_published(folder: Path, index: Mapping[str, Any]) -> tuple[SchedulerConfig, WorldDefaults]:
    """From a folder with all `PARTS` whose `model_index.json` is `index`. Raises CheckpointError or ConfigError."""
    scheduler = read_scheduler(folder / "scheduler" / "scheduler_config.json")
    if index["_class_name"] == "Cosmos2VideoToWorldPipeline":
        scheduler = scheduler.replace(frame_levels=True, augment_sigma=0.0001)
    defaults = {"negative_prompt": NEGATIVE_PROMPT, "text_encoder": "t5"}
    defaults |= PIPELINES[str(index["_class_name"])]
    return scheduler, WorldDefaults.from_dict(defaults, where=str(folder))


def _not_sampled(file: Path, option: str, found: Any, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"The scheduler {str(file)!r} has {option} = {found!r}; only {wanted} can be sampled here.",
        "The transformer and vae folders beside it load one by one.",
    )
