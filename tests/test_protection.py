"""Rare levels and extremes are neither learnt nor made."""

import numpy as np
import pandas as pd
import pytest

from skvae import VAEEstimator
from skvae.table.protection import protected


def people(n=300):
    rng = np.random.default_rng(0)
    town = rng.choice(["Bonn", "Kiel"], n).astype(object)
    town[:3] = "Selm"
    since = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 400, n), unit="D")
    return pd.DataFrame({"town": town, "income": rng.lognormal(3, 1.5, n).round(2), "since": since})


def quick(**params):
    return VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0, **params)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_no_rare_level_and_no_extreme_is_made(decoder):
    X = people()
    vae = quick(protect=5, decoder=decoder).fit(X)
    made = vae.sample(3000, random_state=0)
    assert set(made["town"]) == {"Bonn", "Kiel"}
    for name in ("income", "since"):
        assert made[name].min() >= X[name].nsmallest(5).max()
        assert made[name].max() <= X[name].nlargest(5).min()
    # without it, they are
    assert "Selm" in set(quick(decoder=decoder).fit(X).sample(3000, random_state=0)["town"])


def test_rare_things_are_not_even_in_the_state():
    X = people()
    facts, arrays = quick(protect=5).fit(X)._fitted.table.state()
    assert "Selm" not in repr(facts)
    largest = X["income"].max()
    assert repr(largest) not in repr(facts)
    assert not any((array == largest).any() for array in arrays.values())


def test_rare_levels_are_read_as_missing_and_kept_when_cells_are_filled():
    X = people()
    vae = quick(protect=5).fit(X)
    assert np.isfinite(vae.score_samples(X)).all()
    without = X.assign(town=X["town"].replace("Selm", None))
    np.testing.assert_array_equal(vae.transform(X), vae.transform(without))
    holes = X.assign(income=np.nan)
    filled = vae.impute(holes)
    assert filled["town"].tolist() == X["town"].tolist()
    assert filled["income"].notna().all()


def test_an_end_of_the_range_is_shared():
    values = np.array([[9.0], [1.0], [5.0], [3.0], [7.0], [np.nan]])
    every = np.ones(6, dtype=bool)
    got, levels = protected(values, [None], every, 2)
    np.testing.assert_array_equal(got[:, 0], [7, 3, 5, 3, 7, np.nan])
    assert levels == [None]
    # a row that does not count shares nothing
    got, _ = protected(values, [None], np.array([False, True, True, True, True, True]), 2)
    assert np.nanmax(got) == 5


def test_few_cells_are_all_rare():
    values = np.array([[1.0, 0.0], [2.0, 1.0], [np.nan, np.nan]])
    got, levels = protected(values, [None, ["a", "b"]], np.ones(3, dtype=bool), 3)
    assert np.isnan(got).all()
    assert levels == [None, []]


def test_levels_that_are_left_keep_their_order():
    values = np.array([[0.0], [2.0], [2.0], [1.0], [0.0], [np.nan]])
    got, levels = protected(values, [["a", "b", "c"]], np.ones(6, dtype=bool), 2)
    assert levels == [["a", "c"]]
    np.testing.assert_array_equal(got[:, 0], [0, 1, 1, np.nan, 0, np.nan])
