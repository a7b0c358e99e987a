"""The fail-closed runner: every configured guard looks, and only a well-formed `safe` from each of them lets an item pass.

A guard that raises, hangs, answers something else than its own verdict, or could not be built (missing weights) yields an
`error` verdict; no guard configured yields one too. Switching guards off is possible, but has to be said with a reason,
which is written into the verdicts of every output.

Frames are first changed by what hides things in them (faces), then looked at: exactly what leaves was checked.
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, get_args

import numpy as np

from worldfoundry.core.contracts import FrameTransform, Guard, Verdict, VerdictStatus, VideoItem
from worldfoundry.core.errors import BlockedError, ConfigError, GuardUnavailable
from worldfoundry.core.progress import say
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.registry import Kind, guard_class, is_own

HISTORY_S = 10.0
"""Seconds before new frames that a guard sees again with them, where it does not say `history_s`: what it looks for may begin there."""


class Guardrails:
    """The guards of a policy, ready to look.

    guardrails = Guardrails.from_policy(GuardPolicy())
    guardrails.enforce_text("the arm lifts the cube")     # a tuple of verdicts, or BlockedError, or GuardUnavailable
    frames, verdicts = guardrails.release(frames, 24)     # the frames that may leave
    """

    def __init__(
        self,
        policy: GuardPolicy,
        text: Sequence[Any] = (),
        video: Sequence[Any] = (),
        transforms: Sequence[Any] = (),
    ) -> None:
        self.policy, self.text, self.video, self.transforms = policy, tuple(text), tuple(video), tuple(transforms)

    @classmethod
    def from_policy(cls, policy: GuardPolicy) -> Self:
        """The guards that the policy names, each built at its first item. One that cannot be built answers with the reason."""
        if policy.action == "off":
            return cls(policy)
        return cls(
            policy,
            [_Named("text", name, policy) for name in policy.text_guards],
            [_Named("video", name, policy) for name in policy.video_guards],
            [_Named("transform", name, policy) for name in policy.transforms],
        )

    def check_text(self, text: str) -> tuple[Verdict, ...]:
        """What every text guard says."""
        return self._check(self.text, "text", lambda guard: text)

    def check_video(self, frames: np.ndarray, fps: float, *, new: int | None = None) -> tuple[Verdict, ...]:
        """What every video guard says about uint8 THWC frames shown at `fps`. The guards see a read-only view.

        Where only the last `new` frames are, a guard is shown no more of the others than its `history_s` asks for.
        """
        return self._check(self.video, "video", lambda guard: _item(frames, fps, _history(guard, fps), new))

    def enforce_text(self, text: str) -> tuple[Verdict, ...]:
        """The verdicts if the text may pass. Raises BlockedError (unsafe) or GuardUnavailable (somebody could not look)."""
        return self.judge("prompt", self.check_text(text))

    def enforce_video(self, frames: np.ndarray, fps: float, *, what: str = "video") -> tuple[Verdict, ...]:
        """For frames that come in: the verdicts if they may be used. Raises BlockedError or GuardUnavailable."""
        return self.judge(what, self.check_video(frames, fps))

    def release(
        self, frames: np.ndarray, fps: float, *, what: str = "video", new: int | None = None
    ) -> tuple[np.ndarray, tuple[Verdict, ...]]:
        """For frames that go out: what may leave, and the verdicts. Raises BlockedError or GuardUnavailable.

        Given frames stay as they are; changed ones are copies.
        """
        hidden, said = self.hide(frames, fps, new=new)
        return hidden, self.judge(what, _agreed(said) + self.check_video(hidden, fps, new=new))

    def hide(self, frames: np.ndarray, fps: float, *, new: int | None = None) -> tuple[np.ndarray, tuple[Verdict, ...]]:
        """Frames as the transforms leave them, and what those say; after one that fails, as they were, and its `error`."""
        verdicts: list[Verdict] = []
        looked = self.policy.action != "off" and isinstance(frames, np.ndarray)  # what is no array, the guards refuse
        for transform in self.transforms if looked else ():
            ready = prepared(transform, self.policy.timeout_s)
            start = 0 if new is None else max(0, len(frames) - new - _history(ready, fps))
            changed, verdict = run_transform(ready, _item(frames[start:], fps), self.policy)
            verdicts.append(verdict)
            frames = frames if changed is None else np.concatenate([frames[:start], changed])
        return frames, tuple(verdicts)

    @property
    def lookahead(self) -> int:
        """Frames after a frame that may still change it: what a stream has to hold back (`reach` of the transforms)."""
        ready = [prepared(transform, self.policy.timeout_s) for transform in self.transforms]
        return max((int(getattr(transform, "reach", 0)) for transform in ready), default=0)

    def _check(
        self, guards: tuple[Any, ...], takes: Literal["text", "video"], item: Callable[[Any], Any]
    ) -> tuple[Verdict, ...]:
        if self.policy.action == "off":
            reason = f"guards are switched off: {self.policy.reason}"
            return (Verdict(status="skipped", guard="policy", category=takes, reason=reason),)
        if not guards:
            fix = f"Name at least one in {takes}_guards, or set action to off with a reason."
            return _agreed((_failed("policy", f"no {takes} guard is configured", fix),))
        verdicts = []
        for guard in guards:
            ready = prepared(guard, self.policy.timeout_s)
            verdicts.append(run_guard(ready, item(ready), self.policy.timeout_s))
        return _agreed(tuple(verdicts))

    def judge(self, what: str, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        """Verdicts under the policy: themselves, or BlockedError, or GuardUnavailable."""
        against = [verdict for verdict in verdicts if verdict.status != "safe"]
        passing = [verdict for verdict in against if self._passes(verdict)]
        for verdict in passing:
            say(f"warning: {what}: {describe(verdict)}")
        against = [verdict for verdict in against if verdict not in passing]
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

    def _passes(self, verdict: Verdict) -> bool:
        """Whether the policy makes a warning of it: of everything, or of what a guard found; one that could not look blocks."""
        if self.policy.action != "block":
            return True
        return verdict.status == "unsafe" and self.policy.action_for(verdict.guard, verdict.category) == "warn"


def describe(verdict: Verdict) -> str:
    """`guard (category): reason` in one line."""
    return f"{verdict.guard}{f' ({verdict.category})' if verdict.category else ''}: {verdict.reason or verdict.status}"


# --- one guard -----------------------------------------------------------------------------------------------------


def run_guard(guard: Guard, item: Any, timeout_s: float) -> Verdict:
    """One guard's verdict, or an `error` verdict in its name for whatever else happens.

    The guard runs in a thread, so that one that hangs can be given up; it is left behind, and ends with the process.
    """
    name, start = _name(guard), time.monotonic()
    answer = _within(name, timeout_s, lambda: guard.check(item))
    return replace(_well_formed(answer, name), latency_s=time.monotonic() - start)


def run_transform(transform: FrameTransform, item: VideoItem, policy: GuardPolicy) -> tuple[np.ndarray | None, Verdict]:
    """The changed frames (None: nothing changed, or they cannot be used) and the verdict, as the policy wants it."""
    name, start, before = _name(transform), time.monotonic(), item.frames
    answer = _within(name, policy.timeout_s, lambda: transform.apply(item))
    frames, said = answer if isinstance(answer, tuple) and len(answer) == 2 else (None, answer)
    verdict = _well_formed(said, name)
    if verdict.status == "safe" and not _same_kind(frames, before):
        verdict = _failed(name, "it gave back something else than as many frames of the same size", "This guard is broken.")
    verdict = replace(verdict, latency_s=time.monotonic() - start)
    if verdict.status != "safe":
        return None, verdict
    changed = int((frames != before).any(axis=tuple(range(1, before.ndim))).sum())
    action = policy.action_for(name, verdict.category, default="blur")
    if action == "blur" or not changed:
        return frames if changed else None, replace(verdict, evidence={**verdict.evidence, "changed_frames": changed})
    reason = f"{changed} of {len(before)} frames show what {name!r} hides"
    return None, replace(verdict, status="unsafe", category=verdict.category or name, reason=reason)


def prepared(guard: Any, timeout_s: float) -> Any:
    """The guard with its weights in memory, fetched if need be; or one that answers why that cannot be."""
    try:
        guard = guard.build() if isinstance(guard, _Named) else guard
        prepare = getattr(guard, "prepare", None)
        if callable(prepare):
            prepare()
        return guard
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a guard that cannot be made ready must block, and say why
        reason = f"it could not be made ready: {type(error).__name__}: {getattr(error, 'message', error)}"
        own = "Install its module, or put the folder of it on PYTHONPATH." if isinstance(error, ImportError) else ""
        return _Absent(_name(guard), reason, str(getattr(error, "hint", "")) or own or "Run `worldfoundry doctor`.")


def _within(name: str, timeout_s: float, work: Callable[[], Any]) -> Any:
    """What `work` returns, or a verdict on why there is nothing."""
    answers: list[Any] = []

    def look() -> None:
        try:
            answers.append(work())
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, it must block, not pass
            fix = str(getattr(error, "hint", "")) or "Run again with --debug."
            answers.append(_failed(name, f"the guard failed with {type(error).__name__}: {error}", fix))

    thread = threading.Thread(target=look, name=f"guard-{name}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return _failed(name, f"no answer within {timeout_s:g} s", "Raise timeout_s, or give the guard less to look at.")
    return answers[0] if answers else None


def _well_formed(answer: Any, name: str) -> Verdict:
    if type(answer) is not Verdict:
        return _failed(name, f"the guard answered with {type(answer).__name__} instead of a verdict", "This guard is broken.")
    plain = isinstance(answer.evidence, Mapping) and all(isinstance(v, str) for v in (answer.category, answer.reason))
    if not plain or answer.status not in get_args(VerdictStatus) or answer.guard != name:
        return _failed(name, f"malformed verdict: status {answer.status!r} by {answer.guard!r}", "This guard is broken.")
    return answer


def _failed(name: str, reason: str, fix: str) -> Verdict:
    return Verdict(status="error", guard=name, reason=reason, evidence={"fix": fix})


def _name(guard: Any) -> str:
    return str(getattr(guard, "name", type(guard).__name__))


def _history(guard: Any, fps: float) -> int:
    """Frames before new ones that a guard wants to see again."""
    return math.ceil(float(getattr(guard, "history_s", HISTORY_S)) * fps) if math.isfinite(fps) else 0


def _item(frames: np.ndarray, fps: float, history: int = 0, new: int | None = None) -> VideoItem:
    if isinstance(frames, np.ndarray):
        frames = frames[-(new + history) :] if new is not None else frames.view()
        frames.flags.writeable = False
    return VideoItem(frames=frames, fps=fps)


def _same_kind(frames: Any, before: np.ndarray) -> bool:
    return isinstance(frames, np.ndarray) and (frames.shape, frames.dtype) == (before.shape, before.dtype)


class _Named:
    """A guard of the policy, built at its first item: nothing is loaded for texts that nobody gives."""

    def __init__(self, kind: Kind, name: str, policy: GuardPolicy) -> None:
        self.kind: Kind = kind
        self.name, self.policy = name, policy
        self.guard: Any = None

    def build(self) -> Any:
        if self.guard is None:
            factory = guard_class(self.kind, self.name)
            guard = factory() if is_own(self.name) else factory(getattr(self.policy, self.name))
            if self.kind != "transform" and guard.takes != self.kind:
                raise ConfigError(f"{self.name!r} takes {guard.takes!r}, not {self.kind!r}.", "Name it in the other list.")
            self.guard = guard
        return self.guard


class _Absent:
    """Stands in for a guard that could not be built."""

    def __init__(self, name: str, reason: str, fix: str) -> None:
        self.name, self.reason, self.fix = name, reason, fix

    def check(self, item: Any) -> Verdict:
        return _failed(self.name, self.reason, self.fix)

    def apply(self, item: VideoItem) -> tuple[np.ndarray, Verdict]:
        return item.frames, _failed(self.name, self.reason, self.fix)


# --- several ranks -------------------------------------------------------------------------------------------------


def _agreed(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """One's own verdicts and what other ranks object to, where several work on one video: all of them stop, or none does.

    Every rank looks and takes part in the exchange, so nobody waits for a rank that has left. Where the exchange fails, it blocks.
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return verdicts
    said: list[Any] = [None] * distributed.get_world_size()
    try:
        distributed.all_gather_object(said, verdicts)
    except Exception as error:  # noqa: BLE001  # ranks that cannot be heard may have objected
        reason = f"the ranks could not compare their verdicts: {type(error).__name__}: {error}"
        return (*verdicts, _failed("ranks", reason, "Look at the other ranks' messages."))
    me = distributed.get_rank()
    others = [(rank, v) for rank, theirs in enumerate(said) if rank != me for v in theirs if v.blocks]
    return (*verdicts, *(replace(v, reason=f"rank {rank}: {v.reason}") for rank, v in others))
