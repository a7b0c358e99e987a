"""Adapters of worlds: written and read in PEFT's layout, merged with their defaults, refused for other worlds."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import worldfoundry as wf
from worldfoundry.cli.generate import GenerateConfig, _load
from worldfoundry.cli.main import main
from worldfoundry.core import shipped
from worldfoundry.core.errors import CheckpointError, ConfigError
from worldfoundry.inference.adapters import AdapterDefaults, base_hashes, read_adapter, save_adapter
from worldfoundry.inference.world_folder import save_world
from worldfoundry.nn.int8 import quantize_linears
from worldfoundry.nn.lora import new_lora


def filled(network, seed=0, **options):
    lora = new_lora(network, **{"rank": 2, **options})
    for i, parameter in enumerate(lora.parameters()):
        nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(seed + i))
    return lora


def saved(folder, world, **defaults):
    lora = filled(world.network)
    provenance = {"world": "my-world"}
    return save_adapter(
        folder, lora, world.network, defaults=AdapterDefaults(**defaults), provenance=provenance, card="", dtype=torch.float32
    )


@pytest.fixture
def world(make_world):
    return make_world()


def test_tensors_have_the_names_of_diffusers_network(world, tmp_path):
    tensors = load_file(saved(tmp_path / "a", world) / "adapter_model.safetensors")
    own = world.network.blocks[0]
    prefix = "base_model.model.transformer_blocks.0"
    assert tensors[f"{prefix}.attn1.to_k.lora_A.weight"].shape == (2, 32)
    assert tensors[f"{prefix}.attn2.to_v.lora_A.weight"].shape == (2, own.cross_attention.to_kv.in_features)
    assert tensors[f"{prefix}.ff.net.0.proj.lora_B.weight"].shape == (own.mlp.up.out_features, 2)
    assert f"{prefix}.attn1.to_out.0.lora_B.weight" in tensors
    assert f"{prefix}.norm3.linear_2.lora_A.weight" in tensors
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 2, "my-world")
    assert {f"base_model.model.{module}.lora_A.weight" for module in config["target_modules"]} <= tensors.keys()


def test_loading_merges_and_takes_over_the_defaults(world, tmp_path, make_frames):
    lora = filled(world.network)
    folder = saved(tmp_path / "a", world, num_inference_steps=1, scheduler={"sigma_max": 7.0})
    before = world.network.blocks[0].self_attention.to_qkv.weight.clone()
    world.load_adapter(folder, weight=0.5)
    delta = lora.layers()["blocks.0.self_attention.to_qkv"].delta()
    torch.testing.assert_close(world.network.blocks[0].self_attention.to_qkv.weight, before + 0.5 * delta)
    assert (world.config.num_inference_steps, world.scheduler.sigma_max, world.config.guidance_scale) == (1, 7.0, 0.0)
    steps = []
    video = world.generate(input=make_frames(5), callback_on_step_end=lambda step, *_: steps.append(step))
    assert len(steps) == 1
    assert video.config["adapters"] == {str(folder): 0.5}
    world.load_adapter(folder, weight=0.5)  # the base is still known by what it was before
    torch.testing.assert_close(world.network.blocks[0].self_attention.to_qkv.weight, before + delta)


def test_an_adapter_of_another_world_is_refused_and_changes_nothing(world, make_world, tmp_path):
    folder, other = saved(tmp_path / "a", world), make_world()
    other.network.patch_embed.weight.mul_(1.5)
    before = other.network.blocks[0].mlp.up.weight.clone()
    with pytest.raises(CheckpointError, match=r"belongs to a world with other weights.*Load it into 'my-world'"):
        other.load_adapter(folder)
    assert torch.equal(other.network.blocks[0].mlp.up.weight, before)
    assert other.adapters == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_base_is_known_in_any_precision(world, dtype):
    hashes = base_hashes(world.network)
    assert base_hashes(world.network.to(dtype))[0] in hashes
    assert base_hashes(world.network.float())[0] in hashes  # stored in that precision, loaded in float32


@pytest.mark.parametrize(
    ("scheduler", "error", "words"),
    [
        ({"samplr": "heun"}, ConfigError, r"a/defaults\.json: scheduler: samplr: unknown field"),
        (
            {"parametrization": "rectified_flow"},
            CheckpointError,
            "world with parametrization 'rectified_flow'; this one has 'edm'",
        ),
        ({"frame_levels": True}, CheckpointError, "world with frame_levels True; this one has False"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_refused_and_changes_nothing(world, tmp_path, scheduler, error, words):
    folder, before = saved(tmp_path / "a", world, scheduler=scheduler), base_hashes(world.network)
    with pytest.raises(error, match=words):
        world.load_adapter(folder)
    assert (base_hashes(world.network), world.adapters) == (before, {})


def test_the_record_tells_how_much_of_an_adapter_is_in_the_world(world, tmp_path):
    folder = saved(tmp_path / "a", world)
    for weight in (0.5, 0.25):
        world.load_adapter(folder, weight)
    assert world.adapters == {str(folder): 0.75}


def test_an_adapter_without_provenance_is_taken_as_it_is(world, tmp_path):
    folder = saved(tmp_path / "a", world)
    for name in ("provenance.json", "defaults.json"):
        (folder / name).unlink()
    config = world.config
    world.load_adapter(folder)
    assert world.config == config


def test_networks_that_it_cannot_be_merged_into(world, make_world, tmp_path):
    folder = saved(tmp_path / "a", world)
    quantize_linears(world.network.blocks)
    with pytest.raises(CheckpointError, match=r"no linear layer 'blocks\.0.*before the network is quantised"):
        world.load_adapter(folder)
    tensors = {name: tensor[:, :-1] if "lora_A" in name else tensor for name, tensor in read_tensors(folder).items()}
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"addition to 'blocks\.0\.\S+' is .*, but the layer is"):
        make_world().load_adapter(folder)


def read_tensors(folder):
    return load_file(folder / "adapter_model.safetensors")


def test_damaged_folders_are_one_line(world, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no adapter: it has no 'adapter_config\.json'"):
        world.load_adapter(tmp_path)
    folder = saved(tmp_path / "a", world)
    (folder / "defaults.json").write_text('{"num_steps": 1}')
    with pytest.raises(ConfigError, match=r"num_steps: unknown field\. Did you mean 'num_inference_steps'"):
        read_adapter(folder, world.network)
    (folder / "adapter_model.safetensors").write_bytes(b"0" * 20)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_adapter(folder, world.network)


def test_an_adapter_is_listed_and_loading_it_says_how_to_use_it(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("WORLDFOUNDRY_CACHE", str(tmp_path))
    saved(tmp_path / "weights" / "nano-student", world)
    assert main(["models", "list"]) == 0
    assert re.search(r"nano-student +adapter, ", capsys.readouterr().out)
    with pytest.raises(CheckpointError, match=r"'nano-student' is an adapter.*world\.load_adapter\('nano-student'\)"):
        wf.load("nano-student")
    world.load_adapter("nano-student")
    assert world.adapters == {"nano-student": 1.0}


def test_generate_takes_an_adapter(world, tmp_path, make_frames):
    from worldfoundry.core.video_io import write_video

    folder = saved(tmp_path / "a", world, num_inference_steps=1)
    save_world(tmp_path / "world", world, provenance={}, card="")
    write_video(tmp_path / "in.mp4", make_frames(5), 12.0)
    words = ["generate", "--world", str(tmp_path / "world"), "--input", str(tmp_path / "in.mp4"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out.mp4"), "--adapter", str(folder), "--adapter-weight", "0.5"]) == 0
    record = json.loads((tmp_path / "out.json").read_text())["config"]
    assert (record["num_inference_steps"], record["adapters"]) == (1, {str(folder): 0.5})


@pytest.mark.parametrize("offload", ["auto", "sequential"])
def test_generate_merges_an_adapter_before_it_rounds_the_weights(world, tmp_path, offload):
    folder = saved(tmp_path / "a", world)
    save_world(tmp_path / "world", world, provenance={}, card="")
    config = GenerateConfig(world=tmp_path / "world", adapter=folder, weights="int8", device="cpu", offload=offload)
    rounded = _load(config)
    world.load_adapter(folder)
    world.quantize()
    assert rounded.adapters == {str(folder): 1.0}
    assert rounded.provenance["weights"] == "int8"
    assert torch.equal(rounded.network.blocks[0].mlp.up.weight, world.network.blocks[0].mlp.up.weight)
    assert rounded.network.blocks[0].mlp.up.weight.dtype == torch.int8
