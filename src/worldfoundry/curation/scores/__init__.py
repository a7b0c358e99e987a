"""What can be said in numbers about a span of video: pure functions, no files, no decisions.

Comes in: the frames of a span as the one decoding pass gives them (uint8 THWC, and their rate), or a few frames at full
size. Goes out: small dictionaries of numbers, one per score, with the names of the tables' columns. Decided here: how each
score is defined and over what range. Not decided here: what a good score is (`select`), which frames are decoded, in what
order stages run. One file per score, each test beside it; the one that shows it best: `tests/curation/scores/test_motion.py`.
"""
