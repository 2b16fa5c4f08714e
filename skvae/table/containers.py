"""Containers that a table may come in: arrays, and the frames that narwhals reads (pandas, polars, pyarrow, ...)."""

from __future__ import annotations

import datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import check_array


def as_frame(X: Any) -> nw.DataFrame | None:
    """X as a frame of narwhals; None if it is no frame."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame
    return None


def as_table(X: Any) -> Any:
    """A frame, or anything else as an array of two dimensions.

    Columns of a frame are as they are, but for those of pandas whose dtype hides what they hold: objects that are all
    numbers or all times, sparse columns, and numbers of more than double precision.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_features)

    Returns
    -------
    table : DataFrame, or ndarray of shape (n_samples, n_features)
        An array holds floats (float32 stays float32), or objects if X holds text.

    Raises
    ------
    ValueError
        If X has no rows or no columns, or cannot be read.
    """
    _refuse_others(X)
    frame = as_frame(X)
    if frame is not None:
        if 0 in frame.shape:
            raise ValueError(f"Found a frame of shape {frame.shape}; expected at least one row and one column.")
        if frame.implementation.is_pandas():
            return _with_plain_dtypes(X)
        return X

    array = X
    # a tensor, whose dtype is none of numpy's
    if hasattr(X, "__array__") and not isinstance(getattr(X, "dtype", None), np.dtype):
        array = np.asarray(X)
    if isinstance(X, np.ma.MaskedArray):
        array = _unmasked(X)
    if isinstance(X, list | tuple):
        array = np.asarray(X)

    # text stays, numbers among objects become floats below
    if getattr(array, "dtype", None) is not None and array.dtype.kind in "OUS":
        array = check_array(array.astype(object), dtype=None, ensure_all_finite=False)
        if holds_text(array.ravel()):
            return array
    # it sums the cells, which may overflow
    with np.errstate(all="ignore"):
        return check_array(array, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name="X")


def _refuse_others(X: Any) -> None:
    """Raise a ValueError if X is no table yet, or one whose columns cannot be told apart."""
    name = type(X).__name__
    library = type(X).__module__.split(".")[0]
    if library.startswith("dask"):
        raise ValueError(f"Expected a table in memory, got a {name} of {library}. Pass X.compute().")

    # pandas alone has columns of the same name
    if library == "pandas" and hasattr(X, "columns") and not X.columns.is_unique:
        repeated = X.columns[X.columns.duplicated()][0]
        raise ValueError(
            f"Expected columns with names of their own, but {repeated!r} occurs more than once. Rename them."
        )

    wrapped = nw.from_native(X, allow_series=True, pass_through=True)
    if isinstance(wrapped, nw.LazyFrame):
        raise ValueError(f"Expected a table in memory, got a {name} of {library}. Pass X.collect().")
    if isinstance(wrapped, nw.Series) and library != "pandas":
        raise ValueError(
            f"Expected a table of two dimensions, got a column of {len(wrapped)} cells. Pass X.to_frame()."
        )


def _with_plain_dtypes(X: Any) -> Any:
    """A pandas frame, with the columns whose dtype hides what they hold converted in a copy."""
    plain = X
    for j in range(X.shape[1]):
        column = X.iloc[:, j]
        converted = _plain_column(column)
        if converted is column:
            continue

        # the caller's frame stays as it is
        if plain is X:
            plain = X.copy(deep=False)
        plain.isetitem(j, converted)

    return plain


def _plain_column(column: Any) -> Any:
    """A pandas column in a dtype that says what it holds; itself if it has one."""
    dtype = column.dtype
    if type(dtype).__name__ == "SparseDtype":
        return column.sparse.to_dense()
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        return _plain_objects(column)

    # numbers of more than double precision
    if isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize > 8:
        return column.astype(np.float64)
    return column


def _plain_objects(column: Any) -> Any:
    """A pandas column of objects as numbers or times, if they all are."""
    observed = column[column.notna()]
    types = set(map(type, observed))
    if not types:
        return column

    are_whole = all(issubclass(own, Integral) and own is not bool for own in types)
    if are_whole and len(observed) == len(column) and observed.abs().max() < 2**63:
        return column.astype(np.int64)
    if all(issubclass(own, Real | Decimal) and own is not bool for own in types):
        return column.map(float, na_action="ignore").astype(np.float64)
    # dates alone are objects to pandas, which also knows of zones
    if types == {datetime.date}:
        return column.astype("datetime64[us]")
    if all(issubclass(own, datetime.datetime | datetime.timedelta) for own in types):
        return column.infer_objects()

    return column


def _unmasked(X: np.ma.MaskedArray) -> np.ndarray:
    """An array with NaN, or None among objects, where X is masked."""
    if X.dtype.kind in "OUS":
        return np.ma.filled(X.astype(object), None)
    if X.dtype.kind == "f":
        return np.ma.filled(X, np.nan)

    return np.ma.filled(X.astype(np.float64), np.nan)


def holds_text(column: np.ndarray) -> bool:
    """Whether an array of objects, shape (n,), holds text."""
    return any(isinstance(value, str) for value in column)
