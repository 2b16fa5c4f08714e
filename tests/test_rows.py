"""Rows of any container: the same rows come out of every one, in its own library and dtypes."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from skvae.table.rows import (
    concatenate,
    count_holes,
    join,
    library_of,
    split,
    stack,
    take,
    target_as_array,
    target_like,
    to_frame,
    where,
)

# a number with a hole, an integer, a text with a hole, a category, a flag and a date
CELLS = {
    "size": [1.5, None, -2.0, 4.25],
    "count": [3, 1, 4, 1],
    "name": ["a", "b", None, "a"],
    "level": ["low", "high", "low", "low"],
    "flag": [True, False, False, True],
    "day": np.array(["2024-01-01", "2024-05-05", "2024-03-03", "2023-01-31"], dtype="datetime64[us]"),
}
PANDAS = pd.DataFrame(CELLS).astype({"level": "category"})
FRAMES = {
    "pandas": PANDAS,
    "pandas, other index": PANDAS.set_index(np.array([7, 7, 0, -1])),
    "polars": pl.from_pandas(PANDAS),
    "pyarrow": pa.Table.from_pandas(PANDAS, preserve_index=False),
}
ARRAY = np.array([[1.5, 3.0], [np.nan, 1.0], [-2.0, np.inf], [4.25, 1.0]])

every_frame = pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)


def rows_of(table):
    """The cells of a table as tuples, None where one is missing, whatever the container."""
    if isinstance(table, pa.Table):
        table = table.to_pandas()
    cells = pl.from_pandas(table.reset_index(drop=True)) if isinstance(table, pd.DataFrame) else table
    return [tuple(None if cell != cell else cell for cell in row) for row in cells.rows()]


def schema_of(table):
    if isinstance(table, pd.DataFrame):
        return table.dtypes.to_dict()
    return dict(table.schema) if isinstance(table, pl.DataFrame) else {field.name: field.type for field in table.schema}


# --------------------------------------------------------------------------------------------------------- rows taken


@every_frame
@pytest.mark.parametrize("positions", [[2, 0, 0], [3], []], ids=str)
def test_rows_of_a_frame_are_taken_by_position(frame, positions):
    taken = take(frame, np.array(positions, dtype=int))
    assert type(taken) is type(frame)
    assert schema_of(taken) == schema_of(frame)
    assert rows_of(taken) == [rows_of(frame)[i] for i in positions]
    if isinstance(taken, pd.DataFrame):
        assert taken.index.tolist() == list(range(len(positions)))


TARGETS = {
    "list": ["u", "v", "w"],
    "array": np.array(["u", "v", "w"]),
    "array of one column": np.array([["u"], ["v"], ["w"]]),
    "pandas column": pd.Series(["u", "v", "w"], index=[5, 5, 6], name="label"),
    "pandas categories": pd.Series(["u", "v", "w"], dtype="category"),
    "pandas frame": pd.DataFrame({"label": ["u", "v", "w"]}),
    "polars column": pl.Series("label", ["u", "v", "w"]),
    "polars frame": pl.DataFrame({"label": ["u", "v", "w"]}),
    "pyarrow column": pa.chunked_array([["u"], ["v", "w"]]),
    "pyarrow frame": pa.table({"label": ["u", "v", "w"]}),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("positions", [[2, 0, 0], []], ids=str)
def test_targets_are_taken_and_stacked_in_their_container(target, positions):
    taken = take(target, np.array(positions, dtype=int))
    stacked = stack(target, taken)
    for got, expected in ((taken, positions), (stacked, [0, 1, 2, *positions])):
        assert type(got) is type(target)
        assert np.array(got).ravel().tolist() == [["u", "v", "w"][i] for i in expected]
        assert getattr(got, "dtype", None) == getattr(target, "dtype", None)
        assert getattr(got, "name", None) == getattr(target, "name", None)


def test_other_sequences_become_lists_or_arrays():
    positions = np.array([1, 1])
    assert take((3, 4), positions) == [4, 4]
    assert stack((3, 4), [4, 4]).tolist() == [3, 4, 4, 4]
    for target in (pd.Index([3, 4]), pa.array([3, 4])):
        taken = take(target, positions)
        assert taken.tolist() == [4, 4]
        assert stack(target, taken).tolist() == [3, 4, 4, 4]


# -------------------------------------------------------------------------------------------------------- rows stacked


@every_frame
def test_new_rows_stand_below_old_ones_in_their_dtypes(frame):
    new = take(frame, np.array([3, 1]))
    stacked = stack(frame, new)
    assert type(stacked) is type(frame)
    assert schema_of(stacked) == schema_of(frame)
    assert rows_of(stacked) == [*rows_of(frame), rows_of(frame)[3], rows_of(frame)[1]]
    if isinstance(stacked, pd.DataFrame):
        assert stacked.index.tolist() == list(range(6))


def test_new_rows_take_on_the_dtypes_of_a_pandas_or_pyarrow_frame():
    old = pd.DataFrame({"a": np.array([1, 2], dtype=np.int8), "b": pd.array([1.0, None], dtype="Float32")})
    assert stack(old, pd.DataFrame({"a": [3], "b": [0.5]})).dtypes.to_dict() == old.dtypes.to_dict()
    text = pa.table({"a": pa.array(["u"], pa.large_string())})
    assert stack(text, pa.table({"a": ["v"]})).schema == text.schema
    numbers = pa.chunked_array([pa.array([1], pa.int8())])
    stacked = stack(numbers, pa.chunked_array([[2]]))
    assert stacked.type == pa.int8()
    assert stacked.to_pylist() == [1, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, bool, object])
def test_arrays_keep_their_dtype_and_round_what_becomes_an_integer(dtype):
    old = np.array([[0, 1], [1, 0]]).astype(dtype)
    stacked = stack(old, np.array([[0.75, 0.25]]))
    assert stacked.dtype == dtype
    expected = {"f": [0.75, 0.25], "O": [0.75, 0.25]}.get(stacked.dtype.kind, [1, 0])
    np.testing.assert_array_equal(stacked[2].astype(float), expected)
    np.testing.assert_array_equal(stacked[:2], old)


def test_rows_of_lists_get_rows_of_lists():
    assert stack([[1.0, 2.0]], np.array([[3.0, 4.0]])) == [[1.0, 2.0], [3.0, 4.0]]


@every_frame
def test_tables_are_concatenated_but_those_without_rows(frame):
    first, none, second = (take(frame, np.array(rows, dtype=int)) for rows in ([0, 2], [], [1]))
    whole = concatenate([none, first, none, second])
    assert type(whole) is type(frame)
    assert rows_of(whole) == [rows_of(frame)[i] for i in (0, 2, 1)]
    other = frame.drop(columns="size") if isinstance(frame, pd.DataFrame) else frame.drop(["size"])
    assert rows_of(concatenate([take(other, np.array([], dtype=int)), first])) == rows_of(first)


def test_arrays_are_concatenated_but_those_without_rows():
    np.testing.assert_array_equal(concatenate([np.empty((0, 5)), ARRAY[:1], ARRAY[2:]]), ARRAY[[0, 2, 3]])


# ------------------------------------------------------------------------------------------------------------- cells


@every_frame
def test_cells_come_from_one_table_or_the_other(frame):
    other = take(frame, np.array([1, 2, 3, 0]))
    mask = np.random.default_rng(0).uniform(size=(4, 6)) < 0.5
    mask[:, 0] = True
    assert not mask[:, 1:].all(axis=0).any()
    merged = where(mask, frame, other)
    assert type(merged) is type(frame)
    pairs = zip(mask, rows_of(frame), rows_of(other), strict=True)
    expected = [tuple(a if flag else b for flag, a, b in zip(*rows, strict=True)) for rows in pairs]
    assert rows_of(merged) == expected


def test_a_column_taken_whole_needs_no_other_of_its_dtype():
    table, other = pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": ["x", "y"]})
    pd.testing.assert_frame_equal(where(np.ones((2, 1), dtype=bool), table, other), table)


def test_cells_of_arrays_come_from_one_or_the_other():
    np.testing.assert_array_equal(where(np.eye(2, dtype=bool), ARRAY[:2], -ARRAY[:2]), [[1.5, -3], [np.nan, 1]])


@every_frame
def test_holes_of_frames(frame):
    np.testing.assert_array_equal(count_holes(frame), [0, 1, 1, 0])
    assert count_holes(take(frame, np.array([], dtype=int))).shape == (0,)


def test_infinite_cells_are_holes():
    np.testing.assert_array_equal(count_holes(ARRAY), [0, 1, 1, 0])
    for frame in (pd.DataFrame(ARRAY), pl.DataFrame(ARRAY), pa.table({"a": ARRAY[:, 0], "b": ARRAY[:, 1]})):
        np.testing.assert_array_equal(count_holes(frame), [0, 1, 1, 0])
    nullable = pd.DataFrame(ARRAY).astype("Float64")
    np.testing.assert_array_equal(count_holes(nullable), [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("column", "holes"),
    [
        (np.array([1, 2]), [0, 0]),
        (np.array([True, False]), [0, 0]),
        (np.array(["a", "nan"]), [0, 0]),
        (np.array([1.0, -np.inf], dtype=np.float32), [0, 1]),
        (np.array(["2024-01-01", "NaT"], dtype="datetime64[s]"), [0, 1]),
        (np.array([1, "NaT"], dtype="timedelta64[D]"), [0, 1]),
        (np.array(["a", None], dtype=object), [0, 1]),
        (np.array([np.nan, np.inf], dtype=object), [1, 1]),
        (np.array([3, -np.inf], dtype=object), [0, 1]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_holes_of_an_array_of_any_dtype(column, holes):
    np.testing.assert_array_equal(count_holes(column[:, None]), holes)


# ----------------------------------------------------------------------------------------------------- tables and targets


@every_frame
@pytest.mark.parametrize("target", [np.array([0, 1, 1, 0]), np.array([0.5, 1.5, -2.0, 0.0])], ids=["codes", "numbers"])
def test_a_frame_joined_with_its_target_is_split_again(frame, target):
    joint, column = join(frame, target)
    assert column == "target"
    assert type(joint) is type(frame)
    assert [row[:-1] for row in rows_of(joint)] == rows_of(frame)
    table, back = split(joint)
    assert schema_of(table) == schema_of(frame)
    assert rows_of(table) == rows_of(frame)
    np.testing.assert_array_equal(back, target)


def test_an_array_joined_with_its_target_is_split_again():
    joint, column = join(ARRAY, np.arange(4))
    assert column == 2
    table, target = split(joint)
    np.testing.assert_array_equal(table, ARRAY)
    np.testing.assert_array_equal(target, np.arange(4))


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a", "b"], "target"), (["target_", "target"], "target__"), ([0, 1], 2), ([2, 3], 4), ([1, 0], 2)],
)
def test_the_column_of_the_target_has_a_name_of_its_own(names, expected):
    joint, column = join(pd.DataFrame(np.zeros((2, 2)), columns=names), np.array([1.0, 2.0]))
    assert column == expected
    assert list(joint.columns) == [*names, expected]


@pytest.mark.parametrize("library", [pd, pl, pa], ids=lambda library: library.__name__)
def test_an_array_becomes_a_frame_of_a_library(library):
    cells = np.array([[1.5, "u"], [None, "v"]], dtype=object)
    frame = to_frame(cells, ["a", "b"], library)
    assert library_of(frame) is library
    assert rows_of(pl.DataFrame(frame) if library is pa else frame) == [(1.5, "u"), (None, "v")]
    numbers = to_frame(np.array([[1, 2]], dtype=np.float32), ["a", "b"], library)
    assert "float" in str(next(iter(schema_of(numbers).values()))).lower()
    assert library_of(ARRAY) is None


def test_targets_as_arrays():
    for y in ([1, 2], pd.Series([1, 2]), pl.Series([1, 2]), pa.chunked_array([[1], [2]])):
        np.testing.assert_array_equal(target_as_array(y), [1, 2])
    for y in ((1, 2), "text", None):
        assert target_as_array(y) is y


NUMBERS = {
    "list": ([0.5], [2.5, 3.6]),
    "array": (np.array([1.0]), np.array([2.5, 3.6])),
    "array of one column": (np.array([[1.0]]), np.array([[2.5], [3.6]])),
    "pandas": (pd.Series([1], name="n", dtype="int16"), pd.Series([2, 4], name="n", dtype="int16")),
    "pandas nullable": (pd.Series([1], dtype="Int64"), pd.Series([2, 4], dtype="Int64")),
    "pandas frame": (pd.DataFrame({"n": [0.5]}), pd.DataFrame({"n": [2.5, 3.6]})),
    "polars": (pl.Series("n", [1]), pl.Series("n", [2, 4])),
    "polars frame": (pl.DataFrame({"n": [0.5]}), pl.DataFrame({"n": [2.5, 3.6]})),
    "pyarrow": (pa.chunked_array([pa.array([1], pa.int8())]), pa.chunked_array([pa.array([2, 4], pa.int8())])),
}


@pytest.mark.parametrize(("y", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_become_a_target_like_another(y, expected):
    target = target_like(y, np.array([2.5, 3.6]))
    assert type(target) is type(y)
    if isinstance(y, pd.Series | pd.DataFrame | pl.Series | pl.DataFrame | pa.ChunkedArray):
        assert getattr(target, "name", None) == getattr(y, "name", None)
        target = take(stack(y, target), np.array([1, 2]))
        assert target.equals(expected)
    else:
        np.testing.assert_array_equal(target, expected)
