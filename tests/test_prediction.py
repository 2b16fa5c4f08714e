"""One column given the others: against enumeration, and against the exact conditional of a linear model."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import softmax
from test_inference import linear_model
from test_marginal import letters

from skvae import VAEEstimator

DECODERS = ["factorized", "autoregressive"]
LEVELS = {"a": "xy", "b": "uv", "c": "pqr"}


@pytest.fixture(scope="module", params=DECODERS)
def of_letters(request):
    return VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=5, decoder=request.param, random_state=0).fit(letters())


@pytest.mark.parametrize("column", LEVELS)
def test_probabilities_are_those_of_the_joint_distribution(of_letters, column):
    rows = letters()[:6]
    joint = []
    for level in LEVELS[column]:
        joint.append(of_letters.score_samples(rows.assign(**{column: level}), n_draws=8192))
    exact = softmax(np.array(joint), axis=0).T
    got = of_letters.conditional(rows, column, n_draws=4096)
    assert got.values.tolist() == list(LEVELS[column])
    np.testing.assert_allclose(got.probabilities, exact, atol=0.02)
    np.testing.assert_allclose(of_letters.conditional(rows, column).probabilities, exact, atol=0.1)
    assert got.mode().tolist() == [LEVELS[column][i] for i in got.probabilities.argmax(1)]


def test_other_missing_cells_are_integrated_out(of_letters):
    rows = letters()[:4]
    joint = np.zeros((4, 2))
    for i, a in enumerate("xy"):
        for b in "uv":
            joint[:, i] += np.exp(of_letters.score_samples(rows.assign(a=a, b=b), n_draws=4096))
    exact = joint / joint.sum(1, keepdims=True)
    for X in (rows.assign(b=None), rows[["c"]], rows[["a", "c"]]):
        np.testing.assert_allclose(of_letters.conditional(X, "a", n_draws=4096).probabilities, exact, atol=0.03)


def test_a_number_has_the_conditional_normal_of_a_linear_model():
    vae, X, mean, covariance = linear_model()
    rows = X[:5]
    others = [0, 1, 3, 4]
    weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, 2])
    expected = mean[2] + (rows[:, others] - mean[others]) @ weights
    deviation = np.sqrt(covariance[2, 2] - covariance[2, others] @ weights)
    got = vae.conditional(rows, 2, n_draws=4096)
    assert not got.is_discrete
    np.testing.assert_allclose(got.mean(), expected, atol=0.1 * deviation)
    np.testing.assert_allclose(got.std(), deviation, rtol=0.15)
    quantiles = got.quantile([0.05, 0.5, 0.95])
    np.testing.assert_allclose(quantiles[:, 1], expected, atol=0.15 * deviation)
    np.testing.assert_allclose(quantiles[:, 2] - quantiles[:, 0], 2 * 1.645 * deviation, rtol=0.15)
    np.testing.assert_array_equal(got.quantile(0.5), quantiles[:, 1])
    with pytest.raises(ValueError, match="no probabilities"):
        _ = got.probabilities
    for q in (2, [-0.1], [[0.5]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            got.quantile(q)


def people(n=1200):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, n)
    return pd.DataFrame(
        {
            "age": age,
            "rooms": rng.integers(1, 5, n),
            "member": age + rng.normal(0, 10, n) > 50,
            "town": rng.choice(["Bonn", "Kiel"], n),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(age * 10, unit="D"),
            "stay": pd.to_timedelta(age, unit="D"),
            "same": 3,
        }
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_kind_of_column_is_predicted(decoder):
    X = people()
    vae = VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=4, decoder=decoder, random_state=0).fit(X)
    rows = X[:7]
    member = vae.conditional(rows, "member")
    assert member.values.tolist() == [False, True]
    np.testing.assert_allclose(member.probabilities.sum(1), 1)
    rooms = vae.conditional(rows, "rooms")
    assert rooms.values.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(rooms.mean(), rooms.probabilities @ np.arange(1, 5))
    assert set(rooms.quantile(0.5)) <= {1, 2, 3, 4}
    since = vae.conditional(rows, "since")
    assert since.mean().dtype.kind == "M"
    assert (since.quantile(0.0) >= X["since"].min()).all()
    assert (since.quantile(1.0) <= X["since"].max()).all()
    assert vae.conditional(rows, "stay").mode().dtype.kind == "m"
    assert np.isin(vae.conditional(rows, "age").quantile([0.1, 0.9]), np.arange(18, 80)).all()
    with pytest.raises(ValueError, match="no mean"):
        vae.conditional(rows, "town").mean()
    for name in ("same", "colour", 99):
        with pytest.raises(ValueError, match="is none that the model predicts"):
            vae.conditional(rows, name)


def test_rows_do_not_depend_on_each_other_and_the_call_can_be_repeated(of_letters):
    rows = letters()[:8]
    together = of_letters.conditional(rows, "b").probabilities
    np.testing.assert_array_equal(of_letters.conditional(rows, "b").probabilities, together)
    alone = np.concatenate([of_letters.conditional(rows[i : i + 1], "b").probabilities for i in range(8)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(of_letters.conditional(rows, "b", random_state=1).probabilities, together)
    # the cells of the column itself are not read
    np.testing.assert_array_equal(of_letters.conditional(rows.assign(b="v"), "b").probabilities, together)


def test_frames_of_polars_and_times_of_day():
    rng = np.random.default_rng(0)
    clock = [datetime.time(int(hour)) for hour in rng.integers(0, 24, 80)]
    X = pl.DataFrame({"clock": clock, "x": rng.normal(size=80)})
    vae = VAEEstimator(1, hidden_layer_sizes=(4,), max_iter=2, random_state=0).fit(X)
    assert vae.conditional(X, "clock").mean().shape == (80,)
    assert vae.conditional(X[["clock"]], "x").quantile([0.1, 0.9]).shape == (80, 2)
