"""Tokenizer training: each term alone moves encoder and decoder, terms wait for their share, a cut run with all of them resumes."""

import sys

import pytest
import torch

from worldfoundry.core.errors import CheckpointError, MissingExtraError
from worldfoundry.perception.vgg16 import CAFFE, Vgg16Trunk
from worldfoundry.tokenizers.build import build_tokenizer
from worldfoundry.tokenizers.config import named_config
from worldfoundry.training.config import AdversarialConfig, FlowConfig, LoopConfig, TermConfig, TokenizerLossConfig
from worldfoundry.training.loop import train
from worldfoundry.training.losses.perceptual import VggFeatures
from worldfoundry.training.methods.tokenizer import TokenizerMethod, last_layer
from worldfoundry.training.state import load_state
from worldfoundry.training.streams import TensorStream

SMALL = {"channels": 8, "channels_mult": (1, 2), "num_res_blocks": 1, "z_channels": 8}
KINDS = {
    "continuous video": named_config("debug"),
    "discrete video": named_config("debug").replace(latent_channels=4, levels=(8, 5, 5, 5)),
    "continuous image": named_config("debug-ci8x8").replace(**SMALL, num_groups=4, latent_channels=4),
    "discrete image": named_config("debug-di8x8").replace(**SMALL, num_groups=4, latent_channels=4, levels=(8, 5, 5, 5)),
}
NONE = {"l1": 0.0, "l2": 0.0}
ADVERSARIAL = {"channels": 8, "layers": 2}
TERMS = {
    "l1": {"l1": 1.0},
    "l2": {"l2": 1.0},
    "perceptual": {"perceptual": TermConfig(weight=1.0)},
    "gram": {"gram": TermConfig(weight=1.0)},
    "flow": {"flow": FlowConfig(weight=1.0, estimator="lucas-kanade")},
    "adversarial": {"l1": 1e-3, "adversarial": AdversarialConfig(weight=1.0, **ADVERSARIAL)},
}


@pytest.fixture(autouse=True)
def small_vgg(monkeypatch):
    """Random features in place of the downloaded ones: what is tested here is how the terms are put together."""

    def load(file=None):
        torch.manual_seed(0)
        trunk = Vgg16Trunk(bgr=True, scale=CAFFE)
        trunk.blocks = torch.nn.ModuleList(
            torch.nn.ModuleList([torch.nn.Conv2d(ins, 4, 3, padding=1)]) for ins in (3, 4, 4, 4, 4)
        )
        return VggFeatures(trunk, 57.0)

    monkeypatch.setattr("worldfoundry.training.methods.tokenizer.load_features", load)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clips(batch=1, frames=5, size=16):
    """Clips that pan over a smooth picture."""
    noise = torch.rand(batch, 3, size // 2, size // 2 + frames, generator=generator(3))
    wide = torch.nn.functional.interpolate(noise, scale_factor=2, mode="bilinear").mul(255).round().to(torch.uint8)
    return torch.stack([wide[..., t : t + size] for t in range(frames)], dim=1).movedim(2, -1)


def method(kind="continuous video", progress=1.0, **loss):
    torch.manual_seed(0)
    made = TokenizerMethod(build_tokenizer(KINDS[kind].to_dict()), TokenizerLossConfig(**loss), mirror=False)
    made.begin_step(progress)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_moves_encoder_and_decoder(kind, term):
    made = method(kind, **{**NONE, **TERMS[term]})
    out = made.training_step({"video": clips()}, generator())
    out.loss.backward()
    for part in (made.module.encoder, made.module.decoder):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in made.module.parameters())
    assert term in ("l1", "l2") or out.metrics[term] != 0


def test_the_adversarial_pull_on_the_last_layer_is_as_hard_as_asked():
    """With weight w the term's gradient there has w times the norm of all other terms'."""

    def gradient(**loss):
        made = method(l1=1.0, l2=0.0, **loss)
        made.training_step({"video": clips()}, generator()).loss.backward()
        return last_layer(made.module).grad

    plain = gradient()
    both = gradient(adversarial=AdversarialConfig(weight=0.5, largest_weight=1e6, **ADVERSARIAL))
    assert (both - plain).norm() == pytest.approx(0.5 * float(plain.norm()), rel=0.01)


