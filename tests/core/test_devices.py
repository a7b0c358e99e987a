"""Devices and dtypes are chosen by name; what this machine lacks is said so."""

import pytest
import torch

from worldfoundry.core import devices
from worldfoundry.core.devices import (
    available_cores,
    cpu_flags,
    fast_bfloat16,
    free_memory,
    hardware,
    package_version,
    pick_device,
    pick_dtype,
)
from worldfoundry.core.errors import ConfigError


def test_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu:x", "meta", "xpu", "cuda:-1", "cuda:", ""])
def test_a_device_that_is_not_here_is_a_config_error(name):
    with pytest.raises(ConfigError, match=name or "device"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_on_a_cpu_machine_says_what_to_use():
    with pytest.raises(ConfigError) as error:
        pick_device("cuda")
    assert "--device cpu" in error.value.hint


def test_dtype_by_name():
    assert pick_dtype(None) is None
    assert pick_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ConfigError, match="'float8'"):
        pick_dtype("float8")


def test_hardware_names_what_a_result_must_name():
    facts = hardware()
    assert {"cpu", "cores", "memory_gib", "gpus", "platform", "python", "torch"} <= set(facts)
    assert facts["cores"] == available_cores() >= 1
    assert facts["memory_gib"] > 0


def test_fast_bfloat16_agrees_with_the_cpu_flags():
    assert fast_bfloat16(torch.device("cpu")) == bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
    assert not fast_bfloat16(torch.device("meta"))


def test_package_version():
    assert package_version("torch") == torch.__version__.split("+")[0] or package_version("torch") == torch.__version__
    assert package_version("no-such-package-at-all") is None


def test_free_memory_of_this_machine_and_of_a_container(monkeypatch):
    cpu = torch.device("cpu")
    assert 2**24 < free_memory(cpu) < 2**50
    assert free_memory(torch.device("meta")) == devices.NO_LIMIT
    monkeypatch.setattr(devices, "_container_memory", lambda: 5)
    assert free_memory(cpu) == 5
