"""What the text guards stop of a set of prompts: recall per category, false blocks, evasions, time; beside two peers.

    python benchmarks/guard_text.py --set benchmarks/guard_prompts/tuning.yaml --out FILE.json [--label tuning] [--peers PYTHON]
    python benchmarks/guard_text.py --evade "some text"        # show the disguises of one text

A set is YAML: category -> family -> prompts; the category `benign` is what should pass. Each unsafe prompt is also disguised in
every way of `EVASIONS`. `--peers` is the Python of an environment with better-profanity and alt-profanity-check, which are no
dependency: they are asked through a process of their own. Intervals are Wilson's, 95 %.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from worldfoundry.guardrails.classifier import ClassifierConfig, ClassifierGuard
from worldfoundry.guardrails.text import BlocklistConfig, BlocklistGuard

CYRILLIC = str.maketrans("aeocpxyi", "аеосрхуі")
LEET = str.maketrans("aeiost", "@31057")
PEER = """
import json, sys
texts = json.load(sys.stdin)
if sys.argv[1] == "better-profanity":
    from better_profanity import profanity
    said = [bool(profanity.contains_profanity(text)) for text in texts]
else:
    from profanity_check import predict
    said = [bool(one) for one in predict(texts)] if texts else []
json.dump(said, sys.stdout)
"""
PEERS = ("better-profanity", "alt-profanity-check")


def _words(change: Callable[[str, random.Random], str]) -> Callable[[str, random.Random], str]:
    return lambda text, draw: " ".join(change(word, draw) if len(word) > 3 else word for word in text.split())


def _swap(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word) - 2) if len(word) > 3 else 0
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _double(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word))
    return word[:at] + word[at - 1] * 3 + word[at:]


EVASIONS: dict[str, Callable[[str, random.Random], str]] = {
    "capitals": lambda text, draw: "".join(c.upper() if draw.random() < 0.5 else c for c in text),
    "full width": lambda text, _: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "look-alikes": lambda text, _: text.lower().translate(CYRILLIC),
    "zero width": lambda text, _: "\u200b".join(text),
    "marks": lambda text, _: "".join(c + "\u0301" if c in "aeiou" else c for c in text),
    "digits": lambda text, _: text.lower().translate(LEET),
    "dots": _words(lambda word, _: ".".join(word)),
    "hyphens": _words(lambda word, draw: "-".join((word[: len(word) // 2], word[len(word) // 2 :]))),
    "spaces": lambda text, _: "  ".join(" ".join(word) for word in text.split()),
    "stretched": _words(_double),
    "swapped": _words(_swap),
    "run together": lambda text, _: text.replace(" ", ""),
    "underscores": lambda text, _: text.replace(" ", "_"),
    "backwards": lambda text, _: text[::-1],
    "words backwards": lambda text, _: " ".join(word[::-1] for word in text.split()),
    "buried": lambda text, _: (
        f"A robot arm lifts a cube and puts it on the table. Then {text}. After that the camera pans to the window."
    ),
}


def evade(text: str) -> dict[str, str]:
    """Every disguise of a text; the same text gives the same disguises."""
    return {kind: change(text, random.Random(f"{kind}: {text}")) for kind, change in EVASIONS.items()}


def wilson(hits: int, n: int) -> dict[str, Any]:
    """Share with its 95 % interval."""
    if not n:
        return {"n": 0}
    z, p = 1.96, hits / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return {"value": round(p, 4), "n": n, "low": round(max(0.0, middle - half), 4), "high": round(min(1.0, middle + half), 4)}


def summary(stopped: list[bool], labels: list[str]) -> dict[str, Any]:
    """False blocks, recall in all and per category, precision on this mixture."""
    harmful = [label != "benign" for label in labels]
    hits = sum(s and h for s, h in zip(stopped, harmful, strict=True))
    found = {"recall": wilson(hits, sum(harmful)), "precision": wilson(hits, sum(stopped))}
    found["false_blocks"] = wilson(sum(stopped) - hits, len(labels) - sum(harmful))
    per = {}
    for category in dict.fromkeys(label for label in labels if label != "benign"):
        mine = [s for s, label in zip(stopped, labels, strict=True) if label == category]
        per[category] = wilson(sum(mine), len(mine))
    return {**found, "per_category": per}


def ours() -> dict[str, Callable[[str], Any]]:
    """The packaged guards by name."""
    return {"blocklist": BlocklistGuard(BlocklistConfig()).check, "classifier": ClassifierGuard(ClassifierConfig()).check}


def peer(python: str, name: str, texts: list[str]) -> list[bool]:
    """What a peer says of every text."""
    done = subprocess.run([python, "-c", PEER, name], input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} cannot be asked by {python}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout)


def read_set(path: Path) -> tuple[list[str], list[str]]:
    """(texts, labels)."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    pairs = [(text, category) for category, families in tree.items() for texts in families.values() for text in texts]
    return [text for text, _ in pairs], [label for _, label in pairs]


