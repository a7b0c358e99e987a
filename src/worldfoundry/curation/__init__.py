"""Floor 2: raw video becomes a clip dataset.

Comes in: a folder, glob, list or URL of videos and images, with episodes and captions beside them. Goes out: shards of
short clips, seven tables, `report.html`. Decided here: what a shot is, which spans become clips, how they are encoded,
why a file is quarantined, how a killed run resumes. Not decided here: how clips are read for training (`data`).
The test that shows it best: `tests/curation/test_pipeline.py`. Start reading at `pipeline.curate`.
"""
