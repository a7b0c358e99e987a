"""The policy: which guards look, with which thresholds, and what happens when one of them objects.

One typed value. It is on by default; whatever it leaves out or lets pass has to be said, with a reason that every output records.
"""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from worldfoundry.core.config import Config
from worldfoundry.core.errors import ConfigError
from worldfoundry.guardrails.classifier import ClassifierConfig
from worldfoundry.guardrails.faces import FacesConfig
from worldfoundry.guardrails.flash import FlashConfig
from worldfoundry.guardrails.llm import LlmConfig
from worldfoundry.guardrails.nsfw import NsfwConfig
from worldfoundry.guardrails.registry import GUARDS, guard_class, is_own
from worldfoundry.guardrails.siglip7 import Siglip7Config
from worldfoundry.guardrails.text import BlocklistConfig

Action = Literal["block", "warn", "blur"]
Preset = Literal["balanced", "strict", "off"]
PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "strict": {"text_guards": ("blocklist", "classifier"), "flash": {"area": 0.1}},
    "off": {"action": "off"},
}
"""What a preset puts in the place of options that were left at their default."""


class GuardPolicy(Config):
    """Which guards look at prompts and frames, and what happens when one of them objects. On by default.

    GuardPolicy()                                             # balanced
    GuardPolicy(preset="strict")
    GuardPolicy(preset="off", reason="own weights, closed lab")
    GuardPolicy(actions={"profanity": "warn"}, reason="dialogue of a film")
    """

    preset: Preset = "balanced"
    """balanced; strict: also the learned text classifier, and lower thresholds; off: no guard looks. Other options count for more."""
    action: Literal["block", "warn", "off"] = "block"
    """block: nothing unsafe or unchecked leaves. warn: guards look and objections are printed. off: no guard looks."""
    actions: dict[str, Action] = Field(default_factory=dict)
    """Exceptions by category or guard, such as profanity warn. blur, block or warn for those that change frames (faces)."""
    reason: str = ""
    """Why something is let pass; required then, and recorded with every output."""
    text_guards: tuple[str, ...] = ("blocklist",)
    """Guards for prompts, by name or module:Class."""
    video_guards: tuple[str, ...] = ("flash", "nsfw")
    """Guards for frames, by name or module:Class."""
    transforms: tuple[str, ...] = ("faces",)
    """What is hidden in frames before the guards look and they leave, by name or module:Class."""
    timeout_s: float = Field(default=60.0, gt=0)
    """A guard that takes longer counts as failed; loading its weights does not count."""
    blocklist: BlocklistConfig = BlocklistConfig()
    """Word list for prompts."""
    classifier: ClassifierConfig = ClassifierConfig()
    """Learned classifier of prompts."""
    llm: LlmConfig = LlmConfig()
    """Language model that judges prompts, of your own."""
    flash: FlashConfig = FlashConfig()
    """Photosensitive flashing."""
    nsfw: NsfwConfig = NsfwConfig()
    """Nudity and sex in frames."""
    faces: FacesConfig = FacesConfig()
    """Pixelation of faces."""
    siglip7: Siglip7Config = Siglip7Config()
    """Cosmos' classifier of frames, with weights of your own."""

    @classmethod
    def off(cls, reason: str) -> Self:
        """No guard looks, for a reason that every output records."""
        return cls.from_dict({"preset": "off", "reason": reason})

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        """Fill what is at its default with the preset's value; what was given stays."""
        if not isinstance(values, dict) or values.get("preset", "balanced") not in PRESETS:
            return values
        return _filled(cls, values, PRESETS[values.get("preset", "balanced")])

    @field_validator("text_guards", "video_guards", "transforms")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        for name in names:
            try:
                if not is_own(name):  # which is imported when it is needed, and blocks if it cannot be
                    guard_class(info.field_name.removesuffix("_guards").removesuffix("s"), name)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return names

    @model_validator(mode="after")
    def _say_why(self) -> Self:
        if self.action != "block" and not self.reason.strip():
            raise ValueError(f"guards with action {self.action!r} need a reason, which is recorded with every output")
        passing = [name for name, action in self.actions.items() if action == "warn"]
        if passing and not self.reason.strip():
            raise ValueError(f"to let {passing[0]!r} pass with a warning needs a reason, which is recorded with every output")
        for field in ("text_guards", "video_guards", "transforms"):
            given, usual = getattr(self, field), type(self).model_fields[field].default
            missing = [name for name in usual if name not in given]
            # An empty list of guards needs no reason: it blocks. Without transforms nothing blocks, so that needs one.
            if missing and (given or field == "transforms") and not self.reason.strip():
                raise ValueError(f"{field} without {missing[0]!r} needs a reason, which is recorded with every output")
        fixed = [n for n, action in self.actions.items() if action == "blur" and n in {*GUARDS["text"], *GUARDS["video"]}]
        if fixed:
            raise ValueError(f"{fixed[0]!r} only looks and cannot blur; block and warn are possible")
        return self

    def action_for(self, guard: str, category: str = "", default: Action = "block") -> Action:
        """What happens to what a guard finds: as said of its category, else of the guard, else by default."""
        return self.actions.get(category) or self.actions.get(guard) or default

    def said(self) -> str:
        """In a few words: `block`, or what is let pass and why."""
        loose = [f"{name} {action}" for name, action in sorted(self.actions.items()) if action == "warn"]
        words = ", ".join([self.action, *loose])
        return f"{words}: {self.reason}" if self.reason else words


def _filled(cls: type[Config], values: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """`values` with the preset's for the fields that hold their default."""
    out = dict(values)
    for name, wanted in preset.items():
        default = cls.model_fields[name].get_default(call_default_factory=True)
        given = out.get(name, default)
        if isinstance(default, Config):
            given = given.model_dump() if isinstance(given, Config) else dict(given)
            out[name] = _filled(type(default), given, wanted)
        elif given == default or (isinstance(given, list) and tuple(given) == default):
            out[name] = wanted
    return out
