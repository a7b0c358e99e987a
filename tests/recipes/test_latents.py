"""The cache of training windows with a discrete tokenizer: indices, made once, refused when made of anything else."""

import numpy as np
import pytest
import torch

from worldfoundry.core.errors import DataError
from worldfoundry.data.clips import ClipDataset
from worldfoundry.recipes.config import StageConfig, WindowConfig
from worldfoundry.recipes.latents import encode_stages, encode_windows
from worldfoundry.recipes.plan import Group, joined_stream, plan
from worldfoundry.recipes.windows import iter_windows, split
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.methods.tokenizer import to_float
from worldfoundry.training.streams import TensorStream

CLIPS = [("a", 17, 16, 16), ("b", 17, 16, 32), ("c", 9, 32, 16), ("d", 9, 16, 16)]
WINDOW = WindowConfig(num_frames=9, height=16, width=16, stride=8, held_out_fraction=0.25)


class Options:
    window, batch_size, image_share, image_batch_size = WINDOW, 2, 0.5, None
    stages = (StageConfig(share=0.5, num_frames=5),)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(named_config("debug-dv4x8x8").to_dict()).eval().requires_grad_(False)


@pytest.fixture
def dataset(make_dataset):
    return ClipDataset(make_dataset(CLIPS))


def group(dataset):
    return Group(window=WINDOW, records=split(dataset, WINDOW).train, batch_size=2, padded=False, images=False)


def test_every_window_is_kept_as_the_indices_of_its_frames(dataset, tokenizer, tmp_path):
    found = encode_windows(dataset, group(dataset), tokenizer, tmp_path, "these")
    windows = [w for ws in iter_windows(dataset, group(dataset).records, WINDOW) for w in ws]
    expected = torch.cat([tokenizer.encode_indices(to_float(torch.from_numpy(np.stack([w.frames])))) for w in windows])
    assert found.latents.dtype == torch.int32
    assert found.latents.shape == expected.shape == (len(windows), 3, 2, 2)
    assert (found.latents == expected).float().mean() > 0.9  # encoding in half precision may round to a neighbouring code
    assert [record.key for record in found.records] == [w.record.key for w in windows]


def test_nothing_is_encoded_twice_and_other_windows_are_refused(dataset, tokenizer, tmp_path, monkeypatch):
    first = encode_windows(dataset, group(dataset), tokenizer, tmp_path, "these")
    monkeypatch.setattr("worldfoundry.recipes.latents.encode", lambda *_: pytest.fail("encoded again"))
    again = encode_windows(dataset, group(dataset), tokenizer, tmp_path, "these")
    assert torch.equal(first.latents, again.latents)
    with pytest.raises(DataError, match="was made with windows 'these', but 'others' is asked for"):
        encode_windows(dataset, group(dataset), tokenizer, tmp_path, "others")


def test_stages_and_images_are_streams_of_indices_of_their_own(dataset, tokenizer, tmp_path):
    stages = plan(Options(), dataset, split(dataset, WINDOW), tokenizer.spec)
    sets = encode_stages(dataset, stages, tokenizer, tmp_path / "tokens")
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == sorted(sets)
    stream = joined_stream(
        stages, lambda g: TensorStream({"indices": sets[g.name].latents}, g.batch_size, 0), image_share=0.5, seed=0
    )
    frames = []
    for progress in (0.0, 0.9):
        stream.begin_step(progress)
        frames.append({stream.next_batch()["indices"].shape[1] for _ in range(20)})
    assert frames == [{1, 2}, {1, 3}]