def test_terms_wait_for_their_share_and_grow_to_their_weight():
    term = TermConfig(weight=2.0, start=0.5, ramp=0.2)
    assert [term.at(p) for p in (0.0, 0.49, 0.6, 0.7, 1.0)] == pytest.approx([0, 0, 1, 2, 2])
    assert TermConfig(weight=2.0, start=0.5).at(0.5) == 2
    loss = {
        "perceptual": TermConfig(weight=0.1, start=0.5),
        "adversarial": AdversarialConfig(weight=0.1, start=0.8, **ADVERSARIAL),
    }
    logged = [set(method(progress=p, **loss).training_step({"video": clips()}, generator()).metrics) for p in (0.2, 0.6, 0.9)]
    assert logged == [{"psnr"}, {"psnr", "perceptual"}, {"psnr", "perceptual", "adversarial", "discriminator"}]


def test_a_term_of_weight_nought_loads_no_network():
    made = method()
    assert made.features is None
    assert made.adversary is None
    assert made.state_tensors() == {}


def test_an_image_has_no_flow():
    made = method(flow=FlowConfig(weight=1.0, estimator="lucas-kanade"))
    assert "flow" not in made.training_step({"video": clips(frames=1)}, generator()).metrics


def test_missing_opencv_is_told_before_the_first_step_not_when_the_term_sets_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="cv2"):
        method(flow=FlowConfig(weight=1.0, start=0.9))


def test_a_differentiable_flow_network_takes_the_place_of_the_estimator():
    seen = []

    def network(a, b):
        seen.append(b.requires_grad)
        return (b - a).mean(1, keepdim=True).expand(-1, 2, -1, -1)

    torch.manual_seed(0)
    config = TokenizerLossConfig(flow=FlowConfig(weight=1.0))
    made = TokenizerMethod(build_tokenizer(KINDS["continuous video"].to_dict()), config, mirror=False, flow_network=network)
    assert made.training_step({"video": clips()}, generator()).metrics["flow"] > 0
    assert seen == [False, False, True, True]


def all_terms(run, steps, saves=1000.0):
    torch.manual_seed(0)
    config = TokenizerLossConfig(
        perceptual=TermConfig(weight=0.1), gram=TermConfig(weight=0.06, start=0.2), perceptual_frames=2,
        flow=FlowConfig(weight=0.01, estimator="lucas-kanade", pairs=2),
        adversarial=AdversarialConfig(weight=0.1, start=0.3, **ADVERSARIAL),
    )  # fmt: skip
    made = TokenizerMethod(build_tokenizer(KINDS["discrete video"].to_dict()), config, mirror=True)
    stream = TensorStream({"video": clips(batch=5)}, batch_size=2, seed=0)
    loop = LoopConfig(steps=steps, precision="float32", compile="off", save_every_s=saves, log_every=1)
    return made, train(made, stream, loop, run, callback=run_stopper(run), callback_every_s=1e-9)


def run_stopper(run):
    """Dies at step 6 of a run called `cut` the first time it gets there, with the state of step 6 not yet saved."""

    def callback(step, ema):
        if run.name == "cut" and step == 6 and not (run / "died").exists():
            (run / "died").touch()
            raise KeyboardInterrupt
        return {}

    return callback


def test_resumed_equals_uninterrupted_with_every_term_on(tmp_path):
    whole, whole_result = all_terms(tmp_path / "whole", 10)
    with pytest.raises(KeyboardInterrupt):
        all_terms(tmp_path / "cut", 10, saves=1e-9)
    assert load_state(tmp_path / "cut")[1]["step"] == 5
    resumed, result = all_terms(tmp_path / "cut", 10, saves=1e-9)
    pairs = [(whole.module.state_dict(), resumed.module.state_dict()), (whole_result.ema.average, result.ema.average)]
    pairs.append((whole.state_tensors(), resumed.state_tensors()))
    for a, b in pairs:
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(name.startswith("optim.") for name in whole.state_tensors())


def test_a_state_without_the_discriminator_is_refused_in_one_line(tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(KeyboardInterrupt):
        all_terms(tmp_path / "cut", 10, saves=1e-9)
    file = (tmp_path / "cut" / "checkpoints" / "last").resolve() / "tensors.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith("method.")}, file)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        all_terms(tmp_path / "cut", 10, saves=1e-9)
    assert "\n" not in caught.value.message
