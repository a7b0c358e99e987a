"""Progress for people: per stage how many rows are done, how fast, until when, and what became of them."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from worldfoundry.core.progress import clock, live_block, say
from worldfoundry.curation.rows import Row
from worldfoundry.curation.stage import FunctionStage


class Meter:
    """Counts what happens in one phase: `with Meter("analyse", graph.stages, awaited) as meter: meter.add(result)`.

    `awaited` says per source how often each stage is to run on it (once, or once per clip that is kept). A source or clip on
    which a stage fails goes no further, and is no longer waited for.
    """

    def __init__(self, phase: str, stages: Sequence[FunctionStage], awaited: Mapping[str, Counter[str]]) -> None:
        self.phase, self.stages, self.awaited = phase, stages, awaited
        self.total = sum(awaited.values(), Counter[str]())
        self.done, self.failed = Counter[str](), Counter[str]()
        self.files = self.decoded = 0

    def __enter__(self) -> "Meter":
        self.start = time.monotonic()
        self.stack = ExitStack()
        if self.awaited:
            self.show = self.stack.enter_context(live_block(self.lines))
        return self

    def add(self, result: Row) -> None:
        """What ran on one source, which is done."""
        ran = Counter(event["stage"] for event in result["events"])
        self.done += ran
        self.failed += Counter(event["stage"] for event in result["events"] if event["code"])
        self.decoded += sum(event["decoded_frames"] for event in result["events"])
        self.total = self.total - self.awaited[result["source_id"]] + ran
        self.files += 1
        self.show()

    def lines(self) -> list[str]:
        """The files, then a line per stage: done, rate, time left, and how many rows it kept, rejected, sent to quarantine."""
        seconds, whole = max(time.monotonic() - self.start, 1e-9), len(self.awaited)
        head = f"{self.phase}: {self.files}/{whole} files in {clock(seconds)}"
        if 0 < self.files < whole:
            head += f", {self.files / seconds:.3g} files/s, ETA {clock((whole - self.files) * seconds / self.files)}"
        head += f", {self.decoded} frames decoded" if self.decoded else ""
        rows = [self._line(stage, seconds) for stage in self.stages if self.total[stage.name]]
        return [
            head,
            f"  {'stage':<17}{'done':>10}{'rate':>11}{'ETA':>12}{'kept':>6}{'rejected':>9}{'quarantined':>12}",
            *rows,
        ]

    def _line(self, stage: FunctionStage, seconds: float) -> str:
        done, total, failed = self.done[stage.name], self.total[stage.name], self.failed[stage.name]
        rate = f"{done / seconds:.3g}/s" if done else "-"
        left = clock((total - done) * seconds / done) if 0 < done < total else "-"
        rejected, quarantined = (failed, "-") if stage.per == "clip" else ("-", failed)
        counts = f"{done - failed:>6}{rejected:>9}{quarantined:>12}"
        return f"  {stage.name:<17}{f'{done}/{total}':>10}  {rate:>9}{left:>12}{counts}"

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(None, None, None)


def say_selected(clips: Iterable[Row]) -> None:
    """One line on what the thresholds keep."""
    kept = Counter(clip["kept"] for clip in clips)
    reasons = Counter(reason for clip in clips for reason in clip["reasons"])
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    say(f"select: {kept[True]} of {kept.total()} clips kept, {kept[False]} rejected" + (f": {told}" if told else ""))
