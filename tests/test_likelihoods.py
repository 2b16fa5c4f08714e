"""Every kind of column: a density that integrates to one, its gradient, its mean and its draws; and their product."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from layouts import COUNTS, LAYOUTS, auxiliary_means_of, means_of, rows_of
from reference import SlowVAE, level_logits, parts_of
from scipy import special, stats
from scipy.integrate import quad

from skvae.model.likelihoods import (
    BLOCKS,
    LOG_DISPERSION_MAX,
    LOG_STD_MIN,
    Block,
    Categorical,
    Likelihood,
    NegativeBinomial,
    NormalMixture,
    ZeroInflatedNegativeBinomial,
    bernoulli_log_prob,
    mean_row,
    negative_binomial_log_prob,
    normal_log_prob,
    poisson_log_prob,
)
from skvae.model.network import build_vae

LEVELS, ORDERED, COMPONENTS = (2, 3, 5, 4), (0, 2, 4, 4), 3
OWN = np.array([-2.0, -0.3, 0.0, 1.1])
SPREAD = np.array([-3.0, -0.5, 0.0, 2.0])


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


class WithExtraZeros:
    """Counts of a scipy distribution that are put to 0 with probability `p`, with the methods of its frozen distributions."""

    def __init__(self, p, counts):
        self.p, self.counts = p, counts

    def pmf(self, x):
        return self.p * (x == 0) + (1 - self.p) * self.counts.pmf(x)

    def logpmf(self, x):
        return np.log(self.pmf(x))

    def mean(self):
        return (1 - self.p) * self.counts.mean()


@dataclass(frozen=True)
class Case:
    """What is tested of a kind.

    Attributes
    ----------
    make : callable
        Makes a block of four columns.
    outputs : ndarray of shape (n_outputs,)
        Decoder outputs.
    oracle : callable
        The distribution of a column by scipy at these outputs, where own parameters are `OWN`.
    n_values : int
        Mass is summed over 0, ..., n_values - 1; 0 for a density over the real line.
    """

    make: Callable[[], Block]
    outputs: np.ndarray
    oracle: Callable[[int], object]
    n_values: int = 0


def nbinom(log_mean, log_r):
    r, mean = np.exp(log_r), np.exp(log_mean)
    return stats.nbinom(r, r / (r + mean))


def mixture(outputs, j):
    logits, means, log_stds = outputs.reshape(3, COMPONENTS, 4)[..., j]
    return Mixture(special.softmax(logits), means, np.exp(log_stds))


def levels(block, outputs, j):
    own = torch.from_numpy(outputs[block.output_column == j])
    p = special.softmax(level_logits(own, LEVELS[j], block.n_ordered[j]).numpy())
    return stats.rv_discrete(values=(np.arange(LEVELS[j]), p))


MIXED = np.random.default_rng(8).normal(size=3 * 4 * COMPONENTS)
FREE = 2 * np.random.default_rng(9).normal(size=sum(LEVELS))
CURVED = np.random.default_rng(9).normal(size=sum(LEVELS) + 1 + 3 + 3)
EXTRA = np.array([-1.5, 0.7, 2.0, -0.2])
CASES = {
    "normal": Case(lambda: BLOCKS["normal"](4), SPREAD, lambda j: stats.norm(SPREAD[j], np.exp(OWN[j]))),
    "mixture": Case(lambda: NormalMixture(4, COMPONENTS), MIXED, lambda j: mixture(MIXED, j)),
    "bernoulli": Case(
        lambda: BLOCKS["bernoulli"](4), SPREAD, lambda j: stats.bernoulli(special.expit(SPREAD[j])), n_values=2
    ),
    "categorical": Case(
        lambda: BLOCKS["categorical"](LEVELS), FREE, lambda j: levels(Categorical(LEVELS), FREE, j), n_values=5
    ),
    "ordered": Case(
        lambda: Categorical(LEVELS, ORDERED),
        CURVED,
        lambda j: levels(Categorical(LEVELS, ORDERED), CURVED, j),
        n_values=5,
    ),
    "poisson": Case(lambda: BLOCKS["poisson"](4), SPREAD, lambda j: stats.poisson(np.exp(SPREAD[j])), n_values=400),
    "negative_binomial": Case(
        lambda: BLOCKS["negative_binomial"](4), SPREAD, lambda j: nbinom(SPREAD[j], OWN[j]), n_values=400
    ),
    "zero_inflated_negative_binomial": Case(
        lambda: BLOCKS["zero_inflated_negative_binomial"](4),
        np.concatenate([SPREAD, EXTRA]),
        lambda j: WithExtraZeros(special.expit(EXTRA[j]), nbinom(SPREAD[j], OWN[j])),
        n_values=400,
    ),
}
CONTINUOUS = [kind for kind, case in CASES.items() if case.n_values == 0]
DISCRETE = [kind for kind, case in CASES.items() if case.n_values > 0]
LEVELLED = [kind for kind, case in CASES.items() if case.make().section == "levels"]


def block(kind):
    """One block of four columns in float64 whose own parameters are not at their start."""
    b = CASES[kind].make().double()
    with torch.no_grad():
        for p in b.parameters():
            p.copy_(torch.from_numpy(OWN))
    return b


def outputs_of(kind):
    return torch.from_numpy(CASES[kind].outputs)


def values(kind, n, seed=0):
    """Values of the four columns: numbers, counts with many zeros, or positions of levels; shape (n, 4)."""
    rng = np.random.default_rng(seed)
    if kind in CONTINUOUS:
        return rng.normal(size=(n, 4))
    if kind in LEVELLED:
        return rng.integers(0, LEVELS, size=(n, 4)).astype(float)
    if CASES[kind].n_values == 2:
        return rng.integers(0, 2, size=(n, 4)).astype(float)
    return rng.poisson(3, size=(n, 4)) * rng.integers(0, 2, size=(n, 4)).astype(float)


def cells(kind, numbers):
    """Cells of an encoded row that hold values of the four columns: as they are, but -1 beyond a column's levels."""
    if kind in LEVELLED:
        numbers = np.where(numbers < LEVELS, numbers, -1.0)
    return torch.from_numpy(numbers)


