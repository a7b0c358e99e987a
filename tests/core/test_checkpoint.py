"""A checkpoint loads completely and as it was, or not at all with the reason."""

import json

import pytest
import torch
from torch import nn

from worldfoundry.core import registry
from worldfoundry.core.checkpoint import FORMAT, fill, load_component, read_config, read_weights, save_component, weightless
from worldfoundry.core.config import Config
from worldfoundry.core.errors import CheckpointError, UsageError


class ToyConfig(Config):
    width: int = 4
    """Width."""


class Toy(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.width, config.width)
        self.second = nn.Linear(config.width, config.width)
        self.second.weight = self.first.weight  # tied, as an embedding and its head often are
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("view", torch.arange(10.0)[2:5])


def build_toy(fields):
    return Toy(ToyConfig.from_dict(fields))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A saved toy component."""
    monkeypatch.setitem(registry.KINDS, "toy", f"{__name__}:build_toy")
    monkeypatch.setattr(registry, "resolve", lambda target: build_toy)
    torch.manual_seed(0)
    return save_component(tmp_path / "toy", Toy(ToyConfig()), kind="toy", provenance={"seed": 0})


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    values.update(changes)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def rewrite(folder, change):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_round_trip_is_exact_and_ready_for_use(folder):
    torch.manual_seed(0)
    original, loaded = Toy(ToyConfig()), load_component(folder)
    assert all(torch.equal(a, b) for a, b in zip(original.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert loaded.config == ToyConfig()
    assert loaded.provenance["seed"] == 0
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert (folder / "README.md").read_text().startswith("---\n")
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "provenance.json"}


def test_tied_weights_stay_tied(folder):
    loaded = load_component(folder)
    assert loaded.first.weight is loaded.second.weight


def test_a_buffer_that_only_the_constructor_knows_is_not_left_empty():
    with weightless():
        net = nn.Linear(2, 2)
        net.register_buffer("scale", torch.ones(1), persistent=False)
    with pytest.raises(ValueError, match="scale"):
        fill(net, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, where="here")


def test_dtype_none_keeps_the_stored_one(folder, tmp_path):
    half = save_component(tmp_path / "half", load_component(folder), kind="toy", provenance={}, dtype=torch.bfloat16)
    assert load_component(half).first.weight.dtype == torch.bfloat16
    assert load_component(half).steps.dtype == torch.int64
    assert load_component(half, dtype=torch.float32).first.weight.dtype == torch.float32
    rewrite(half, lambda state: state.update({"first.bias": state["first.bias"].float()}))
    assert load_component(half).first.bias.dtype == torch.float32  # mixed: the widest, so nothing is lost


def test_shards_hold_the_same_tensors(folder, tmp_path):
    whole = load_component(folder)
    sharded = save_component(tmp_path / "sharded", whole, kind="toy", provenance={}, shard_bytes=100)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert not (sharded / "model.safetensors").exists()
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in whole.state_dict().values())
    states = whole.state_dict(), load_component(sharded).state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    (sharded / sorted(set(index["weight_map"].values()))[0]).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load_component(sharded)


def test_an_index_cannot_point_outside_its_folder(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../toy/model.safetensors"}}))
    with pytest.raises(CheckpointError, match="malformed"):
        read_weights(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("first.bias"), "missing first.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update({"first.bias": torch.zeros(5)}), r"first.bias is \[5\], config says \[4\]"),
        (lambda s: s["first.bias"].fill_(float("nan")), "first.bias holds NaN"),
        (lambda s: s["first.bias"].fill_(float("inf")), "first.bias holds NaN or infinity"),
    ],
)
def test_weights_that_disagree_are_named(folder, change, words):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=words):
        load_component(folder)


def test_many_problems_are_counted(folder):
    with pytest.raises(
        CheckpointError, match=r"\(6 missing, 1 unexpected of 6 tensors\).*and 3 more missing; unexpected extra0"
    ):
        fill(load_component(folder), {f"extra{i}": torch.zeros(1) for i in range(1)}, where="here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "worldfoundry/99"}, "format 'worldfoundry/99'.*Update worldfoundry"),
        ({"format": None}, "format None.*worldfoundry convert"),
        ({"kind": None}, "names no kind"),
        ({"kind": "tok"}, "Unknown checkpoint kind 'tok'"),
        ({"widht": 4}, "widht"),
        ({"width": 5}, "config says"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder, changes, words):
    edit_config(folder, **changes)
    with pytest.raises(UsageError, match=words):
        load_component(folder)


def test_another_kind_than_expected(folder):
    assert read_config(folder)["kind"] == "toy"
    with pytest.raises(CheckpointError, match="holds a 'toy', but a 'dit' is needed"):
        load_component(folder, expect="dit")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"not weights"), "damaged"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-8]), "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "not a checkpoint folder"),
        (lambda f: (f / "config.json").write_text("[1]"), "must hold fields"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_damage_is_one_clear_error(folder, damage, words):
    damage(folder)
    with pytest.raises(UsageError, match=words) as error:
        load_component(folder)
    assert str(folder) in str(error.value)


def test_absent_folder(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_component(tmp_path / "nowhere")


def test_nothing_is_overwritten_unasked_and_a_failed_save_leaves_the_old(folder, monkeypatch):
    with pytest.raises(UsageError, match="already exists"):
        save_component(folder, load_component(folder), kind="toy", provenance={})
    before = (folder / "model.safetensors").read_bytes()
    toy = load_component(folder)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        save_component(folder, toy, kind="toy", provenance={}, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]


def test_format_is_versioned():
    assert FORMAT == "worldfoundry/1"
