"""Columns that a parameter names: by name, by index or by a mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from skvae.table.kinds import LIKELIHOODS, Categorical


def position(column: Any, names: Sequence) -> int | None:
    """The position of a column given by name or by index (from the end, if negative); None if there is none."""
    # a name goes before an index: columns may be called by numbers
    if column in names:
        return list(names).index(column)

    is_index = isinstance(column, Integral) and not isinstance(column, bool)
    if is_index and -len(names) <= column < len(names):
        return int(column) % len(names)
    return None


def categorical_mask(categorical_features: Any, names: Sequence, by_dtype: Sequence[bool]) -> np.ndarray:
    """Which columns hold categories.

    Parameters
    ----------
    categorical_features : "from_dtype", None, or array-like of {bool, int, str}
        As in `HistGradientBoostingClassifier`.
    names : sequence of length n_columns
    by_dtype : sequence of bool of length n_columns
        Which columns have a categorical or text dtype.

    Returns
    -------
    mask : ndarray of bool of shape (n_columns,)
    """
    mask = np.array(by_dtype, dtype=bool)
    if categorical_features is None or isinstance(categorical_features, str):
        return mask

    # a mask adds to what the dtypes say
    flags = np.atleast_1d(np.asarray(categorical_features))
    if flags.dtype == bool:
        if len(flags) != len(names):
            raise ValueError(
                f"categorical_features is a mask of {len(flags)} columns, but the table has {len(names)}. Give one flag "
                f"per column, or the names or indices of the categorical ones."
            )
        return mask | flags

    # as objects, or numpy would make text of indices beside names
    for column in np.atleast_1d(np.asarray(categorical_features, dtype=object)):
        j = position(column, names)
        if j is None:
            raise ValueError(
                f"categorical_features names the column {column!r}, but the table has {len(names)} columns "
                f"({listed(names)}). Give names or indices of columns."
            )
        mask[j] = True
    return mask


def named_columns(
    names: Sequence, categorical_features: Any, likelihood: str | dict, exposure: Any, bounds: Any
) -> set[int]:
    """Positions of the columns that parameters name; names of no column are left to their own checks."""
    named: list = []
    if categorical_features is not None and not isinstance(categorical_features, str):
        chosen = np.atleast_1d(np.asarray(categorical_features, dtype=object)).tolist()
        is_mask = all(isinstance(flag, bool | np.bool_) for flag in chosen)
        named += np.flatnonzero(chosen).tolist() if is_mask else chosen
    if isinstance(likelihood, dict):
        for columns in likelihood.values():
            named += list(_as_iterable(columns))
    if isinstance(bounds, dict):
        named += list(bounds)
    if exposure is not None:
        named.append(exposure)

    found = set()
    for column in named:
        j = position(column, names)
        if j is not None:
            found.add(j)
    return found


def kinds_asked(likelihood: str | dict, names: Sequence, levels: Sequence) -> list[str]:
    """The kind asked for each column by the parameter `likelihood`, ``"auto"`` included; a list of length n_columns.

    Parameters
    ----------
    likelihood : str or dict of str to columns
        The kind of every column that is not categorical, or of the columns named; the rest of a dict is ``"auto"``.
    names : sequence of length n_columns
    levels : sequence of (list or None) of length n_columns
        Levels of the categorical columns.
    """
    if isinstance(likelihood, str):
        return [likelihood] * len(names)

    asked = ["auto"] * len(names)
    for kind, columns in likelihood.items():
        if kind not in LIKELIHOODS:
            raise ValueError(f"likelihood has the kind {kind!r}; expected one of {', '.join(map(repr, LIKELIHOODS))}.")

        for column in _as_iterable(columns):
            j = position(column, names)
            if j is None:
                raise ValueError(
                    f"likelihood={{{kind!r}: ...}} names the column {column!r}, but the table has {len(names)} columns "
                    f"({listed(names)}). Give a column's name or its index."
                )
            if asked[j] != "auto":
                raise ValueError(f"likelihood names the column {column!r} twice, as {asked[j]!r} and as {kind!r}.")
            _check_levels(kind, column, is_categorical=levels[j] is not None)
            asked[j] = kind
    return asked


def listed(names: Sequence) -> str:
    """The first names of a table, for error messages."""
    text = ", ".join(map(repr, names[:5]))
    if len(names) > 5:
        text += ", ..."
    return text


def _as_iterable(columns: Any) -> Iterable:
    if isinstance(columns, str | Integral):
        return [columns]
    return columns


def _check_levels(kind: str, column: Any, *, is_categorical: bool) -> None:
    """Raise a ValueError if a category is asked to be modelled as a number, or a number as a category."""
    if (kind == Categorical.name) == is_categorical:
        return

    found = "a number"
    if is_categorical:
        found = "categorical"
    raise ValueError(
        f"likelihood names the column {column!r} as {kind!r}, but it is {found}. Say which columns are categories by "
        f"categorical_features."
    )
