"""A number <-> a standard normal score, by the column's empirical distribution; values that repeat are levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from skvae.table.kinds.scales import mean_and_deviation

MAX_LEVELS = 64
"""Largest number of distinct values of a column that is modelled level by level."""

ROWS_PER_LEVEL = 20
"""Rows per distinct value, on average, that such a column has at least."""

SPIKE_SHARE = 0.005
"""In other columns, a value that at least this share of the rows repeat is a level of its own (a *spike*)."""

MIN_ROWS_PER_SPIKE = 10

FARTHEST = 1e6
"""Deviations that count of how far a value lies from all levels."""

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
    deviation, log_new : float
        Standard deviation of all values, and the logarithm of the chance that the next one was never seen: 1 in n + 1.
    support : ndarray of shape (n_values,) or None
        If the other values repeat, the values that occur: the way back leads to the nearest.
    """

    spikes: np.ndarray
    knots: np.ndarray
    scores: np.ndarray
    support: np.ndarray | None
    deviation: float
    log_new: float

    def check(self) -> None:
        """Raise a ValueError unless these are points of an increasing map."""
        ascending = [self.spikes, self.knots, self.scores]
        if self.support is not None:
            ascending.append(self.support)
        if len(self.knots) != len(self.scores):
            raise ValueError("a quantile map has as many knots as scores")
        for values in ascending:
            if (np.diff(values) < 0).any():
                raise ValueError("the points of a quantile map are not in order")

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
        _, deviation = mean_and_deviation(column.astype(np.float64), weight)
        return cls(spikes, knots, scores, rest if repeats else None, deviation, -float(np.log1p(len(column))))

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

    def range_of_scores(self, low: float, high: float) -> tuple[float, float]:
        """Scores of a range of the column; where it ends no further out than the values do, those of the outermost others.

        Parameters
        ----------
        low, high : float
            Lowest and highest value; may be infinite.

        Returns
        -------
        range : tuple of (float, float)
        """
        # the outermost knots lie beyond all values
        least = self.knots[1]
        greatest = self.knots[-2]
        if len(self.spikes):
            least = min(least, self.spikes[0])
            greatest = max(greatest, self.spikes[-1])

        lowest, highest = self.score(np.array([low, high]))[0]
        if low >= least:
            lowest = max(lowest, self.scores[1])
        if high <= greatest:
            highest = min(highest, self.scores[-2])
        return float(lowest), float(highest)

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

    def log_chance(self, column: np.ndarray) -> np.ndarray:
        """Logarithm of what the mass of its level is multiplied by for each value, shape (n,), if there are levels only.

        A value never seen has the mass of the nearest level, times the chance of a new value, 1 / (n + 1) for n training rows
        (as many as the rule of succession leaves it), times exp(-d^2 / 2), d deviations of the column away from the level.
        """
        nearest = self.spikes[self.level(column).astype(int)]
        distance = np.abs(column / self.deviation - nearest / self.deviation).clip(max=FARTHEST)

        return np.where(nearest == column, 0.0, self.log_new - 0.5 * distance**2)

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
        """Values of normal scores, both of shape (n,): the inverse of `score`, or the nearest one that occurs."""
        interval = _interval(self.scores, score)
        slope = np.diff(self.knots)[interval] / np.diff(self.scores)[interval]
        value = self.knots[interval] + (score - self.scores[interval]) * slope

        if self.support is not None:
            return _nearest(self.support, value)
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
