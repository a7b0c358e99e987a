"""Floor 2: video and images to few numbers and back, with the Cosmos tokenizers (arXiv 2501.03575, section 4).

Comes in: float video [B, 3, T, H, W] in [-1, 1] (an image is a video of one frame), or published weights in either of their
two layouts. Goes out: continuous latents, or codebook indices, and video again.
Decided here: the networks, every official size by name, quantisation, latent statistics, how published keys map to ours.
Not decided here: losses and schedules (training), files and devices (core), how long video is cut (inference).
The tests that show it best: `tests/parity/test_tokenizers_golden.py` (numbers of the published networks) and
`tests/tokenizers/test_check.py` (the contract, over every debug size).

Reading order: config, video_network, image_network, fsq, tokenizer, build; then original and diffusers; then check.
"""
