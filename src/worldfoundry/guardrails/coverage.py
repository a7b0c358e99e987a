"""What of an output was looked at: asked of the guards by the policy, and done by them. Written beside every output."""

from collections.abc import Sequence
from typing import Any

from worldfoundry.core.contracts import Verdict
from worldfoundry.guardrails.policy import GuardPolicy


def coverage(policy: GuardPolicy, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """`requested` guards by kind, `effective`: per guard how often it looked, what it said and the share of frames it saw.

    A requested guard that said nothing is under `not_asked`: of a text guard, that there was no text. `share` is None for a guard
    of frames that does not state (as `frames_checked` of `frames`) how many it looked at.
    """
    requested = {"text": policy.text_guards, "video": policy.video_guards, "transform": policy.transforms}
    requested = {kind: list(names) if policy.action != "off" else [] for kind, names in requested.items()}
    by_guard: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_guard.setdefault(verdict.guard, []).append(verdict)
    asked = {name for names in requested.values() for name in names}
    return {
        "policy": policy.hash(),
        "preset": policy.preset,
        "action": policy.action,
        "exceptions": dict(policy.actions),
        "reason": policy.reason,
        "requested": requested,
        "effective": {guard: _effective(said) for guard, said in sorted(by_guard.items())},
        "not_asked": sorted(name for name in asked - set(by_guard) if ":" not in name),
    }


def _effective(said: list[Verdict]) -> dict[str, Any]:
    counts = {status: sum(v.status == status for v in said) for status in ("safe", "unsafe", "skipped", "error")}
    out: dict[str, Any] = {status: n for status, n in counts.items() if n}
    seen = [v.evidence for v in said if v.evidence.get("frames")]
    if seen:
        frames = sum(evidence["frames"] for evidence in seen)
        stated = all("frames_checked" in evidence for evidence in seen)
        out["frames"] = frames
        out["share"] = round(sum(e["frames_checked"] for e in seen) / frames, 4) if stated else None
    weights = sorted({str(v.evidence[key]) for v in said for key in ("weights", "list") if v.evidence.get(key)})
    return out | ({"weights": weights} if weights else {})
