"""Worlds that name a shipped tokenizer instead of carrying a copy."""

import json

import pytest
import torch

from worldfoundry.conditioning.text import NullTextEncoder
from worldfoundry.core.errors import CheckpointError
from worldfoundry.diffusion.dit import DiT
from worldfoundry.inference.load import load
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.inference.world_folder import save_world

NAME = "nano-cv8x8x8"


@pytest.fixture
def folder(make_world, tmp_path):
    world, tokenizer = make_world(), load(NAME, dtype="float32")
    config = world.network.config.replace(in_channels=16, out_channels=16, action_dim=2 * 8 * 2)
    shared = DiffusionWorld(DiT(config), tokenizer, world.scheduler, world.config, encoder=NullTextEncoder(16, 3))
    return save_world(tmp_path / "world", shared, provenance={}, card="", shipped_tokenizer=NAME)


def test_a_world_that_names_its_tokenizer_carries_no_copy_and_decodes_with_it(folder):
    assert not (folder / "vae").exists()
    world, alone = load(folder, dtype="float32"), load(NAME, dtype="float32")
    for name, tensor in world.tokenizer.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


@pytest.mark.parametrize(("change", "says"), [({"sha256": "0"}, "other weights"), ({"shipped": "nano-xyz"}, "not part")])
def test_another_tokenizer_than_the_world_was_trained_with_is_refused(folder, change, says):
    index = json.loads((folder / "model_index.json").read_text())
    index["vae"][2].update(change)
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=says):
        load(folder)
