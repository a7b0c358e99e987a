"""What the person at the terminal sees: help, suggestions, one clear line per error, the exit codes of the design."""

import errno
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from commands import commands
from pydantic import Field

import worldfoundry
from worldfoundry.cli import main as cli
from worldfoundry.core import errors
from worldfoundry.core.config import Config

COMMANDS = list(commands())


class ToyConfig(Config):
    """A toy verb."""

    size: int = Field(default=1, ge=1, le=9)
    """Size."""


@pytest.fixture
def toy(monkeypatch):
    """Makes `worldfoundry toy` call whatever the test hands over."""

    def install(run):
        monkeypatch.setitem(cli.VERBS, "toy", "a toy verb")
        monkeypatch.setitem(sys.modules, "worldfoundry.cli.toy", SimpleNamespace(CONFIG=ToyConfig, run=run))

    return install


def raising(error):
    def run(config):
        raise error

    return run


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def test_help_lists_every_verb_and_code(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in cli.VERBS)
    assert all(word in text for word in ("--config", "--debug", "0 done", "2 bad usage", "3 blocked", "4 a guard", "130"))
    assert cli.main(["help"]) == cli.main(["-h"]) == 0
    assert cli.main([]) == 2


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"worldfoundry {worldfoundry.__version__}\n"


@pytest.mark.parametrize(("words", "config"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_every_command_has_help(words, config, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: worldfoundry {' '.join(words)}" in text
    assert "--print-config" in text
    assert issubclass(config, Config)
    assert config.__doc__, "a command's config needs a docstring: it is the first line of its help"


ALONE = {words[0] for words, _ in COMMANDS if len(words) == 1}  # such as curate, a command that has parts besides


@pytest.mark.parametrize("verb", sorted({words[0] for words, _ in COMMANDS if len(words) == 2} - ALONE))
def test_verbs_with_parts_list_them(verb, capsys):
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {words[1]} " in text for words, _ in COMMANDS if words[0] == verb and len(words) == 2)
    assert cli.main([verb]) == 2
    assert cli.main([verb, "nonsense"]) == 2
    assert "does not know 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("generat", "generate"), ("evalute", "evaluate")])
def test_a_mistyped_verb_gets_a_suggestion(typed, meant, capsys):
    assert cli.main([typed]) == 2
    error = capsys.readouterr().err
    assert f"'{typed}'" in error
    assert f"Did you mean '{meant}'" in error


def test_the_return_value_of_run_is_the_exit_code(toy):
    toy(lambda config: 10 + config.size)
    assert cli.main(["toy", "--size", "3"]) == 13


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.ConfigError("Bad.", "Mend."), 2, ["error: Bad.", "Mend."]),
        (errors.MediaError("EMPTY_FILE", "Empty."), 2, ["error: Empty."]),
        (errors.BlockedError("Blocked."), 3, ["error: Blocked."]),
        (errors.GuardUnavailable("Unchecked.", "Fetch it."), 4, ["Unchecked.", "Fetch it."]),
        (errors.ResourceError("Full."), 1, ["Full."]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 1, ["Out of memory"]),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, ["Out of memory"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, ["Out of memory"]),
        (OSError(errno.ENOSPC, "No space left on device"), 1, ["No space left"]),
        (ModuleNotFoundError("No module named 'mujoco'", name="mujoco"), 2, ["'mujoco'", "doctor"]),
        (ValueError("odd\nthing"), 1, ["ValueError: odd thing", "--debug", "report"]),
    ],
)
def test_every_error_is_at_most_two_clear_lines(toy, capsys, error, code, words):
    toy(raising(error))
    assert cli.main(["toy"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err
    assert all(word in err for word in words), err


def test_debug_shows_the_traceback_and_keeps_the_code(toy, capsys):
    toy(raising(errors.BlockedError("Blocked.")))
    assert cli.main(["toy", "--debug"]) == 3
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.rstrip().endswith("error: Blocked.")


def test_a_bad_value_names_flag_and_range(toy, capsys):
    toy(lambda config: 0)
    assert cli.main(["toy", "--size", "12"]) == 2
    assert "--size: must be less than or equal to 9 (got 12; allowed: >= 1, <= 9)" in capsys.readouterr().err


def test_two_bad_values_are_still_one_error_and_one_hint(capsys):
    assert cli.main(["simulate", "pusher", "--out", "x", "--episodes", "0", "--size", "1"]) == 2
    error, hint = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: --episodes: must be greater")
    assert "--size: must be a multiple of 2 (got 1;" in error
    assert hint == "Run `worldfoundry simulate pusher --help` for every field and its range."


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("--executor rays", ["error: --executor: 'rays' is none of process, ray.", "Did you mean 'ray'?"]),
        ("--executor=cloud", ["error: --executor: 'cloud' is none of process, ray."]),
        (
            "--episodez 3 --sizee 7",
            [
                "error: Unknown option '--episodez'.",
                "Did you mean '--episodes'? `worldfoundry simulate pusher --help` lists all.",
            ],
        ),
        ("--xyzzy", ["error: Unknown option '--xyzzy'.", "`worldfoundry simulate pusher --help` lists all."]),
    ],
)
def test_an_unknown_flag_or_choice_is_one_line_with_a_suggestion(words, lines, capsys):
    assert cli.main(["simulate", "pusher", "--out", "x", *words.split()]) == 2
    assert capsys.readouterr().err.strip().splitlines() == lines


@pytest.mark.parametrize("words", ["--text none", "--text=none", "--num_inference_steps 4", "--actions auto --text auto"])
def test_choices_and_either_spelling_of_a_flag_pass(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "diffusion", "clips", "--tokenizer", "t", "--out", "o", *words.split(), "--print-config"])
    assert stop.value.code == 0
    assert "tokenizer: t" in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error():
    script = "import sys; from worldfoundry.cli.main import main; sys.exit(main(['--help']))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 1


def test_a_real_process_ends_with_the_code(tmp_path):
    command = [sys.executable, "-c", "import sys; from worldfoundry.cli.main import main; sys.exit(main())"]
    done = subprocess.run([*command, "guard", "video", str(tmp_path / "gone.mp4")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "gone.mp4' does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_real_process_with_130_and_one_line(stop):
    code = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits "ignore"
from worldfoundry.cli import main as cli
from worldfoundry.core.config import Config
class C(Config):
    '''Waits.'''
def run(config):
    print("ready", flush=True)
    time.sleep(30)
cli.VERBS["toy"] = "a toy"
sys.modules["worldfoundry.cli.toy"] = types.SimpleNamespace(CONFIG=C, run=run)
sys.exit(cli.main(["toy"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(stop)
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == "interrupted\n"
