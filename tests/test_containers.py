"""What is taken for a frame, and what for an array of floats or of objects."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tables import FLAGS, LETTERS, NUMBERS, N

from skvae.table import Table, as_frame, as_table

FRAMES = {
    "pandas": pd.DataFrame({"a": NUMBERS}),
    "polars": pl.DataFrame({"a": NUMBERS}),
    "pyarrow": pa.table({"a": NUMBERS}),
}


@pytest.mark.parametrize("library", FRAMES)
def test_frames_are_taken_as_they_are(library):
    frame = FRAMES[library]
    assert as_table(frame) is frame
    assert as_frame(frame).to_native() is frame


@pytest.mark.parametrize(
    "other", [np.eye(2), [[1.0]], pd.Series([1.0]), pl.LazyFrame({"a": [1.0]}), None, 3.0], ids=type
)
def test_other_things_are_no_frames(other):
    assert as_frame(other) is None


@pytest.mark.parametrize("shape", [(0, 1), (1, 0)], ids=str)
def test_empty_frames_are_errors(shape):
    with pytest.raises(
        ValueError, match=rf"Found a frame of shape \({shape[0]}, {shape[1]}\); expected at least one row"
    ):
        as_table(pd.DataFrame(np.zeros(shape)))


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (np.eye(2, dtype=np.float32), np.float32),
        (np.eye(2, dtype=np.float16), np.float64),
        (np.eye(2, dtype=int), np.float64),
        (np.eye(2, dtype=bool), np.float64),
        (np.eye(2).astype(object), np.float64),
        ([[1, 2], [3, 4]], np.float64),
        (((1.5,), (None,)), np.float64),
        ([["a", 1.0], ["b", 2.0]], object),
        (np.array([["a", "b"]]), object),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arrays_hold_floats_or_objects(rows, dtype):
    table = as_table(rows)
    assert table.dtype == dtype
    assert table.shape == np.shape(rows)


def test_arrays_with_text_come_back_as_they_were():
    X = np.empty((N, 3), dtype=object)
    X[:, 0], X[:, 1], X[:, 2] = NUMBERS, LETTERS, FLAGS
    table, values = Table.fit(as_table(X))
    assert [column.levels for column in table.columns] == [None, ["a", "b", "c"], None]
    back = table.write(values)
    assert back.dtype == object
    np.testing.assert_array_equal(back, X)
    X[3, 1], X[4, 0] = None, np.nan
    values = Table.fit(as_table(X))[1]
    assert np.isnan(values[3, 1])
    assert np.isnan(values[4, 0])


def test_arrays_and_lists_of_text_are_categories():
    text = np.array([["a", "x"], ["b", "y"]] * 12)
    for rows in (text, text.tolist(), text.astype(object)):
        assert Table.fit(as_table(rows))[1].tolist() == [[0, 0], [1, 1]] * 12


def test_sparse_columns_become_dense_in_a_copy():
    dense = pd.DataFrame({"a": [0.0, 1.0], "b": ["u", "v"]})
    sparse = dense.assign(a=pd.arrays.SparseArray([0.0, 1.0], fill_value=0.0))
    dtypes = sparse.dtypes.copy()
    pd.testing.assert_frame_equal(as_table(sparse), dense)
    pd.testing.assert_series_equal(sparse.dtypes, dtypes)
    # text has nothing to convert
    assert as_table(dense) is dense
    assert as_table(dense.astype({"b": object}))["b"].tolist() == ["u", "v"]
