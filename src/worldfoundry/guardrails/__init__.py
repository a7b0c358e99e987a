"""Floor 2: before anything is generated, and before any frame leaves, guards look at it.

Comes in: a prompt, or frames with their rate. Goes out: a tuple of verdicts; `enforce_*` raises where one of them blocks.
Decided here: what blocks (anything but `safe`), the default guards, their thresholds, and that a guard that raises, hangs,
answers nonsense, lacks its weights or is not configured blocks too, with the reason and the way to fix it.
Not decided here: when guards are called (`inference`), and how a block looks to the user (`cli`).
The tests that show it best: `tests/guardrails/test_runner.py` (faults), `tests/guardrails/test_text.py` (what passes).
"""
