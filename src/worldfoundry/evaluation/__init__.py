"""Measuring video against the truth, with baselines, intervals and a page to look at.

Comes in: true clips and candidates for their futures, as uint8 arrays or as two folders. Goes out: an `Evaluation` (per metric,
candidate and horizon: value, interval, n, protocol hash, paired difference to copy-last-frame), results.json and report.html.
Decided here: what each metric means to the letter, which pixels count as moving, the controls, how uncertainty is estimated.
Not decided here: how the candidates were made. Surrogates never carry the name of the metric that they stand for.
The test that shows it best: `tests/evaluation/test_metrics.py` (closed forms).

Reading order: `metrics.py`, `moving.py`, `objects.py`, `baselines.py`, `bootstrap.py`, `compare.py`, then `report.py`; for metrics on
feature networks `distances.py` (the mathematics), `features.py`, `distributions.py`, `perceptual.py`, `catalogue.py`, `reference.py`;
for failures that people judge `failure.py`.
"""
