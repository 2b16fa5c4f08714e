"""Latent densities, and the rows of z drawn from them: their moments are those that the model states."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from test_inference import linear_model

from skvae import VAEEstimator
from skvae.model import latent
from skvae.model.latent import LATENT_DENSITIES, RIDGE, LatentDensity, Mixture, Prior


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
        bounds=None,
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
    rows = nonlinear.sample(n, latent_density="prior", random_state=0)
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


# ------------------------------------------------------------------------------------------------------ fitted densities


def posteriors(n=400, latent_dim=2, seed=0):
    """Means in two clumps and deviations of some posteriors, float64."""
    rng = np.random.default_rng(seed)
    centres = np.array([[-1.5, 0.5], [1.0, -1.0]])[rng.integers(2, size=n)]
    return centres + 0.3 * rng.normal(size=(n, latent_dim)), rng.uniform(0.2, 0.6, size=(n, latent_dim))


def mean_and_covariance(z_mean, z_std, weight=None):
    """Moments of the aggregated posterior, a row at a time."""
    weight = np.ones(len(z_mean)) if weight is None else weight
    mean = sum(w * m for w, m in zip(weight, z_mean, strict=True)) / weight.sum()
    second = sum(w * (np.outer(m, m) + np.diag(s**2)) for w, m, s in zip(weight, z_mean, z_std, strict=True))
    return mean, second / weight.sum() - np.outer(mean, mean)


FITTED = ["aggregated_posterior", "gaussian", "mixture"]


@pytest.mark.parametrize("name", LATENT_DENSITIES)
def test_densities_integrate_to_one(name):
    density = LATENT_DENSITIES[name].fit(*posteriors())
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    total = torch.exp(density.log_prob(points)).sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", LATENT_DENSITIES)
def test_draws_follow_the_density(name):
    density = LATENT_DENSITIES[name].fit(*posteriors())
    z = density.sample(50_000, torch.Generator().manual_seed(0), torch.float64)
    # the mean log density of the draws is minus the entropy, which the grid gives
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    log_prob = density.log_prob(points)
    entropy = -float((torch.exp(log_prob) * log_prob).sum()) * float(axis[1] - axis[0]) ** 2
    scores = density.log_prob(z)
    assert float(scores.mean()) == pytest.approx(-entropy, abs=5 * float(scores.std()) / 50_000**0.5 + 1e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FITTED)
def test_fitted_densities_have_the_moments_of_the_posteriors(name, weighted):
    z_mean, z_std = posteriors(2000)
    weight = np.where(z_mean[:, 0] > 0, 3.0, 1.0) if weighted else None
    density = LATENT_DENSITIES[name].fit(z_mean, z_std, weight)
    z = density.sample(100_000, torch.Generator().manual_seed(1), torch.float64).numpy()
    mean, covariance = mean_and_covariance(z_mean, z_std, weight)
    atol = 0.05 if name == "mixture" else 0.02  # the mixture is fitted to draws
    np.testing.assert_allclose(z.mean(0), mean, atol=atol)
    np.testing.assert_allclose(np.cov(z.T), covariance, atol=2 * atol)


def test_aggregated_posterior_is_the_mean_of_the_posteriors():
    z_mean, z_std = posteriors(30)
    weight = np.arange(1.0, 31)
    density = LATENT_DENSITIES["aggregated_posterior"].fit(z_mean, z_std, weight)
    points = np.random.default_rng(2).normal(size=(3, 5, 2))
    single = stats.norm(density.means, density.deviations).pdf(points[..., None, :]).prod(-1)  # (3, 5, 30)
    expected = np.log(single @ (weight / weight.sum()))
    np.testing.assert_allclose(density.log_prob(torch.from_numpy(points)).numpy(), expected, rtol=1e-6)


def test_a_gaussian_is_scipys():
    density = LATENT_DENSITIES["gaussian"].fit(*posteriors())
    mean, covariance = mean_and_covariance(*posteriors())
    points = np.random.default_rng(2).normal(size=(7, 2))
    expected = stats.multivariate_normal(mean, covariance).logpdf(points)
    np.testing.assert_allclose(density.log_prob(torch.from_numpy(points)).numpy(), expected, atol=0.01)


def test_a_mixture_has_enough_components_for_the_clumps_and_few_for_few_rows():
    rng = np.random.default_rng(0)
    corners = 4.0 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 0]])
    fit = LATENT_DENSITIES["mixture"].fit
    clumps = corners[rng.integers(5, size=3000)]
    density = fit(clumps, np.full(clumps.shape, 0.3))
    assert 5 <= len(density.weights) <= 40
    exact = np.log(0.2) + stats.norm(0, 0.3).logpdf(0) * 2
    np.testing.assert_allclose(density.log_prob(torch.from_numpy(corners)).numpy(), exact, atol=0.4)
    assert len(fit(clumps[:149], np.full((149, 2), 0.3)).weights) <= 2
    assert len(fit(clumps[:99], np.full((99, 2), 0.3)).weights) == 1


@pytest.mark.parametrize("name", LATENT_DENSITIES)
def test_equal_seeds_give_equal_densities(name):
    points = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    a, b = (LATENT_DENSITIES[name].fit(*posteriors(), seed=3).log_prob(points) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("name", LATENT_DENSITIES)
def test_fitted_densities_are_plain_and_can_be_pickled(name):
    density = LATENT_DENSITIES[name].fit(*posteriors())
    assert density.name == name
    assert all(isinstance(value, np.ndarray | int) for value in vars(density).values())
    copy = pickle.loads(pickle.dumps(density))
    points = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy.log_prob(points), density.log_prob(points))


def test_registry_holds_every_density_by_its_name():
    assert list(LATENT_DENSITIES) == ["prior", "aggregated_posterior", "gaussian", "mixture"]
    for name, density in LATENT_DENSITIES.items():
        assert density.name == name
        assert issubclass(density, LatentDensity)


@pytest.mark.parametrize("forgotten", ["fit", "sample", "log_prob"])
def test_a_density_that_forgets_a_method_cannot_be_constructed(forgotten):
    methods = {name: vars(Prior)[name] for name in ("fit", "sample", "log_prob") if name != forgotten}
    incomplete = type("Incomplete", (LatentDensity,), methods)
    with pytest.raises(TypeError, match=f"abstract method '?{forgotten}"):
        incomplete()


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("name", LATENT_DENSITIES)
def test_few_and_equal_posteriors_have_a_density(name, n):
    density = LATENT_DENSITIES[name].fit(np.zeros((n, 3)), np.full((n, 3), 1e-4))
    assert torch.isfinite(density.log_prob(torch.zeros(1, 3))).all()
    assert torch.isfinite(density.sample(4, torch.Generator().manual_seed(0))).all()


# ---------------------------------------------------------------------------------------------- densities in the estimator


def test_the_model_keeps_posteriors_of_the_rows_and_fits_to_them(nonlinear, mixed):
    z_mean, z_std = nonlinear.posterior(mixed)
    kept = nonlinear._fitted.density("aggregated_posterior")
    np.testing.assert_allclose(kept.means, z_mean, atol=1e-5)
    np.testing.assert_allclose(kept.deviations, z_std, atol=1e-5)
    assert nonlinear.latent_density_ is nonlinear._fitted.density("mixture")


def test_a_linear_model_keeps_its_prior(linear):
    assert isinstance(linear[0].latent_density_, Prior)


def score_under(vae, name, X):
    """Mean log-likelihood of rows with another latent density than that of the fit."""
    model = replace(vae._fitted, density_name=name)
    return model.log_likelihood(np.asarray(X), 64, 0).mean()


def test_scores_are_those_of_the_density_that_is_sampled(nonlinear, mixed):
    """E_p[log p(x)] is minus the entropy: it is largest for rows of the density itself (Gibbs' inequality)."""
    names = ("prior", "gaussian", "mixture")
    assert score_under(nonlinear, "mixture", mixed) == nonlinear.score_samples(mixed, n_draws=64).mean()
    for drawn in names:
        rows = nonlinear.sample(4000, latent_density=drawn, random_state=0)
        means = {scored: score_under(nonlinear, scored, rows) for scored in names}
        assert len(set(means.values())) == 3
        assert means[drawn] >= max(means.values()) - 0.02


def test_a_parameter_set_after_the_fit_changes_no_density(mixed):
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=2, random_state=0).fit(mixed)
    expected = vae.score_samples(mixed), vae.sample(5, random_state=0)
    vae.set_params(latent_density="prior", hidden_layer_sizes=())
    assert vae.latent_density_name_ == "mixture"
    np.testing.assert_array_equal(vae.score_samples(mixed), expected[0])
    np.testing.assert_array_equal(vae.sample(5, random_state=0), expected[1])


