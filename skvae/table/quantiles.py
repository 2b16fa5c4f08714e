"""A number <-> a standard normal score, by the column's empirical distribution; values that repeat are levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

MAX_LEVELS = 64
"""Largest number of distinct values of a column that is modelled level by level."""

ROWS_PER_LEVEL = 20
"""Rows per distinct value, on average, that such a column has at least."""

SPIKE_SHARE = 0.005
"""In other columns, a value that at least this share of the rows repeat is a level of its own (a *spike*)."""

MIN_ROWS_PER_SPIKE = 10

MAX_DECIMALS = 6

TAIL_KNOTS = 6
"""Intervals at the end of a map that tell how it goes on beyond."""


@dataclass(frozen=True, eq=False)
class QuantileMap:
    """The learnt map of one column (Liu, Lafferty & Wasserman, "The nonparanormal", 2009, with spikes).

    Attributes
    ----------
    spikes : ndarray of shape (n_spikes,)
        Values with a probability of their own, sorted.
    knots, scores : ndarray of shape (n_knots,)
        The map of all other values is piecewise linear and increasing between these points, and linear beyond them. The
        outermost ones lie beyond all values. Empty if there are no other values.
    support : ndarray of shape (n_values,) or None
        If the other values repeat, the values that occur: the way back leads to the nearest.
    decimals : int or None
        Else, the number of decimals of the other values.
    grain : tuple of (float, float) or None
        For whole numbers, the least one and the largest step that leads from it to all others, such as days among seconds.
    """

    spikes: np.ndarray
    knots: np.ndarray
    scores: np.ndarray
    support: np.ndarray | None
    decimals: int | None
    grain: tuple[float, float] | None

    @classmethod
    def fit(cls, column: np.ndarray, weight: np.ndarray) -> QuantileMap:
        """Learn the map of a column.

        Parameters
        ----------
        column : ndarray of shape (n,)
            Values, none missing.
        weight : ndarray of shape (n,)
            Weights of the rows.

        Returns
        -------
        quantiles : QuantileMap
        """
        values, inverse = np.unique(column, return_inverse=True)
        mass = np.bincount(inverse, weights=weight)
        counts = np.bincount(inverse)

        spike = _spikes(mass, counts)
        spikes = values[spike].astype(np.float64)
        rest = values[~spike].astype(np.float64)
        mass = mass[~spike]
        n_rest = counts[~spike].sum()

        # a single value has no scale of its own
        if len(rest) == 1:
            spikes = np.sort(np.append(spikes, rest))
            rest = rest[:0]
            mass = mass[:0]
            n_rest = 0

        knots, scores = _knots(rest, mass, n_rest)
        repeats = len(rest) > 0 and n_rest >= 2 * len(rest)
        decimals = _decimals(rest)
        grain = None
        if decimals == 0:
            grain = _grain(rest)
        support = rest if repeats else None
        return cls(spikes, knots, scores, support, decimals, grain)

    @property
    def n_levels(self) -> int:
        """int : number of levels of the categorical part: the spikes, and one for all other values if there are any."""
        if not len(self.spikes):
            return 0
        return len(self.spikes) + self.has_rest

    @property
    def has_rest(self) -> bool:
        """bool : whether there are values that are no spikes."""
        return len(self.knots) > 0

    @property
    def range_of_scores(self) -> tuple[float, float]:
        """tuple of (float, float) : scores of the smallest and the largest value that is no spike, just inside them."""
        # the outermost knots lie beyond them; a score that is drawn in single precision shall not be rounded out of it
        low = np.nextafter(np.float32(self.scores[1]), np.float32(np.inf))
        high = np.nextafter(np.float32(self.scores[-2]), np.float32(-np.inf))
        return float(low), float(high)

    def level(self, column: np.ndarray) -> np.ndarray:
        """Position of each value among the spikes; all other values have the position behind the last spike.

        Parameters
        ----------
        column : ndarray of shape (n,)

        Returns
        -------
        level : ndarray of float of shape (n,)
        """
        if not len(self.spikes):
            return np.zeros(len(column))

        place = np.clip(np.searchsorted(self.spikes, column), 0, len(self.spikes) - 1)
        if self.has_rest:
            return np.where(self.spikes[place] == column, place, len(self.spikes)).astype(float)

        # without a rest, a value between two levels belongs to the nearest
        below = np.clip(place - 1, 0, None)
        nearer = np.abs(column - self.spikes[below]) < np.abs(column - self.spikes[place])
        return np.where(nearer, below, place).astype(float)

    def holds(self, value: float) -> bool:
        """Whether the column can take a value: any number, or a level only, if there is nothing but levels."""
        return self.has_rest or value in self.spikes

    def score(self, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal scores of values that are no spikes, and the logarithm of the derivative of the map.

        Parameters
        ----------
        column : ndarray of shape (n,)

        Returns
        -------
        score : ndarray of shape (n,)
        log_slope : ndarray of shape (n,)
        """
        interval = _interval(self.knots, column)
        slope = np.diff(self.scores)[interval] / np.diff(self.knots)[interval]
        score = self.scores[interval] + (column - self.knots[interval]) * slope
        return score, np.log(slope)

    def value(self, score: np.ndarray) -> np.ndarray:
        """Values of normal scores, both of shape (n,): the inverse of `score`, rounded to what the column holds."""
        interval = _interval(self.scores, score)
        slope = np.diff(self.knots)[interval] / np.diff(self.scores)[interval]
        value = self.knots[interval] + (score - self.scores[interval]) * slope

        # the finest fact about the column decides
        if self.support is not None:
            return _nearest(self.support, value)
        if self.grain is not None:
            least, step = self.grain
            return least + np.round((value - least) / step) * step
        if self.decimals is not None:
            # no zero is below zero
            return np.round(value, self.decimals) + 0.0
        return value


