"""`--init`: what follows the base, that new adapters change nothing at the start, and what is refused in one line."""

import pytest
import torch

import worldfoundry as wf
from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.errors import CheckpointError, ConfigError, DataError, UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.config import SchedulerConfig, WorldDefaults
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world
from worldfoundry.recipes.base_world import follow, read_base, start_from
from worldfoundry.recipes.config import TrainDiffusionConfig, WindowConfig
from worldfoundry.recipes.train_diffusion import train_diffusion
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import DiffusionLossConfig, LoopConfig, OptimConfig

SMALL = DiTConfig(
    in_channels=12, out_channels=12, model_channels=24, num_blocks=1, num_heads=2, crossattn_emb_channels=384, adaln_lora_dim=4,
    max_frames=4, max_h=8, max_w=8, condition_mask=True,
)  # fmt: skip
SAMPLING = SchedulerConfig(sigma_data=1.0, sigma_max=20.0)


def randomised(network):
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(i))
    return network


@pytest.fixture
def tokenizer():
    return build_tokenizer(named_config("debug-cv4x4x4").to_dict()).eval()


@pytest.fixture
def make_base(tokenizer, tmp_path):
    def make(name="base", *, network=SMALL, actions=(), loss=None):
        network = network.replace(in_channels=tokenizer.spec.channels, out_channels=tokenizer.spec.channels)
        defaults = WorldDefaults(
            num_frames=9, height=16, width=16, fps=12, num_prefix_frames=5, num_inference_steps=3, context_rows=7,
            action_names=actions, action_rms=(2.0,) * len(actions),
        )  # fmt: skip
        world = DiffusionWorld(randomised(DiT(network)), tokenizer, SAMPLING, defaults, encoder=NullTextEncoder(384, 7))
        return save_world(tmp_path / name, world, provenance={"config": {"loss": loss or {}}}, card="")

    return make


def config(data, out, **changes):
    settings = {
        "window": WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.3), "batch_size": 2,
        "loop": LoopConfig(steps=1, precision="float32", compile="off", optim=OptimConfig(lr=1e-12)), "device": "cpu",
    }  # fmt: skip
    return TrainDiffusionConfig(data=data, out=out, **{**settings, **changes})


@pytest.fixture
def data(make_dataset):
    return make_dataset([("a", 9, 16, 16), ("b", 9, 16, 16)], actions=True)


def test_training_goes_on_from_the_base_with_its_settings_and_new_actions(data, make_base, tmp_path):
    base = make_base(loss={"sigma_mean": 0.7, "sigma_std": 1.1})
    run = train_diffusion(config(data, tmp_path / "out", init=base))
    world, before = wf.load(run.folder), wf.load(base)
    assert world.scheduler == SAMPLING
    assert (world.config.num_inference_steps, world.config.context_rows, world.config.text_encoder) == (3, 7, "none")
    assert world.config.action_names == ("time", "clip")
    assert run.facts["config"]["loss"]["sigma_mean"] == 0.7
    changed = {k for k, v in before.network.state_dict().items() if not torch.allclose(v, world.network.state_dict()[k])}
    assert changed == set()  # one step of no length: the weights are the base's
    assert world.network.action_adapter.to_tokens.weight.abs().max() < 1e-6


def test_what_is_set_wins_over_the_base(data, make_base, tmp_path):
    settings = config(data, tmp_path, init=make_base(loss={"sigma_mean": 0.7}), num_inference_steps=4)
    settings = settings.replace(loss=settings.loss.replace(sigma_mean=0.2))
    followed = follow(settings, read_base(settings))
    assert (followed.loss.sigma_mean, followed.loss.sigma_data, followed.num_inference_steps) == (0.2, 1.0, 4)


@pytest.mark.parametrize("adapters", [{"action_dim": 6}, {"prefix_context": True}, {"skip_gates": True}, {"uncertainty": True}])
def test_a_new_adapter_changes_nothing_at_the_start(adapters):
    base, network = randomised(DiT(SMALL)), DiT(SMALL.replace(**adapters))
    start_from(network, base)
    x, mask = torch.randn(1, 12, 2, 4, 4), torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1)
    extra = {"actions_BTA": torch.randn(1, 2, 6)} if "action_dim" in adapters else {"prefix_BCTHW": torch.randn(1, 12, 2, 4, 4)}
    told = {"condition_mask_B1THW": mask}
    context = torch.randn(1, 3, 384)
    assert torch.equal(network(x, torch.zeros(1), context, **told, **extra), base(x, torch.zeros(1), context, **told))


def test_a_text_to_world_base_becomes_one_that_follows_frames():
    base, network = randomised(DiT(SMALL.replace(condition_mask=False))), DiT(SMALL)
    start_from(network, base)
    x, context = torch.randn(1, 12, 2, 4, 4), torch.randn(1, 3, 384)
    mask = torch.ones(1, 1, 2, 1, 1)
    padding = torch.ones(1, 1, 4, 4)
    ours = network(x, torch.zeros(1), context, condition_mask_B1THW=mask, padding_mask_B1HW=padding)
    torch.testing.assert_close(ours, base(x, torch.zeros(1), context, padding_mask_B1HW=padding))


def test_known_actions_keep_their_scale_and_others_are_refused(data, make_base, tmp_path):
    adapter = SMALL.replace(action_dim=16)
    run = train_diffusion(config(data, tmp_path / "out", init=make_base(network=adapter, actions=("time", "clip"))))
    assert run.world.config.action_rms == (2.0, 2.0)
    other = make_base("other", network=adapter, actions=("x", "y"))
    with pytest.raises(DataError, match=r"takes the actions 'x/y', but the clips have 'time/clip'"):
        train_diffusion(config(data, tmp_path / "two", init=other))
    off = train_diffusion(config(data, tmp_path / "three", init=other, actions="off"))
    assert off.world.network.action_adapter is None


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"model": "debug"}, UsageError, "has model_channels 24, but 64 is asked for"),
        ({"patch_spatial": 4}, UsageError, "has patch_spatial 2, but 4 is asked for"),
        ({"loss": DiffusionLossConfig(parametrization="rectified_flow")}, UsageError, "with parametrization 'edm', not 'rect"),
        ({"text": "t5"}, UsageError, "no name to fetch it by"),
    ],
)
def test_what_does_not_fit_the_base_is_one_line(data, make_base, tmp_path, changes, error, line):
    with pytest.raises(error, match=line) as caught:
        train_diffusion(config(data, tmp_path / "out", init=make_base(), **changes))
    assert "\n" not in caught.value.message


def test_another_tokenizer_is_refused(data, make_base, tokenizer, tmp_path):
    base = make_base()
    with torch.no_grad():
        next(tokenizer.parameters()).add_(1)
    other = make_base("other") / "vae"
    with pytest.raises(UsageError, match=r"is not the tokenizer that .* was trained with: its weights differ"):
        train_diffusion(config(data, tmp_path / "out", init=base, tokenizer=other))
    with pytest.raises(CheckpointError, match="is no diffusion world"):
        train_diffusion(config(data, tmp_path / "out", init=other))


def test_a_tokenizer_or_a_base_is_needed():
    with pytest.raises(ConfigError, match=r"set tokenizer .* or init"):
        TrainDiffusionConfig.from_dict({"data": "a", "out": "b"})
