"""`worldfoundry guard`: what the guards say about a prompt, an image or a video. Exit 0 safe, 3 unsafe, 4 unchecked."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.errors import BlockedError, GuardUnavailable
from worldfoundry.guardrails.policy import GuardPolicy

if TYPE_CHECKING:
    from worldfoundry.guardrails.api import Report

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


class GuardTextConfig(Config):
    """Check a prompt with the guards that `generate` uses. Exit 0 safe, 3 unsafe, 4 unchecked."""

    text: tyro.conf.Positional[str]
    """The prompt."""
    explain: Switch = False
    """Show of every guard what it saw, its thresholds, and how to change them."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print the verdicts as JSON."""
    policy: GuardPolicy = GuardPolicy()
    """Which guards look, and their thresholds."""


class GuardImageConfig(Config):
    """Check an image with the guards that `generate` uses. Exit 0 safe, 3 unsafe, 4 unchecked."""

    file: tyro.conf.Positional[Path]
    """The image."""
    explain: Switch = False
    """Show of every guard what it saw, its thresholds, and how to change them."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print the verdicts as JSON."""
    policy: GuardPolicy = GuardPolicy()
    """Which guards look, and their thresholds."""


class GuardVideoConfig(GuardImageConfig):
    """Check every frame of a video with the guards that `generate` uses. Exit 0 safe, 3 unsafe, 4 unchecked."""

    file: tyro.conf.Positional[Path]
    """The video."""


class GuardWatermarkConfig(Config):
    """Look for the invisible mark that generated videos carry. Exit 0 found, 1 not found."""

    file: tyro.conf.Positional[Path]
    """The video, also cropped, cut, resized or encoded anew."""
    max_frames: int = Field(default=240, ge=8)
    """Frames that are read, from the beginning."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print what was found as JSON."""


def run_text(config: GuardTextConfig) -> int:
    from worldfoundry.guardrails.api import text

    return _show(text(config.text, config.policy), config)


def run_image(config: GuardImageConfig) -> int:
    from worldfoundry.guardrails.api import image

    return _show(image(config.file, config.policy), config)


def run_video(config: GuardVideoConfig) -> int:
    from worldfoundry.guardrails.api import video

    return _show(video(config.file, policy=config.policy), config)


def run_watermark(config: GuardWatermarkConfig) -> int:
    from worldfoundry.core.video_io import read_video
    from worldfoundry.core.watermark import read

    found = read(read_video(config.file, max_frames=config.max_frames).frames)
    facts = {"id": None if found.id is None else f"{found.id:08x}", "clarity": found.clarity, "scale": round(found.scale, 4)}
    if config.as_json:
        print(json.dumps(facts))
    elif found.id is None:
        print(f"no mark found (best match: clarity {found.clarity:g}, and no checksum that agrees)")
    else:
        size = "" if found.scale == 1 else f", at {found.scale:.2g} times the size it was written at"
        print(
            f"marked {facts['id']} (clarity {found.clarity:g}{size}): made by WorldFoundry; the JSON beside the original has this id"
        )
    return 0 if found.id is not None else 1


def _show(report: "Report", config: GuardTextConfig | GuardImageConfig) -> int:
    from worldfoundry.guardrails.explain import explanation, table

    if config.as_json:
        print(json.dumps([asdict(verdict) for verdict in report.verdicts], indent=2, ensure_ascii=False))
    else:
        print("\n".join([*table(report), *(["", *explanation(report)] if config.explain else [])]))
    return exit_code(report)


def exit_code(report: "Report") -> int:
    """What the guards found, whatever the policy would do about it."""
    return {"safe": 0, "unsafe": BlockedError.exit_code}.get(report.status, GuardUnavailable.exit_code)


SUBCOMMANDS = {
    "text": (GuardTextConfig, run_text, "check a prompt"),
    "image": (GuardImageConfig, run_image, "check an image"),
    "video": (GuardVideoConfig, run_video, "check every frame of a video"),
    "watermark": (GuardWatermarkConfig, run_watermark, "look for the invisible mark of generated videos"),
}
