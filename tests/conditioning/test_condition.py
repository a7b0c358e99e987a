"""The Condition value: rows, masks, its unconditional form."""

import pytest
import torch

from worldfoundry.conditioning.condition import Condition, join
from worldfoundry.core.errors import UsageError

ONE = Condition(
    context_BLD=torch.ones(1, 3, 4),
    fps_B=torch.tensor([10.0]),
    prefix_BCTHW=torch.ones(1, 2, 2, 4, 4),
    actions_BTA=torch.ones(1, 5, 6),
)


def test_one_row_serves_any_batch_and_others_must_match():
    three = ONE.batched(3)
    assert three.context_BLD.shape == (3, 3, 4)
    assert three.fps_B.tolist() == [10.0] * 3
    assert three.actions_BTA.shape == (3, 5, 6)
    with pytest.raises(UsageError, match="context_BLD has 3 rows for a batch of 2"):
        three.batched(2)


def test_condition_mask_counts_frames_per_sample():
    assert ONE.condition_mask(4)[:, 0, :, 0, 0].tolist() == [[1, 1, 0, 0]]
    counted = Condition(
        context_BLD=torch.ones(3, 3, 4), prefix_BCTHW=torch.ones(3, 2, 5, 4, 4), num_prefix_B=torch.tensor([0, 1, 9])
    )
    assert counted.condition_mask(5)[:, 0, :, 0, 0].tolist() == [[0] * 5, [1, 0, 0, 0, 0], [1] * 5]
    assert Condition(context_BLD=torch.ones(1, 3, 4)).condition_mask(4) is None
    with pytest.raises(UsageError, match="2 latent frames, more than the 1"):
        ONE.condition_mask(1)


def test_unconditional_changes_the_text_alone():
    empty = ONE.unconditional()
    assert not empty.context_BLD.any()
    assert empty.prefix_BCTHW is ONE.prefix_BCTHW
    assert empty.actions_BTA is ONE.actions_BTA
    negative = ONE.batched(2).unconditional(torch.full((1, 3, 4), 7.0))
    assert negative.context_BLD.shape == (2, 3, 4)
    with pytest.raises(UsageError, match="negative prompt"):
        ONE.unconditional(torch.zeros(1, 5, 4))


def test_join_stacks_rows_and_refuses_what_differs():
    both = join([ONE.batched(2), ONE.unconditional().batched(1)])
    assert both.context_BLD.mean(dim=(1, 2)).tolist() == [1.0, 1.0, 0.0]
    assert both.augment_noise_BCTHW is None
    with pytest.raises(UsageError, match="'prefix_BCTHW' cannot share a batch"):
        join([ONE, Condition(context_BLD=torch.ones(1, 3, 4), fps_B=torch.tensor([10.0]))])
    with pytest.raises(UsageError, match="'augment_sigma'"):
        join([ONE, Condition(**{**vars(ONE), "augment_sigma": 0.1})])


def test_to_casts_everything_but_the_frame_rate():
    half = ONE.to(dtype=torch.bfloat16)
    assert half.context_BLD.dtype == half.prefix_BCTHW.dtype == torch.bfloat16
    assert half.fps_B.dtype == torch.float32


def test_both_ends_are_marked_and_filled():
    prefix, suffix = torch.full((1, 2, 2, 1, 1), 3.0), torch.full((1, 2, 1, 1, 1), 7.0)
    both = Condition(context_BLD=torch.zeros(1, 1, 4), prefix_BCTHW=prefix, suffix_BCTHW=suffix)
    assert both.condition_mask(5).flatten().tolist() == [1, 1, 0, 0, 1]
    assert both.given_latents(torch.zeros(1, 2, 5, 1, 1))[0, 0].flatten().tolist() == [3, 3, 0, 0, 7]
    end = Condition(context_BLD=torch.zeros(1, 1, 4), suffix_BCTHW=suffix)
    assert end.batched(3).condition_mask(2).flatten().tolist() == [0, 1] * 3
    with pytest.raises(UsageError, match="The suffix has 1 latent frames, more than the 0"):
        end.condition_mask(0)


def test_ends_are_counted_per_sample():
    clip = torch.ones(3, 2, 4, 1, 1)
    condition = Condition(
        context_BLD=torch.zeros(1, 1, 4), prefix_BCTHW=clip, num_prefix_B=torch.tensor([1, 2, 0]),
        suffix_BCTHW=clip[:, :, -1:], num_suffix_B=torch.tensor([1, 0, 5]),
    )  # fmt: skip
    assert condition.condition_mask(4).flatten(1).tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]]
