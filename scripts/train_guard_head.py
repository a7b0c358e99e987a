"""Train the head of the text classifier from the corpus in benchmarks/guard_prompts, and write it into the package.

    python scripts/train_guard_head.py [--out FILE] [--check]

Needs MiniLM (`worldfoundry models get minilm`). One thread, fixed seeds: the same machine and PyTorch write the same bytes;
`--check` compares a new head with the shipped one and writes nothing. Minutes on one core.

Cross-validation leaves whole families of sentences out. Each category's threshold comes from the scores of families that a head
had not seen: beginning with all at 0.999, the one is lowered that stops most unsafe sentences per harmless one, as long as at most
0.4 % of the harmless are stopped.
"""

import argparse
import hashlib
import itertools
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from worldfoundry.guardrails.categories import CATEGORIES
from worldfoundry.guardrails.classifier import (
    HEAD_FILE,
    LAYERS,
    OUTPUTS,
    SAFE,
    Head,
    SentenceEncoder,
    clear_text,
    load_head,
    pieces,
    worst,
)

PROMPTS = Path(__file__).parents[1] / "benchmarks" / "guard_prompts"
FILES = ("train_unsafe.yaml", "train_benign.yaml", "tuning.yaml", "own.yaml")
SAMPLES = {"unsafe": 11, "benign": 24}  # drawn of each line
FOLDS, HIDDEN, STEPS, DECAY, RATE, NOISE = 5, 48, 150, 0.3, 5e-3, 0.7
FALSE_BLOCKS = 0.004
LEVELS = [round(0.3 + 0.02 * i, 2) for i in range(34)] + [0.99, 0.995, 0.999]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sentence with its category (`safe` for harmless ones) and family: what one line was made into, or written together."""

    text: str
    category: str
    family: str


def expand(line: str, count: int) -> list[str]:
    """Up to `count` different sentences of a line with (a|b) choices, drawn by a seed that the line itself gives."""
    parts = [part.split("|") for part in re.split(r"\(([^()]*\|[^()]*)\)", line)]
    every = [0 if len(options) == 1 else len(options) for options in parts]
    total = int(np.prod([n or 1 for n in every]))
    draw = random.Random(hashlib.sha256(line.encode()).hexdigest())
    if total <= count:
        return ["".join(choice) for choice in itertools.product(*parts)]
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences["".join(draw.choice(options) for options in parts)] = None
    return list(sentences)


def corpus() -> list[Example]:
    """Every sentence of the corpus, in a fixed order, each once."""
    found: dict[str, Example] = {}
    for name in FILES:
        for category, families in yaml.safe_load((PROMPTS / name).read_text(encoding="utf-8")).items():
            kind = "benign" if category == "benign" else "unsafe"
            label = SAFE if category == "benign" else category
            for family, n, line in ((family, n, line) for family, lines in families.items() for n, line in enumerate(lines)):
                name_of = f"{family}/{n}" if "|" in line else family
                for text in expand(line, SAMPLES[kind]):
                    found.setdefault(text, Example(text=text, category=label, family=name_of))
    return list(found.values())


def folds(examples: list[Example]) -> np.ndarray:
    """The fold of each example: the families of a category, in the order of their hashes, are dealt out in turn."""
    by_category: dict[str, set[str]] = {}
    for example in examples:
        by_category.setdefault(example.category, set()).add(example.family)
    of = {
        family: (n + i) % FOLDS
        for n, families in enumerate(by_category.values())
        for i, family in enumerate(sorted(families, key=lambda f: hashlib.sha256(f.encode()).hexdigest()))
    }
    return np.array([of[example.family] for example in examples])


def fit(x_ND: np.ndarray, y_N: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """A head's tensors in half precision."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w1_HD": (HIDDEN, x_ND.shape[1]), "b1_H": (HIDDEN,), "w2_CH": (len(OUTPUTS), HIDDEN), "b2_C": (len(OUTPUTS),)}
    weights = {
        name: (torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if len(shape) == 2 else 0)).requires_grad_()
        for name, shape in shapes.items()
    }
    x, y = torch.from_numpy(x_ND) * 4, torch.from_numpy(y_N)
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=DECAY)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        noisy = x + NOISE * 4 / x.shape[1] ** 0.5 * torch.randn(x.shape, generator=generator)
        hidden = torch.relu(torch.nn.functional.linear(noisy, weights["w1_HD"], weights["b1_H"]))
        keep = (torch.rand(hidden.shape, generator=generator) < 0.7) / 0.7
        loss = torch.nn.functional.cross_entropy(
            torch.nn.functional.linear(hidden * keep, weights["w2_CH"], weights["b2_C"]), y, label_smoothing=0.02
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {name: tensor.detach().numpy() for name, tensor in weights.items()}
    return {**found, "w1_HD": found["w1_HD"] * 4}  # the features were stretched by 4


def as_head(tensors: dict[str, np.ndarray], thresholds: dict[str, float]) -> Head:
    """With the rounding that the file has."""
    return Head(**{name: t.astype(np.float16).astype(np.float32) for name, t in tensors.items()}, thresholds=thresholds)


def choose(score_N: np.ndarray, likeliest_N: np.ndarray, safe_N: np.ndarray) -> dict[str, float]:
    """Thresholds per category, lowered in turn where that stops most per harmless sentence stopped."""
    at = dict.fromkeys(range(len(CATEGORIES)), len(LEVELS) - 1)

    def stopped(c: int, level: int) -> tuple[int, int]:
        over = (likeliest_N == c) & (score_N >= LEVELS[level])
        return int((over & ~safe_N).sum()), int((over & safe_N).sum())

    while True:
        spent = sum(stopped(c, level)[1] for c, level in at.items())
        steps = []
        for c, level in at.items():
            for lower in range(level):
                gain, cost = (a - b for a, b in zip(stopped(c, lower), stopped(c, level), strict=True))
                if spent + cost <= FALSE_BLOCKS * safe_N.sum():
                    steps.append((gain / (cost + 0.2), -lower, c, lower))
        best = max(steps, default=None)
        if best is None or best[0] <= 0:
            return {name: LEVELS[at[c]] for c, name in enumerate(CATEGORIES)}
        at[best[2]] = best[3]


def features(examples: list[Example], cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """([N, D] of all pieces, the example that each belongs to); the first piece of an example is the whole."""
    parts = [(i, part) for i, example in enumerate(examples) for part in pieces(clear_text(example.text))]
    key = hashlib.sha256("\n".join([repr(LAYERS), *(part for _, part in parts)]).encode()).hexdigest()[:16]
    file = cache / f"{key}.npz" if cache else None
    if file and file.is_file():
        kept = np.load(file)
        return kept["x"], kept["owner"]
    x_ND, row = SentenceEncoder.fetched()([part for _, part in parts])
    owner = np.array([parts[r][0] for r in row])
    x_ND = np.round(x_ND, 5)
    if file:
        np.savez(file, x=x_ND, owner=owner)
    return x_ND, owner


def cross_validate(
    x_ND: np.ndarray, owner: np.ndarray, y_N: np.ndarray, train_N: np.ndarray, fold: np.ndarray
) -> tuple[Any, Any]:
    """(score, likeliest category) of each example by the head of the fold that left its family out."""
    flat = dict.fromkeys(CATEGORIES, 0.0)
    score, likeliest = np.zeros(len(fold)), np.zeros(len(fold), int)
    for k in range(FOLDS):
        rows = train_N & (fold[owner] != k)
        p_NC = as_head(fit(x_ND[rows], y_N[rows]), flat)(x_ND)
        for i in np.flatnonzero(fold == k):
            found = worst(p_NC[owner == i], flat)
            score[i], likeliest[i] = found.score, list(CATEGORIES).index(found.category)
    return score, likeliest


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HEAD_FILE)
    parser.add_argument("--cache", type=Path, help="folder that keeps the encoder's features")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    examples = corpus()
    x_ND, owner = features(examples, options.cache)
    labels = np.array([OUTPUTS.index(example.category) for example in examples])
    first = np.r_[True, owner[1:] != owner[:-1]]
    train_N = first | (labels[owner] == 0)  # parts of an unsafe text may be harmless, parts of a harmless one are not unsafe
    fold, safe = folds(examples), labels == 0
    score, likeliest = cross_validate(x_ND, owner, labels[owner], train_N, fold)
    thresholds = choose(score, likeliest, safe)
    limits = np.array(list(thresholds.values()))[likeliest]
    stopped = score >= limits
    recall = {name: round(float(stopped[labels == 1 + c].mean()), 3) for c, name in enumerate(CATEGORIES)}
    about = {
        "outputs": list(OUTPUTS),
        "thresholds": thresholds,
        "corpus": {"unsafe": int((~safe).sum()), "benign": int(safe.sum()), "families": len({e.family for e in examples})},
        "left_out_families": {"false_blocks": round(float(stopped[safe].mean()), 4), "recall": recall},
    }
    print(json.dumps(about, indent=1))
    whole = np.array(["/" not in example.family for example in examples])
    print(f"of them written one by one: {stopped[safe & whole].mean():.4f} {stopped[~safe & whole].mean():.3f}")
    for i in np.flatnonzero(stopped & safe):
        print(f"stopped though harmless: {score[i]:.3f} {list(CATEGORIES)[likeliest[i]]}: {examples[i].text}")
    tensors = fit(x_ND[train_N], labels[owner][train_N])
    if options.check:
        shipped = load_head()
        same = all(
            np.array_equal(t.astype(np.float16), getattr(shipped, name).astype(np.float16)) for name, t in tensors.items()
        )
        raise SystemExit(0 if same and dict(shipped.thresholds) == thresholds else "the shipped head differs")
    from safetensors.numpy import save_file

    save_file({name: t.astype(np.float16) for name, t in tensors.items()}, options.out, {"worldfoundry": json.dumps(about)})
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
