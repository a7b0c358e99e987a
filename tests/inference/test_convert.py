"""Layouts: every way there and back leaves the numbers untouched."""

import json
import re
import subprocess

import pytest
import torch
from safetensors.torch import save_file

import worldfoundry as wf
from worldfoundry.autoregressive.config import ar_size
from worldfoundry.autoregressive.transformer import Transformer
from worldfoundry.core.checkpoint import save_component
from worldfoundry.core.errors import CheckpointError, UsageError
from worldfoundry.diffusion.config import DiTConfig
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.convert import convert, read_original
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import TokenizerConfig, named_config


def tokenizer():
    torch.manual_seed(0)
    small = TokenizerConfig(channels=4, z_channels=6, latent_channels=6, num_res_blocks=1)
    return build_tokenizer(small.to_dict()).eval()


def dit():
    net = DiT(
        DiTConfig(in_channels=4, out_channels=4, model_channels=32, num_blocks=1, num_heads=2, max_frames=8, max_h=16, max_w=16)
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    return net.eval()


def autoregressive():
    return Transformer(
        ar_size("debug").replace(medusa_heads=0, bov=True, max_seq_len=384, context_dim=8, num_heads=4, num_kv_heads=2)
    )


COMPONENTS = {"tokenizer": tokenizer, "dit": dit, "autoregressive": autoregressive}
WITH_DIFFUSERS = ["tokenizer", "dit"]


def saved(tmp_path, kind):
    component = COMPONENTS[kind]()
    return component, save_component(tmp_path / "ours", component, kind=kind, provenance={})


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", WITH_DIFFUSERS)
def test_to_diffusers_and_back(tmp_path, kind):
    component, ours = saved(tmp_path, kind)
    theirs = convert(ours, tmp_path / "diffusers", to="diffusers")
    assert "_class_name" in json.loads((theirs / "config.json").read_text())
    again = wf.load(convert(theirs, tmp_path / "again"))
    assert equal(again.state_dict(), component.state_dict())
    assert equal(wf.load(theirs).state_dict(), component.state_dict())


@pytest.mark.parametrize("kind", COMPONENTS)
def test_to_original_and_back(tmp_path, kind):
    component, ours = saved(tmp_path, kind)
    original = convert(ours, tmp_path / "original", to="original")
    assert {p.name for p in original.iterdir()} == {"model.pt", "original.json"}
    again = convert(original / "model.pt", tmp_path / "again", original_config=original / "original.json")
    assert equal(wf.load(again).state_dict(), component.state_dict())


class Holder(torch.nn.Module):
    """Carries tensors under dotted names through TorchScript."""

    def __init__(self, state):
        super().__init__()
        for name, tensor in state.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_buffer(leaf, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_encoder_and_decoder_jit(tmp_path):
    component, ours = saved(tmp_path, "tokenizer")
    original = convert(ours, tmp_path / "original", to="original")
    state = torch.load(original / "model.pt", weights_only=True)
    jit = tmp_path / "jit"
    jit.mkdir()
    for part, prefixes in (("encoder", ("encoder.", "quant_conv.")), ("decoder", ("decoder.", "post_quant_conv."))):
        held = Holder({k: v for k, v in state.items() if k.startswith(prefixes)})
        torch.jit.script(held).save(str(jit / f"{part}.jit"))
    again = convert(jit, tmp_path / "again", original_config=original / "original.json")
    assert equal(wf.load(again).state_dict(), component.state_dict())


@pytest.mark.parametrize(
    ("route", "then"), [("model.pt", "worldfoundry"), ("model.pt", "diffusers"), ("autoencoder.jit", "worldfoundry")]
)
def test_latent_statistics_go_every_way_round(tmp_path, route, then):
    component, std = tokenizer(), torch.rand(6, 16) + 0.5
    component.set_statistics(torch.randn(6, 16), std)
    ours = save_component(tmp_path / "ours", component, kind="tokenizer", provenance={})
    original = convert(ours, tmp_path / "original", to="original")
    assert [t.shape for t in torch.load(original / "mean_std.pt", weights_only=True)] == [(6, 16)] * 2
    state = torch.load(original / "model.pt", weights_only=True)
    if route != "model.pt":
        (original / "model.pt").unlink()
        torch.jit.script(Holder(state)).save(str(original / route))
    again = wf.load(convert(original, tmp_path / "again", to=then, original_config=original / "original.json"))
    assert equal(again.state_dict(), component.state_dict())
    assert again.config.statistics_frames == 16
    z = torch.randn(1, 6, 20, 2, 2)
    assert torch.equal(again.normalize(z), component.normalize(z))


def test_unmeasured_statistics_leave_no_file(tmp_path):
    _, ours = saved(tmp_path, "tokenizer")
    assert not (convert(ours, tmp_path / "original", to="original") / "mean_std.pt").exists()


@pytest.mark.parametrize("content", [torch.zeros(6, 4), (torch.zeros(6, 4),), (torch.zeros(25), torch.zeros(25)), {"mean": 1}])
def test_statistics_that_do_not_belong_are_refused(tmp_path, content):
    _, ours = saved(tmp_path, "tokenizer")
    original = convert(ours, tmp_path / "original", to="original")
    torch.save(content, original / "mean_std.pt")
    with pytest.raises(CheckpointError, match=r"mean_std\.pt' must hold a mean and a deviation for 6 channels"):
        convert(original, tmp_path / "again", original_config=original / "original.json")


@pytest.mark.parametrize("name", ["debug", "debug-di8x8", "debug-dv4x8x8", "debug-ci8x8"])
def test_a_published_name_stands_for_the_constructors_arguments(tmp_path, name):
    component = build_tokenizer(named_config(name).to_dict()).eval()
    ours = save_component(tmp_path / "ours", component, kind="tokenizer", provenance={})
    if name == "debug-ci8x8" or name == "debug-di8x8":
        with pytest.raises(CheckpointError, match="32 groups"):  # no published image tokenizer has fewer
            convert(ours, tmp_path / "any" / name, to="original")
        return
    original = convert(ours, tmp_path / "any" / name, to="original")
    (original / "original.json").unlink()
    (original / "config.json").write_text('{"architectures": []}')  # as some published folders have
    assert equal(wf.load(convert(original, tmp_path / "a")).state_dict(), component.state_dict())
    moved = original.rename(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"does not say how.*published name"):
        convert(moved, tmp_path / "b")
    assert equal(wf.load(convert(moved, tmp_path / "b", original_config=name)).state_dict(), component.state_dict())
    with pytest.raises(UsageError, match=r"Unknown tokenizer 'debugg'.*'debug'"):
        convert(moved, tmp_path / "c", original_config="debugg")


def test_torchscript_that_never_opens_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "encoder.jit").write_bytes(b"x")

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(CheckpointError, match=r"encoder\.jit' took more than 600 s"):
        read_original(tmp_path / "encoder.jit")


def test_weights_that_the_config_does_not_describe_are_counted_and_named(tmp_path):
    _, ours = saved(tmp_path, "tokenizer")
    original = convert(ours, tmp_path / "original", to="original")
    arguments = json.loads((original / "original.json").read_text())
    (original / "original.json").write_text(json.dumps({**arguments, "channels": 8}))
    with pytest.raises(CheckpointError) as error:
        convert(original, tmp_path / "again", original_config=original / "original.json")
    text = error.value.message
    assert re.search(r"do not fit the config beside them \(\d+ of another shape of \d+ tensors\)", text)
    assert re.search(r"decoder\.conv_in\.0\.conv3d\.weight is \[16, 6, 1, 3, 3\], config says \[32, 6, 1, 3, 3\]", text)
    assert text.count("config says") == 3
    theirs = convert(ours, tmp_path / "diffusers", to="diffusers")
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, "num_layers": 2}))
    with pytest.raises(CheckpointError, match=r"\d+ missing of \d+ tensors\): missing .*; and \d+ more missing"):
        wf.load(theirs)


