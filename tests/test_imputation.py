"""Missing cells filled: exact conditional distributions, steadied means, and what stays as it is."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, encode, rows_of
from networks import behind_gates
from tables import ASKED, any_table
from test_inference import linear_model

from skvae import VAEEstimator, imputation
from skvae.conditioning import completed
from skvae.imputation import fill, steadied
from skvae.model.latent import Prior

DECODERS = ["factorized", "autoregressive"]


@pytest.fixture(scope="module")
def linear():
    return linear_model()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def conditional(mean, covariance, rows, unknown):
    """Mean and standard deviation of the column `unknown` given the others of normal rows."""
    known = [j for j in range(len(mean)) if j != unknown]
    slopes = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known, unknown])
    means = mean[unknown] + (rows[:, known] - mean[known]) @ slopes
    return means, np.sqrt(covariance[unknown, unknown] - covariance[known, unknown] @ slopes)


# ------------------------------------------------------------------------------------------------- exact distributions


def test_a_number_is_imputed_by_the_mean_that_a_linear_model_states(linear):
    vae, X, mean, covariance = linear
    rows = X[:40].copy()
    rows[:, 1] = np.nan
    expected, deviation = conditional(mean, covariance, rows, 1)
    error = vae.impute(rows, random_state=0)[:, 1] - expected
    assert np.sqrt(np.mean(error**2)) < 0.2 * deviation


def test_imputed_copies_have_the_deviation_that_a_linear_model_states(linear):
    vae, X, mean, covariance = linear
    rows = X[:40].copy()
    rows[:, 1] = np.nan
    expected, deviation = conditional(mean, covariance, rows, 1)
    copies = np.array([copy[:, 1] for copy in vae.impute(rows, n_draws=100, random_state=0)])
    assert (copies - expected).mean() == pytest.approx(0, abs=0.1 * deviation)
    assert (copies - expected).std() == pytest.approx(deviation, rel=0.1)


def test_imputed_means_have_less_noise_than_those_of_as_many_independent_draws(linear):
    vae, X, mean, covariance = linear
    rows = X[:60].copy()
    rows[:, 1] = np.nan
    expected, deviation = conditional(mean, covariance, rows, 1)
    errors = [vae.impute(rows, random_state=seed)[:, 1] - expected for seed in range(5)]
    assert np.sqrt(np.mean(np.square(errors))) < 0.08 * deviation
    # 256 draws from the conditional distribution itself would leave a sixteenth of its deviation
    assert abs(np.mean(errors)) < 0.02 * deviation


def tree(n=4000):
    """Three numbers, each the sum of the one before and noise: what is missing between two of them is known."""
    rng = np.random.default_rng(5)
    return np.cumsum(rng.normal(size=(n, 3)), axis=1)


def test_a_cell_is_imputed_from_those_before_and_behind_it_in_the_order_of_drawing():
    X = tree()
    settings = {"likelihood": {"normal": [0, 1, 2]}, "hidden_layer_sizes": (32,), "max_iter": 40}
    vae = VAEEstimator(2, decoder="autoregressive", random_state=0, **settings).fit(X)
    rows = X[:200].copy()
    rows[:, 1] = np.nan
    filled = vae.impute(rows, random_state=0)[:, 1]
    # normal with the mean of both neighbours and the variance 1/2
    error = filled - (X[:200, 0] + X[:200, 2]) / 2
    assert np.sqrt(np.mean(error**2)) < 0.25
    assert abs(error.mean()) < 0.06


# ---------------------------------------------------------------------------------------------------------- steadied means


def drawn_cells(n, n_draws, seed, sharpness):
    """Cells x = m + e with z in the conditional mean m, weights before x of z alone and after it of x, and the exact mean."""
    rng = np.random.default_rng(seed)
    z, e = rng.normal(size=(2, n, n_draws))
    means = 0.3 * z
    cells = means + e
    before = 0.4 * z
    behind = -0.5 * sharpness * (cells - 0.5) ** 2
    tensors = [torch.from_numpy(a) for a in (cells, means, before, before + behind)]
    return tensors


@pytest.mark.parametrize("sharpness", [0.0, 0.1, 1.0])
def test_steadied_means_are_right_and_scatter_less(sharpness):
    cells, means, before, both = drawn_cells(4000, 32, 0, sharpness)
    weights, own = torch.softmax(both, 1), torch.softmax(before, 1)
    steady, squares = steadied(cells[..., None], weights, [(cells - means)[..., None]], own, torch.zeros(4000).bool())
    plain = (weights * cells).sum(1)
    many = drawn_cells(1, 2_000_000, 1, sharpness)
    exact = (torch.softmax(many[3], 1) * many[0]).sum()
    assert (steady.mean() - exact).abs() < 0.02
    gain = {0.0: 0.4, 0.1: 0.5, 1.0: 0.9}[sharpness]
    assert (steady - exact).square().mean() < gain * (plain - exact).square().mean()
    # the standard errors are those that the scatter shows
    assert squares.mean().item() == pytest.approx((steady - exact).square().mean().item(), rel=0.35)


def test_without_given_parts_behind_a_cell_its_mean_is_that_of_the_conditional_means():
    cells, means, before, _ = drawn_cells(50, 16, 0, 0.0)
    weights = torch.softmax(before, 1)
    steady, squares = steadied(cells[..., None], weights, [(cells - means)[..., None]], weights, torch.ones(50).bool())
    torch.testing.assert_close(steady[:, 0], (weights * means).sum(1))
    assert (squares < (weights[..., None] * (cells - steady)[..., None]).square().sum(1)).float().mean() > 0.9


@pytest.mark.parametrize("kinds", ["both", "missing", "gated", "exposure", "all"])
def test_completed_rows_are_the_encoded_rows_of_their_parts(kinds):
    layout = LAYOUTS[kinds]
    _, whole = rows_of(layout, 30)
    whole = behind_gates(layout, whole.nan_to_num())
    given = whole.clone()
    given[torch.from_numpy(np.random.default_rng(0).uniform(size=given.shape) < 0.4)] = torch.nan
    given = behind_gates(layout, given)
    x = torch.from_numpy(encode(layout, given.numpy()))
    expected = torch.from_numpy(encode(layout, whole.numpy()))
    got = completed(layout, x, given, whole.nan_to_num())
    inputs = slice(layout.first_number, None)
    torch.testing.assert_close(got[:, inputs], expected[:, inputs])


# ---------------------------------------------------------------------------------------------------- what stays as it is


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    """A fitted model of every kind of column, and values with holes."""
    _, values = any_table(300)
    settings = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "decoder": request.param}
    vae = VAEEstimator(2, likelihood=ASKED, categorical_features=[1], **settings)
    values[:, 5] %= 7
    return vae.fit(values)._fitted, values


def test_only_missing_cells_are_filled(model):
    fitted, values = model
    hidden = np.isnan(values)
    (filled,) = fill(fitted.network, fitted.table, values, None, seeded(), Prior(2))
    np.testing.assert_array_equal(filled[~hidden], values[~hidden])
    assert np.isfinite(filled).all()
    # a level or a flag by one of its values, a constant by itself
    assert set(filled[:, 1]) <= {0.0, 1.0, 2.0}
    assert set(filled[:, 4]) <= {0.0, 1.0}
    assert (filled[:, 6] == 4).all()
    copies = fill(fitted.network, fitted.table, values[:50], 3, seeded(), Prior(2))
    assert copies.shape == (3, 50, 10)
    np.testing.assert_array_equal(copies[:, ~hidden[:50]], np.tile(values[:50][~hidden[:50]], (3, 1)))
    # counts, which only a mean may leave
    assert (copies[:, :, [3, 7, 9]] == np.rint(copies[:, :, [3, 7, 9]])).all()
    assert (copies[0] != copies[1])[hidden[:50]].any()


def test_whole_rows_are_copied(model):
    fitted, _ = model
    rows = np.ones((4, 10))
    copies = fill(fitted.network, fitted.table, rows, 2, seeded(), Prior(2))
    np.testing.assert_array_equal(copies, np.stack([rows, rows]))
    assert not np.shares_memory(copies, rows)


@pytest.mark.parametrize("n_copies", [None, 2])
def test_every_row_is_reported_once(model, n_copies):
    fitted, values = model
    done = []
    fill(fitted.network, fitted.table, values, n_copies, seeded(), Prior(2), done.append)
    assert sum(done) == len(values)
    assert min(done) >= 0


@pytest.mark.parametrize("n_copies", [None, 3])
def test_rows_with_other_holes_do_not_change_the_kind_of_answer(model, n_copies, monkeypatch):
    """All rows at once and two at a time: other draws, the same distributions."""
    fitted, values = model
    whole = fill(fitted.network, fitted.table, values, n_copies, seeded(), Prior(2))
    monkeypatch.setattr(imputation, "DRAWS_AT_ONCE", 1)
    alone = fill(fitted.network, fitted.table, values[:20], n_copies, seeded(), Prior(2))
    assert np.isfinite(alone).all()
    known = ~np.isnan(values[:20])
    np.testing.assert_array_equal(alone[:, known], whole[:, :20][:, known])


def test_nothing_to_fill_draws_nothing(model, monkeypatch):
    fitted, values = model
    monkeypatch.setattr(imputation, "make_in_order", None)
    complete_rows = np.nan_to_num(values[:5])
    (filled,) = fill(fitted.network, fitted.table, complete_rows, None, seeded(), Prior(2))
    np.testing.assert_array_equal(filled, complete_rows)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_means_are_in_the_units_of_the_column(decoder):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(300, 4))
    factors = np.array([1e-3, 1.0, 64.0, 1e5])
    shifts = np.array([1.0, 0.0, -7.0, 1e6])
    holes = np.where(rng.uniform(size=X.shape) < 0.3, np.nan, X)
    params = {"decoder": decoder, "likelihood": "normal", "max_iter": 30, "random_state": 0}
    plain = VAEEstimator(2, **params).fit(X).impute(holes, random_state=0)
    scaled = VAEEstimator(2, **params).fit(X * factors + shifts).impute(holes * factors + shifts, random_state=0)
    np.testing.assert_allclose((scaled - shifts) / factors, plain, atol=2e-2)
    missing = np.isnan(holes)
    assert np.sqrt(np.mean((plain - X)[missing] ** 2)) < 0.8 * X[missing].std()
