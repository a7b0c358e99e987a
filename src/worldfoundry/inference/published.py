"""What a published pipeline folder (diffusers' layout) says beside its networks: how it samples, what it was trained on.

The pipelines of Cosmos-Predict1 are worlds here. They are EDM worlds told by T5, and their Euler sampler ends at sigma_min.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.files import read_fields
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults

PARTS = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
# `_class_name` of model_index.json → most frames of an input that condition
PIPELINES = {"CosmosTextToWorldPipeline": 0, "CosmosVideoToWorldPipeline": 9}
SCHEDULER = "EDMEulerScheduler"
# What the scheduler must say for its steps to be those of `diffusion.samplers.sample_euler`.
REQUIRED = {"_class_name": SCHEDULER, "sigma_schedule": "karras", "prediction_type": "epsilon"}
NEGATIVE_PROMPT = (
    "A low-quality video: blurry, noisy, jerky and flickering, badly lit, with blocky compression, distorted shapes, "
    "unnatural colors and a scene in which nothing moves."
)
"""What guidance moves away from where the request is silent; in our words, to the effect of the published default."""


def read_scheduler(file: Path) -> tuple[SchedulerConfig, str]:
    """Noise levels of a `scheduler_config.json`, and its `final_sigmas_type`. Raises CheckpointError for another sampler."""
    fields = read_fields(file)
    for name, wanted in REQUIRED.items():
        if fields.get(name, wanted) != wanted:
            raise CheckpointError(
                f"The scheduler {str(file)!r} has {name} = {fields[name]!r}; only {wanted!r} can be sampled here.",
                "Its transformer and vae folders load one by one.",
            )
    levels = {name: fields[name] for name in ("sigma_min", "sigma_max", "sigma_data", "rho") if name in fields}
    return SchedulerConfig.from_dict(levels, where=str(file)), fields.get("final_sigmas_type", "zero")


def read_published(folder: Path, index: Mapping[str, Any]) -> tuple[SchedulerConfig, WorldDefaults]:
    """From a folder with all `PARTS` whose `model_index.json` is `index`. Raises CheckpointError or ConfigError."""
    scheduler, last = read_scheduler(folder / "scheduler" / "scheduler_config.json")
    prefix_frames = PIPELINES[str(index["_class_name"])]
    defaults = {
        "num_prefix_frames": prefix_frames,
        "negative_prompt": NEGATIVE_PROMPT,
        "final_sigmas_type": last,
        "text_encoder": "t5",
    }
    return scheduler, WorldDefaults.from_dict(defaults, where=str(folder))
