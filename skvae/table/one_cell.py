"""One cell that the caller states, as the value of a column: nothing is converted that could mean something else."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from skvae.table.cells import read_cells, ticks_of
from skvae.table.schema import Schema

TIMES = {
    "Date": (datetime.date, np.datetime64),
    "Datetime": (datetime.date, np.datetime64),
    "Duration": (datetime.timedelta, np.timedelta64),
    "Time": (datetime.time,),
}
"""Types of the cells of a column of times; those of pandas are subclasses."""


def read_one(schema: Schema, j: int, cell: Any, levels: Sequence | None) -> float:
    """The value of a cell in column `j`.

    Parameters
    ----------
    schema : Schema
    j : int
    cell : object
    levels : sequence or None
        Levels of the column, if it is categorical.

    Returns
    -------
    value : float
        NaN if the cell is missing.

    Raises
    ------
    ValueError
        If the column can have no such cell.
    """
    label = schema.labels[j]
    if levels is not None:
        return float(read_cells(_column_of(cell), levels, label)[0])

    if is_missing(cell):
        return np.nan
    if schema.library is not None and schema.types[j] in TIMES:
        return _read_time(schema, j, cell, label)
    return _read_number(schema, j, cell, label)


def exact_one(schema: Schema, j: int, cell: Any) -> int | None:
    """An integer or time of column `j` as a whole number; None for other columns of frames, and for arrays.

    Parameters
    ----------
    schema : Schema
    j : int
    cell : object
        One that `read_one` reads.
    """
    if schema.library is None:
        return None
    if schema.types[j] in TIMES:
        return int(ticks_of(schema.cell(j, cell))[0])
    if schema.is_integer(j):
        return int(cell)
    return None


def _column_of(cell: Any) -> np.ndarray:
    """An array that holds one cell, whatever that is."""
    column = np.empty(1, dtype=object)
    column[0] = cell
    return column


def is_missing(cell: Any) -> bool:
    """Whether a cell is None, NaN, NA or NaT."""
    if cell is None:
        return True

    # NaN is not equal to itself, and for NA that is neither true nor false
    same = cell == cell
    return not (isinstance(same, bool | np.bool_) and same)


def _read_time(schema: Schema, j: int, cell: Any, label: str) -> float:
    name = schema.types[j]
    if not isinstance(cell, TIMES[name]):
        raise ValueError(f"Column {label} of {name} holds times, but got {cell!r}. Give a time of that kind.")

    clock = schema.clocks[j]
    if isinstance(cell, datetime.datetime) and clock is not None and clock.has_zone is not None:
        has_zone = cell.tzinfo is not None
        if has_zone != clock.has_zone:
            expected = "in a time zone" if clock.has_zone else "without a time zone"
            raise ValueError(f"Column {label} holds times {expected}, but got {cell!r}.")

    return float(read_cells(schema.cell(j, cell), None, label)[0])


def _read_number(schema: Schema, j: int, cell: Any, label: str) -> float:
    if not isinstance(cell, Real | np.bool_):
        raise ValueError(f"Column {label} holds numbers, but got {cell!r}. Give a number.")

    value = float(cell)
    if np.isinf(value):
        raise ValueError(f"Column {label} holds finite numbers, but got {cell!r}.")
    if schema.library is None:
        return value

    if schema.types[j] == "Boolean" and value not in (0, 1):
        raise ValueError(f"Column {label} holds booleans, but got {cell!r}. Give True or False.")
    if schema.is_integer(j):
        _check_integer(schema.types[j], cell, value, label)
    return value


def _check_integer(type_name: str, cell: Any, value: float, label: str) -> None:
    if value != np.rint(value):
        raise ValueError(f"Column {label} holds integers, but got {cell!r}.")

    # numpy has no integers of 128 bits
    info = np.iinfo(type_name.lower().replace("128", "64"))
    whole = int(cell) if isinstance(cell, Integral) else int(value)
    if not info.min <= whole <= info.max:
        raise ValueError(
            f"Column {label} of {type_name} holds integers from {info.min} to {info.max}, but got {cell!r}."
        )
