"""What the scripts that ship models share: where weights live, and how a measured value stands in a card's table."""

from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "worldfoundry" / "weights"


def cell(row: dict[str, Any] | None) -> str:
    if row is None or row.get("value") is None:
        return "–"
    interval = f" [{row['low']:.3g}, {row['high']:.3g}]" if row.get("low") is not None else ""
    return f"{row['value']:.4g}{interval}"
