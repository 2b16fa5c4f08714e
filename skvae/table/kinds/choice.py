"""The kind of a column, by what it holds."""

from __future__ import annotations

import numpy as np

from skvae.table.kinds.base import KINDS, Kind
from skvae.table.kinds.counts import check_counts
from skvae.table.kinds.levels import Categorical, Constant
from skvae.table.kinds.numbers import Bernoulli, Normal
from skvae.table.kinds.quantile_normal import QuantileNormal

ROWS_FOR_QUANTILES = 1000
"""``likelihood="auto"`` models numbers as ``"quantile_normal"`` from this number of rows on, as ``"normal"`` below."""

MIN_ROWS_TWO_VALUES = 10
"""In shorter columns, two distinct values say nothing about the kind."""

LIKELIHOODS = tuple(name for name in KINDS if name != Constant.name)
"""Kinds that `likelihood` may name."""


def choose_kind(values: np.ndarray, asked: str, *, label: str, levels: list | None, boolean: bool) -> type[Kind]:
    """The kind of a column: the one asked for, or for ``"auto"`` one that suits its values.

    Parameters
    ----------
    values : ndarray of float of shape (n,)
        Observed cells.
    asked : str
        A key of `KINDS`, or ``"auto"``.
    label : str
        What errors call the column.
    levels : list or None
        Levels of a categorical column.
    boolean : bool
        Whether the dtype of the column is boolean.

    Returns
    -------
    kind : type
    """
    if not len(values):
        return Constant

    low = values.min()
    high = values.max()
    if levels is not None and low == high:
        return Constant
    if levels is not None:
        return Categorical
    if asked == Bernoulli.name or (asked == "auto" and boolean):
        return Bernoulli

    # rounding noise of a constant is no variation; halves, since a difference may overflow
    largest = max(abs(low), abs(high))
    if high / 2 - low / 2 <= 4 * np.finfo(values.dtype).eps * largest:
        return Constant

    if asked != "auto":
        if KINDS[asked].is_count:
            check_counts(values, label, asked)
        return KINDS[asked]

    if len(values) >= MIN_ROWS_TWO_VALUES and np.all((values == low) | (values == high)):
        return Bernoulli

    # an empirical distribution takes many rows
    if len(values) >= ROWS_FOR_QUANTILES:
        return QuantileNormal
    return Normal
