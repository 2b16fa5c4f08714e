"""What numbers a column can hold: ranges, decimals and steps."""

import datetime

import numpy as np
import pandas as pd
import pytest

from skvae import VAEEstimator
from skvae.table.grids import Grid, read_bounds
from skvae.table.schema import Schema


def grid_of(values, limits="observed"):
    return Grid.fit(np.asarray(values, dtype=float), limits)


@pytest.mark.parametrize("decimals", [0, 1, 2, 4, 8])
def test_decimals_are_kept(decimals):
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(0, 1000, 3000), decimals)
    grid = grid_of(values)
    assert grid.decimals == decimals
    snapped = grid.snap(rng.normal(0, 1000, 500))
    np.testing.assert_array_equal(snapped, np.round(snapped, decimals))
    np.testing.assert_array_equal(grid.snap(values), values)


def test_whole_numbers_keep_their_step():
    rng = np.random.default_rng(0)
    days = rng.choice(20_000, 3000, replace=False) * 86_400.0 + 3_600  # an hour past midnight, in seconds
    grid = grid_of(days)
    snapped = grid.snap(rng.uniform(days.min(), days.max(), 500))
    np.testing.assert_array_equal((snapped - 3_600) % 86_400, 0)
    np.testing.assert_array_equal(grid.snap(days), days)


def test_fractions_keep_their_step():
    grid = grid_of([0.05, 1.3, 2.55, 6.3])
    np.testing.assert_array_equal(grid.snap(np.array([0.0, 0.7, 1.8, 99.0])), [0.05, 1.3, 1.3, 6.3])


@pytest.mark.parametrize(
    "values",
    [
        1 + 1e-10 * np.random.default_rng(0).normal(size=500),
        1.7e9 + np.random.default_rng(0).uniform(0, 1e5, 500),
        np.random.default_rng(0).normal(size=500),
        [1e300, 0.5, -1e-300],
    ],
    ids=["narrow", "epoch seconds", "normal", "any magnitude"],
)
def test_numbers_of_many_decimals_are_left_alone(values):
    grid = grid_of(values)
    between = np.linspace(np.min(values), np.max(values), 7)
    np.testing.assert_allclose(grid.snap(between), between, rtol=1e-15, atol=1e-300)


def test_fractions_of_single_precision_stay_so():
    values = np.round(np.random.default_rng(0).uniform(0, 10, 500), 1).astype(np.float32)
    grid = grid_of(values)
    assert grid.decimals == 1
    assert grid.is_single
    np.testing.assert_array_equal(grid.snap(values.astype(float)).astype(np.float32), values)
    np.testing.assert_array_equal(grid.snap(values.astype(float)), values)


def test_a_limit_between_two_steps_is_not_overstepped():
    grid = grid_of([2, 7, 12], limits=(0.0, 20.0))
    np.testing.assert_array_equal(grid.snap(np.array([-50.0, 3.0, 50.0])), [2, 2, 17])


def test_few_values_may_pass_for_decimals_by_chance():
    values = np.array([0.0, 20972.375])
    np.testing.assert_array_equal(grid_of(values).snap(values), values)
    large = 2.0**48 + np.arange(9) / 16
    np.testing.assert_array_equal(grid_of(large).snap(large), large)


def test_missing_stays_missing_and_no_zero_is_below_zero():
    snapped = grid_of([-1.5, 0.0, 2.5]).snap(np.array([np.nan, -0.2]))
    assert np.isnan(snapped[0])
    assert str(snapped[1]) == "0.0"


@pytest.mark.parametrize("values", [[0.0, 1.0], [3.0], [1e18, 2e18], np.arange(5.0), [0.5, np.pi]])
def test_state_makes_an_equal_grid(values):
    for limits in ("observed", (-np.inf, 1e20)):
        grid = grid_of(values, limits)
        assert Grid.from_state(grid.state()) == grid


# -------------------------------------------------------------------------------------------------------------- parameter


FRAME = pd.DataFrame(
    {
        "age": [20, 30, 40],
        "height": [1.5, 1.75, 2.0],
        "job": ["a", "b", "a"],
        "since": pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01"]),
    }
)


def limits_of(bounds):
    return read_bounds(bounds, Schema.of(FRAME), [None, None, ["a", "b"], None])


