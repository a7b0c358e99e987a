"""What the scores asked for need, fetched and checked before the first file is opened, where a mistake costs nothing yet."""

from pathlib import Path

from worldfoundry.core.model_store import get_model
from worldfoundry.curation.scores.captions import captioner
from worldfoundry.curation.scores.config import ScoreConfig
from worldfoundry.curation.scores.embedding import clip_embedder
from worldfoundry.curation.scores.plugin import load_plugin
from worldfoundry.curation.scores.video_type import read_taxonomy


def prepare(config: ScoreConfig) -> None:
    """Raises MissingExtraError, DownloadError, UsageError, CheckpointError or DataError, each with what to do."""
    if config.aesthetic:
        load_plugin(config.aesthetic)
    if config.niqe:
        get_model("niqe")
    if config.text:
        from worldfoundry.perception.text_detector import load_text_detector

        load_text_detector(get_model("text-detector"))
    if config.embedder:
        clip_embedder(config.embedder)
        if config.taxonomy:
            read_taxonomy(Path(config.taxonomy), config.embedder)
    if config.captions:
        captioner(config.captions)
        if config.embed_captions:
            get_model("minilm")
