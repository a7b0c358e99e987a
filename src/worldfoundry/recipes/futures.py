"""What a world makes of held-out clips: the future of every prefix, beside what it has to beat and what it cannot pass.

Axis legend: N windows, T frames, H height, W width, C = 3 (RGB), A action numbers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldfoundry.core.contracts import Verdict
from worldfoundry.core.progress import progress, say
from worldfoundry.data.clips import ClipDataset, ClipRecord
from worldfoundry.evaluation.baselines import copy_last_frame, nearest_training_clip
from worldfoundry.guardrails.runner import Guardrails
from worldfoundry.inference.ar_config import OWN_DECODER
from worldfoundry.inference.ar_world import AutoregressiveWorld
from worldfoundry.inference.conditions import to_unit_range
from worldfoundry.inference.sampling import seeded
from worldfoundry.inference.token_decoder import load_token_decoder
from worldfoundry.inference.world import DiffusionWorld
from worldfoundry.recipes.config import WindowConfig
from worldfoundry.recipes.tokenizer_validation import reconstruct
from worldfoundry.recipes.windows import Window, spread_windows

MODEL = "model"
BASE = "base model, not trained on"
SHUFFLED = "model, other clips' actions"
ZERO = "model, zero actions"
CEILING = "tokenizer ceiling"
COPY_THROUGH = "copy-last-frame through tokenizer"
NEAREST = "nearest training clip"
BATCH, STACK = 16, 32

AnyWorld = DiffusionWorld | AutoregressiveWorld
"""What continues frames: both kinds resolve a request and sample a batch of prefixes by the same calls."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows (by number) that are generated together; number i among them has the seed `request.seed + i`."""

    rows: list[int]
    request: Any
    """As the world resolved it: each kind has its own."""


@dataclass(frozen=True, kw_only=True)
class Futures:
    """Truth and candidates on the held-out windows, uint8 [N, T, H, W, 3], with what the guards said of each video.

    `requests` are what the model was asked, one per window.
    """

    windows: list[Window]
    truth: np.ndarray
    candidates: dict[str, np.ndarray]
    prefix_frames: int
    verdicts: tuple[Verdict, ...]
    requests: list[Any]

    @property
    def sources(self) -> list[str]:
        """What each window was cut from: windows of one video are alike, so intervals must draw them together."""
        return [window.record.source_id for window in self.windows]


def window_of(world: AnyWorld) -> WindowConfig:
    """Windows as long and large as what the world makes."""
    return WindowConfig(num_frames=world.config.num_frames, height=world.config.height, width=world.config.width)


def predict(
    world: AnyWorld,
    windows: list[Window],
    *,
    seed: int,
    training: Iterable[np.ndarray] | None = None,
    check: bool = True,
    others: Mapping[str, AnyWorld] | None = None,
) -> Futures:
    """The future of every window's prefix under true, shuffled and zero actions, and the controls that need the tokenizer.

    `others` are worlds of the same size that continue the same prefixes; they are told the actions only if `world` is.
    `training` are clips for the nearest-neighbour control (None leaves it out). Captions that a guard objects to are left out;
    with `check` the guards also look at every future. Raises BlockedError or GuardUnavailable if no window is left.
    """
    prompted = any(w.config.text_encoder != "none" for w in (world, *(others or {}).values()))  # else captions are no prompts
    windows, verdicts = guarded_windows(world.guardrails, windows) if prompted else (windows, [])
    prefix, truth = world.config.num_prefix_frames, np.stack([w.frames for w in windows])
    batches = _batches(world, windows, seed)
    given = _actions(windows, len(world.config.action_names))
    candidates = {MODEL: _sample(world, batches, truth, given)}
    for clip in candidates[MODEL] if check else ():
        verdicts += world.guardrails.check_video(clip, world.config.fps)
    acting = any(window.actions is not None for window in windows)
    for name, future in _other_actions(given if acting else None).items():
        assert given is not None, "no others without actions"
        changed = np.concatenate([given[:, : prefix - 1], future[:, prefix - 1 :]], axis=1)
        candidates[name] = _sample(world, batches, truth, changed)
    for name, other in (others or {}).items():
        told = _actions(windows, len(other.config.action_names))
        told = np.zeros_like(told) if told is not None and given is None else told
        candidates[name] = _sample(other, _batches(other, windows, seed), truth, told)
    through = copy_last_frame(truth, prefix)
    candidates[CEILING] = reconstruct(world.tokenizer, torch.from_numpy(truth))
    candidates |= decoder_ceilings([world, *(others or {}).values()], batches, truth)
    candidates[COPY_THROUGH] = _given(reconstruct(world.tokenizer, torch.from_numpy(through)), truth, prefix)
    if training is not None:
        candidates[NEAREST] = nearest_training_clip(truth, prefix, training)
    requests = {
        row: batch.request.replace(seed=batch.request.seed + i) for batch in batches for i, row in enumerate(batch.rows)
    }
    return Futures(
        windows=windows, truth=truth, candidates=candidates, prefix_frames=prefix, verdicts=tuple(verdicts),
        requests=[requests[row] for row in range(len(windows))],
    )  # fmt: skip


