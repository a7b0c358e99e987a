"""Worlds in use: load a checkpoint, generate video from it, with the guards around it.

Comes in: a name or folder, a prompt, prefix frames, actions. Goes out: a `WorldVideo` with seed, config and verdicts.
Decided here: how a folder becomes a component or a world, how a request is resolved and checked (`request.py`), the order
guard → encode → sample → decode → guard (`world.py` for diffusion, `ar_world.py` for tokens, also as a stream), how a clip is
made window by window (`rollout.py`, `windows.py`), how a diffusion decoder makes video of tokens (`token_decoder.py`), what
fits the machine and where weights wait (`memory.py`, `offload.py`), previews and batches.
Not decided here: networks, samplers, what is unsafe.
The tests that show it best: `tests/inference/test_world.py`, `tests/inference/test_windows.py`, `tests/inference/test_ar_world.py`.
"""
