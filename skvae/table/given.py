"""Conditions on rows of a table: cells that they have, ranges and sets that cells fall into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae.table.cells import keep_cells, read_all
from skvae.table.containers import as_frame, as_table
from skvae.table.one_cell import exact_one, is_missing, read_one
from skvae.table.selection import listed
from skvae.table.table import Table


@dataclass(frozen=True)
class Allowed:
    """The values of a column that a condition allows: a range, or members of a set.

    Attributes
    ----------
    low, high : float
        Range; infinite where there is no limit.
    members : ndarray of float64 of shape (n_members,) or None
        The only values that are allowed.
    """

    low: float = -np.inf
    high: float = np.inf
    members: np.ndarray | None = None

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Which values of shape (n,) are allowed, ndarray of bool."""
        if self.members is not None:
            return np.isin(values, self.members)
        return (values >= self.low) & (values <= self.high)


@dataclass(frozen=True)
class Conditions:
    """What rows are to meet.

    Attributes
    ----------
    row : ndarray of float64 of shape (1, n_features)
        Cells that every row has; NaN elsewhere.
    exact : dict of int to int
        Of these cells, by column, the integers and ticks, which floats may round.
    allowed : dict of int to Allowed
        By column, the values that cells may have.
    """

    row: np.ndarray
    exact: dict[int, int]
    allowed: dict[int, Allowed]

    def hold(self, values: np.ndarray) -> np.ndarray:
        """Which rows of shape (n, n_features) have cells that are allowed, ndarray of bool of shape (n,)."""
        met = np.ones(len(values), dtype=bool)
        for j, allowed in self.allowed.items():
            met &= allowed.holds(values[:, j])
        return met


def read_conditions(table: Table, given: dict) -> Conditions:
    """Conditions by column.

    Parameters
    ----------
    table : Table
    given : dict
        By column, a cell, a pair (low, high) for the range of a number or time, None where there is no limit, or a list or set
        of cells.

    Returns
    -------
    conditions : Conditions

    Raises
    ------
    ValueError
        If the table has no such column, or no row can meet a condition.
    """
    row = np.full((1, len(table.columns)), np.nan)
    exact = {}
    allowed = {}

    for name, condition in given.items():
        j = _modelled(table, name)
        found = _read_allowed(table, j, name, condition)
        if found is not None:
            allowed[j] = found
            continue

        row[0, j] = _read_cell(table, j, name, condition)
        whole = exact_one(table.schema, j, condition)
        if whole is not None:
            exact[j] = whole

    for high, low in table.rules.differences.items():
        if not np.isnan(row[0, high]) and np.isnan(row[0, low]):
            names = table.schema.names
            raise ValueError(
                f"given names the column {names[high]!r} without {names[low]!r}, from which a constraint measures it. Give "
                f"both, or a range of {names[high]!r}."
            )
    _check_cells(table, table.rules.forward(row))
    return Conditions(row, exact, allowed)


def check_conditions(given: Any) -> Any:
    """A table of conditions as `as_table` returns it.

    Raises
    ------
    ValueError
        If it is neither a frame nor an array of two dimensions with at least one row.
    """
    shape = given.shape if hasattr(given, "shape") else np.shape(given)
    if len(shape) != 2 or shape[0] == 0:
        raise ValueError(
            f"given must be a dict of conditions by column, or a table with a condition per row, but got "
            f"{type(given).__name__} of shape {shape}. Give {{column: cell}}, or a frame of the cells given."
        )
    return as_table(given)


def read_rows(table: Table, given: Any) -> tuple[np.ndarray, list[int]]:
    """Cells of many rows, of some or all columns.

    Parameters
    ----------
    table : Table
    given : DataFrame of shape (n, n_given), or ndarray of shape (n, n_features)
        As `check_conditions` returns it. One condition per row; a cell that is missing is none.

    Returns
    -------
    values : ndarray of float64 of shape (n, n_features)
        NaN where no cell is given.
    positions : list of int of length n_given
        The columns of the table that `given` has.

    Raises
    ------
    ValueError
        If the table has no such columns, or no row can have these cells.
    """
    values, positions = read_some(table, given)
    _check_cells(table, table.rules.forward(values))
    return values, positions


def read_some(table: Table, given: Any, handle_unknown: str = "error") -> tuple[np.ndarray, list[int]]:
    """`read_rows` of any cells, be they in the range of their column or not."""
    frame = as_frame(given)
    if frame is None:
        if given.shape[1] != len(table.columns):
            raise ValueError(
                f"given has {given.shape[1]} columns, but the table has {len(table.columns)}. Give all of them, with NaN in "
                f"the cells that are to be drawn, or a frame of some columns."
            )
        positions = list(range(given.shape[1]))
    else:
        positions = []
        for name in frame.columns:
            positions.append(_position(table, name))

    levels = []
    labels = []
    clocks = []
    aside = []
    for i, j in enumerate(positions):
        column = table.columns[j]
        levels.append(column.levels)
        labels.append(column.label)
        clocks.append(table.schema.clocks[j])
        if column.aside is not None:
            aside.append(i)

    part = read_all(given, levels, labels, handle_unknown, clocks, aside)
    values = np.full((len(part), len(table.columns)), np.nan)
    values[:, positions] = part
    return values, positions