def test_mixture_finds_clusters_that_the_prior_misses():
    rng = np.random.default_rng(0)
    centres = rng.normal(scale=6, size=(4, 3))
    X = centres[rng.integers(4, size=900)] + 0.3 * rng.normal(size=(900, 3))
    vae = VAEEstimator(2, max_iter=100, random_state=0).fit(X)
    distance = {}
    for name in ("prior", "mixture"):
        rows = vae.sample(1000, latent_density=name, random_state=0)
        distance[name] = np.linalg.norm(rows[:, None] - centres, axis=-1).min(1).mean()
    assert distance["mixture"] < 0.7 * distance["prior"]
    assert score_under(vae, "mixture", X) > score_under(vae, "prior", X)


def test_a_stream_remembers_earlier_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), random_state=0)
    for rows in np.array_split(X, 3):
        vae.partial_fit(rows)
    assert len(vae._fitted.density("aggregated_posterior").means) == 300
    assert vae.sample(5, random_state=0).shape == (5, 3)


def test_only_some_posteriors_are_kept(monkeypatch):
    monkeypatch.setattr("skvae.fitting.ROWS", 50)
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=1, random_state=0).fit(
        np.random.default_rng(0).normal(size=(220, 3))
    )
    assert 25 < len(vae._fitted.latents.z_mean) <= 50


