"""Measure tokenizers by what they give back, beside what a user could store the clips with in as little.

Every frame is scored, the first too (nothing is given, unlike in prediction). Each tokenizer is paired, on the same resamples of
the clips' sources, with H.264 at its bits (or the first baseline asked for), and each baseline with its tokenizer.

Axis legend: N clips, T frames, H height, W width, C = 3 (RGB).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldfoundry.core.devices import hardware, pick_device, pick_dtype
from worldfoundry.core.errors import DataError, MediaError, UsageError, did_you_mean
from worldfoundry.core.files import check_writable, write_json
from worldfoundry.core.progress import progress, say
from worldfoundry.core.provenance import machine
from worldfoundry.core.shipped import model_place
from worldfoundry.data.resize import fit
from worldfoundry.evaluation.bootstrap import ClipSums, paired_difference, resampling_weights, source_indices
from worldfoundry.evaluation.catalogue import AnyMetric, choose_metrics
from worldfoundry.evaluation.compare import ALL, Row
from worldfoundry.evaluation.distributions import DistributionMetric
from worldfoundry.evaluation.metrics import METRICS, VideoMetric, protocol_hash, reference_id, result
from worldfoundry.evaluation.results import FORMAT, row_to_dict
from worldfoundry.inference.token_sources import sources
from worldfoundry.recipes.codec_peers import Coded, bicubic, h264, jpeg
from worldfoundry.recipes.evaluate_tokenizer_config import Baseline, EvaluateTokenizerConfig
from worldfoundry.recipes.tokenizer_peers import Peer, Reconstruction, load_ours, load_peer, our_name, reconstruct

PIXEL_METRICS = ("psnr", "ssim", "psnr_per_frame")
STILL_FPS = 24.0
# baseline → (its name in the table, the call, what of a reconstruction is its budget)
BASELINES: dict[Baseline, tuple[str, Callable[[np.ndarray, float], Coded], str]] = {
    "bicubic": ("Bicubic down-up, values of", bicubic, "values"),
    "jpeg": ("JPEG, bits of", jpeg, "bits"),
    "h264": ("H.264, bits of", h264, "bits"),
}


@dataclass(frozen=True, kw_only=True)
class TrueClips:
    """Clips of one length and size: uint8 (N, T, H, W, 3), the source of each, and what was left out."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    frames: np.ndarray
    fps: float
    note: str


@dataclass(kw_only=True)
class Candidate:
    """One row of the table while it is measured: sums and features per clip, facts, pictures of the first clips."""

    name: str
    facts: dict[str, Any]
    partner: str = ""
    sums: dict[str, list[ClipSums]] = field(default_factory=dict)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)
    shown: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TokenizerTable:
    """Everything found: `rows` as in other evaluations, `facts` per candidate, and the clips to look at."""

    rows: tuple[Row, ...]
    metrics: tuple[AnyMetric, ...]
    candidates: tuple[Candidate, ...]
    clips: TrueClips
    setting: Mapping[str, Any]
    left_out: tuple[str, ...]

    def row(self, metric: str, candidate: str) -> Row:
        return next(row for row in self.rows if (row.result.name, row.candidate) == (metric, candidate))

    def save(self, path: Path) -> None:
        """Write results.json, whole or not at all."""
        facts = {candidate.name: candidate.facts for candidate in self.candidates}
        rows = [row_to_dict(row) for row in self.rows]
        write_json(path, {"format": FORMAT, **self.setting, "candidates": list(facts), "facts": facts, "rows": rows})


