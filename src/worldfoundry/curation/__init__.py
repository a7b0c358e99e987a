"""Floor 2: raw video becomes a clip dataset.

Comes in: a folder, glob, list or URL of videos and images, with episodes and captions beside them. Goes out: shards of
short clips, seven tables, `report.html`. Decided here: what a shot is, which spans become clips, how they are encoded,
why a file is quarantined, how a killed run resumes. Not decided here: how clips are read for training (`data`).
The tests that show it best: `tests/curation/test_pipeline.py`, and `test_recompute.py` for what runs again and what does not.

Reading order: `pipeline.py` (the whole), `stage.py` (what a stage is), `stages.py` (those that come with it), `graph.py` (their
order and keys), `run.py` (one source, step by step), `commits.py` (what is on disk), `select.py`, `pack.py`, `collect.py` (from
commits to shards and tables), `report/` (the page); `work.py`, `child.py` and `executors.py` say where all this runs.
"""
