"""The estimator as a whole: factor analysis as its linear case, units, fitted attributes."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from fits import answers, table
from fits import quick as quick_on_a_table
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.preprocessing import StandardScaler

from skvae import VAEEstimator


def quick(**params):
    return VAEEstimator(**{"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, **params})


# ------------------------------------------------------------------------------------------------------ factor analysis


def digits_with_noise():
    X = load_digits().data
    X = X[:, X.std(0) > 0]
    return X + np.random.default_rng(0).uniform(size=X.shape)


@pytest.mark.parametrize(
    ("load", "max_iter"),
    [(lambda: load_wine().data, 1000), (lambda: load_breast_cancer().data, 2000), (digits_with_noise, 120)],
    ids=["wine", "breast_cancer", "digits"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_linear_model_reaches_factor_analysis(load, max_iter, seed):
    X = StandardScaler().fit_transform(load())
    factors = FactorAnalysis(4, tol=1e-4, max_iter=5000).fit(X).score(X)
    vae = VAEEstimator(
        4,
        hidden_layer_sizes=(),
        likelihood="normal",
        learning_rate_init=2e-2,
        batch_size=128,
        max_iter=max_iter,
        early_stopping=False,
        random_state=seed,
    )
    # EM stops in local optima, which gradient steps may leave behind: above is right, too
    assert vae.fit(X).score(X) > factors - 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_linear_model_finds_the_covariance_of_the_data(seed):
    rng = np.random.default_rng(0)
    # several columns per factor: with few, factor analysis has optima that give one column no noise (Heywood cases)
    loadings, noise = rng.normal(size=(2, 12)), np.linspace(0.3, 1.2, 12)
    X = rng.normal(size=(4000, 2)) @ loadings + noise * rng.normal(size=(4000, 12))
    vae = quick(
        hidden_layer_sizes=(),
        likelihood="normal",
        learning_rate_init=2e-2,
        max_iter=100,
        early_stopping=False,
        random_state=seed,
    ).fit(X)
    learnt = np.exp(vae.module_.likelihood.blocks[0].log_std.detach().double().numpy()) * X.std(0)
    weight = vae.module_.decoder.layers[0].weight.detach().double().numpy() * X.std(0)[:, None]
    covariance = loadings.T @ loadings + np.diag(noise**2)
    deviation = np.sqrt(np.diag(covariance))
    difference = (weight @ weight.T + np.diag(learnt**2) - covariance) / np.outer(deviation, deviation)
    assert np.abs(difference).max() < 5 / np.sqrt(4000)
    np.testing.assert_allclose(learnt, noise, atol=0.12)


def test_posterior_is_that_of_factor_analysis():
    """The posterior of a linear model is known: N(M W' P (x - mean), M), M = (I + W' P W)^-1, P the precisions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(1000, 6))
    vae = quick(
        hidden_layer_sizes=(), likelihood="normal", learning_rate_init=2e-2, max_iter=300, early_stopping=False
    ).fit(X)
    weight = vae.module_.decoder.layers[0].weight.detach().double().numpy()
    bias = vae.module_.decoder.layers[0].bias.detach().double().numpy()
    precision = np.exp(-2 * vae.module_.likelihood.blocks[0].log_std.detach().double().numpy())
    covariance = np.linalg.inv(np.eye(2) + (weight.T * precision) @ weight)
    exact = ((X - X.mean(0)) / X.std(0) - bias) * precision @ weight @ covariance
    z_mean, z_std = vae.posterior(X)
    np.testing.assert_allclose(z_mean, exact, atol=0.1)
    # the best diagonal posterior has the precisions of the exact one (Bishop, 2006, section 10.1.2)
    np.testing.assert_allclose(z_std, np.tile(1 / np.sqrt(np.diag(np.linalg.inv(covariance))), (1000, 1)), rtol=0.1)


# ---------------------------------------------------------------------------------------------------------------- units


