"""Floor 1: pretrained feature networks of other people, one file each, as plain torch modules.

Comes in: their published weights (safetensors), text or frames. Goes out: features.
Decided here: the forward of each network, written anew (`folding.py` and `winograd.py` give the same numbers with less work).
Not decided here: how weights are fetched (core.model_store) or what features are used for.
The test that shows it best: `tests/perception/test_minilm.py`.
"""
