"""The guards by name. The name of a guard is also the field of `GuardPolicy` that holds its options.

A guard of your own needs no line here: a policy also takes `module:Class`, which is made without arguments.
Modules named here are imported by their config at the start of every command: they import torch only where they need it.
"""

from typing import Any, Literal

from worldfoundry.core.errors import ConfigError, did_you_mean
from worldfoundry.core.registry import resolve

Kind = Literal["text", "video", "transform"]

GUARDS: dict[Kind, dict[str, str]] = {
    "text": {
        "blocklist": "worldfoundry.guardrails.text:BlocklistGuard",
        "classifier": "worldfoundry.guardrails.classifier:ClassifierGuard",
        "llm": "worldfoundry.guardrails.llm:LlmGuard",
    },
    "video": {
        "flash": "worldfoundry.guardrails.flash:FlashGuard",
        "nsfw": "worldfoundry.guardrails.nsfw:NsfwGuard",
        "siglip7": "worldfoundry.guardrails.siglip7:Siglip7Guard",
    },
    "transform": {"faces": "worldfoundry.guardrails.faces:FaceFilter"},
}


def guard_class(kind: Kind, name: str) -> Any:
    """The class of a guard. Raises ConfigError with a suggestion for an unknown name."""
    if is_own(name):
        return resolve(name)
    if name not in GUARDS[kind]:
        known = did_you_mean(name, list(GUARDS[kind])) if GUARDS[kind] else "None is known."
        raise ConfigError(f"Unknown {kind} guard {name!r}.", f"{known} A guard of your own is named module:Class.")
    return resolve(GUARDS[kind][name])


def is_own(name: str) -> bool:
    """Whether a name is the `module:Class` of somebody's own guard."""
    module, colon, attribute = name.partition(":")
    return bool(colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")))


def registered() -> list[tuple[Kind, str]]:
    """(kind, name) of every guard that ships."""
    return [(kind, name) for kind, names in GUARDS.items() for name in names]
