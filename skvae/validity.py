"""Rows drawn again until they keep the constraints of their table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skvae.table import Table
from skvae.table.warning import warn

TIMES = 50
"""How many times as many rows as are wanted are drawn before it is an error."""

COPIES = 16
"""Completed copies of a row that breaks a constraint, among which one is sought that keeps it."""


def valid_rows(table: Table, draw: Callable[[int], np.ndarray], n: int) -> np.ndarray:
    """n rows that keep all constraints.

    Parameters
    ----------
    table : Table
    draw : callable
        ``draw(n)`` gives values of n rows, of shape (n, n_features).
    n : int

    Returns
    -------
    values : ndarray of shape (n, n_features)

    Raises
    ------
    ValueError
        If hardly any row keeps them.
    """
    values = draw(n)
    if not table.rules.all:
        return values

    kept = [values[table.rules.hold(table.write(values))]]
    n_kept = len(kept[0])
    n_drawn = n
    while n_kept < n:
        if n_drawn >= TIMES * n:
            raise ValueError(
                f"Of {n_drawn} rows drawn, only {n_kept} keep the constraints, of {n} that are wanted: the model has hardly "
                f"learnt them. State them by construction (Inequality, FixedSum, Function) where that is possible."
            )
        # as many as the share so far asks for, and at least as many as there were
        values = draw(n)
        kept.append(values[table.rules.hold(table.write(values))])
        n_kept += len(kept[-1])
        n_drawn += n

    return np.concatenate(kept)[:n]


def valid_copies(table: Table, copies: np.ndarray, redraw: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Completed rows, of which those that break a constraint are replaced by other completions that do not.

    Parameters
    ----------
    table : Table
    copies : ndarray of shape (n_copies, n, n_features)
    redraw : callable
        ``redraw(rows)`` gives `COPIES` completions of the rows at some positions, of shape (COPIES, n_rows, n_features).

    Returns
    -------
    copies : ndarray of shape (n_copies, n, n_features)
    """
    if not table.rules.all:
        return copies

    n_left = 0
    for copy in copies:
        rows = np.flatnonzero(~table.rules.hold(table.write(copy)))
        if not len(rows):
            continue
        n_left += _replace(table, copy, rows, redraw(rows))

    if n_left:
        warn(
            f"{n_left} rows were filled, but no completion was found that keeps the constraints: what is observed in them "
            f"may break one.",
        )
    return copies


def _replace(table: Table, copy: np.ndarray, rows: np.ndarray, others: np.ndarray) -> int:
    """Replace rows of a copy, in place, by the first of their other completions that is valid; how many have none."""
    for i in range(len(others)):
        valid = table.rules.hold(table.write(others[i]))
        copy[rows[valid]] = others[i, valid]
        rows = rows[~valid]
        others = others[:, ~valid]
        if not len(rows):
            break
    return len(rows)
