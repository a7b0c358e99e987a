"""`worldfoundry train tokenizer | diffusion | student | autoregressive | medusa | decoder`."""

from worldfoundry.core.progress import say
from worldfoundry.recipes.config import TrainDiffusionConfig, TrainTokenizerConfig
from worldfoundry.recipes.train_autoregressive_config import TrainAutoregressiveConfig
from worldfoundry.recipes.train_decoder_config import TrainDecoderConfig
from worldfoundry.recipes.train_medusa_config import TrainMedusaConfig
from worldfoundry.recipes.train_student_config import TrainStudentConfig


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


def run_student(config: TrainStudentConfig) -> int:
    from worldfoundry.recipes.train_student import train_student

    done = train_student(config)
    scores = done.facts["metrics"]
    say(
        f"student in {done.folder}: {scores['student_to_teacher']:g} from its teacher's samples, where the teacher in as few steps is "
        f"{scores['few_to_teacher']:g}"
    )
    say(f"next: worldfoundry generate --world {config.world} --adapter {done.folder} --input FIRST.png --out out.mp4")
    return 0


def run_autoregressive(config: TrainAutoregressiveConfig) -> int:
    from worldfoundry.recipes.train_autoregressive import train_autoregressive

    done = train_autoregressive(config)
    say(
        f"world in {done.folder}: held-out {done.metrics['held_out_nll']:g} nats a token (knowing nothing: "
        f"{done.metrics['uniform_nll']:g}), {100 * done.metrics['held_out_accuracy']:.1f} % right (copying the frame before: "
        f"{100 * done.metrics['copy_accuracy']:.1f} %)"
    )
    say(f"next: worldfoundry train medusa {config.data} --world {done.folder} --tokens {config.out / 'tokens'} --out HEADS_RUN")
    return 0


def run_medusa(config: TrainMedusaConfig) -> int:
    from worldfoundry.recipes.train_medusa import train_medusa

    done = train_medusa(config)
    say(f"world with heads in {done.folder}: {done.metrics['confirmed']:.2f} guesses confirmed per pass on held-out clips")
    say(f"next: worldfoundry generate --world {done.folder} --input FIRST.png --out out.mp4")
    return 0


def run_decoder(config: TrainDecoderConfig) -> int:
    from worldfoundry.recipes.train_decoder import train_decoder

    done = train_decoder(config)
    say(f"diffusion decoder in {done.folder} after {done.facts['steps']} steps, loss {done.facts['final_loss']:g}")
    say(f"next, in Python: wf.load({str(done.folder)!r}).decode(tokens, fps=12, generators=[torch.Generator().manual_seed(0)])")
    return 0


SUBCOMMANDS = {
    "tokenizer": (TrainTokenizerConfig, run_tokenizer, "a video tokenizer, on a folder that `curate` wrote"),
    "diffusion": (TrainDiffusionConfig, run_diffusion, "a world model, in the latent space of a tokenizer"),
    "autoregressive": (TrainAutoregressiveConfig, run_autoregressive, "a world model, on the tokens of a discrete tokenizer"),
    "decoder": (TrainDecoderConfig, run_decoder, "a diffusion decoder: a world that draws what discrete tokens stand for"),
    "medusa": (TrainMedusaConfig, run_medusa, "heads with which an autoregressive world makes several tokens at a time"),
    "student": (TrainStudentConfig, run_student, "an adapter with which a world samples in 1 to 4 steps"),
}
