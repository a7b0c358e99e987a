"""Running the stages over rows. One row's failure is a value; an executor is any way of mapping a function over rows.

An executor gets a picklable function and an iterable of rows and yields the results as they come, in any order: here in
this process, one after another. A process pool or a cluster is another function with the same signature.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from av.error import FFmpegError

from worldfoundry.core.contracts import Stage
from worldfoundry.core.errors import MediaError
from worldfoundry.core.files import disk_full_is_clear
from worldfoundry.curation.rows import Failure, Outcome, Row, SourceError

Result = TypeVar("Result")


class Executor(Protocol):
    """Maps a function over rows; no order promised."""

    def __call__(self, function: Callable[[Row], Result], rows: Iterable[Row]) -> Iterator[Result]: ...


def in_process(function: Callable[[Row], Result], rows: Iterable[Row]) -> Iterator[Result]:
    """One row after the other, here."""
    return map(function, rows)


def run_stages(row: Mapping[str, Any], stages: Sequence[Stage]) -> Outcome:
    """Pass one source row through the stages. Everything wrong with the row ends as `Outcome.failure`.

    A full disk (ResourceError) and KeyboardInterrupt are raised: they concern the run, not the row.
    """
    row, events = dict(row), []
    for stage in stages:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            with disk_full_is_clear(Path(str(row.get("staging", "")))):
                (row,) = stage(row)
            failure = None
        except (MediaError, SourceError) as error:
            failure = Failure(stage=stage.name, code=error.code, message=error.message)
        except FFmpegError as error:
            failure = Failure(stage=stage.name, code="DECODE_ERROR", message=str(error))
        except MemoryError:
            failure = Failure(stage=stage.name, code="OUT_OF_MEMORY", message="Not enough memory for this file.")
        except (OSError, ValueError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
            message = f"{type(error).__name__}: {error}"
            failure = Failure(stage=stage.name, code="INTERNAL_ERROR", message=message)
        events.append(
            {
                "stage": stage.name,
                "wall_s": round(time.perf_counter() - wall_s, 4),
                "cpu_s": round(time.process_time() - cpu_s, 4),
            }
        )
        if failure:
            return Outcome(row=row, failure=failure, events=tuple(events))
    return Outcome(row=row, events=tuple(events))
