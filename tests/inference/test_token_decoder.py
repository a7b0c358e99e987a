"""The diffusion decoder: chunks that leave no seam, folders that know what they belong to, tokens that fit."""

import pytest
import torch

import worldfoundry as wf
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.core.shipped import shipped_models
from worldfoundry.core.video_io import read_video
from worldfoundry.data.sample import sample_footage
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.adapters import base_hashes
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.load import load_tokenizer
from worldfoundry.inference.token_decoder import (
    TokenDecoder,
    TokenDecoderConfig,
    decoder_network,
    fade,
    load_token_decoder,
    save_token_decoder,
)
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.nn.lora import new_lora
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.tokenizers.tokenizer import DiscreteTokenizer

T = 4  # pixel frames per latent frame of both tokenizers


def randomly(module, std, seed=0):
    for i, parameter in enumerate(module.parameters()):
        torch.nn.init.normal_(parameter, std=std, generator=torch.Generator().manual_seed(1000 * seed + i))
    return module.eval().requires_grad_(False)


def tokenizer(name):
    torch.manual_seed(0)
    return build_tokenizer(named_config(name).to_dict()).eval().requires_grad_(False)


def discrete():
    made = tokenizer("debug-dv4x8x8")
    assert isinstance(made, DiscreteTokenizer)
    return made


def tiny_world(seed=0):
    latents = tokenizer("debug-cv4x4x4")
    dit = DiTConfig(
        in_channels=12, out_channels=12, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=8, adaln_lora_dim=4,
        max_frames=8, max_h=8, max_w=8, condition_mask=True, action_dim=3,
    )  # fmt: skip
    defaults = WorldDefaults(
        num_frames=9, height=16, width=16, fps=12, num_inference_steps=2, guidance_scale=0.0, context_rows=3
    )
    return DiffusionWorld(randomly(DiT(dit), 0.1, seed), latents, SchedulerConfig(), defaults, encoder=NullTextEncoder(8, 3))


def about(world, tokens, **changes):
    return TokenDecoderConfig(
        world="WORLD", tokenizer="TOKENS", world_weights=tuple(base_hashes(world.network)),
        tokenizer_weights=tuple(base_hashes(tokens)), token_codes=tokens.config.codebook_size, token_channels=4,
        scheduler=SchedulerConfig(sigma_max=10, sigma_min=0.1), num_inference_steps=2, chunk_frames=3, overlap_frames=2,
    ).replace(**changes)  # fmt: skip


@pytest.fixture(scope="module")
def decoder():
    world, tokens = tiny_world(), discrete()
    network = randomly(decoder_network(world.network, tokens.config.codebook_size, 4), 0.1, seed=2)
    return TokenDecoder(network, world.tokenizer, tokens, about(world, tokens), 3)


def with_config(decoder, **changes):
    config = decoder.config.replace(**changes)
    return TokenDecoder(decoder.network, decoder.latents, decoder.tokens, config, decoder.context_rows)


def grid(frames, batch=1, seed=0):
    return torch.randint(1000, (batch, frames, 2, 2), generator=torch.Generator().manual_seed(seed))


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


# --- what it makes ---------------------------------------------------------------------------------------------------


def test_tokens_become_video_of_the_tokens_size(decoder):
    video = decoder.decode(grid(3, batch=2), fps=12, generators=seeds(0, 1))
    assert (video.shape, video.dtype) == ((2, 1 + 2 * T, 16, 16, 3), "uint8")
    assert (video == decoder.decode(grid(3, batch=2), fps=12, generators=seeds(0, 1))).all()
    assert (video != decoder.decode(grid(3, batch=2), fps=12, generators=seeds(0, 2)))[1].any()
    assert (video != decoder.decode(grid(3, batch=2, seed=1), fps=12, generators=seeds(0, 1))).any()


def test_a_clip_of_a_batch_is_what_it_is_alone(decoder):
    both = decoder.decode(grid(3, batch=2), fps=12, generators=seeds(0, 1))
    alone = decoder.decode(grid(3, batch=2)[1:], fps=12, generators=seeds(1))
    assert abs(both[1].astype(int) - alone[0]).max() <= 1  # sums in another order may round differently


