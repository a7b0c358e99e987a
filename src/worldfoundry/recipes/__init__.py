"""Complete runs: each recipe is a typed config and a function that carries it out, start to finish.

Comes in: a folder of clips (or nothing: `quickstart` brings its own). Goes out: checkpoints, results, a report.
Decided here: which parts are put together, with which settings. Not decided here: how any part works.
The test that shows it best: `tests/e2e/test_quickstart.py`.
"""
