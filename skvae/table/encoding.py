"""Values of columns -> the parts of encoded rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from skvae.table.arrangement import Arrangement
from skvae.table.column import Column
from skvae.table.kinds import KINDS
from skvae.table.layout import Layout

ROWS_AT_ONCE = 4096
"""Rows that are encoded at a time: what is made on the way stays in the processor's cache."""


def encode_columns(
    columns: Sequence[Column], arrangement: Arrangement, layout: Layout, values: np.ndarray, dtype: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encode values, in one pass over each column: see `EncodedRows`.

    Parameters
    ----------
    columns : sequence of Column
    arrangement : Arrangement
    layout : Layout
    values : ndarray of float of shape (n_samples, n_features)
        NaN where a cell is missing.
    dtype : dtype, default=None
        Of the encoded rows; None is that of `values`.

    Returns
    -------
    x : ndarray of shape (n_samples, layout.width)
        Without an exposure's offsets, and what an auxiliary decoder reads.
    observed : ndarray of bool of shape (n_samples, n_parts)
    log_jacobian : ndarray of shape (n_samples,)
    """
    n = len(values)

    # a missing cell stays 0 everywhere, and its level -1
    x = np.zeros((n, layout.width), dtype=dtype or values.dtype)
    x[:, layout.first_level : layout.stop] = -1
    observed = np.zeros((n, layout.n_parts), dtype=bool)
    log_jacobian = np.zeros(n)

    for block in _blocks(n):
        for j, column in enumerate(columns):
            cells = values[block, j]
            rows = np.flatnonzero(~np.isnan(cells))

            # kinds never see a missing cell
            encoded = column.kind.encode(cells[rows].astype(np.float64), column.label)

            for i, part in zip(arrangement.places[j], encoded, strict=True):
                # rows in which the part is there, and what it holds in them
                own = rows
                of_part = part.cells
                inputs = part.inputs
                jacobian = part.log_jacobian
                if part.observed is not None:
                    own = rows[part.observed]
                    of_part = of_part[part.observed]
                    inputs = inputs[part.observed]
                    jacobian = np.broadcast_to(jacobian, len(rows))[part.observed]

                observed[block][own, i] = True
                log_jacobian[block][own] += jacobian
                section = KINDS[arrangement.parts[i].kind].section
                _write_cells(layout, section, i, own, of_part, inputs, x[block])

    return x, observed, log_jacobian


def _write_cells(
    layout: Layout, section: str, i: int, rows: np.ndarray, cells: np.ndarray, inputs: np.ndarray, x: np.ndarray
) -> None:
    """Fill the cells of part `i`, shape (len(rows),), in encoded rows without one."""
    if section == "levels":
        x[rows, layout.first_level + i - layout.n_numbers] = cells
        return

    # the likelihood reads a count as it is, the network its logarithm
    if section == "counts":
        x[rows, i] = cells
    # in single precision, the largest number there is stands for all beyond it
    largest = np.finfo(x.dtype).max
    x[rows, layout.first_number + i] = np.clip(inputs, -largest, largest)
    if i in layout.flagged:
        x[rows, layout.first_flag + layout.flagged.index(i)] = 1


def _blocks(n: int) -> Iterator[slice]:
    """Slices of at most `ROWS_AT_ONCE` rows that make up `n` rows."""
    for start in range(0, n, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
