"""Which numbers a column can hold: a range, and steps within it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from skvae.table.one_cell import read_one
from skvae.table.schema import Schema
from skvae.table.selection import listed, position

MAX_DECIMALS = 12
"""Numbers of more decimals are not counted in any."""

LARGEST_CHANCE = 1e-6
"""Largest probability that numbers of any decimals pass for numbers of few, by the rounding errors that are allowed."""

LARGEST_EXACT = 2.0**53
"""Whole numbers up to this one are exact in double precision."""

OBSERVED = "observed"

Limits: TypeAlias = tuple[float, float] | str | None
"""Lowest and highest value, infinite where there is none; ``"observed"`` for those of the training rows; None for no grid."""


@dataclass(frozen=True)
class Grid:
    """The numbers that a column can hold.

    Attributes
    ----------
    low, high : float
        Range; infinite where there is none.
    decimals : int or None
        The fewest decimals that tell all training values exactly; None if that takes more than `MAX_DECIMALS`.
    least, step : float or None
        In units of the last decimal, the smallest training value, and the largest step that leads from it to all others:
        4 for quarters of a mile, 86,400 for dates among seconds. None if they are not exact.
    is_single : bool
        Whether the values are fractions in single precision.
    """

    low: float
    high: float
    decimals: int | None
    least: float | None
    step: float | None
    is_single: bool

    @classmethod
    def fit(cls, values: np.ndarray, limits: tuple[float, float] | str) -> Grid:
        """Learn the grid of a column.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)
            Observed cells, at least one.
        limits : tuple of (float, float) or "observed"
            Lowest and highest value.

        Returns
        -------
        grid : Grid
        """
        values = np.unique(values)
        low, high = float(values[0]), float(values[-1])
        if not isinstance(limits, str):
            low, high = limits

        decimals, is_single = _decimals_and_precision(values)
        least, step = _steps(values, decimals)
        return cls(low, high, decimals, least, step, is_single)

    @property
    def step_size(self) -> float | None:
        """float or None : the smallest step between two numbers; None if any number can be."""
        if self.decimals is None:
            return None
        return (self.step or 1.0) / 10.0**self.decimals

    def without_steps(self) -> Grid:
        """The same range, with all numbers in it."""
        return replace(self, decimals=None, least=None, step=None, is_single=False)

    def snap(self, values: np.ndarray) -> np.ndarray:
        """The number of the grid nearest to each value.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)
            NaN stays NaN.

        Returns
        -------
        snapped : ndarray of float64 of shape (n,)
        """
        snapped = np.clip(values, self.low, self.high)
        if self.decimals is None:
            return snapped

        snapped = self._to_step(snapped)
        # a number of single precision is not its decimal text
        if self.is_single:
            snapped = snapped.astype(np.float32).astype(np.float64)
        # a decimal may be a rounding error off the end; and no zero is below zero
        return np.clip(snapped, self.low, self.high) + 0.0

    def _to_step(self, values: np.ndarray) -> np.ndarray:
        """The nearest numbers that are whole steps from the least one, and within the range."""
        if self.least is None or self.step is None or self.decimals is None:
            return np.clip(np.round(values, self.decimals or 0), self.low, self.high)

        unit = 10.0**self.decimals
        # the first and the last step within the range, where a rounding error is none
        first = np.ceil((self.low * unit - self.least) / self.step - 1e-6)
        last = np.floor((self.high * unit - self.least) / self.step + 1e-6)
        if first > last:
            return values

        steps = np.clip(np.rint((values * unit - self.least) / self.step), first, last)
        return (self.least + steps * self.step) / unit

    def state(self) -> list:
        """The fields in their order, as JSON can hold them: no number is infinite."""
        low = None if np.isinf(self.low) else self.low
        high = None if np.isinf(self.high) else self.high
        return [low, high, self.decimals, self.least, self.step, self.is_single]

    @classmethod
    def from_state(cls, state: Sequence) -> Grid:
        """The grid whose `state` is given."""
        low, high, *others = state
        return cls(-np.inf if low is None else low, np.inf if high is None else high, *others)


def read_bounds(bounds: Any, schema: Schema, levels: Sequence[list | None]) -> list[Limits]:
    """Limits of the columns of a table.

    Parameters
    ----------
    bounds : "observed", None or dict of column to (low, high)
        See `VAEEstimator`.
    schema : Schema
    levels : sequence of (list or None) of length n_columns
        Levels of the categorical columns.

    Returns
    -------
    limits : list of (tuple of (float, float), "observed" or None) of length n_columns

    Raises
    ------
    ValueError
        If there is no such column, or these are no limits of it.
    """
    if bounds is None:
        return [None] * len(schema.names)

    limits: list[Limits] = [OBSERVED] * len(schema.names)
    if isinstance(bounds, str):
        return limits

    for name, pair in bounds.items():
        j = position(name, schema.names)
        if j is None:
            raise ValueError(
                f"bounds names the column {name!r}, but the table has {len(schema.names)} columns "
                f"({listed(schema.names)}). Give names or indices of columns."
            )
        if levels[j] is not None:
            raise ValueError(
                f"bounds names the column {name!r}, but it is categorical. Give bounds of numbers and dates."
            )
        limits[j] = _read_pair(pair, schema, j, name)

    return limits


def check_within(values: np.ndarray, limits: Limits, label: str) -> None:
    """Raise a ValueError if a value, of shape (n,), lies outside its limits."""
    if limits is None or isinstance(limits, str):
        return

    low, high = limits
    outside = values[(values < low) | (values > high)]
    if len(outside):
        raise ValueError(
            f"Column {label} holds {outside[0]:g}, outside the bounds ({low:g}, {high:g}) given for it. Give bounds that all "
            f"rows of X keep, or leave these rows out."
        )


def _read_pair(pair: Any, schema: Schema, j: int, name: Any) -> tuple[float, float]:
    """The lowest and the highest value of a column, as floats."""
    expected = (
        f"bounds[{name!r}] must be a pair (low, high) of values of the column, None where there is no limit, with low <= "
        f"high"
    )
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise ValueError(f"{expected}, but got {pair!r}.")

    limits = []
    for bound, unlimited in zip(pair, (-np.inf, np.inf), strict=True):
        if bound is None or (isinstance(bound, Real) and np.isinf(float(bound))):
            limits.append(unlimited)
            continue
        try:
            limits.append(read_one(schema, j, bound, None))
        except ValueError as error:
            raise ValueError(f"{expected}, but got {pair!r}: {error}") from error

    low, high = limits
    # also where one of them is NaN
    if not low <= high:
        raise ValueError(f"{expected}, but got {pair!r}.")
    return low, high


def _decimals_and_precision(values: np.ndarray) -> tuple[int | None, bool]:
    """The fewest decimals that tell all distinct values; whether these are decimals in single precision."""
    double = _decimals(values, float(np.finfo(np.float64).eps))
    with np.errstate(over="ignore"):
        if double == 0 or not np.all(values.astype(np.float32) == values):
            return double, False

    # one tenth in single precision is, in double precision, a number of 27 decimals
    single = _decimals(values, float(np.finfo(np.float32).eps))
    if single is not None and (double is None or single < double):
        return single, True
    return double, False


def _decimals(values: np.ndarray, eps: float) -> int | None:
    """The fewest decimals that tell all distinct values within the rounding errors of a precision; None if more are needed."""
    tolerance = 2 * eps * np.abs(values)
    # most columns that need many show it by some of their values
    few = slice(None, None, max(1, len(values) // 1000))

    if np.all(np.rint(values) == values):
        return 0
    # no number of this size has decimals
    if np.abs(values).max() > LARGEST_EXACT:
        return None

    for decimals in range(MAX_DECIMALS + 1):
        # of the distance between two such numbers, the share that the tolerance covers
        share = np.clip(2 * tolerance[values != 0] * 10.0**decimals, np.finfo(float).tiny, 1)
        if np.log(share).sum() > np.log(LARGEST_CHANCE):
            return None
        for some in (few, slice(None)):
            own = values[some]
            if np.any(np.abs(np.round(own, decimals) - own) > tolerance[some]):
                break
        else:
            return decimals
    return None


def _steps(values: np.ndarray, decimals: int | None) -> tuple[float | None, float | None]:
    """The least of sorted values and their greatest common step, in units of the last decimal; None if not exact."""
    if decimals is None or len(values) < 2:
        return None, None

    whole = np.rint(values * 10.0**decimals)
    # integers of 64 bits: dates of nanoseconds are larger than is exact
    if np.abs(whole).max() >= 2.0**62:
        return None, None

    step = np.gcd.reduce((whole - whole[0]).astype(np.int64))
    return float(whole[0]), float(step)