def evaluate_tokenizer(config: EvaluateTokenizerConfig) -> TokenizerTable:
    """Read the clips, put every tokenizer and its baselines through them, score. Raises UsageError for input that does not fit."""
    if not config.tokenizer and not config.peer:
        raise UsageError("No tokenizer was given.", "Add --tokenizer NAME or --peer FOLDER.")
    _check_tokenizers(config.tokenizer)
    check_writable(config.out / "results.json")
    device, dtype = pick_device(config.device), pick_dtype(config.dtype)
    clips = read_clips(config)
    choice = _metrics(config, len(clips.names))
    candidates: dict[str, Candidate] = {}
    twins: dict[tuple[str, float], str] = {}
    loaders = [partial(load_ours, one) for one in config.tokenizer] + [partial(load_peer, one) for one in config.peer]
    for load in loaders:
        peer = load(device, dtype)
        if peer.name in candidates:
            raise UsageError(f"Two tokenizers are called {peer.name!r}.", "Rename a folder.")
        for candidate in _measure(peer, clips, choice.metrics, config, device, twins):
            candidates[candidate.name] = candidate
    return _table(config, clips, choice.metrics, list(candidates.values()), choice.left_out, device)


def _check_tokenizers(given: Sequence[str]) -> None:
    """Whether all are there and called differently, before the first is measured."""
    names = [our_name(one) for one in given]
    for one, name in zip(given, names, strict=True):
        if names.count(name) > 1:
            raise UsageError(f"Two tokenizers are called {name!r}.", "Rename a folder.")
        model_place(one)


def read_clips(config: EvaluateTokenizerConfig) -> TrueClips:
    """The first frames of evenly chosen clips, scaled and cropped. Raises DataError if none is long enough."""
    everything = sources(config.clips)
    is_dataset = (config.clips / "tables").is_dir()
    kept, short, broken, rates = [], 0, 0, []
    chosen = np.unique(np.linspace(0, len(everything) - 1, min(config.max_clips, len(everything))).round().astype(int))
    with progress("read clips", len(chosen), "clips") as bar:
        for clip in (everything[i] for i in chosen):
            bar.advance()
            try:
                frames = clip.read()
                first = list(islice(frames, config.num_frames))
            except MediaError as error:
                broken += 1
                say(f"skipped: {error.message}")
                continue
            if len(first) < config.num_frames:
                short += 1
                continue
            source = clip.source if is_dataset else clip.key.partition(".")[0]
            kept.append((clip.key, source, _scaled(np.stack(first), config.short_side)))
            rates.append(frames.fps)
    if not kept:
        raise DataError(
            f"None of the {len(chosen)} clips of {str(config.clips)!r} has {config.num_frames} frames.",
            "Use fewer --num-frames.",
        )
    height, width = config.crop or np.min([frames.shape[1:3] for *_, frames in kept], axis=0).tolist()
    notes = [f"{len(chosen)} of {len(everything)} clips are taken, evenly"] if len(chosen) < len(everything) else []
    notes += [f"{short} have fewer than {config.num_frames} frames and are left out"] if short else []
    notes += [f"{broken} cannot be read"] if broken else []
    return TrueClips(
        names=tuple(key for key, *_ in kept),
        sources=tuple(source for _, source, _ in kept),
        frames=np.stack([_cropped(key, frames, height, width) for key, _, frames in kept]),
        fps=float(rates[0]) or STILL_FPS,
        note="; ".join(notes),
    )


def _scaled(frames: np.ndarray, short_side: int | None) -> np.ndarray:
    if short_side is None:
        return frames
    scale = short_side / min(frames.shape[1:3])
    return fit(frames, round(frames.shape[1] * scale), round(frames.shape[2] * scale))


