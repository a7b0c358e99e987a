"""Floor 1: data at rest and on its way into training.

Comes in: clip datasets (WebDataset tars and Parquet tables, written by `worldfoundry curate`). Goes out: clip records,
decoded frames and actions, training windows in a saved and restorable order, cached latents.
Decided here: the tar layout and its index, bucket names, the split by source, how a clip is resized and cropped.
Not decided here: which clips are worth keeping (curation), what a model does with them (training).
The test that shows it best: `tests/data/test_windows.py`.
"""
