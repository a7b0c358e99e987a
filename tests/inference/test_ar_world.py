"""An autoregressive world with random weights: the request is honoured to the letter, whatever the weights are."""

import json

import numpy as np
import pytest
import torch

import worldfoundry as wf
from worldfoundry.autoregressive.config import TransformerConfig
from worldfoundry.autoregressive.decoding import Tally
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.contracts import Verdict, World
from worldfoundry.core.errors import BlockedError, CheckpointError, ConfigError, GuardUnavailable, UsageError
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails
from worldfoundry.inference.ar_config import AutoregressiveDefaults
from worldfoundry.inference.ar_folder import save_ar_world
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config

TOKENIZER = named_config("debug").replace(latent_channels=2, levels=(5, 3), statistics_frames=1)
NETWORK = TransformerConfig(
    vocab_size=15, dim=12, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=6, ffn_hidden_size=16, latent_shape=(3, 4, 4),
    max_seq_len=64, medusa_heads=3,
)  # fmt: skip
DEFAULTS = AutoregressiveDefaults(
    num_frames=9, height=32, width=32, fps=5,  # so few that random weights cannot flash
     num_prefix_frames=5, top_p=1.0, text_encoder="none"
)  # fmt: skip


class Words:
    """Stands in for a text encoder: a row per word, of its length."""

    name, width, max_length = "words", 4, 6

    def encode(self, prompts):
        rows = torch.zeros(len(prompts), 6, 4)
        for i, prompt in enumerate(prompts):
            for j, word in enumerate(prompt.split()):
                rows[i, j] = torch.tensor([len(word), 1.0, ord(word[0]) % 7, -1.0])
        return rows


def tiny(network=NETWORK, defaults=DEFAULTS, **options):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TOKENIZER.to_dict()).eval().requires_grad_(False)
    transformer = Transformer(network).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.6)
    policy = GuardPolicy(timeout_s=600)  # however busy the machine is
    return AutoregressiveWorld(transformer, tokenizer, defaults, policy=policy, **options)


@pytest.fixture(scope="module")
def world():
    return tiny()


@pytest.fixture(scope="module")
def text_world():
    network = NETWORK.replace(bov=True, abs_pos_emb=True, context_dim=4)
    return tiny(network, DEFAULTS.replace(text_encoder="minilm", context_rows=6), encoder=Words())


@pytest.fixture(scope="module")
def frames(make_frames):
    return make_frames(5)


# -- the request ----------------------------------------------------------------------------------------------------


def test_it_is_a_world(world):
    generate: World = world  # by the type checker; below, by what a world is called with
    assert generate.generate(None, np.zeros((1, 32, 32, 3), np.uint8), num_frames=5).frames.shape == (5, 32, 32, 3)


def test_shape_fps_and_the_users_own_pixels(world, frames):
    clip = world.generate(input=frames, num_frames=7, seed=3)  # rounded up to 9 and cropped
    assert (clip.frames.shape, clip.frames.dtype, clip.fps, clip.seed) == ((7, 32, 32, 3), np.uint8, 5, 3)
    assert np.array_equal(clip.frames[:5], frames)


def test_a_shorter_video_is_the_beginning_of_a_longer_one(world, frames):
    long, short = (world.generate(input=frames, num_frames=n).frames for n in (9, 7))
    assert np.array_equal(long[:7], short)


