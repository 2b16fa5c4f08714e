"""Tables of every container and of every kind of column, for the tests of what reads them."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import torch
from polars.testing import assert_frame_equal

from skvae import VAEEstimator
from skvae.conditioning import given_parts
from skvae.table import Table, as_table

N = 40
RNG = np.random.default_rng(5)
NUMBERS = RNG.normal(3, 2, N)
FLAGS = RNG.integers(0, 2, N)
LETTERS = np.array(list("bac"))[np.arange(N) % 3]
HOURS = np.arange(N) * 3_600
STAMPS = pd.Timestamp("2021-03-01") + pd.to_timedelta(HOURS, unit="s")

FRAMES = {
    "pandas": lambda: pd.DataFrame(
        {
            "float": NUMBERS,
            "text": LETTERS,
            "object": pd.Series(LETTERS, dtype=object),
            "string": pd.array(LETTERS, dtype="string"),
            "category": pd.Categorical(LETTERS, categories=["c", "a", "b", "never"]),
            "ordered": pd.Categorical(LETTERS, categories=["c", "b", "a"], ordered=True),
            "number levels": pd.Categorical(np.arange(N) % 4 * 10),
            "bool": FLAGS.astype(bool),
            "Int64": pd.array(np.arange(N) * 3, dtype="Int64"),
            "Float64": pd.array(NUMBERS, dtype="Float64"),
            "boolean": pd.array(FLAGS.astype(bool), dtype="boolean"),
            "nanoseconds": STAMPS.as_unit("ns"),
            "seconds": STAMPS.as_unit("s"),
            "zoned": STAMPS.as_unit("us").tz_localize("UTC").tz_convert("Europe/Berlin"),
            "timedelta": pd.to_timedelta(HOURS, unit="s"),
        }
    ),
    "polars": lambda: pl.DataFrame(
        {
            "float": NUMBERS,
            "string": LETTERS,
            "categorical": pl.Series(LETTERS, dtype=pl.Categorical),
            "enum": pl.Series(LETTERS, dtype=pl.Enum(["c", "b", "a", "never"])),
            "bool": FLAGS.astype(bool),
            "int": np.arange(N),
            "datetime": pl.Series(list(STAMPS.to_pydatetime())),
            "milliseconds": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Datetime("ms")),
            "zoned": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Datetime("us", "UTC")),
            "date": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Date),
            "duration": pl.Series([datetime.timedelta(seconds=int(s)) for s in HOURS]),
        }
    ),
}
"""Makers of frames with a column of every dtype, by library."""

ASKED = {
    "poisson": [3],
    "negative_binomial": [7],
    "zero_inflated_negative_binomial": [9],
    "normal": [0],
    "quantile_normal": [2, 8],
}
"""Kinds asked for by `any_table`."""


def quick(**params):
    """An estimator that is fitted in no time."""
    return VAEEstimator(2, **{"hidden_layer_sizes": (4,), "max_iter": 1, "random_state": 0, **params})


def table_of(X, **options):
    """The table learnt from rows."""
    return Table.fit(as_table(X), **options)[0]


def kinds_of(table):
    """Names of the kinds of the columns of a table."""
    return [column.kind.name for column in table.columns]


def names_of_parts(table):
    """Kind and column of each part of an encoded row, in its order."""
    kinds = [kind for kind, n in table.layout.kinds for _ in range(n)]
    return list(zip(kinds, table.owners, strict=True))


def parts_in(table, values):
    """Parts of values, shape (n_samples, n_parts) in float64, as the decoder would draw them; NaN where one is missing."""
    rows = table.encode_values(values, np.float64)
    return given_parts(table.layout, torch.from_numpy(rows.x), torch.from_numpy(rows.observed)).numpy()


def there_and_back(table, values):
    """Values encoded and decoded, whatever was decoded in place of missing parts."""
    return table.decode(np.nan_to_num(parts_in(table, values)))


def assert_same(got, expected, rtol=1e-12):
    """Containers of one library, with the same names, dtypes and cells, within the rounding of numbers."""
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected, rtol=rtol)
    elif isinstance(expected, pl.DataFrame):
        assert_frame_equal(got, expected, rel_tol=rtol)
    elif isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    else:
        assert type(got) is type(expected)
        assert got.schema == expected.schema
        assert_frame_equal(pl.from_arrow(got), pl.from_arrow(expected), rel_tol=rtol)


def any_table(n=1500, seed=0):
    """A table of every kind of column, and its values, of which a tenth is missing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    values = np.column_stack(
        [
            hidden + rng.normal(size=n),
            rng.integers(0, 3, n),
            np.where(rng.uniform(size=n) < 0.3, 0.0, np.exp(hidden)),
            rng.poisson(np.exp(0.3 * hidden + 1)),
            rng.uniform(size=n) < 0.4,
            rng.integers(0, 1000, n),
            np.full(n, 4.0),
            rng.poisson(rng.gamma(2, 3, n)),
            np.exp(hidden),
            np.where(rng.uniform(size=n) < 0.5, 0, rng.poisson(rng.gamma(2, 3, n))),
        ]
    ).astype(float)
    values[rng.uniform(size=values.shape) < 0.1] = np.nan
    values[:, 0] = np.where(np.isnan(values[:, 0]), 0.5, values[:, 0])
    return Table.fit(values, categorical_features=[1, 5], likelihood=ASKED)
