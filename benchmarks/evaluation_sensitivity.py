"""Do the metrics see damage, and more of it when there is more? Known damage at four strengths on the sample footage.

    python benchmarks/evaluation_sensitivity.py [--clips 24]

Needs the packaged weights in the cache. Writes benchmarks/evaluation_sensitivity.json and docs/results/evaluation_sensitivity.svg.
Axis legend: N clips, T frames, H height, W width, C = 3 (RGB). Clips are uint8.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from worldfoundry.core.files import atomic_path, write_json
from worldfoundry.core.video_io import read_video
from worldfoundry.data import sample
from worldfoundry.evaluation.catalogue import PACKAGED, choose_metrics
from worldfoundry.evaluation.charts import COLOURS, Series, line_chart
from worldfoundry.evaluation.compare import applicable_metrics, evaluate_predictions

ROOT = Path(__file__).parents[1]
FRAMES, PREFIX = 33, 5
STYLE = """svg{font-family:system-ui,sans-serif}text{fill:#626b76;font-size:13px}.head{font-size:16px;font-weight:600;fill:#1d2126}
.grid{stroke:#e3e5e8}.axis,.tick{stroke:#626b76}.series polyline{fill:none;stroke:var(--c);stroke-width:2.2}.series circle{fill:var(--c)}"""
PALETTE = ("#0b7a82", "#d9662b", "#6b4fbb", "#3d8b37", "#c03a6b", "#8a6d1d", "#3b74c9", "#7a7f87")


def noise(clips, sigma, rng):
    """Independent Gaussian noise, `sigma` of 255 levels."""
    return to_bytes(clips + sigma * rng.standard_normal(clips.shape, dtype=np.float32))


def blur(clips, sigma, rng):
    """Gaussian blur, `sigma` in pixels."""
    reach = int(np.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).view(1, 1, -1)
    x = torch.from_numpy(clips).float().permute(0, 1, 4, 2, 3)
    for _ in range(2):  # along one axis, then the other
        flat = F.pad(x.flatten(0, 3)[:, None], (reach, reach), mode="replicate")
        x = F.conv1d(flat, taps).view(x.shape).transpose(3, 4)
    return to_bytes(x.permute(0, 1, 3, 4, 2).numpy())


def warp(clips, pixels, rng):
    """A smooth displacement, fixed in time, of `pixels` root mean square."""
    n, t, h, w, _ = clips.shape
    coarse = torch.from_numpy(rng.standard_normal((n, 2, 4, 4), dtype=np.float32))
    shift = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True)
    shift = shift / shift.square().mean((1, 2, 3), keepdim=True).sqrt() * pixels
    scale = torch.tensor([2 / w, 2 / h]).view(1, 2, 1, 1)
    grid = F.affine_grid(torch.eye(2, 3).repeat(n, 1, 1), (n, 3, h, w), align_corners=False) + (shift * scale).permute(
        0, 2, 3, 1
    )
    x = torch.from_numpy(clips).float().permute(0, 1, 4, 2, 3).flatten(0, 1)
    grid = grid.repeat_interleave(t, 0)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return to_bytes(moved.view(n, t, 3, h, w).permute(0, 1, 3, 4, 2).numpy())


def freeze(clips, share, rng):
    """The last `share` of the future shows the frame before it."""
    start = PREFIX + round((1 - share) * (clips.shape[1] - PREFIX))
    made = clips.copy()
    made[:, start:] = made[:, start - 1 : start]
    return made


def shuffle(clips, frames, rng):
    """Frames in random order within spans of `frames`."""
    made = clips.copy()
    for clip in made:
        for start in range(PREFIX, clips.shape[1], frames):
            span = np.arange(start, min(start + frames, clips.shape[1]))
            clip[span] = clip[rng.permutation(span)]
    return made


def flicker(clips, levels, rng):
    """Each frame brighter or darker by a random amount, `levels` of 255 root mean square."""
    return to_bytes(clips + levels * rng.standard_normal((*clips.shape[:2], 1, 1, 1), dtype=np.float32))


DAMAGE = {
    "noise": (noise, (2, 5, 12, 30), "levels"),
    "blur": (blur, (0.5, 1, 2, 4), "px"),
    "warp": (warp, (0.5, 1, 2, 4), "px"),
    "freeze": (freeze, (0.25, 0.5, 0.75, 1.0), "of the future"),
    "shuffle": (shuffle, (2, 4, 8, 28), "frames"),
    "flicker": (flicker, (2, 5, 12, 30), "levels"),
}


def to_bytes(x):
    return np.clip(np.round(x), 0, 255).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    count = parser.parse_args().clips
    started, cpu = time.perf_counter(), time.process_time()
    paths = sorted((Path(sample.__file__).parent / "sample_footage").glob("episode_*.mp4"))[:count]
    truth = np.stack([read_video(path, max_frames=FRAMES).frames for path in paths])
    keep = np.s_[:, :PREFIX]
    candidates = {"truth": truth}
    for name, (function, strengths, _) in DAMAGE.items():
        for strength in strengths:
            # One seed for all strengths: more of the same damage, not other damage. The prefix stays as it was given.
            made = function(truth, strength, np.random.default_rng(0))
            made[keep] = truth[keep]
            candidates[f"{name} {strength:g}"] = made
    weightless = [m for m in applicable_metrics(truth) if m.name != "psnr_per_frame"]
    packaged = [name for name in PACKAGED if not name.startswith("FD")]
    metrics = [*weightless, *choose_metrics(packaged, applicable=[], clips=len(truth)).metrics]
    found = evaluate_predictions(truth, candidates, PREFIX, metrics=metrics, horizons=1, resamples=500)
    table = {metric.name: curves(found, metric) for metric in metrics}
    result = {
        "what": "score against damage of growing strength; monotone = each step strictly worse than the one before",
        "clips": len(truth),
        "frames": FRAMES,
        "prefix_frames": PREFIX,
        "size": list(truth.shape[2:4]),
        "footage": "sample footage, the first episodes",
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - started, 1),
        "metrics": table,
    }
    write_json(ROOT / "benchmarks" / "evaluation_sensitivity.json", result)
    with atomic_path(ROOT / "docs" / "results" / "evaluation_sensitivity.svg") as temporary:
        temporary.write_text(figure(table, metrics), encoding="utf-8")
    for name, by_damage in table.items():
        print(f"{name:28}" + "  ".join(f"{d} {'yes' if c['monotone'] else 'NO'}" for d, c in by_damage["damage"].items()))


