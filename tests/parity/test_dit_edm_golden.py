"""EDM numbers, schedules and whole sampled latents against NVIDIA's published sampler (4 steps, guidance, float32)."""

import pytest
import torch
from golden_files import read_golden

from worldfoundry.conditioning.condition import Condition
from worldfoundry.diffusion.guidance import guided
from worldfoundry.diffusion.original import from_original
from worldfoundry.diffusion.parametrization import EDM, NetworkDenoiser
from worldfoundry.diffusion.samplers import sample_euler, sample_heun, sample_res_2m
from worldfoundry.diffusion.schedule import karras_sigmas

PUBLISHED_MIN = 0.0002


def test_edm_coefficients():
    _, golden, config = read_golden("edm_numbers_a")
    edm, sigma = EDM(sigma_data=config["sigma_data"]), golden["in.sigma"]
    for name in ("c_in", "c_noise", "c_out", "c_skip"):
        torch.testing.assert_close(getattr(edm, name)(sigma), golden[f"out.{name}"], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("steps", [4, 10, 35])
def test_karras_schedule(steps):
    _, golden, _ = read_golden("edm_numbers_a")
    sigmas = karras_sigmas(steps, PUBLISHED_MIN)
    torch.testing.assert_close(sigmas.float(), golden[f"out.sched_sigmas_{steps}"], atol=0, rtol=1e-6)
    timesteps = EDM().c_noise(sigmas[:-1]).float()
    torch.testing.assert_close(timesteps, golden[f"out.sched_timesteps_{steps}"], atol=1e-6, rtol=1e-6)


def test_euler_steps_of_a_constant_network():
    _, golden, _ = read_golden("edm_numbers_a")
    output, edm, states = golden["in.step_net_output"], EDM(), [golden["in.step_x"]]

    def denoise(x, sigma):
        return edm.denoise(output, x, sigma)

    sample_euler(denoise, states[0], karras_sigmas(4, PUBLISHED_MIN), lambda i, x, x0: states.append(x))
    torch.testing.assert_close(torch.stack(states), golden["out.step_trajectory"], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "name", "steps"),
    [(sample_euler, "1euler", 12), (sample_heun, "2heun_edm", 6), (sample_res_2m, "2ab", 12)],
)
def test_training_side_samplers(sampler, name, steps):
    """Float64 state, steps + 1 levels from 80 to 0.002, one more denoising at the last."""
    _, golden, _ = read_golden("edm_numbers_a")

    def denoise(x, t):
        t = t.double().view(-1, *[1] * (x.ndim - 1))
        return torch.tanh(0.3 * x / (1 + t) + 0.1 * t.log())

    sigmas = karras_sigmas(steps + 1, 0.002, end_at_zero=False)
    x = sampler(denoise, golden["in.res_x_sigma_max"].double(), sigmas)
    clean = denoise(x, torch.full((len(x),), 0.002))
    torch.testing.assert_close(clean.float(), golden[f"out.res_{name}_nfe12"], atol=5e-5, rtol=1e-5)


def sampled(case, published=False):
    """The golden file's latents, resampled; `published` also imitates what the published code does to the prefix."""
    weights, golden, config = read_golden(case)
    network = from_original(weights, config["kwargs"])
    prefix = golden.get("in.condition_latent")
    condition = Condition(
        context_BLD=golden["in.crossattn_emb"],
        fps_B=golden["in.fps"],
        padding_mask_B1HW=golden["in.padding_mask"],
        prefix_BCTHW=prefix,
        num_prefix_B=None if prefix is None else golden["in.num_condition_t"].view(1),
        augment_noise_BCTHW=golden.get("in.augment_noise"),
    )
    denoiser = NetworkDenoiser(network, prefix_rule="published" if published else "x0")
    negative = condition.unconditional(golden["in.crossattn_emb_neg"])
    denoise = guided(denoiser, condition, negative, config["guidance"])
    x = golden["in.noise"] * (80.0**2 + 1) ** 0.5
    sigmas = karras_sigmas(config["num_steps"], PUBLISHED_MIN)
    if not published:
        return sample_euler(denoise, x, sigmas), golden
    for i in range(config["num_steps"]):  # the published sampler steps from the replaced state
        x = denoiser.with_prefix(x, sigmas[i : i + 1].float(), condition)
        x = sample_euler(denoise, x, sigmas[i : i + 2])
    return x, golden


def test_text_to_world_sample_equals_the_published():
    latent, golden = sampled("edm_sample_t2w_a")
    torch.testing.assert_close(latent, golden["out.latent"], atol=5e-5, rtol=0)


def test_video_to_world_sample_equals_the_published():
    latent, golden = sampled("edm_sample_v2w_a", published=True)
    torch.testing.assert_close(latent, golden["out.latent"], atol=5e-5, rtol=0)


def test_video_to_world_sample_keeps_the_prefix_by_default():
    latent, golden = sampled("edm_sample_v2w_a")
    given = int(golden["in.num_condition_t"])
    assert torch.equal(latent[:, :, :given], golden["in.condition_latent"][:, :, :given])
