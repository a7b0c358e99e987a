"""Every registered kind points at a factory that exists, and an unknown kind gets a suggestion."""

import pytest

from worldfoundry.core.errors import CheckpointError
from worldfoundry.core.registry import KINDS, factory_for, resolve


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_resolves_to_a_factory(kind):
    assert callable(factory_for(kind))


def test_unknown_kind_gets_a_suggestion():
    with pytest.raises(CheckpointError, match=r"Unknown checkpoint kind 'tokeniser'\. Did you mean 'tokenizer'"):
        factory_for("tokeniser")


def test_resolve_imports_an_attribute():
    assert resolve("worldfoundry.core.registry:KINDS") is KINDS
