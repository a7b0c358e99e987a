"""What the scores asked for need, fetched and checked before the first file is opened, where a mistake costs nothing yet."""

import re
from collections.abc import Sequence
from pathlib import Path

from worldfoundry.core.errors import MissingExtraError, UsageError
from worldfoundry.core.model_store import get_model, is_fetched
from worldfoundry.core.progress import say
from worldfoundry.curation.scores.aesthetic import SUFFIX, read_head
from worldfoundry.curation.scores.captions import captioner
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.embedding import clip_embedder
from worldfoundry.curation.scores.plugin import load_plugin
from worldfoundry.curation.scores.text import TEXT_COLUMNS, finds_text
from worldfoundry.curation.scores.video_type import classifier


def settled(config: ScoreConfig, where: Sequence[str] = ()) -> ScoreConfig:
    """The same without `auto`, and one line on each thing that this machine lacks. `where` are the conditions on clips.

    Raises UsageError if a condition is to judge clips by a score that cannot be taken.
    """
    if config.text and not finds_text():
        _say_no_text(where)
    if config.embed_captions != "auto":
        return config
    there = bool(config.captions) and is_fetched("minilm")
    if config.captions and not there:
        say("Captions are not embedded: MiniLM is not in the cache (--scores.embed-captions on fetches it, 84 MB).")
    return config.replace(embed_captions="on" if there else "off")


def prepare(config: ScoreConfig) -> None:
    """Raises MissingExtraError, DownloadError, UsageError, CheckpointError or DataError, each with what to do."""
    if config.aesthetic.endswith(SUFFIX):
        read_head(Path(config.aesthetic))
    elif config.aesthetic:
        load_plugin(config.aesthetic)
    if config.niqe:
        get_model("niqe")
    if config.text and finds_text():
        from worldfoundry.perception.text_detector import load_text_detector

        load_text_detector(get_model("text-detector"))
    if config.embedder:
        clip_embedder(config.embedder)
        if config.taxonomy:
            classifier(config.taxonomy, config.embedder)
    if config.captions:
        captioner(config.captions)
    if config.embed_captions == "on":
        get_model("minilm")


def _say_no_text(where: Sequence[str]) -> None:
    missing = MissingExtraError("onnxruntime", "curate")
    names = [re.split("[^A-Za-z0-9_]", text.strip())[0] for text in where]
    asked = [text for text, name in zip(where, names, strict=True) if name in TEXT_COLUMNS]
    if asked:
        raise UsageError(f"--where {asked[0]!r} judges clips by text, which takes the package 'onnxruntime'.", missing.hint)
    say(f"No text is looked for, and {', '.join(TEXT_COLUMNS)} are null: it takes the package 'onnxruntime'. {missing.hint}")
