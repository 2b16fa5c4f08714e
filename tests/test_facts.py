"""What a fitted model is: counted by hand, and compared with factor analysis and simulated information."""

import numpy as np
import pandas as pd
import pytest
from test_inference import linear_model

from skvae import VAEEstimator
from skvae.constraints import Inequality


@pytest.fixture(scope="module")
def linear():
    return linear_model(bounds="observed")


def people(n=300):
    rng = np.random.default_rng(0)
    height = rng.normal(170, 8, n).round(1)
    frame = pd.DataFrame(
        {"id": np.arange(n), "height": height, "weight": (height - 100 + rng.normal(0, 4, n)).round(1)}
    )
    frame["town"] = rng.choice(["Bonn", "Kiel"], n)
    frame["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(7 * rng.integers(0, 90, n), unit="D")
    frame.loc[:29, "weight"] = np.nan
    return frame


@pytest.fixture(scope="module")
def mixed():
    with pytest.warns(UserWarning, match="'id'"):
        return VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=60, random_state=0).fit(people())


def test_parameters_of_a_linear_model_are_those_of_factor_analysis(linear):
    vae, X, *_ = linear
    # loadings, means and noise deviations
    assert vae.n_parameters_ == 5 * 2 + 5 + 5
    n = len(X)
    assert vae.aic(X) == pytest.approx(-2 * n * vae.score(X) + 2 * 20)
    assert vae.bic(X) == pytest.approx(-2 * n * vae.score(X) + 20 * np.log(n))


def test_masked_weights_are_no_parameters():
    X = np.random.default_rng(0).normal(size=(100, 3))
    settings = {"hidden_layer_sizes": (8,), "max_iter": 1, "random_state": 0, "likelihood": "normal"}
    vae = VAEEstimator(2, decoder="autoregressive", **settings).fit(X)
    weights = sum(int((layer.weight != 0).sum()) + len(layer.bias) for layer in vae.module_.decoder.layers)
    assert vae.n_parameters_ == weights


def test_noise_is_that_of_the_columns_in_their_units(linear):
    vae, _, _, covariance = linear
    stated = np.diag(covariance) - np.diag(_common(vae))
    np.testing.assert_allclose([vae.noise_std_[j] ** 2 for j in range(5)], stated, rtol=1e-5)


def _common(vae):
    """Covariance that z explains, in the units of the columns."""
    (layer,) = vae.module_.decoder.layers
    scales = np.array([column.kind.scale for column in vae._fitted.table.columns])
    loadings = scales[:, None] * layer.weight.detach().double().numpy()
    return loadings @ loadings.T


def test_information_of_a_linear_model_is_that_of_its_signal_to_noise(linear):
    vae, _, _, covariance = linear
    noise = np.array([vae.noise_std_[j] for j in range(5)])
    exact = 0.5 * np.log(np.diag(covariance) / noise**2)
    got = np.array([vae.information_per_column_[j] for j in range(5)])
    np.testing.assert_allclose(got, exact, atol=0.08)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_a_column_of_noise_has_no_information(decoder):
    rng = np.random.default_rng(0)
    common = rng.normal(size=(1500, 1))
    X = np.column_stack([common + 0.1 * rng.normal(size=(1500, 2)), rng.normal(size=1500)])
    found = VAEEstimator(1, hidden_layer_sizes=(16,), max_iter=15, decoder=decoder, random_state=0).fit(X)
    information = found.information_per_column_
    assert min(information[0], information[1]) > 1
    assert information[2] < 0.1


def test_columns_are_told_as_a_table(mixed):
    facts = mixed.columns_
    assert len(facts) == 5
    assert facts["id"]["kind"] == "ignored"
    assert facts["id"]["policy"] == "sequence"
    assert facts["weight"]["missing"] == pytest.approx(0.1)
    X = people()
    assert (facts["height"]["low"], facts["height"]["high"]) == (X["height"].min(), X["height"].max())
    assert facts["height"]["step"] == pytest.approx(0.1)
    assert facts["since"]["low"] == str(X["since"].min().date())
    assert facts["since"]["step"] == "7 days"
    assert facts["town"]["levels"] == "Bonn, Kiel"
    text = repr(facts)
    assert len(text.splitlines()) == 6
    assert text.splitlines()[0].split() == list(facts["id"])
    assert max(map(len, text.splitlines())) < 160
    assert "<td>Bonn, Kiel</td>" in facts._repr_html_()
    assert facts.to_pandas()["kind"].tolist() == list(mixed.likelihood_.values())
    with pytest.raises(KeyError):
        facts["none"]


def test_noise_of_mixed_tables_is_told_for_normal_columns_only(mixed):
    assert set(mixed.noise_std_) == {"height", "weight", "since"}
    assert 0 < mixed.noise_std_["weight"] < people()["weight"].std()


def test_the_distance_of_a_date_from_a_lower_one_is_told_as_such():
    X = people()[["since", "height"]]
    X["until"] = X["since"] + pd.to_timedelta(12 * np.arange(1, 301) % 240 + 12, unit="h")
    rule = Inequality("since", "until")
    facts = VAEEstimator(1, hidden_layer_sizes=(4,), max_iter=1, constraints=[rule]).fit(X).columns_["until"]
    assert (facts["low"], facts["step"]) == ("12 hours", "12 hours")
