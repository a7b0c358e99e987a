"""Which metrics there are by name, which weights each needs, and which of them this machine can run now.

A name without brackets is a definition that others share. `LPIPS`, `FID` and `FVD` are such names: they exist only with the
published files, which a user gives; what packaged networks give has the network's name in brackets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worldfoundry.core.errors import DownloadError, UsageError, did_you_mean
from worldfoundry.core.model_store import get_model, is_fetched
from worldfoundry.core.model_table import MODELS
from worldfoundry.evaluation.distributions import ENOUGH, DistributionMetric, FrechetDistance, KernelDistance
from worldfoundry.evaluation.features import ClipFeatures, FeatureExtractor, FrameFeatures
from worldfoundry.evaluation.metrics import METRICS, VideoMetric
from worldfoundry.evaluation.perceptual import Perceptual

AnyMetric = VideoMetric | DistributionMetric
HED_NAME = "LPIPS-like[hed-vgg16]"


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A metric on packaged weights. `models` are names of the model store; `build` takes their folders."""

    models: tuple[str, ...]
    build: Callable[..., AnyMetric]


def _perceptual(trunk: Path, heads: Path) -> Perceptual:
    from worldfoundry.perception.lpips import load_hed_perceptual

    return Perceptual(load_hed_perceptual(trunk, heads), name=HED_NAME, tier="packaged")


def effnet_features(folder: Path) -> FrameFeatures:
    """Frames through EfficientNet-lite0, at the size that it was trained on."""
    from worldfoundry.perception.effnet_lite0 import SIZE, load_effnet_lite0

    net = load_effnet_lite0(folder)
    return FrameFeatures(name="effnet-lite0", network=net, describe=net.features, size=SIZE)


def transnet_features(folder: Path) -> ClipFeatures:
    """Clips through TransNet V2's three stages."""
    from worldfoundry.perception.transnet_v2 import HEIGHT, WIDTH, load_transnet_v2

    net = load_transnet_v2(folder)
    return ClipFeatures(name="transnetv2", network=net, describe=net.features, height=HEIGHT, width=WIDTH)


def _distance(
    kind: Callable[[FeatureExtractor], DistributionMetric], features: Callable[[Path], FeatureExtractor]
) -> Callable[[Path], DistributionMetric]:
    return lambda folder: kind(features(folder))


PACKAGED: dict[str, Packaged] = {
    HED_NAME: Packaged(models=("hed-vgg16", "lpips-heads"), build=_perceptual),
    "KD[effnet-lite0]": Packaged(models=("effnet-lite0",), build=_distance(KernelDistance, effnet_features)),
    "FD[effnet-lite0]": Packaged(models=("effnet-lite0",), build=_distance(FrechetDistance, effnet_features)),
    "KD[transnetv2]": Packaged(models=("transnetv2",), build=_distance(KernelDistance, transnet_features)),
    "FD[transnetv2]": Packaged(models=("transnetv2",), build=_distance(FrechetDistance, transnet_features)),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Metrics to run, and one line for each that was left out: why, and how to get it."""

    metrics: tuple[AnyMetric, ...]
    left_out: tuple[str, ...] = ()


def known_names(reference_files: Mapping[str, Path] | None = None) -> list[str]:
    """Every name that `choose_metrics` takes, given the user's reference files."""
    from worldfoundry.evaluation.reference import REFERENCE

    return [*METRICS, *PACKAGED, *(name for name, entry in REFERENCE.items() if entry.file in (reference_files or {}))]


def choose_metrics(
    names: Sequence[str] | None,
    *,
    applicable: Sequence[VideoMetric],
    clips: int,
    fetch: bool = False,
    reference_files: Mapping[str, Path] | None = None,
) -> Choice:
    """The metrics of these names in this order; None = all that fit.

    The default set is every applicable metric without weights, the packaged ones whose weights are in the cache (with `fetch`,
    all of them), and those of the given reference files; of `KD` and `FD` on one network the one that suits the number of clips.
    Raises UsageError for an unknown name, or fewer clips than a named metric needs; DownloadError, CheckpointError for weights.
    """
    files = dict(reference_files or {})
    if names is not None:
        wanted = check_names(names, files)
        return Choice(metrics=tuple(_build(name, files, fetch=fetch) for name in wanted))
    chosen: list[AnyMetric] = list(applicable)
    left_out = []
    for name, entry in PACKAGED.items():
        if reason := _not_now(name, clips):
            left_out += [reason] if not name.startswith("FD") else []
        elif fetch or all(map(is_fetched, entry.models)):
            chosen.append(_build(name, files, fetch=fetch))
        else:
            missing = [model for model in entry.models if not is_fetched(model)]
            size = sum(MODELS[model].size_mb for model in missing)
            left_out.append(f"{name}: needs {' and '.join(missing)} ({size:g} MB); add --fetch to get what is missing")
    chosen += [_build(name, files, fetch=fetch) for name in known_names(files)[len(METRICS) + len(PACKAGED) :]]
    return Choice(metrics=tuple(chosen), left_out=tuple(left_out))


def check_names(names: Sequence[str], reference_files: Mapping[str, Path] | None = None) -> list[str]:
    """The names in full, each once. Raises UsageError for one that is unknown or whose file was not given."""
    return list(dict.fromkeys(_named(name, reference_files or {}) for name in names))


def _not_now(name: str, clips: int) -> str:
    """Why a packaged metric is not in the default set of so many clips; empty if it is."""
    if name.startswith(("KD", "FD")) and clips < 2:
        return f"{name}: compares sets of clips, and there is one"
    if name.startswith("FD") and clips < ENOUGH:
        return f"{name}: biased below {ENOUGH} clips"
    return f"{name}: from {ENOUGH} clips FD is reported" if name.startswith("KD") and clips >= ENOUGH else ""


def _named(name: str, files: Mapping[str, Path]) -> str:
    """The exact name, however it is capitalised. Raises UsageError with suggestions."""
    from worldfoundry.evaluation.reference import REFERENCE

    known = known_names(files)
    found = {one.lower(): one for one in known}.get(name.lower())
    if found:
        return found
    entry = next((entry for one, entry in REFERENCE.items() if one.lower() == name.lower()), None)
    if entry is not None:
        like = f" Without the file there is {entry.instead!r}." if entry.instead else ""
        raise UsageError(f"{name.upper()} needs {entry.what}.", f"Give it with {entry.flag} FILE.{like}")
    raise UsageError(f"Unknown metric {name!r}.", did_you_mean(name, known))


def _build(name: str, files: Mapping[str, Path], *, fetch: bool) -> AnyMetric:
    from worldfoundry.evaluation.reference import REFERENCE

    if name in METRICS:
        return METRICS[name]
    if name in PACKAGED:
        entry = PACKAGED[name]
        return entry.build(*(_folder(name, model, fetch) for model in entry.models))
    return REFERENCE[name].build(files[REFERENCE[name].file])


def _folder(name: str, model: str, fetch: bool) -> Path:
    try:
        return get_model(model, download=fetch)
    except DownloadError as error:
        if fetch:
            raise
        raise UsageError(
            f"{name} needs the model {model!r}, which is not in the cache.",
            f"Add --fetch, or run: worldfoundry models get {model}",
        ) from error
