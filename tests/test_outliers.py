"""Outliers: the checks of scikit-learn, mixed tables, and cells whose surprise is known exactly."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_inference import linear_model
from test_marginal import letters

from skvae import VAEEstimator
from skvae.outliers import VAEOutlierDetector


def quick(**params):
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, likelihood="normal", handle_unknown="ignore")
    return VAEOutlierDetector(**{"vae": vae, "n_estimators": 2, "random_state": 0, **params})


@parametrize_with_checks([quick()], expected_failed_checks=lambda _: {})
def test_checks_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


def table(n=300):
    rng = np.random.default_rng(0)
    size = rng.normal(size=n)
    frame = pd.DataFrame({"x": size + 0.2 * rng.normal(size=n), "y": size + 0.2 * rng.normal(size=n)})
    frame["kind"] = np.where(size > 0, "large", "small")
    frame["when"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 99, n), unit="D")
    return frame.mask(rng.uniform(size=frame.shape) < 0.02)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_rows_and_cells_that_are_unlike_the_others(library):
    frame = table()
    frame.loc[0, ["x", "y", "kind"]] = [9.0, 0.0, "large"]
    frame.loc[1, ["x", "y", "kind"]] = [0.1, 0.0, "odd"]
    X = frame if library is pd.DataFrame else pl.from_pandas(frame)
    detector = VAEOutlierDetector(n_estimators=4, contamination=0.05, random_state=0).fit(X)
    scores = detector.score_samples(X)
    assert scores.argmin() == 0
    assert detector.predict(X)[[0, 1]].tolist() == [-1, -1]
    assert (detector.predict(X) == -1).sum() == pytest.approx(15, abs=1)
    np.testing.assert_array_equal(detector.decision_function(X), scores - detector.offset_)
    surprise = detector.score_cells(X[:2])
    assert surprise[0].argmax() == 0
    assert surprise[1].argmax() == 2
    # a level of one row is one that the others do not have, whether or not its row is in a subsample
    whole = detector.score_cells(X)
    assert (whole[np.asarray(frame.isna())] == 0).all()


def test_surprise_is_minus_the_conditional_log_density_of_a_linear_model():
    vae, X, mean, covariance = linear_model()
    rows = X[:20]
    got = vae.score_cells(rows)
    for j in range(5):
        others = np.delete(np.arange(5), j)
        weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, j])
        centre = mean[j] + (rows[:, others] - mean[others]) @ weights
        variance = covariance[j, j] - covariance[j, others] @ weights
        exact = 0.5 * ((rows[:, j] - centre) ** 2 / variance + np.log(2 * np.pi * variance / X[:, j].var()))
        # without the cell that tells most, the posterior is far wider
        np.testing.assert_allclose(got[:, j], exact, atol=1.0 if j == 0 else 0.1)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_surprise_of_levels_is_told_by_enumeration(decoder):
    X = letters()
    vae = VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=5, decoder=decoder, random_state=0).fit(X)
    rows = X[:5]
    got = vae.score_cells(rows)
    for j, column in enumerate(["a", "b", "c"]):
        conditional = vae.conditional(rows, column, n_draws=2048)
        own = [list(conditional.values).index(cell) for cell in rows[column]]
        exact = -np.log(conditional.probabilities[np.arange(5), own])
        np.testing.assert_allclose(got[:, j], exact, atol=0.25)


def test_each_vae_has_a_subsample_of_its_own():
    X = np.random.default_rng(0).normal(size=(60, 2))
    detector = quick(max_samples=20).fit(X)
    assert len(detector.estimators_) == 2
    one, other = detector.estimators_
    assert not np.array_equal(one.score_samples(X), other.score_samples(X))
    again = quick(max_samples=20).fit(X)
    np.testing.assert_array_equal(detector.score_samples(X), again.score_samples(X))
    assert not np.array_equal(detector.score_samples(X), quick(max_samples=60).fit(X).score_samples(X))


def test_warnings_of_many_fits_are_one():
    X = pd.DataFrame({"id": np.arange(200), "x": np.random.default_rng(0).normal(size=200)})
    with pytest.warns(UserWarning, match="look like identifiers") as caught:
        quick().fit(X)
    assert len(caught) == 1
