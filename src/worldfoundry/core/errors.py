"""The exception tree. Each error says what happened and what to do; the CLI prints it on one line and exits with `exit_code`.

WorldFoundryError          1   anything else
├── UsageError             2   the user's input or flags
│   ├── ConfigError        2   a config field is unknown, missing or out of range
│   ├── MissingExtraError  2   an optional dependency is not installed
│   ├── MediaError         2   a video or image cannot be read (has a reason `code`)
│   ├── DataError          2   a dataset lacks something, or disagrees with itself
│   └── CheckpointError    2   a checkpoint is absent, damaged or of another kind
├── GuardError
│   ├── BlockedError       3   a guard looked and said unsafe
│   └── GuardUnavailable   4   a guard could not look, so nothing goes out
├── DownloadError          1   something from the network is needed and could not be had
└── ResourceError          1   the machine ran out of disk or memory
"""

from difflib import get_close_matches


class WorldFoundryError(Exception):
    """Base of every error that WorldFoundry raises on purpose: one sentence of what, one of what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message} {hint}".strip())


class UsageError(WorldFoundryError):
    """The request cannot be carried out as given."""

    exit_code = 2


class ConfigError(UsageError):
    """A config field is unknown, missing or out of range; the message carries its dotted path."""


class MissingExtraError(UsageError):
    """An optional dependency is needed; the hint is the pip line that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"This needs the package {package!r}.", f"Install it with: pip install 'worldfoundry[{extra}]'")


class MediaError(UsageError):
    """A video or image cannot be read. `code` is one of the reason codes of the quarantine table, e.g. TRUNCATED."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        super().__init__(message, hint)


class DataError(UsageError):
    """A dataset lacks something that was asked of it, or disagrees with itself."""


class CheckpointError(UsageError):
    """A checkpoint folder is absent, damaged, of another kind, or of a newer format."""


class GuardError(WorldFoundryError):
    """Base of the two ways in which a guard stops an output. `verdicts` holds what the guards said."""

    def __init__(self, message: str, hint: str = "", verdicts: tuple[object, ...] = ()) -> None:
        self.verdicts = verdicts
        super().__init__(message, hint)


class BlockedError(GuardError):
    """A guard looked and found the item unsafe."""

    exit_code = 3


class GuardUnavailable(GuardError):
    """A guard raised, timed out, lacks weights or is not configured; nothing goes out unguarded."""

    exit_code = 4


class DownloadError(WorldFoundryError):
    """Something from the network is needed and could not be had; commands that can honestly go on without it catch this."""


class ResourceError(WorldFoundryError):
    """The machine ran out of something (disk, memory); the hint says how much would do."""


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint that names the closest known words, or all of them if none is close."""
    close = get_close_matches(word, known, n=3, cutoff=0.55)
    if close:
        return "Did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "Known: " + ", ".join(known) + "."
