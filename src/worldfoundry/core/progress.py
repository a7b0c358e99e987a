"""Progress for people (a bar with rate and ETA on a terminal, plain lines elsewhere) and metrics for programs (JSONL)."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Progress:
    """Counts towards `total` (None = unknown). Made by `progress`."""

    def __init__(self, description: str, total: float | None, unit: str, every_s: float = 10.0) -> None:
        self.description, self.total, self.unit, self.every_s = description, total, unit, every_s
        self.done = 0.0
        self.note = ""
        self.start = self.last_print = time.monotonic()

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Count `amount` more; `note` replaces the text at the end of the line (loss, current file)."""
        self.done += amount
        self.note = note or self.note
        self._show()

    def expect(self, total: float) -> None:
        """Say how many there will be, once that is known."""
        self.total = total

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.last_print >= self.every_s:
            self.last_print = now
            say(f"{self.description}: {self.line()}")

    def line(self) -> str:
        """`done/total unit, rate, ETA, note` as plain text."""
        elapsed = max(time.monotonic() - self.start, 1e-9)
        rate = self.done / elapsed
        parts = [
            f"{round(self.done, 1):g}/{self.total:g} {self.unit}" if self.total else f"{round(self.done, 1):g} {self.unit}"
        ]
        parts.append(f"{rate:.3g} {self.unit}/s" if rate else "")
        if self.total and rate:
            parts.append(f"ETA {clock(max(self.total - self.done, 0) / rate)}")
        parts.append(self.note)
        return ", ".join(part for part in parts if part)


class _RichProgress(Progress):
    def __init__(self, description: str, total: float | None, unit: str, bar: Any) -> None:
        super().__init__(description, total, unit)
        self.bar = bar
        self.task = bar.add_task(description, total=total, text="")

    def _show(self) -> None:
        self.bar.update(self.task, total=self.total, completed=self.done, text=self.line())


@contextmanager
def progress(description: str, total: float | None = None, unit: str = "items") -> Iterator[Progress]:
    """A progress bar on a terminal, a line every ten seconds otherwise; one closing line in both cases."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichBar

        with RichBar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            transient=True,
            console=_console(),
        ) as bar:
            counter: Progress = _RichProgress(description, total, unit, bar)
            yield counter
    else:
        counter = Progress(description, total, unit)
        yield counter
    elapsed = time.monotonic() - counter.start
    say(f"{description}: {counter.done:g} {unit} in {clock(elapsed)}" + (f", {counter.note}" if counter.note else ""))


@contextmanager
def live_block(lines: Callable[[], list[str]], first_s: float = 10.0) -> Iterator[Callable[[], None]]:
    """Several lines at once, shown anew whenever the function that this yields is called, and a last time in the end.

    In place on a terminal; elsewhere as plain lines, after `first_s` seconds and then ever more rarely, at most ten minutes apart.
    """
    try:
        if sys.stderr.isatty():
            from rich.live import Live
            from rich.text import Text

            with Live(Text(), console=_console(), transient=True, auto_refresh=False) as live:
                yield lambda: live.update(Text("\n".join(lines()), no_wrap=True, overflow="crop"), refresh=True)
        else:
            yield _plain_block(lines, first_s)
    finally:
        for line in lines():
            say(line)


def _plain_block(lines: Callable[[], list[str]], first_s: float) -> Callable[[], None]:
    start = last = time.monotonic()

    def show() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= max(first_s, min((now - start) / 4, 600.0)):
            last = now
            for line in lines():
                say(line)

    return show


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """One line for the person at the terminal (stderr, so that stdout stays for data)."""
    print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class MetricsLog:
    """Appends one JSON object per call to a `.jsonl` file, and to TensorBoard where it is installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        half_line = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
        self.file = open(path, "a", encoding="utf-8")
        self.file.write("\n" if half_line else "")  # a killed process left it; the next row starts on its own line
        self.board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(path.parent / "tensorboard"))

    def log(self, step: int, **values: float | int | str) -> None:
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            if self.board is not None and isinstance(value, int | float):
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a half-written line (a killed process) is dropped."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
