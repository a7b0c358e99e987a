"""The console script: find the verb, parse its config, run it, and turn every failure into one clear line and an exit code.

Imports nothing but the standard library and the error tree, so `worldfoundry --help` and typos answer at once.
"""

import errno
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from worldfoundry import __version__
from worldfoundry.core.errors import ResourceError, UsageError, WorldFoundryError, did_you_mean

# Verb → one-line help. The module of a verb is worldfoundry.cli.<verb>.
VERBS: dict[str, str] = {
    "quickstart": "curate, tokenize, train, generate, guard, evaluate on sample data, with a report",
    "doctor": "what this machine can do, what is missing, how to get it",
    "simulate": "render episodes with actions and true poses",
    "curate": "raw videos to a clip dataset: shards, tables, report",
    "train": "train a tokenizer or a diffusion world model; resumes by itself",
    "tokenize": "videos to latents or tokens, and back",
    "generate": "make a world video from a prompt, a first image or video, and actions",
    "evaluate": "measure generated or reconstructed video against the truth and baselines",
    "guard": "check a prompt or a video with the guards that generate uses",
    "convert": "translate checkpoints between our layout, diffusers' and the originals",
    "models": "list and fetch other people's weights",
    "completion": "print a completion script for bash or zsh",
}

HELP = """WorldFoundry {version}: world foundation models for Physical AI, from raw video to measured world video.

usage: worldfoundry VERB [options]

{verbs}

Start with `worldfoundry quickstart`. `worldfoundry VERB --help` lists every option of a verb.
Understood by every verb: --print-config, --debug (tracebacks) and, but for convert, --config FILE (YAML; flags win).
Exit codes: 0 done, 2 bad usage or input, 3 blocked by a guard, 4 a guard could not run, 130 interrupted, 1 anything else.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. SystemExit comes only from `--help`, `--print-config` and flag errors."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Torch's CPU threads spin while they wait. On a machine that does anything else besides, that makes a training step
    # about six times slower; it has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in argv
    try:
        _terminate_as_interrupt()
        code = dispatch([argument for argument in argv if argument != "--debug"])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (`| head`) has gone; what is left in the buffer must not fail again at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the edge of the program
        if debug:
            traceback.print_exc()
        lines, code = explain(error)
        print(lines, file=sys.stderr)
        return code


def _terminate_as_interrupt() -> None:
    """Let SIGTERM end a command as Ctrl-C does: temporary files are removed, and the exit code is the same."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def dispatch(argv: list[str]) -> int:
    """Carry out `VERB [SUBVERB] flags`. Raises UsageError for an unknown word."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0 if argv else UsageError.exit_code
    verb, rest = argv[0], argv[1:]
    if verb in ("-V", "--version"):
        print(f"worldfoundry {__version__}")
        return 0
    if verb not in VERBS:
        raise UsageError(f"Unknown verb {verb!r}.", f"{did_you_mean(verb, list(VERBS))} `worldfoundry --help` lists all.")
    module = import_module(f"worldfoundry.cli.{verb}")
    if hasattr(module, "SUBCOMMANDS") and (not hasattr(module, "CONFIG") or (rest[:1] and rest[0] in module.SUBCOMMANDS)):
        return _dispatch_sub(verb, module.SUBCOMMANDS, rest)
    return _run(module.CONFIG, module.run, f"worldfoundry {verb}", VERBS[verb], rest)


def _dispatch_sub(verb: str, subcommands: dict[str, tuple[type[Any], Callable[[Any], int], str]], rest: list[str]) -> int:
    if not rest or rest[0] in ("-h", "--help"):
        print(f"worldfoundry {verb}: {VERBS[verb]}\n\nusage: worldfoundry {verb} WHAT [options]\n")
        print(_table({name: row[2] for name, row in subcommands.items()}))
        return 0 if rest else UsageError.exit_code
    if rest[0] not in subcommands:
        hint = f"{did_you_mean(rest[0], list(subcommands))} `worldfoundry {verb} --help` lists all."
        raise UsageError(f"`worldfoundry {verb}` does not know {rest[0]!r}.", hint)
    config_class, run, help_line = subcommands[rest[0]]
    return _run(config_class, run, f"worldfoundry {verb} {rest[0]}", help_line, rest[1:])


def _run(config_class: Any, run: Callable[[Any], int], prog: str, help_line: str, argv: list[str]) -> int:
    from worldfoundry.core.config import parse_args

    _check_flags(config_class, prog, argv)
    return run(parse_args(config_class, argv, prog, inspect.cleandoc(config_class.__doc__ or help_line)))


def _check_flags(config_class: Any, prog: str, argv: list[str]) -> None:
    """Refuse unknown flags, and words that are no choice of theirs, in one line. What else may be wrong, tyro says in a box."""
    from worldfoundry.cli.completion import EVERYWHERE, flags_of

    flags = flags_of(config_class)[0]
    known, help_line = [*flags, *EVERYWHERE], f"`{prog} --help` lists all."
    for i, word in enumerate(argv):
        flag, given, value = word.partition("=")
        name = flag.replace("_", "-")
        if not name.startswith("--") or name == "--":
            continue
        if name not in known:
            raise UsageError(f"Unknown option {flag!r}.", f"{_closest(name, known)} {help_line}".strip())
        value = value if given else next(iter(argv[i + 1 : i + 2]), "--")
        if flags.get(name) and value not in flags[name] and value != "None" and not value.startswith("--"):
            raise UsageError(f"{flag}: {value!r} is none of {', '.join(flags[name])}.", _closest(value, flags[name]))


def _closest(word: str, known: Sequence[str]) -> str:
    """`did_you_mean` where something is close, else nothing."""
    hint = did_you_mean(word, list(known))
    return hint if hint.startswith("Did") else ""


def explain(error: BaseException) -> tuple[str, int]:
    """What to print for an error, and the exit code."""
    if isinstance(error, WorldFoundryError):
        message = " ".join(error.message.splitlines())  # several wrong values are several sentences
        return "\n".join(part for part in (f"error: {message}", error.hint) if part), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "error: No space left on the disk.\nFree some and run the same command again.", ResourceError.exit_code
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("worldfoundry"):
        hint = "`worldfoundry doctor` shows which extra brings it, with the pip line."
        return f"error: This needs the package {error.name!r}, which is not installed.\n{hint}", UsageError.exit_code
    if _out_of_memory(error):
        return "error: Out of memory.\nUse a smaller batch, size or number of frames.", ResourceError.exit_code
    text = " ".join(str(error).split())[:300]
    return f"error: {type(error).__name__}: {text}\nRun again with --debug for the traceback; please report it.", 1


def _out_of_memory(error: BaseException) -> bool:
    """Python's own, torch's CUDA class, and torch's CPU allocator (a RuntimeError); by name, so torch is not imported."""
    by_name = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or by_name or "DefaultCPUAllocator: can't allocate memory" in str(error)


def help_text() -> str:
    return HELP.format(version=__version__, verbs=_table(VERBS))


def _table(rows: dict[str, str]) -> str:
    width = max(12, *map(len, rows))
    return "\n".join(f"  {name:<{width}} {text}" for name, text in rows.items())