def test_one_chunk_is_no_chunking(decoder):
    tokens = grid(3)
    whole = with_config(decoder, chunk_frames=8).decode(tokens, fps=12, generators=seeds(0))
    assert (decoder.decode(tokens, fps=12, generators=seeds(0)) == whole).all()


@pytest.mark.parametrize("frames", [4, 5, 6])
def test_chunks_make_as_many_frames_as_one(decoder, frames):
    chunked = decoder.decode(grid(frames), fps=12, generators=seeds(0))
    whole = with_config(decoder, chunk_frames=8).decode(grid(frames), fps=12, generators=seeds(0))
    assert chunked.shape == whole.shape
    assert (chunked[:, : 1 + T] == decoder.decode(grid(frames)[:, :3], fps=12, generators=seeds(0))[:, : 1 + T]).any()


def test_constant_tokens_leave_no_seam(decoder):
    """With an estimate that follows the tokens alone all chunks say the same, and no frame tells that there are several."""

    def follows_tokens(x_BCTHW, sigma_B, condition):
        level_BT = condition.coarse.float().mean(dim=(2, 3)) / 1000
        return (0.5 * level_BT)[:, None, :, None, None].expand_as(x_BCTHW)

    def video(code, chunk_frames):
        still = with_config(decoder, chunk_frames=chunk_frames)
        still.denoiser = follows_tokens
        return still.decode(torch.full((1, 7, 2, 2), code), fps=12, generators=seeds(0))[0].astype(int)

    assert abs(video(321, chunk_frames=3) - video(321, chunk_frames=8)).max() <= 1
    assert abs(video(321, chunk_frames=3) - video(900, chunk_frames=3)).max() > 1


def test_chunks_begin_with_the_noise_that_the_one_before_had_there(decoder):
    kept, probe = [], with_config(decoder)

    def keeps(x_BCTHW, sigma_B, condition):
        kept.append(x_BCTHW.clone())
        return torch.zeros_like(x_BCTHW)

    probe.denoiser = keeps
    probe.decode(grid(4), fps=12, generators=seeds(0), num_inference_steps=1)
    first, second = kept
    assert torch.equal(first[:, :, 1:], second[:, :, :2])


def test_a_fade_is_linear_over_the_last_shared_frames():
    before, after = torch.zeros(1, 3, 7, 1, 1), torch.ones(1, 3, 6, 1, 1)
    joined = fade(before, after, 3, 2)[0, 0, :, 0, 0]
    torch.testing.assert_close(joined, torch.tensor([0, 0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1]))
    assert torch.equal(fade(before, after, 6, 2)[0, 0, :, 0, 0], torch.tensor([0.0] * 6 + [0.5] + [1.0] * 5))
    assert torch.equal(fade(before, after, 3, 0)[0, 0, :, 0, 0], torch.tensor([0.0] * 7 + [1.0] * 2))


def test_guidance_moves_away_from_token_zero(decoder):
    zeros = torch.zeros(1, 3, 2, 2, dtype=torch.long)
    plain, guided = (decoder.decode(zeros, fps=12, generators=seeds(0), guidance_scale=g).astype(int) for g in (0.0, 2.0))
    assert abs(plain - guided).max() <= 1
    plain, guided = (decoder.decode(grid(3), fps=12, generators=seeds(0), guidance_scale=g).astype(int) for g in (0.0, 2.0))
    assert abs(plain - guided).max() > 1


# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A decoder with random additions, beside the world and the tokenizer that it names."""
    world, tokens = tiny_world(), discrete()
    save_world(tmp_path / "world", world, provenance={}, card="")
    save_component(tmp_path / "tokens", tokens, kind="tokenizer", provenance={})
    network = decoder_network(world.network, 1000, 4)
    lora, coarse = randomly(new_lora(network, rank=2), 0.1, seed=3), randomly(network.coarse_input, 0.1, seed=4)
    config = about(world, tokens).replace(world=str(tmp_path / "world"), tokenizer=str(tmp_path / "tokens"))
    return save_token_decoder(tmp_path / "decoder", lora, coarse, config, provenance={"steps": 3}, card="", dtype=torch.float32)


