"""Several tables with the same columns as plain arrays that can be compared: numbers, and codes of levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skvae.table import as_table
from skvae.table.aside import find_identifiers
from skvae.table.cells import find_categories, read_all
from skvae.table.containers import as_frame
from skvae.table.schema import Schema

MOST_LEVELS_OF_TREES = 254
"""Levels above this one are one to boosted trees, which take no more."""


class Coded(NamedTuple):
    """Rows in plain arrays.

    Attributes
    ----------
    numbers : ndarray of float of shape (n, n_numbers)
        NaN where a cell is missing.
    codes : ndarray of int of shape (n, n_categories)
        A missing cell is a level of its own.
    n_levels : ndarray of int of shape (n_categories,)
        Number of levels of each category, over all tables that were coded together.
    """

    numbers: np.ndarray
    codes: np.ndarray
    n_levels: np.ndarray

    def take(self, rows: Any) -> Coded:
        """The rows at some positions."""
        return Coded(self.numbers[rows], self.codes[rows], self.n_levels)

    def at_most(self, n: int, rng: np.random.Generator) -> Coded:
        """At most `n` of the rows, drawn without replacement."""
        if len(self.numbers) <= n:
            return self
        return self.take(rng.choice(len(self.numbers), n, replace=False))


class Columns(NamedTuple):
    """What the columns of coded tables are.

    Attributes
    ----------
    numbers, categories : list
        Their names.
    levels : list of list
        Of each category, in the order of its codes; a last code is that of missing cells.
    left_out : list
        Names of identifiers, and of numbers of which the first table has none: they are not compared.
    times : dict of str to dtype
        Numbers that are ticks of dates and times, and what these are.
    """

    numbers: list
    categories: list
    levels: list[list]
    left_out: list
    times: dict[Any, np.dtype]


def code_together(tables: Sequence[Any], categorical_features: Any = "from_dtype") -> tuple[Columns, list[Coded]]:
    """Code several tables whose columns are those of the first one.

    Parameters
    ----------
    tables : sequence of (array-like or DataFrame)
    categorical_features : "from_dtype", None, or array-like of {bool, int, str}
        As for `VAEEstimator`. Columns of a boolean dtype are categories, too.

    Returns
    -------
    columns : Columns
    coded : list of Coded

    Raises
    ------
    ValueError
        If a table has other columns, or all look like identifiers.
    """
    first, *others = map(as_table, tables)
    schema = Schema.of(first)
    in_order = [first]
    for table in others:
        in_order.append(_with_columns(table, schema))

    # identifiers differ from row to row by their nature
    aside = find_identifiers(first, schema)
    if len(aside) == len(schema.names):
        raise ValueError(f"All columns look like identifiers or free text: {schema.names}. Give columns to compare.")

    levels, boolean = find_categories(first, schema, categorical_features, aside)
    for table in in_order[1:]:
        more, _ = find_categories(table, schema, categorical_features, aside)
        levels = list(map(_union, levels, more))

    names = np.array(schema.names, dtype=object)
    numbers: list[int] = []
    categories: list[int] = []
    for j in range(len(names)):
        if j in aside:
            continue
        if levels[j] is None and not boolean[j]:
            numbers.append(j)
        else:
            categories.append(j)
    # booleans are read as numbers
    own_levels = [levels[j] or [False, True] for j in categories]

    coded: list[Coded] = []
    for table in in_order:
        values = read_all(table, levels, schema.labels, "error", schema.clocks, aside)
        coded.append(_coded(values, numbers, categories, own_levels))
    # a column without a cell says nothing of rows
    empty = np.flatnonzero(np.isnan(coded[0].numbers).all(axis=0)).tolist()
    if empty:
        aside += [numbers[i] for i in empty]
        numbers = np.delete(numbers, empty).tolist()
        coded = [own._replace(numbers=np.delete(own.numbers, empty, axis=1)) for own in coded]

    columns = Columns(
        numbers=names[numbers].tolist(),
        categories=names[categories].tolist(),
        levels=own_levels,
        left_out=names[aside].tolist(),
        times=_times(schema, numbers),
    )
    return columns, coded


def _times(schema: Schema, numbers: list[int]) -> dict[Any, np.dtype]:
    """Names of the numbers that are ticks of dates and times, and what these are."""
    times = {}
    for j in numbers:
        dtype = schema.time_dtype(j)
        # spans have no axis
        if dtype is not None and dtype.kind == "M":
            times[schema.names[j]] = dtype
    return times


def _with_columns(table: Any, schema: Schema) -> Any:
    """A table with its columns in the order of another one's."""
    frame = as_frame(table)
    names: list = list(range(table.shape[1])) if frame is None else frame.columns
    if set(names) != set(schema.names):
        raise ValueError(f"The tables have the columns {schema.names} and {names}. Expected the same.")
    if names == list(schema.names):
        return table
    return as_table(frame.select(*schema.names).to_native())  # type: ignore[union-attr]


def _union(levels: list | None, others: list | None) -> list | None:
    """Levels of both, those of the first one first; None if both are numbers."""
    if levels is None:
        return None
    # unlike a set, a dict keeps the order
    return list(dict.fromkeys([*levels, *(others or ())]))


def _coded(values: np.ndarray, numbers: list[int], categories: list[int], levels: list[list]) -> Coded:
    # the last code is that of missing cells, whether there are any or not
    n_levels = np.array(list(map(len, levels)), dtype=int) + 1
    codes = values[:, categories]
    missing = np.isnan(codes)
    codes = np.where(missing, n_levels - 1, codes).astype(int)
    return Coded(values[:, numbers].astype(np.float64), codes, n_levels)


def one_hot(rows: Coded) -> np.ndarray:
    """The categories as 0 and 1, float32 of shape (n, sum of n_levels)."""
    encoded = np.zeros((len(rows.codes), int(rows.n_levels.sum())), dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum(rows.n_levels)[:-1]]).astype(int)
    np.put_along_axis(encoded, rows.codes + starts, 1, axis=1)
    return encoded


def standardise(reference: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Arrays in units of the means and deviations of `reference`, missing cells at 0 and flagged by further columns."""
    mean = np.nanmean(reference, axis=0)
    scale = np.nanstd(reference, axis=0)
    # what is constant stays at 0
    scale[scale == 0] = 1.0
    flagged = np.isnan(reference).any(axis=0)

    arrays = []
    for X in (reference, *others):
        arrays.append(np.column_stack([np.nan_to_num((X - mean) / scale), np.isnan(X[:, flagged])]))
    return arrays


def dense(reference: Coded, *others: Coded) -> list[np.ndarray]:
    """Tables as matrices: standardised numbers beside one-hot categories; the scale is that of `reference`."""
    tables = (reference, *others)
    numbers = standardise(*[table.numbers for table in tables])

    matrices = []
    for X, table in zip(numbers, tables, strict=True):
        matrices.append(np.column_stack([X, one_hot(table)]))
    return matrices


def compact(rows: Coded) -> np.ndarray:
    """Numbers beside codes, as boosted trees read them."""
    return np.column_stack([rows.numbers, np.minimum(rows.codes, MOST_LEVELS_OF_TREES)])
