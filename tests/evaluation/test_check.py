"""The contract checker: every registered metric passes, and each kind of broken one is caught."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from worldfoundry.core.errors import WorldFoundryError
from worldfoundry.evaluation.bootstrap import ClipSums
from worldfoundry.evaluation.check import MetricContractError, check_metric
from worldfoundry.evaluation.metrics import METRICS, FrameSums, Psnr


@pytest.mark.parametrize("name", list(METRICS))
def test_every_registered_metric_keeps_the_contract(name):
    check_metric(METRICS[name])


class WrongPeak(Psnr):
    def sums(self, reference, generated, prefix_frames):
        good = super().sums(reference, generated, prefix_frames)
        return FrameSums(total_NF=good.total_NF, count_NF=good.count_NF * 1.1, decibel=True)


class IgnoresGenerated(Psnr):
    def sums(self, reference, generated, prefix_frames):
        return super().sums(reference, reference, prefix_frames)


class ChangesInput(Psnr):
    def sums(self, reference, generated, prefix_frames):
        generated[:, -1] = 0
        return super().sums(reference, generated, prefix_frames)


class WrapsUint8(Psnr):
    """Subtracts uint8 arrays, which wraps modulo 256: the classic mistake."""

    def sums(self, reference, generated, prefix_frames):
        error = (reference - generated)[:, prefix_frames:].astype(float)
        total = np.square(error).sum((2, 3, 4))
        return FrameSums(total_NF=total, count_NF=np.full(total.shape, float(np.prod(reference.shape[2:]))), decibel=True)


class SameProtocol(Psnr):
    def __call__(self, **inputs):
        return replace(super().__call__(**inputs), protocol="always")


class AcceptsAnything(Psnr):
    def __call__(self, **inputs):
        reference, generated = inputs["reference"], inputs["generated"].astype(np.uint8)
        clips, frames = min(len(reference), len(generated)), min(reference.shape[1], generated.shape[1])
        shared = {"reference": reference[:clips, :frames], "generated": generated[:clips, :frames]}
        return super().__call__(**shared, prefix_frames=inputs["prefix_frames"])


class JustANumber(Psnr):
    def __call__(self, **inputs) -> Any:
        return 30.0


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (WrongPeak(), "closed form"),
        (IgnoresGenerated(), "noise"),
        (ChangesInput(), "changes its inputs|truth itself"),
        (WrapsUint8(), "closed form|noise"),
        (SameProtocol(), "protocol hash is the same"),
        (AcceptsAnything(), "without complaint"),
        (JustANumber(), "not MetricResult"),
        (lambda **_: 30.0, "does not declare name, inputs, tier, better, perfect"),
    ],
    ids=["peak", "ignores", "mutates", "wraps", "protocol", "accepts", "float", "function"],
)
def test_a_broken_metric_fails(broken, complaint):
    with pytest.raises(MetricContractError, match=complaint) as error:
        check_metric(broken)
    assert isinstance(error.value, WorldFoundryError)


def test_pooled_value_of_no_clip_is_not_a_number():
    assert np.isnan(ClipSums(total_N=np.zeros(3), count_N=np.zeros(3), decibel=True).value())
