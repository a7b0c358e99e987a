"""Many requests from one file, one JSON object a line: what is finished is not made again, what cannot be made is one line."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.errors import UsageError, WorldFoundryError
from worldfoundry.core.files import read_fields
from worldfoundry.core.progress import progress, say

ASKED = "asked"
"""Where the record beside a video keeps the request that it was made for."""

Make = Callable[[Mapping[str, Any], Path], tuple[dict[str, Any], Callable[[], WorldVideo]]]
"""Checks a line's fields for a video at a path; → everything that decides the video, as JSON, and what generates it."""


@dataclass(frozen=True)
class Line:
    """A request: the number of its line (from 1), the name of its video, and its fields, or why it is none."""

    number: int
    name: str
    fields: Mapping[str, Any]
    problem: str = ""


def read_batch(file: Path) -> list[Line]:
    """The lines of a JSONL file; empty ones are skipped. `name` names the video, else the line's number does.

    Raises UsageError for a file that cannot be read or holds no request. Names that are used twice are a problem of the second.
    """
    try:
        rows = file.read_text(encoding="utf-8").split("\n")  # `splitlines` would also break at U+2028, which JSON may hold
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(file)!r} cannot be read as text: {error}", "Give a file of one JSON object a line.") from error
    lines: list[Line] = []
    taken: set[str] = set()
    for number, row in enumerate(rows, start=1):
        if row.strip():
            line = _read_line(number, row)
            if line.name in taken and not line.problem:
                line = Line(number, line.name, line.fields, f"the name {line.name!r} is taken by an earlier line")
            taken.add(line.name)
            lines.append(line)
    if not lines:
        raise UsageError(
            f"{str(file)!r} holds no request.", 'A line is a request, such as {"prompt": "a red ball", "seed": 1}.'
        )
    return lines


def run_batch(lines: list[Line], out: Path, make: Make) -> int:
    """Make `out`/NAME.mp4 of every line; → 0, or the exit code of what failed (of several the highest).

    A video whose record holds what the line asks for now is kept.
    """
    worst, kept = 0, 0
    with progress("batch", len(lines), "videos") as bar:
        for line in lines:
            try:
                kept += _run_line(line, out / f"{line.name}.mp4", make)
            except WorldFoundryError as error:
                say(f"line {line.number}: {'; '.join(str(error).splitlines())}")
                worst = max(worst, error.exit_code)
            bar.advance(note=line.name)
    say(f"{out}: {len(lines)} requests, {kept} were there already")
    return worst


def _run_line(line: Line, path: Path, make: Make) -> bool:
    """Whether the video was there already."""
    if line.problem:
        raise UsageError(line.problem)
    asked, generate = make(line.fields, path)
    record = path.with_suffix(".json")
    if path.is_file() and record.is_file() and read_fields(record).get("config", {}).get(ASKED) == asked:
        return True
    video = generate()
    replace(video, config={**video.config, ASKED: asked}).save(path)
    return False


def _read_line(number: int, row: str) -> Line:
    name = f"{number:05d}"
    try:
        fields = json.loads(row)
    except json.JSONDecodeError as error:
        return Line(number, name, {}, f"this is no JSON: {error.msg} at column {error.colno}.")
    if not isinstance(fields, dict):
        return Line(number, name, {}, f"a request must be a JSON object, not {type(fields).__name__}.")
    given = fields.pop("name", name)
    if not isinstance(given, str) or not given.strip() or Path(given).name != given or given.startswith("."):
        return Line(number, name, fields, f"name must be a file name without folders, not {given!r}.")
    return Line(number, given, fields)
