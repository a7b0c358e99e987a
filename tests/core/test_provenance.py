"""A record says which code, command and machine made a file."""

import json
import shlex
import sys

from worldfoundry.core import provenance as module
from worldfoundry.core.provenance import code_commit, provenance


def test_standing_facts_and_own_ones(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/worldfoundry", "generate", "--prompt", "a red cube"])
    facts = provenance(seed=7)
    assert {"created", "worldfoundry", "commit", "command", "hardware", "seed"} <= set(facts)
    assert shlex.split(facts["command"]) == ["worldfoundry", "generate", "--prompt", "a red cube"]
    json.dumps(facts)


def test_an_installed_package_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "worldfoundry" / "core" / "provenance.py"))
    assert code_commit() is None


def test_a_machine_without_git_has_no_commit(monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(module.subprocess, "run", no_git)
    assert code_commit() is None
