"""The averages against their closed forms, and that a resumed power average is the uninterrupted one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from worldfoundry.core.errors import ConfigError
from worldfoundry.training.config import LoopConfig
from worldfoundry.training.ema import EMA, PowerEMA, moving_average, power_gamma
from worldfoundry.training.loop import train
from worldfoundry.training.method import StepOutput
from worldfoundry.training.streams import TensorStream


class Regression:
    def __init__(self):
        torch.manual_seed(1)
        self.module = nn.Linear(4, 1)

    def training_step(self, batch, generator):
        noise = torch.randn(batch["y"].shape, generator=generator)
        return StepOutput(loss=(self.module(batch["x"]) - batch["y"] - noise).square().mean())

    def compile(self):
        raise AssertionError("not asked for")


def regression_stream():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    return TensorStream({"x": x, "y": x.sum(1, keepdim=True)}, batch_size=7, seed=0)


def averaged(ema_of, values):
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1e6)  # the start, which a power average must not remember
    ema = ema_of(module)
    for value in values:
        nn.init.constant_(module.weight, value)
        ema.update(module)
    return ema.average["weight"].item()


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_gamma_gives_the_deviation_asked_for(sigma_rel):
    gamma = power_gamma(sigma_rel)
    assert gamma > 0
    assert math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2) == pytest.approx(sigma_rel)
    tau = (np.arange(200_000) + 0.5) / 200_000  # the profile tau^gamma on [0, 1], measured
    weight = tau**gamma / (tau**gamma).sum()
    mean = (weight * tau).sum()
    assert math.sqrt((weight * (tau - mean) ** 2).sum()) == pytest.approx(sigma_rel, rel=1e-3)


def test_known_values():
    assert power_gamma(0.05) == pytest.approx(16.97, abs=0.01)  # the two that the paper uses
    assert power_gamma(0.10) == pytest.approx(6.94, abs=0.01)
    assert power_gamma(12**-0.5) == pytest.approx(0, abs=1e-6)  # the plain mean of all steps


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.28])
def test_the_power_average_is_its_closed_form(sigma_rel):
    values, power = np.sin(np.arange(1, 51)), power_gamma(sigma_rel) + 1
    i, n = np.arange(1, 51), 50
    weights = (i / n) ** power - ((i - 1) / n) ** power
    assert weights.sum() == pytest.approx(1)
    assert averaged(lambda m: PowerEMA(m, sigma_rel), values) == pytest.approx((weights * values).sum(), abs=1e-5)


def test_the_exponential_average_is_its_closed_form():
    values = [3.0, 1.0]
    first = 1e6 * 2 / 11 + 3.0 * 9 / 11
    assert averaged(lambda m: EMA(m, 0.999), values) == pytest.approx(first * 3 / 12 + 1.0 * 9 / 12)


def test_the_config_chooses():
    module = nn.Linear(1, 1)
    assert type(moving_average(module, LoopConfig(steps=1))) is EMA
    power = moving_average(module, LoopConfig(steps=1, ema="power", ema_sigma_rel=0.05))
    assert isinstance(power, PowerEMA)
    assert power.gamma == power_gamma(0.05)
    with pytest.raises(ConfigError, match="ema_sigma_rel"):
        LoopConfig.from_dict({"steps": 1, "ema_sigma_rel": 0.3})


def test_a_resumed_power_average_is_the_uninterrupted_one(tmp_path):
    config = LoopConfig(steps=20, ema="power", save_every_s=0.0001, precision="float32", compile="off")

    def run(folder, stop_at):
        def stop(step, ema):
            if step == stop_at:
                raise KeyboardInterrupt
            return {}

        return train(Regression(), regression_stream(), config, folder, callback=stop, callback_every_s=0.0)

    whole = run(tmp_path / "whole", None).ema.average
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 7)
    resumed = run(tmp_path / "cut", None).ema.average
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
