"""The terms of the tokenizer's loss, one file each. Clips and reconstructions come in, scalars with a gradient go out.

Decided here: what each term measures. Not decided here: weights and when each term sets in (`training.config`), which steps it
takes part in (`training.methods.tokenizer`). The tests that show it best: `tests/training/losses/`, one known answer per term.
"""
