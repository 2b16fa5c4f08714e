"""Cells of one column of a container -> floats: numbers as they are, times as ticks, categories as positions of levels."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.clocks import Clock, convert
from skvae.table.containers import as_frame, holds_text
from skvae.table.schema import Schema
from skvae.table.selection import categorical_mask, listed


def find_categories(
    X: Any, schema: Schema, categorical_features: Any, aside: Collection[int] = ()
) -> tuple[list[list | None], list[bool]]:
    """Which columns are categories, and which are of a boolean dtype.

    Parameters
    ----------
    X : ndarray or DataFrame of shape (n_samples, n_features)
    schema : Schema
    categorical_features : "from_dtype", None, or array-like of {bool, int, str}
    aside : collection of int, default=()
        Columns that are not modelled, and have no levels.

    Returns
    -------
    levels : list of (list or None) of length n_features
        Levels of the categorical columns.
    boolean : list of bool of length n_features
    """
    columns = _columns(X)
    by_dtype = []
    boolean = []
    for column in columns:
        if isinstance(column, nw.Series):
            by_dtype.append(is_category(column.dtype))
            boolean.append(column.dtype == nw.Boolean)
        else:
            by_dtype.append(column.dtype == object and holds_text(column))
            boolean.append(False)

    mask = categorical_mask(categorical_features, schema.names, by_dtype)
    levels: list[list | None] = [None] * len(columns)
    for j in np.flatnonzero(mask):
        if j not in aside:
            levels[j] = find_levels(columns[j], schema.labels[j])
    return levels, boolean


def read_all(
    X: Any,
    levels: Sequence[list | None],
    labels: Sequence[str],
    handle_unknown: str = "error",
    clocks: Sequence[Clock | None] | None = None,
    aside: Collection[int] = (),
) -> np.ndarray:
    """Values of all columns of a container.

    Parameters
    ----------
    X : ndarray or DataFrame of shape (n_samples, n_features)
    levels : sequence of (list or None) of length n_features
    labels : sequence of str of length n_features
    handle_unknown : {"error", "ignore"}, default="error"
    clocks : sequence of (Clock or None) of length n_features, default=None
        What the ticks of each column counted at fit; None takes them as they are.
    aside : collection of int, default=()
        Columns that are not modelled: their values are NaN.

    Returns
    -------
    values : ndarray of float of shape (n_samples, n_features)
        X itself, if it is an array of numbers.
    """
    # an array of numbers is what is wanted: nothing to copy
    if isinstance(X, np.ndarray) and X.dtype != object and list(levels) == [None] * len(levels):
        if aside:
            X = X.copy()
            X[:, list(aside)] = np.nan
        return X

    values = []
    for j, (column, own, label) in enumerate(zip(_columns(X), levels, labels, strict=True)):
        if j in aside:
            values.append(np.full(len(column), np.nan))
            continue
        cells = read_cells(column, own, label, handle_unknown)
        if clocks is not None and own is None and isinstance(column, nw.Series):
            cells = convert(cells, Clock.of(column.dtype), clocks[j], label, column.dtype)
        values.append(cells)
    return np.stack(values, axis=1)


def is_category(dtype: Any) -> bool:
    """Whether columns of a dtype of narwhals are categories."""
    return dtype in (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Unknown)


def find_levels(column: nw.Series | np.ndarray, label: str) -> list:
    """Levels of a categorical column, in the order of its dtype if that has one, else sorted.

    Parameters
    ----------
    column : Series or ndarray of shape (n_samples,)
    label : str
        What errors call the column.

    Returns
    -------
    levels : list
        Those that occur.

    Raises
    ------
    ValueError
        If cells have no order.
    """
    # a frame tells which texts differ without making objects of all of them
    if isinstance(column, nw.Series) and column.dtype in (nw.Categorical, nw.Enum, nw.String):
        cells = _objects(column.unique())
    else:
        cells = _objects(column)

    try:
        seen = set(cells) - {None}
        # levels of several types do not compare
        in_order = sorted(seen, key=lambda level: (type(level).__name__, level))
    except TypeError as error:
        raise ValueError(
            f"Column {label} holds cells that cannot be levels of a category ({error}). Convert them to numbers or text."
        ) from error
    # a level that only the dtype names counts as not seen
    if isinstance(column, nw.Series) and column.dtype in (nw.Categorical, nw.Enum):
        named = column.cat.get_categories().to_list()
        ordered = [level for level in named if level in seen]
        if len(ordered) == len(seen):
            return ordered

    return in_order


def read_cells(
    column: nw.Series | np.ndarray, levels: Sequence | None, label: str, handle_unknown: str = "error"
) -> np.ndarray:
    """Cells of a column as floats, by `read_numbers` or, if it has levels, by `read_levels`."""
    if levels is None:
        return read_numbers(column, label)
    return read_levels(column, levels, label, handle_unknown)


def read_levels(
    column: nw.Series | np.ndarray, levels: Sequence, label: str, handle_unknown: str = "error"
) -> np.ndarray:
    """Positions of cells among the levels.

    Parameters
    ----------
    column : Series or ndarray of shape (n_samples,)
    levels : sequence
    label : str
        What errors call the column.
    handle_unknown : {"error", "ignore"}, default="error"
        ``"ignore"`` treats a cell that is none of the levels as missing.

    Returns
    -------
    positions : ndarray of float64 of shape (n_samples,)
        NaN where a cell is missing.

    Raises
    ------
    ValueError
        If a cell is none of the levels.
    """
    positions = dict(zip(levels, range(len(levels)), strict=True))
    cells = _objects(column)

    if handle_unknown == "error":
        unknown = set(cells) - positions.keys() - {None}
        if unknown:
            # the first in the order of the rows
            cell = next(cell for cell in cells if cell in unknown)
            raise ValueError(
                f"Column {label} holds {cell!r}, which is not among the {len(levels)} levels seen at fit "
                f"({listed(levels)}). Fit on rows with every level, or set handle_unknown='ignore' to treat it as missing."
            )
    # a map stays out of the interpreter's loop
    return np.fromiter(map(positions.get, cells, itertools.repeat(np.nan)), dtype=np.float64, count=len(cells))


def read_numbers(column: nw.Series | np.ndarray, label: str) -> np.ndarray:
    """Cells of a column of numbers, booleans or times as floats.

    Parameters
    ----------
    column : Series or ndarray of shape (n_samples,)
    label : str
        What errors call the column.

    Returns
    -------
    values : ndarray of float of shape (n_samples,)
        float32 if the column is of float32, else float64; times in ticks of their unit since their epoch; NaN where a cell
        is missing.

    Raises
    ------
    ValueError
        If cells cannot be read as finite numbers.
    """
    if isinstance(column, nw.Series):
        values = _numbers_of_series(column, label)
    elif column.dtype.kind == "f":
        values = column
    else:
        values = column.astype(np.float64)

    if np.isinf(values).any():
        raise ValueError(
            f"Column {label} contains infinity or a value too large for {values.dtype}. Expected finite numbers; "
            f"replace it, or mark the cell as missing by NaN."
        )
    return values


def _numbers_of_series(column: nw.Series, label: str) -> np.ndarray:
    # a frame of single precision keeps it
    dtype = column.dtype
    if dtype.is_nested():
        raise ValueError(
            f"Column {label} of dtype {dtype} holds a list or a record in each cell. Expected numbers, booleans, times or "
            f"categories; make columns of its items, or drop it."
        )
    if dtype == nw.Float32:
        return column.to_numpy()

    try:
        if dtype.is_temporal():
            missing = column.is_null().to_numpy()
            ticks = np.full(len(column), np.nan)
            ticks[~missing] = ticks_of(column.drop_nulls())
            return ticks

        return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    except Exception as error:
        raise ValueError(
            f"Column {label} of dtype {dtype} cannot be read as numbers ({error}). Expected numbers, booleans, times or "
            f"categories."
        ) from error


def ticks_of(column: nw.Series) -> np.ndarray:
    """Ticks of times, none missing, ndarray of int of shape (n,)."""
    # arrow has 32-bit days, which it converts to nothing wider
    if column.dtype == nw.Date:
        return column.cast(nw.Int32).to_numpy()

    # times of day are written in nanoseconds
    if column.dtype == nw.Time and column.implementation.is_pyarrow():
        column = column.cast(nw.Time)
    return column.cast(nw.Int64).to_numpy()


def _columns(X: Any) -> list:
    """Columns of a container: series of a frame, or columns of an array."""
    frame = as_frame(X)
    if frame is None:
        return list(X.T)

    # by position: names need not be unique
    return [frame[:, j] for j in range(len(frame.columns))]


def _objects(column: nw.Series | np.ndarray) -> list:
    """Cells as Python objects, None where missing."""
    if isinstance(column, nw.Series):
        cells = column.to_list()
        for row in np.flatnonzero(column.is_null().to_numpy()):
            cells[row] = None
        may_hold_nan = column.dtype.is_float() or column.dtype in (nw.Object, nw.Unknown)
    else:
        cells = column.tolist()
        may_hold_nan = column.dtype.kind in "fO"

    # NaN is not equal to itself
    if may_hold_nan:
        for i, cell in enumerate(cells):
            if isinstance(cell, float) and cell != cell:
                cells[i] = None
    return cells


def _are_alike(one: nw.Series, other: nw.Series) -> bool:
    """Whether the cells of both columns are numbers, or those of both are times."""
    if one.dtype.is_numeric() and other.dtype.is_numeric():
        return True

    return Clock.of(one.dtype) is not None and Clock.of(other.dtype) is not None


def _to_one_dtype(own: nw.Series, written: nw.Series, kept: nw.Series) -> tuple[nw.Series, nw.Series]:
    """Two columns in the dtype of the second, or of the first if the second's cannot hold the first's cells that are kept."""
    # ticks and integers are exact here, but were not on the way through floats
    try:
        cast = own.zip_with(kept, written.cast(own.dtype)).cast(written.dtype)
        if ((cast.cast(own.dtype) == own) | ~kept).all():
            return cast, written
    except Exception:
        pass

    return own, written.cast(own.dtype)


def _merged(own: nw.Series, written: nw.Series, kept: nw.Series) -> nw.Series:
    """The cells of the first column that are kept, and those of the second, of the same type, elsewhere."""
    if not (own.implementation.is_pandas() and own.dtype == nw.Categorical):
        return own.zip_with(kept, written)

    # to pandas, categories of other levels are of another dtype
    one, other = own.to_native(), written.to_native()
    levels = other.cat.categories.union(one[kept.to_native()].unique().dropna(), sort=False)
    if len(levels) == len(other.cat.categories):
        levels = other.cat.categories
    dtype = type(other.dtype)(levels, ordered=other.cat.ordered)
    return nw.from_native(other.astype(dtype).where(~kept.to_native(), one.astype(dtype)), series_only=True)


def _is_missing(column: nw.Series) -> nw.Series:
    """Which cells are null or, in libraries that tell it from null, NaN."""
    missing = column.is_null()
    if column.dtype.is_float():
        return missing | column.is_nan().fill_null(True)

    return missing


def cells_of(X: Any, j: int) -> list:
    """Cells of column `j` of a container, None where they are missing."""
    return _objects(_columns(X)[j])


def replace_column(written: Any, j: int, cells: np.ndarray) -> Any:
    """A copy of a container with other cells, of shape (n_samples,), in column `j`, in the dtype that it has."""
    frame = as_frame(written)
    if frame is None:
        changed = written.copy()
        changed[:, j] = cells
        return changed

    own = frame[:, j]
    if own.dtype.is_integer():
        cells = np.rint(cells.astype(np.float64)).astype(np.int64)
    new = nw.new_series(own.name, cells.tolist(), backend=frame.implementation)
    return frame.with_columns(new.cast(own.dtype)).to_native()


def take_columns(written: Any, like: Any, positions: Collection[int]) -> Any:
    """A frame with some of its columns, by position, as they are in another frame of as many columns."""
    new = nw.from_native(written, eager_only=True)
    old = nw.maybe_reset_index(nw.from_native(like, eager_only=True))
    return new.with_columns([old[:, j] for j in positions]).to_native()


def keep_cells(written: Any, like: Any, positions: Sequence[int] | None = None, aside: Collection[int] = ()) -> Any:
    """A frame with the cells of another one that are not missing, as they are.

    A column has its dtype at fit, unless that cannot hold one of these cells: it then has the dtype that it came in.
    Categories of another dtype than at fit are as they were read.

    Parameters
    ----------
    written : DataFrame of shape (n_samples, n_features)
    like : DataFrame of shape (n_samples, n_columns)
    positions : sequence of int of length n_columns, default=None
        The columns of `written` that those of `like` are. None is one for one; the rows then have the index of `like`, too.
    aside : collection of int, default=()
        The columns of `written` that are not modelled: their missing cells stay missing.

    Returns
    -------
    filled : DataFrame of shape (n_samples, n_features)
    """
    old = nw.maybe_reset_index(nw.from_native(like, eager_only=True))
    new = nw.from_native(written, eager_only=True)
    if old.implementation != new.implementation:
        raise ValueError(
            f"The rows are a frame of {old.implementation.value}, but the model was fitted on one of "
            f"{new.implementation.value}, whose cells cannot stand among its own. Convert them."
        )

    columns = []
    for own, j in zip(old.iter_columns(), positions or range(new.shape[1]), strict=True):
        if j in aside:
            columns.append(own)
            continue
        column = new[:, j]
        kept = ~_is_missing(own)
        if own.dtype != column.dtype and _are_alike(own, column):
            own, column = _to_one_dtype(own, column, kept)
        if own.dtype == column.dtype:
            column = _merged(own, column, kept)
        columns.append(column)

    filled = new.with_columns(columns).to_native()
    if hasattr(like, "index") and positions is None:
        filled.index = like.index
    return filled