def test_a_folder_holds_the_adapter_and_finds_the_rest(folder):
    loaded = wf.load(folder)
    assert isinstance(loaded, TokenDecoder)
    assert loaded.provenance == {"steps": 3}
    world = tiny_world()
    network = decoder_network(world.network, 1000, 4).eval().requires_grad_(False)
    lora = randomly(new_lora(network, rank=2), 0.1, seed=3)
    randomly(network.coarse_input, 0.1, seed=4)
    by_hand = TokenDecoder(network, world.tokenizer, discrete(), loaded.config, 3)
    found = loaded.decode(grid(3), fps=12, generators=seeds(0)).astype(int)
    with lora.attached(network):
        assert abs(by_hand.decode(grid(3), fps=12, generators=seeds(0)) - found).max() <= 1
    without = by_hand.decode(grid(3), fps=12, generators=seeds(0))
    assert abs(without - found).max() > 1


def test_a_decoder_keeps_its_weights_in_half_precision(folder):
    loaded = load_token_decoder(folder, dtype=torch.bfloat16)
    assert loaded.network.patch_embed.weight.dtype == torch.bfloat16
    assert loaded.decode(grid(3), fps=12, generators=seeds(0)).shape == (1, 9, 16, 16, 3)


def test_another_world_or_tokenizer_is_refused(folder):
    with pytest.raises(CheckpointError, match="this world has other weights"):
        load_token_decoder(folder, world=tiny_world(seed=5))
    other = randomly(discrete(), 0.1, seed=6)
    with pytest.raises(CheckpointError, match="this tokenizer has other weights"):
        load_token_decoder(folder, tokenizer=other)
    with pytest.raises(CheckpointError, match="this tokenizer has other weights"):
        load_token_decoder(folder).check_tokenizer(other)
    with pytest.raises(CheckpointError, match="this tokenizer is continuous"):
        load_token_decoder(folder, tokenizer=tokenizer("debug-cv4x4x4"))
    with pytest.raises(CheckpointError, match="tokens are 1x8x8, which does not fit latents of 4x4x4"):
        load_token_decoder(folder, tokenizer=tokenizer("debug-di8x8"))


def test_what_is_no_decoder_is_refused(folder):
    with pytest.raises(CheckpointError, match="holds a 'tokenizer', not a diffusion decoder"):
        load_token_decoder(folder.parent / "tokens")
    with pytest.raises(CheckpointError, match="is a diffusion decoder, which is no part of a world"):
        load_tokenizer(folder)


# --- what it is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "generators", "said"),
    [
        (torch.full((1, 3, 2, 2), 1000), 1, "from 1000 to 1000, but 'TOKENS' has the codes 0 to 999"),
        (torch.full((1, 3, 2, 2), -1), 1, "from -1 to -1"),
        (torch.zeros(1, 3, 2, 2), 1, "integers"),
        (torch.zeros(3, 2, 2, dtype=torch.long), 1, "batch, frames, rows, columns"),
        (torch.zeros(2, 3, 2, 2, dtype=torch.long), 1, "2 clips need as many generators, not 1"),
        (torch.zeros(1, 3, 2, 20, dtype=torch.long), 1, "position table covers 4 patch columns"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(decoder, tokens, generators, said):
    with pytest.raises(UsageError, match=said):
        decoder.decode(tokens, fps=12, generators=seeds(*range(generators)))


def test_steps_are_counted_from_one(decoder):
    with pytest.raises(UsageError, match="at least 1, not -1"):
        decoder.decode(grid(3), fps=12, generators=seeds(0), num_inference_steps=-1)


# --- the shipped one -------------------------------------------------------------------------------------------------


def test_the_shipped_decoder_draws_what_its_tokens_stand_for():
    assert shipped_models()["nano-decoder"].size_mb <= 1.4
    shipped = wf.load("nano-decoder", dtype="float32")
    frames = read_video(sample_footage() / "episode_000000.mp4").frames[:9]
    x = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
    video = torch.nn.functional.interpolate(x, (128, 128), mode="bilinear").movedim(0, 1)[None]
    tokens = shipped.tokens.encode_indices(video)
    true = video.add(1).mul(127.5)[0].movedim(0, -1).numpy()

    def error(shown):
        made = shipped.decode(shown, fps=10, generators=seeds(0), num_inference_steps=1)[0]
        return ((made - true) ** 2).mean()

    assert error(tokens) < 0.5 * error(tokens.flip(-1, -2))
