"""`worldfoundry tokenize`: videos to latents or tokens, and back."""

from pathlib import Path

import tyro
from pydantic import Field

from worldfoundry.core.config import Config


class TokenizeConfig(Config):
    """Encode a video, an image, a folder of them or a clip dataset into shards; with --decode, the way back to mp4.

    The same command goes on where it was interrupted.
    """

    input: tyro.conf.Positional[Path]
    """A file, a folder of files (captions in NAME.txt beside them), or a folder that `worldfoundry curate` wrote."""
    tokenizer: str
    """Name of a shipped tokenizer or a checkpoint folder (the `vae` folder of a world is one)."""
    out: Path
    """Folder for the results."""
    decode: bool = False
    """Read a folder of shards (or one shard of it) and write mp4, instead of the other way."""
    text: bool = False
    """Also store text embeddings of the captions (MiniLM, fetched on first use)."""
    context_rows: int = Field(default=64, ge=2, le=512)
    """Rows that a text embedding is padded to when it is used; longer captions are cut."""
    shard_mb: float = Field(default=64.0, gt=0)
    """Megabytes of a shard: what an interruption loses at most."""
    force: bool = False
    """Decode although another tokenizer made the latents (for a decoder trained on the same latents)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""


def run(config: TokenizeConfig) -> int:
    from worldfoundry.conditioning.text import text_encoder
    from worldfoundry.core.devices import pick_device, pick_dtype
    from worldfoundry.core.progress import say
    from worldfoundry.inference.load import load_tokenizer
    from worldfoundry.inference.tokens import detokenize, tokenize, tokenizer_identity

    device, dtype = pick_device(config.device), pick_dtype(config.dtype)
    tokenizer = load_tokenizer(config.tokenizer)
    made_by = tokenizer_identity(tokenizer)  # before the cast, so that latents of either dtype know it
    tokenizer = tokenizer.to(device=device, dtype=dtype or tokenizer.dtype)
    if config.decode:
        written = detokenize(config.input, tokenizer, config.out, made_by=made_by, force=config.force)
        say(f"wrote {len(written)} videos to {config.out}")
        return 0
    encoder = text_encoder("minilm", config.context_rows) if config.text else None
    done = tokenize(config.input, tokenizer, config.out, made_by=made_by, encoder=encoder, shard_mb=config.shard_mb)
    there = f", {done.found} were there" if done.found else ""
    failed = f", {len(done.failed)} could not be read (manifest.json says why)" if done.failed else ""
    say(f"encoded {done.made} clips into {config.out}{there}{failed}; {done.shards} shards in all")
    return 0


CONFIG = TokenizeConfig