def _cropped(name: str, frames: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    if min(top, left) < 0:
        raise DataError(
            f"The clip {name!r} is {frames.shape[2]}x{frames.shape[1]} pixels, smaller than the crop {width}x{height}.",
            "Use a smaller --crop, or scale up with --short-side.",
        )
    return frames[:, top : top + height, left : left + width]


def _metrics(config: EvaluateTokenizerConfig, clips: int) -> Any:
    """PSNR, SSIM and packaged distances. Raises UsageError for metrics of the future of moving things."""
    for name in config.metrics or ():
        if name in METRICS and name not in PIXEL_METRICS:
            hint = did_you_mean(name, list(PIXEL_METRICS))
            raise UsageError(f"The metric {name!r} is about predictions, not reconstructions.", hint)
    applicable = [METRICS[name] for name in PIXEL_METRICS[:2]]
    return choose_metrics(config.metrics, applicable=applicable, clips=clips, fetch=config.fetch)


def _measure(
    peer: Peer,
    clips: TrueClips,
    metrics: Sequence[AnyMetric],
    config: EvaluateTokenizerConfig,
    device: torch.device,
    twins: dict[tuple[str, float], str],
) -> list[Candidate]:
    """The tokenizer's row and those of its baselines. `twins` remembers baselines by budget: one stands for all that share it."""
    mine, found = Candidate(name=peer.name, facts={}), []
    others: dict[Baseline, tuple[Candidate, list[Coded]]] = {}
    reconstruct(peer, clips.frames[0], device)  # warm up
    with progress(peer.name, len(clips.frames), "clips") as bar:
        for i, frames in enumerate(clips.frames):
            made = reconstruct(peer, frames, device)
            found.append(made)
            _score(mine, metrics, frames, made.frames, keep=i < config.show)
            for kind in config.baselines:
                label, code, budget = BASELINES[kind]
                spend = float(getattr(made, budget))
                if i == 0:
                    name = twins.setdefault((kind, spend), f"{label} {peer.name}")
                    if name == f"{label} {peer.name}":
                        others[kind] = Candidate(name=name, facts={}, partner=peer.name), []
                    mine.partner = name if kind == "h264" or not mine.partner else mine.partner
                if kind in others:
                    coded = code(frames, spend)
                    others[kind][1].append(coded)
                    _score(others[kind][0], metrics, frames, coded.frames, keep=i < config.show)
            bar.advance()
    mine.facts = _facts(peer, found, clips.frames[0].shape)
    for kind, (candidate, coded) in others.items():
        candidate.facts = _baseline_facts(kind, coded, found, clips.frames[0].shape)
    return [mine, *(candidate for candidate, _ in others.values())]


def _score(candidate: Candidate, metrics: Sequence[AnyMetric], true: np.ndarray, made: np.ndarray, *, keep: bool) -> None:
    for metric in metrics:
        if isinstance(metric, DistributionMetric):
            candidate.features.setdefault(metric.name, []).append(metric.extractor(made[None]))
        else:
            candidate.sums.setdefault(metric.name, []).append(metric.sums(true[None], made[None], 0).clips())
    if keep:
        candidate.shown.append(made)


def _facts(peer: Peer, found: list[Reconstruction], shape: tuple[int, ...]) -> dict[str, Any]:
    frames, pixels = shape[0], int(np.prod(shape[:3]))
    codes = [one.codes for one in found if one.codes is not None]
    return {
        "kind": "discrete" if peer.codebook else "continuous",
        "compression": "x".join(map(str, peer.rule)),
        "channels": peer.channels,
        "codebook": peer.codebook or None,
        "dtype": peer.dtype,
        "parameters": peer.parameters,
        "values_per_clip": found[0].values,
        "bits_per_pixel": found[0].bits / pixels,
        "ratio_to_rgb": 24 * pixels / found[0].bits,
        "encode_ms_per_frame": 1e3 * float(np.median([one.encode_s for one in found])) / frames,
        "decode_ms_per_frame": 1e3 * float(np.median([one.decode_s for one in found])) / frames,
        **(code_usage(codes, peer.codebook) if codes else {}),
    }


def _baseline_facts(kind: Baseline, coded: list[Coded], found: list[Reconstruction], shape: tuple[int, ...]) -> dict[str, Any]:
    """What was really spent. Values of pictures are 8-bit; the budget of `bicubic` is their number."""
    pixels, over = int(np.prod(shape[:3])), [one for one in coded if one.over]
    spent, budget = np.mean([one.spent for one in coded]), np.mean([getattr(made, BASELINES[kind][2]) for made in found])
    bits = 8 * spent if kind == "bicubic" else spent
    facts: dict[str, Any] = {"kind": kind, "bits_per_pixel": bits / pixels, "ratio_to_rgb": 24 * pixels / bits}
    facts |= {"budget": float(budget), "spent": float(spent), "spent_of_budget": float(spent / budget)}
    if over:
        facts["note"] = (
            f"cannot go that low on {len(over)} of {len(coded)} clips: it spends {spent / budget:.3g} times the budget"
        )
    return facts


def code_usage(codes: Sequence[np.ndarray], codebook: int) -> dict[str, float]:
    """Share of the codebook that occurs, and exp(entropy) of the histogram: as many codes used evenly carry as much."""
    counts = np.bincount(np.concatenate([one.ravel() for one in codes]).astype(np.int64), minlength=codebook)
    shares = counts[counts > 0] / counts.sum()
    return {
        "codes_used": float((counts > 0).mean()),
        "code_perplexity": float(np.exp(-(shares * np.log(shares)).sum())),
        "codes_seen": int(counts.sum()),
    }


def _table(
    config: EvaluateTokenizerConfig,
    clips: TrueClips,
    metrics: Sequence[AnyMetric],
    candidates: list[Candidate],
    left_out: tuple[str, ...],
    device: torch.device,
) -> TokenizerTable:
    source_N = source_indices(clips.sources, len(clips.sources))
    count = int(source_N.max()) + 1
    weights_RG = resampling_weights(count, config.resamples, config.seed)
    setting = {
        "what": "reconstruction",
        "clips": len(clips.names),
        "sources": count,
        "frames": clips.frames.shape[1],
        "height": clips.frames.shape[2],
        "width": clips.frames.shape[3],
        "fps": clips.fps,
        "device": str(device),
        "hardware": machine(hardware()),
        "interval": f"95 % percentile bootstrap over {count} sources, {config.resamples} resamples, seed {config.seed}",
        "note": clips.note,
    }
    rows: list[Row] = []
    identity = reference_id(clips.frames)
    for metric in metrics:
        hashed = protocol_hash(metric, identity, 0, (0, clips.frames.shape[1]), {"what": "reconstruction"})
        if isinstance(metric, DistributionMetric):
            rows += _set_rows(metric, clips, candidates, source_N, weights_RG, hashed, config.seed)
        else:
            rows += _rows(metric, candidates, source_N, weights_RG, hashed)
    return TokenizerTable(
        rows=tuple(rows),
        metrics=tuple(metrics),
        candidates=tuple(candidates),
        clips=clips,
        setting=setting,
        left_out=left_out,
    )


def _rows(
    metric: VideoMetric, candidates: list[Candidate], source_N: np.ndarray, weights_RG: np.ndarray, hashed: str
) -> list[Row]:
    sums = {one.name: _joined(one.sums[metric.name]) for one in candidates}
    rows = []
    for one in candidates:
        mine, other = sums[one.name].by_source(source_N), sums[one.partner or one.name].by_source(source_N)
        scored = result(metric, sums[one.name], source_N, weights_RG, hashed, one.facts.get("note", ""))
        rows.append(_row(one, scored, paired_difference(mine, other, weights_RG)))
    return rows


def _set_rows(
    metric: DistributionMetric,
    clips: TrueClips,
    candidates: list[Candidate],
    source_N: np.ndarray,
    weights_RG: np.ndarray,
    hashed: str,
    seed: int,
) -> list[Row]:
    true = np.concatenate([metric.extractor(frames[None]) for frames in clips.frames])
    made = {one.name: np.concatenate(one.features[metric.name]) for one in candidates}
    found = {name: metric.estimate(true, features, source_N, weights_RG) for name, features in made.items()}
    floor = metric.floor(true, source_N, seed)
    return [
        _row(
            one,
            metric.result(found[one.name], source_N, hashed, one.facts.get("note", "")),
            found[one.name].minus(found[one.partner or one.name]),
            floor,
        )
        for one in candidates
    ]


def _row(one: Candidate, scored: Any, difference: tuple[float, float, float], floor: float = float("nan")) -> Row:
    value, low, high = difference
    return Row(
        candidate=one.name,
        horizon=ALL,
        result=scored,
        baseline=one.partner or one.name,
        difference=value,
        difference_low=low,
        difference_high=high,
        floor=floor,
    )


def _joined(parts: Sequence[ClipSums]) -> ClipSums:
    return ClipSums(
        total_N=np.concatenate([part.total_N for part in parts]),
        count_N=np.concatenate([part.count_N for part in parts]),
        decibel=parts[0].decibel,
    )
