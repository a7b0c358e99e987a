"""The DiT against diffusers' independent implementation, with random weights, in the variants that its class knows."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.config import SIZES, DiTConfig
from worldfoundry.diffusion.diffusers import config_from_diffusers, config_to_diffusers, from_diffusers, to_diffusers
from worldfoundry.diffusion.dit import DiT
from worldfoundry.diffusion.original import config_from_original, config_to_original, from_original, to_original

BASE = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "mlp_ratio": 4.0,
    "text_embed_dim": 20, "adaln_lora_dim": 8, "max_size": [8, 16, 16], "patch_size": [1, 2, 2], "rope_scale": [2.0, 1.0, 1.0],
    "concat_padding_mask": True, "extra_pos_embed_type": "learnable",
}  # fmt: skip


@pytest.fixture
def cosmos():
    """diffusers' class; its padding mask needs one torchvision function, which is put there for the test's duration."""
    pytest.importorskip("diffusers")
    from diffusers import CosmosTransformer3DModel

    module = sys.modules[CosmosTransformer3DModel.__module__]
    resize = SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size=size, mode=interpolation))
    shim = SimpleNamespace(functional=resize, InterpolationMode=SimpleNamespace(NEAREST="nearest"))
    before = vars(module).get("transforms")
    module.transforms = shim
    yield CosmosTransformer3DModel
    if before is None:
        del module.transforms
    else:
        module.transforms = before


def random_(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.1 * noise if p.ndim == 1 else 0.9 * noise * p.shape[-1] ** -0.5)
    return module.eval()


@pytest.mark.parametrize(
    ("changes", "fps", "frames"),
    [
        ({}, 24, 3),
        ({"in_channels": 5}, 16, 3),
        ({"concat_padding_mask": False}, None, 2),
        ({"rope_scale": [2.0, 2.0, 2.0], "attention_head_dim": 32, "mlp_ratio": 2.0}, 30, 4),
        ({"extra_pos_embed_type": None, "in_channels": 5, "num_attention_heads": 3}, 10, 1),
        # Cosmos-Predict2
        ({"extra_pos_embed_type": None, "in_channels": 5, "rope_scale": [1.0, 3.0, 3.0], "attention_head_dim": 32}, 16, 4),
        ({"extra_pos_embed_type": None, "in_channels": 5, "rope_scale": [20 / 24, 2.0, 2.0], "attention_head_dim": 32}, 10, 4),
        ({"extra_pos_embed_type": None, "rope_scale": [1.0, 4.0, 4.0], "attention_head_dim": 32}, None, 1),
    ],
)
def test_equals_diffusers(cosmos, changes, fps, frames):
    fields = BASE | changes
    peer = random_(cosmos(**fields))
    net = from_diffusers(peer.state_dict(), fields)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, frames, 6, 8, generator=generator)
    context = torch.randn(2, 5, 20, generator=generator)
    c_noise = torch.tensor([0.3, -0.6])
    padding = (torch.rand(1, 1, 48, 64, generator=generator) > 0.7).float()
    condition = torch.zeros(2, 1, frames, 6, 8)
    condition[:, :, :1] = 1
    video_to_world = fields["in_channels"] == 5
    with torch.no_grad():
        expected = peer(
            x, c_noise, context, fps=fps, padding_mask=padding, condition_mask=condition if video_to_world else None
        ).sample
        out = net(
            x,
            c_noise,
            context,
            fps_B=None if fps is None else torch.full((2,), float(fps)),
            padding_mask_B1HW=padding,
            condition_mask_B1THW=condition if video_to_world else None,
        )
    assert (out - expected).norm() <= 1e-4 * expected.norm()
    assert (out - expected).abs().max() < 3e-5
    back = to_diffusers(net)
    assert back.keys() == peer.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in peer.state_dict().items())


@pytest.mark.parametrize("name", [name for name in SIZES if "2world" in name or "2image" in name])
def test_official_sizes_have_as_many_parameters_as_diffusers(name):
    peer = pytest.importorskip("diffusers").CosmosTransformer3DModel
    fields = config_to_diffusers(SIZES[name])
    with torch.device("meta"):
        ours, theirs = DiT(SIZES[name]), peer(**{key: value for key, value in fields.items() if key != "_class_name"})
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", sorted(SIZES))
def test_configs_round_trip(name):
    config = SIZES[name]
    assert config_from_original(config_to_original(config)) == config
    if not config.coarse_channels:  # diffusers has no diffusion decoder
        assert config_from_diffusers(config_to_diffusers(config)) == config


def test_published_config_files_are_the_named_sizes():
    published = BASE | {
        "in_channels": 17, "out_channels": 16, "num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 36,
        "text_embed_dim": 1024, "adaln_lora_dim": 256, "max_size": [128, 240, 240], "rope_scale": [2, 2, 2],
        "_class_name": "CosmosTransformer3DModel", "_diffusers_version": "0.33.0",
    }  # fmt: skip
    assert config_from_diffusers(published) == SIZES["14b-video2world"]
    assert config_from_diffusers({"_class_name": "CosmosTransformer3DModel"}) == SIZES["7b-text2world"]


def test_layouts_are_read_in_all_their_wrappings():
    net = random_(DiT(config_from_diffusers(BASE).replace(uncertainty=True)))
    kwargs, state = config_to_original(net.config), to_original(net)
    bare = {name.removeprefix("net."): tensor for name, tensor in state.items()}
    legacy = dict(bare)
    legacy["x_embedder.proj.weight"] = legacy.pop("x_embedder.proj.1.weight").reshape(32, 5, 1, 2, 2)
    legacy["blocks.block0.blocks.0.block.attn.to_q.1._extra_state"] = None
    for wrapped in (state, {"model": state}, bare, legacy):
        read = from_original(wrapped, kwargs).state_dict()
        assert all(torch.equal(read[name], tensor) for name, tensor in net.state_dict().items())


def test_what_is_not_this_network_is_refused():
    net = DiT(config_from_diffusers(BASE))
    kwargs, state = config_to_original(net.config), to_original(net)
    with pytest.raises(CheckpointError, match=r"missing blocks\.1\.mlp\.up\.weight"):
        from_original({n: t for n, t in state.items() if "block1.blocks.2.block.layer1" not in n}, kwargs)
    with pytest.raises(CheckpointError, match=r"unexpected view_embeddings\.weight"):
        from_original(state | {"net.view_embeddings.weight": torch.zeros(1)}, kwargs)
    with pytest.raises(CheckpointError, match="block_config = 'CA-MLP'"):
        from_original(state, kwargs | {"block_config": "CA-MLP"})
    with pytest.raises(CheckpointError, match="sincos"):
        from_original(state, kwargs | {"extra_per_block_abs_pos_emb_type": "sincos"})
    with pytest.raises(CheckpointError, match="in_channels = 9"):
        from_original(state, kwargs | {"in_channels": 9})
    with pytest.raises(CheckpointError, match="n_views"):
        from_original(state, kwargs | {"n_views": 6})
    with pytest.raises(CheckpointError, match="img_context_dim_in"):
        from_diffusers(to_diffusers(net), BASE | {"img_context_dim_in": 1152})
    adapted = DiT(DiTConfig.from_dict(net.config.to_dict() | {"action_dim": 4}))
    for convert in (to_original, to_diffusers):
        with pytest.raises(CheckpointError, match="adapters"):
            convert(adapted)


def test_a_noise_level_per_frame_equals_diffusers(cosmos):
    fields = BASE | {"extra_pos_embed_type": None, "in_channels": 5}
    peer = random_(cosmos(**fields))
    net = from_diffusers(peer.state_dict(), fields)
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 3, 6, 8, generator=generator), torch.randn(2, 5, 20, generator=generator)
    condition = torch.zeros(2, 1, 3, 6, 8)
    condition[:, :, :1] = 1
    c_noise_BT = torch.tensor([[1e-4, 0.9, 0.9], [1e-4, 0.3, 0.2]])
    with torch.no_grad():
        expected = peer(
            x,
            c_noise_BT[:, None, :, None, None],
            context,
            fps=16,
            padding_mask=torch.zeros(1, 1, 48, 64),
            condition_mask=condition,
        ).sample
        out = net(x, c_noise_BT, context, fps_B=torch.tensor([16.0]), condition_mask_B1THW=condition)
    assert (out - expected).abs().max() <= 1e-4 * expected.abs().max()
