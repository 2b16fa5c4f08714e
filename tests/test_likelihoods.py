"""Every kind of column: a density that integrates to one, its gradient, its mean and its draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from skvae.likelihoods import KINDS, LOG_STD_MIN, Likelihood, bernoulli_log_prob, normal_log_prob

OUTPUTS = np.array([-3.0, -0.5, 0.0, 2.0])
LOG_STD = np.array([-2.0, -0.3, 0.0, 1.1])


def block(kind):
    """One block of four columns in float64 whose own parameters are not at their start."""
    b = KINDS[kind](len(OUTPUTS)).double()
    with torch.no_grad():
        for p in b.parameters():
            p.copy_(torch.from_numpy(LOG_STD))
    return b


def cells(kind, n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) if kind == "normal" else rng.integers(0, 2, size=(n, 4)).astype(float)
    return torch.from_numpy(x)


def oracle(kind, j):
    """The distribution of column j by scipy."""
    if kind == "normal":
        return stats.norm(OUTPUTS[j], np.exp(LOG_STD[j]))
    return stats.bernoulli(1 / (1 + np.exp(-OUTPUTS[j])))


@pytest.mark.parametrize("kind", KINDS)
def test_log_density_is_that_of_scipy(kind):
    x = cells(kind, 30)
    got = block(kind).log_prob(x, torch.from_numpy(OUTPUTS)).detach().numpy()
    for j in range(4):
        density = oracle(kind, j)
        log_prob = density.logpdf if kind == "normal" else density.logpmf
        np.testing.assert_allclose(got[:, j], log_prob(x[:, j].numpy()), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_density_integrates_to_one(kind):
    b, outputs = block(kind), torch.from_numpy(OUTPUTS)

    def density(x):
        return torch.exp(b.log_prob(torch.full((4,), float(x), dtype=torch.float64), outputs)).detach().numpy()

    if kind == "bernoulli":
        np.testing.assert_allclose(density(0) + density(1), 1, rtol=1e-12)
        return
    for j in range(4):
        width = 12 * np.exp(LOG_STD[j])
        total, _ = quad(lambda x: density(x)[j], OUTPUTS[j] - width, OUTPUTS[j] + width, points=[OUTPUTS[j]])  # noqa: B023
        assert total == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_hand_written_gradient_is_that_of_autograd(kind, weighted):
    b, n = block(kind), 9
    x, rng = cells(kind, n), np.random.default_rng(1)
    outputs = torch.from_numpy(rng.normal(size=(n, 4))).requires_grad_()
    scale = torch.from_numpy(rng.uniform(0.1, 2, n)) if weighted else torch.full((n,), 1 / n, dtype=torch.float64)
    loss = -(scale[:, None] * b.log_prob(x, outputs)).sum(0)
    expected = torch.autograd.grad(loss.sum(), [outputs, *b.parameters()])
    gradient = outputs.detach().clone()
    grads = {name: torch.full_like(p, torch.nan) for name, p in b.named_parameters()}
    by_column = b.backward_(x, gradient, scale, scale.sum(), grads)
    torch.testing.assert_close(by_column.detach(), loss.detach(), rtol=1e-12, atol=1e-12)
    for got, want in zip([gradient, *grads.values()], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_density(kind):
    generator = torch.Generator().manual_seed(0)
    draws = block(kind).draw(torch.from_numpy(OUTPUTS).expand(20_000, 4), generator).detach().numpy()
    for j in range(4):
        if kind == "normal":
            assert stats.kstest(draws[:, j], oracle(kind, j).cdf).pvalue > 1e-4
        else:
            assert set(np.unique(draws[:, j])) == {0.0, 1.0}
            assert stats.binomtest(int(draws[:, j].sum()), len(draws), oracle(kind, j).mean()).pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_columns_are_independent_and_follow_the_generator(kind):
    outputs = torch.zeros(5_000, 4, dtype=torch.float64)
    draws = [block(kind).draw(outputs, torch.Generator().manual_seed(seed)).detach() for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    correlation = np.corrcoef(draws[0].numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(5_000)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_is_the_mean_of_the_density(kind):
    mean = block(kind).mean(torch.from_numpy(OUTPUTS)).numpy()
    np.testing.assert_allclose(mean, [oracle(kind, j).mean() for j in range(4)], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_outputs_have_the_mean_asked_for(kind):
    b, mean = block(kind), torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
    torch.testing.assert_close(b.mean(b.initial_outputs(mean)), mean)
    assert torch.isfinite(b.initial_outputs(torch.tensor([0.0, 1.0, 0.0, 1.0]))).all()


def test_log_densities_stay_finite_at_absurd_outputs():
    logits = torch.tensor([-1e30, -200.0, 200.0, 1e30])
    for x in (0.0, 1.0, 0.5):
        assert torch.isfinite(bernoulli_log_prob(torch.tensor(x), logits)).all()
    # the right answer where a product of probabilities would have been log 0
    torch.testing.assert_close(bernoulli_log_prob(torch.tensor(0.0), torch.tensor(200.0)), torch.tensor(-200.0))
    small = torch.tensor(LOG_STD_MIN)
    assert torch.isfinite(normal_log_prob(torch.tensor(1e3), torch.tensor(-1e3), small))


def test_row_is_the_product_of_its_columns_in_order():
    likelihood = Likelihood({"normal": 4, "bernoulli": 4}).double()
    x = torch.cat([cells("normal", 6), cells("bernoulli", 6)], dim=1)
    outputs = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 8)))
    log_prob = likelihood.log_prob(x, outputs)
    assert (likelihood.n_columns, likelihood.n_outputs) == (8, 8)
    normal = torch.distributions.Normal(outputs[:, :4], 1.0).log_prob(x[:, :4])
    bernoulli = torch.distributions.Bernoulli(logits=outputs[:, 4:]).log_prob(x[:, 4:])
    torch.testing.assert_close(log_prob, torch.cat([normal, bernoulli], dim=1))
    torch.testing.assert_close(likelihood.mean(outputs), torch.cat([outputs[:, :4], outputs[:, 4:].sigmoid()], dim=1))
    assert likelihood.draw(outputs, torch.Generator()).shape == (6, 8)
    # leading dimensions are free
    torch.testing.assert_close(likelihood.log_prob(x, outputs.expand(3, 6, 8))[1], log_prob)


def test_projection_keeps_noise_deviations_above_their_floor_only():
    likelihood = Likelihood({"normal": 2, "bernoulli": 1})
    with torch.no_grad():
        likelihood.blocks[0].log_std.copy_(torch.tensor([-50.0, 3.0]))
    likelihood.project()
    assert likelihood.blocks[0].log_std.tolist() == pytest.approx([np.log(1e-3), 3.0])


def test_table_without_a_modelled_column_has_no_density():
    likelihood = Likelihood({})
    nothing = torch.zeros(3, 0)
    assert likelihood.log_prob(nothing, nothing).sum(-1).tolist() == [0, 0, 0]
    assert likelihood.draw(nothing, torch.Generator()).shape == (3, 0)