def curves(found, metric):
    """Per damage: value, interval at each strength, and whether each is worse than the one before."""
    sign = 1 if metric.better == "lower" else -1
    by_damage = {}
    for name, (_, strengths, unit) in DAMAGE.items():
        rows = [found.row(metric.name, f"{name} {strength:g}").result for strength in strengths]
        values = [found.value(metric.name, "truth"), *(row.value for row in rows)]
        by_damage[name] = {
            "strength": list(strengths),
            "unit": unit,
            "value": [row.value for row in rows],
            "low": [row.low for row in rows],
            "high": [row.high for row in rows],
            "monotone": bool((np.diff(np.array(values) * sign) > 0).all()),
        }
    row = found.row(metric.name, "truth")
    floor = None if np.isnan(row.floor) else row.floor
    return {"label": metric.label, "unit": metric.unit, "better": metric.better, "truth": row.result.value, "real_against_real": floor,
            "protocol": row.result.protocol, "damage": by_damage}  # fmt: skip


def figure(table, metrics):
    """One panel per metric, one line per damage, in our own charts."""
    panels, width, height, columns = [], 480, 350, 3
    for i, metric in enumerate(metrics):
        damage = table[metric.name]["damage"]
        series = [Series(label=name, x=[1, 2, 3, 4], y=one["value"]) for name, one in damage.items()]
        log = all(v > 0 for one in damage.values() for v in one["value"]) and metric.better == "lower"
        svg = line_chart(series, x_label="strength", y_label=metric.unit, log_y=log, width=440)
        x, y = 20 + i % columns * width, 60 + i // columns * height
        panels.append(f'<text class="head" x="{x + 20}" y="{y - 4}">{metric.label} ({metric.better} is better)</text>')
        panels.append(svg.replace("<svg ", f'<svg x="{x}" y="{y}" width="440" height="300" ', 1))
    rows = -(-len(metrics) // columns)
    names = "".join(
        f'<rect x="{20 + i * 130}" y="14" width="18" height="4" fill="{PALETTE[i]}"/><text x="{44 + i * 130}" y="21">{name}</text>'
        for i, name in enumerate(DAMAGE)
    )
    colours = "svg{" + "".join(f"--series-{i}:{PALETTE[i]};" for i in range(COLOURS)) + "}"
    size = f"0 0 {columns * width + 20} {60 + rows * height}"
    body = "\n".join(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" role="img"><title>Scores against damage</title>'
        f"<style>{STYLE}{colours}</style>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>{names}\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
