"""Containers are written as they were read: names, dtypes, ranges; and their dtypes are plain data."""

import json

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tables import FLAGS, FRAMES, LETTERS, NUMBERS, STAMPS, N, assert_same, quick, table_of, there_and_back

from skvae.table import Table
from skvae.table.schema import Schema

NUMERIC = {
    "pandas": lambda: pd.DataFrame(
        {
            "float64": NUMBERS,
            "float32": NUMBERS.astype(np.float32),
            "int8": FLAGS.astype(np.int8),
            "uint16": (100 * FLAGS).astype(np.uint16),
            "int64": np.arange(N),
            "bool": FLAGS.astype(bool),
            "Int64": pd.array(np.arange(N) * 3, dtype="Int64"),
            "Float64": pd.array(NUMBERS, dtype="Float64"),
            "boolean": pd.array(FLAGS.astype(bool), dtype="boolean"),
        }
    ),
    "polars": lambda: pl.DataFrame(
        {
            "float64": NUMBERS,
            "float32": pl.Series(NUMBERS, dtype=pl.Float32),
            "int8": pl.Series(FLAGS, dtype=pl.Int8),
            "uint16": pl.Series(100 * FLAGS, dtype=pl.UInt16),
            "int64": np.arange(N),
            "bool": FLAGS.astype(bool),
        }
    ),
}
"""Frames that are arrays of floats, too, by library."""


# ------------------------------------------------------------------------------------------------------ through a model


@pytest.mark.parametrize("library", NUMERIC)
def test_frames_come_back_as_they_were(library):
    frame = NUMERIC[library]()
    vae = quick().fit(frame)
    for rows in (vae.sample(7, random_state=0), vae.reconstruct(frame), vae.inverse_transform(np.zeros((3, 2)))):
        assert type(rows) is type(frame)
        assert list(rows.columns) == list(frame.columns)
        assert list(rows.dtypes) == list(frame.dtypes)
    table, values = Table.fit(frame, likelihood="normal")
    back = table.write(there_and_back(table, values))
    assert list(back.dtypes) == list(frame.dtypes)
    np.testing.assert_allclose(back.to_numpy().astype(float), frame.to_numpy().astype(float), rtol=1e-6)


@pytest.mark.parametrize("library", NUMERIC)
def test_a_frame_says_what_its_array_says(library):
    frame = NUMERIC[library]()
    by_frame, by_array = quick().fit(frame), quick().fit(frame.to_numpy().astype(float))
    np.testing.assert_array_equal(by_frame.transform(frame), by_array.transform(frame.to_numpy().astype(float)))


def test_columns_of_a_frame_need_no_string_names():
    frame = pd.DataFrame(np.column_stack([NUMBERS, FLAGS]), columns=[10, 20])
    rows = quick(likelihood={"normal": [20]}).fit(frame).sample(3, random_state=0)
    assert list(rows.columns) == [10, 20]


def test_new_rows_have_a_plain_index():
    frame = pd.DataFrame({"a": NUMBERS, "b": FLAGS}, index=[f"row {i}" for i in range(N)])
    assert list(quick().fit(frame).sample(3, random_state=0).index) == [0, 1, 2]


# ----------------------------------------------------------------------------------------------------- reading, writing


@pytest.mark.parametrize("library", FRAMES)
def test_reading_and_writing_gives_the_frame_back(library):
    frame = FRAMES[library]()
    table, values = Table.fit(frame)
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert_same(table.write(values), frame)
    np.testing.assert_array_equal(table.read(frame), values)


@pytest.mark.parametrize("library", FRAMES)
def test_reading_encoding_decoding_and_writing_gives_the_frame_back(library):
    frame = FRAMES[library]()
    table, values = Table.fit(frame)
    assert_same(table.write(there_and_back(table, values)), frame)


def test_tables_of_arrow_come_back():
    frame = FRAMES["polars"]().drop("enum", "categorical").to_arrow()
    table, values = Table.fit(frame)
    back = table.write(there_and_back(table, values))
    assert isinstance(back, pa.Table)
    for name in ("int", "bool", "datetime", "milliseconds", "zoned", "date", "duration"):
        assert back.schema.field(name).type == frame.schema.field(name).type
    assert_same(pl.from_arrow(back), pl.from_arrow(frame))


def test_decimals_and_columns_without_a_cell_of_arrow_come_back():
    prices = pa.array(NUMBERS).cast(pa.decimal128(12, 2), safe=False)
    frame = pa.table({"price": prices, "nothing": pa.nulls(N)})
    table, values = Table.fit(frame)
    assert table.write(values).equals(frame)


