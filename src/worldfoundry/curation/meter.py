"""Progress for people: a bar over the sources with what came of them, at the end how fast each stage was and how much was decoded."""

from collections import Counter, defaultdict
from contextlib import ExitStack

from worldfoundry.core.progress import progress, say
from worldfoundry.curation.rows import Row


class Meter:
    """Counts the events of one phase: `with Meter("analyse", 12) as meter: meter.add(events_of_one_source)`."""

    def __init__(self, phase: str, sources: int) -> None:
        self.phase, self.sources = phase, sources
        self.done, self.seconds, self.failed = Counter[str](), defaultdict[str, float](float), Counter[str]()
        self.decoded = 0

    def __enter__(self) -> "Meter":
        self.stack = ExitStack()
        if self.sources:
            self.bar = self.stack.enter_context(progress(self.phase, total=self.sources, unit="files"))
        return self

    def add(self, events: list[Row]) -> None:
        """The events of one source, which is done."""
        for event in events:
            self.done[event["stage"]] += 1
            self.seconds[event["stage"]] += event["wall_s"]
            self.failed[event["stage"]] += bool(event["code"])
            self.decoded += event["decoded_frames"]
        self.bar.advance(note=self._note())

    def _note(self) -> str:
        bad = sum(self.failed.values())
        return " ".join(f"{name} {count}" for name, count in self.done.items()) + (f", {bad} failed" if bad else "")

    def lines(self) -> list[str]:
        """A line per stage: how often it ran, how fast one worker was, how often it failed; and one on the frames decoded."""
        stages = [
            f"  {name:<12} {count} done, {count / max(self.seconds[name], 1e-9):.3g}/s per worker"
            + (f", {self.failed[name]} failed" if self.failed[name] else "")
            for name, count in self.done.items()
        ]
        return stages + ([f"  {self.decoded} frames decoded"] if self.decoded else [])

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(None, None, None)
        for line in self.lines():
            say(line)
