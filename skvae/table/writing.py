"""Values of a table -> a container like the one fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.cells import keep_cells, take_columns
from skvae.table.containers import as_table
from skvae.table.one_cell import is_missing

if TYPE_CHECKING:
    from skvae.table.table import Table


def write_table(table: Table, values: np.ndarray, *, like: Any, exact: Mapping[int, int] | None, beside: Any) -> Any:
    """See `Table.write`."""
    cells = []
    for column, own in zip(table.columns, values.T, strict=True):
        cells.append(column.write(own))
    for j, whole in (exact or {}).items():
        cells[j] = np.full(len(values), whole)

    if table.schema.library is None:
        written = _as_array(table, cells)
        if like is not None:
            written = _keep_in_array(written, as_table(like))
    else:
        written = table.schema.write(cells)
        if like is not None:
            written = keep_cells(written, like, aside=set(table.aside) - table.rules.computed.keys())

    # keep_cells has done so for frames
    if beside is None and table.schema.library is None:
        beside = like
    carried = [j for j in table.aside if j not in table.rules.computed]
    if beside is not None and carried:
        written = _with_columns(table, written, beside, carried)
    return _without_dropped(table, table.rules.complete(written, like))


def _with_columns(table: Table, written: Any, beside: Any, positions: list[int]) -> Any:
    """A container with some columns as they are in another one."""
    if table.schema.library is not None:
        return take_columns(written, as_table(beside), positions)

    written[:, positions] = as_table(beside)[:, positions]
    return written


def _as_array(table: Table, cells: list[np.ndarray]) -> np.ndarray:
    """Columns of cells side by side: floats, or objects if there are levels among them."""
    if table.schema.array_dtype == "object":
        return np.stack([own.astype(object) for own in cells], axis=1)
    largest = float(np.finfo(table.schema.array_dtype).max)
    numbers = np.stack([own.astype(np.float64) for own in cells], axis=1)
    return np.clip(numbers, -largest, largest).astype(table.schema.array_dtype)


def _keep_in_array(written: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An array with the cells of another one that are not missing, as they are."""
    if like.dtype == object:
        missing = np.array([is_missing(cell) for cell in like.ravel()]).reshape(like.shape)
    else:
        missing = np.isnan(like)
    return np.where(missing, written, like)


def _without_dropped(table: Table, written: Any) -> Any:
    """A container without the columns that are in no output."""
    dropped = [j for j in table.aside if table.columns[j].is_dropped]
    if not dropped:
        return written
    if isinstance(written, np.ndarray):
        return np.delete(written, dropped, axis=1)
    return nw.from_native(written, eager_only=True).drop(*map(table.schema.names.__getitem__, dropped)).to_native()
