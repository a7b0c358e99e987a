"""Write `report.html`: what `sections`, `thresholds` and `pictures` say, in one file with its style and script inside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from worldfoundry.core.files import atomic_path
from worldfoundry.core.progress import clock
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import Graph
from worldfoundry.curation.report import sections
from worldfoundry.curation.report.pictures import Pictures
from worldfoundry.curation.report.thresholds import evenly, threshold_data
from worldfoundry.curation.rows import Row
from worldfoundry.curation.run import SourceRun
from worldfoundry.curation.select import conditions
from worldfoundry.curation.store import Store

if TYPE_CHECKING:
    from worldfoundry.curation.pipeline import CurateSummary

# The tables hold everything; the page says what of it is not shown. In base64, bytes become 4/3 as many.
MOST_CLIPS, MOST_ROWS, MOST_REJECTED = 120, 500, 200
MOST_PICTURE_BYTES = 3_000_000


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What a run leaves behind, and the page is made of. `clips` are all planned clips as they were selected."""

    store: Store
    config: CurateConfig
    graph: Graph
    clips: Sequence[Row]
    runs: Mapping[str, SourceRun]
    tables: dict[str, list[Row]]
    summary: "CurateSummary"


def write_report(done: Curated) -> Path:
    """Write the page whole or not at all; returns its path."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"clock": clock, "filename": filename, "plain": sections.plain, "counted": sections.counted}
    page = environment.get_template("page.html.j2").render(
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        script=Markup((here / "page.js").read_text(encoding="utf-8")),
        **_contents(done),
    )
    with atomic_path(done.store.report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return done.store.report


def _contents(done: Curated) -> dict[str, Any]:
    tables, summary = done.tables, done.summary
    show = Pictures(done.store, done.runs, MOST_PICTURE_BYTES)
    wanted = conditions(done.config, (*done.graph.scores, *done.graph.tags))
    # Rejected clips and near-duplicates first: their pictures are small, and are what there is to judge.
    reasons = sections.reasons(tables["rejected"], wanted, show)
    clusters, num_clusters = sections.clusters(tables, show)
    runs = tables["runs"]
    return {
        "summary": summary,
        "run": runs[-1],
        "runs_s": sum(run["wall_s"] for run in runs),
        "num_runs": len(runs),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "funnel": sections.funnel(tables, summary),
        "reasons": reasons,
        "clusters": clusters,
        "num_clusters": num_clusters,
        "copies": [row for row in tables["sources"] if row["duplicates"]][:MOST_ROWS],
        "thresholds": threshold_data(done.clips, done.runs, done.graph, done.config),
        "timelines": sections.timelines(tables),
        "num_videos": sum(not source["image"] for source in tables["sources"]),
        "clips": [{"clip": clip, "picture": show(clip)} for clip in evenly(tables["clips"], MOST_CLIPS)],
        "quarantine": tables["quarantine"][:MOST_ROWS],
        "num_quarantined": len(tables["quarantine"]),
        "rejected": evenly(tables["rejected"], MOST_REJECTED),
        "num_rejected": len(tables["rejected"]),
        "slowest": sections.slowest_files(tables),
        "buckets": sections.buckets(tables["clips"]),
        "stages": sections.stage_times(tables["events"]),
    }


def filename(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
