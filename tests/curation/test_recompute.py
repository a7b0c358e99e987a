"""What runs again after a change, and what does not: stages by their parameters, thresholds never, shards by their buckets."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worldfoundry.core.errors import UsageError
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import load_stage
from worldfoundry.curation.pipeline import CurateSummary, curate, reselect
from worldfoundry.curation.tables import read_table
from worldfoundry.data.clips import ClipDataset
from worldfoundry.data.shards import read_index

EXAMPLES = Path(__file__).with_name("example_stages.py")


COUNTED = {"probe", "watch", "episode", "shots", "plan", "motion", "encode", "brightness", "sharpness", "sharpest", "raises"}


class Runs:
    """Curates one folder again and again, and counts how often each of these stages ran (there may be others)."""

    def __init__(self, source: Path, out: Path) -> None:
        self.source, self.out = source, out
        self.ran: Counter[str] = Counter()

    def config(self, **changes: Any) -> CurateConfig:
        base = {"input": str(self.source), "out": self.out, "min_s": 1.0, "max_s": 4.0, "isolate": False}
        return CurateConfig.from_dict({**base, **changes})

    def __call__(self, stages: Any = (), retry: frozenset[str] = frozenset(), **changes: Any) -> CurateSummary:
        self.ran = Counter()

        def executor(work: Any, rows: Any) -> Iterator[Any]:
            for result in map(work, rows):
                self.ran.update(event["stage"] for event in result.get("events", ()) if event["stage"] in COUNTED)
                yield result

        return curate(self.config(**changes), executor=executor, stages=stages, retry=retry)

    def shards(self) -> dict[str, str]:
        return {str(path.relative_to(self.out)): read_index(path).sha256 for path in sorted(self.out.glob("shards/*/*.tar"))}


@pytest.fixture
def runs(zoo: Any, tmp_path: Path) -> Runs:
    """Two shots that move, a still one, an image."""
    zoo.shots("two.mp4", [24, 30])
    still = zoo.frames(1, seed=3).repeat(40, axis=0)
    zoo.encoded("still.mp4", still)
    zoo.image("image.png")
    return Runs(zoo.folder, tmp_path / "out")


def test_a_changed_parameter_runs_its_stage_and_those_that_read_it(runs: Runs) -> None:
    first = runs(trim_frames=0)
    assert runs.ran == Counter(probe=3, watch=2, episode=2, shots=2, plan=3, motion=2, encode=4)
    assert (runs(trim_frames=0).processed, runs.ran) == (0, Counter())
    runs(trim_frames=0, shots={"cut_ratio": 2.0})
    assert runs.ran == Counter(shots=2, plan=3, motion=2), "nothing is decoded, and the same clips need no encoding"
    before = runs.shards()
    runs(trim_frames=0, shots={"cut_ratio": 2.0}, crf=30, copy_gop=0)
    assert runs.ran == Counter(encode=4)
    assert runs.shards() != before
    again = runs(trim_frames=0)
    assert runs.ran == Counter(encode=4, shots=2, plan=3, motion=2)
    assert (runs.shards(), again.content_hash) == (before, first.content_hash)


def test_thresholds_decode_nothing_and_lose_nothing(runs: Runs, zoo: Any) -> None:
    first, before = runs(), runs.shards()
    untouched = {name: sha for name, sha in before.items() if "/image_" in name}
    assert (first.clips, untouched == {}) == (4, False)
    fewer = reselect(runs.config(min_motion=5.0))
    assert (fewer.clips, fewer.rejected, fewer.quarantined) == (3, {"STATIC": 1}, {"STATIC": 1})
    assert untouched.items() <= runs.shards().items()
    assert len(ClipDataset(runs.out)) == 3
    shutil.move(zoo.folder, runs.out.parent / "unmounted")
    back = reselect(runs.config())
    assert (back.content_hash, runs.shards()) == (first.content_hash, before), "what was dropped came back from the work folder"
    assert not list((runs.out / "work").rglob("*.mp4"))


def test_only_buckets_that_changed_are_packed_anew(runs: Runs, zoo: Any) -> None:
    zoo.video("large.mp4", num_frames=24, height=128, width=160)
    runs(shard_mb=0.001)
    before = runs.shards()
    victim = read_table(runs.out / "tables", "clips")
    large = next(clip for clip in victim if clip["height"] == 128)
    runs(shard_mb=0.001, where=("source_height<=100",))
    assert runs.ran == Counter()
    assert large["shard"] not in runs.shards()
    assert runs.shards() == {name: sha for name, sha in before.items() if name != large["shard"]}


def test_what_was_never_encoded_is_said_and_encoded_by_the_next_run(runs: Runs) -> None:
    runs(min_motion=5.0)
    assert runs.ran["encode"] == 3
    looser = reselect(runs.config())
    assert (looser.clips, looser.rejected) == (3, {"NOT_ENCODED": 1})
    assert (runs().clips, runs.ran) == (4, Counter(encode=1))
    with pytest.raises(UsageError, match="3 files have no scores of these parameters"):
        reselect(runs.config(shots={"cut_ratio": 3.0}, crf=3).replace(stages=(f"{EXAMPLES}:raises?name=.mp",)))


def test_a_shard_removed_by_hand_is_made_again(runs: Runs) -> None:
    runs()
    before = runs.shards()
    for name in before:
        (runs.out / name).unlink()
    runs()
    assert (runs.ran, runs.shards()) == (Counter(encode=4), before)


def test_stages_of_ones_own_run_beside_the_others(runs: Runs) -> None:
    plain = runs()
    sharp = (f"{EXAMPLES}:sharpness", f"{EXAMPLES}:sharpest")
    summary = runs(stages=[load_stage(f"{EXAMPLES}:brightness")], where=("brightness<=255",), **{})
    assert runs.ran == Counter(brightness=2)
    assert summary.clips == plain.clips
    clips = read_table(runs.out / "tables", "clips")
    assert all((clip["brightness"] is None) == (clip["encoding"] == "image") for clip in clips)
    config = runs.config(stages=(*sharp, f"{EXAMPLES}:label"), where=("sharpness>=0",))
    fresh = curate(config.replace(out=runs.out.parent / "fresh"))
    clips = read_table(fresh.report.parent / "tables", "clips")
    assert {clip["kind"] for clip in clips} == {"still", "moving"}
    assert all(clip["sharpness"] > 0 for clip in clips if clip["kind"] == "moving")
    events = Counter(event["stage"] for event in read_table(fresh.report.parent / "tables", "events"))
    assert (events["watch"], events["sharpness"], events["label"]) == (2, 2, 4)


def test_all_stages_that_watch_frames_share_one_decoding_pass(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldfoundry.curation import lowres

    passes: list[Path] = []
    decode = lowres._decode_all
    monkeypatch.setattr(lowres, "_decode_all", lambda *given: (passes.append(given[0]), decode(*given)))
    runs(stages=[load_stage(f"{EXAMPLES}:sharpness")])
    assert len(passes) == 2, "two videos, each decoded once"
    runs(stages=[load_stage(f"{EXAMPLES}:sharpness"), load_stage(f"{EXAMPLES}:sharpest")])
    assert len(passes) == 2
    assert runs.ran == Counter(sharpest=2)


def test_a_stage_that_raises_costs_its_row_and_is_tried_again(runs: Runs) -> None:
    bad = f"{EXAMPLES}:raises?name=still"
    assert runs(stages=[load_stage(bad)]).quarantined == {"INTERNAL_ERROR": 1}
    (row,) = read_table(runs.out / "tables", "quarantine")
    assert (row["stage"], row["code"], row["message"], row["attempt"]) == ("raises", "INTERNAL_ERROR", "KeyError: 'oops'", 1)
    assert len(ClipDataset(runs.out)) == 3
    runs(stages=[load_stage(bad)])
    (row,) = read_table(runs.out / "tables", "quarantine")
    assert row["attempt"] == 2
    assert (runs().quarantined, runs.ran) == ({}, Counter(encode=1))
