"""Robot episodes in the LeRobot format: v3.0 written and read, v2.0 and v2.1 read, with pyarrow and PyAV alone.

Comes in: per episode, columns (states, actions, …) and one uint8 video per camera; or a folder that somebody published.
Goes out: a folder that the `lerobot` library opens; episodes and windows of frames by index, statistics for normalisation.
Decided here: how episodes are packed into files, how a killed writer goes on, how a frame is found (by presentation time).
Not decided here: which actions mean what (conditioning), how windows are shuffled and batched (data loaders).
The tests that show it best: `tests/data/test_lerobot_writer.py` (bit-exact round trip), `tests/data/test_lerobot_reader.py`.

Reading order: `layout.py` (the format as values), `columns.py`, `stats.py`, `staging.py` and `pack.py` (how a folder is
made), `writer.py`; `index.py` and `v21.py` (where each episode lies), `frames.py`, `reader.py`, `check.py`.
"""

from worldfoundry.data.lerobot.check import find_problems
from worldfoundry.data.lerobot.layout import Feature
from worldfoundry.data.lerobot.reader import Episode, LeRobotDataset
from worldfoundry.data.lerobot.stats import FeatureStats
from worldfoundry.data.lerobot.writer import LeRobotWriter

__all__ = ["Episode", "Feature", "FeatureStats", "LeRobotDataset", "LeRobotWriter", "find_problems"]
