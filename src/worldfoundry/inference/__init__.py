"""Worlds in use: load a checkpoint, generate video from it, with the guards around it.

Comes in: a name or folder, a prompt, prefix frames, actions. Goes out: a `WorldVideo` with seed, config and verdicts.
Decided here: how a folder becomes a component or a world, how a request is resolved and checked, the order
guard → encode → sample → decode → guard. Not decided here: networks, samplers, what is unsafe.
The test that shows it best: `tests/inference/test_world.py`.
"""
