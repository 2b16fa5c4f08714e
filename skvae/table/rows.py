"""Rows of any container: taken by position, put together, joined with a target, their holes counted.

A table is an array, or a pandas, polars or pyarrow frame, of shape (n_samples, n_features). A target is an array, a list, or a
column or a frame of one column of these libraries. A function returns the container that it is given. Rows go by their
position: the index of a pandas container plays no part, and results number their rows from 0.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import narwhals.stable.v2 as nw
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from narwhals.stable.v2.typing import IntoDataFrame, IntoSeries

Table: TypeAlias = "np.ndarray | IntoDataFrame"
"""An array or a frame of shape (n_samples, n_features)."""

Rows: TypeAlias = "np.ndarray | list[Any] | tuple[Any, ...] | IntoDataFrame | IntoSeries"
"""A table, a target, or either as a list."""


# --------------------------------------------------------------------------------------------------- tables and targets


@overload
def take(rows: Table, positions: np.ndarray) -> Table: ...


@overload
def take(rows: Rows, positions: np.ndarray) -> Rows: ...


def take(rows: Rows, positions: np.ndarray) -> Rows:
    """Take rows by position.

    Parameters
    ----------
    rows : array-like, frame or column of length n
        A table or a target.
    positions : ndarray of int of shape (n_taken,)
        Positions from 0 to n - 1, in any order, repeated or not.

    Returns
    -------
    taken : array, list, frame or column of length n_taken

    Examples
    --------
    >>> take(["a", "b", "c"], np.array([2, 0, 0]))
    ['c', 'a', 'a']
    """
    if isinstance(rows, list | tuple):
        return [rows[i] for i in positions]

    native = _as_native(rows)
    if native is None:
        return np.asarray(rows)[positions]

    # narwhals takes rows by a list in every library, by an array not in all of them
    taken = native[positions.tolist()]
    return nw.maybe_reset_index(taken).to_native()


def stack(old: Rows, new: Rows) -> Rows:
    """Put new rows below old ones, in the container and the dtypes of the old ones.

    Parameters
    ----------
    old : array-like, frame or column of length n_old
        A table or a target.
    new : array-like, frame or column of length n_new
        Rows of the same columns. Below integers, floats are rounded.

    Returns
    -------
    stacked : array, list, frame or column of length n_old + n_new
        What is neither list, frame nor column comes back as an array.

    Examples
    --------
    >>> stack([1, 2], np.array([3, 4]))
    [1, 2, 3, 4]
    >>> stack(np.array([1, 2]), np.array([2.7]))
    array([1, 2, 3])
    """
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    if isinstance(old, list) and isinstance(new, np.ndarray):
        return old + new.tolist()

    native = _as_native(old)
    if native is None:
        return _stack_arrays(np.asarray(old), np.asarray(new))

    library = nw.get_native_namespace(native)
    if native.implementation.is_pandas_like():
        return _stack_pandas(library, old, new)
    if native.implementation.is_pyarrow():
        return _stack_arrow(library, old, new)
    return library.concat([old, new])


def _stack_arrays(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    # a conversion to integers cuts the decimals off
    if old.dtype.kind in "iub" and new.dtype.kind == "f":
        new = np.rint(new)

    return np.concatenate([old, new.astype(old.dtype)])


def _stack_pandas(library: ModuleType, old: Any, new: Any) -> Any:
    dtypes = old.dtypes
    if old.ndim == 2:
        # integers and booleans of numpy have no missing cells
        dtypes = {}
        for name, dtype in old.dtypes.items():
            if not (getattr(dtype, "kind", "") in tuple("iub") and new[name].isna().any()):
                dtypes[name] = dtype

    return library.concat([old, new.astype(dtypes)], ignore_index=True)


def _stack_arrow(library: ModuleType, old: Any, new: Any) -> Any:
    if isinstance(old, library.Table):
        return library.concat_tables([old, new.cast(old.schema)])

    return library.chunked_array([*old.chunks, *new.cast(old.type).chunks], type=old.type)


# ---------------------------------------------------------------------------------------------------------------- tables


def library_of(table: Table) -> ModuleType | None:
    """The library of a frame, such as the module pandas; None for an array."""
    if isinstance(table, np.ndarray):
        return None

    return nw.get_native_namespace(_as_frame(table))


def to_frame(values: np.ndarray, names: Sequence[Hashable], library: ModuleType) -> IntoDataFrame:
    """Make a frame of an array.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_features)
        Cells; an array of objects may hold cells of several types.
    names : sequence of length n_features
        Distinct names of the columns.
    library : module
        The library of the frame.

    Returns
    -------
    frame : DataFrame of shape (n_samples, n_features)
    """
    columns: dict[Any, Any] = {}
    for name, column in zip(names, values.T, strict=True):
        columns[name] = column

        # from a list, the library infers the dtype of the objects
        if column.dtype == object:
            columns[name] = column.tolist()

    return nw.from_dict(columns, backend=library).to_native()


def concatenate(tables: Sequence[Table]) -> Table:
    """Put the rows of tables below each other.

    Parameters
    ----------
    tables : sequence of arrays or of frames
        Tables of the same columns. Those without rows are passed over, whatever their columns; at least one has rows.

    Returns
    -------
    table : array or frame
    """
    arrays = []
    frames = []
    for table in tables:
        if not len(table):
            continue
        if isinstance(table, np.ndarray):
            arrays.append(table)
        else:
            frames.append(_as_frame(table))

    if arrays:
        return np.concatenate(arrays)
    return nw.concat(frames).to_native()


def where(mask: np.ndarray, table: Table, other: Table) -> Table:
    """Cells of `table` where the mask is true, of `other` elsewhere: `numpy.where` for any container.

    Parameters
    ----------
    mask : ndarray of bool of shape (n_samples, n_features)
    table, other : array or frame of shape (n_samples, n_features)
        Both arrays, or both frames of the same library and columns.

    Returns
    -------
    merged : array or frame of shape (n_samples, n_features)

    Examples
    --------
    >>> where(np.array([[True, False]]), np.array([[1, 2]]), np.array([[3, 4]]))
    array([[1, 4]])
    """
    if isinstance(table, np.ndarray):
        return np.where(mask, table, np.asarray(other))

    frame = _as_frame(table)
    other_frame = _as_frame(other)
    library = nw.get_native_namespace(frame)

    columns = []
    for j in range(mask.shape[1]):
        column = frame[:, j]

        # a column that is taken whole keeps its dtype, whatever `other` holds
        if not mask[:, j].all():
            flags = nw.new_series("mask", mask[:, j], nw.Boolean, backend=library)
            column = column.zip_with(flags, other_frame[:, j])
        columns.append(column)

    return frame.with_columns(columns).to_native()


def count_holes(table: Table) -> np.ndarray:
    """Count the missing and infinite cells of each row.

    Parameters
    ----------
    table : array or frame of shape (n_samples, n_features)

    Returns
    -------
    counts : ndarray of int of shape (n_samples,)

    Examples
    --------
    >>> count_holes(np.array([[1.0, 2.0], [np.nan, np.inf]]))
    array([0, 2])
    """
    counts = np.zeros(len(table), dtype=int)
    if isinstance(table, np.ndarray):
        for column in table.T:
            counts += _holes_of_array(column)
        return counts

    frame = _as_frame(table)
    for j in range(frame.shape[1]):
        counts += _holes_of_series(frame[:, j])
    return counts


def _holes_of_array(column: np.ndarray) -> np.ndarray:
    """Mask of the missing and infinite cells, ndarray of bool of shape (n_samples,)."""
    if column.dtype.kind in "fmM":
        return ~np.isfinite(column)

    holes = np.zeros(len(column), dtype=bool)
    if column.dtype.kind == "O":
        for i, value in enumerate(column):
            # NaN and NaT do not equal themselves
            holes[i] = value is None or value != value or value in (np.inf, -np.inf)
    return holes


def _holes_of_series(column: nw.Series[Any]) -> np.ndarray:
    """Mask of the missing and infinite cells, ndarray of bool of shape (n_samples,)."""
    holes = column.is_null().to_numpy()
    if column.dtype.is_float():
        values = np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
        return holes | ~np.isfinite(values)
    return holes


# --------------------------------------------------------------------------------------------------- tables with targets


def n_rows(table: Table) -> int:
    """Number of rows of an array or frame."""
    return len(table) if isinstance(table, np.ndarray) else int(nw.from_native(table).shape[0])


def n_columns(table: Table) -> int:
    """Number of columns of an array or frame."""
    return int(np.shape(table)[1]) if isinstance(table, np.ndarray) else int(nw.from_native(table).shape[1])


def join(table: Table, target: np.ndarray) -> tuple[Table, Hashable]:
    """Add the target to a table as its last column.

    Parameters
    ----------
    table : array or frame of shape (n_samples, n_features)
    target : ndarray of shape (n_samples,)

    Returns
    -------
    joint : array or frame of shape (n_samples, n_features + 1)
    column : str or int
        Name of the target's column in a frame: "target" (with as many underscores behind as make it new), or an integer
        beside names that are not all strings. Its index in an array.
    """
    if isinstance(table, np.ndarray):
        return np.column_stack([table, target]), table.shape[1]

    frame = _as_frame(table)
    name: Any = _new_name(frame.columns)
    column = nw.new_series(name, np.asarray(target), backend=nw.get_native_namespace(frame))
    return frame.with_columns(column).to_native(), name


def _new_name(names: Sequence[Hashable]) -> Hashable:
    """A name of a further column, of the type of the names there are."""
    if all(isinstance(name, str) for name in names):
        text = "target"
        while text in names:
            text += "_"
        return text

    number = len(names)
    while number in names:
        number += 1
    return number


def split(joint: Table) -> tuple[Table, np.ndarray]:
    """Take a joint table apart: undo `join`.

    Parameters
    ----------
    joint : array or frame of shape (n_samples, n_features + 1)

    Returns
    -------
    table : array or frame of shape (n_samples, n_features)
    target : ndarray of shape (n_samples,)
    """
    if isinstance(joint, np.ndarray):
        return joint[:, :-1], joint[:, -1]

    frame = _as_frame(joint)
    n_features = frame.shape[1] - 1
    return frame[:, :n_features].to_native(), frame[:, n_features].to_numpy()


def target_as_array(y: Any) -> Any:
    """A list, column or frame as an array; anything else as it is, for the checks of its reader to judge."""
    if isinstance(y, list) or hasattr(y, "to_numpy"):
        return np.asarray(y)

    return y


def target_like(y: Rows, values: np.ndarray) -> Rows:
    """Put numbers into a container like that of a target.

    Parameters
    ----------
    y : array-like, frame or column
        A target, whose container, name and kind of number serve as the model; `stack` settles the exact dtype.
    values : ndarray of float of shape (n,)
        The numbers; rounded for a column of integers.

    Returns
    -------
    target : list, array, frame or column of length n

    Examples
    --------
    >>> target_like([1.5, 2.5], np.array([3.0]))
    [3.0]
    """
    if isinstance(y, list):
        return values.tolist()

    native = _as_native(y)
    if native is None:
        return values.reshape(-1, *np.asarray(y).shape[1:])

    if isinstance(native, nw.DataFrame):
        return _series_like(native[:, 0], values).to_frame().to_native()
    return _series_like(native, values).to_native()


def _series_like(column: nw.Series[Any], values: np.ndarray) -> nw.Series[Any]:
    # a cast to integers cuts the decimals off
    if column.dtype.is_integer():
        values = np.rint(values)

    series = nw.new_series(column.name, values, backend=nw.get_native_namespace(column))
    return series.cast(column.dtype)


def _as_native(rows: Any) -> nw.DataFrame[Any] | nw.Series[Any] | None:
    """A frame or a column in the wrapping of narwhals, which is common to all libraries; None for other containers."""
    native = nw.from_native(rows, allow_series=True, eager_only=True, pass_through=True)
    if isinstance(native, nw.DataFrame | nw.Series):
        return native

    return None


def _as_frame(table: Any) -> nw.DataFrame[Any]:
    """A frame in the wrapping of narwhals, its rows numbered from 0: pandas aligns columns by the index."""
    return nw.maybe_reset_index(nw.from_native(table, eager_only=True))