def test_bounds_are_read_by_name_and_by_index():
    assert limits_of("observed") == ["observed"] * 4
    assert limits_of(None) == [None] * 4
    assert limits_of({"age": (0, None), 1: (None, 2.5)}) == [(0, np.inf), (-np.inf, 2.5), "observed", "observed"]
    low, high = limits_of({"since": (datetime.date(2020, 1, 1), pd.Timestamp("2030-01-01"))})[3]
    assert FRAME["since"].astype("int64").iloc[0] == low < high


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"weight": (0, 1)}, "weight"),
        ({"job": (0, 1)}, "categorical"),
        ({"age": 3}, "pair"),
        ({"age": (0, 1, 2)}, "pair"),
        ({"age": (5, 1)}, "low <= high"),
        ({"age": (np.nan, 1)}, "low <= high"),
        ({"age": ("a", "b")}, "numbers"),
        ({"age": (0.5, None)}, "integers"),
        ({"age": (datetime.date(2020, 1, 1), None)}, "numbers"),
        ({"since": (0, None)}, "times"),
        ({"since": (datetime.timedelta(days=1), None)}, "times"),
        ({"since": (pd.Timestamp("2020-01-01", tz="UTC"), None)}, "without a time zone"),
    ],
)
def test_bounds_that_cannot_be_are_named(bounds, words):
    with pytest.raises(ValueError, match=words):
        limits_of(bounds)


# -------------------------------------------------------------------------------------------------------------- estimator


def passengers(n=400):
    """A table of few rows whose numbers pile up at the ends of their range."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": np.round(rng.gamma(2.0, 15.0, n).clip(0.5, 80), 1),
            "fare": np.round(rng.exponential(30.0, n), 2),
            "grade": rng.integers(1, 5, n),
            "member": rng.integers(0, 2, n).astype(float),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )


def assert_could_be(made, real):
    for name in real.columns:
        assert made[name].between(real[name].min(), real[name].max()).all(), name
    assert (made["since"] == made["since"].dt.normalize()).all()
    np.testing.assert_array_equal(made["age"], made["age"].round(1))
    np.testing.assert_array_equal(made["fare"], made["fare"].round(2))
    assert made["member"].isin([0, 1]).all()


@pytest.mark.parametrize("n", [400, 1200])
def test_rows_made_could_be_real(n):
    X = passengers(n)
    vae = VAEEstimator(latent_dim=2, max_iter=3, random_state=0).fit(X)
    assert_could_be(vae.sample(1000, random_state=0), X)
    assert_could_be(vae.reconstruct(X), X)
    assert_could_be(vae.inverse_transform(5 * np.random.default_rng(0).normal(size=(50, 2))), X)

    holes = X.mask(np.random.default_rng(1).uniform(size=X.shape) < 0.3)
    assert_could_be(vae.impute(holes), X)
    for copy in vae.impute(holes, n_draws=2, random_state=0):
        assert_could_be(copy, X)


def test_few_draws_lie_at_the_ends_of_the_range():
    X = passengers()
    made = VAEEstimator(latent_dim=2, max_iter=3, random_state=0).fit(X).sample(2000, random_state=0)
    assert (made["age"] == X["age"].min()).mean() < 0.05


def test_limits_of_ones_own():
    X = passengers()[["age", "fare"]]
    wide = VAEEstimator(latent_dim=2, max_iter=2, bounds=None, random_state=0).fit(X).sample(1000, random_state=0)
    assert (wide["age"] < X["age"].min()).any()
    assert (wide["age"] != wide["age"].round(1)).any()

    own = VAEEstimator(latent_dim=2, max_iter=2, bounds={"age": (0, None)}, random_state=0).fit(X)
    made = own.sample(1000, random_state=0)
    assert (made["age"] >= 0).all()
    assert (made["age"] > X["age"].max()).any()
    assert made["fare"].between(X["fare"].min(), X["fare"].max()).all()


def test_rows_outside_their_limits_are_refused():
    with pytest.raises(ValueError, match="outside the bounds"):
        VAEEstimator(bounds={"age": (18, None)}).fit(passengers())


def test_fractions_that_were_asked_for_are_decoded_as_such():
    X = np.random.default_rng(0).integers(0, 2, (60, 4)).astype(float)
    asked = VAEEstimator(latent_dim=1, likelihood="bernoulli", max_iter=2, random_state=0).fit(X)
    assert ((asked.reconstruct(X) > 0) & (asked.reconstruct(X) < 1)).all()
    found = VAEEstimator(latent_dim=1, max_iter=2, random_state=0).fit(X)
    assert np.isin(found.reconstruct(X), [0, 1]).all()
