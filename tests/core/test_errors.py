"""The tree at the top of errors.py is the tree of the classes, and every class has the exit code that it says."""

import inspect
import re

import pytest

from worldfoundry.core import errors
from worldfoundry.core.errors import MissingExtraError, UsageError, WorldFoundryError, did_you_mean

CLASSES = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, WorldFoundryError)
}
DRAWN = re.findall(r"^[│├└─ ]*(\w+)(?: +(\d))?(?: {2,}.*)?$", errors.__doc__, re.MULTILINE)


def test_every_class_is_drawn_with_its_exit_code():
    drawn = {name: int(code) for name, code in DRAWN if code}
    for name, value in CLASSES.items():
        if name in drawn:
            assert value.exit_code == drawn[name], name
    assert set(drawn) <= set(CLASSES)
    assert {name for name, value in CLASSES.items() if "exit_code" in vars(value)} <= set(drawn) | {"GuardError"}
    assert set(CLASSES) <= {name for name, _ in DRAWN}


@pytest.mark.parametrize(
    ("name", "code"), [("UsageError", 2), ("BlockedError", 3), ("GuardUnavailable", 4), ("ResourceError", 1)]
)
def test_exit_codes_of_the_design(name, code):
    assert CLASSES[name].exit_code == code


def test_message_and_hint_make_one_text():
    error = UsageError("It broke.", "Mend it.")
    assert (error.message, error.hint, str(error)) == ("It broke.", "Mend it.", "It broke. Mend it.")
    assert str(UsageError("It broke.")) == "It broke."


def test_missing_extra_gives_the_pip_line():
    assert "pip install 'worldfoundry[sim]'" in MissingExtraError("mujoco", "sim").hint


def test_did_you_mean_names_the_closest_or_everything():
    assert did_you_mean("trian", ["train", "curate"]) == "Did you mean 'train'?"
    assert did_you_mean("zzz", ["train", "curate"]) == "Known: train, curate."
