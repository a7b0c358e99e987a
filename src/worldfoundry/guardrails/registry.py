"""The guards by name. The name of a guard is also the field of `GuardPolicy` that holds its options."""

from typing import Any, Literal

from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.core.registry import resolve

GUARDS: dict[str, dict[str, str]] = {
    "text": {"blocklist": "worldfoundry.guardrails.text:BlocklistGuard"},
    "video": {"flash": "worldfoundry.guardrails.flash:FlashGuard"},
}


def guard_class(takes: Literal["text", "video"], name: str) -> Any:
    """The class of a guard. Raises ConfigError with a suggestion for an unknown name."""
    if name not in GUARDS[takes]:
        raise ConfigError(f"Unknown {takes} guard {name!r}.", did_you_mean(name, list(GUARDS[takes])))
    return resolve(GUARDS[takes][name])
