"""Scores of rows with holes under the autoregressive decoder: exact where cells can be enumerated or integrated over."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp

from skvae import VAEEstimator


def letters(n=3000):
    """Three categories of which each depends on those before it."""
    rng = np.random.default_rng(0)
    a = rng.choice(2, n, p=[0.3, 0.7])
    b = np.where(rng.uniform(size=n) < 0.8, a, 1 - a)
    c = (a + b + rng.choice(3, n, p=[0.7, 0.2, 0.1])) % 3
    return pd.DataFrame({"a": np.array(list("xy"))[a], "b": np.array(list("uv"))[b], "c": np.array(list("pqr"))[c]})


def numbers(n=3000):
    """Three numbers that go together closely."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=n)
    return np.column_stack([common + 0.3 * rng.normal(size=n) for _ in range(3)])


@pytest.fixture(scope="module")
def of_letters():
    return VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=5, random_state=0).fit(letters())


@pytest.fixture(scope="module")
def of_numbers():
    return VAEEstimator(2, hidden_layer_sizes=(16,), max_iter=8, likelihood={"normal": [0, 1, 2]}, random_state=0).fit(
        numbers()
    )


def test_missing_categories_are_summed_over(of_letters):
    assert of_letters.decoder_ == "autoregressive"
    for missing in (["a"], ["b"], ["a", "b"], ["a", "c"], ["c"]):
        row = {"a": "y", "b": "u", "c": "q"}
        levels = {"a": "xy", "b": "uv", "c": "pqr"}
        whole = [
            dict(row, **dict(zip(missing, cells, strict=True)))
            for cells in itertools.product(*(levels[m] for m in missing))
        ]
        exact = logsumexp(of_letters.score_samples(pd.DataFrame(whole), n_draws=8192))
        holes = pd.DataFrame([dict(row, **dict.fromkeys(missing))])
        assert of_letters.score_samples(holes, n_draws=8192)[0] == pytest.approx(exact, abs=0.01), missing
        assert of_letters.score_samples(holes)[0] == pytest.approx(exact, abs=0.2), missing


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_missing_numbers_are_integrated_over(of_numbers, missing):
    row = np.array([[0.4, 0.2, 0.5]])
    grid = np.linspace(-4, 4, 801)
    whole = np.repeat(row, len(grid), axis=0)
    whole[:, missing] = grid
    exact = logsumexp(of_numbers.score_samples(whole, n_draws=1024)) + np.log(grid[1] - grid[0])
    row[0, missing] = np.nan
    assert of_numbers.score_samples(row, n_draws=8192)[0] == pytest.approx(exact, abs=0.02)
    assert of_numbers.score_samples(row)[0] == pytest.approx(exact, abs=0.3)


def test_rows_without_holes_score_as_alone_and_holes_do_not_depend_on_other_rows(of_numbers):
    X = numbers()[:40].copy()
    whole = of_numbers.score_samples(X)
    X[::3, 1] = np.nan
    X[1::4, 0] = np.nan
    together = of_numbers.score_samples(X)
    complete = ~np.isnan(X).any(1)
    np.testing.assert_allclose(together[complete], whole[complete], rtol=1e-9)
    alone = np.concatenate([of_numbers.score_samples(row[None]) for row in X])
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    np.testing.assert_array_equal(together, of_numbers.score_samples(X))
    assert not np.array_equal(together, of_numbers.score_samples(X, random_state=1))


def test_a_number_of_draws_is_taken(of_numbers):
    X = np.where(np.random.default_rng(0).uniform(size=(60, 3)) < 0.3, np.nan, numbers()[:60])
    few = of_numbers.score_samples(X, n_draws=2)
    many = of_numbers.score_samples(X, n_draws=512)
    assert few.mean() < many.mean()
    np.testing.assert_allclose(of_numbers.score_samples(X), many, atol=0.3)


def test_counts_and_an_exposure_are_integrated_over():
    rng = np.random.default_rng(0)
    years = rng.uniform(0.5, 2, 1200)
    X = pd.DataFrame({"claims": rng.poisson(years).astype(float), "years": years, "kind": rng.choice(["a", "b"], 1200)})
    vae = VAEEstimator(
        2, hidden_layer_sizes=(8,), max_iter=3, likelihood={"poisson": ["claims"]}, exposure="years", random_state=0
    ).fit(X)
    row = X[:1].assign(claims=np.nan)
    whole = pd.concat([row] * 15).assign(claims=np.arange(15.0))
    exact = logsumexp(vae.score_samples(whole, n_draws=4096))
    assert vae.score_samples(row)[0] == pytest.approx(exact, abs=0.02)
    assert vae.score_samples(pd.concat([row, X[1:9].assign(claims=np.nan)]))[0] == vae.score_samples(row)[0]
