"""Columns of an array or a frame by their names (or positions), as constraints read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.containers import as_frame, as_table


def position(X: Any, column: Any) -> int:
    """Position of a column; a ValueError if there is none."""
    frame = as_frame(X)
    names = list(range(X.shape[1])) if frame is None else list(frame.columns)
    if column not in names:
        raise ValueError(
            f"A constraint names the column {column!r}, which the table does not have. Its columns are {names}."
        )
    return names.index(column)


def column_of(X: Any, column: Any) -> Any:
    """A column, as a series of narwhals or an array of shape (n_samples,)."""
    X = as_table(X)
    frame = as_frame(X)
    return X[:, column] if frame is None else frame[column]


def with_column(X: Any, column: Any, cells: Any) -> Any:
    """A copy of a table with other cells in a column."""
    frame = as_frame(X)
    if frame is not None:
        return frame.with_columns(cells.alias(column)).to_native()

    changed = X.copy()
    changed[:, column] = cells
    return changed


def as_floats(column: Any) -> np.ndarray:
    """A column as floats, NaN where a cell is missing; ndarray of shape (n_samples,)."""
    cells = np.array(column, dtype=object)
    cells[missing_cells(column)] = np.nan
    return cells.astype(np.float64)


def is_whole(column: Any) -> bool:
    """Whether the dtype of a column holds integers only."""
    return column.dtype.is_integer() if isinstance(column, nw.Series) else column.dtype.kind in "iu"


def missing_cells(column: Any) -> np.ndarray:
    """Which cells are missing, ndarray of bool of shape (n_samples,)."""
    if isinstance(column, nw.Series):
        missing = column.is_null()
        if column.dtype.is_float():
            missing = missing | column.is_nan().fill_null(True)
        return missing.to_numpy().astype(bool)

    if column.dtype.kind == "f":
        return np.isnan(column)
    return np.array([cell is None or cell != cell for cell in column], dtype=bool)


def rows_of(X: Any, columns: Sequence[Any]) -> list[tuple]:
    """Cells of each row in some columns, None where one is missing."""
    cells_by_column = []
    for name in columns:
        column = column_of(X, name)
        cells = np.array(column, dtype=object)
        cells[missing_cells(column)] = None
        cells_by_column.append(cells.tolist())
    return list(zip(*cells_by_column, strict=True))
