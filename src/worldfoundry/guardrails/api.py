"""`wf.guard`: what the guards say of a text, an image or a video, in three lines.

    import worldfoundry as wf
    report = wf.guard.text("the arm lifts the red cube")
    print(report.safe, report)

Nothing is changed and nothing is raised; `report.enforce()` raises for what would be blocked.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from worldfoundry.core.contracts import Verdict, VerdictStatus
from worldfoundry.core.video_io import VideoClip, iter_frames, probe_video, read_image
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import Guardrails, describe

WORST_FIRST: tuple[VerdictStatus, ...] = ("unsafe", "error", "skipped", "safe")
PIECE_BYTES = 1 << 29


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every guard said of one item, under which policy."""

    what: str
    verdicts: tuple[Verdict, ...]
    policy: GuardPolicy

    @property
    def status(self) -> VerdictStatus:
        """The worst that was said; `error` where nobody said anything."""
        said = {verdict.status for verdict in self.verdicts}
        found: list[VerdictStatus] = [status for status in WORST_FIRST if status in said]
        return found[0] if found else "error"

    @property
    def safe(self) -> bool:
        return self.status == "safe"

    def enforce(self) -> None:
        """Raises BlockedError or GuardUnavailable for what the policy blocks."""
        Guardrails(self.policy).judge(self.what, self.verdicts)

    def by_guard(self) -> list[Verdict]:
        """One verdict a guard, its worst: a long video is looked at in pieces."""
        worst: dict[str, Verdict] = {}
        for verdict in sorted(self.verdicts, key=lambda v: WORST_FIRST.index(v.status)):
            worst.setdefault(verdict.guard, verdict)
        return list(worst.values())

    def __str__(self) -> str:
        against = "; ".join(describe(verdict) for verdict in self.by_guard() if verdict.blocks)
        return f"{self.what}: {self.status}" + (f": {against}" if against else "")


def text(prompt: str, policy: GuardPolicy | None = None) -> Report:
    """What the text guards say of a prompt."""
    policy = policy or GuardPolicy()
    return Report(what="prompt", verdicts=Guardrails.from_policy(policy).check_text(prompt), policy=policy)


def image(source: str | Path | np.ndarray, policy: GuardPolicy | None = None) -> Report:
    """What the frame guards say of an image: a file, or uint8 [H, W, 3]. Raises MediaError for a file that is none."""
    pixels = source if isinstance(source, np.ndarray) else read_image(Path(source))
    return _looked("image", [(pixels[None], 0.0)], policy)


def video(source: str | Path | np.ndarray, fps: float = 0.0, policy: GuardPolicy | None = None) -> Report:
    """What the frame guards say of every frame of a video: a file, or uint8 [T, H, W, 3] at `fps`. Raises MediaError."""
    if isinstance(source, np.ndarray):
        return _looked("video", [(source, fps)], policy)
    return _looked("video", ((piece.frames, piece.fps) for piece in pieces(Path(source))), policy)


def _looked(
    what: str, parts: Iterator[tuple[np.ndarray, float]] | list[tuple[np.ndarray, float]], policy: GuardPolicy | None
) -> Report:
    policy = policy or GuardPolicy()
    guardrails, verdicts = Guardrails.from_policy(policy), ()
    for frames, fps in parts:
        verdicts += guardrails.hide(frames, fps)[1] + guardrails.check_video(frames, fps)
    return Report(what=what, verdicts=verdicts, policy=policy)


def pieces(path: Path, max_bytes: int = PIECE_BYTES) -> Iterator[VideoClip]:
    """A file as pieces that fit in memory; each begins one second before the last one ended, so no second is cut in two."""
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


guard = SimpleNamespace(text=text, image=image, video=video)
"""What `wf.guard` is."""
