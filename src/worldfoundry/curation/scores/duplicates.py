"""Near-duplicates among the clips that everything else keeps: the worse of each pair is rejected as DUPLICATE, with the pair.

This looks at all clips at once, so it is no stage; what it compares was stored by the stages `signature` and `embedding`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from worldfoundry.curation.rows import Row
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.dedup import Candidate, Match, duplicates, perceptual_matches, semantic_matches
from worldfoundry.curation.scores.signature import signature_of_luma


class Stored(Protocol):
    """What is committed for a source."""

    @property
    def columns(self) -> Mapping[str, Any]: ...


def reject_duplicates(clips: list[Row], runs: Mapping[str, Stored], config: ScoreConfig) -> list[Row]:
    """The same clips; a kept one whose content another kept one has too is rejected, and says which, how it was found, how alike.

    Of two the one with more pixels stays, then the longer one. Images are left alone. Clips that were compared get `matches`:
    the pairs in which they come first.
    """
    places = {}
    for source_id in {clip["source_id"] for clip in clips if not clip["image"]}:
        for i, plan in enumerate(runs[source_id].columns["plans"]):
            places[plan.clip_id] = source_id, i
    live = [clip for clip in clips if clip["kept"] and not clip["image"]]

    def stored(column: str) -> dict[str, np.ndarray]:
        return {c["clip_id"]: runs[places[c["clip_id"]][0]].columns[column][places[c["clip_id"]][1]] for c in live}

    matches = perceptual_matches({name: signature_of_luma(luma) for name, luma in stored("signatures").items()})
    if config.dedup == "semantic" and len(live) > 1:
        vectors = stored("embeddings")
        matches += semantic_matches(list(vectors), np.stack(list(vectors.values())), threshold=config.same_cosine)
    sizes = [
        Candidate(
            clip_id=clip["clip_id"],
            pixels=clip["source_width"] * clip["source_height"],
            duration_s=clip["duration_s"],
        )
        for clip in live
    ]
    gone = duplicates(sizes, matches)
    firsts: dict[str, list[Match]] = {clip["clip_id"]: [] for clip in live}
    for pair in matches:
        firsts[pair.a].append(pair)
    made = []
    for clip in clips:
        if clip["clip_id"] in firsts:
            clip = {**clip, "matches": firsts[clip["clip_id"]]}
        match = gone.get(clip["clip_id"])
        if match is not None:
            about = {"duplicate_of": match.b, "duplicate_kind": match.kind, "duplicate_score": match.score}
            clip = {**clip, **about, "kept": False, "reasons": [*clip["reasons"], "DUPLICATE"]}
        made.append(clip)
    return made
