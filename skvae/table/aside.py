"""Columns that are not modelled: identifiers and free texts, found or named, and what becomes of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skvae.table.cells import is_category
from skvae.table.containers import as_frame
from skvae.table.keys import Keys
from skvae.table.one_cell import is_missing
from skvae.table.schema import Schema
from skvae.table.selection import listed, position
from skvae.table.warning import warn

POLICIES = ("drop", "sequence", "carry")

MIN_ROWS_TEXT = 20
"""A column of fewer rows may well hold as many texts as rows."""

MIN_ROWS_INTEGERS = 100
"""A column of fewer rows may well hold as many integers as rows."""

MIN_EXPECTED_REPEATS = 10
"""Distinct integers are keys if so many of them would repeat, drawn at random between the smallest and the largest."""


@dataclass(frozen=True)
class Aside:
    """What becomes of a column that is not modelled.

    Attributes
    ----------
    policy : {"drop", "sequence", "carry", "compute"}
        It is in no output; new rows have new keys; or new rows have missing cells. Under the last two, rows that are filled or
        reconstructed keep their own cells. ``"compute"``: a constraint replaces them, if they are numbers.
    keys : Keys or None
        For ``"sequence"``.
    """

    policy: str
    keys: Keys | None = None

    def cells(self, n: int) -> np.ndarray:
        """Cells of n new rows, ndarray of shape (n,); objects that are None where they are missing."""
        if self.keys is not None:
            return self.keys.new(n)
        if self.policy == "compute":
            return np.zeros(n)
        return np.full(n, None, dtype=object)

    def state(self) -> dict:
        """The fields, as JSON can hold them."""
        return {"policy": self.policy, "keys": None if self.keys is None else asdict(self.keys)}

    @classmethod
    def from_state(cls, state: dict) -> Aside:
        """What has the fields of `state`."""
        keys = state["keys"]
        return cls(state["policy"], None if keys is None else Keys(**keys))


def find_aside(X: Any, schema: Schema, ignore: Any, named: Collection[int]) -> dict[int, Aside]:
    """Columns that are not modelled.

    Parameters
    ----------
    X : ndarray (as `as_table` returns it) or DataFrame of shape (n_samples, n_features)
    schema : Schema
    ignore : "auto", None, array-like of columns, or dict of column to policy
        See `VAEEstimator`.
    named : collection of int
        Columns that other parameters say how to model.

    Returns
    -------
    aside : dict of int to Aside

    Raises
    ------
    ValueError
        If there is no such column or policy, or the keys of a column follow no pattern.
    """
    if ignore is None:
        return {}
    if isinstance(ignore, str):
        return _found(X, schema, named)

    policies = ignore
    if not isinstance(ignore, dict):
        policies = dict.fromkeys(np.atleast_1d(np.asarray(ignore, dtype=object)).tolist(), "drop")

    aside = {}
    for name, policy in policies.items():
        j = position(name, schema.names)
        if j is None:
            raise ValueError(
                f"ignore names the column {name!r}, but the table has {len(schema.names)} columns "
                f"({listed(schema.names)}). Give names or indices of columns."
            )
        if policy not in POLICIES:
            raise ValueError(f"ignore={{{name!r}: {policy!r}}}; expected one of {', '.join(map(repr, POLICIES))}.")
        if j in named:
            raise ValueError(f"ignore names the column {name!r}, which another parameter says how to model.")
        aside[j] = _under(policy, _cells(X, j), schema.labels[j])

    if len(aside) == len(schema.names):
        raise ValueError(f"ignore names all {len(aside)} columns; expected at least one that is modelled.")
    return aside


def _under(policy: str, cells: list, label: str) -> Aside:
    if policy != "sequence":
        return Aside(policy)

    keys = _keys_of(cells)
    if keys is None:
        raise ValueError(
            f"ignore={{{label}: 'sequence'}}, but its cells follow no pattern of keys: expected whole numbers, texts that "
            f"differ in a number, or UUIDs, none of them missing or twice. Use 'carry' or 'drop'."
        )
    return Aside(policy, keys)


def _keys_of(cells: list) -> Keys | None:
    """The pattern of keys, none of them missing or twice; None if there is none."""
    if None in cells or len(set(cells)) < len(cells):
        return None
    if all(map(_is_text, cells)):
        return Keys.of_texts(cells)
    if all(map(_is_whole, cells)):
        return Keys.of_integers(list(map(int, cells)))
    return None


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str)


def _is_whole(cell: Any) -> bool:
    is_number = isinstance(cell, int | float | np.integer) and not isinstance(cell, bool)
    return is_number and float(cell).is_integer()


# ----------------------------------------------------------------------------------------------------------- found by itself


def _found(X: Any, schema: Schema, named: Collection[int]) -> dict[int, Aside]:
    """Columns that look like identifiers or free texts; one warning names all of them."""
    aside = {}
    for j in range(len(schema.names)):
        if j in named:
            continue
        if _are_integer_keys(X, schema, j):
            aside[j] = Aside("sequence", Keys.of_integers(_cells(X, j)))
        elif _are_texts(X, j):
            cells = _cells(X, j)
            keys = None
            # no new text is a category of a dtype
            if schema.library is None or schema.types[j] not in ("Categorical", "Enum"):
                keys = _keys_of(cells)
            if keys is None:
                _refuse_numbers(cells, schema.labels[j])
            aside[j] = Aside("carry" if keys is None else "sequence", keys)

    if not aside:
        return {}
    told = [f"{schema.labels[j]} ({own.policy})" for j, own in aside.items()]
    if len(aside) == len(schema.names):
        raise ValueError(
            f"All columns look like identifiers or free text: {', '.join(told)}. Give columns to learn from, or model these "
            f"by ignore=None."
        )
    warn(
        f"Columns that look like identifiers or free text are not modelled: {', '.join(told)}. New rows have new keys where "
        f"it says sequence, and missing cells where it says carry. State it by ignore={{column: 'sequence', 'carry' or "
        f"'drop'}}, or model all columns by ignore=None.",
    )
    return aside


def find_identifiers(X: Any, schema: Schema) -> list[int]:
    """Columns that look like identifiers or free texts: those that ``ignore="auto"`` finds, without a word."""
    found = []
    for j in range(len(schema.names)):
        if _are_integer_keys(X, schema, j) or _are_texts(X, j):
            found.append(j)
    return found


def _are_integer_keys(X: Any, schema: Schema, j: int) -> bool:
    """Whether integers of a frame are all different where chance would have repeated many of them."""
    if not schema.is_integer(j):
        return False
    frame = as_frame(X)
    if frame is None or len(frame) < MIN_ROWS_INTEGERS:
        return False

    column = frame[:, j]
    if column.null_count():
        return False
    n = len(column)
    span = float(column.max()) - float(column.min()) + 1
    # the expected number of pairs that are equal (the birthday problem)
    return n * (n - 1) / (2 * span) >= MIN_EXPECTED_REPEATS and column.n_unique() == n


def _are_texts(X: Any, j: int) -> bool:
    """Whether most cells of a column are distinct texts."""
    frame = as_frame(X)
    if frame is not None:
        column = frame[:, j]
        if not is_category(column.dtype):
            return False
    elif X.dtype != object or not any(map(_is_text, X[:MIN_ROWS_TEXT, j])):
        return False

    cells = list(filter(None, _cells(X, j)))
    if len(cells) < MIN_ROWS_TEXT or not all(map(_is_text, cells)):
        return False
    return len(set(cells)) > len(cells) / 2


def _refuse_numbers(cells: Sequence, label: str) -> None:
    """Raise a ValueError if texts are numbers."""
    try:
        for cell in cells:
            float(cell or 0)
    except ValueError:
        return
    raise ValueError(f"Column {label} holds numbers as text. Convert it to numbers.")


def _cells(X: Any, j: int) -> list:
    """Cells of a column, None where they are missing."""
    frame = as_frame(X)
    column = X[:, j].tolist() if frame is None else frame[:, j].to_list()

    cells = []
    for cell in column:
        cells.append(None if is_missing(cell) else cell)
    return cells
