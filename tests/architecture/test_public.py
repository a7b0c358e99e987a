"""What outsiders see: the public names, and an environment without the packages that break it."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

import worldfoundry

ROOT = Path(__file__).parents[2]
BANNED = ("torchvision", "torchcodec", "lightning", "pytorch-lightning", "hydra-core", "lerobot")


def test_public_names_are_these():
    assert set(worldfoundry.__all__) == {
        "GuardPolicy",
        "Verdict",
        "WorldFoundryError",
        "WorldVideo",
        "__version__",
        "curate",
        "from_original",
        "guard",
        "load",
    }
    assert dir(worldfoundry) == sorted(worldfoundry.__all__)


@pytest.mark.parametrize("name", worldfoundry.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(worldfoundry, name)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'laod'.*load"):
        _ = worldfoundry.laod


@pytest.mark.parametrize("name", ["torchvision", "torchcodec", "lightning"])
def test_packages_that_break_the_environment_are_not_installed(name):
    assert importlib.util.find_spec(name) is None


def test_no_dependency_asks_for_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    assert not [line for line in wanted if line.lower().startswith(BANNED)]


def test_version_is_the_one_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert worldfoundry.__version__ == project["version"]
