"""Everything registered keeps its contract. A new part is covered by being registered: nothing is to be added here."""

import numpy as np
import pytest
import torch

from worldfoundry.autoregressive.config import SIZES as AUTOREGRESSIVE_SIZES
from worldfoundry.core.checkpoint import load_component, save_component
from worldfoundry.core.contracts import FrameTransform, Guard, VideoItem, VideoTokenizer
from worldfoundry.core.registry import KINDS, factory_for
from worldfoundry.core.video_io import write_video
from worldfoundry.curation.config import CurateConfig
from worldfoundry.curation.graph import build_graph
from worldfoundry.curation.stage import check_stage
from worldfoundry.diffusion.config import SIZES
from worldfoundry.evaluation.check import check_metric
from worldfoundry.evaluation.metrics import METRICS
from worldfoundry.guardrails.check import check_guard
from worldfoundry.guardrails.policy import GuardPolicy
from worldfoundry.guardrails.registry import GUARDS, guard_class, registered
from worldfoundry.guardrails.runner import run_transform
from worldfoundry.tokenizers.check import check_tokenizer
from worldfoundry.tokenizers.config import NAMED

# One small config per checkpoint kind, or several: what a kind's `config.json` may hold.
DEBUG_FIELDS = {
    "tokenizer": [NAMED[name].to_dict() for name in NAMED if name.startswith("debug")],
    "dit": [SIZES["debug"].to_dict()],
    "autoregressive": [AUTOREGRESSIVE_SIZES["debug"].to_dict()],
}


@pytest.mark.parametrize("fields", DEBUG_FIELDS["tokenizer"], ids=[name for name in NAMED if name.startswith("debug")])
def test_tokenizers(fields):
    torch.manual_seed(0)
    tokenizer = factory_for("tokenizer")(fields)
    assert isinstance(tokenizer, VideoTokenizer)
    check_tokenizer(tokenizer)


WITHOUT_WEIGHTS = ("siglip7",)  # its own test makes some


@pytest.mark.parametrize(
    ("takes", "name"), [row for row in registered() if row[0] != "transform" and row[1] not in WITHOUT_WEIGHTS]
)
def test_guards(takes, name):
    guard = guard_class(takes, name)(getattr(GuardPolicy(), name))
    assert isinstance(guard, Guard)
    assert (guard.name, guard.takes) == (name, takes)
    check_guard(guard)


@pytest.mark.parametrize("name", GUARDS["transform"])
def test_transforms(name):
    transform, frames = guard_class("transform", name)(getattr(GuardPolicy(), name)), np.full((3, 40, 48, 3), 90, np.uint8)
    assert isinstance(transform, FrameTransform)
    changed, verdict = run_transform(transform, VideoItem(frames=frames, fps=24), GuardPolicy())
    assert (verdict.status, verdict.guard, changed) == ("safe", name, None)
    assert (frames == 90).all()


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name):
    assert METRICS[name].name == name
    check_metric(METRICS[name])


def test_curation_stages(tmp_path):
    """Each stage runs on what the stages before it made of one small video."""
    moving = np.random.default_rng(0).integers(0, 256, (48, 64, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "in.mp4", moving, 24)
    (tmp_path / "staging").mkdir()
    row = {"source_id": "s", "uri": str(path), "path": str(path), "image": False, "episode_path": "", "caption": ""}
    for stage in build_graph(CurateConfig(input=str(tmp_path), out=tmp_path / "out")).stages:
        assert stage.name
        assert set(stage.inputs) <= set(row)
        if stage.per == "clip":
            row |= {"plan": row["plans"][0], "staging": tmp_path / "staging"}
        (row,) = check_stage(stage, row)


@pytest.mark.parametrize(("kind", "fields"), [(kind, fields) for kind in KINDS for fields in DEBUG_FIELDS[kind]])
def test_every_checkpoint_kind_survives_the_disk(tmp_path, kind, fields):
    torch.manual_seed(0)
    module = factory_for(kind)(fields)
    loaded = load_component(save_component(tmp_path / kind, module, kind=kind, provenance={}), expect=kind)
    assert loaded.config == module.config
    before, after = module.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
