"""Stages as a user writes them: one per source on stored pictures, one per frames, one per clip, and ones that misbehave."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from worldfoundry.core.video_io import read_video
from worldfoundry.curation.stage import stage


@stage(inputs="pictures_THWC plans", scores="brightness")
def brightness(row, *, gain=1.0):
    """Mean level of each planned clip, 0 to 255."""
    pictures = row["pictures_THWC"]
    return {"brightness": [gain * float(pictures[plan.first : plan.last].mean()) for plan in row["plans"]]}


class Sharpest:
    def __init__(self):
        self.values = []

    def add(self, picture_HWC, time_s):
        self.values.append(float(np.abs(np.diff(picture_HWC.astype(float), axis=1)).mean()))

    def result(self):
        return {"sharpness_T": np.array(self.values)}


@stage(inputs="path", outputs="sharpness_T", per="frames", picture=(24, 32), isolate=True)
def sharpness(row):
    return Sharpest()


@stage(inputs="sharpness_T plans", scores="sharpness")
def sharpest(row):
    values = row["sharpness_T"]
    return {"sharpness": [float(values[plan.first : plan.last].max()) for plan in row["plans"]]}


@stage(inputs="path", outputs="count_again", isolate=True)
def reads_again(row):
    return {"count_again": len(read_video(Path(row["path"])).frames)}


@stage(inputs="source_id", tags="kind", outputs="note", per="clip", images=True)
def label(row):
    (Path(row["staging"]) / "label.txt").write_text("a label")
    return {"kind": "still" if row["plan"].last == 1 else "moving", "note": {"frames": row["plan"].last - row["plan"].first}}


@stage(inputs="path", outputs="killed", isolate=True)
def kills(row, *, name="victim"):
    if name in row["path"] and not Path(row["path"] + ".harmless").exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"killed": False}


@stage(inputs="path", outputs="slept", isolate=True)
def sleeps(row, *, name="victim"):
    if name in row["path"]:
        time.sleep(600)
    return {"slept": False}


@stage(inputs="path", outputs="allocated", isolate=True)
def allocates(row, *, name="victim"):
    if name in row["path"]:
        np.ones(1 << 31, dtype=np.uint8)
    return {"allocated": False}


@stage(inputs="uri", outputs="raised", images=True)
def raises(row, *, name="victim"):
    if name in row["uri"]:
        raise KeyError("oops")
    return {"raised": False}


@stage(inputs="plans", outputs="killed_clip", per="clip", isolate=True)
def kills_clip(row, *, start=0):
    if row["plan"].shot_index == start:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"killed_clip": False}