def own_of(b):
    """Parameters of a block and tensors for their gradients, by name, as a training step hands them over."""
    return {name: (p, torch.full_like(p, torch.nan)) for name, p in b.named_parameters()}


# --------------------------------------------------------------------------------------------------------- the registry


def test_every_kind_has_a_case_and_a_layout():
    assert BLOCKS.keys() <= CASES.keys()
    for kind in BLOCKS:
        assert type(CASES[kind].make()) is BLOCKS[kind]
    assert {kind for layout in LAYOUTS.values() for kind, _ in layout.kinds} == BLOCKS.keys()
    assert {kind for kind in BLOCKS if BLOCKS[kind].section == "counts"} == set(COUNTS)


def test_every_kind_is_registered_under_its_own_name():
    for name, kind in BLOCKS.items():
        assert vars(kind)["name"] == name
    # what a kind may turn into under some decoder is no kind
    assert NormalMixture not in BLOCKS.values()


def test_a_named_block_is_a_kind_and_its_children_are_not(monkeypatch):
    monkeypatch.setattr("skvae.model.likelihoods.base.BLOCKS", registry := {})
    named = type("Named", (NegativeBinomial,), {"name": "named"})
    type("Child", (named,), {})
    assert registry == {"named": named}


@pytest.mark.parametrize("method", ["log_prob", "backward_", "mean", "draw", "initial_outputs"])
def test_a_forgotten_method_is_an_error_at_construction(method):
    assert method in Block.__abstractmethods__
    body = {name: lambda *args: None for name in Block.__abstractmethods__}
    whole = type("Whole", (Block,), {"section": "numbers", **body})
    assert whole(3).n_columns == 3
    del body[method]
    with pytest.raises(TypeError, match=f"abstract method '?{method}"):
        type("Partial", (Block,), {"section": "numbers", **body})(3)