def test_wide_integers_and_objects_of_polars_come_back():
    wide = pl.Series(np.arange(N)).cast(pl.Int128)
    frame = pl.DataFrame({"wide": wide, "object": pl.Series([(n % 3,) for n in range(N)], dtype=pl.Object)})
    table, values = Table.fit(frame)
    back = table.write(there_and_back(table, values))
    assert back.schema == frame.schema
    assert back.rows() == frame.rows()


@pytest.mark.parametrize(
    "columns",
    [
        pd.Index([10, 20], name="code"),
        pd.Index(["a", "b"], dtype=object),
        pd.Index(["a", "b"], name="what"),
        pd.MultiIndex.from_tuples([("a", 1), ("a", 2)], names=["letter", None]),
        pd.DatetimeIndex(["2024-01-01", "2024-03-02"]),
        pd.Index([("a", 1), ("b", 2)], tupleize_cols=False),
    ],
    ids=lambda columns: f"{type(columns).__name__} {columns[0]}",
)
def test_names_of_columns_keep_their_index(columns):
    frame = pd.DataFrame(np.column_stack([NUMBERS, 2 * NUMBERS]), columns=columns)
    table, values = Table.fit(frame)
    back = table.write(values)
    pd.testing.assert_index_equal(back.columns, frame.columns, exact=True)
    assert table.schema.names == list(columns)


@pytest.mark.parametrize(
    "levels", [[1, 2, 3], [1.5, 2.5, 4.0], [True, False], list(STAMPS[:3]), [("a", 1), ("b", 2)]], ids=str
)
@pytest.mark.parametrize("ordered", [True, False])
def test_categories_keep_the_dtype_of_their_levels(levels, ordered):
    cells = [levels[i % len(levels)] for i in range(N)]
    dtype = pd.CategoricalDtype(pd.Index(levels, tupleize_cols=False), ordered=ordered)
    frame = pd.DataFrame({"x": NUMBERS, "level": pd.Series(cells, dtype=dtype)})
    table, values = Table.fit(frame)
    assert table.columns[1].levels == levels
    assert_same(table.write(values), frame)


def test_integers_stay_in_their_range():
    frame = pd.DataFrame({"small": np.array([0, 255] * 20, np.uint8), "large": np.array([0, 2**62] * 20)})
    table = table_of(frame, likelihood="normal", bounds=None)
    back = table.write(table.decode(np.array([[-1e3, -1e3], [1e3, 1e3]])))
    assert back["small"].tolist() == [0, 255]
    assert back["large"].iloc[0] < -(2**62)
    assert back["large"].iloc[1] > 2**62


@pytest.mark.parametrize("library", NUMERIC)
def test_integers_are_rounded_and_flags_take_the_nearer_value(library):
    frame = NUMERIC[library]()
    table, values = Table.fit(frame)
    shifted = values.copy()
    for j, name in enumerate(frame.columns):
        if "int" in name.lower() or "bool" in name:
            shifted[:, j] += np.where(values[:, j] > 0, -0.4, 0.4)
    assert_same(table.write(shifted), frame)


def test_cells_of_a_time_are_in_ticks_of_its_column():
    frame = pd.DataFrame({"t": STAMPS.as_unit("s"), "x": NUMBERS})
    cell = Schema.of(frame).cell(0, STAMPS[7].as_unit("ns"))
    assert cell.cast(nw.Int64).to_list() == [STAMPS[7].timestamp()]


# ------------------------------------------------------------------------------------------------------- as plain data


@pytest.mark.parametrize("library", [*FRAMES, "array"])
def test_a_schema_is_made_again_from_json(library):
    X = np.eye(3, dtype=np.float32) if library == "array" else FRAMES[library]()
    schema = Schema.of(X)
    assert Schema.from_state(json.loads(json.dumps(schema.state()))) == schema


def test_schemas_tell_integers_and_name_columns():
    schema = Schema.of(NUMERIC["pandas"]())
    integers = [name for j, name in enumerate(schema.names) if schema.is_integer(j)]
    assert integers == ["int8", "uint16", "int64", "Int64"]
    assert not Schema.of(np.eye(3)).is_integer(0)
    assert Schema.of(pd.DataFrame({"a": [1], 2: [3]})).labels == ["'a'", "2"]


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        (pd.array(np.arange(N) * 1.0, dtype=pd.ArrowDtype(pa.decimal128(10, 2))), "decimal128"),
        (pd.Categorical([frozenset(letter) for letter in LETTERS]), "frozenset"),
    ],
    ids=str,
)
def test_what_has_no_plain_form_is_an_error_that_says_what_to_do(cells, name):
    frame = pd.DataFrame({"x": NUMBERS, "odd": cells})
    with pytest.raises(ValueError, match=rf"{name}.*has no plain form.*onvert the column"):
        Schema.of(frame).state()