def continuations(world: AnyWorld, windows: list[Window], *, seed: int, prefix_frames: int) -> np.ndarray:
    """What a world makes of the first frames of windows, told nothing of actions: uint8 [N, T, H, W, 3], given frames included."""
    truth, acting = np.stack([w.frames for w in windows]), len(world.config.action_names)
    nothing = np.zeros((*truth.shape[:2], acting), np.float32) if acting else None
    return _sample(world, _batches(world, windows, seed, prefix_frames), truth, nothing)


@torch.inference_mode()
def decoder_ceilings(worlds: Iterable[AnyWorld], batches: list[Batch], truth: np.ndarray) -> dict[str, np.ndarray]:
    """The true clips' tokens as each diffusion decoder among these worlds draws them: what no token of theirs can pass."""
    found = {}
    for world in worlds:
        name = world.config.token_decoder if isinstance(world, AutoregressiveWorld) else OWN_DECODER
        ceiling = f"{Path(name).name} ceiling"
        if name == OWN_DECODER or ceiling in found:
            continue
        decoder = load_token_decoder(name, tokenizer=world.tokenizer, device=world.device)
        found[ceiling] = np.empty_like(truth)
        for batch in batches:
            indices_BTHW = decoder.tokens.encode_indices(to_unit_range(truth[batch.rows], decoder.device))
            generators = seeded(batch.request.seed, len(batch.rows))
            found[ceiling][batch.rows] = decoder.decode(indices_BTHW, fps=batch.request.fps, generators=generators)
    return found


def _other_actions(actions_NTA: np.ndarray | None) -> dict[str, np.ndarray]:
    """Another clip's actions and none; nothing for clips without."""
    if actions_NTA is None:
        return {}
    others = np.roll(
        actions_NTA, len(actions_NTA) // 2, axis=0
    )  # windows lie in order of their clips: far away is another clip
    return {SHUFFLED: others, ZERO: np.zeros_like(actions_NTA)}


def guarded_windows(guardrails: Guardrails, windows: list[Window]) -> tuple[list[Window], list[Verdict]]:
    """The windows whose caption (the prompt) the guards let pass, and all that the guards said.

    Raises BlockedError or GuardUnavailable if none is left.
    """
    said = {caption: guardrails.check_text(caption) for caption in sorted({w.record.caption for w in windows} - {""})}
    blocked = [caption for caption, verdicts in said.items() if any(verdict.blocks for verdict in verdicts)]
    kept = [w for w in windows if w.record.caption not in blocked]
    if not kept:
        guardrails.enforce_text(blocked[0])
    if len(kept) < len(windows):
        say(f"{len(windows) - len(kept)} of {len(windows)} held-out windows are left out: a guard objects to their captions")
    return kept, [verdict for verdicts in said.values() for verdict in verdicts]


def _batches(world: AnyWorld, windows: list[Window], seed: int, prefix_frames: int | None = None) -> list[Batch]:
    """Windows that share a prompt and a frame rate share a batch; no two windows share a seed."""
    alike: dict[tuple[str, float], list[int]] = {}
    for i, window in enumerate(windows):
        prompt = window.record.caption if world.config.text_encoder != "none" else ""
        alike.setdefault((prompt, window.record.fps), []).append(i)
    batches = []
    for (prompt, fps), rows in alike.items():
        for start in range(0, len(rows), BATCH):
            request = world.resolve(prompt=prompt, fps=fps, seed=seed, num_prefix_frames=prefix_frames)
            batches.append(Batch(rows=rows[start : start + BATCH], request=request))
            seed += len(batches[-1].rows)
    return batches


def _sample(world: AnyWorld, batches: list[Batch], truth: np.ndarray, actions: np.ndarray | None) -> np.ndarray:
    """The future of every window's prefix, uint8 [N, T, H, W, 3]."""
    out = np.empty_like(truth)
    with progress("generating", len(truth), "clips") as bar:
        for batch in batches:
            prefixes = [truth[row, : batch.request.num_prefix_frames] for row in batch.rows]
            out[batch.rows] = world.sample(batch.request, prefixes, None if actions is None else actions[batch.rows])
            bar.advance(len(batch.rows))
    return out


def _actions(windows: list[Window], numbers: int) -> np.ndarray | None:
    """What acts in every window; zeros in those without, as in training and in `generate`. None for a world without actions."""
    if not numbers:
        return None
    return np.stack([np.zeros((len(w.frames), numbers), np.float32) if w.actions is None else w.actions for w in windows])


def _given(clips: np.ndarray, truth: np.ndarray, prefix: int) -> np.ndarray:
    clips[:, :prefix] = truth[:, :prefix]
    return clips


def training_stacks(dataset: ClipDataset, records: list[ClipRecord], window: WindowConfig, count: int) -> Iterator[np.ndarray]:
    """Up to `count` training windows spread over all clips, a few at a time, for the nearest-neighbour control."""
    chosen = records if len(records) <= count else [records[i] for i in np.linspace(0, len(records) - 1, count).astype(int)]
    for start in range(0, len(chosen), STACK):
        part = chosen[start : start + STACK]
        windows = spread_windows(dataset, part, window, max(len(part), count * len(part) // len(chosen)))
        yield np.stack([w.frames for w in windows])