@pytest.mark.parametrize("body", [{}, {"section": "flags"}], ids=str)
def test_a_block_without_a_section_is_an_error_at_import(body):
    with pytest.raises(TypeError, match=r"Lost.section must be one of \('counts', 'numbers', 'levels'\)"):
        type("Lost", (Block,), body)


def test_an_unknown_kind_in_a_layout_is_named():
    with pytest.raises(ValueError, match=r"the kind 'gamma'; expected one of .*'poisson'"):
        Likelihood(replace(LAYOUTS["one column"], kinds=(("gamma", 1),)))


def test_a_normal_column_is_a_mixture_where_there_are_components():
    single, mixed = (BLOCKS["normal"].for_layout(LAYOUTS["normal"], 5, n) for n in (0, 3))
    assert (type(single), single.n_columns) == (BLOCKS["normal"], 5)
    assert (type(mixed), mixed.n_columns, mixed.n_components) == (NormalMixture, 5, 3)


# --------------------------------------------------------------------------------------------------------- the densities


@pytest.mark.parametrize("kind", CASES)
def test_log_density_is_that_of_scipy(kind):
    x = values(kind, 30)
    got = block(kind).log_prob(cells(kind, x), outputs_of(kind)).detach().numpy()
    assert got.shape == (30, 4)
    for j in range(4):
        density = CASES[kind].oracle(j)
        log_prob = density.logpdf if kind in CONTINUOUS else density.logpmf
        np.testing.assert_allclose(got[:, j], log_prob(x[:, j]), rtol=1e-9)


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_density_integrates_to_one(kind):
    b, outputs = block(kind), outputs_of(kind)

    def density(x, j):
        return float(torch.exp(b.log_prob(torch.full((4,), float(x), dtype=torch.float64), outputs))[j].detach())

    for j in range(4):
        low, middle, high = (stats.norm(CASES[kind].outputs[j], 12 * np.exp(OWN[j])).ppf(q) for q in (0.16, 0.5, 0.84))
        if kind == "mixture":
            low, middle, high = -60.0, CASES[kind].oracle(j).mean(), 60.0
        total, _ = quad(density, low, high, args=(j,), points=[middle], limit=200)
        assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", DISCRETE)