def repeated(given: Any, n: int) -> Any:
    """A frame with each of its rows `n` times, one after the other; an array as it is."""
    frame = as_frame(given)
    if frame is None or n == 1:
        return given
    return frame[np.repeat(np.arange(len(frame)), n).tolist()].to_native()


def write_given(table: Table, values: np.ndarray, given: Any, positions: list[int]) -> Any:
    """A container of completed rows, in which the cells of `given` are as they are.

    Parameters
    ----------
    table : Table
    values : ndarray of shape (n, n_features)
        Without missing cells.
    given, positions
        See `read_rows`.
    """
    written = table.write(values)
    if as_frame(given) is None or table.schema.library is None:
        return written
    return keep_cells(written, given, positions, table.aside)


def _position(table: Table, name: Any) -> int:
    names = table.schema.names
    if name not in names:
        raise ValueError(
            f"given names the column {name!r}, which the table does not have. Its columns are {listed(names)}."
        )
    return names.index(name)


def _modelled(table: Table, name: Any) -> int:
    """Position of a column that conditions can be set on."""
    j = _position(table, name)
    if table.columns[j].aside is not None:
        raise ValueError(f"given names the column {name!r}, which is not modelled: see ignore.")
    return j


def _read_allowed(table: Table, j: int, name: Any, condition: Any) -> Allowed | None:
    """A range or a set of more than one cell; None if the condition is a cell."""
    levels = table.columns[j].levels
    # levels may be tuples
    if levels is not None and isinstance(condition, tuple) and condition in levels:
        return None

    if isinstance(condition, tuple):
        return _read_range(table, j, name, condition)
    if isinstance(condition, list | set | frozenset | np.ndarray):
        members = []
        for cell in condition:
            members.append(_read_cell(table, j, name, cell))
            if j not in table.rules.differences:
                _check_cell(table, j, members[-1])
        if not members:
            raise ValueError(f"given[{name!r}] is empty; expected at least one value of the column.")
        return Allowed(members=np.array(members))
    return None


def _read_range(table: Table, j: int, name: Any, condition: tuple) -> Allowed:
    column = table.columns[j]
    if column.levels is not None or len(condition) != 2:
        raise ValueError(
            f"given[{name!r}]={condition!r}, but expected a cell, a list of cells or, for a number or time, a pair (low, "
            f"high)."
        )

    low, high = -np.inf, np.inf
    if condition[0] is not None:
        low = _read_cell(table, j, name, condition[0])
    if condition[1] is not None:
        high = _read_cell(table, j, name, condition[1])

    least, greatest = -np.inf, np.inf
    if column.grid is not None and j not in table.rules.differences:
        least, greatest = column.grid.low, column.grid.high
    if low > high or low > greatest or high < least:
        raise ValueError(
            f"given[{name!r}]={condition!r}, but no row can meet it: expected low <= high, and a part of the column's range, "
            f"from {least:g} to {greatest:g}."
        )
    return Allowed(low, high)


def _read_cell(table: Table, j: int, name: Any, cell: Any) -> float:
    """Value of one cell of column `j`."""
    try:
        value = read_one(table.schema, j, cell, table.columns[j].levels)
    except ValueError as error:
        raise ValueError(f"given[{name!r}]: {error}") from error

    if np.isnan(value):
        raise ValueError(f"given[{name!r}] is missing; expected a value of the column.")
    return value


def _check_cells(table: Table, values: np.ndarray) -> None:
    """Raise a ValueError if a cell of rows, shape (n, n_features), NaN where none is given, is one that no row can have."""
    table.check_exposure(values, to_score=False)
    for j in range(len(table.columns)):
        cells = values[:, j]
        for value in np.unique(cells[~np.isnan(cells)]):
            _check_cell(table, j, value)


def _check_cell(table: Table, j: int, value: float) -> None:
    column = table.columns[j]
    column.kind.check_given(value, column.label)
    if column.levels is None and not table.schema.can_hold(j, value):
        raise ValueError(f"Column {column.label} of {table.schema.types[j]} cannot hold {value:g}.")

    if column.grid is not None and not column.grid.low <= value <= column.grid.high:
        raise ValueError(
            f"Column {column.label} has values from {column.grid.low:g} to {column.grid.high:g}, but got {value:g}, which no "
            f"row can have. Give a value in this range, or fit with a wider one: see bounds."
        )


# ---------------------------------------------------------------------------------------------------------------- one row


def read_cells(table: Table, cells: dict) -> np.ndarray:
    """Values of one row that has the given cells and misses all others, ndarray of float64 of shape (1, n_features)."""
    row = np.full((1, len(table.columns)), np.nan)
    for name, cell in cells.items():
        j = _position(table, name)
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


def _observed_cells(cells: dict) -> dict:
    """The cells that are not missing."""
    return {column: cell for column, cell in cells.items() if not is_missing(cell)}
