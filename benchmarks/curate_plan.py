"""A curation of many hours on paper: rows, bytes, CPU hours and wall time, from what a small run measured. Nothing here is run.

    python benchmarks/curate_plan.py --cost benchmarks/curate_cost.json --hours 1000 --nodes 4 --cores 32

CPU seconds per minute of video come from `curate_cost.json` (one thread, start-up left out). Stages that touch full-size pictures
are scaled by the pixels per second of the footage planned for; all others depend on frames and stay as measured. What one process
does alone (shards, tables) is bound by the storage and is counted by bytes. Every assumption is an option and is printed.
"""

import argparse
import json
from pathlib import Path

# Stages whose time grows with the pixels of the source; the others look at pictures of one fixed size, or at none.
BY_PIXELS = frozenset({"probe", "watch", "quality_samples", "border_samples", "text_samples", "embedding_samples", "encode"})


def plan(cost: dict, *, hours: float, megapixels_per_s: float, shot_s: float, file_min: float) -> dict:
    """Rows, bytes and CPU hours of `hours` of video, by the figures of a measured run (the "worldfoundry" part of the file)."""
    ours, minutes, size = cost["worldfoundry"], cost["minutes_of_video"], cost["worldfoundry"]["size"]
    scale, measured_s = megapixels_per_s / cost["megapixels_per_s"], 60 * minutes
    stages = {}
    for name, cpu_s in ours["stages_cpu_s"].items():
        stages[name] = cpu_s / measured_s * hours * (scale if name in BY_PIXELS else 1.0)
    sources, clips = hours * 60 / file_min, hours * 3600 / shot_s
    per_source = size["rows"]["events"] - size["rows"]["clips"]  # one event per stage and source, one per clip to encode it
    rows = {
        "sources": sources,
        "shots": clips,
        "clips": clips * size["clip_s"] / measured_s,
        "rejected": clips * (1 - size["clip_s"] / measured_s),
        "events": sources * per_source / size["rows"]["sources"] + clips,
    }
    return {
        "sources": round(sources),
        "cpu_hours": {name: round(value, 1) for name, value in stages.items()},
        "cpu_hours_total": round(sum(stages.values()), 1),
        "rows": {name: round(count) for name, count in rows.items()},
        "table_mb": {name: round(count * size["bytes_per_row"][name] / 1e6, 1) for name, count in rows.items()},
        "shard_gb": round(size["shard_bytes"] / measured_s * hours * 3.6e3 * scale / 1e9, 1),
        "work_gb": round(size["work_bytes"] / measured_s * hours * 3.6e3 / 1e9, 1),
        "work_files": round(sources * (per_source / size["rows"]["sources"] + 4) + 2 * clips),
    }


def wall(
    planned: dict, *, source_gb: float, nodes: int, cores: int, busy: float, node_mb_s: float, storage_mb_s: float
) -> dict:
    """Hours of each bound: the cores, the nodes' network, the shared storage, and what one process packs alone."""
    # Over the network: the source once or twice (to be hashed, and read back), clips once into the work folder.
    moved_gb = 2 * source_gb + planned["shard_gb"] + planned["work_gb"]
    hours = {
        "cores": planned["cpu_hours_total"] / (nodes * cores * busy),
        "network of the nodes": 1e3 * moved_gb / (nodes * node_mb_s) / 3600,
        "shared storage": 1e3 * moved_gb / storage_mb_s / 3600,
    }
    packing = 2e3 * planned["shard_gb"] / min(node_mb_s, storage_mb_s) / 3600  # every clip is read and written once more
    slowest = max(hours, key=lambda name: hours[name])
    return {
        "hours": {name: round(value, 2) for name, value in hours.items()},
        "packing_hours": round(packing, 2),
        "wall_hours": round(hours[slowest] + packing, 2),
        "bound_by": slowest,
    }


def printed(options: argparse.Namespace, planned: dict, times: dict) -> str:
    """Markdown."""
    total = planned["cpu_hours_total"]
    lines = [
        "| stage | CPU hours | share |",
        "|---|---|---|",
        *(
            f"| {name} | {value:,.1f} | {value / total:.1%} |"
            for name, value in sorted(planned["cpu_hours"].items(), key=_most)
        ),
        f"| **all** | **{total:,.1f}** | |",
        "",
        "| table | rows | at most |",
        "|---|---|---|",
        *(f"| {name} | {count:,} | {planned['table_mb'][name]:,.1f} MB |" for name, count in planned["rows"].items()),
        "",
        "| on disk | |",
        "|---|---|",
        f"| shards | {planned['shard_gb']:,.0f} GB, {1e3 * planned['shard_gb'] / options.shard_mb:,.0f} files of {options.shard_mb:g} MB |",
        f"| work folder without clips | {planned['work_gb']:,.0f} GB in {planned['work_files']:,} files |",
        "",
        f"| bound ({options.nodes} nodes x {options.cores} cores) | hours |",
        "|---|---|",
        *(f"| {name} | {value:,.2f} |" for name, value in times["hours"].items()),
        f"| then packing, one process | {times['packing_hours']:,.2f} |",
        f"| **wall time, bound by {times['bound_by']}** | **{times['wall_hours']:,.2f}** |",
    ]
    return "\n".join(lines)


def _most(item: tuple[str, float]) -> float:
    return -item[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cost", type=Path, required=True, help="what curate_cost.py wrote")
    parser.add_argument("--hours", type=float, default=1000.0, help="of video")
    parser.add_argument(
        "--megapixels-per-s", type=float, default=62.2, help="of the footage; 1920 x 1080 at 30 per second is 62.2"
    )
    parser.add_argument("--mbit-s", type=float, default=8.0, help="of the footage's files")
    parser.add_argument("--file-min", type=float, default=10.0, help="minutes per file")
    parser.add_argument("--shot-s", type=float, default=8.0, help="seconds per shot")
    parser.add_argument("--shard-mb", type=float, default=256.0)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cores", type=int, default=32, help="per node")
    parser.add_argument("--busy", type=float, default=0.8, help="share of the cores' time that stages get")
    parser.add_argument("--node-mb-s", type=float, default=1000.0, help="network of one node (1000 is 10 Gbit/s, nearly used)")
    parser.add_argument("--storage-mb-s", type=float, default=2000.0, help="the shared storage, all nodes together")
    options = parser.parse_args()
    planned = plan(
        json.loads(options.cost.read_text()),
        hours=options.hours,
        megapixels_per_s=options.megapixels_per_s,
        shot_s=options.shot_s,
        file_min=options.file_min,
    )
    times = wall(
        planned,
        source_gb=options.hours * 3600 * options.mbit_s / 8e3,
        nodes=options.nodes,
        cores=options.cores,
        busy=options.busy,
        node_mb_s=options.node_mb_s,
        storage_mb_s=options.storage_mb_s,
    )
    print(printed(options, planned, times))


if __name__ == "__main__":
    main()
