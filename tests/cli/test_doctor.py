"""The doctor examines whatever it meets, and never falls over it."""

import json

import pytest

from worldfoundry.cli import doctor
from worldfoundry.cli.main import main


@pytest.fixture
def quick(monkeypatch):
    """No subprocesses: they are tried once, below."""
    monkeypatch.setattr(doctor, "_python", lambda code, **environment: None)


def test_lines_name_what_matters_and_how_to_get_what_lacks(quick, capsys):
    assert main(["doctor", "--no-measure"]) == 0
    text = capsys.readouterr().out
    for name in ("worldfoundry", "python", "torch", "gpu", "cpu", "memory", "disk here", "video in", "video out", "simulator"):
        assert f" {name} " in text
    assert all(name in text for name in ("extra [sim]", "torchvision", "hf cache", "model minilm"))
    for line, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line.startswith(" - ") and "lacks" in line:
            assert "get it: pip install 'worldfoundry[" in after


def test_json_is_machine_readable(quick, capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["matrix rate"]["facts"]["float32"] > 0
    assert findings["matrix rate"]["facts"]["bfloat16"] > 0
    assert findings["video out"]["ok"] is True
    assert findings["torchvision"]["value"] == "absent, as it should be"


@pytest.mark.parametrize("error", [ImportError("no torch"), OSError("no libGL"), RuntimeError("driver"), AttributeError("x")])
def test_a_check_that_breaks_becomes_a_finding(quick, monkeypatch, error):
    def video():
        raise error

    monkeypatch.setattr(doctor, "video", video)
    broken = [finding for finding in doctor.examine(measure=False) if not finding.ok and finding.name == "video"]
    assert len(broken) == 1
    assert type(error).__name__ in broken[0].value


def test_what_is_not_installed_is_named_with_its_line(quick, monkeypatch):
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    (sim,) = [finding for finding in doctor.extras() if finding.name == "extra [sim]"]
    assert (sim.ok, sim.fix) == (False, "pip install 'worldfoundry[sim]'")
    assert "mujoco" in sim.value


def test_a_broken_torchvision_is_worse_than_none(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "_python", lambda code, **environment: None)
    (finding,) = doctor.torchvision()
    assert (finding.ok, finding.fix) == (False, "pip uninstall torchvision")


def test_a_fresh_process_answers():
    assert doctor._python("print(6 * 7)").stdout == "42\n"
    assert doctor._python("raise SystemExit(3)").returncode == 3
