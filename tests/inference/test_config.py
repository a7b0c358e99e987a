"""The options of sampling: what they name exists, and bad ones give one line."""

from typing import get_args

import pytest

from worldfoundry.core.errors import ConfigError
from worldfoundry.diffusion.parametrization import PARAMETRIZATIONS
from worldfoundry.diffusion.samplers import SAMPLERS
from worldfoundry.diffusion.schedule import noise_levels
from worldfoundry.inference.config import SchedulerConfig


def choices(field):
    return get_args(SchedulerConfig.model_fields[field].annotation)


def test_choices_are_the_parts_that_exist():
    assert set(choices("sampler")) == set(SAMPLERS)
    assert set(choices("parametrization")) == set(PARAMETRIZATIONS)
    for schedule in choices("schedule"):
        assert len(noise_levels(schedule, 3)) == 4


def test_old_folders_sample_as_before():
    """A scheduler file of before these fields means EDM on Karras levels, guided everywhere."""
    config = SchedulerConfig.from_dict({"sigma_min": 0.01, "sigma_max": 10.0, "sigma_data": 0.5, "rho": 5.0, "sampler": "heun"})
    assert (config.parametrization, config.schedule, config.shift, config.guidance_interval) == ("edm", "karras", 1.0, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance_interval": (5.0, 0.3)}, r"scheduler: guidance_interval \(5, 0.3\) must satisfy 0 <= low < high\."),
        ({"guidance_interval": (-1.0, 0.3)}, "must satisfy 0 <= low < high"),
        ({"shift": 5.0}, "shift \\(5\\) belongs to schedule 'flow', not to 'karras'"),
        ({"schedule": "flow", "shift": 0.0}, r"shift: .*greater than 0 \(got 0.0; allowed: > 0\)"),
        ({"sampler": "ddim"}, "sampler: must be 'euler', 'heun', 'dpmpp_2m' or 'res_2m' \\(got 'ddim'\\)"),
    ],
)
def test_bad_options_are_refused_in_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SchedulerConfig.from_dict(fields, where="scheduler")
    assert "\n" not in str(caught.value)


def test_ending_at_sigma_min_belongs_to_karras():
    with pytest.raises(ConfigError, match="belongs to schedule 'karras'"):
        SchedulerConfig.from_dict({"final_sigmas_type": "sigma_min", "schedule": "flow"})
