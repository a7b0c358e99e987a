"""`worldfoundry guard`: what the guards say about a prompt, an image or a video. Exit 0 safe, 3 unsafe, 4 unchecked."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from worldfoundry.core.config import Config
from worldfoundry.core.errors import BlockedError, GuardUnavailable, UsageError
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails

if TYPE_CHECKING:
    from worldfoundry.core.contracts import Verdict
    from worldfoundry.core.video_io import VideoClip


class GuardConfig(Config):
    """Check a prompt, an image or a video with the guards that `generate` uses. Exit 0 safe, 3 unsafe, 4 unchecked."""

    text: str | None = None
    """A prompt to check."""
    video: Path | None = None
    """A video or image file to check, every frame."""
    as_json: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
    """Print verdicts as JSON."""
    policy: GuardPolicy = GuardPolicy()
    """Which guards look, and their thresholds."""


def run(config: GuardConfig) -> int:
    if config.text is None and config.video is None:
        raise UsageError("There is nothing to check.", "Give --text 'a prompt', --video FILE, or both.")
    guardrails = Guardrails.from_policy(config.policy)
    verdicts: list[Verdict] = []
    if config.text is not None:
        verdicts += guardrails.check_text(config.text)
    if config.video is not None:
        for piece in pieces(config.video):
            verdicts += guardrails.check_video(piece.frames, piece.fps)
    if config.as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        print_table(verdicts)
    return exit_code(verdicts)


CONFIG = GuardConfig


def pieces(path: Path, max_bytes: int = 1 << 29) -> Iterator["VideoClip"]:
    """A file as pieces that fit in memory; each begins one second before the last one ended, so no second is cut in two."""
    import numpy as np

    from worldfoundry.core.video_io import IMAGE_SUFFIXES, VideoClip, iter_frames, probe_video, read_media

    if path.suffix.lower() in IMAGE_SUFFIXES:
        yield read_media(path)
        return
    info = probe_video(path)
    overlap = max(1, math.ceil(info.fps))
    most = max(2 * overlap, max_bytes // (info.width * info.height * 3))
    frames: list[np.ndarray] = []
    fresh = 0
    for _, frame in iter_frames(path):
        frames.append(frame)
        fresh += 1
        if len(frames) == most:
            yield VideoClip(frames=np.stack(frames), times_s=np.arange(most) / (info.fps or 1), fps=info.fps)
            frames, fresh = frames[-overlap:], 0
    if fresh:
        yield VideoClip(frames=np.stack(frames), times_s=np.arange(len(frames)) / (info.fps or 1), fps=info.fps)


def exit_code(verdicts: list["Verdict"]) -> int:
    """What the guards found, whatever the policy would do about it."""
    statuses = {verdict.status for verdict in verdicts}
    if "unsafe" in statuses:
        return BlockedError.exit_code
    return 0 if statuses == {"safe"} else GuardUnavailable.exit_code


def print_table(verdicts: list["Verdict"]) -> None:
    """One line per verdict, and what to do about those that could not look."""
    print(f"{'status':<9}{'guard':<12}{'category':<17}reason")
    for verdict in verdicts:
        print(f"{verdict.status:<9}{verdict.guard:<12}{verdict.category or '-':<17}{verdict.reason}")
        if verdict.status != "safe" and verdict.evidence.get("fix"):
            print(f"{'':<38}{verdict.evidence['fix']}")
