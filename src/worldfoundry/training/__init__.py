"""One training loop for everything that learns.

Comes in: a `Method` (what a step computes), a resumable stream of batches, a `LoopConfig`. Goes out: a run folder with
metrics, resumable state and an exported checkpoint. Decided here: precision, clipping, learning-rate schedule, EMA,
when state is saved, what a resumed run must reproduce, how several processes share the work. Not decided here: networks,
losses, data formats. The tests that show it best: `tests/training/test_loop.py` (killed and resumed = uninterrupted, bit for
bit), `tests/training/test_distributed.py` and `tests/training/test_tensor_parallel.py` (several processes compute what one does).
"""
