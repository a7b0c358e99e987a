"""What is written beside a generated video, besides the request: enough to make it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry import __version__
from worldfoundry.core.config import Config
from worldfoundry.guardrails.runner import GuardPolicy


def record_of(
    request: Config, provenance: Mapping[str, Any], policy: GuardPolicy, **sources: str | Path | np.ndarray | None
) -> dict[str, Any]:
    """The resolved request, the version, the world's folder, whether the guards were on, and what was given (arrays: that they were)."""
    record = {**request.to_dict(), "worldfoundry": __version__, "world": provenance.get("folder", "")}
    for name, source in sources.items():
        record[name] = str(source) if isinstance(source, str | Path) else None if source is None else "array"
    record["guards"] = policy.action + (f": {policy.reason}" if policy.reason else "")
    return record