# ------------------------------------------------------------------------------------------ expectation maximisation


def clusters(n=900, latent_dim=3, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(4, latent_dim))
    return centres[rng.integers(4, size=n)] + rng.normal(size=(n, latent_dim)) @ rng.normal(
        size=(latent_dim, latent_dim)
    )


def some_mixture(z, n_components=3):
    rng = np.random.default_rng(1)
    factors = np.tril(0.3 * rng.normal(size=(n_components, z.shape[1], z.shape[1])), -1) + np.eye(z.shape[1])
    return Mixture(rng.dirichlet(np.ones(n_components)), z[:n_components], factors)


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("n_points", [70, 4099])
def test_a_step_of_the_fit_is_that_of_a_gaussian_mixture(latent_dim, n_points):
    z = clusters(n_points, latent_dim)
    start = some_mixture(z)
    own, log_density = latent._improved(start, torch.from_numpy(z))
    precisions = np.linalg.inv(start.factors @ start.factors.transpose(0, 2, 1))
    other = GaussianMixture(
        3,
        max_iter=1,
        reg_covar=RIDGE,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=precisions,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        other.fit(z)
    np.testing.assert_allclose(own.weights, other.weights_, rtol=1e-8)
    np.testing.assert_allclose(own.means, other.means_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(own.factors @ own.factors.transpose(0, 2, 1), other.covariances_, rtol=1e-6, atol=1e-9)
    assert log_density == pytest.approx(start.log_prob(torch.from_numpy(z)).mean().item(), abs=1e-9)


def test_no_step_of_the_fit_lowers_the_density():
    z = clusters()
    mixture, densities = some_mixture(z), []
    for _ in range(12):
        mixture, density = latent._improved(mixture, torch.from_numpy(z))
        densities.append(density)
    # the ridge takes a little from the optimum
    assert (np.diff(densities) > -1e-4).all()
    assert densities[-1] > densities[0] + 0.5


def test_a_fit_is_as_good_as_that_of_a_gaussian_mixture():
    z, held_out = clusters(3000), clusters(3000)[::2]
    own = latent._normal_mixture(z, 4, np.random.RandomState(0)).log_prob(torch.from_numpy(held_out)).mean().item()
    other = GaussianMixture(4, n_init=3, random_state=0).fit(z).score(held_out)
    assert own > other - 0.02


def test_points_that_repeat_leave_components_that_are_valid():
    z = np.repeat(clusters(3), 50, axis=0)
    mixture = latent._normal_mixture(z, 3, np.random.RandomState(0))
    assert np.isfinite(mixture.log_prob(torch.from_numpy(z)).numpy()).all()
    assert mixture.weights.sum() == pytest.approx(1)


def test_log_density_of_many_points_is_that_of_each(monkeypatch):
    z = torch.from_numpy(clusters(200)).view(4, 50, 3)
    mixture = some_mixture(clusters(200))
    whole = mixture.log_prob(z)
    components = torch.distributions.MultivariateNormal(
        torch.from_numpy(mixture.means), scale_tril=torch.from_numpy(mixture.factors)
    )
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.from_numpy(mixture.weights)), components
    )
    torch.testing.assert_close(whole, oracle.log_prob(z))
    monkeypatch.setattr(latent, "POINTS_PER_CHUNK", 20)
    torch.testing.assert_close(mixture.log_prob(z), whole)
