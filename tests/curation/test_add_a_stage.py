"""The example of the how-to runs as printed."""

import re
from pathlib import Path
from typing import Any

import worldfoundry as wf
from worldfoundry.cli.main import main
from worldfoundry.curation.tables import read_table

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-stage.md"


def test_the_example_of_the_how_to_runs_as_printed(zoo: Any, tmp_path: Path, monkeypatch: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "my_stages.py").write_text(blocks[0])
    zoo.video("clip.mp4", num_frames=30)
    zoo.folder.rename(tmp_path / "my-videos")
    monkeypatch.chdir(tmp_path)
    command = ["curate", "my-videos", "--out", "clips", "--stages", "my_stages.py:brightness", "--where", "brightness>=40"]
    assert main([*command, "--no-isolate"]) == 0
    (clip,) = read_table(tmp_path / "clips" / "tables", "clips")
    assert 40 <= clip["brightness"] <= 255
    said: dict[str, Any] = {}
    exec(blocks[1].replace("where=", "isolate=False, where="), {"__name__": "example"}, said)
    assert said["summary"].clips == 1
    (twice,) = read_table(tmp_path / "clips" / "tables", "clips")
    assert twice["brightness"] == 2 * clip["brightness"]
    assert isinstance(wf.curate("my-videos", "clips", isolate=False, where=["motion<=0"]).rejected["MOTION_HIGH"], int)
