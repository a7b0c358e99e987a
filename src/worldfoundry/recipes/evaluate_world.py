"""A world's futures of held-out clips, domain by domain, against the truth and the controls: results.json and a report."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from worldfoundry.core.devices import hardware, pick_device, pick_dtype
from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.core.files import write_json
from worldfoundry.core.progress import say
from worldfoundry.data.clips import ClipDataset
from worldfoundry.evaluation.catalogue import choose_metrics
from worldfoundry.evaluation.compare import Evaluation, applicable_metrics, evaluate_predictions
from worldfoundry.evaluation.metrics import METRICS
from worldfoundry.evaluation.present import clip_rows, curve_charts, difference_table, horizon_table, summary_table
from worldfoundry.evaluation.report import Section, write_report
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.load import load
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.evaluate_world_config import EvaluateWorldConfig
from worldfoundry.recipes.futures import (
    CEILING,
    MODEL,
    SHUFFLED,
    ZERO,
    AnyWorld,
    Futures,
    predict,
    training_stacks,
    window_of,
)
from worldfoundry.recipes.released import shown_together
from worldfoundry.recipes.windows import Window, spread_windows

SHOWN = {CEILING: "tokenizer only", MODEL: "model", SHUFFLED: "other actions", ZERO: "zero actions"}
DRAWING = ("temperature", "top_p", "speculate")
OPTIONS = {"num_inference_steps": DiffusionWorld, **dict.fromkeys(DRAWING, AutoregressiveWorld)}
"""Options by the kind of world that has them."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One domain's futures and scores, and the seconds that its futures took to make."""

    name: str
    futures: Futures
    evaluation: Evaluation
    left_out: tuple[str, ...]
    others: tuple[str, ...]
    seconds: float


def evaluate_world(config: EvaluateWorldConfig) -> list[Domain]:
    """Score every domain, then write OUT/results.json, OUT/report.html and OUT/config.yaml.

    Raises UsageError for something that is not a world, for options that no world here has and for the dataset of a training,
    DataError for clips that are too short, of one source, or with other actions than the world takes.
    """
    world, others = read_worlds(config)
    checked = {name: check_dataset(world, ClipDataset(folder)) for name, folder in config.data.items()}
    for other, folder in product(others.values(), config.data.values()):
        check_dataset(other, ClipDataset(folder), actions=bool(world.config.action_names))
    windows = {name: held_out(world, folder, config.max_clips) for name, folder in config.data.items()}  # all, before any work
    domains = [_domain(config, world, others, name, clips, checked[name]) for name, clips in windows.items()]
    write_json(config.out / "results.json", {"world": config.world, "domains": {d.name: _facts(d) for d in domains}})
    config.save(config.out / "config.yaml")
    title = f"Futures by {Path(config.world).name}"
    write_report(config.out / "report.html", title, [s for d in domains for s in _sections(config, world.guardrails, d)])
    return domains


def read_worlds(config: EvaluateWorldConfig) -> tuple[AnyWorld, dict[str, AnyWorld]]:
    """The world and the others by name, with what was asked as their defaults. Raises UsageError for what does not fit them."""
    asked = {name: getattr(config, name) for name in ("device", "dtype", "num_prefix_frames", *OPTIONS)}
    world = read_world(config.world, **asked)
    if config.adapter is not None:
        if not isinstance(world, DiffusionWorld):
            raise UsageError(f"{config.world!r} takes no adapter: it is autoregressive.", "Leave --adapter out.")
        world.load_adapter(config.adapter)
    asked["num_prefix_frames"] = world.config.num_prefix_frames
    others = {name: read_world(name, **asked) for name in config.others}
    same_size(config.world, world, others)
    kinds = {type(other) for other in (world, *others.values())}
    for name, kind in OPTIONS.items():
        if getattr(config, name) is not None and kind not in kinds:
            raise UsageError(f"{config.world!r} has no {name}.", f"Leave --{name.replace('_', '-')} out.")
    named = {
        f"{name}, zero actions" if o.config.action_names and not world.config.action_names else name: o
        for name, o in others.items()
    }
    return world, named


def same_size(first: str, world: AnyWorld, others: Mapping[str, AnyWorld]) -> None:
    """Raises UsageError for a world that makes other frames than the first."""
    for name, other in others.items():
        if window_of(other) != window_of(world):
            size = other.config
            raise UsageError(
                f"{name!r} makes {size.num_frames} frames of {size.width}x{size.height}, which differs from {first!r}.",
                "Compare worlds of one size.",
            )


def read_world(name: str, *, device: str, dtype: str | None, **asked: Any) -> AnyWorld:
    """A world by name or folder, `NAME+DECODER` with a diffusion decoder, and of what is `asked` (None = nothing) what its kind has.

    Raises UsageError for anything but a world.
    """
    place, _, decoder = (name, "", "") if Path(name).is_dir() else name.partition("+")
    world = load(place, dtype=None if dtype is None else pick_dtype(dtype), device=pick_device(device))
    if not isinstance(world, AnyWorld):
        raise UsageError(f"{name!r} is not a world.", "Give the name of a shipped world or a world folder.")
    if decoder and not isinstance(world, AutoregressiveWorld):
        raise UsageError(
            f"{place!r} makes no tokens that {decoder!r} could draw.", "Give an autoregressive world, or leave it out."
        )
    fits = {option: value for option, value in asked.items() if isinstance(world, OPTIONS.get(option, AnyWorld))}
    fits["token_decoder"] = decoder or None
    set_defaults(world, **{option: value for option, value in fits.items() if value is not None})
    return world


