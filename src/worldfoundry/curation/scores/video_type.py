"""What kind of video a clip is, by the nearest labelled centroid of its embedding. The taxonomy is the user's, in one JSON file:

    {"embedder": "effnet-lite0", "labels": {"driving": [0.01, …], "kitchen": […]}}

`taxonomy_of` makes one from embeddings of clips that were labelled by hand. Or a classifier of the user's own, named as
`package.module:function`: it gets the embedding (float32 D) and returns a number per label, of which the largest wins.

Axis legend: N clips, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldfoundry.core.errors import DataError, UsageError
from worldfoundry.core.files import read_fields, write_json
from worldfoundry.curation.scores.embedding import unit
from worldfoundry.curation.scores.plugin import load_plugin, plugin_number

VIDEO_TYPE_COLUMNS = ("video_type", "video_type_similarity", "video_type_margin")


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Labels and a vector of length 1 for each, in the space of the embedder named."""

    embedder: str
    labels: tuple[str, ...]
    centroids_ND: np.ndarray

    def classify(self, embedding_D: np.ndarray) -> dict[str, Any]:
        """The nearest label, its cosine (-1 to 1), and by how much it beats the next (0 to 2)."""
        return _decided(self.labels, self.centroids_ND @ unit(embedding_D), least=-1.0)

    def save(self, path: Path) -> None:
        vectors = [[round(float(v), 6) for v in row] for row in self.centroids_ND]
        write_json(path, {"embedder": self.embedder, "labels": dict(zip(self.labels, vectors, strict=True))})


def taxonomy_of(embedder: str, embeddings: Sequence[np.ndarray], labels: Sequence[str]) -> Taxonomy:
    """Centroids of labelled embeddings, labels in alphabetical order."""
    names = tuple(sorted(set(labels)))
    groups = [[unit(e) for e, label in zip(embeddings, labels, strict=True) if label == name] for name in names]
    return Taxonomy(embedder=embedder, labels=names, centroids_ND=np.stack([unit(np.mean(group, 0)) for group in groups]))


def read_taxonomy(path: Path, embedder: str) -> Taxonomy:
    """Read a taxonomy. Raises DataError if it is none, or was made with another embedder than the one in use."""
    fields = read_fields(path)
    labels: Mapping[str, Sequence[float]] = fields.get("labels") or {}
    if not labels or len({len(vector) for vector in labels.values()}) != 1:
        raise DataError(f"{str(path)!r} is no taxonomy.", 'It wants {"embedder": …, "labels": {label: vector}}, equal lengths.')
    if fields.get("embedder") != embedder:
        raise DataError(
            f"The taxonomy {str(path)!r} was made with {fields.get('embedder')!r}, but clips are embedded with {embedder!r}.",
            "Make it anew with taxonomy_of, or embed with the other one.",
        )
    return Taxonomy(
        embedder=embedder, labels=tuple(labels), centroids_ND=np.stack([unit(np.array(v)) for v in labels.values()])
    )


def classifier(place: str, embedder: str) -> Callable[[np.ndarray], dict[str, Any]]:
    """Embedding → the columns of `VIDEO_TYPE_COLUMNS`, by a taxonomy's file or a function. Raises DataError, UsageError."""
    if ":" not in place or Path(place).is_file():
        return read_taxonomy(Path(place), embedder).classify
    function = load_plugin(place)

    def classify(embedding_D: np.ndarray) -> dict[str, Any]:
        said = function(embedding_D)
        if not isinstance(said, Mapping) or not said:
            raise UsageError(f"The plug-in {place!r} gave {said!r}.", "It returns a dictionary of a number per label.")
        values = np.array([plugin_number(place, value) for value in said.values()])
        return _decided([str(label) for label in said], values, least=0.0)

    return classify


def _decided(labels: Sequence[str], values_N: np.ndarray, *, least: float) -> dict[str, Any]:
    """The largest value, and its lead over the next; over `least` where there is no other."""
    best, *others = np.argsort(-values_N, kind="stable").tolist()
    margin = float(values_N[best] - (values_N[others[0]] if others else least))
    return {
        "video_type": labels[best],
        "video_type_similarity": round(float(values_N[best]), 4),
        "video_type_margin": round(margin, 4),
    }
