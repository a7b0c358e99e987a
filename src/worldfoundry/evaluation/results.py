"""results.json: rows in and out, and the refusal to compare numbers that were not measured alike."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldfoundry.core.errors import DataError
from worldfoundry.core.files import read_json

if TYPE_CHECKING:
    from worldfoundry.evaluation.compare import Row

FORMAT = "worldfoundry.results/1"
MAX_NAMED = 3


def row_to_dict(row: "Row") -> dict[str, Any]:
    """A row as JSON; numbers that do not exist are null."""
    values = {
        "metric": row.result.name,
        "candidate": row.candidate,
        "horizon": row.horizon,
        "value": row.result.value,
        "low": row.result.low,
        "high": row.result.high,
        "n": row.result.n,
        "difference_to": row.baseline,
        "difference": row.difference,
        "difference_low": row.difference_low,
        "difference_high": row.difference_high,
        "real_against_real": row.floor,
        "tier": row.result.tier,
        "protocol": row.result.protocol,
        "note": row.result.note,
    }
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a results.json. Raises UsageError (unreadable), DataError (not one of ours)."""
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{str(path)!r} is not a results file of format {FORMAT!r}.", "Make one with `worldfoundry evaluate`.")
    return found["rows"]


def compare_results(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of several runs in one list, each with its `run`; for one metric and horizon all have one protocol.

    Raises DataError naming the first rows whose protocol hash differs: another reference set, prefix or definition.
    """
    protocols: dict[tuple[str, str], tuple[str, str]] = {}
    refused, rows = [], []
    for run, run_rows in results.items():
        for row in run_rows:
            key = (row["metric"], row["horizon"])
            first_run, protocol = protocols.setdefault(key, (run, row["protocol"]))
            if protocol != row["protocol"]:
                refused.append(f"{key[0]} {key[1]} ({first_run}: {protocol}, {run}: {row['protocol']})")
            rows.append({"run": run, **row})
    if refused:
        named = ", ".join(dict.fromkeys(refused[:MAX_NAMED]))
        raise DataError(
            f"These numbers were not measured alike and cannot be compared: {named}.",
            "Score both against the same reference clips with the same prefix and metric settings.",
        )
    return rows