def _spikes(mass: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mask of the distinct values, shape (n_values,), that are levels, from the weight and the number of their rows."""
    if len(counts) <= MAX_LEVELS and counts.sum() >= ROWS_PER_LEVEL * len(counts):
        return np.ones(len(counts), dtype=bool)

    return (mass >= SPIKE_SHARE * mass.sum()) & (counts >= MIN_ROWS_PER_SPIKE)


def _knots(values: np.ndarray, mass: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Knots of the map from sorted distinct values of `n` rows, two arrays of shape (n_knots,).

    Between neighbours lie equal shares of the rows, and at least 30 rows, but towards both ends ever fewer, down to one: the
    last rows of a heavy tail lie far apart, and a line over all of them would put half of them into its outer half. The first
    and the last knot lie beyond all values: see `_extended`.
    """
    if not len(values):
        return values, values

    # mid-distribution: half of the rows that share a value lie below it
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()

    n_knots = int(np.clip(min(n / 30, 2 * np.sqrt(n)), 4, 1000))
    grid = np.linspace(middle[0], middle[-1], n_knots)

    # 1, 2, 4, ... rows from either end, as far as the first knot is
    n_doublings = int(np.log2(max(2, n / n_knots)))
    steps = 2.0 ** np.arange(n_doublings) / n
    grid = np.concatenate([grid[:1] + steps, grid, grid[-1:] - steps])
    chosen = np.unique(np.clip(np.searchsorted(middle, grid), 0, len(values) - 1))
    return _extended(values[chosen]), _extended(ndtri(middle[chosen]))


def _extended(points: np.ndarray) -> np.ndarray:
    """Knots or scores, sorted, at least two, with one more on either side.

    They continue the chord over the last `TAIL_KNOTS` intervals: the last two values may lie as near to each other as can be.
    """
    n_intervals = min(TAIL_KNOTS, len(points) - 1)
    below = 2 * points[0] - points[n_intervals]
    above = 2 * points[-1] - points[-1 - n_intervals]

    return np.concatenate([[below], points, [above]])


def _interval(knots: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interval between two knots whose line applies to each point, from 0; shape (n,)."""
    return np.clip(np.searchsorted(knots, points, side="right") - 1, 0, len(knots) - 2)


def _nearest(support: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The nearest of the sorted numbers `support`, at least two, to each value; shape (n,)."""
    place = np.clip(np.searchsorted(support, values), 1, len(support) - 1)
    low = support[place - 1]
    high = support[place]
    return np.where(values - low < high - values, low, high)


def _decimals(values: np.ndarray) -> int | None:
    """The fewest decimals, up to 6, that tell all values exactly; None if more are needed."""
    sample = values[:: max(1, len(values) // 2000)]
    tolerance = 1e-9 * np.abs(sample).max(initial=0)

    for decimals in range(MAX_DECIMALS + 1):
        if np.all(np.abs(np.round(sample, decimals) - sample) <= tolerance):
            return decimals
    return None


def _grain(values: np.ndarray) -> tuple[float, float] | None:
    """The least of sorted whole numbers and the greatest common divisor of their distances from it; None if too large."""
    if len(values) < 2 or np.abs(values).max() >= 2**62:
        return None

    steps = (values - values[0]).astype(np.int64)
    return float(values[0]), float(np.gcd.reduce(steps))
