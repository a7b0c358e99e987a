"""Finding files: folder, glob, list, single file, URL; what is left out; what is said when nothing is there."""

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from worldfoundry.core.errors import MediaError, UsageError
from worldfoundry.curation.discover import discover, local_copy, sha256_of


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["uri"]).name for row in rows]


@pytest.fixture
def tree(zoo: Any) -> Path:
    (zoo.folder / "deep" / "er").mkdir(parents=True)
    for name in ("b.mp4", "a.MOV", "deep/c.mkv", "deep/er/d.png", ".hidden.mp4", "notes.md", "b.txt", "b.episode.parquet"):
        zoo.text(name)
    (zoo.folder / ".cache").mkdir()
    zoo.text(".cache/e.mp4")
    return zoo.folder


def test_folders_are_walked_and_sidecars_attached(tree: Path) -> None:
    rows = discover(str(tree))
    assert names(rows) == ["a.MOV", "b.mp4", "c.mkv", "d.png"]
    by_name = {Path(row["uri"]).name: row for row in rows}
    assert by_name["b.mp4"]["caption_uri"].endswith("b.txt")
    assert by_name["b.mp4"]["episode_uri"].endswith("b.episode.parquet")
    assert by_name["a.MOV"]["caption_uri"] == by_name["a.MOV"]["episode_uri"] == ""


def test_links_are_followed_but_never_round_in_circles(tree: Path) -> None:
    os.symlink(tree, tree / "deep" / "loop")
    os.symlink(tree / "b.mp4", tree / "linked.mp4")
    os.symlink(tree / "gone.mp4", tree / "dangling.mp4")
    rows = discover(str(tree))
    assert names(rows) == ["a.MOV", "b.mp4", "dangling.mp4", "c.mkv", "d.png", "linked.mp4"]
    with pytest.raises(MediaError, match="does not exist"):
        sha256_of(next(row["uri"] for row in rows if "dangling" in row["uri"]))


def test_globs_lists_and_single_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(discover(str(tree / "**" / "*.m*"))) == ["b.mp4", "c.mkv"]
    assert names(discover(str(tree / "notes.md"))) == ["notes.md"], "a file named outright is tried whatever its ending"
    (tree / "list.txt").write_text(f"# mine\nb.mp4\n\ndeep\n{tree / 'a.MOV'}\nnowhere.mp4\nb.mp4\n")
    rows = discover(str(tree / "list.txt"))
    assert names(rows) == ["a.MOV", "b.mp4", "c.mkv", "d.png", "nowhere.mp4"]
    monkeypatch.chdir(tree)
    assert discover(".") == discover(str(tree)), "uris do not depend on how the folder was named"


def test_the_output_folder_is_not_input(tree: Path) -> None:
    assert names(discover(str(tree), exclude=tree / "deep")) == ["a.MOV", "b.mp4"]


def test_urls(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/box/x.mp4": b"abc", "/box/sub/y.webm": b"d", "/box/x.txt": b"a caption", "/box/z.doc": b""})
    try:
        rows = discover("memory://box")
        assert [row["uri"] for row in rows] == ["memory:///box/sub/y.webm", "memory:///box/x.mp4"]
        assert rows[1]["caption_uri"] == "memory:///box/x.txt"
        assert rows[1]["bytes"] == 3
        assert discover("memory://box/x.mp4") == [rows[1]]
        assert discover("memory://box/*.mp4") == [rows[1]]
        with local_copy(rows[1]["uri"]) as path:
            assert path.name == "x.mp4"
            assert path.read_bytes() == b"abc"
        assert not path.exists()
        assert sha256_of(rows[1]["uri"]).startswith("ba7816bf")
        with pytest.raises(UsageError, match="holds no video or image"):
            discover("memory://nothing")
    finally:
        memory.rm("/box", recursive=True)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        discover(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"holds no video or image file\. Looked for: .* mp4 "):
        discover(str(tmp_path))
    with pytest.raises(UsageError, match="list file"):
        discover(str(tmp_path / "nolist.txt"))
    with pytest.raises(UsageError, match="not a URL that fsspec knows"):
        discover("nosuch://x")