def test_scaled_and_shifted_columns_give_the_same_latents_and_a_score_shifted_by_the_jacobian(mixed):
    numbers, flags = [0, 1, 4], [2, 3]
    moved = mixed.copy()
    moved[:, numbers] = 1000 * mixed[:, numbers] + [5, -7, 1e4]
    moved[:, flags] = np.where(mixed[:, flags] == 1, 20, 10)
    vae, other = quick().fit(mixed), quick().fit(moved)
    np.testing.assert_allclose(other.transform(moved), vae.transform(mixed), atol=1e-4)
    shift = 3 * np.log(1000)  # flags have a mass, not a density
    np.testing.assert_allclose(other.score_samples(moved), vae.score_samples(mixed) - shift, atol=1e-3)
    np.testing.assert_allclose(other.loss_curve_, np.array(vae.loss_curve_) + shift, atol=1e-3)
    np.testing.assert_allclose(other.validation_scores_, np.array(vae.validation_scores_) - shift, atol=1e-3)
    assert other.best_validation_score_ == pytest.approx(vae.best_validation_score_ - shift, abs=1e-3)
    expected = vae.sample(100, random_state=0)
    expected[:, numbers] = 1000 * expected[:, numbers] + [5, -7, 1e4]
    expected[:, flags] = 10 + 10 * expected[:, flags]
    np.testing.assert_allclose(other.sample(100, random_state=0), expected, rtol=1e-3, atol=1)


def test_powers_of_two_change_no_bit(mixed):
    numbers = [0, 1, 4]
    scaled = mixed.copy()
    scaled[:, numbers] *= [1024.0, 0.125, 2.0**40]
    vae, other = quick().fit(mixed), quick().fit(scaled)
    np.testing.assert_array_equal(other.transform(scaled), vae.transform(mixed))
    np.testing.assert_array_equal(
        other.sample(9, random_state=0)[:, numbers],
        vae.sample(9, random_state=0)[:, numbers] * [1024.0, 0.125, 2.0**40],
    )


# ----------------------------------------------------------------------------------------------------- rows and latents


def test_reconstruct_is_the_decoded_latent_mean(mixed):
    vae = quick().fit(mixed)
    np.testing.assert_array_equal(vae.reconstruct(mixed), vae.inverse_transform(vae.transform(mixed)))


def test_posterior_holds_the_latent_mean_and_a_deviation(mixed):
    vae = quick(max_iter=200).fit(mixed)
    z_mean, z_std = vae.posterior(mixed)
    np.testing.assert_array_equal(z_mean, vae.transform(mixed))
    assert z_std.shape == z_mean.shape
    assert (z_std > 0).all()
    # a deviation, and neither a variance nor a logarithm: aggregated, the posteriors have the variance of the prior
    np.testing.assert_allclose((z_std**2).mean(0) + z_mean.var(0), 1, atol=0.3)
    encoded = torch.from_numpy(vae._fitted.table.encode(mixed).x).float()
    with torch.no_grad():
        _, z_logvar = vae.module_.encode(encoded)
    np.testing.assert_allclose(np.log(z_std), z_logvar.numpy() / 2, atol=1e-4)


def test_a_trained_model_reconstructs_better_than_the_mean(mixed):
    vae = quick(max_iter=400, batch_size=50, hidden_layer_sizes=(32,), learning_rate_init=5e-3).fit(mixed)
    error = ((vae.reconstruct(mixed) - mixed) ** 2).mean(0)
    assert (error[[0, 1, 2]] < 0.7 * mixed.var(0)[[0, 1, 2]]).all()


def test_y_is_ignored(mixed):
    expected = quick().fit(mixed).transform(mixed)
    for y in (np.arange(200), ["a"] * 200):
        np.testing.assert_array_equal(quick().fit(mixed, y).transform(mixed), expected)
        np.testing.assert_array_equal(quick().fit_transform(mixed, y), expected)
    assert quick().fit(mixed).score(mixed, np.arange(200)) == quick().fit(mixed).score(mixed)


def test_held_out_rows_of_the_same_kind_score_alike():
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(2, 5))
    X, held_out = (rng.normal(size=(1000, 2)) @ loadings + 0.5 * rng.normal(size=(1000, 5)) for _ in range(2))
    vae = quick(max_iter=50, learning_rate_init=5e-3).fit(X)
    assert vae.score(held_out) == pytest.approx(vae.score(X), abs=0.4)
    assert vae.score(rng.normal(size=(1000, 5)) * X.std(0)) < vae.score(held_out) - 2


def test_fit_returns_itself_and_leaves_its_parameters(mixed):
    vae = quick(hidden_layer_sizes=[8])
    before = vae.get_params()
    assert vae.fit(mixed) is vae
    assert vae.partial_fit(mixed) is vae
    after = vae.get_params()
    assert all(after[name] is before[name] for name in before)


