"""Floor 1: layers that more than one network is made of, and nothing that knows what a world model is.

Comes in: tensors. Goes out: tensors, from small modules with few arguments and no configs.
Decided here: the exact arithmetic of each layer as the published Cosmos networks compute it (band order, padding, epsilon).
Not decided here: how layers are put together (tokenizers, diffusion), or in which precision they run (training, inference).
The tests that show it best: `tests/nn/test_haar.py` (perfect reconstruction) and `tests/nn/test_causal_conv.py` (causality).
"""
