"""Floor 3: the diffusion world model: network, parametrisation, schedules, samplers, guidance, loss.

Comes in: noisy latents, a noise level, a `Condition`. Goes out: an estimate of the clean latents, or sampled latents.
Decided here: the Cosmos DiT (`dit.py`, one network in one file; `coarse.py` makes a diffusion decoder of it), what it predicts:
EDM or rectified flow (`parametrization.py`), which noise levels are visited (`schedule.py`) and how (`samplers.py`), what
guidance means (`guidance.py`), which steps may be skipped (`step_cache.py`), the training loss (`loss.py`), and the published
layouts (`original.py`, `diffusers.py`).
Not decided here: how latents are made (tokenizers), how training steps are taken (training), what a user calls (inference).
The tests that show it best: `tests/parity/test_dit_golden.py`, `tests/diffusion/test_samplers.py`.
"""
