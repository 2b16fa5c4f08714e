"""Fitted models of every kind of table, and what it means that two of them are alike."""

import numpy as np
import pandas as pd
from tables import FRAMES, NUMBERS, STAMPS, N, assert_same

from skvae import VAEEstimator


def quick(**params):
    return VAEEstimator(2, **{"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0, **params})


def numbers(n=100, n_columns=3):
    return np.random.default_rng(0).normal(size=(n, n_columns))


def mixed(n=1100):
    """A frame of pandas with holes, spikes, levels, flags and times."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "height": hidden + rng.normal(size=n),
            "income": np.where(rng.uniform(size=n) < 0.3, 0.0, np.round(1000 * np.exp(hidden), 2)),
            "age": pd.array(np.clip(40 + 12 * hidden, 18, 90).astype(int), dtype="Int64"),
            "city": pd.Categorical(np.array(["Ulm", "Bonn", "Kiel"])[rng.integers(0, 3, n)]),
            "note": pd.Series(np.array(["yes", "no"])[rng.integers(0, 2, n)], dtype=object),
            "smoker": pd.array(hidden > 0, dtype="boolean"),
            "seen": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )
    return frame.mask(rng.uniform(size=frame.shape) < 0.1)


def policies(n=200):
    years = np.linspace(0.5, 3, n)
    return pd.DataFrame({"claims": np.random.default_rng(0).poisson(years), "years": years})


def odd_levels():
    """A frame of levels that are objects of pandas."""
    four = np.arange(N) % 4
    return pd.DataFrame({"x": NUMBERS, "range": pd.cut(NUMBERS, 4), "time": pd.Categorical(STAMPS[four])})


MODELS = {
    "default": lambda: (VAEEstimator(max_iter=2, random_state=0), numbers()),
    "autoregressive": lambda: (quick(), mixed()),
    "polars": lambda: (quick(decoder="autoregressive"), FRAMES["polars"]()),
    "every dtype of pandas": lambda: (quick(), FRAMES["pandas"]()),
    "exposure": lambda: (quick(exposure="years", likelihood={"poisson": ["claims"]}), policies()),
    "zero inflated": lambda: (quick(likelihood={"zero_inflated_negative_binomial": ["claims"]}), policies()),
    "linear": lambda: (quick(hidden_layer_sizes=(), likelihood="normal"), numbers()),
    "levels of pandas": lambda: (quick(), odd_levels()),
    "float32": lambda: (quick(), numbers().astype(np.float32)),
    "numbered columns": lambda: (quick(), pd.DataFrame(numbers(), columns=[4, 5, 6])),
}


def assert_answers_alike(one, other, X):
    """Two models say the same of rows, to the bit, and go on to the same."""
    np.testing.assert_array_equal(one.transform(X), other.transform(X))
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert_same(one.reconstruct(X), other.reconstruct(X), rtol=0)
    for density in (None, "aggregated_posterior"):
        rows = one.sample(5, latent_density=density, random_state=1)
        assert_same(rows, other.sample(5, latent_density=density, random_state=1), rtol=0)
    assert_same(one.impute(X[:20]), other.impute(X[:20]), rtol=0)


def assert_goes_on_alike(one, other, X):
    """Two models learn the same from further rows."""
    one.partial_fit(X), other.partial_fit(X)
    np.testing.assert_array_equal(one.transform(X), other.transform(X))