def test_a_training_state_is_no_state_dict(tmp_path):
    torch.save({"optimizer": {"lr": 1.0}, "step": 3}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"'optimizer', 'step' .2 in all. are none"):
        read_original(tmp_path / "state.pt")


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    (tmp_path / "short.pt").write_bytes(b"junk")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "bad.jit").write_bytes(b"not TorchScript")
    for name in ("bad.pt", "short.pt", "empty.pt", "bad.jit"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_original(tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="state dict, not list"):
        read_original(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        convert(tmp_path / "absent", tmp_path / "out")
    torch.save({"something": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="does not say how"):
        convert(tmp_path / "other.pt", tmp_path / "out")
    (tmp_path / "original.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no known original checkpoint"):
        convert(tmp_path / "other.pt", tmp_path / "out", original_config=tmp_path / "original.json")


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_original(tmp_path / "evil.pt")


def test_an_existing_target_is_left_alone(tmp_path):
    _, ours = saved(tmp_path, "dit")
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        convert(ours, tmp_path / "taken", to="diffusers")


def test_from_original_names_its_kinds():
    with pytest.raises(UsageError, match="Did you mean 'tokenizer'"):
        wf.from_original("tokeniser", {}, {})


def test_damaged_weights_are_named(tmp_path):
    component, ours = saved(tmp_path, "dit")
    state = dict(component.state_dict())
    name = next(iter(state))
    state[name] = state[name] * float("nan")
    save_file(state, ours / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name} holds NaN"):
        wf.load(ours)


def test_shards_of_a_tensor_parallel_training(tmp_path):
    component, ours = saved(tmp_path, "autoregressive")
    shards = convert(ours, tmp_path / "shards", to="original", tensor_parallel=2)
    assert {p.name for p in shards.iterdir()} == {"model_model_mp_0.pt", "model_model_mp_1.pt", "original.json"}
    again = convert(shards, tmp_path / "again", original_config=shards / "original.json")
    assert equal(wf.load(again).state_dict(), component.state_dict())
    (shards / "model_model_mp_0.pt").unlink()
    with pytest.raises(CheckpointError, match=r"rank \[0\] is amiss"):
        convert(shards, tmp_path / "gap", original_config=shards / "original.json")
    _, tokenizer_folder = saved(tmp_path / "other", "tokenizer")
    with pytest.raises(UsageError, match="'tokenizer' in original layout is not written in shards"):
        convert(tokenizer_folder, tmp_path / "no", to="original", tensor_parallel=2)


def test_what_an_autoregressive_checkpoint_cannot_become(tmp_path):
    _, ours = saved(tmp_path, "autoregressive")
    with pytest.raises(CheckpointError, match="no diffusers layout for an autoregressive"):
        convert(ours, tmp_path / "diffusers", to="diffusers")
    heads = save_component(tmp_path / "heads", Transformer(ar_size("debug")), kind="autoregressive", provenance={})
    with pytest.raises(CheckpointError, match="2 Medusa heads, which the published layout cannot hold"):
        convert(heads, tmp_path / "original", to="original")


def test_a_published_transformer_is_known_by_name(tmp_path):
    """The error shows that the 4B's shapes were asked for."""
    torch.save({"model": {"model.tok_embeddings.weight": torch.zeros(2, 2)}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"embed.weight is \[2, 2\], config says \[64000, 4096\]"):
        convert(tmp_path / "model.pt", tmp_path / "out", original_config="Cosmos-Predict1-4B")
