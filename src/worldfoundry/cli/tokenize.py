"""`worldfoundry tokenize`: videos to latents or tokens, and back."""

from pathlib import Path

import tyro

from worldfoundry.core.config import Config


class TokenizeConfig(Config):
    """Encode a video, an image or a folder of them with a tokenizer; with --decode, the way back to mp4."""

    input: tyro.conf.Positional[Path]
    """A file or a folder."""
    tokenizer: Path
    """A tokenizer checkpoint folder (the `vae` folder of a world is one)."""
    out: Path
    """Folder for the results."""
    decode: bool = False
    """Read safetensors files and write mp4, instead of the other way."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps."""
    dtype: str | None = None
    """float32, bfloat16 or float16; None keeps the stored one."""


def run(config: TokenizeConfig) -> int:
    import worldfoundry as wf
    from worldfoundry.core.errors import UsageError
    from worldfoundry.core.progress import say
    from worldfoundry.inference.tokens import detokenize, tokenize

    tokenizer = wf.load(config.tokenizer, dtype=config.dtype, device=config.device)
    if not hasattr(tokenizer, "spec"):
        raise UsageError(f"{str(config.tokenizer)!r} is no tokenizer.", "Give a tokenizer folder, such as WORLD/vae.")
    if config.decode:
        written = detokenize(config.input, tokenizer, config.out)
    else:
        written = tokenize(config.input, tokenizer, config.out, name=str(config.tokenizer))
    say(f"wrote {len(written)} files to {config.out}")
    return 0


CONFIG = TokenizeConfig
