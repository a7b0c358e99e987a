"""Prompts on their way to a world with random weights: when they are detailed, who looks at them, what is recorded."""

import json

import pytest
import torch

from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.conditioning.upsampler_smollm2 import EmbeddedChat
from worldfoundry.core.errors import BlockedError, DownloadError, GuardUnavailable, UsageError, WorldFoundryError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.upsampling import tell, wants_upsampling
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

UNSAFE = "a graphic beheading of a person"


class Toy:
    """Adds words to a prompt."""

    name = "toy"

    def __init__(self, words=" in soft light"):
        self.words, self.asked = words, []

    def upsample(self, prompt, *, seed):
        self.asked.append((prompt, seed))
        if isinstance(self.words, Exception):
            raise self.words
        return prompt + self.words if isinstance(self.words, str) else self.words


def make_world(text_encoder, upsampler):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(named_config("debug").to_dict()).eval().requires_grad_(False)
    network = DiT(DiTConfig(
        in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, crossattn_emb_channels=16, adaln_lora_dim=4,
        max_frames=8, max_h=16, max_w=16, condition_mask=True,
    )).eval().requires_grad_(False)  # fmt: skip
    defaults = WorldDefaults(
        num_frames=5, height=32, width=32, fps=12, num_prefix_frames=1, num_inference_steps=2, guidance_scale=0.0,
        context_rows=3, text_encoder=text_encoder,
    )  # fmt: skip
    world = DiffusionWorld(network, tokenizer, SchedulerConfig(), defaults, encoder=NullTextEncoder(16, 3))
    assert isinstance(world.upsampler.model, EmbeddedChat)
    world.upsampler = upsampler
    return world


def guards(action="block"):
    return Guardrails.from_policy(GuardPolicy(action=action, reason="" if action == "block" else "test"))


def test_auto_is_on_for_published_worlds_that_start_from_text():
    nano, published = WorldDefaults(text_encoder="minilm"), WorldDefaults(text_encoder="t5")
    for asked, defaults, frames_given, wanted in [
        (None, nano, False, False), (None, published, False, True), (None, published, True, False),
        (True, nano, True, True), (False, published, False, False),
    ]:  # fmt: skip
        assert wants_upsampling(asked, ["a cube"], defaults, frames_given=frames_given) is wanted
    assert not wants_upsampling(None, [""], published, frames_given=False)
    with pytest.raises(UsageError, match="no prompt to upsample"):
        wants_upsampling(True, [""], nano, frames_given=False)


def test_the_prompt_used_and_the_one_written_are_recorded(tmp_path, capsys):
    upsampler = Toy()
    world = make_world("t5", upsampler)
    clip = world.generate("a cube falls", seed=4)
    assert upsampler.asked == [("a cube falls", 4)]
    clip.save(tmp_path / "a.mp4")
    kept = json.loads((tmp_path / "a.json").read_text())["config"]
    assert (kept["prompt"], kept["original_prompt"], kept["upsampler"]) == ("a cube falls in soft light", "a cube falls", "toy")
    assert "upsampled prompt: a cube falls in soft light" in capsys.readouterr().err
    plain = world.generate("a cube falls", seed=4, upsample_prompt=False)
    assert (plain.config["prompt"], plain.config["upsampler"]) == ("a cube falls", None)
    assert len(clip.verdicts) == len(plain.verdicts) + 1


def test_every_prompt_of_a_sequence_is_detailed():
    told = tell(["a cube", "", "a ball"], Toy(), guards(), seed=0)
    assert told.prompts == ("a cube in soft light", "", "a ball in soft light")
    assert told.record["original_prompt"] == ["a cube", "", "a ball"]


def test_what_is_written_is_guarded_before_the_upsampler_sees_it():
    upsampler = Toy()
    with pytest.raises(BlockedError):
        make_world("t5", upsampler).generate(UNSAFE)
    assert not upsampler.asked


def test_what_the_upsampler_makes_is_guarded():
    with pytest.raises(BlockedError, match="not what the upsampler 'toy' made of it") as caught:
        tell(["a cube"], Toy(f", {UNSAFE}"), guards(), seed=0)
    assert caught.value.verdicts
    with pytest.raises(GuardUnavailable):
        tell(["a cube"], Toy(), Guardrails(GuardPolicy(), (), ()), seed=0)
    assert tell(["a cube"], Toy(f", {UNSAFE}"), guards("off"), seed=0).verdicts[0].status == "skipped"


@pytest.mark.parametrize("words", [DownloadError("the server is gone"), None, 3])
def test_an_upsampler_that_fails_stops_everything(words):
    with pytest.raises(WorldFoundryError) as caught:
        make_world("t5", Toy(words)).generate("a cube falls")
    assert "\n" not in str(caught.value)


def test_an_answer_that_is_the_prompt_needs_no_second_look():
    assert tell(["a cube"], Toy(""), guards(), seed=0).verdicts == ()
