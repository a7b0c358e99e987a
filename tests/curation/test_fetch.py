"""A file at a URL is fetched once per run, though it is hashed, analysed and encoded; copies are gone afterwards."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from worldfoundry.core.errors import MediaError, ResourceError
from worldfoundry.curation import discover
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.fetch import Copies
from worldfoundry.curation.pipeline import CurateSummary, curate

SCORES = {"measure": False}


@pytest.fixture
def box() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/box/a.mp4": b"abc", "/box/b.mp4": b"defg"})
    yield memory
    for folder in ("/box", "/zoo"):
        if memory.exists(folder):
            memory.rm(folder, recursive=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file at a URL was opened."""
    count, real = Counter[str](), discover._open

    def opened(uri: str) -> Any:
        if "://" in uri:
            count[uri.rpartition("/")[2]] += 1
        return real(uri)

    monkeypatch.setattr(discover, "_open", opened)
    return count


def put(zoo: Any, memory: Any) -> str:
    """The files of the zoo at a URL."""
    memory.pipe({f"/zoo/{path.name}": path.read_bytes() for path in zoo.folder.iterdir()})
    return "memory://zoo"


def run(source: str, out: Path, **changes: Any) -> CurateSummary:
    base = {"input": source, "out": out, "min_s": 1.0, "max_s": 4.0, "scores": SCORES, "copy_gop": 0}
    return curate(CurateConfig.from_dict({**base, **changes}))


@pytest.mark.parametrize("executor", ["process", "pool"])
def test_every_file_is_fetched_once(zoo: Any, box: Any, asked: Counter[str], tmp_path: Path, executor: str) -> None:
    zoo.shots("two.mp4", [24, 30])
    zoo.video("short.mp4", num_frames=6)
    zoo.text("bad.mp4")
    summary = run(put(zoo, box), tmp_path / "out", executor=executor, workers=2)
    assert (summary.clips, summary.quarantined) == (2, {"NOT_MEDIA": 1, "TOO_SHORT": 1})
    assert dict(asked) == {"two.mp4": 1, "short.mp4": 1, "bad.mp4": 1}
    assert not (tmp_path / "out" / "work" / ".fetched").exists()


def test_beyond_the_cap_it_is_fetched_for_each_step(zoo: Any, box: Any, asked: Counter[str], tmp_path: Path) -> None:
    zoo.video("one.mp4", num_frames=24)
    assert run(put(zoo, box), tmp_path / "out", isolate=False, fetch_gb=0.0).clips == 1
    assert dict(asked) == {"one.mp4": 3}, "to be hashed, analysed and encoded"


def test_a_copy_stays_until_it_is_forgotten(box: Any, tmp_path: Path) -> None:
    copies = Copies(tmp_path / "kept", 1.0)
    assert copies.sha256("memory://box/a.mp4").startswith("ba7816bf")
    box.rm("/box/a.mp4")
    with copies.local("memory://box/a.mp4") as path:
        assert (path.name, path.read_bytes()) == ("a.mp4", b"abc")
    assert path.is_file()
    copies.forget(["memory://box/a.mp4", "memory://box/b.mp4", str(tmp_path / "local.mp4")])
    assert not any((tmp_path / "kept").iterdir())
    with pytest.raises(MediaError, match="does not exist"), copies.local("memory://box/a.mp4"):
        pass


def test_copies_stay_below_the_cap(box: Any, tmp_path: Path) -> None:
    copies = Copies(tmp_path / "kept", 2e-9)  # 2 bytes: the first file is begun below it, the second one not
    for name in ("a.mp4", "b.mp4"):
        with copies.local(f"memory://box/{name}") as path:
            assert path.is_file()
    assert [path.name for path in (tmp_path / "kept").glob("*/*")] == ["a.mp4"]
    assert not path.exists(), "what is beyond the cap goes at once"
    copies.forget(["memory://box/a.mp4"])
    with copies.local("memory://box/b.mp4"):
        pass
    assert [path.name for path in (tmp_path / "kept").glob("*/*")] == ["b.mp4"]


def test_local_files_are_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    copies = Copies(tmp_path / "kept", 1.0)
    with copies.local(str(tmp_path / "a.mp4")) as path:
        assert path == tmp_path / "a.mp4"
    assert copies.sha256(str(tmp_path / "a.mp4")).startswith("ba7816bf")
    assert not (tmp_path / "kept").exists()


def test_copies_go_when_a_run_ends_in_an_error(zoo: Any, box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.video("one.mp4", num_frames=24)

    def full(*given: Any, **options: Any) -> None:
        raise ResourceError("No space left.")

    monkeypatch.setattr("worldfoundry.curation.commits.Commits.write", full)
    with pytest.raises(ResourceError):
        run(put(zoo, box), tmp_path / "out", isolate=False)
    assert (tmp_path / "out" / "work").is_dir()
    assert not (tmp_path / "out" / "work" / ".fetched").exists()
