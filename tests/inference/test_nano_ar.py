"""The shipped `nano-ar`: small, whole, and its video is of the scene that it was given."""

import numpy as np
import pytest

import worldfoundry as wf
from worldfoundry.core.shipped import shipped_models
from worldfoundry.core.video_io import read_video
from worldfoundry.data.resize import fit
from worldfoundry.data.sample import sample_footage


@pytest.fixture(scope="module")
def world():
    return wf.load("nano-ar", dtype="float32")


def test_it_is_small_and_has_its_heads(world):
    assert shipped_models()["nano-ar"].size_mb <= 8.9
    assert world.network.config.medusa_heads == 5
    assert (world.config.num_frames, world.config.height, world.config.width) == (33, 128, 128)
    assert str(world.provenance["metrics"]["held_out_nll"]) in (shipped_models()["nano-ar"].folder / "README.md").read_text()


@pytest.mark.parametrize("given", [1, 9])
def test_it_goes_on_with_the_scene_that_it_is_given(world, given):
    """Further from a picture of one colour, and nearer to the true frames, than one colour is."""
    true = fit(read_video(min(sample_footage().glob("episode_*.mp4"))).frames[:17], 128, 128)
    request = world.resolve(num_frames=17, num_prefix_frames=given, seed=0)
    made = world.sample(request, [true[:given]])[0]
    assert np.array_equal(made[:given], true[:given])
    truth, future = true[given:].astype(float), made[given:].astype(float)
    flat = np.broadcast_to(truth.mean((1, 2), keepdims=True), truth.shape)
    assert np.square(future - truth).mean() < 0.5 * np.square(flat - truth).mean()
