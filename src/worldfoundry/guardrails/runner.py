"""The fail-closed runner: every configured guard looks, and only a well-formed `safe` from each of them lets an item pass.

A guard that raises, hangs, answers something else than its own verdict, or could not be built (missing weights) yields an
`error` verdict; no guard configured yields one too. Switching guards off is possible, but has to be said with a reason,
which is written into the verdicts of every output.
"""

import threading
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from worldfoundry.core.config import Config
from worldfoundry.core.contracts import Guard, Verdict, VerdictStatus, VideoItem
from worldfoundry.core.errors import BlockedError, ConfigError, GuardUnavailable
from worldfoundry.core.progress import say
from worldfoundry.guardrails.flash import FlashConfig
from worldfoundry.guardrails.registry import GUARDS, guard_class
from worldfoundry.guardrails.text import BlocklistConfig

Takes = Literal["text", "video"]


class GuardPolicy(Config):
    """Which guards look at prompts and frames, and what happens when one of them objects. On by default."""

    action: Literal["block", "warn", "off"] = "block"
    """block: nothing unsafe or unchecked leaves. warn: guards look and objections are printed. off: no guard looks."""
    reason: str = ""
    """Why the action is not `block`; required then, and recorded with every output."""
    text_guards: tuple[str, ...] = ("blocklist",)
    """Guards for prompts."""
    video_guards: tuple[str, ...] = ("flash",)
    """Guards for frames."""
    timeout_s: float = Field(default=60.0, gt=0)
    """A guard that takes longer counts as failed."""
    blocklist: BlocklistConfig = BlocklistConfig()
    """Word list for prompts."""
    flash: FlashConfig = FlashConfig()
    """Photosensitive flashing."""

    @field_validator("text_guards", "video_guards")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        for name in names:
            try:
                guard_class(info.field_name.removesuffix("_guards"), name)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return names

    @model_validator(mode="after")
    def _say_why(self) -> Self:
        if self.action != "block" and not self.reason.strip():
            raise ValueError(f"guards with action {self.action!r} need a reason, which is recorded with every output")
        return self


