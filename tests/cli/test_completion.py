"""The script completes in a real shell, and knows exactly the flags that tyro accepts."""

import re
import shutil
import subprocess

import pytest
from commands import commands

from worldfoundry.cli.completion import EVERYWHERE, flags_of, script
from worldfoundry.cli.main import VERBS, main

COMMANDS = list(commands())


def complete(line):
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    body = f"""
{script("bash")}
COMP_WORDS=({" ".join(repr(word) for word in words)})
COMP_CWORD={len(words) - 1}
_worldfoundry
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", body], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("worldfoundry tr", {"train"}),
        ("worldfoundry co", {"convert", "completion"}),
        ("worldfoundry train ", {"tokenizer", "diffusion", "autoregressive", "decoder", "medusa", "student", "--help"}),
        ("worldfoundry train d", {"diffusion", "decoder"}),
        ("worldfoundry completion ", {"bash", "zsh", *EVERYWHERE}),
        ("worldfoundry guard text --policy.act", {"--policy.action", "--policy.actions"}),
        ("worldfoundry guard text --policy.action ", {"block", "warn", "off"}),
        ("worldfoundry guard text --policy.action w", {"warn"}),
        ("worldfoundry doctor --no", {"--no-measure"}),
        ("worldfoundry doctor --measure --js", {"--json"}),
        ("worldfoundry generate --out some/fi", set()),  # falls back to file names
        ("worldfoundry nonsense ", set()),
    ],
)
def test_bash_offers(line, offered):
    assert complete(line) == offered


def test_all_verbs_are_offered():
    assert complete("worldfoundry ") == {*VERBS, "--help", "--version"}


@pytest.mark.parametrize(("words", "config"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_flags_are_exactly_those_in_the_help(words, config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    in_help = set(re.findall(r"^(?:│ |  )(?:-h, )?(--[a-z][\w.-]+)(?:, (--[\w.-]+))?", capsys.readouterr().out, re.MULTILINE))
    in_help = {flag for pair in in_help for flag in pair if flag} - {"--help"}
    assert set(flags_of(config)[0]) == in_help


def test_zsh_script_has_the_same_words():
    cases = {shell: re.findall(r'\) candidates="(.*)" ;;', script(shell)) for shell in ("bash", "zsh")}
    assert cases["bash"] == cases["zsh"]
    assert "compdef _worldfoundry worldfoundry" in script("zsh")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_accepts_the_script():
    subprocess.run(["zsh", "-n", "-c", script("zsh")], check=True)
