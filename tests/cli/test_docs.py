"""What the README and the how-tos tell people to type exists: verbs, flags and values parse with the real configs."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from worldfoundry.cli.main import VERBS, main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?:sh|bash|console|shell)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def marked_block(marker):
    """The fenced block directly after `<!-- marker -->`."""
    found = re.search(rf"^<!-- {marker} -->\n```\w*\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no code block directly after <!-- {marker} -->"
    return found[1].strip()


def typed_lines(page):
    """Every `worldfoundry …` command of a page: lines of fenced blocks, and inline code that has arguments."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    blocks = FENCE.findall(text)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(worldfoundry [^`\n]+)`", FENCE.sub("", text))
    for line in lines:
        for part in re.split(r"&&|\|\||[|;]", line.split(" #")[0].removeprefix("$ ")):
            words = part.split(">")[0].strip()
            if re.match(r"(\S*/)?worldfoundry( |$)", words):
                yield words


COMMANDS = [(page.relative_to(ROOT), line) for page in PAGES for line in typed_lines(page)]


@pytest.mark.parametrize("marker", ["quickstart-command", "test-command"])
def test_the_two_commands_are_one_line_each(marker):
    block = marked_block(marker)
    assert len(block.splitlines()) == 1
    assert "python3 -m venv" in block
    assert subprocess.run(["sh", "-n", "-c", block]).returncode == 0


def test_the_quickstart_command_ends_in_the_quickstart():
    assert re.search(r"worldfoundry quickstart\b", marked_block("quickstart-command"))


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_every_command_in_the_docs_parses(page, line, capsys):
    verb, *rest = shlex.split(line)[1:] or ["--help"]
    if verb.isupper() or verb.startswith("-"):
        return
    assert verb in VERBS, f"{page}: there is no verb {verb!r}"
    if not rest or any(word in {"...", "…", "|"} for word in rest):
        return
    try:
        code = main([verb, *rest, *([] if "--help" in rest else ["--print-config"])])
    except SystemExit as stop:
        code = stop.code
    assert code == 0, f"{page}: {line}\n{capsys.readouterr().err}"


def test_the_docs_hold_commands_at_all():
    assert len(COMMANDS) >= 10


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8") if page.exists() else ""):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"


def test_the_documentation_lists_every_page():
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)]+\.md)\)", page))
    assert {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"README.md"} <= linked


@pytest.mark.parametrize("name", ["scripts/check", ".ci/run"])
def test_scripts_are_executable_and_parse(name):
    path = ROOT / name
    assert os.access(path, os.X_OK)
    assert subprocess.run(["sh", "-n", str(path)]).returncode == 0


@pytest.mark.parametrize(
    ("readme", "code", "says"),
    [
        ("<!-- test-command -->\n```sh\necho '3 passed in 0.1s'\n```\n", 0, "exit code 0; 3 passed in 0.1s"),
        ("<!-- test-command -->\n```sh\necho '1 failed, 2 passed in 0.1s'; exit 7\n```\n", 7, "exit code 7; 1 failed"),
        ("<!-- test-command -->\n\n```sh\ntrue\n```\n", 0, "no closing line"),
        ("<!-- test-command -->\nno block\n```sh\ntrue\n```\n", 1, "no one-line code block"),
        ("<!-- test-command -->\n```sh\ntrue\ntrue\n```\n", 1, "no one-line code block"),
        ("no marker\n```sh\ntrue\n```\n", 1, "no one-line code block"),
    ],
)
def test_ci_runs_the_line_of_the_readme(tmp_path, readme, code, says):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "README.md").write_text(readme)
    done = subprocess.run(["sh", str(tmp_path / ".ci" / "run")], capture_output=True, text=True)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
