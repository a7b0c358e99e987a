"""A report for people: one line, a table for those in a hurry, and for the others every guard, its threshold, and how to change it."""

import shlex
from typing import Any

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.api import Report
from worldfoundry.guardrails.runner import describe

HEADLINES = {"safe": "safe", "unsafe": "UNSAFE", "skipped": "NOT CHECKED", "error": "NOT CHECKED"}
LONGEST = 100  # characters of a value in an explanation


def table(report: Report) -> list[str]:
    """The answer, then one line a guard, and below those that object or could not look what to do about it."""
    rows = report.by_guard()
    against = [verdict for verdict in rows if verdict.status == report.status and verdict.blocks]
    lines = [f"{HEADLINES[report.status]}" + (f": {'; '.join(describe(v) for v in against)}" if against else ""), ""]
    lines.append(f"{'status':<9}{'guard':<12}{'category':<17}reason")
    for verdict in rows:
        lines.append(f"{verdict.status:<8} {verdict.guard:<11} {verdict.category or '-':<16} {verdict.reason or '-'}")
        if verdict.blocks and verdict.evidence.get("fix"):
            lines.append(f"{'':<38}{verdict.evidence['fix']}")
    return lines


def explanation(report: Report) -> list[str]:
    """Of every guard what it saw, its options as flags, and of one that objects how to let such a thing pass."""
    policy = report.policy
    lines = [f"policy {policy.hash()}: preset {policy.preset}, {policy.said()}"]
    for verdict in report.by_guard():
        lines += ["", f"{describe(verdict)}  [{verdict.status}, {1000 * verdict.latency_s:.1f} ms]"]
        lines += [f"    {name:<18}{_short(value)}" for name, value in verdict.evidence.items() if name != "fix"]
        options = getattr(policy, verdict.guard, None)
        if isinstance(options, Config):
            lines += [f"    --policy.{verdict.guard}.{flag} {value}" for flag, value in _flags(options)]
        lines += _ways_out(verdict)
    return lines


def _ways_out(verdict: Verdict) -> list[str]:
    if verdict.evidence.get("fix"):
        return [f"    to mend it: {verdict.evidence['fix']}"] if verdict.blocks else []
    if verdict.status != "unsafe":
        return []
    warn = ["--policy.actions", verdict.category or verdict.guard, "warn", "--policy.reason", "WHY"]
    return [f"    to let such a thing pass with a warning: {shlex.join(warn)}"]


def _flags(options: Config) -> list[tuple[str, Any]]:
    return [(name.replace("_", "-"), _short(value)) for name, value in options.to_dict().items()]


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