def test_without_keep_input_the_prefix_is_its_reconstruction(world, frames):
    clip = world.generate(input=frames, keep_input=False)
    x = torch.from_numpy(frames.copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    want = world.tokenizer.decode(world.tokenizer.encode(x))[0].clamp(-1, 1).add(1).mul(127.5).round().movedim(0, -1)
    assert np.abs(clip.frames[:5].astype(int) - want.numpy().astype(int)).max() <= 1


@pytest.mark.parametrize(("given", "conditioning"), [(1, 1), (3, 1), (5, 5)])
def test_of_the_given_frames_the_last_whole_latent_frames_condition(world, frames, given, conditioning):
    clip = world.generate(input=frames[:given])
    assert np.array_equal(clip.frames[:conditioning], frames[given - conditioning : given])


def test_an_image_of_another_size_is_one_frame(world, make_frames, tmp_path):
    from PIL import Image

    Image.fromarray(make_frames(1, 40, 56)[0]).save(tmp_path / "first.png")
    clip = world.generate(input=tmp_path / "first.png")
    assert clip.frames.shape == (9, 32, 32, 3)
    assert clip.config["input"].endswith("first.png")


def test_a_video_is_its_tokens_decoded(world, frames):
    """Nothing but the tokens decides the pixels: the callback's tokens, decoded at once, are the video."""
    seen = []
    clip = world.generate(input=frames, keep_input=False, callback_on_step_end=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(0, 1)]
    x = torch.from_numpy(frames.copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    tokens = torch.cat([world.tokenizer.encode_indices(x).long(), seen[0][2]], dim=1)
    want = world.tokenizer.decode_indices(tokens)[0].clamp(-1, 1).add(1).mul(127.5).round().movedim(0, -1)
    assert np.abs(clip.frames.astype(int) - want.numpy().astype(int)).max() <= 1


def test_same_seed_same_video_other_seed_other_video(world, frames):
    one, two, three = (world.generate(input=frames, seed=s).frames for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_the_record_makes_the_same_video_again(world, frames):
    clip = world.generate(input=frames, seed=5, temperature=0.7, top_p=0.9, top_k=7, speculate="copy")
    record = json.loads(json.dumps(clip.config))
    assert (record["temperature"], record["top_k"], record["speculate"], record["decoding"]["tokens"]) == (0.7, 7, "copy", 16)
    names = ("seed", "temperature", "top_p", "top_k", "speculate", "num_frames", "num_prefix_frames", "keep_input", "fps")
    assert np.array_equal(world.generate(input=frames, **{name: record[name] for name in names}).frames, clip.frames)


@pytest.mark.parametrize("speculate", ["medusa", "copy"])
@pytest.mark.parametrize("num_frames", [9, 25])
def test_speculation_never_changes_the_video(world, frames, speculate, num_frames):
    plain = world.generate(input=frames, num_frames=num_frames)
    fast = world.generate(input=frames, num_frames=num_frames, speculate=speculate)
    assert np.array_equal(plain.frames, fast.frames)
    assert plain.config["decoding"]["guessed"] == 0 < fast.config["decoding"]["guessed"]


def test_a_batch_is_its_samples(world, make_frames):
    request, prefixes = world.resolve(seed=7), [make_frames(5, seed=s) for s in (1, 2)]
    together = world.sample(request, prefixes)
    for i, prefix in enumerate(prefixes):
        alone = world.sample(request.replace(seed=7 + i), [prefix])[0]
        assert np.abs(alone.astype(int) - together[i].astype(int)).max() <= 1


# -- beyond the context ---------------------------------------------------------------------------------------------


def test_a_long_video_goes_on_from_its_last_latent_frames(world, frames):
    """The third new latent frame is what the network continues the two before it with, in a context that they begin."""
    seen, tally = [], Tally()
    request = world.resolve(num_frames=21, temperature=0.0)  # 6 latent frames: 2 given, then 1, then a new context for every 1
    world.sample(request, [frames], callback_on_step_end=lambda n, total, tokens: seen.append(tokens), tally=tally)
    assert tally.tokens == 4 * 16
    known = torch.cat(seen[:2], 1).flatten(1)
    for _ in range(16):
        known = torch.cat([known, world.network(known)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(known[:, 32:], seen[2].flatten(1))


def test_how_much_stays_is_the_worlds(frames):
    one, two = (
        tiny(defaults=DEFAULTS.replace(kept_latent_frames=kept)).generate(input=frames, num_frames=21).frames for kept in (1, 2)
    )
    assert np.array_equal(one[:9], two[:9])  # the first context is the same
    assert not np.array_equal(one, two)


# -- as a stream ----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_transforms(world, monkeypatch):
    """Nothing is hidden in frames, so that none is held back."""
    policy = GuardPolicy.from_dict({"transforms": [], "reason": "a test of the stream alone"})
    monkeypatch.setattr(world, "guardrails", Guardrails.from_policy(policy))


def test_faces_hold_back_the_frames_that_they_may_still_change(world, frames):
    """The pieces come later, and together are the same video."""
    pieces = list(world.stream(input=frames, num_frames=19, seed=2))
    assert [len(piece) for piece in pieces] == [1, 4, 4, 4, 2, 4]
    assert np.array_equal(np.concatenate(pieces), world.generate(input=frames, num_frames=19, seed=2).frames)


def test_the_stream_is_the_video_in_latent_frames(world, frames, without_transforms):
    stream = world.stream(input=frames, num_frames=19, seed=2)
    pieces = list(stream)
    assert [len(piece) for piece in pieces] == [5, 4, 4, 4, 2]
    assert np.array_equal(np.concatenate(pieces), world.generate(input=frames, num_frames=19, seed=2).frames)
    assert {verdict.guard for verdict in stream.verdicts} == {"flash", "nsfw"}
    assert stream.tally.tokens == 4 * 16


def test_a_piece_comes_before_the_next_is_drawn(world, frames, without_transforms):
    stream = world.stream(input=frames, num_frames=17)
    tokens = [stream.tally.tokens for _ in stream]
    assert tokens == [0, 16, 32, 48]


class Objector:
    """Finds the given frame count unsafe, and remembers what it saw."""

    name, takes = "objector", "video"

    def __init__(self, at, status="unsafe"):
        self.at, self.status, self.seen = at, status, []

    def check(self, item):
        self.seen.append(len(item.frames))
        status = self.status if len(item.frames) >= self.at else "safe"
        return Verdict(status=status, guard=self.name, reason="too long")


@pytest.mark.parametrize(("status", "error"), [("unsafe", BlockedError), ("error", GuardUnavailable)])
def test_a_guard_ends_the_stream_before_the_piece_leaves(frames, status, error):
    world, guard = tiny(), Objector(13, status)
    world.guardrails = Guardrails(GuardPolicy(), world.guardrails.text, [guard])
    stream = iter(world.stream(input=frames, num_frames=21))
    assert [len(next(stream)), len(next(stream))] == [5, 4]
    with pytest.raises(error):
        next(stream)
    assert next(stream, None) is None
    assert guard.seen == [5, 5, 9, 13]  # the input; then each piece together with what came before it
    with pytest.raises(error):
        world.generate(input=frames, num_frames=21)


def test_a_long_stream_shows_the_guards_a_bounded_past(frames):
    world, guard = tiny(defaults=DEFAULTS.replace(fps=1.0)), Objector(1000)
    world.guardrails = Guardrails(GuardPolicy(), world.guardrails.text, [guard])
    list(world.stream(input=frames, num_frames=25))
    assert guard.seen == [5, 5, 9, 13, 14, 14, 14]  # ten seconds, and the four frames of a piece


def test_a_blocked_prompt_makes_nothing(text_world, frames):
    with pytest.raises(BlockedError):
        text_world.stream("a suicide bomber", frames)


class Painter:
    """Stands in for a diffusion decoder: every frame is one grey, the mean of its tokens."""

    def decode(self, indices_BTHW, *, fps, generators):
        assert (fps, len(generators)) == (5, len(indices_BTHW))
        grey_BF = indices_BTHW.float().mean((2, 3)).repeat_interleave(4, dim=1)[:, 3:]
        return grey_BF.byte()[..., None, None, None].expand(-1, -1, 32, 32, 3).contiguous().numpy()


def test_a_diffusion_decoder_draws_the_whole_video_at_once(frames):
    world = tiny()
    world.guardrails.transforms = ()  # which hold frames back
    world._decoders["painter"] = Painter()
    pieces = list(world.stream(input=frames, num_frames=11, token_decoder="painter"))
    assert [piece.shape for piece in pieces] == [(11, 32, 32, 3)]
    assert np.array_equal(pieces[0][:5], frames)
    assert np.ptp(pieces[0][5:], axis=(1, 2, 3)).max() == 0
    record = world.generate(input=frames, num_frames=11, token_decoder="painter").config
    assert record["token_decoder"] == "painter"


# -- text -----------------------------------------------------------------------------------------------------------


def test_the_prompt_matters_and_none_is_none(text_world, frames):
    red, blue, none, empty = (text_world.generate(p, frames, seed=1).frames for p in ("a red ball", "blue", None, ""))
    assert not np.array_equal(red, blue)
    assert np.array_equal(none, empty)


def test_a_world_with_bov_starts_from_text_alone(text_world):
    clip = text_world.generate("a red ball", num_frames=9)
    assert clip.frames.shape == (9, 32, 32, 3)


def test_rows_of_padding_are_not_attended_to(text_world):
    text = text_world.encode_text("a red ball")
    assert text.mask_BM.tolist() == [[True] * 3 + [False] * 3]


# -- bad requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"top_p": 0.0}, ConfigError, "top_p"),
        ({"top_p": 1.5}, ConfigError, "top_p"),
        ({"temperature": -1.0}, ConfigError, "temperature"),
        ({"speculate": "tree"}, ConfigError, "speculate"),
        ({"num_inference_steps": 4}, UsageError, "no num_inference_steps"),
        ({"guidance_scale": 0.0}, UsageError, "no guidance_scale"),
        ({"negative_prompt": ""}, UsageError, "no negative_prompt"),
        ({"actions": np.zeros((9, 2))}, UsageError, "takes no actions"),
        ({"camera": "orbit"}, UsageError, "no camera control"),
        ({"prompt": "a ball"}, UsageError, "trained without text"),
        ({"height": 30}, UsageError, "no whole number of tokens of 8 pixels"),
        ({"height": 64}, UsageError, "makes 32x32 pixels, not 32x64"),
        ({"num_frames": 5}, UsageError, "prefix has 5 frames, but the output only 5"),
        ({"num_prefix_frames": 0}, UsageError, "would not be used"),
        ({"token_decoder": "nano-nothing"}, CheckpointError, "nano-nothing"),
    ],
)
def test_what_cannot_be_met_is_one_line(world, frames, request_, error, message):
    with pytest.raises(error, match=message) as raised:
        world.generate(input=frames, **request_)
    assert "\n" not in str(raised.value)


def test_a_prefix_that_fills_the_context_is_refused(world, make_frames):
    with pytest.raises(UsageError, match=r"9 frames, 48 tokens, leaves no room .* at most 8"):
        world.generate(input=make_frames(9), num_prefix_frames=9, num_frames=17)


def test_a_world_without_bov_needs_frames(world):
    with pytest.raises(UsageError, match="none were given"):
        world.generate()


def test_heads_that_are_not_there_are_said(frames):
    with pytest.raises(UsageError, match="no Medusa heads"):
        tiny(NETWORK.replace(medusa_heads=0)).generate(input=frames, speculate="medusa")


# -- on disk --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    return save_ar_world(tmp_path_factory.mktemp("ar") / "world", world, provenance={"by": "test"}, card="# a card")


def test_a_saved_world_is_the_world(world, folder, frames):
    loaded = wf.load(folder)
    assert (loaded.config, loaded.provenance["by"]) == (world.config, "test")
    assert np.array_equal(
        loaded.generate(input=frames, num_frames=17).frames, world.generate(input=frames, num_frames=17).frames
    )


def test_half_precision_is_still_the_same_tokenizer(folder):
    assert wf.load(folder, dtype="bfloat16").network.embed.weight.dtype == torch.bfloat16


def test_int8_weights_generate_and_are_not_saved(folder, frames, tmp_path):
    world = wf.load(folder, weights="int8")
    assert world.generate(input=frames).frames.shape == (9, 32, 32, 3)
    with pytest.raises(CheckpointError, match="int8"):
        save_ar_world(tmp_path / "again", world, provenance={}, card="")
    with pytest.raises(UsageError, match="cannot be offloaded"):
        wf.load(folder, offload="parts")


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ({}, "has other weights"),
        ({"levels": (3, 5)}, r"has the levels \(3, 5\), not \(5, 3\)"),
        ({"levels": ()}, "is not discrete"),
    ],
)
def test_another_tokenizer_is_refused(world, tmp_path, tokenizer, message):
    from worldfoundry.core.checkpoint import save_component

    folder = save_ar_world(tmp_path / "world", world, provenance={}, card="")
    torch.manual_seed(1)
    other = build_tokenizer(TOKENIZER.replace(**tokenizer).to_dict())
    save_component(folder / "vae", other, kind="tokenizer", provenance={}, overwrite=True)
    with pytest.raises(CheckpointError, match=message) as raised:
        wf.load(folder)
    assert "\n" not in str(raised.value)


def test_another_number_of_tokens_is_refused():
    with pytest.raises(CheckpointError, match="predicts 16 tokens, the tokenizer has 15"):
        tiny(NETWORK.replace(vocab_size=16))


def test_a_world_may_name_a_shipped_tokenizer(tmp_path):
    tokenizer = wf.load("nano-dv8x16x16", dtype="float32")
    network = Transformer(NETWORK.replace(vocab_size=1000, latent_shape=(3, 2, 2)))
    world = AutoregressiveWorld(network, tokenizer, DEFAULTS)
    folder = save_ar_world(tmp_path / "world", world, provenance={}, card="", shipped_tokenizer="nano-dv8x16x16")
    assert not (folder / "vae").exists()
    assert torch.equal(wf.load(folder).tokenizer.to_latent.weight.float(), tokenizer.to_latent.weight)
