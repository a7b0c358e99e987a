"""Which planned clips are kept: thresholds over the stored scores of all clips. Nothing is decoded, so retuning takes seconds.

A condition is `name<=0.3`, `name>=2`, `name=word` or `name!=word`, on a score, a tag, or what is known of every clip. Null
means not judged: what could not be scored (a black frame has no focus) and what does not apply (an image has no motion, no
duration and no rate) neither keeps a clip nor rejects it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from worldfoundry.core.errors import UsageError, did_you_mean
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.plan import half_frame_s
from worldfoundry.curation.rows import Row

# Known of every planned clip, whatever the stages.
FACTS = ("duration_s", "num_frames", "source_fps", "source_height", "source_width", "caption")
NOT_OF_IMAGES = frozenset({"duration_s", "source_fps"})


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a kept clip fulfils; `reason` is what its rejection is called."""

    name: str
    sign: str
    value: float | str
    reason: str

    def judges(self, clip: Row) -> bool:
        """Whether the clip has what the condition asks for."""
        return clip.get(self.name) is not None and not (clip["image"] and self.name in NOT_OF_IMAGES)

    def holds(self, value: Any) -> bool:
        if self.sign in (">=", "<=") and not isinstance(value, int | float):
            raise UsageError(f"--where: {self.name!r} is a word ({value!r}), not a number.", "Compare it with = or !=.")
        if self.sign in (">=", "<="):
            return value >= float(self.value) if self.sign == ">=" else value <= float(self.value)
        return (str(value) == self.value) == (self.sign == "=")


def parse_condition(text: str, known: Sequence[str]) -> Condition:
    """One condition of `--where`. Raises UsageError if it is none, or its name is not among `known`."""
    found = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*(>=|<=|!=|=)\s*(.+?)\s*", text)
    if not found:
        raise UsageError(f"--where {text!r} is no condition.", "Write name>=2, name<=0.3, name=word or name!=word.")
    name, sign, value = found.groups()
    if name not in known:
        raise UsageError(f"--where {text!r}: no stage gives {name!r}.", did_you_mean(name, list(known)))
    reason = f"{name.upper()}_{ {'>=': 'LOW', '<=': 'HIGH'}.get(sign, 'EXCLUDED') }"
    if sign in (">=", "<="):
        try:
            return Condition(name=name, sign=sign, value=float(value), reason=reason)
        except ValueError as error:
            raise UsageError(f"--where {text!r}: {value!r} is not a number.", "Compare words with = or !=.") from error
    return Condition(name=name, sign=sign, value=value, reason=reason)


def conditions(config: CurateConfig, known: Iterable[str]) -> list[Condition]:
    """All that the config asks for beyond the shortest length."""
    still = Condition(name="motion", sign=">=", value=config.min_motion, reason="STATIC")
    return [still, *(parse_condition(text, [*FACTS, *known]) for text in config.where)]


def select(clips: list[Row], config: CurateConfig, known: Iterable[str]) -> list[Row]:
    """The same clips with `reasons` (empty for those kept) and `kept`. Images are not judged by length."""
    wanted = conditions(config, known)
    selected = []
    for clip in clips:
        reasons = [c.reason for c in wanted if c.judges(clip) and not c.holds(clip[c.name])]
        if not clip["image"] and clip["end_s"] - clip["start_s"] < config.min_s - half_frame_s(clip["source_fps"]):
            reasons.insert(0, "TOO_SHORT")
        selected.append({**clip, "reasons": list(dict.fromkeys(reasons)), "kept": not reasons})
    return selected
