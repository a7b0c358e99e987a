"""`worldfoundry curate` as a person types it: summary, exit codes, one clear line for each mistake."""

from pathlib import Path
from typing import Any

import pytest

from worldfoundry.cli.main import main
from worldfoundry.curation.tables import read_table


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


def test_a_dataset_is_tuned_retried_compared_and_exported(zoo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zoo.shots("two.mp4", [24, 30])
    zoo.video("one.mp4", num_frames=30, seed=3)
    zoo.text("one.txt", "a room")
    zoo.text("bad.mp4")
    out, fewer = str(tmp_path / "out"), str(tmp_path / "fewer")
    for folder in (out, fewer):
        assert main(["curate", str(zoo.folder), "--out", folder, "--min-s", "1", "--no-isolate"]) == 0
    assert main(["curate", "diff", out, fewer]) == 0
    assert "content      equal\nsame         3 clips" in capsys.readouterr().out
    assert main(["curate", "select", fewer, "--min-s", "2.2"]) == 0
    assert "clips kept   2" in capsys.readouterr().out
    assert main(["curate", "diff", out, fewer]) == 0
    printed = capsys.readouterr().out
    assert "lost         1 clip, in B: 1 TOO_SHORT" in printed
    assert "same         2 clips" in printed
    assert main(["curate", "select", fewer, "--min-s", "1", "--where", "motion<=0"]) == 0
    assert "3 MOTION_HIGH" in capsys.readouterr().out
    assert main(["curate", "select", fewer, "--where"]) == 0
    assert "clips kept   3" in capsys.readouterr().out
    assert main(["curate", "retry", out, "--code", "NOT_MEDIA"]) == 0
    assert [row["attempt"] for row in read_table(tmp_path / "out" / "tables", "quarantine")] == [2]
    capsys.readouterr()
    for _ in range(2):
        assert main(["curate", "export", out, "--to", str(tmp_path / "plain")]) == 0
        assert "3 clips in " in capsys.readouterr().out
    assert len(list((tmp_path / "plain").glob("*/*.mp4"))) == 3
    (caption,) = (tmp_path / "plain").glob("*/*.txt")
    assert caption.read_text() == "a room"
    assert len((tmp_path / "plain" / "clips.csv").read_text().splitlines()) == 4


def test_clips_that_were_never_encoded_are_said_with_the_way_to_encode_them(
    zoo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo.shots("two.mp4", [24, 30])
    out = tmp_path / "out"
    assert main(["curate", str(zoo.folder), "--out", str(out), "--min-s", "2.2", "--no-isolate"]) == 0
    assert main(["curate", "select", str(out), "--min-s", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1 clip would be kept but was never encoded. To go on:" in printed
    (command,) = [line.split()[1:] for line in printed.splitlines() if line.startswith("  worldfoundry curate")]
    assert main(command) == 0
    assert "clips kept   2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["select", "nowhere"], "'nowhere' holds no curation to go on with"),
        (["retry", "nowhere", "--code", "X"], "'nowhere' holds no curation to go on with"),
        (["diff", "nowhere", "nowhere"], "'nowhere' is not a clip dataset"),
        (["export", "nowhere", "--to", "x"], "'nowhere' does not exist"),
        (["VIDEO", "--out", "out", "--where", "blr<=3"], "no stage gives 'blr'"),
        (["VIDEO", "--out", "out", "--stages", "none.py:x"], "none.py' does not exist"),
    ],
)
def test_mistakes_on_a_dataset_end_in_one_line(
    zoo: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    video = str(zoo.video("a.mp4", num_frames=30))
    assert main(["curate", *(video if argument == "VIDEO" else argument for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert not (tmp_path / "out").exists()


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["curate", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("INPUT", "--out", "--min-s", "--max-s", "--shard-mb", "--overwrite", "--shots.cut-threshold"):
        assert option in text
