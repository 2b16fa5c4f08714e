"""Missing cells filled: exact conditional distributions, steadied means, and what stays as it is."""

import numpy as np
import pytest
import torch
from tables import ASKED, any_table
from test_inference import linear_model

from skvae import VAEEstimator
from skvae.imputation import fill
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