def test_masses_sum_to_one(kind):
    n = CASES[kind].n_values
    numbers = np.repeat(np.arange(n, dtype=float)[:, None], 4, axis=1)
    mass = torch.exp(block(kind).log_prob(cells(kind, numbers), outputs_of(kind))).detach().numpy()
    if kind in LEVELLED:  # beyond a column's levels, there is no mass, but it counts as missing
        mass = np.where(numbers < LEVELS, mass, 0)
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-7)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_hand_written_gradient_is_that_of_autograd(kind, weighted, holes):
    b, n, rng = block(kind), 9, np.random.default_rng(1)
    x = cells(kind, values(kind, n))
    outputs = torch.from_numpy(rng.normal(size=(n, b.n_outputs))).requires_grad_()
    scale = torch.from_numpy(rng.uniform(0.1, 2, n)) if weighted else torch.full((n,), 1 / n, dtype=torch.float64)
    observed = torch.from_numpy(rng.integers(0, 2, (n, 4)).astype(float)) if holes else None
    if holes:  # what is missing is encoded as 0, and a level as -1
        x = torch.where(observed == 1, x, -1.0 if kind in LEVELLED else 0.0)
    log_prob = b.log_prob(x, outputs)
    loss = -(scale[:, None] * (log_prob * observed if holes else log_prob)).sum(0)
    expected = torch.autograd.grad(loss.sum(), [outputs, *b.parameters()])
    gradient = outputs.detach().t().clone()  # rows side by side
    own = own_of(b)
    # categories tell a missing cell from their own zeros
    mask = None if kind in LEVELLED or observed is None else observed.t()
    nll = torch.arange(4, dtype=torch.float64)
    with torch.no_grad():
        b.backward_(x.t().clone(), gradient, mask, scale, scale.sum(), own, nll)
    torch.testing.assert_close(nll - torch.arange(4), loss.detach(), rtol=1e-11, atol=1e-12)
    for got, want in zip([gradient.t(), *(grad for _, grad in own.values())], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_hand_written_gradient_leaves_the_rows_as_they_are(kind):
    b, x = block(kind), cells(kind, values(kind, 5)).t().contiguous()
    before, scale = x.clone(), torch.full((5,), 0.2, dtype=torch.float64)
    own = own_of(b)
    observed = torch.ones(4, 5, dtype=torch.float64)
    outputs, nll = torch.zeros(b.n_outputs, 5, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    with torch.no_grad():
        b.backward_(x, outputs, observed, scale, scale.sum(), own, nll)
    assert torch.equal(x, before)
    assert torch.equal(observed, torch.ones_like(observed))
    assert torch.equal(scale, torch.full_like(scale, 0.2))


@pytest.mark.parametrize("kind", CASES)
def test_draws_follow_the_density(kind):
    generator, n = torch.Generator().manual_seed(0), 20_000
    draws = block(kind).draw(outputs_of(kind).expand(n, -1), generator).detach().numpy()
    assert draws.shape == (n, 4)
    for j in range(4):
        density = CASES[kind].oracle(j)
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


@pytest.mark.parametrize("kind", CASES)
def test_draws_of_columns_are_independent_and_follow_the_generator(kind):
    b = block(kind)
    outputs = torch.zeros(5_000, b.n_outputs, dtype=torch.float64)
    draws = [b.draw(outputs, torch.Generator().manual_seed(seed)).detach() for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    correlation = np.corrcoef(draws[0].numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(5_000)


@pytest.mark.parametrize("kind", CASES)
def test_mean_is_the_mean_of_the_density_or_its_most_probable_level(kind):
    mean = block(kind).mean(outputs_of(kind)).detach().numpy()
    densities = [CASES[kind].oracle(j) for j in range(4)]
    expected = [d.pmf(d.xk).argmax() if kind in LEVELLED else d.mean() for d in densities]
    np.testing.assert_allclose(mean, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_expectation_is_the_mean_or_the_probabilities_of_the_levels(kind):
    b, outputs = block(kind), outputs_of(kind)
    got = b.expectation(outputs.expand(3, -1)).detach().numpy()
    assert got.shape == (3, b.n_means)
    expected = b.mean(outputs).detach().numpy()
    if kind in LEVELLED:
        expected = np.concatenate([CASES[kind].oracle(j).pmf(np.arange(n)) for j, n in enumerate(LEVELS)])
    np.testing.assert_allclose(got, np.tile(expected, (3, 1)), rtol=1e-9)


@pytest.mark.parametrize("kind", CASES)
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
    assert torch.isfinite(b.initial_outputs(torch.zeros(b.n_means))).all()
    assert torch.isfinite(b.initial_outputs(torch.ones(b.n_means))).all()


@pytest.mark.parametrize("kind", CASES)
def test_expectation_is_the_mean_of_many_draws_or_the_probabilities_of_levels(kind):
    b, outputs = block(kind), outputs_of(kind)
    expectation = b.expectation(outputs).detach()
    assert expectation.shape == (b.n_means,)
    if kind in LEVELLED:
        expected = np.concatenate([CASES[kind].oracle(j).pk for j in range(4)])
        np.testing.assert_allclose(expectation, expected, rtol=1e-6)
    else:
        torch.testing.assert_close(expectation, b.mean(outputs).detach())


@pytest.mark.parametrize("kind", CASES)
def test_draws_told_by_evenly_spread_numbers_follow_the_density(kind):
    b, outputs, n = block(kind), outputs_of(kind), 4000
    uniform = ((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None].expand(n, 4)
    drawn = b.draw_at(outputs.expand(n, -1), uniform, torch.Generator().manual_seed(0)).detach().numpy()
    for j in range(4):
        density = CASES[kind].oracle(j)
        # evenly spread numbers leave no error but that of their spacing
        if kind in CONTINUOUS:
            assert stats.kstest(drawn[:, j], density.cdf).statistic < 5 / n
            continue
        seen, counts = np.unique(drawn[:, j], return_counts=True)
        # counts are drawn by the generator
        error = 5 / np.sqrt(n) if b.section == "counts" else 2 / n
        np.testing.assert_allclose(counts / n, density.pmf(seen), atol=error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_a_mixture_are_finite_at_the_edges_and_where_one_weight_is_all(dtype):
    b = NormalMixture(1, 3)
    outputs = torch.tensor([0.0, 200.0, -200.0, *[0.0] * 6], dtype=dtype).expand(4, -1)
    edge = torch.finfo(dtype).eps / 2
    uniform = torch.tensor([edge, 0.5, 1 - edge, 1 - 2 * edge], dtype=dtype)[:, None]
    drawn = b.draw_at(outputs, uniform, torch.Generator())
    assert torch.isfinite(drawn).all()
    assert drawn[1].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", CASES)
def test_one_column_of_a_block_is_that_column(kind):
    b, x = block(kind), values(kind, 12)
    outputs = torch.from_numpy(np.random.default_rng(3).normal(size=(12, b.n_outputs)))
    whole_cells = cells(kind, x)
    log_prob, mean = b.log_prob(whole_cells, outputs), b.mean(outputs)
    for j in range(4):
        one, own = b.one(j), b.output_column == j
        assert (one.n_columns, one.n_outputs, one.n_means) == (1, int(own.sum()), LEVELS[j] if kind in LEVELLED else 1)
        one_cells = whole_cells[:, [j]]
        torch.testing.assert_close(one.log_prob(one_cells, outputs[:, own]), log_prob[:, [j]], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.mean(outputs[:, own]), mean[:, [j]], rtol=1e-12, atol=1e-12)
        assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in b.parameters()}


@pytest.mark.parametrize("kind", CASES)
def test_an_offset_multiplies_the_mean_of_counts(kind):
    b, outputs = block(kind), outputs_of(kind).clone()
    before = b.mean(outputs).detach()
    outputs[b.raised] += 0.7
    if b.section == "counts":
        assert torch.equal(b.output_column[b.raised], torch.arange(4))  # one per column, in order
        torch.testing.assert_close(b.mean(outputs).detach(), np.exp(0.7) * before, rtol=1e-12, atol=1e-12)
    else:
        assert b.raised == slice(0, 0)


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


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("size", [50.0, 1e3, 1e10])
def test_blocks_stay_finite_at_absurd_outputs_and_lead_back(kind, size):
    b = CASES[kind].make()
    x = cells(kind, values(kind, 4)).float()
    sign = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], size=(4, b.n_outputs))).float()
    outputs = (size * sign).requires_grad_()
    log_prob = b.log_prob(x, outputs)
    assert torch.isfinite(log_prob).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), outputs)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(b.mean(outputs)).all()
    by_hand, scale = outputs.detach().t().clone(), torch.ones(4)
    own = own_of(b)
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
    log_prob = b.log_prob(torch.arange(5.0)[:, None], outputs.expand(5, -1))[:, 0]
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


def test_counts_without_extra_zeros_are_negative_binomial():
    outputs = torch.cat([torch.from_numpy(SPREAD), torch.full((4,), -1e3, dtype=torch.float64)])
    x = torch.from_numpy(values("poisson", 20))
    expected = block("negative_binomial").log_prob(x, torch.from_numpy(SPREAD))
    torch.testing.assert_close(block("zero_inflated_negative_binomial").log_prob(x, outputs), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_where_nearly_all_zeros_are_extra_ones_keeps_its_digits(dtype):
    """A zero whose odds of being an extra one are exp(15): its weight 2e-7 as a count is no difference from 1."""
    b = ZeroInflatedNegativeBinomial(1).to(dtype)
    outputs = torch.tensor([[5.0], [9.0]], dtype=dtype)
    with torch.no_grad():
        b.log_r.fill_(0.3)
        one = torch.ones((), dtype=dtype)
        b.backward_(outputs.new_zeros(1, 1), outputs, None, one[None], one, own := own_of(b), outputs.new_zeros(1))
    # minus the derivative of log(pi + (1 - pi) p) by its log mean and by log_r is -w (log p)', w = p / (exp(logit) + p)
    log_mean, log_r, logit = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (5.0, 0.3, 9.0))
    p = torch.distributions.NegativeBinomial(torch.exp(log_r), logits=log_mean - log_r).log_prob(torch.zeros(()))
    by_mean, by_r = torch.autograd.grad(-p, [log_mean, log_r])
    w = (torch.exp(p) / (torch.exp(logit) + torch.exp(p))).detach()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert float(outputs[0, 0]) == pytest.approx(float(w * by_mean), rel=tolerance)
    assert float(own["log_r"][1]) == pytest.approx(float(w * by_r), rel=tolerance)


# --------------------------------------------------------------------------------------------------------------- a row


def test_the_likelihood_of_a_part_is_made_once_and_follows_the_parameters():
    likelihood = Likelihood(LAYOUTS["all"])
    like = torch.zeros(1)
    blocks = {kind: i for i, (kind, _) in enumerate(LAYOUTS["all"].kinds)}
    part = likelihood.places[blocks["normal"]].parts.start
    first = likelihood.one(part, like)
    with torch.no_grad():
        likelihood.blocks[blocks["normal"]].log_std.add_(1.5)
    again = likelihood.one(part, like)
    assert again is first
    assert again.log_std.item() == likelihood.blocks[blocks["normal"]].log_std[0].item() == 1.5
    # another precision is another block, and a state holds neither
    assert likelihood.one(part, like.double()).log_std.dtype == torch.float64
    assert likelihood.one(part, like).log_std.dtype == torch.float32
    assert likelihood.state_dict().keys() == Likelihood(LAYOUTS["all"]).state_dict().keys()


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("n_components", [0, 2])
def test_row_is_the_product_of_its_columns_in_order(kinds, n_components):
    layout = LAYOUTS[kinds]
    likelihood = Likelihood(layout, n_components).double()
    x, _ = rows_of(layout, 6)
    outputs = torch.from_numpy(np.random.default_rng(2).normal(size=(6, likelihood.n_outputs)))
    log_prob, mean = likelihood.log_prob(x, outputs), likelihood.mean(outputs)
    parts = parts_of(layout, n_components)
    assert (likelihood.n_parts, log_prob.shape) == (len(parts), (6, len(parts)))
    for i, part in enumerate(parts):
        one = likelihood.blocks[part.block].one(part.number)
        out = outputs[:, likelihood.output_part == i]
        assert torch.equal(out, outputs[:, np.ravel(part.outputs)])
        observed = 1 if part.flag is None else x[:, [part.flag]]
        torch.testing.assert_close(log_prob[:, [i]], observed * one.log_prob(x[:, [part.cell]], out))
        torch.testing.assert_close(mean[:, [i]], one.mean(out))
    assert likelihood.draw(outputs, torch.Generator()).shape == (6, len(parts))
    # leading dimensions are free
    torch.testing.assert_close(likelihood.log_prob(x, outputs.expand(3, 6, -1))[1], log_prob)


@pytest.mark.parametrize("kinds", LAYOUTS)
def test_places_say_where_each_block_stands(kinds):
    layout = LAYOUTS[kinds]
    likelihood, parts = Likelihood(layout), parts_of(layout)
    for i, place in enumerate(likelihood.places):
        assert place.block is likelihood.blocks[i]
        own = [part for part in parts if part.block == i]
        assert [parts.index(part) for part in own] == list(range(likelihood.n_parts))[place.parts]
        assert [part.cell for part in own] == list(range(layout.width))[place.cells]
        taken = sorted(output for part in own for output in part.outputs)
        assert taken == list(range(likelihood.n_outputs))[place.outputs]


def test_offset_is_added_to_log_means_in_as_few_slices_as_can_be():
    raised = {name: Likelihood(layout).raised for name, layout in LAYOUTS.items()}
    assert raised["exposure"] == (slice(0, 3),)
    assert raised["zero inflated exposure"] == (slice(0, 4),)
    assert {name for name in raised if raised[name]} == {"exposure", "zero inflated exposure", "auxiliary exposure"}
    layout = LAYOUTS["zero inflated exposure"]
    *_, numbers = layout.kinds
    kinds = (("zero_inflated_negative_binomial", 2), ("poisson", 1), ("negative_binomial", 1), numbers)
    assert Likelihood(replace(layout, kinds=kinds)).raised == (slice(0, 2), slice(4, 6))


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_row_has_the_density_of_the_twin(kinds, decoder):
    layout = LAYOUTS[kinds]
    sizes = {"latent_dim": 2, "hidden_layer_sizes": (5,), "activation": "tanh"}
    means = {"mean": means_of(layout, 0.4), "auxiliary_mean": auxiliary_means_of(layout, 0.4)}
    vae = build_vae(layout, **means, **sizes, encoder=None, decoder=decoder, seed=0).double()
    x, _ = rows_of(layout, 20)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    torch.testing.assert_close(vae.likelihood.log_prob(x, vae.decode(z, x)), SlowVAE(vae).log_probs(x, z))


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_mean_row_has_the_means_and_the_shares_of_the_levels(kinds, weighted):
    layout = LAYOUTS[kinds]
    x, _ = rows_of(layout, 30)
    weight = torch.from_numpy(np.random.default_rng(0).uniform(0.1, 2, 30)) if weighted else None
    numbers = x[:, : layout.first_level].numpy()
    levels = [x[:, [layout.first_level + k]].numpy() == np.arange(n) for k, n in enumerate(layout.n_levels)]
    expected = np.average(np.hstack([numbers, *levels]), axis=0, weights=weight)
    np.testing.assert_allclose(mean_row(layout, x, weight), expected, rtol=1e-12, atol=1e-15)


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


@pytest.mark.parametrize("kind", ["poisson", "negative_binomial", "zero_inflated_negative_binomial"])
def test_counts_of_a_million_have_the_same_mass_in_single_precision(kind):
    block = BLOCKS[kind](3)
    cells = torch.tensor([[1e6, 999_123.0, 1_000_877.0]], dtype=torch.float64)
    outputs = torch.full((1, block.n_outputs), 13.8125, dtype=torch.float64)
    with torch.no_grad():
        if kind != "poisson":
            block.log_r.fill_(11.0)
        single = block.log_prob(cells.float(), outputs.float()).double()
        double = block.double().log_prob(cells, outputs)
    torch.testing.assert_close(single, double, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["poisson", "negative_binomial", "zero_inflated_negative_binomial"])
def test_counts_drawn_at_even_numbers_follow_their_masses(kind):
    block = BLOCKS[kind](1)
    outputs = torch.full((20_000, block.n_outputs), 0.7)
    uniform = (torch.arange(20_000)[:, None] + 0.5) / 20_000
    with torch.no_grad():
        drawn = block.draw_at(outputs, uniform, torch.Generator())
        mass = torch.exp(block.log_prob(torch.arange(12.0)[:, None], outputs[:12]))[:, 0]
        far = block.draw_at(torch.full((1, block.n_outputs), 39.0), torch.tensor([[0.5]]), torch.Generator())
    shares = torch.bincount(drawn[:, 0].long(), minlength=12)[:12] / 20_000
    torch.testing.assert_close(shares, mass, rtol=0, atol=2e-4)
    assert torch.isfinite(far).all()
