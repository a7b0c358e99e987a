"""What changed between two clip datasets: clips gained, lost, and changed, with the reasons of those that were dropped."""

from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldfoundry.core.errors import DataError
from worldfoundry.curation.rows import Row
from worldfoundry.curation.tables import NO_CONTENT, content_hash, read_table


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Clips of B against those of A. `why` maps the id of a clip on one side only to the reasons that the other side gives."""

    gained: list[Row]
    lost: list[Row]
    changed: dict[str, list[str]]
    same: int
    why: dict[str, list[str]]
    quarantine: dict[str, tuple[str, str]]
    hashes: tuple[str, str]


def compare(a: Path, b: Path) -> Difference:
    """Compare the datasets at two folders by clip id, so that moved files count as the same. Raises DataError if one is none."""
    before, after = _clips(a), _clips(b)
    dropped = _reasons(a) | _reasons(b)
    changed = {
        clip_id: columns
        for clip_id in sorted(before.keys() & after.keys())
        if (columns := _unlike(before[clip_id], after[clip_id]))
    }
    gained, lost = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    return Difference(
        gained=[after[clip_id] for clip_id in gained],
        lost=[before[clip_id] for clip_id in lost],
        changed=changed,
        same=len(before.keys() & after.keys()) - len(changed),
        why={clip_id: dropped.get(clip_id, ["NOT_PLANNED"]) for clip_id in (*gained, *lost)},
        quarantine=_quarantine(a, b),
        hashes=(content_hash(a / "tables"), content_hash(b / "tables")),
    )


def lines(difference: Difference) -> list[str]:
    """The difference for people."""
    reasons = {"gained": Counter[str](), "lost": Counter[str]()}
    for side, clips in (("gained", difference.gained), ("lost", difference.lost)):
        for clip in clips:
            reasons[side].update(difference.why[clip["clip_id"]])
    columns = Counter(column for names in difference.changed.values() for column in names)
    same = "equal" if difference.hashes[0] == difference.hashes[1] else f"{difference.hashes[0]} and {difference.hashes[1]}"
    text = [
        f"content      {same}",
        f"same         {difference.same} clips",
        f"gained       {_clips_of(difference.gained)}{_counted(reasons['gained'], ', in A: ')}",
        f"lost         {_clips_of(difference.lost)}{_counted(reasons['lost'], ', in B: ')}",
        f"changed      {_clips_of(difference.changed)}{_counted(columns, ', in: ')}",
    ]
    text += [f"quarantine   {uri}: {was or 'good'} -> {now or 'good'}" for uri, (was, now) in difference.quarantine.items()]
    return text


def _clips_of(found: Sized) -> str:
    return f"{len(found)} clip{'' if len(found) == 1 else 's'}"


def _counted(counts: Counter[str], before: str) -> str:
    return before + ", ".join(f"{count} {name}" for name, count in counts.most_common()) if counts else ""


def _clips(folder: Path) -> dict[str, Row]:
    if not (folder / "tables" / "clips.parquet").is_file():
        raise DataError(f"{str(folder)!r} is not a clip dataset: it has no 'tables/clips.parquet'.")
    return {clip["clip_id"]: clip for clip in read_table(folder / "tables", "clips")}


def _reasons(folder: Path) -> dict[str, list[str]]:
    return {clip["clip_id"]: clip["reasons"] for clip in read_table(folder / "tables", "rejected")}


def _unlike(before: Row, after: Row) -> list[str]:
    """Columns that both have and that differ; a place is no content."""
    names: set[str] = (before.keys() & after.keys()) - NO_CONTENT - {"uri"}
    return sorted(name for name in names if before[name] != after[name])


def _quarantine(a: Path, b: Path) -> dict[str, tuple[str, str]]:
    """File → its code in A and in B ("" where it is good), where these differ."""
    was, now = ({row["uri"]: row["code"] for row in read_table(folder / "tables", "quarantine")} for folder in (a, b))
    pairs: dict[str, tuple[Any, Any]] = {uri: (was.get(uri, ""), now.get(uri, "")) for uri in sorted(was.keys() | now.keys())}
    return {uri: pair for uri, pair in pairs.items() if pair[0] != pair[1]}
