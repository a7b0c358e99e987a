"""What this project itself writes and shows passes its own guards: captions, prompts in the docs, sample footage."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from worldfoundry.core.model_store import is_fetched
from worldfoundry.core.video_io import read_video
from worldfoundry.guardrails.classifier import ClassifierConfig, ClassifierGuard
from worldfoundry.guardrails.runner import GuardPolicy, Guardrails

ROOT = Path(__file__).parents[2]
FOOTAGE = Path(str(files("worldfoundry.data").joinpath("sample_footage")))
GUARDS = Guardrails.from_policy(GuardPolicy())


def captions():
    for table in FOOTAGE.glob("*.parquet"):
        yield json.loads(pq.read_schema(table).metadata[b"worldfoundry"])["caption"]


def prompts_in_docs():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        yield from re.findall(r"(?:--prompt|--text|prompt=)[ =]?\"([^\"]+)\"", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", sorted({*captions(), *prompts_in_docs()} - {"…"}))
def test_our_texts_pass(text):
    assert GUARDS.enforce_text(text)


@pytest.mark.skipif(not is_fetched("minilm"), reason="MiniLM is not in the cache")
def test_our_texts_pass_the_classifier():
    simulators = yaml.safe_load((ROOT / "benchmarks/guard_prompts/own.yaml").read_text(encoding="utf-8"))["benign"][
        "simulators"
    ]
    guard = ClassifierGuard(ClassifierConfig(download=False))
    verdicts = {text: guard.check(text) for text in sorted({*captions(), *prompts_in_docs(), *simulators[:40]} - {"…"})}
    assert not {text: verdict.reason for text, verdict in verdicts.items() if verdict.status != "safe"}


def test_there_are_captions_to_check():
    assert len(list(captions())) >= 20


@pytest.mark.parametrize("name", ["city.mp4", "episode_000000.mp4", "episode_000040.mp4", "episode_000080.mp4"])
def test_our_footage_passes(name):
    clip = read_video(FOOTAGE / name)
    assert GUARDS.enforce_video(clip.frames, clip.fps)
