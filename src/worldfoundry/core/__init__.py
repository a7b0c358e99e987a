"""Floor 0: what every room stands on, and that knows no room.

Comes in: files, flags, tensors. Goes out: validated configs, one error tree, checkpoint folders, decoded video, progress.
Decided here: contracts between rooms, exit codes, the on-disk checkpoint layout, how video is read and written.
Not decided here: anything about models. The tests that show it best: `tests/core`, `tests/architecture`.
"""
