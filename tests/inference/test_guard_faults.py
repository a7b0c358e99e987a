"""Fault injection at every door: whatever goes wrong with a guard, nothing leaves, and nothing is on the disk."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.cli.main import main
from worldfoundry.core.contracts import Verdict
from worldfoundry.core.errors import BlockedError, CheckpointError, GuardError, GuardUnavailable
from worldfoundry.core.video_io import write_video
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

DOORS = {
    "text": ("prompt", "upsample"),
    "frames": ("generate", "stream", "ar-generate", "batch", "preview", "quickstart", "page"),
}
QUIET = ("preview", "quickstart", "page")  # which go on without what was stopped
FAULTS = ("raises", "leaves", "hangs", "none", "garbage", "other name", "no weights", "unsafe", "skipped", "bad evidence")


class Faulty:
    """A guard of text or frames, or a transform, with one fault; `after` items it was content with."""

    def __init__(self, fault, takes, release, after=0):
        self.name, self.takes, self.fault, self.left, self.released = "faulty", takes, fault, after, release

    def prepare(self):
        if self.fault == "no weights" and not self.left:
            raise CheckpointError("The weights of 'faulty' are not here.", "Run `worldfoundry models get faulty`.")

    def check(self, item):
        self.left -= 1
        return Verdict(status="safe", guard=self.name) if self.left >= 0 else self._fail()

    def apply(self, item):
        self.left -= 1
        if self.left >= 0:
            return item.frames, Verdict(status="safe", guard=self.name)
        said = self._fail()
        return said if self.fault in ("none", "garbage") else (item.frames, said)

    def _fail(self):
        if self.fault == "raises":
            raise RuntimeError("upside down")
        if self.fault == "leaves":
            raise SystemExit(0)
        if self.fault == "hangs":
            self.released.wait(30)
        return {
            "none": None,
            "garbage": {"status": "safe"},
            "other name": Verdict(status="safe", guard="somebody else"),
            "bad evidence": Verdict(status="safe", guard=self.name, evidence=None),
            "unsafe": Verdict(status="unsafe", guard=self.name, reason="no"),
            "skipped": Verdict(status="skipped", guard=self.name, reason="not today"),
        }.get(self.fault, Verdict(status="safe", guard=self.name))


class Content:
    """A guard that finds everything safe."""

    def __init__(self, takes):
        self.name, self.takes = "content", takes

    def check(self, item):
        return Verdict(status="safe", guard=self.name)


@pytest.fixture
def released():
    """Lets the threads of guards that hang go when the test is over."""
    import threading

    event = threading.Event()
    yield event
    event.set()


def guardrails(kind, fault, released, after=0):
    """Content guards and, in the place of `kind`, a faulty one."""
    faulty = Faulty(fault, kind, released, after)
    sets = {"text": [Content("text")], "video": [Content("video")], "transform": []}
    sets[kind] = [*sets[kind], faulty]
    policy = GuardPolicy(timeout_s=0.2 if fault == "hangs" else 600)  # however busy the machine is
    return Guardrails(policy, sets["text"], sets["video"], sets["transform"])


def through(door, world, ar_world, folder, frames):
    """Go out by a door; what is handed out is collected in `.got`."""
    got = []
    if door == "generate":
        got.append(world.generate(input=frames).save(folder / "d.mp4"))
    elif door == "prompt":
        got.append(world.generate(prompt="a cube"))
    elif door == "ar-generate":
        got.append(ar_world.generate(input=frames).save(folder / "a.mp4"))
    elif door == "stream":
        for piece in ar_world.stream(input=frames):
            got.append(piece)
    elif door == "batch":
        from worldfoundry.inference.batch import Line, run_batch

        code = run_batch([Line(1, "one", {})], folder, lambda fields, path: ({}, lambda: world.generate(input=frames)))
        if code:
            raise {3: BlockedError, 4: GuardUnavailable}[code]("blocked")
    elif door == "preview":
        from worldfoundry.inference.preview import save_previews

        callback = save_previews(world, folder / "out.mp4", 1)
        world.sample(world.resolve(num_inference_steps=2), [None], None, callback_on_step_end=callback)
    elif door == "upsample":
        from worldfoundry.inference.upsampling import tell

        upsampler = SimpleNamespace(name="longer", upsample=lambda prompt, seed: prompt + " and more")
        got.append(tell(("a cube",), upsampler, world.guardrails, seed=0))
    elif door == "quickstart":
        from worldfoundry.recipes.futures import MODEL
        from worldfoundry.recipes.quickstart import save_futures

        window = SimpleNamespace(name="w", record=SimpleNamespace(source_id="s"))
        futures = SimpleNamespace(windows=[window], candidates={MODEL: frames[None]}, requests=[world.resolve()])
        got += save_futures(futures, SimpleNamespace(world=world), folder)
    else:
        from worldfoundry.recipes.released import shown

        got += [clip for clip in shown(world.guardrails, frames[None], 12.0) if clip is not None]
    return got


@pytest.fixture(scope="module")
def worlds(make_world):
    """A diffusion and an autoregressive world with random weights."""
    torch.manual_seed(0)
    tokens = named_config("debug").replace(latent_channels=2, levels=(5, 3), statistics_frames=1)
    network = TransformerConfig(
        vocab_size=15, dim=12, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 4, 4),
        max_seq_len=64,
    )  # fmt: skip
    defaults = AutoregressiveDefaults(num_frames=9, height=32, width=32, fps=5, num_prefix_frames=5, text_encoder="none")
    tokenizer = build_tokenizer(tokens.to_dict()).eval().requires_grad_(False)
    return make_world(), AutoregressiveWorld(Transformer(network).eval().requires_grad_(False), tokenizer, defaults)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["video", "transform", "text"])
def test_nothing_leaves_by_any_door(kind, fault, worlds, released, tmp_path, make_frames, capsys):
    for door in DOORS["text" if kind == "text" else "frames"]:
        for world in worlds:
            world.guardrails = guardrails(kind, fault, released)
        folder, got = tmp_path / door, []
        folder.mkdir()
        if door in QUIET:
            got = through(door, *worlds, folder, make_frames(5))
        else:
            with pytest.raises(BlockedError if fault == "unsafe" else GuardUnavailable):
                through(door, *worlds, folder, make_frames(5))
        assert not got, door
        assert not list(folder.rglob("*")), door
    capsys.readouterr()


@pytest.mark.parametrize("fault", ["raises", "unsafe", "garbage", "hangs"])
@pytest.mark.parametrize("kind", ["video", "transform"])
def test_a_stream_ends_where_a_guard_fails(kind, fault, worlds, released, make_frames):
    """The input and the first piece were looked at and handed out; nothing after the fault is."""
    ar_world = worlds[1]
    ar_world.guardrails = guardrails(kind, fault, released, after=2 if kind == "video" else 1)
    got, stream = [], iter(ar_world.stream(input=make_frames(5)))
    with pytest.raises(GuardError):
        got += stream
    assert next(stream, None) is None


@pytest.mark.parametrize("fault", ["raises", "garbage", "hangs", "no weights", "other name"])
def test_the_guard_verb_says_unchecked(fault, released, tmp_path, monkeypatch, capsys):
    clip = write_video(tmp_path / "a.mp4", np.full((4, 32, 32, 3), 90, np.uint8), 12)
    for kind, argv in (("text", ["text", "a cube"]), ("video", ["video", str(clip)]), ("transform", ["video", str(clip)])):
        made = guardrails(kind, fault, released)
        monkeypatch.setattr(Guardrails, "from_policy", lambda policy, made=made: made)
        assert main(["guard", *argv, "--json"]) == 4
        assert "faulty" in {v["guard"] for v in json.loads(capsys.readouterr().out) if v["status"] == "error"}


def test_a_policy_comes_with_load(tmp_path, make_world):
    import worldfoundry as wf
    from worldfoundry.inference.world_folder import save_world

    folder = save_world(tmp_path / "world", make_world(), provenance={}, card="# card\n")
    assert wf.load(folder).guardrails.policy == GuardPolicy()
    world = wf.load(folder, policy=wf.GuardPolicy.off("a test"))
    clip = world.generate()
    assert clip.config["guards"] == "off: a test"
    assert clip.config["coverage"]["effective"] == {"policy": {"skipped": len(clip.verdicts)}}
