"""Floor 3: the autoregressive world model: it predicts the next token of a discrete tokenizer's video.

Comes in: tokens in raster order (latent frame, row, column), text rows. Goes out: logits of the tokens that follow.
Decided here: the Cosmos transformer (`transformer.py`, one network in one file), where a token is (`positions.py`), what decoding
remembers (`cache.py`), the heads that guess ahead (`medusa.py`), the
same network in fewer operations (`lean.py`), how tokens are drawn (`sampling.py`), one by one or as drafts guess them
(`decoding.py`, `drafts.py`), and the published layouts (`original.py`).
Not decided here: how tokens are made and turned back into pixels (tokenizers), how training steps are taken (training), what a
user calls (inference).
The tests that show it best: `tests/parity/test_autoregressive_golden.py`, `tests/autoregressive/test_transformer.py`.
"""
