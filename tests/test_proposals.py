"""Steps from the encoder's mean towards the posterior."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import shaken
from reference import SlowVAE

from skvae.model.proposals import LONGEST_STEP, STEP, steps_uphill


def normal_posterior(centre, std):
    """log p(x | z) such that p(z | x) is N(centre, std^2) under the prior N(0, 1); shapes (n, latent_dim)."""

    def log_prob(z):
        return (-0.5 * ((z - centre) / std) ** 2 + 0.5 * z**2).sum(-1)

    return log_prob


def points(seed, n=6):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))


def test_a_step_of_full_length_ends_at_the_mean_of_a_normal_posterior():
    centre, std = points(0), 0.2 + points(1).abs()
    z_mean = centre + 0.3 * std * points(2)
    steps = steps_uphill(normal_posterior(centre, std), z_mean, std)
    torch.testing.assert_close(z_mean + std * steps / STEP, centre)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", ["missing", "gated", "exposure", "all"])
def test_steps_are_those_of_the_gradient_of_the_twin(kinds, decoder):
    module = shaken(kinds, decoder=decoder)
    x, _ = rows_of(LAYOUTS[kinds], 9)
    z_mean, z_std = 0.1 * points(0, 9)[:, :2], 0.05 + 0.01 * points(1, 9)[:, :2].abs()
    steps = steps_uphill(lambda z: module.likelihood.log_prob(x, module.decode(z, x)).sum(-1), z_mean, z_std)

    slow = SlowVAE(module)
    z = z_mean.clone().requires_grad_()
    joint = slow.log_prob(x, z) + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    (gradient,) = torch.autograd.grad(joint.sum(), z)
    expected = STEP * z_std * gradient
    lengths = expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(steps, expected * (LONGEST_STEP / lengths).clamp_max(1), rtol=1e-9, atol=1e-9)


def test_steps_are_cut_where_the_gradient_is_long_and_0_where_it_is_no_number():
    far = torch.tensor([[1e6, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    steps = steps_uphill(normal_posterior(far, 1e-3), torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3).double())
    torch.testing.assert_close(steps, torch.tensor([[LONGEST_STEP, 0, 0], [0, 0, 0]], dtype=torch.float64))
    broken = steps_uphill(lambda z: torch.sqrt(z - 1).sum(-1), torch.zeros(2, 3), torch.ones(2, 3))
    assert torch.equal(broken, torch.zeros(2, 3))


def test_a_decoder_that_leaves_z_aside_leads_to_the_prior():
    z_mean = torch.tensor([[0.5, -0.5]])
    steps = steps_uphill(lambda z: torch.zeros(1), z_mean, torch.full((1, 2), 0.5))
    torch.testing.assert_close(steps, -STEP * 0.5 * z_mean)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_steps_are_the_same_where_gradients_are_switched_off(mode):
    centre, std = points(0), torch.ones(6, 3, dtype=torch.float64)
    expected = steps_uphill(normal_posterior(centre, std), 0.5 * centre, std)
    with mode():
        assert torch.equal(steps_uphill(normal_posterior(centre, std), 0.5 * centre, std), expected)
