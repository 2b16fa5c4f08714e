"""The log-likelihood against exact densities, by quadrature, and by the slow twin."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, means_of, rows_of
from networks import shaken
from reference import SlowVAE, importance_weighted_bound, in_float64
from scipy import integrate, stats

from skvae import VAEEstimator, inference
from skvae.inference import (
    FEWEST_DRAWS,
    MOST_DRAWS,
    adaptive_log_likelihood,
    generate,
    log_likelihood,
    numbers_of_draws,
    posterior,
    standard_normal_draws,
)
from skvae.model.latent import Prior
from skvae.model.network import build_vae
from skvae.model.proposals import STEP
from skvae.quasirandom import shifted, shifts_by_cells, uniform_points


def linear_model(latent_dim=2, n_columns=5, **params):
    """A linear model of all rows and the covariance and the mean its density has, in the units of the rows."""
    rng = np.random.default_rng(21)
    X = rng.normal(size=(300, latent_dim)) @ rng.normal(size=(latent_dim, n_columns))
    X = 10 * (X + 0.5 * rng.normal(size=X.shape)) + 3
    settings = {"max_iter": 200, "batch_size": 60, "learning_rate_init": 2e-2, "early_stopping": False, "bounds": None}
    vae = VAEEstimator(
        latent_dim, hidden_layer_sizes=(), likelihood="normal", random_state=0, **{**settings, **params}
    ).fit(X)
    return vae, X, *stated_moments(vae, X)


def led_astray(vae, by=0.5):
    """A linear model whose encoder is off by so many deviations, which its density does not notice."""
    with torch.no_grad():
        (layer,) = vae.module_.encoder.layers
        layer.bias[:2] += by * torch.exp(0.5 * layer.bias[2:])
    return vae


def stated_moments(vae, X):
    """Mean and covariance of x = scale * (W z + b + noise) + location, from the trained weights."""
    module = vae.module_
    (layer,) = module.decoder.layers
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    variance = np.exp(2 * module.likelihood.blocks[0].log_std.detach().double().numpy())
    scale = X.std(0)
    return scale * bias + X.mean(0), np.outer(scale, scale) * (weight @ weight.T + np.diag(variance))


def encoded(vae, X):
    """Encoded rows, and which of their parts are observed."""
    rows = vae._fitted.table.encode(X)
    return torch.from_numpy(rows.x), torch.from_numpy(rows.observed)


@pytest.fixture(scope="module")
def linear():
    return linear_model()


@pytest.fixture(scope="module")
def curved():
    """A nonlinear model of two columns, the second a flag or a number, with one latent unit."""

    def fit(kind):
        t = np.random.default_rng(0).normal(size=400)
        noise = np.random.default_rng(1).normal(size=(400, 2))
        second = t**2 + 0.2 * noise[:, 1] if kind == "normal" else (t + 0.5 * noise[:, 1] > 0).astype(float)
        X = np.column_stack([5 * t + noise[:, 0], second])
        return X, VAEEstimator(
            1,
            hidden_layer_sizes=(8,),
            activation="tanh",
            latent_density="prior",
            max_iter=150,
            batch_size=50,
            random_state=0,
        ).fit(X)

    return {kind: fit(kind) for kind in ("normal", "bernoulli")}


# ------------------------------------------------------------------------------------------------------ exact densities


def test_bound_reaches_the_exact_density_of_a_linear_model(linear):
    vae, X, mean, covariance = linear
    exact = stats.multivariate_normal(mean, covariance).logpdf(X)
    np.testing.assert_allclose(vae.score_samples(X, n_draws=8192), exact, atol=0.02)
    assert vae.score(X) == pytest.approx(exact.mean(), abs=0.01)


def test_bound_rises_with_the_draws_toward_the_exact_density():
    # posteriors that are wrong, so that one draw is far from enough
    vae, X, mean, covariance = linear_model()
    led_astray(vae, 0.7)
    exact = stats.multivariate_normal(mean, covariance).logpdf(X).mean()
    bounds = [
        np.mean([vae.score_samples(X, n_draws=k, random_state=seed).mean() for seed in range(30)])
        for k in (1, 4, 16, 256)
    ]
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < exact + 0.005
    assert bounds[0] < exact - 0.1
    assert bounds[3] == pytest.approx(exact, abs=0.02)


def test_one_draw_is_the_evidence_lower_bound():
    vae, X, *_ = linear_model(max_iter=5)
    z_mean, z_std = vae.posterior(X)
    kl = 0.5 * (z_mean**2 + z_std**2 - 1 - 2 * np.log(z_std)).sum(1)
    nll, rng = [], np.random.default_rng(0)
    noise_std = np.exp(vae.module_.likelihood.blocks[0].log_std.detach().numpy()) * X.std(0)
    for _ in range(100):
        decoded = vae.inverse_transform(z_mean + z_std * rng.normal(size=z_std.shape))
        nll.append(-stats.norm(decoded, noise_std).logpdf(X).sum(1))
    elbo = -np.mean(nll) - kl.mean()
    one_draw = [vae.score_samples(X, n_draws=1, random_state=seed).mean() for seed in range(100)]
    error = np.hypot(np.std(nll, axis=0).mean(), np.std(one_draw)) / np.sqrt(100)
    assert np.mean(one_draw) == pytest.approx(elbo, abs=5 * error)


@pytest.mark.parametrize("kind", ["normal", "bernoulli"])
def test_score_is_that_of_quadrature_over_the_latent_unit(curved, kind):
    X, vae = curved[kind]
    (first, last), likelihood = vae.module_.decoder.layers, vae.module_.likelihood
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    location, scale = X.mean(0), X.std(0)
    noise_std = np.exp(likelihood.blocks[0].log_std.detach().double().numpy())

    def joint(z, row):
        outputs = np.tanh(np.multiply.outer(z, w1[:, 0]) + b1) @ w2.T + b2
        number = stats.norm(location[0] + scale[0] * outputs[..., 0], scale[0] * noise_std[0]).pdf(row[0])
        if kind == "normal":
            second = stats.norm(location[1] + scale[1] * outputs[..., 1], scale[1] * noise_std[1]).pdf(row[1])
        else:
            second = stats.bernoulli(1 / (1 + np.exp(-outputs[..., 1]))).pmf(row[1])
        return stats.norm.pdf(z) * number * second

    rows, grid = X[::10], np.linspace(-10, 10, 4001)
    exact = np.array([np.log(integrate.simpson(joint(grid, row), x=grid)) for row in rows])
    adaptive, _ = integrate.quad(joint, -10, 10, args=(rows[0],), points=vae.transform(rows[:1])[0], limit=200)
    assert exact[0] == pytest.approx(np.log(adaptive), abs=1e-6)
    np.testing.assert_allclose(vae.score_samples(rows, n_draws=16384), exact, atol=0.03)
    assert vae.score(rows) == pytest.approx(exact.mean(), abs=0.02)


def test_density_integrates_to_one(curved):
    X, vae = curved["normal"]
    axes = [np.linspace(c.mean() - 8 * c.std(), c.mean() + 8 * c.std(), 161) for c in X.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    density = np.exp(vae.score_samples(grid.reshape(-1, 2), n_draws=256)).reshape(grid.shape[:2])
    total = integrate.simpson(integrate.simpson(density, x=axes[1]), x=axes[0])
    # where the encoder has seen no rows, the bound lies below
    assert total == pytest.approx(1, abs=0.03)


def test_density_over_a_number_and_mass_over_a_flag_sum_to_one(curved):
    X, vae = curved["bernoulli"]
    axis = np.linspace(X[:, 0].mean() - 8 * X[:, 0].std(), X[:, 0].mean() + 8 * X[:, 0].std(), 801)
    total = sum(
        integrate.simpson(np.exp(vae.score_samples(np.column_stack([axis, np.full(801, flag)]), n_draws=512)), x=axis)
        for flag in (0.0, 1.0)
    )
    assert total == pytest.approx(1, abs=0.02)


def test_mean_score_of_own_rows_is_minus_the_entropy(linear):
    vae, _, mean, covariance = linear
    own = vae.sample(20_000, random_state=0)
    entropy = stats.multivariate_normal(mean, covariance).entropy()
    scores = vae.score_samples(own)
    assert scores.mean() == pytest.approx(-entropy, abs=5 * scores.std() / np.sqrt(len(own)) + 0.01)


def test_own_rows_score_as_quadrature_says(curved):
    """The entropy of a two-column model: minus the integral of p log p."""
    X, vae = curved["normal"]
    axes = [np.linspace(c.mean() - 8 * c.std(), c.mean() + 8 * c.std(), 161) for c in X.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    log_density = vae.score_samples(grid.reshape(-1, 2), n_draws=256).reshape(grid.shape[:2])
    entropy = -integrate.simpson(integrate.simpson(np.exp(log_density) * log_density, x=axes[1]), x=axes[0])
    scores = vae.score_samples(vae.sample(20_000, random_state=0))
    assert scores.mean() == pytest.approx(-entropy, abs=5 * scores.std() / np.sqrt(20_000) + 0.05)


# -------------------------------------------------------------------------------------------------------- the slow twin


def test_bound_is_that_of_the_twin_for_the_same_draws(curved):
    for X, vae in curved.values():
        module = in_float64(vae.module_)
        x, observed = encoded(vae, X[:7])
        draws = standard_normal_draws(16, 1, 0)
        expected = importance_weighted_bound(SlowVAE(module), x, draws)
        torch.testing.assert_close(
            log_likelihood(module, x, observed, draws, Prior(module.latent_dim)), expected, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", ["missing", "gated", "exposure", "all"])
def test_bound_over_observed_parts_is_that_of_the_twin(kinds, decoder):
    layout, sizes = LAYOUTS[kinds], {"latent_dim": 2, "hidden_layer_sizes": (7,), "activation": "tanh"}
    module = build_vae(layout, means_of(layout, 0.4), **sizes, encoder=None, decoder=decoder, seed=0).double()
    x, parts = rows_of(layout, 12)
    observed = ~torch.isnan(parts)
    draws = standard_normal_draws(8, 2, 0)
    expected = importance_weighted_bound(SlowVAE(module), x, draws, observed)
    torch.testing.assert_close(
        log_likelihood(module, x, observed, draws, Prior(module.latent_dim)), expected, rtol=1e-9, atol=1e-9
    )
    # parts that never were missing at fit can be, later
    observed[::2, 0] = False
    expected = importance_weighted_bound(SlowVAE(module), x, draws, observed)
    torch.testing.assert_close(
        log_likelihood(module, x, observed, draws, Prior(module.latent_dim)), expected, rtol=1e-9, atol=1e-9
    )


def test_bound_is_that_of_plain_monte_carlo(curved):
    X, vae = curved["normal"]
    module = in_float64(vae.module_)
    x, observed = encoded(vae, X[:3])
    draws = torch.randn(3, 4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = importance_weighted_bound(SlowVAE(module), x, draws).numpy()
    quasi = log_likelihood(module, x, observed, standard_normal_draws(4096, 1, 1), Prior(1)).numpy()
    np.testing.assert_allclose(quasi, plain, atol=0.1)


def test_memory_is_bounded_whatever_the_draws_and_the_chunks_change_nothing(linear, monkeypatch):
    vae, X, *_ = linear
    whole = vae.score_samples(X, n_draws=32)
    seen, decode = [], type(vae.module_).decode
    monkeypatch.setattr(
        type(vae.module_), "decode", lambda self, z, *x: seen.append(z.numel() // 2) or decode(self, z, *x)
    )
    monkeypatch.setattr(inference, "CELLS_PER_CHUNK", 32 * 5 * 10)
    np.testing.assert_allclose(vae.score_samples(X, n_draws=32), whole, rtol=1e-12)
    assert max(seen) <= 32 * 10
    assert sum(seen) == 32 * len(X)


# ------------------------------------------------------------------------------------------------------------ the draws


def test_quasi_random_draws_are_standard_normal():
    draws = standard_normal_draws(4096, 5, 0).numpy()
    assert draws.shape == (4096, 5)
    for column in draws.T:
        assert stats.kstest(column, "norm").pvalue > 0.05
    np.testing.assert_allclose(np.cov(draws.T), np.eye(5), atol=0.05)


def test_shorter_sequences_begin_longer_ones():
    np.testing.assert_array_equal(standard_normal_draws(100, 3, 0)[:10], standard_normal_draws(10, 3, 0))
    assert standard_normal_draws(1, 3, 0).shape == (1, 3)


def test_draws_follow_their_seed():
    assert torch.equal(standard_normal_draws(8, 2, 0), standard_normal_draws(8, 2, 0))
    assert not torch.equal(standard_normal_draws(8, 2, 0), standard_normal_draws(8, 2, 1))


def test_quasi_random_draws_scatter_less_than_independent_ones(curved):
    X, vae = curved["normal"]
    module = in_float64(vae.module_)
    x, observed = encoded(vae, X[:20])
    generator = torch.Generator().manual_seed(0)
    quasi = [log_likelihood(module, x, observed, standard_normal_draws(64, 1, seed), Prior(1)) for seed in range(20)]
    plain = [
        log_likelihood(module, x, observed, torch.randn(64, 1, dtype=torch.float64, generator=generator), Prior(1))
        for _ in range(20)
    ]
    assert torch.stack(quasi).std(0).mean() < 0.5 * torch.stack(plain).std(0).mean()


def test_the_same_call_gives_the_same_numbers_and_a_seed_other_ones(linear):
    vae, X, *_ = linear
    np.testing.assert_array_equal(vae.score_samples(X), vae.score_samples(X))
    np.testing.assert_array_equal(vae.score_samples(X, random_state=1), vae.score_samples(X, random_state=1))
    assert not np.array_equal(vae.score_samples(X, random_state=1), vae.score_samples(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_scores_alike_whatever_stands_around_it(linear, dtype):
    vae, X, *_ = linear
    X = X.astype(dtype)
    scores = vae.score_samples(X)
    assert scores.shape == (300,)
    tolerance = {"rtol": 1e-10} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(vae.score_samples(X[::-1])[::-1], scores, **tolerance)
    np.testing.assert_allclose([vae.score_samples(X[i : i + 1])[0] for i in range(5)], scores[:5], **tolerance)
    np.testing.assert_allclose(vae.score_samples(np.vstack([X[:2], 1e6 * X]))[:2], scores[:2], **tolerance)


def test_score_is_the_weighted_mean(linear):
    vae, X, *_ = linear
    weight = np.random.default_rng(0).uniform(size=300)
    assert vae.score(X) == pytest.approx(vae.score_samples(X).mean(), rel=1e-12)
    assert vae.score(X, sample_weight=weight) == pytest.approx(np.average(vae.score_samples(X), weights=weight))


@pytest.mark.parametrize("n_draws", [0, -1, 1.5, "many", None, True], ids=str)
def test_number_of_draws_must_be_a_positive_integer(linear, n_draws):
    vae, X, *_ = linear
    with pytest.raises(ValueError, match=f"n_draws must be 'auto' or an integer of at least 1, got {n_draws!r}"):
        vae.score_samples(X, n_draws=n_draws)


def test_constant_columns_do_not_count(linear):
    _, X, *_ = linear
    model = VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=2, random_state=0)
    with_constant = np.column_stack([X[:, :2], np.full(300, 7.0), X[:, 2:]])
    np.testing.assert_array_equal(model.fit(with_constant).score_samples(with_constant), model.fit(X).score_samples(X))


# ------------------------------------------------------------------------------------------------ as many as a row needs


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", ["missing", "gated", "exposure", "all"])
def test_bound_of_own_draws_is_that_of_the_twin(kinds, decoder):
    module, (x, parts) = shaken(kinds, decoder=decoder), rows_of(LAYOUTS[kinds], 12)
    observed = ~torch.isnan(parts)
    observed[::3, 0] = False
    z_mean, z_std = posterior(module, x)
    steps = inference._steps(module, x, observed, z_mean, z_std)
    n_draws, points = numbers_of_draws(steps), uniform_points(MOST_DRAWS, 2, 5)

    expected = []
    for i, k in enumerate(n_draws.tolist()):
        row = slice(i, i + 1)
        draws = torch.special.ndtri(shifted(points[:k], shifts_by_cells(x[row], 2)))
        expected.append(importance_weighted_bound(SlowVAE(module), x[row], draws, observed[row], steps[row]))
    got = adaptive_log_likelihood(module, x, observed, Prior(2), 5)
    torch.testing.assert_close(got, torch.cat(expected), rtol=1e-9, atol=1e-9)


def test_steps_of_a_linear_model_lead_to_its_posterior_means():
    """The encoder is off; the posterior of a linear model is known."""
    vae, X, *_ = linear_model()
    led_astray(vae)
    module = in_float64(vae.module_)
    x, observed = encoded(vae, X)
    (layer,) = module.decoder.layers
    weight, bias = layer.weight.detach(), layer.bias.detach()
    precision = torch.exp(-2 * module.likelihood.blocks[0].log_std.detach())
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + (weight.T * precision) @ weight)
    exact = ((x - bias) * precision) @ weight @ covariance
    z_mean, z_std = posterior(module, x)
    steps = inference._steps(module, x, observed, z_mean, z_std)
    before, after = ((mean - exact).norm(dim=1).mean() for mean in (z_mean, z_mean + z_std * steps))
    assert after < (1 - 0.5 * STEP) * before


def test_bound_of_own_draws_is_closer_to_the_exact_density_than_that_of_32():
    vae, X, mean, covariance = linear_model()
    led_astray(vae, 1.0)
    exact = stats.multivariate_normal(mean, covariance).logpdf(X)
    own = [vae.score_samples(X, random_state=seed) - exact for seed in range(10)]
    plain = [vae.score_samples(X, n_draws=32, random_state=seed) - exact for seed in range(10)]
    # the errors of 32 shared draws have a common part, whose deviation over the seeds is that of their mean
    assert np.mean(plain) - np.std(np.mean(plain, axis=1)) < np.mean(own) < 0.005
    assert np.mean(own) > -0.03
    assert np.sqrt(np.mean(np.square(own))) < np.sqrt(np.mean(np.square(plain)))
    # the mean over the rows is steadier still, for the rows' errors are independent
    assert np.std(np.mean(own, axis=1)) < 0.5 * np.std(np.mean(plain, axis=1))


@pytest.mark.parametrize("kind", ["normal", "bernoulli"])
def test_own_draws_score_as_quadrature_does(curved, kind):
    X, vae = curved[kind]
    errors = vae.score_samples(X) - vae.score_samples(X, n_draws=16384)
    assert np.quantile(np.abs(errors), 0.95) < 0.2
    assert vae.score(X) == pytest.approx(vae.score_samples(X, n_draws=16384).mean(), abs=0.01)


def test_the_longer_the_step_the_more_draws():
    lengths = torch.tensor([0.0, 0.5, 1.0, 1.01, 2.0, 2.01, 3.0, 50.0])
    steps = torch.stack([lengths, torch.zeros(8)], dim=1)
    assert numbers_of_draws(steps).tolist() == [FEWEST_DRAWS, 16, 16, 32, 64, 128, MOST_DRAWS, MOST_DRAWS]


def test_own_draws_are_told_by_the_row_and_the_seed(linear):
    vae, X, *_ = linear
    twice = vae.score_samples(np.vstack([X[:4], X[:4]]), random_state=3)
    np.testing.assert_allclose(twice[:4], twice[4:], rtol=1e-10)
    assert (np.abs(vae.score_samples(X[:4], random_state=4) - twice[:4]) > 1e-9).all()


@torch.inference_mode()
def test_rows_are_scored_in_inference_mode(linear):
    vae, X, *_ = linear
    assert np.isfinite(vae.score_samples(X[:5])).all()


def test_every_row_is_reported_once(linear):
    vae, X, *_ = linear
    x, observed = encoded(vae, X)
    module, done = in_float64(vae.module_), []
    adaptive_log_likelihood(module, x, observed, Prior(2), 0, done.append)
    assert sum(done) == len(X)
    done.clear()
    log_likelihood(module, x, observed, standard_normal_draws(4, 2, 0), Prior(2), done.append)
    assert sum(done) == len(X)
    done.clear()
    generate(module, torch.zeros(9000, 2, dtype=torch.float64), report=done.append)
    assert done == [4096, 4096, 808]


# ------------------------------------------------------------------------------------------------------------- in chunks


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_chunks_of_rows_have_the_numbers_of_all_at_once(monkeypatch, decoder):
    module = shaken("all", decoder=decoder)
    x, _ = rows_of(LAYOUTS["all"], 50)
    z = torch.randn(50, 2, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    whole = *posterior(module, x), generate(module, z)
    monkeypatch.setattr(inference, "ROWS_PER_CHUNK", 7)
    for got, expected in zip((*posterior(module, x), generate(module, z)), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_posterior_holds_means_and_deviations():
    module = shaken("all")
    x, _ = rows_of(LAYOUTS["all"], 9)
    z_mean, z_std = posterior(module, x)
    with torch.no_grad():
        expected, z_logvar = module.encode(x)
    torch.testing.assert_close(z_mean, expected)
    torch.testing.assert_close(2 * torch.log(z_std), z_logvar)