def set_defaults(world: AnyWorld, **values: Any) -> None:
    """Let a world take these values where a request is silent."""
    if isinstance(world, DiffusionWorld):
        world.config = world.config.replace(**values)
    else:
        world.config = world.config.replace(**values)


def check_dataset(world: AnyWorld, dataset: ClipDataset, *, actions: bool = True) -> str:
    """What is known of whether the world was trained on a dataset; single scenes are not compared.

    Raises UsageError for the very dataset of its training, DataError (for `actions`) for one with others than the world takes.
    """
    taken, have, trained_on = tuple(world.config.action_names), dataset.action_names, world.provenance.get("data")
    if trained_on == dataset.hash():
        raise UsageError(
            f"The world was trained on the dataset {str(dataset.folder)!r}.",
            "Give clips of other scenes; --training takes this one, for the nearest training clip.",
        )
    if actions and taken and have and taken != have:
        raise DataError(
            f"The world takes the actions {'/'.join(taken)!r}, but the clips of {str(dataset.folder)!r} have {'/'.join(have)!r}.",
            "Give clips with the world's actions, or clips without.",
        )
    if trained_on is None:
        return "not checked: the world does not record what it was trained on"
    return "another dataset, by its hash, than the one that the world was trained on"


def held_out(world: AnyWorld, folder: Path, count: int) -> list[Window]:
    """Windows of the world's size spread over a clip dataset. Raises DataError where no clip is long enough."""
    dataset, window = ClipDataset(folder), window_of(world)
    long = [record for record in dataset.records if record.num_frames >= window.num_frames]
    if not long:
        raise DataError(f"None of the clips in {str(folder)!r} has {window.num_frames} frames.", "Curate longer videos.")
    return spread_windows(dataset, long, window, count)


def _domain(
    config: EvaluateWorldConfig, world: AnyWorld, others: dict[str, AnyWorld], name: str, windows: list[Window], checked: str
) -> Domain:
    say(f"── {name}: {len(windows)} clips")
    stacks = None
    if config.training is not None:
        known, window = ClipDataset(config.training), window_of(world)
        records = [record for record in known.records if record.num_frames >= window.num_frames]
        stacks = training_stacks(known, records, window, config.training_clips)
    start = time.monotonic()
    futures = predict(world, windows, seed=config.seed, training=stacks, check=False, others=others)
    seconds = time.monotonic() - start
    applicable = applicable_metrics(futures.truth)
    fit = {metric.name for metric in applicable}  # object positions only where the object is
    names = None if config.metrics is None else [n for n in config.metrics if n in fit or n not in METRICS]
    choice = choose_metrics(names, applicable=applicable, clips=len(windows), fetch=config.fetch)
    found = evaluate_predictions(
        futures.truth,
        futures.candidates,
        futures.prefix_frames,
        fps=windows[0].record.fps,
        horizons=config.horizons,
        metrics=choice.metrics,
        groups=futures.sources,
        resamples=config.resamples,
        seed=config.seed,
        protocol={"clips": checked, "seed": config.seed, **drawn(world), "others": {k: drawn(o) for k, o in others.items()}},
    )
    return Domain(name=name, futures=futures, evaluation=found, left_out=choice.left_out, others=tuple(others), seconds=seconds)


def drawn(world: AnyWorld) -> dict[str, Any]:
    """How a world makes a video, as far as that changes it."""
    if isinstance(world, DiffusionWorld):
        return {"steps": world.config.num_inference_steps}
    return {name: getattr(world.config, name) for name in ("temperature", "top_p", "top_k", "token_decoder")}


def _facts(domain: Domain) -> dict[str, Any]:
    facts = {"seconds": round(domain.seconds, 1), "hardware": hardware(), "left_out": list(domain.left_out)}
    return {**domain.evaluation.to_dict(), **facts}


def _sections(config: EvaluateWorldConfig, guardrails: Guardrails, domain: Domain) -> list[Section]:
    futures, found = domain.futures, domain.evaluation
    page: list[Section] = []
    if config.show:
        labels = {**SHOWN, **{name: name for name in domain.others}}
        stacks = {label: futures.candidates[name] for name, label in labels.items() if name in futures.candidates}
        spread = [round(i * (len(futures.windows) - 1) / max(config.show - 1, 1)) for i in range(config.show)]
        fps, stacks = found.setting["fps"], {"truth": futures.truth, **stacks}
        picks, stacks = shown_together(guardrails, stacks, sorted(set(spread)), fps)
        clips = clip_rows(
            stacks.pop("truth"),
            stacks,
            prefix_frames=futures.prefix_frames,
            fps=fps,
            names=[futures.windows[i].name[:20] for i in picks],
            show=config.show,
            title=f"{domain.name}: clips and their futures",
        )
        hidden = len(set(spread)) - len(picks)
        page.append(replace(clips, note=clips.note + (f" {hidden} more were stopped by a guard." if hidden else "")))
    page += [summary_table(found, strong=[MODEL]), difference_table(found, strong=[MODEL])]
    page += [horizon_table(found, "psnr_moving", strong=[MODEL]), *curve_charts(found, ["psnr_moving"])]
    return page


def lines(domains: list[Domain]) -> list[str]:
    """What a person at the terminal wants to know: per domain, moving pixels of the model and of every control."""
    out = []
    for domain in domains:
        rows = [domain.evaluation.row("psnr_moving", name).result for name in domain.evaluation.candidates]
        names = domain.evaluation.candidates
        scores = ", ".join(f"{name} {row.value:.2f}" for name, row in zip(names, rows, strict=True))
        out.append(f"{domain.name} ({rows[0].n} clips), dB on moving pixels: {scores}")
    return out
