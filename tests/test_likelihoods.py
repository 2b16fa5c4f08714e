"""Every kind of column: a density that integrates to one, its gradient, its mean and its draws."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, rows_of
from reference import SlowVAE, level_logits, parts_of
from scipy import special, stats
from scipy.integrate import quad

from skvae.model.likelihoods import (
    LOG_DISPERSION_MAX,
    LOG_STD_MIN,
    Bernoulli,
    Categorical,
    Likelihood,
    NegativeBinomial,
    Normal,
    NormalMixture,
    Poisson,
    bernoulli_log_prob,
    negative_binomial_log_prob,
    normal_log_prob,
    poisson_log_prob,
)
from skvae.model.network import build_vae

LEVELS, ORDERED, COMPONENTS = (2, 3, 5, 4), (0, 2, 4, 4), 3
OWN = np.array([-2.0, -0.3, 0.0, 1.1])
BLOCKS = {
    "normal": lambda: Normal(4),
    "mixture": lambda: NormalMixture(4, COMPONENTS),
    "bernoulli": lambda: Bernoulli(4),
    "categorical": lambda: Categorical(LEVELS),
    "ordered": lambda: Categorical(LEVELS, ORDERED),
    "poisson": lambda: Poisson(4),
    "negative_binomial": lambda: NegativeBinomial(4),
}
OUTPUTS = {
    "normal": np.array([-3.0, -0.5, 0.0, 2.0]),
    "mixture": np.random.default_rng(8).normal(size=3 * 4 * COMPONENTS),
    "bernoulli": np.array([-3.0, -0.5, 0.0, 2.0]),
    "categorical": 2 * np.random.default_rng(9).normal(size=sum(LEVELS)),
    "ordered": np.random.default_rng(9).normal(size=sum(LEVELS) + 1 + 3 + 3),
    "poisson": np.array([-3.0, -0.5, 0.0, 2.0]),
    "negative_binomial": np.array([-3.0, -0.5, 0.0, 2.0]),
}
CONTINUOUS, LEVELLED = ("normal", "mixture"), ("categorical", "ordered")


def block(kind):
    """One block of four columns in float64 whose own parameters are not at their start."""
    b = BLOCKS[kind]().double()
    with torch.no_grad():
        for p in b.parameters():
            p.copy_(torch.from_numpy(OWN))
    return b


def values(kind, n, seed=0):
    """Values of the four columns: numbers, counts, or positions of levels; shape (n, 4)."""
    rng = np.random.default_rng(seed)
    if kind in CONTINUOUS:
        return rng.normal(size=(n, 4))
    if kind in ("poisson", "negative_binomial"):
        return rng.poisson(3, size=(n, 4)).astype(float)
    return rng.integers(0, LEVELS if kind in LEVELLED else 2, size=(n, 4)).astype(float)


def cells(kind, numbers):
    """What an encoded row holds for values of the four columns: levels one-hot, the rest as they are."""
    if kind in LEVELLED:
        numbers = np.hstack([np.arange(n) == numbers[:, [j]] for j, n in enumerate(LEVELS)]).astype(float)
    return torch.from_numpy(numbers)


class Mixture:
    """A mixture of normals by scipy, with the methods of its frozen distributions."""

    def __init__(self, weights, means, deviations):
        self.weights, self.parts = weights, [stats.norm(m, s) for m, s in zip(means, deviations, strict=True)]

    def logpdf(self, x):
        return special.logsumexp([p.logpdf(x) for p in self.parts], axis=0, b=self.weights[:, None])

    def cdf(self, x):
        return sum(w * p.cdf(x) for w, p in zip(self.weights, self.parts, strict=True))

    def mean(self):
        return sum(w * p.mean() for w, p in zip(self.weights, self.parts, strict=True))


def oracle(kind, j):
    """The distribution of column j by scipy."""
    outputs = OUTPUTS[kind]
    if kind == "normal":
        return stats.norm(outputs[j], np.exp(OWN[j]))
    if kind == "mixture":
        logits, means, log_stds = outputs.reshape(3, COMPONENTS, 4)[..., j]
        return Mixture(special.softmax(logits), means, np.exp(log_stds))
    if kind == "bernoulli":
        return stats.bernoulli(special.expit(outputs[j]))
    if kind == "poisson":
        return stats.poisson(np.exp(outputs[j]))
    if kind == "negative_binomial":
        r, mean = np.exp(OWN[j]), np.exp(outputs[j])
        return stats.nbinom(r, r / (r + mean))
    b = BLOCKS[kind]()
    own = torch.from_numpy(outputs[b.output_column == j])
    p = special.softmax(level_logits(own, LEVELS[j], b.n_ordered[j]).numpy())
    return stats.rv_discrete(values=(np.arange(LEVELS[j]), p))


@pytest.mark.parametrize("kind", BLOCKS)
def test_log_density_is_that_of_scipy(kind):
    x = values(kind, 30)
    got = block(kind).log_prob(cells(kind, x), torch.from_numpy(OUTPUTS[kind])).detach().numpy()
    assert got.shape == (30, 4)
    for j in range(4):
        density = oracle(kind, j)
        log_prob = density.logpdf if kind in CONTINUOUS else density.logpmf
        np.testing.assert_allclose(got[:, j], log_prob(x[:, j]), rtol=1e-9)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_density_integrates_to_one(kind):
    b, outputs = block(kind), torch.from_numpy(OUTPUTS[kind])

    def density(x, j):
        return float(torch.exp(b.log_prob(torch.full((4,), float(x), dtype=torch.float64), outputs))[j].detach())

    for j in range(4):
        low, middle, high = (stats.norm(OUTPUTS[kind][j], 12 * np.exp(OWN[j])).ppf(q) for q in (0.16, 0.5, 0.84))
        if kind == "mixture":
            low, middle, high = -60.0, oracle(kind, j).mean(), 60.0
        total, _ = quad(density, low, high, args=(j,), points=[middle], limit=200)
        assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind not in CONTINUOUS])
def test_masses_sum_to_one(kind):
    n = {"bernoulli": 2, "categorical": max(LEVELS), "ordered": max(LEVELS)}.get(kind, 400)
    numbers = np.repeat(np.arange(n, dtype=float)[:, None], 4, axis=1)
    mass = torch.exp(block(kind).log_prob(cells(kind, numbers), torch.from_numpy(OUTPUTS[kind]))).detach().numpy()
    if kind in LEVELLED:  # a row of zeros, beyond a column's levels, has no mass but counts as missing
        mass = np.where(numbers < LEVELS, mass, 0)
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-7)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_hand_written_gradient_is_that_of_autograd(kind, weighted, holes):
    b, n, rng = block(kind), 9, np.random.default_rng(1)
    x = cells(kind, values(kind, n))
    outputs = torch.from_numpy(rng.normal(size=(n, b.n_outputs))).requires_grad_()
    scale = torch.from_numpy(rng.uniform(0.1, 2, n)) if weighted else torch.full((n,), 1 / n, dtype=torch.float64)
    known = torch.from_numpy(rng.integers(0, 2, (n, 4)).astype(float)) if holes else None
    if holes:  # what is missing is encoded as zeros
        x = x * known[:, b.cell_column]
    log_prob = b.log_prob(x, outputs)
    loss = -(scale[:, None] * (log_prob * known if holes else log_prob)).sum(0)
    expected = torch.autograd.grad(loss.sum(), [outputs, *b.parameters()])
    gradient = outputs.detach().t().clone()  # rows side by side
    grads = {name: torch.full_like(p, torch.nan) for name, p in b.named_parameters()}
    own = {name: (p, grads[name]) for name, p in b.named_parameters()}
    # categories tell a missing cell from their own zeros
    mask = None if kind in LEVELLED or known is None else known.t()
    nll = torch.arange(4, dtype=torch.float64)
    with torch.no_grad():
        b.backward_(x.t().clone(), gradient, mask, scale, scale.sum(), own, nll)
    torch.testing.assert_close(nll - torch.arange(4), loss.detach(), rtol=1e-11, atol=1e-12)
    for got, want in zip([gradient.t(), *grads.values()], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", BLOCKS)
def test_hand_written_gradient_leaves_the_rows_as_they_are(kind):
    b, x = block(kind), cells(kind, values(kind, 5)).t().contiguous()
    before, scale = x.clone(), torch.full((5,), 0.2, dtype=torch.float64)
    own = {name: (p, torch.empty_like(p)) for name, p in b.named_parameters()}
    known = torch.ones(4, 5, dtype=torch.float64)
    outputs, nll = torch.zeros(b.n_outputs, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        b.backward_(x, outputs, known, scale, scale.sum(), own, nll)
    assert torch.equal(x, before)
    assert torch.equal(known, torch.ones_like(known))
    assert torch.equal(scale, torch.full_like(scale, 0.2))


@pytest.mark.parametrize("kind", BLOCKS)
def test_draws_follow_the_density(kind):
    generator, n = torch.Generator().manual_seed(0), 20_000
    draws = block(kind).draw(torch.from_numpy(OUTPUTS[kind]).expand(n, -1), generator).detach().numpy()
    assert draws.shape == (n, 4)
    for j in range(4):
        density = oracle(kind, j)
        if kind in CONTINUOUS:
            assert stats.kstest(draws[:, j], density.cdf).pvalue > 1e-4
            continue
        seen, observed = np.unique(draws[:, j], return_counts=True)
        expected = n * density.pmf(seen)
        common = expected >= 5
        observed, expected = (np.append(counts[common], n - counts[common].sum()) for counts in (observed, expected))
        kept = expected > 1e-6
        assert (
            stats.chisquare(observed[kept], expected[kept] * observed[kept].sum() / expected[kept].sum()).pvalue > 1e-4
        )


@pytest.mark.parametrize("kind", BLOCKS)
def test_draws_of_columns_are_independent_and_follow_the_generator(kind):
    b = block(kind)
    outputs = torch.zeros(5_000, b.n_outputs, dtype=torch.float64)
    draws = [b.draw(outputs, torch.Generator().manual_seed(seed)).detach() for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    correlation = np.corrcoef(draws[0].numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(5_000)


@pytest.mark.parametrize("kind", BLOCKS)
def test_mean_is_the_mean_of_the_density_or_its_most_probable_level(kind):
    mean = block(kind).mean(torch.from_numpy(OUTPUTS[kind])).detach().numpy()
    densities = [oracle(kind, j) for j in range(4)]
    expected = [d.pmf(d.xk).argmax() if kind in LEVELLED else d.mean() for d in densities]
    np.testing.assert_allclose(mean, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", BLOCKS)
def test_initial_outputs_have_the_mean_asked_for(kind):
    b = block(kind)
    if kind in LEVELLED:
        shares = np.concatenate([np.random.default_rng(n).dirichlet(np.ones(n)) for n in LEVELS]).clip(0.01)
        initial = b.initial_outputs(torch.from_numpy(shares))
        for j, expected in enumerate(np.split(shares, np.cumsum(LEVELS)[:-1])):
            logits = level_logits(initial[b.output_column == j], LEVELS[j], b.n_ordered[j])
            np.testing.assert_allclose(torch.softmax(logits, 0), expected / expected.sum(), rtol=1e-9)
    else:
        mean = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
        torch.testing.assert_close(b.mean(b.initial_outputs(mean)), mean, rtol=1e-6, atol=1e-7)
    assert torch.isfinite(b.initial_outputs(torch.zeros(b.n_cells))).all()
    assert torch.isfinite(b.initial_outputs(torch.ones(b.n_cells))).all()


@pytest.mark.parametrize("kind", BLOCKS)
def test_one_column_of_a_block_is_that_column(kind):
    b, x = block(kind), values(kind, 12)
    outputs = torch.from_numpy(np.random.default_rng(3).normal(size=(12, b.n_outputs)))
    whole_cells = cells(kind, x)
    log_prob, mean = b.log_prob(whole_cells, outputs), b.mean(outputs)
    for j in range(4):
        one, own = b.one(j), b.output_column == j
        assert (one.n_columns, one.n_outputs, one.n_cells) == (1, int(own.sum()), int((b.cell_column == j).sum()))
        one_cells = whole_cells[:, b.cell_column == j]
        torch.testing.assert_close(one.log_prob(one_cells, outputs[:, own]), log_prob[:, [j]], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.mean(outputs[:, own]), mean[:, [j]], rtol=1e-12, atol=1e-12)
        assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in b.parameters()}


def test_a_normal_block_of_one_component_is_a_normal():
    x, outputs = torch.from_numpy(values("normal", 6)), torch.from_numpy(np.random.default_rng(0).normal(size=(6, 12)))
    _, mean, log_std = outputs.split(4, dim=1)
    expected = torch.distributions.Normal(mean, torch.exp(log_std)).log_prob(x)
    torch.testing.assert_close(NormalMixture(4, 1).log_prob(x, outputs), expected)


def test_log_densities_stay_finite_at_absurd_outputs():
    logits = torch.tensor([-1e30, -200.0, 200.0, 1e30])
    for x in (0.0, 1.0, 0.5):
        assert torch.isfinite(bernoulli_log_prob(torch.tensor(x), logits)).all()
    # the right answer where a product of probabilities would have been log 0
    torch.testing.assert_close(bernoulli_log_prob(torch.tensor(0.0), torch.tensor(200.0)), torch.tensor(-200.0))
    small = torch.tensor(LOG_STD_MIN)
    assert torch.isfinite(normal_log_prob(torch.tensor(1e3), torch.tensor(-1e3), small))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("size", [50.0, 1e3, 1e10])
def test_blocks_stay_finite_at_absurd_outputs_and_lead_back(kind, size):
    b = BLOCKS[kind]()
    x = cells(kind, values(kind, 4)).float()
    sign = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], size=(4, b.n_outputs))).float()
    outputs = (size * sign).requires_grad_()
    log_prob = b.log_prob(x, outputs)
    assert torch.isfinite(log_prob).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), outputs)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(b.mean(outputs)).all()
    by_hand, scale = outputs.detach().t().clone(), torch.ones(4)
    own = {name: (p, torch.empty_like(p)) for name, p in b.named_parameters()}
    nll = torch.zeros(4)
    with torch.no_grad():
        b.backward_(x.t(), by_hand, None, scale, scale.sum(), own, nll)
    assert torch.isfinite(nll).all()
    if kind != "mixture" or size < 100:  # components equally far away: rounding decides which one counts
        torch.testing.assert_close(by_hand.t(), -gradient, rtol=1e-3, atol=1e-3)


def test_steep_curve_over_levels_is_not_cut_off_above():
    """Logits beyond the limit on both sides, 134.5, 83.1, 0, -83.1 and -134.5, still tell the highest from the next."""
    b, outputs = Categorical((5,), (5,)), torch.zeros(9)
    outputs[5] = 100.0
    log_prob = b.log_prob(torch.eye(5), outputs.expand(5, -1))[:, 0]
    assert log_prob.tolist() == pytest.approx([0, -40, -40, -40, -40], abs=1e-4)
    assert b.mean(outputs[None]).tolist() == [[0]]


def test_counts_of_any_size_have_their_mass():
    x, log_mean = torch.tensor([0.0, 1e3, 1e6], dtype=torch.float64), torch.tensor(13.0, dtype=torch.float64)
    expected = stats.poisson(np.exp(13.0)).logpmf(x)
    np.testing.assert_allclose(poisson_log_prob(x, log_mean), expected, rtol=1e-9)
    for log_r in (-LOG_DISPERSION_MAX, 0.0, LOG_DISPERSION_MAX):
        r, m = np.exp(log_r), np.exp(13.0)
        got = negative_binomial_log_prob(x, log_mean, torch.tensor(log_r, dtype=torch.float64))
        np.testing.assert_allclose(got, stats.nbinom(r, r / (r + m)).logpmf(x), rtol=1e-7)


@pytest.mark.parametrize("n_components", [0, 2])
def test_row_is_the_product_of_its_columns_in_order(n_components):
    layout = LAYOUTS["all"]
    likelihood = Likelihood(layout, n_components).double()
    x, _ = rows_of(layout, 6)
    outputs = torch.from_numpy(np.random.default_rng(2).normal(size=(6, likelihood.n_outputs)))
    log_prob, mean = likelihood.log_prob(x, outputs), likelihood.mean(outputs)
    assert (likelihood.n_parts, log_prob.shape) == (10, (6, 10))
    for i, part in enumerate(parts_of(layout, n_components)):
        one = likelihood.blocks[part.block].one(part.number)
        out = outputs[:, likelihood.output_part == i]
        assert torch.equal(out, outputs[:, np.ravel(part.outputs)])
        there = 1 if part.flag is None else x[:, [part.flag]]
        torch.testing.assert_close(log_prob[:, [i]], there * one.log_prob(x[:, part.cells], out))
        torch.testing.assert_close(mean[:, [i]], one.mean(out))
    assert likelihood.draw(outputs, torch.Generator()).shape == (6, 10)
    # leading dimensions are free
    torch.testing.assert_close(likelihood.log_prob(x, outputs.expand(3, 6, -1))[1], log_prob)


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_row_has_the_density_of_the_twin(kinds, decoder):
    layout = LAYOUTS[kinds]
    sizes = {"latent_dim": 2, "hidden_layer_sizes": (5,), "activation": "tanh"}
    vae = build_vae(layout, np.full(layout.width, 0.4), **sizes, encoder=None, decoder=decoder, seed=0).double()
    x, _ = rows_of(layout, 20)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    torch.testing.assert_close(vae.likelihood.log_prob(x, vae.decode(z, x)), SlowVAE(vae).log_probs(x, z))


def test_projection_keeps_own_parameters_in_range_only():
    likelihood = Likelihood(LAYOUTS["all"])
    dispersion, noise = likelihood.blocks[1].log_r, likelihood.blocks[2].log_std
    with torch.no_grad():
        noise.copy_(torch.tensor([-50.0, 3.0, -1.0]))
        dispersion.copy_(torch.tensor([-80.0, 90.0]))
    likelihood.project()
    assert noise.tolist() == pytest.approx([np.log(1e-3), 3.0, -1.0])
    assert dispersion.tolist() == [-LOG_DISPERSION_MAX, LOG_DISPERSION_MAX]


def test_table_without_a_modelled_column_has_no_density():
    likelihood = Likelihood(type(LAYOUTS["all"])(kinds=()))
    nothing = torch.zeros(3, 0)
    assert likelihood.log_prob(torch.ones(3, 1), nothing).sum(-1).tolist() == [0, 0, 0]
    assert likelihood.draw(nothing, torch.Generator()).shape == (3, 0)
