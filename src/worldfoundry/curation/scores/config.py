"""What can be chosen about scores. Imports nothing but the config base, so that `--help` stays quick."""

from typing import Literal, Self

from pydantic import Field, model_validator

from worldfoundry.core.config import Config


class ScoreConfig(Config):
    """Which scores are taken of every clip beyond motion, quality and borders, which need nothing but the package itself."""

    measure: bool = True
    """Take motion, camera, quality and border scores of every clip (about 60 ms of one core per second of 1080p)."""
    every_s: float = Field(default=2.0, gt=0)
    """Seconds from one frame looked at in full size to the next."""
    niqe: bool = False
    """Score how unnatural frames look by NIQE (fetches 2 MB once)."""
    text: bool = False
    """Find text in frames (needs worldfoundry[curate], without it null; fetches 27 MB once; about 50 ms of a core per second)."""
    aesthetic: str = ""
    """A function of your own, package.module:function, from a list of frames (uint8 HWC) to a number, or a linear head over
    embeddings, FILE.safetensors."""
    embedder: str = ""
    """Embed clips: effnet-lite0 (fetches 17 MB once), or a folder of transformers with an image or video network."""
    taxonomy: str = ""
    """Name each clip's type: a JSON file with a vector per label in the embedder's space, or package.module:function from an
    embedding to a number per label."""
    dedup: Literal["off", "perceptual", "semantic"] = "off"
    """Reject near-duplicates: those with the same pictures in time, or also (semantic) those whose embeddings are alike."""
    same_cosine: float = Field(default=0.985, gt=0, le=1)
    """Embeddings with at least this cosine show the same."""
    captions: str = ""
    """Caption kept clips: measured (words for the scores), http://…/v1 (a server with OpenAI's interface), or a transformers folder."""
    window_s: float = Field(default=5.0, gt=0)
    """Length of the windows that get a caption each."""
    embed_captions: Literal["auto", "on", "off"] = "auto"
    """Embed captions by MiniLM: auto does if captions are made and MiniLM is in the cache, on fetches its 84 MB once."""

    @model_validator(mode="after")
    def _embedder_where_needed(self) -> Self:
        head = self.aesthetic.endswith(".safetensors")
        wants = (("taxonomy", self.taxonomy), ("dedup semantic", self.dedup == "semantic"), ("a head of aesthetic", head))
        needs = [name for name, wanted in wants if wanted]
        if needs and not self.embedder:
            raise ValueError(f"{needs[0]} looks at embeddings, but embedder is empty; effnet-lite0 is one")
        return self
