"""`worldfoundry train tokenizer | diffusion`."""

from worldfoundry.core.progress import say
from worldfoundry.recipes.config import TrainDiffusionConfig, TrainTokenizerConfig


def run_tokenizer(config: TrainTokenizerConfig) -> int:
    from worldfoundry.recipes.train_tokenizer import train_tokenizer

    done = train_tokenizer(config)
    say(f"tokenizer in {done.folder}: held-out PSNR {done.metrics['held_out_psnr_db']} dB")
    say(f"next: worldfoundry train diffusion {config.data} --tokenizer {done.folder} --out WORLD_RUN")
    return 0


def run_diffusion(config: TrainDiffusionConfig) -> int:
    from worldfoundry.recipes.train_diffusion import train_diffusion

    done = train_diffusion(config)
    say(f"world in {done.folder} after {done.facts['steps']} steps")
    say(f"next: worldfoundry generate --world {done.folder} --input FIRST.png --out out.mp4")
    return 0


SUBCOMMANDS = {
    "tokenizer": (TrainTokenizerConfig, run_tokenizer, "a video tokenizer, on a folder that `curate` wrote"),
    "diffusion": (TrainDiffusionConfig, run_diffusion, "a world model, in the latent space of a tokenizer"),
}
