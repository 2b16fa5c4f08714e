"""Dates and times that come in other units, and in other dtypes, than at fit."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fits import quick

RNG = np.random.default_rng(0)
N = 120
STAMPS = pd.to_datetime("2020-03-01") + pd.to_timedelta(RNG.integers(0, 10**6, N), unit="s")
FRAME = pd.DataFrame(
    {"at": STAMPS, "wait": pd.to_timedelta(RNG.integers(0, 9000, N), unit="s"), "x": RNG.normal(size=N)}
)


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(FRAME.astype({"at": "datetime64[ns]", "wait": "timedelta64[ns]"}))


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_units_of_pandas_do_not_matter(fitted, unit):
    other = FRAME.astype({"at": f"datetime64[{unit}]", "wait": f"timedelta64[{unit}]"})
    np.testing.assert_allclose(fitted.score_samples(other), fitted.score_samples(FRAME), rtol=1e-6)
    np.testing.assert_allclose(fitted.transform(other), fitted.transform(FRAME), atol=1e-5)


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_dates_that_are_there_come_back_whatever_their_unit(fitted, unit):
    other = FRAME.astype({"at": f"datetime64[{unit}]", "wait": f"timedelta64[{unit}]"})
    other.loc[::3, "x"] = np.nan
    other.loc[1::3, "at"] = pd.NaT
    full = fitted.impute(other)
    there = other["at"].notna()
    assert (full["at"][there] == other["at"][there]).all()
    assert (full["wait"] == other["wait"]).all()
    assert full["at"].between(STAMPS.min() - pd.Timedelta(days=30), STAMPS.max() + pd.Timedelta(days=30)).all()


def test_units_of_polars_and_dates_do_not_matter():
    frame = pl.DataFrame({"at": list(STAMPS.normalize()), "x": FRAME["x"].to_numpy()})
    fitted = quick().fit(frame)
    expected = fitted.score_samples(frame)
    for dtype in (pl.Datetime("ms"), pl.Datetime("ns"), pl.Date):
        other = frame.with_columns(pl.col("at").cast(dtype))
        np.testing.assert_allclose(fitted.score_samples(other), expected, rtol=1e-6)
    days = quick().fit(frame.with_columns(pl.col("at").cast(pl.Date)))
    np.testing.assert_allclose(
        days.transform(frame), days.transform(frame.with_columns(pl.col("at").cast(pl.Date))), atol=1e-5
    )


@pytest.mark.parametrize(
    ("column", "cells", "held"),
    [
        ("at", FRAME["x"], "datetimes without a time zone"),
        ("at", FRAME["wait"], "datetimes without a time zone"),
        ("at", STAMPS.tz_localize("UTC"), "datetimes without a time zone"),
        ("wait", FRAME["at"], "durations"),
        ("x", FRAME["at"], "numbers"),
    ],
    ids=["numbers for stamps", "durations for stamps", "a zone for none", "stamps for durations", "stamps for numbers"],
)
def test_columns_of_another_sort_are_errors(fitted, column, cells, held):
    for call in (fitted.score_samples, fitted.transform, fitted.impute):
        with pytest.raises(
            ValueError, match=rf"Column '{column}' is of dtype .*, but it held {held} at fit. Convert it"
        ):
            call(FRAME.assign(**{column: cells}))


def test_columns_without_a_cell_are_read_whatever_their_dtype(fitted):
    some = FRAME[:5].assign(at=np.nan)
    assert np.isfinite(fitted.score_samples(some)).all()
    assert fitted.impute(some)["at"].notna().all()


def test_zones_do_not_matter_where_there_was_one():
    frame = FRAME.assign(at=STAMPS.tz_localize("UTC"))
    fitted = quick().fit(frame)
    berlin = frame.assign(at=frame["at"].dt.tz_convert("Europe/Berlin"))
    np.testing.assert_allclose(fitted.score_samples(berlin), fitted.score_samples(frame), rtol=1e-6)
    with pytest.raises(ValueError, match="it held datetimes with a time zone at fit"):
        fitted.score_samples(FRAME)


def test_times_of_day_are_no_moments():
    frame = pl.DataFrame({"t": [datetime.time(hour, 5) for hour in range(24)] * 5, "x": FRAME["x"].to_numpy()})
    fitted = quick().fit(frame)
    with pytest.raises(ValueError, match="it held times of day at fit"):
        fitted.score_samples(frame.with_columns(pl.Series("t", list(STAMPS))))


def test_a_model_of_an_array_reads_no_dates():
    fitted = quick().fit(FRAME[["x", "x"]].to_numpy())
    with pytest.raises(ValueError, match="it held numbers at fit"):
        fitted.score_samples(FRAME[["at", "x"]])
