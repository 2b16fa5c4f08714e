"""Exposure: the column that the counts of a row are in proportion to (days observed, policy years, the row's total)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skvae.table.kinds import KINDS, Kind, Normal, QuantileNormal
from skvae.table.selection import listed, position


@dataclass(frozen=True)
class Exposure:
    """How the offset of a row's counts follows from its exposure.

    A count has the mean ``exp(output + offset)``, with the decoder's output and ``offset = log(exposure / mean exposure)``
    (McCullagh & Nelder, 1989, section 6.3): the output is the log mean at the mean exposure of the training rows, so that the
    unit of the exposure does not matter.

    Attributes
    ----------
    column : int
        Position of the exposure among the columns.
    kind : Kind
        Its kind.
    parts : tuple of int
        Positions of its parts; none if it was constant at fit.
    smallest : float
        Smallest exposure seen at fit: none below it is decoded or drawn.
    log_mean : float
        Logarithm of the mean exposure.
    """

    column: int
    kind: Kind
    parts: tuple[int, ...]
    smallest: float
    log_mean: float

    def offsets(self, exposures: np.ndarray) -> np.ndarray:
        """Offsets of the counts for exposures of shape (n,), both in float64; NaN where missing."""
        return np.log(exposures) - self.log_mean

    def offsets_of_parts(self, cells: np.ndarray) -> np.ndarray:
        """Offsets of the counts, shape (n,), for decoded or drawn parts of shape (n, n_parts)."""
        own = list(cells[:, list(self.parts)].T)
        values = self.kind.decode(own, len(cells))

        # a normal exposure may be drawn below 0
        return self.offsets(np.maximum(values, self.smallest))


def exposure_column(
    exposure: str | int | None, names: Sequence, levels: Sequence, asked: Sequence[str], likelihood: str | dict
) -> int | None:
    """The position of the column `exposure`; None if there is no exposure.

    Parameters
    ----------
    exposure : str, int or None
        Name or index of a column.
    names : sequence of length n_columns
    levels : sequence of (list or None) of length n_columns
        Levels of the categorical columns.
    asked : sequence of str of length n_columns
        Kind asked for each column, ``"auto"`` included.
    likelihood : str or dict
        The parameter that it was asked by.

    Returns
    -------
    column : int or None

    Raises
    ------
    ValueError
        If there is no such column, it cannot be an exposure, or no other column is a count.
    """
    if exposure is None:
        return None

    column = position(exposure, names)
    if column is None:
        raise ValueError(
            f"exposure={exposure!r} names no column: the table has {len(names)} columns ({listed(names)}). Give a column's "
            f"name or its index."
        )
    if levels[column] is not None:
        raise ValueError(
            f"exposure={exposure!r} names a categorical column; expected one of positive numbers, such as the time observed."
        )
    if isinstance(likelihood, dict) and asked[column] not in ("auto", Normal.name, QuantileNormal.name):
        raise ValueError(
            f"exposure={exposure!r} names a column that likelihood models as {asked[column]!r}. Leave it out of likelihood, "
            f"or name it under 'normal' or 'quantile_normal'."
        )

    others = {*asked[:column], *asked[column + 1 :]} - {"auto"}
    if not any(KINDS[kind].is_count for kind in others):
        raise ValueError(
            f"exposure={exposure!r}, but no other column is a count. Say which are by likelihood={{'poisson': [...]}} or "
            f"{{'negative_binomial': [...]}}, or leave exposure out."
        )
    return column


def learn_exposure(values: np.ndarray, weight: np.ndarray, label: str) -> tuple[float, float]:
    """Smallest value and logarithm of the weighted mean of an exposure.

    Parameters
    ----------
    values : ndarray of float64 of shape (n_samples,)
        NaN where missing.
    weight : ndarray of shape (n_samples,)
        Weights of the rows.
    label : str
        What errors call the column.

    Raises
    ------
    ValueError
        If all exposures are missing, or one is not positive.
    """
    check_positive(values, label)

    present = ~np.isnan(values)
    if not present.any():
        raise ValueError(f"Column {label} is the exposure of the counts, but all its cells are missing.")

    # in units of the largest, so that their sum does not overflow
    largest = values[present].max()
    mean = np.average(values[present] / largest, weights=weight[present])
    return float(values[present].min()), float(np.log(largest) + np.log(mean))


def check_positive(exposures: np.ndarray, label: str) -> None:
    """Raise a ValueError if an exposure, of shape (n,), is observed but not positive."""
    wrong = np.flatnonzero(exposures <= 0)
    if len(wrong):
        raise ValueError(
            f"Column {label} is the exposure of the counts, which must be positive, but {len(wrong)} of {len(exposures)} rows "
            f"hold {exposures[wrong[0]]:g} or the like (the first is row {wrong[0]}). Drop these rows: without exposure a "
            f"count says nothing."
        )


def check_complete(exposures: np.ndarray, counts: np.ndarray, label: str) -> None:
    """Raise a ValueError if an exposure, of shape (n,), is missing beside a count, `counts` of shape (n, n_counts)."""
    missing = np.flatnonzero(np.isnan(exposures) & ~np.isnan(counts).all(1))
    if len(missing):
        raise ValueError(
            f"Column {label} is the exposure of the counts, but it is missing in {len(missing)} of {len(exposures)} rows that "
            f"hold a count (the first is row {missing[0]}). Fill it in, drop these rows, or mark their counts as missing, "
            f"too; a fitted model's impute fills it in."
        )
