"""What travels between the stages of curation: rows are plain dictionaries of small values; errors carry a reason code.

Reason codes of the quarantine table (one row per file that yields no clip):
  MISSING EMPTY_FILE UNREADABLE NOT_MEDIA MOOV_MISSING NO_VIDEO_STREAM NO_FRAMES  the file cannot be used
  TRUNCATED DECODE_ERROR PTS_NONMONOTONIC      it breaks off or is damaged, and no good span is long enough
  TOO_SHORT STATIC BLANK ENCODE_FAILED ...     it decodes, but every shot was rejected, mostly for this reason
  SIDECAR_UNREADABLE SIDECAR_COLUMNS SIDECAR_SHORT SIDECAR_NOT_FINITE SIDECAR_TIMES   the episode beside it disagrees
  DECODER_CRASHED DECODER_TIMEOUT              the process that decoded it died, or took longer than allowed
  STAGE_CRASHED STAGE_TIMEOUT                  the same in a stage that does not decode
  CAPTIONS_FAILED                              the server that captions did not answer; tried again on the next run
  OUT_OF_MEMORY INTERNAL_ERROR                 the machine's or this program's fault; tried again on the next run
"""

from dataclasses import asdict, dataclass
from typing import Any

from worldfoundry.core.errors import DataError

Row = dict[str, Any]

# What ended so is tried again on the next run: the fault may not lie in the file.
RETRIED = frozenset({"MISSING", "UNREADABLE", "OUT_OF_MEMORY", "INTERNAL_ERROR", "CAPTIONS_FAILED"})


class SourceError(DataError):
    """A source cannot be used, although its video may be fine; `code` is the reason code of its quarantine row."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a row stopped, and where. `attempt` counts how often that stage has failed on it."""

    stage: str
    code: str
    message: str
    attempt: int = 1

    def to_dict(self) -> Row:
        return asdict(self)


def quarantine_row(row: Row, source_id: str | None, failure: Failure) -> Row:
    """What the quarantine table says of a file."""
    return {"uri": row["uri"], "source_id": source_id, **failure.to_dict(), "bytes": row["bytes"]}
