"""Rules that keep the code readable by one person in an afternoon, checked rather than remembered."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import worldfoundry
from worldfoundry.core.config import Config

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "worldfoundry"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
TEXTS = [
    path
    for pattern in (
        "*.md",
        "src/**/*.*",
        "tests/**/*.*",
        "docs/**/*.*",
        "scripts/*",
        ".ci/*",
        "benchmarks/**/*.*",
        "constraints/*",
    )
    for path in ROOT.glob(pattern)
    if path.suffix in {".py", ".md", ".txt", ".yaml", ".toml", ".html", ".sh", ".j2", ""} and path.is_file()
]

FILE_LINES, FUNCTION_LINES = 400, 70
# The two places where whatever goes wrong must be caught: the edge of the program, and the runner that fails closed.
BROAD_EXCEPT = {"cli/main.py", "guardrails/runner.py", "curation/executors.py", "curation/run.py"}


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_files_are_short_and_open_with_a_docstring(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, f"{name(file)} has {lines} lines"
    assert ast.get_docstring(tree(file)), f"{name(file)} does not say what it is"


def test_functions_fit_on_a_screen():
    functions = [(file, node) for file in FILES for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
    long = [f"{name(f)}:{n.lineno} {n.name}" for f, n in functions if n.end_lineno - n.lineno + 1 > FUNCTION_LINES]
    assert not long, long


def test_nothing_is_caught_blindly():
    broad = {"Exception", "BaseException"}
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ExceptHandler):
                caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else broad
                assert not caught & broad or name(file) in BROAD_EXCEPT, f"{name(file)}:{node.lineno} catches everything"


def test_nothing_is_left_for_later():
    """No notes to self, and a method that only raises NotImplementedError has its overrides in the same file."""
    for file in FILES:
        assert not re.search(r"\b(TODO|FIXME|HACK)\b", file.read_text(encoding="utf-8")), name(file)
        functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
        names = [node.name for node in functions]
        for node in functions:
            left_out = isinstance(node.body[-1], ast.Raise) and "NotImplementedError" in ast.dump(node.body[-1])
            assert not left_out or names.count(node.name) > 1, f"{name(file)}:{node.lineno} {node.name} is a stub"


def test_every_config_field_has_a_sentence():
    """It is the documentation and the `--help`."""
    for module in pkgutil.walk_packages(worldfoundry.__path__, "worldfoundry."):
        importlib.import_module(module.name)
    configs, todo = [], [Config]
    while todo:
        found = [c for c in todo.pop().__subclasses__() if c.__module__.startswith("worldfoundry.")]
        configs += found
        todo += found
    assert len(configs) >= 10
    missing = [f"{c.__name__}.{field}" for c in configs for field, info in c.model_fields.items() if not info.description]
    assert not missing, missing


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_says_what_comes_in_and_what_goes_out(room):
    text = ast.get_docstring(tree(room / "__init__.py"))
    assert text
    for words in ("Comes in", "Goes out", "Decided here", "Not decided here"):
        assert words.lower() in text.lower().replace("\n", " "), f"{room.name}/__init__.py does not say: {words}"
    tests = re.findall(r"tests/[\w/]+(?:\.py)?", text)
    assert tests, f"{room.name}/__init__.py names no test"
    for path in tests:
        assert (ROOT / path).exists(), f"{room.name}/__init__.py names {path}, which is not there"


def test_no_text_knows_the_machine_it_was_written_on():
    places = re.compile(
        "|".join((r"(?<![\w>])/" + "work/", "/" + "tmp/wf", "/" + "root/", "/" + r"home/\w", r"\bissue " + r"#?\d"))
    )
    wrong = {}
    for path in TEXTS:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if places.search(line):
                wrong[f"{path.relative_to(ROOT)}:{number}"] = line.strip()[:100]
    assert not wrong, wrong


def test_the_reading_order_keeps_its_promise():
    """The lines that a step promises are those of its files, give or take a quarter."""
    rows = re.findall(r"^\| \d+ \| (.*?) \| (\d+) \| (\d+) \|", (ROOT / "docs" / "reading-order.md").read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for files, promised, minutes in rows:
        paths = [ROOT / "docs" / target for target in re.findall(r"\]\(([^)]+)\)", files)]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        assert abs(lines - int(promised)) <= 0.25 * lines + 10, f"{files}: {lines} lines"
        assert int(minutes) >= lines / 60, files
