"""What z is drawn from, and the rows that come of it: their moments are those the model states."""

import numpy as np
import pytest
import torch
from scipy import stats
from test_inference import linear_model

from skvae import VAEEstimator
from skvae.latent import LATENT_DENSITIES, Prior


@pytest.fixture(scope="module")
def linear():
    return linear_model()


@pytest.fixture(scope="module")
def nonlinear(mixed):
    return VAEEstimator(
        2,
        hidden_layer_sizes=(16,),
        max_iter=200,
        batch_size=50,
        learning_rate_init=1e-2,
        early_stopping=False,
        random_state=0,
    ).fit(mixed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prior_is_standard_normal(dtype):
    z = Prior(3).sample(20_000, torch.Generator().manual_seed(0), dtype)
    assert z.dtype == dtype
    assert z.shape == (20_000, 3)
    for column in z.numpy().T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(z.numpy().T), np.eye(3), atol=0.03)


def test_sample_has_the_moments_a_linear_model_states(linear):
    vae, _, mean, covariance = linear
    n = 200_000
    rows = vae.sample(n, random_state=0)
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(rows.mean(0) - mean) < 5 * deviation / np.sqrt(n)).all()
    # variance of a sample covariance of normal rows: (s_ii s_jj + s_ij^2) / n
    error = np.sqrt((np.outer(deviation**2, deviation**2) + covariance**2) / n)
    assert (np.abs(np.cov(rows.T) - covariance) < 5 * error).all()
    standardised = (rows - mean) / deviation
    assert all(stats.kstest(column[:5000], "norm").pvalue > 1e-4 for column in standardised.T)


def test_sample_of_any_model_has_the_mean_and_variance_of_its_decoder(nonlinear, mixed):
    n, rng = 100_000, np.random.default_rng(0)
    rows = nonlinear.sample(n, random_state=0)
    decoded = nonlinear.inverse_transform(rng.normal(size=(n, 2)))
    error = np.hypot(rows.std(0), decoded.std(0)) / np.sqrt(n)
    assert (np.abs(rows.mean(0) - decoded.mean(0)) < 5 * error).all()
    # law of total variance: that of the means, and the mean of that of the cells
    numbers, flags = [0, 1, 4], [2, 3]
    noise = np.exp(nonlinear.module_.likelihood.blocks[0].log_std.detach().numpy()) * mixed.std(0)[numbers]
    np.testing.assert_allclose(rows.var(0)[numbers], decoded.var(0)[numbers] + noise**2, rtol=0.05)
    p = decoded.mean(0)[flags]
    np.testing.assert_allclose(rows.var(0)[flags], p * (1 - p), atol=0.01)


def test_rows_without_noise_are_decoded_points_and_noise_is_that_of_the_columns(linear):
    vae, X, *_ = linear
    drawn, decoded = (vae.sample(50_000, noise=noise, random_state=3) for noise in (True, False))
    noise = (drawn - decoded) / X.std(0)
    expected = np.exp(vae.module_.likelihood.blocks[0].log_std.detach().numpy())
    np.testing.assert_allclose(noise.std(0), expected, rtol=0.03)
    np.testing.assert_allclose(noise.mean(0), 0, atol=5 * expected.max() / np.sqrt(50_000))
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(5), atol=0.03)
    # all that is left lies in the plane that two latent units span
    assert np.linalg.matrix_rank(decoded - decoded.mean(0), tol=1e-2 * len(decoded) ** 0.5) == 2


def test_sample_keeps_what_columns_have_to_do_with_each_other(nonlinear, mixed):
    rows = nonlinear.sample(20_000, random_state=0)
    assert rows[rows[:, 2] == 1, 0].mean() > rows[rows[:, 2] == 0, 0].mean() + 0.5


def test_seeded_samples_repeat_and_others_are_fresh(nonlinear):
    a, b, c = (nonlinear.sample(20, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(nonlinear.sample(20), nonlinear.sample(20))
    state = np.random.RandomState(0)
    first, second = nonlinear.sample(20, random_state=state), nonlinear.sample(20, random_state=state)
    np.testing.assert_array_equal(first, a)
    assert not np.array_equal(first, second)


def test_rows_of_a_sample_all_differ(nonlinear):
    rows = nonlinear.sample(40_000, random_state=0)  # more than one chunk
    assert len(np.unique(rows[:, 0])) > 39_900


def test_latent_density_can_be_named_at_the_call(nonlinear):
    for name in LATENT_DENSITIES:
        assert nonlinear.sample(2, latent_density=name, random_state=0).shape == (2, 5)
    with pytest.raises(ValueError, match=r"latent_density must be one of .*'prior'.*got 'posterior'"):
        nonlinear.sample(2, latent_density="posterior")


@pytest.mark.parametrize("n_samples", [0, -1, 1.5, "many", None, True], ids=str)
def test_number_of_rows_must_be_a_positive_integer(nonlinear, n_samples):
    with pytest.raises(ValueError, match=f"n_samples must be an integer of at least 1, got {n_samples!r}"):
        nonlinear.sample(n_samples)


def test_one_row_is_the_default(nonlinear):
    assert nonlinear.sample(random_state=0).shape == (1, 5)
    assert nonlinear.sample(np.int64(2), random_state=0).shape == (2, 5)
