"""The house stands on its floors: imports point down, never sideways, and looking at the help wakes nobody up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "worldfoundry"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"core"},
    {"nn", "data", "perception"},
    {"tokenizers", "conditioning", "curation", "simulation", "evaluation", "guardrails"},
    {"diffusion", "autoregressive"},
    {"training"},
    {"inference", "posttraining"},
    {"recipes", "serving"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Rooms that know even less than their floor would allow.
ONLY = {
    "curation": {"core", "data", "perception"},
    "evaluation": {"core", "data", "perception"},
    "guardrails": {"core", "data", "perception"},
    "simulation": {"core", "data"},
}
MODELS = {"tokenizers", "conditioning", "diffusion", "autoregressive"}
HEAVY = ("torch", "ray", "pydantic", "tyro", "numpy", "av", "rich", "yaml", "huggingface_hub")


def room_of(file: Path) -> str:
    """The room of a file; the package's own `__init__` is the empty room."""
    parts = file.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a file imports, anywhere in it: at the top, inside functions, for type checkers."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "worldfoundry" and len(part) > 1 and part[1] in FLOOR}


def allowed(room: str) -> set[str]:
    below = {other for other, floor in FLOOR.items() if floor < FLOOR[room]}
    return (ONLY.get(room) or below) | {room}


def test_every_room_has_a_floor():
    assert {room_of(file) for file in FILES} - {""} <= set(FLOOR)


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f)], ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file):
    room = room_of(file)
    wrong = imported_rooms(file) - allowed(room)
    assert not wrong, f"{file.relative_to(PACKAGE)} (floor {FLOOR[room]}) must not import {sorted(wrong)}"


def test_the_training_loop_knows_no_model():
    assert not imported_rooms(PACKAGE / "training" / "loop.py") & MODELS


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "act",
    [
        "import worldfoundry",
        "from worldfoundry.cli.main import main; assert main(['--help']) == 0",
        "from worldfoundry.cli.main import main; assert main(['--version']) == 0",
        "from worldfoundry.cli.main import main; assert main(['trian']) == 2",
    ],
)
def test_import_and_help_are_light(act):
    done = run(f"{act}\nimport sys\nprint('loaded:', [m for m in {HEAVY!r} if m in sys.modules])")
    assert done.stdout.endswith("loaded: []\n"), done.stdout + done.stderr


def test_the_help_of_a_verb_does_not_wait_for_torch():
    code = """
import importlib, sys
from worldfoundry.cli.main import VERBS
for verb in VERBS:
    importlib.import_module(f"worldfoundry.cli.{verb}")
print("loaded:", [m for m in ("torch", "ray", "mujoco", "transformers", "av", "pyarrow") if m in sys.modules])
"""
    done = run(code)
    assert done.stdout == "loaded: []\n", done.stdout + done.stderr


def test_every_module_imports_without_the_extras():
    """A bare install has no optional package; only the functions that need one may notice."""
    code = """
import importlib, pkgutil, sys
import worldfoundry
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"mujoco", "transformers", "diffusers", "ray", "cv2", "scenedetect", "onnxruntime",
                                  "faiss", "pycolmap", "torchmetrics", "tensorboard", "torchvision", "pytest", "hypothesis"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for module in pkgutil.walk_packages(worldfoundry.__path__, "worldfoundry."):
    importlib.import_module(module.name)
print("all")
"""
    done = run(code)
    assert done.stdout == "all\n", done.stderr
