"""The frame guard for nudity and sex: OpenNSFW, whose weights come with the package.

It looks at a few frames (the first, the last, one every second, and where the picture changes much), and at every frame as soon
as one of those is doubtful. What it looked at stands in the evidence. It says nothing about violence, gore, drugs or hate.
"""

from typing import Any, Literal

from pydantic import Field

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict, VideoItem
from worldfoundry.guardrails.frames import pictures, spread, unreadable

BATCH = 8


class NsfwConfig(Config):
    """Options of the nudity guard."""

    threshold: float = Field(default=0.8, gt=0, le=1)
    """Score from which a frame counts as unsafe; the network's authors suggest 0.8."""
    frames_needed: int = Field(default=1, ge=1)
    """How many such frames make a video unsafe (fewer if it has fewer)."""
    interval_s: float = Field(default=1.0, ge=0)
    """Seconds between the frames looked at; 0 looks at every frame."""
    doubt: float = Field(default=0.4, ge=0, le=1)
    """A score from which every frame is looked at."""
    change: float = Field(default=0.1, gt=0, le=1)
    """Mean difference (of 1) to the frame looked at last from which a frame is looked at too."""
    size: Literal["auto", 160, 224] = "auto"
    """Pixels that the network sees. It was trained on 224; auto takes 160 for frames that are no larger, at half the cost."""


class NsfwGuard:
    """`check(VideoItem) -> Verdict`; a `Guard` for video."""

    name = "nsfw"
    takes: Literal["video"] = "video"

    def __init__(self, config: NsfwConfig) -> None:
        from worldfoundry.perception.open_nsfw import SHA256, load_open_nsfw

        self.config, self.weights, self.network = config, SHA256[:16], load_open_nsfw()

    def check(self, item: VideoItem) -> Verdict:
        """`unsafe` for enough frames at the threshold, `error` for what cannot be read or scored, else `safe`."""
        if problem := unreadable(item):
            return Verdict(
                status="error", guard=self.name, reason=problem, evidence={"fix": "Pass decoded uint8 frames and their rate."}
            )
        config, count = self.config, len(item.frames)
        scores = self._scores(item, spread(item.frames, item.fps, config.interval_s, config.change))
        if max(scores.values()) >= config.doubt and len(scores) < count:
            scores |= self._scores(item, [t for t in range(count) if t not in scores])
        worst = max(scores, key=lambda t: scores[t])
        against = sum(score >= config.threshold for score in scores.values())
        evidence: dict[str, Any] = {
            "frames": count,
            "frames_checked": len(scores),
            "frame": worst,
            "score": round(scores[worst], 4),
            "threshold": config.threshold,
            "frames_over": against,
            "weights": self.weights,
        }
        if any(score != score for score in scores.values()):
            reason, fix = "the network gave no number", "Look at the frames; report this if they are ordinary."
            return Verdict(status="error", guard=self.name, reason=reason, evidence={"frames": count, "fix": fix})
        if against >= min(config.frames_needed, count):
            reason = f"frame {worst} scores {scores[worst]:.2f} of 1 for nudity or sex; {against} of {len(scores)} frames do"
            reason += f" ({config.threshold:g} or more)"
            return Verdict(status="unsafe", guard=self.name, category="sexual", reason=reason, evidence=evidence)
        reason = f"{len(scores)} of {count} frames checked, worst score {scores[worst]:.2f}"
        return Verdict(status="safe", guard=self.name, reason=reason, evidence=evidence)

    def _scores(self, item: VideoItem, indices: list[int]) -> dict[int, float]:
        import torch

        scores: dict[int, float] = {}
        size = self.config.size
        if size == "auto":
            size = 160 if max(item.frames.shape[1:3]) <= 160 else 224
        with torch.inference_mode():
            for start in range(0, len(indices), BATCH):
                part = indices[start : start + BATCH]
                scores |= dict(zip(part, self.network(pictures(item.frames, part, size)).tolist(), strict=True))
        return scores