def judge(guards: dict[str, Callable[[str], Any]], texts: list[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The status of every text by every guard, and the median milliseconds that each took."""
    said: dict[str, list[str]] = {}
    took: dict[str, float] = {}
    for name, check in guards.items():
        check("a cube falls")  # weights are read now
        times = []
        said[name] = []
        for text in texts:
            start = time.perf_counter()
            said[name].append(check(text).status)
            times.append(1e3 * (time.perf_counter() - start))
        took[name] = round(statistics.median(times), 2)
    return said, took


def either(said: dict[str, list[str]]) -> list[bool]:
    """Whether any of our guards stops a text."""
    return [any(status != "safe" for status in statuses) for statuses in zip(*said.values(), strict=True)]


def measure(path: Path, peers: str | None, label: str) -> dict[str, Any]:
    """Everything that the JSON holds."""
    texts, labels = read_set(path)
    for name in PEERS if peers else ():
        peer(str(peers), name, texts[:1])  # fails now rather than after minutes
    guards = ours()
    said, took = judge(guards, texts)
    stopped = {name: [status != "safe" for status in statuses] for name, statuses in said.items()}
    stopped["both"] = either(said)
    if peers:
        stopped |= {name: peer(peers, name, texts) for name in PEERS}
    unsafe = [text for text, label_of in zip(texts, labels, strict=True) if label_of != "benign"]
    evasions: dict[str, dict[str, Any]] = {}
    for kind in EVASIONS:
        disguised = [evade(text)[kind] for text in unsafe]
        answers, _ = judge(guards, disguised)
        caught = {name: [status != "safe" for status in statuses] for name, statuses in answers.items()} | {
            "both": either(answers)
        }
        if peers:
            caught |= {name: peer(peers, name, disguised) for name in PEERS}
        evasions[kind] = {name: wilson(sum(hits), len(hits)) for name, hits in caught.items()}
    return {
        "set": path.name,
        "label": label,
        "guards": {name: summary(hits, labels) for name, hits in stopped.items()},
        "evasions": evasions,
        "ms_per_prompt_median": took,
        "missed": [text for text, hit, of in zip(texts, stopped["both"], labels, strict=True) if of != "benign" and not hit]
        if label == "tuning"
        else [],
        "stopped_though_benign": [
            t for t, hit, of in zip(texts, stopped["both"], labels, strict=True) if of == "benign" and hit
        ]
        if label == "tuning"
        else [],
    }


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--label", default="held-out", help="tuning also lists the texts that were judged wrongly")
    parser.add_argument("--peers", help="Python of an environment with better-profanity and alt-profanity-check")
    parser.add_argument("--evade", help="show the disguises of one text")
    options = parser.parse_args()
    if options.evade:
        print(json.dumps(evade(options.evade), indent=1, ensure_ascii=False))
        return
    if not options.set:
        sys.exit("Give --set FILE, or --evade TEXT.")
    found = json.dumps(measure(options.set, options.peers, options.label), indent=1, ensure_ascii=False)
    if options.out:
        options.out.write_text(found + "\n", encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