def test_fitted_attributes_have_the_types_the_docstring_says(mixed):
    vae = quick(latent_dim=3).fit(pd.DataFrame(mixed, columns=list("abcde")))
    assert vae.n_features_in_ == 5
    assert list(vae.feature_names_in_) == list("abcde")
    assert isinstance(vae.n_iter_, int)
    assert all(isinstance(value, float) for value in [*vae.loss_curve_, *vae.validation_scores_])
    assert isinstance(vae.best_validation_score_, float)
    assert vae.kl_per_unit_.shape == (3,)
    assert (vae.kl_per_unit_ >= 0).all()
    assert isinstance(vae.active_units_, int)
    assert 0 <= vae.active_units_ <= 3
    assert isinstance(vae.module_, torch.nn.Module)
    assert not vae.module_.training
    assert vae.likelihood_ == {"a": "normal", "b": "normal", "c": "bernoulli", "d": "bernoulli", "e": "normal"}
    assert vae.decoder_ == "factorized"
    assert vae.latent_density_name_ == "mixture"
    assert vae.latent_density_.name == "mixture"


def test_every_fitted_attribute_is_in_the_docstring_and_every_one_there_is_set(mixed):
    doc = VAEEstimator.__doc__
    section = doc[doc.index("    Attributes\n") : doc.index("    See Also\n")]
    stated = {line.split(" : ")[0].strip() for line in section.splitlines() if re.match(r"    \w+_ : ", line)}
    vae = quick().fit(pd.DataFrame(mixed, columns=list("abcde")))
    assert stated == {name for name in dir(vae) if re.fullmatch(r"[a-z]\w*_", name)}
    assert all(hasattr(vae, name) for name in stated)


OTHER_VALUES = {
    "latent_dim": 5,
    "hidden_layer_sizes": (),
    "activation": "relu",
    "likelihood": "quantile_normal",
    "categorical_features": [0],
    "exposure": "weight",
    "latent_density": "prior",
    "beta": 0.1,
    "alpha": 3.0,
    "batch_size": 7,
    "learning_rate_init": 0.1,
    "max_iter": 1,
    "tol": 0.5,
    "early_stopping": False,
    "validation_fraction": 0.5,
    "n_iter_no_change": 1,
    "warm_start": True,
    "encoder": torch.nn.Linear,
    "decoder": "autoregressive",
    "bounds": None,
    "protect": 5,
    "ignore": None,
    "constraints": [],
    "device": "nowhere",
    "verbose": 3,
    "random_state": 7,
}
"""Of every parameter but `handle_unknown`, which says how later tables are read."""


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_parameter_set_on_a_fitted_model_changes_no_answer_until_the_next_fit(name, capsys):
    X = table()
    vae = quick_on_a_table().fit(X)
    before = answers(vae, X)
    vae.set_params(**{name: OTHER_VALUES[name]})
    assert answers(vae, X) == before
    assert vae.get_params()[name] is OTHER_VALUES[name]
    assert capsys.readouterr().out == ""


def test_every_parameter_is_among_those_set_on_a_fitted_model():
    assert {*OTHER_VALUES, "handle_unknown"} == VAEEstimator().get_params().keys()


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("latent_dim", lambda vae: vae.transform(table()).shape[1] == 5),
        ("hidden_layer_sizes", lambda vae: vae.latent_density_name_ == "prior"),
        ("likelihood", lambda vae: vae.likelihood_["height"] == "quantile_normal"),
        ("latent_density", lambda vae: vae.latent_density_name_ == "prior"),
        ("decoder", lambda vae: vae.decoder_ == "autoregressive"),
    ],
)
def test_the_next_fit_heeds_a_parameter_set_on_a_fitted_model(name, fitted):
    vae = quick_on_a_table().fit(table())
    assert not fitted(vae)
    assert fitted(vae.set_params(**{name: OTHER_VALUES[name]}).fit(table()))


def test_fitted_names_end_in_an_underscore(mixed):
    vae = quick()
    before = set(vars(vae))
    vae.fit(mixed)
    assert all(name.startswith("_") or name.endswith("_") for name in set(vars(vae)) - before)


def test_default_parameters_learn_something_on_a_small_table():
    X = load_wine().data
    vae = VAEEstimator(random_state=0, max_iter=200).fit(X)
    independent = -0.5 * np.log(2 * np.pi * np.e * X.var(0)).sum()  # columns normal and each on its own
    assert vae.score(X) > independent + 2
    assert vae.active_units_ >= 2


def test_repr_shows_what_was_changed():
    assert repr(VAEEstimator(latent_dim=3, beta=0.5)) == "VAEEstimator(beta=0.5, latent_dim=3)"