class Guardrails:
    """The guards of a policy, ready to look.

    guardrails = Guardrails.from_policy(GuardPolicy())
    guardrails.enforce_text("the arm lifts the cube")     # a tuple of verdicts, or BlockedError, or GuardUnavailable
    """

    def __init__(self, policy: GuardPolicy, text: Sequence[Guard], video: Sequence[Guard]) -> None:
        self.policy, self.text, self.video = policy, tuple(text), tuple(video)

    @classmethod
    def from_policy(cls, policy: GuardPolicy) -> Self:
        """Build the guards that the policy names. One that cannot be built stays in, and answers with the reason."""
        if policy.action == "off":
            return cls(policy, (), ())
        return cls(
            policy,
            [_build("text", name, policy) for name in policy.text_guards],
            [_build("video", name, policy) for name in policy.video_guards],
        )

    def check_text(self, text: str) -> tuple[Verdict, ...]:
        """What every text guard says."""
        return self._check(self.text, "text", text)

    def check_video(self, frames: np.ndarray, fps: float) -> tuple[Verdict, ...]:
        """What every video guard says about uint8 THWC frames shown at `fps`. The guards see a read-only view."""
        if isinstance(frames, np.ndarray):
            frames = frames.view()
            frames.flags.writeable = False
        return self._check(self.video, "video", VideoItem(frames=frames, fps=fps))

    def enforce_text(self, text: str) -> tuple[Verdict, ...]:
        """The verdicts if the text may pass. Raises BlockedError (unsafe) or GuardUnavailable (somebody could not look)."""
        return self._enforce("prompt", self.check_text(text))

    def enforce_video(self, frames: np.ndarray, fps: float) -> tuple[Verdict, ...]:
        """The verdicts if the frames may leave. Raises BlockedError (unsafe) or GuardUnavailable (somebody could not look)."""
        return self._enforce("video", self.check_video(frames, fps))

    def _check(self, guards: tuple[Guard, ...], takes: Takes, item: Any) -> tuple[Verdict, ...]:
        if self.policy.action == "off":
            reason = f"guards are switched off: {self.policy.reason}"
            return (Verdict(status="skipped", guard="policy", category=takes, reason=reason),)
        if not guards:
            fix = f"Name at least one in {takes}_guards, or set action to off with a reason."
            return (_failed("policy", f"no {takes} guard is configured", fix),)
        return tuple(run_guard(guard, item, self.policy.timeout_s) for guard in guards)

    def _enforce(self, what: str, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        against = [verdict for verdict in verdicts if verdict.status != "safe"]
        if self.policy.action != "block":
            for verdict in against:
                say(f"warning: {what}: {describe(verdict)}")
            return verdicts
        if any(verdict.status == "unsafe" for verdict in against):
            text = "; ".join(describe(verdict) for verdict in against if verdict.status == "unsafe")
            raise BlockedError(
                f"The {what} was blocked: {text}.",
                "Change it and try again; `worldfoundry guard` shows every verdict.",
                verdicts,
            )
        if against or not verdicts:
            text = "; ".join(describe(verdict) for verdict in against)
            fixes = " ".join(dict.fromkeys(str(v.evidence["fix"]) for v in against if v.evidence.get("fix")))
            raise GuardUnavailable(f"The {what} could not be checked, so it is blocked: {text}.", fixes, verdicts)
        return verdicts


def describe(verdict: Verdict) -> str:
    """`guard (category): reason` in one line."""
    return f"{verdict.guard}{f' ({verdict.category})' if verdict.category else ''}: {verdict.reason or verdict.status}"


def run_guard(guard: Guard, item: Any, timeout_s: float) -> Verdict:
    """One guard's verdict, or an `error` verdict in its name for whatever else happens.

    The guard runs in a thread, so that one that hangs can be given up; it is left behind, and ends with the process.
    """
    name = str(getattr(guard, "name", type(guard).__name__))
    answers: list[Any] = []

    def look() -> None:
        try:
            answers.append(guard.check(item))
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, it must block, not pass
            answers.append(_failed(name, f"the guard failed with {type(error).__name__}: {error}", "Run again with --debug."))

    thread = threading.Thread(target=look, name=f"guard-{name}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return _failed(name, f"no answer within {timeout_s:g} s", "Raise timeout_s, or give the guard less to look at.")
    return _well_formed(answers[0] if answers else None, name)


def _well_formed(answer: Any, name: str) -> Verdict:
    if type(answer) is not Verdict:
        return _failed(name, f"the guard answered with {type(answer).__name__} instead of a verdict", "This guard is broken.")
    if answer.status not in get_args(VerdictStatus) or answer.guard != name:
        return _failed(name, f"malformed verdict: status {answer.status!r} by {answer.guard!r}", "This guard is broken.")
    return answer


def _failed(name: str, reason: str, fix: str) -> Verdict:
    return Verdict(status="error", guard=name, reason=reason, evidence={"fix": fix})


def _build(takes: Takes, name: str, policy: GuardPolicy) -> Guard:
    try:
        return guard_class(takes, name)(getattr(policy, name))
    except Exception as error:  # noqa: BLE001  # a guard that cannot be built must block, and say why
        hint = str(getattr(error, "hint", "")) or "Run `worldfoundry doctor`."
        return _Absent(name, takes, f"it could not be made ready: {type(error).__name__}: {error}", hint)


class _Absent:
    """Stands in for a guard that could not be built."""

    def __init__(self, name: str, takes: Takes, reason: str, fix: str) -> None:
        self.name, self.reason, self.fix = name, reason, fix
        self.takes: Takes = takes

    def check(self, item: Any) -> Verdict:
        return _failed(self.name, self.reason, self.fix)


def registered() -> list[tuple[Takes, str]]:
    """(what it takes, name) of every guard that ships."""
    return [(takes, name) for takes in get_args(Takes) for name in GUARDS[takes]]
