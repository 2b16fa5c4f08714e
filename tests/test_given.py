"""One row given by its cells: dicts, series and sequences; what a column cannot have."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from tables import FLAGS, FRAMES, LETTERS, NUMBERS, table_of

from skvae.table import Table
from skvae.table.given import read_cells, read_conditions, read_row

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
        ({"n": 2.5}, r"given\['n'\]: Column 'n' holds integers, but got 2\.5"),
        ({"x": np.inf}, "'x' holds finite numbers"),
        ({"x": "tall"}, "'x' holds numbers, but got 'tall'"),
        ({"x": 1 + 2j}, "'x' holds numbers"),
        ({"x": "1.5"}, "'x' holds numbers, but got '1.5'"),
        ({"flag": 0.3}, "'flag' holds booleans"),
        ({"n": datetime.date(2020, 1, 1)}, "'n' holds numbers"),
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


# -------------------------------------------------------------------------------------------------------------- conditions


DAYS = pd.date_range("2020-01-01", periods=40)
DATED = MIXED.assign(small=np.arange(40, dtype=np.int8), large=2**53 + np.arange(40), since=DAYS)


def conditions_of(given, frame=DATED, **options):
    return read_conditions(table_of(frame, **options), given)


def test_cells_ranges_and_sets_are_told_apart():
    conditions = conditions_of({"letter": "a", "x": (0.2, None), "n": [3, 5], "since": (DAYS[3], DAYS[5])})
    j = list(DATED.columns).index
    assert conditions.row[0, j("letter")] == 0
    assert np.isnan(np.delete(conditions.row[0], j("letter"))).all()
    rows = np.zeros((4, len(DATED.columns)))
    rows[:, j("x")] = [0.1, 0.2, 0.5, 0.5]
    rows[:, j("n")] = [3, 5, 4, 3]
    rows[:, j("since")] = DAYS[4].value // 1000 if "us" in str(DATED["since"].dtype) else DAYS[4].value
    assert conditions.hold(rows).tolist() == [False, True, False, True]


def test_integers_and_times_are_given_exactly():
    conditions = conditions_of({"large": 2**53 + 1, "since": DAYS[3], "x": 0.5})
    ticks = int(DATED["since"].astype("int64").iloc[3])
    assert set(conditions.exact.values()) == {2**53 + 1, ticks}
    written = table_of(DATED).write(table_of(DATED).read(DATED), exact=conditions.exact)
    assert (written["large"] == 2**53 + 1).all()
    assert (written["since"] == DAYS[3]).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"small": 300}, "integers from -128 to 127"),
        ({"n": 500}, "from 0 to 39, but got 500, which no row can have"),
        ({"n": (50, 60)}, "no row can meet it"),
        ({"n": (6, 5)}, "low <= high"),
        ({"n": (1, 2, 3)}, "a pair"),
        ({"n": []}, "is empty"),
        ({"n": [3, 400]}, "no row can have"),
        ({"n": [3, 2.5]}, "integers"),
        ({"letter": ("a", "b")}, "a list of cells"),
        ({"letter": ["a", "q"]}, "'q'"),
        ({"since": 5}, "'since' of Datetime holds times"),
        ({"since": "2020-01-03"}, "'since' of Datetime holds times"),
        ({"since": datetime.timedelta(days=3)}, "'since' of Datetime holds times"),
    ],
    ids=str,
)
def test_conditions_that_no_row_can_meet_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        conditions_of(given)


def test_without_bounds_any_number_that_the_column_can_hold_may_be_given():
    assert conditions_of({"n": 500}, bounds=None).row[0, 2] == 500
    with pytest.raises(ValueError, match="integers from -128 to 127"):
        conditions_of({"small": 300}, bounds=None)
