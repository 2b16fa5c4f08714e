"""One row given by its cells: dicts, series and sequences; what a column cannot have."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tables import FLAGS, FRAMES, LETTERS, NUMBERS, table_of

from skvae.table import Table
from skvae.table.given import read_cells, read_row

MIXED = pd.DataFrame({"x": NUMBERS, "letter": LETTERS, "n": np.arange(40), "flag": FLAGS.astype(bool)})


@pytest.mark.parametrize("library", FRAMES)
def test_one_row_of_cells_is_read_by_name(library):
    frame = FRAMES[library]()
    table, values = Table.fit(frame)
    for j, name in enumerate(frame.columns):
        row = read_cells(table, {name: frame[name][5]})
        assert row.shape == (1, frame.shape[1])
        assert row[0, j] == values[5, j]
        assert np.isnan(np.delete(row[0], j)).all()


def test_cells_of_an_array_are_read_by_position():
    X = np.empty((40, 2), dtype=object)
    X[:, 0], X[:, 1] = NUMBERS, LETTERS
    np.testing.assert_array_equal(read_cells(table_of(X), {1: "c"}), [[np.nan, 2]])
    np.testing.assert_array_equal(read_cells(table_of(X), {0: 0.1, 1: "a"}), [[0.1, 0]])
    np.testing.assert_array_equal(read_cells(table_of(X), {}), [[np.nan, np.nan]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"height": 3.0}, r"given names the column 'height'.*'x', 'letter'"),
        ({"x": np.nan}, r"given\['x'\] is missing"),
        ({"x": None}, r"given\['x'\] is missing"),
        ({"letter": "q"}, r"'letter' holds 'q'.*levels seen at fit"),
        ({"n": 2.5}, r"given\['n'\]=2\.5, but the column holds integers"),
        ({"x": np.inf}, "'x' contains infinity"),
        ({"x": "tall"}, "'x'.*cannot be read as numbers"),
    ],
    ids=str,
)
def test_cells_that_cannot_be_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        read_cells(table_of(MIXED), given)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    "row",
    [
        {"n": 7, "x": 0.5},
        {"n": 7, "x": 0.5, "letter": None, "flag": np.nan},
        {"n": 7, "x": 0.5, "letter": pd.NA, "flag": None},
        pd.Series({"n": 7, "x": 0.5}),
        [0.5, None, 7, None],
        (0.5, np.nan, 7, pd.NA),
    ],
    ids=str,
)
def test_a_row_is_a_dict_a_series_or_a_sequence_with_holes(library, row):
    table = table_of(library(MIXED.to_dict("list")))
    np.testing.assert_array_equal(read_row(table, row, "start"), [[0.5, np.nan, 7, np.nan]])


def test_a_row_of_an_array_is_a_sequence():
    table = table_of(np.column_stack([NUMBERS, FLAGS]))
    for row in ([0.5, 1], np.array([0.5, 1.0]), (0.5, True)):
        np.testing.assert_array_equal(read_row(table, row, "start"), [[0.5, 1.0]])


def test_a_table_of_one_row_is_left_to_the_caller():
    assert read_row(table_of(MIXED), MIXED[:1], "start") is None
    assert read_row(table_of(MIXED.to_numpy()), MIXED.to_numpy()[:1], "start") is None


@pytest.mark.parametrize("row", [[0.5], MIXED[:2], np.zeros((1, 2, 2)), 3.0], ids=lambda row: str(np.shape(row)))
def test_what_is_no_row_is_an_error_that_says_what_one_is(row):
    with pytest.raises(ValueError, match=r"start must be one row of 4 columns, such as X\[:1\], but its shape is"):
        read_row(table_of(MIXED), row, "start")
