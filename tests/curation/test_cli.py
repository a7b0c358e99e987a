"""`worldfoundry curate` as a person types it: summary, exit codes, one clear line for each mistake."""

from pathlib import Path
from typing import Any

import pytest

from worldfoundry.cli.main import main


def test_a_run_prints_what_came_of_it(zoo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo.video("a.mp4", num_frames=30)
    zoo.text("bad.mp4")
    assert main(["curate", str(zoo.folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "clips kept   1, 2.5 s of video" in printed
    assert "quarantined  1 file: 1 NOT_MEDIA" in printed
    assert str(tmp_path / "out" / "report.html") in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--out", "out"], "'nowhere' does not exist"),
        (["EMPTY", "--out", "out"], "holds no video or image file"),
        (["VIDEO", "--out", "out", "--min-s", "9", "--max-s", "10"], "at least twice min_s"),
        (["VIDEO", "--out", "VIDEO"], "is a file, not a folder"),
    ],
)
def test_mistakes_end_in_one_clear_message_and_exit_code_2(
    zoo: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": str(tmp_path / "empty"), "VIDEO": str(zoo.video("a.mp4", num_frames=30))}
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["curate", *(places.get(argument, argument) for argument in arguments)])
    except SystemExit as stop:  # the flag parser's own way out
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert said in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert "Traceback" not in captured.err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["curate", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("INPUT", "--out", "--min-s", "--max-s", "--shard-mb", "--overwrite", "--shots.cut-threshold"):
        assert option in text
