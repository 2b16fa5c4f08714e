"""One row of a table given by its cells, or by some of them."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.containers import as_table
from skvae.table.selection import listed
from skvae.table.table import Table


def read_cells(table: Table, given: dict) -> np.ndarray:
    """Values of one row that has the given cells and misses all others.

    Parameters
    ----------
    table : Table
    given : dict
        Cells by column.

    Returns
    -------
    row : ndarray of float64 of shape (1, n_features)
        NaN where no cell is given.

    Raises
    ------
    ValueError
        If the table has no such column, or the column cannot have such a cell.
    """
    names = table.schema.names
    row = np.full((1, len(names)), np.nan)

    for name, cell in given.items():
        if name not in names:
            raise ValueError(
                f"given names the column {name!r}, which the table does not have. Its columns are {listed(names)}."
            )
        j = names.index(name)
        row[0, j] = _read_cell(table, j, name, cell)

    return row


def read_row(table: Table, row: Any, name: str) -> np.ndarray | None:
    """Values of one row given by its cells; None for a table of one row, which is read as tables are.

    Parameters
    ----------
    table : Table
    row : dict, Series, sequence of cells, or table of one row
        Columns that a dict (or a pandas Series) does not name are missing cells.
    name : str
        What errors call it.

    Returns
    -------
    values : ndarray of float of shape (1, n_features) or None

    Raises
    ------
    ValueError
        If it is not one row of this table.
    """
    names = table.schema.names
    n_dims = np.ndim(row)

    # iterating over a pandas Series gives cells, not names
    if hasattr(row, "keys") and n_dims < 2:
        cells = {column: row[column] for column in row.keys()}  # noqa: SIM118
        return read_cells(table, _observed_cells(cells))

    if n_dims == 1 and len(row) == len(names):
        if table.schema.library is None:
            return table.read(as_table(np.asarray(row)[None]))
        cells = dict(zip(names, row, strict=True))
        return read_cells(table, _observed_cells(cells))

    if n_dims != 2 or len(row) != 1:
        raise ValueError(
            f"{name} must be one row of {len(names)} columns, such as X[:1], but its shape is {np.shape(row)}."
        )
    return None


def _read_cell(table: Table, j: int, name: Any, cell: Any) -> float:
    """Value of one cell of column `j`."""
    column = table.columns[j]
    is_number = column.levels is None

    # a column of one cell, as the container of the table has it
    single: nw.Series | np.ndarray
    if table.schema.library is not None:
        single = table.schema.cell(j, cell)
    elif is_number:
        single = np.array([cell], dtype=np.float64)
    else:
        single = np.array([cell], dtype=object)

    value = column.read(single)[0]
    if np.isnan(value):
        raise ValueError(f"given[{name!r}] is missing; expected a value of the column.")
    if is_number and table.schema.is_integer(j) and value != np.rint(value):
        raise ValueError(f"given[{name!r}]={cell!r}, but the column holds integers.")
    return float(value)


def _observed_cells(cells: dict) -> dict:
    """The cells that are not missing."""
    observed = {}

    for column, cell in cells.items():
        # NaN is not equal to itself, and for NA that is neither true nor false
        same = cell == cell
        if cell is not None and isinstance(same, bool | np.bool_) and same:
            observed[column] = cell

    return observed
