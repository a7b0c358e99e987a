"""Floor 2: what a world model is told besides noise: text, given frames, actions, frame rate.

Comes in: prompts, actions per frame, encoded prefix frames. Goes out: a frozen `Condition`, and adapters for the networks.
Decided here: how conditions batch and how their unconditional form looks (`condition.py`), which text encoder gives which
rows (`text.py`, and `t5.py` for published worlds), how actions are grouped per latent frame (`action.py`), how a short prompt
becomes a detailed one (`upsampler.py`).
Not decided here: what a network does with them (diffusion), where weights come from (core.model_store).
The test that shows it best: `tests/conditioning/test_action.py`.
"""
