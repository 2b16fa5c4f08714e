"""A table as plain data: through JSON and arrays to a table that reads, encodes, decodes and writes the same, to the bit."""

import datetime
import decimal
import inspect
import io
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tables import FLAGS, FRAMES, HOURS, LETTERS, NUMBERS, STAMPS, N, any_table, assert_same, parts_in

from skvae.table import Table, as_table

TEXTS = LETTERS.tolist()
DAYS = [datetime.date(2020, 2, 27) + datetime.timedelta(days=n) for n in range(N)]
TIMES = [datetime.time(n % 24, n) for n in range(N)]
LENGTHS = [datetime.timedelta(hours=n) for n in range(N)]
PRICES = [decimal.Decimal(n) / 4 for n in range(N)]
FOUR = np.arange(N) % 4


def of_arrow(cells, dtype):
    return pd.array(cells, dtype=pd.ArrowDtype(dtype))


PANDAS = {
    "int8": FLAGS.astype(np.int8),
    "uint64": np.arange(N, dtype=np.uint64),
    "Int64": pd.array([None, *range(1, N)], dtype="Int64"),
    "float32": NUMBERS.astype(np.float32),
    "Float32": pd.array([None, *NUMBERS[1:]], dtype="Float32"),
    "bool": FLAGS.astype(bool),
    "boolean": pd.array([None, *FLAGS[1:].astype(bool)], dtype="boolean"),
    "category of strings": pd.Categorical(TEXTS, categories=["c", "a", "b", "never"]),
    "category in order": pd.Categorical(TEXTS, categories=["c", "a", "b"], ordered=True),
    "category of integers": pd.Categorical(FOUR * 10),
    "category of short integers": pd.Categorical(pd.Index(FOUR.astype(np.int8))),
    "category of nullable integers": pd.Categorical(pd.array(FOUR, dtype="Int64")),
    "category of large integers": pd.Categorical(2**60 + FOUR),
    "category of floats": pd.Categorical(FOUR / 3),
    "category of booleans": pd.Categorical(FLAGS.astype(bool)),
    "category of timestamps": pd.Categorical(STAMPS[FOUR]),
    "category of zoned timestamps": pd.Categorical(STAMPS[FOUR].tz_localize("Europe/Berlin")),
    "category of timedeltas": pd.Categorical(pd.to_timedelta(FOUR, unit="h")),
    "category of intervals": pd.cut(NUMBERS, 4),
    "category of intervals of time": pd.cut(STAMPS, 4),
    "category of periods": pd.Categorical(pd.period_range("2020-01", periods=4, freq="M")[FOUR]),
    "category of days": pd.Categorical([DAYS[k] for k in FOUR]),
    "category of tuples": pd.Categorical.from_codes(
        FOUR, categories=pd.Index([("a", k) for k in range(4)], tupleize_cols=False)
    ),
    "category of nullable strings": pd.Categorical(pd.array(TEXTS, dtype="string")),
    "category without a cell": pd.Categorical([None] * N),
    "string": pd.array(TEXTS, dtype="string"),
    "string of python": pd.array([None, *TEXTS[1:]], dtype=pd.StringDtype("python")),
    "string of pyarrow": pd.array([None, *TEXTS[1:]], dtype=pd.StringDtype("pyarrow")),
    "text": pd.Series([None, *TEXTS[1:]], dtype=object),
    "objects of several types": pd.Series([1, "a", 2.5, None] * (N // 4), dtype=object),
    "bytes": pd.Series([b"a", b"\xff"] * (N // 2), dtype=object),
    "days": pd.Series([DAYS[k] for k in FOUR], dtype=object),
    "seconds": STAMPS.as_unit("s"),
    "nanoseconds": pd.Series([pd.NaT, *STAMPS[1:].as_unit("ns")]),
    "zone by name": STAMPS.tz_localize("Europe/Berlin"),
    "zone by offset": STAMPS.tz_localize("+02:00"),
    "timedelta": pd.to_timedelta(HOURS, unit="s").as_unit("ms"),
    "interval": pd.arrays.IntervalArray.from_breaks(np.arange(N + 1.0)),
    "period": pd.period_range("2020-01", periods=N, freq="M"),
    "arrow int64": of_arrow([None, *range(1, N)], pa.int64()),
    "arrow uint8": of_arrow(np.arange(N), pa.uint8()),
    "arrow double": of_arrow(NUMBERS, pa.float64()),
    "arrow float": of_arrow(NUMBERS, pa.float32()),
    "arrow bool": of_arrow(FLAGS.astype(bool), pa.bool_()),
    "arrow string": of_arrow([None, *TEXTS[1:]], pa.string()),
    "arrow large string": of_arrow(TEXTS, pa.large_string()),
    "arrow timestamp": of_arrow(STAMPS, pa.timestamp("us")),
    "arrow zoned timestamp": of_arrow(STAMPS.tz_localize("UTC"), pa.timestamp("us", "Europe/Berlin")),
    "arrow days": of_arrow(DAYS, pa.date32()),
    "arrow duration": of_arrow(LENGTHS, pa.duration("ms")),
    "arrow time": of_arrow(TIMES, pa.time64("us")),
    "arrow null": of_arrow([None] * N, pa.null()),
}
if "na_value" in inspect.signature(pd.StringDtype).parameters:
    for storage in ("python", "pyarrow"):
        PANDAS[f"str of {storage}"] = pd.array([None, *TEXTS[1:]], dtype=pd.StringDtype(storage, na_value=np.nan))
else:
    PANDAS["str of pyarrow"] = pd.array([None, *TEXTS[1:]], dtype="string[pyarrow_numpy]")

POLARS = {
    "UInt64": pl.Series(np.arange(N)).cast(pl.UInt64),
    "Int8": pl.Series([None, *FLAGS[1:]]).cast(pl.Int8),
    "Float32": pl.Series(NUMBERS).cast(pl.Float32),
    "Decimal": pl.Series(PRICES).cast(pl.Decimal(10, 2)),
    "Boolean": pl.Series([None, *FLAGS[1:].astype(bool)]),
    "String": pl.Series([None, *TEXTS[1:]]),
    "Categorical": pl.Series(TEXTS, dtype=pl.Categorical),
    "Enum": pl.Series(TEXTS, dtype=pl.Enum(["c", "b", "a", "never"])),
    "Date": pl.Series(DAYS),
    "Time": pl.Series(TIMES),
    "Datetime ms": pl.Series(list(STAMPS)).cast(pl.Datetime("ms")),
    "Datetime us": pl.Series(list(STAMPS)).cast(pl.Datetime("us")),
    "Datetime ns": pl.Series(list(STAMPS)).cast(pl.Datetime("ns")),
    "zoned Datetime": pl.Series(list(STAMPS)).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Europe/Berlin"),
    "Duration ms": pl.Series(LENGTHS).cast(pl.Duration("ms")),
    "Duration ns": pl.Series(LENGTHS).cast(pl.Duration("ns")),
    "Null": pl.Series([None] * N),
}
ARROW = {
    "int32": pa.array(FLAGS, pa.int32()),
    "float": pa.array(NUMBERS, pa.float32()),
    "bool": pa.array(FLAGS.astype(bool)),
    "string": pa.array([None, *TEXTS[1:]]),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "timestamp": pa.array(STAMPS, pa.timestamp("us")),
    "zoned timestamp": pa.array(STAMPS.tz_localize("UTC"), pa.timestamp("us", "Europe/Berlin")),
    "date32": pa.array(DAYS, pa.date32()),
    "duration": pa.array(LENGTHS, pa.duration("ms")),
    "time": pa.array(TIMES, pa.time64("ns")),
    "decimal": pa.array(PRICES, pa.decimal128(10, 2)),
    "null": pa.nulls(N),
}


def array_of_objects():
    X = np.empty((N, 3), dtype=object)
    X[:, 0], X[:, 1], X[:, 2] = NUMBERS, TEXTS, FLAGS
    X[2, 1] = None
    return X


TABLES = {
    **{f"pandas {name}": (pd.DataFrame({"x": NUMBERS, "cells": cells}), {}) for name, cells in PANDAS.items()},
    **{f"polars {name}": (pl.DataFrame({"x": NUMBERS, "cells": cells}), {}) for name, cells in POLARS.items()},
    **{f"arrow {name}": (pa.table({"x": NUMBERS, "cells": cells}), {}) for name, cells in ARROW.items()},
    "pandas": (FRAMES["pandas"](), {}),
    "polars": (FRAMES["polars"](), {}),
    "array": (np.column_stack([NUMBERS, FLAGS, np.full(N, 4.0)]), {}),
    "array of float32": (np.column_stack([NUMBERS, FLAGS]).astype(np.float32), {}),
    "array of objects": (array_of_objects(), {}),
    "column without a cell": (np.column_stack([NUMBERS, np.full(N, np.nan)]), {}),
    "categories of an array": (np.column_stack([NUMBERS, FOUR / 2]), {"categorical_features": [1]}),
    "exposure": (
        pd.DataFrame({"claims": FOUR, "years": np.linspace(0.5, 2, N), "visits": FOUR[::-1]}),
        {"exposure": "years", "likelihood": {"poisson": ["claims"], "zero_inflated_negative_binomial": ["visits"]}},
    ),
    "exposure that is constant": (
        np.column_stack([FOUR, np.full(N, 2.0)]),
        {"exposure": 1, "likelihood": {"negative_binomial": [0]}},
    ),
    "integers for names": (pd.DataFrame(np.column_stack([NUMBERS, FLAGS]), columns=[10, 20]), {}),
    "tuples for names": (
        pd.DataFrame(
            np.column_stack([NUMBERS, FLAGS]),
            columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["letter", None]),
        ),
        {},
    ),
    "times for names": (
        pd.DataFrame(
            np.column_stack([NUMBERS, FLAGS]), columns=pd.DatetimeIndex(["2024-01-01", "2024-03-02"], name="day")
        ),
        {},
    ),
}


def through_files(state):
    """A state written as JSON and as an archive of arrays, and read again."""
    facts, arrays = state
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    archive.seek(0)
    return json.loads(json.dumps(facts)), dict(np.load(archive, allow_pickle=False))


def assert_equal_tables(one, other, X, values):
    """The two tables answer alike, to the bit."""
    assert one.layout.width == other.layout.width
    np.testing.assert_array_equal(one.read(X), other.read(X))
    for a, b in zip(one.encode_values(values), other.encode_values(values), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a is None or a.dtype == b.dtype
    parts = np.nan_to_num(parts_in(other, values))
    np.testing.assert_array_equal(one.decode(parts), other.decode(parts))
    assert_same(one.write(one.decode(parts)), other.write(other.decode(parts)), rtol=0)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_made_again_from_plain_data(name):
    X, options = TABLES[name]
    table, values = Table.fit(as_table(X), **options)
    again = Table.from_state(*through_files(table.state()))
    assert_equal_tables(again, table, as_table(X), values)
    assert again.schema == table.schema
    assert [column.label for column in again.columns] == [column.label for column in table.columns]
    for one, other in zip(again.columns, table.columns, strict=True):
        assert one.levels == other.levels
        assert list(map(type, one.levels or [])) == list(map(type, other.levels or []))
        assert one.has_missing == other.has_missing
    # and again from what was made
    assert repr(again.state()) == repr(table.state())


def test_a_table_of_every_kind_is_made_again_from_plain_data():
    table, values = any_table()
    again = Table.from_state(*through_files(table.state()))
    assert again.layout == table.layout
    assert_equal_tables(again, table, values[:0], values)
    # quantiles in arrays, the rest in JSON
    facts, arrays = table.state()
    assert {name.split(".")[1] for name in arrays} == {"2", "8"}
    assert len(json.dumps(facts)) < 2000 * len(table.columns)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (of_arrow(PRICES, pa.decimal128(10, 2)), r"The dtype decimal128.* has no plain form"),
        (pd.Series([frozenset("a"), frozenset("ab")] * (N // 2), dtype=object), "The level or name frozenset"),
    ],
    ids=["decimal of arrow", "frozenset"],
)
def test_a_table_without_a_plain_form_says_what_to_do(cells, words):
    table, values = Table.fit(pd.DataFrame({"x": NUMBERS, "cells": cells}))
    with pytest.raises(ValueError, match=rf"(?s){words}.*onvert the column"):
        table.state()
    # it is a table all the same
    assert list(table.write(values).dtypes) == list(pd.DataFrame({"x": NUMBERS, "cells": cells}).dtypes)
