"""What is written beside a generated video, besides the request: enough to make it again, and what of it the guards saw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry import __version__
from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.coverage import coverage
from worldfoundry.guardrails.policy import GuardPolicy


def record_of(request: Config, provenance: Mapping[str, Any], **sources: str | Path | np.ndarray | None) -> dict[str, Any]:
    """The resolved request, the version, the world's folder, and what was given (arrays: that they were)."""
    record = {**request.to_dict(), "worldfoundry": __version__, "world": provenance.get("folder", "")}
    for name, source in sources.items():
        record[name] = str(source) if isinstance(source, str | Path) else None if source is None else "array"
    return record


def guarded(policy: GuardPolicy, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What the policy does, in words, and what was asked of the guards beside what they did."""
    return {"guards": policy.said(), "coverage": coverage(policy, verdicts)}
