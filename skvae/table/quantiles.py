"""A number <-> a standard normal score, by its own empirical distribution; values that repeat are levels of their own."""

import numpy as np
from scipy.special import ndtri

MAX_LEVELS, ROWS_PER_LEVEL = 64, 20
"""A column with at most so many distinct values, which so many rows share on average, is modelled level by level."""

SPIKE_SHARE = 0.005
"""In other columns, a value that at least this share of the rows repeat is a level of its own (a *spike*)."""


class QuantileMap:
    """The learnt map of one column (Liu, Lafferty & Wasserman, 2009, with spikes).

    Attributes
    ----------
    spikes_ : ndarray of shape (n_spikes,)
        Values with a probability of their own, sorted.
    knots_, scores_ : ndarray of shape (n_knots,)
        The other values: piecewise linear and increasing between these points, and linear beyond; empty if there are none.
    support_ : ndarray or None
        If the other values repeat, the values that occur: the way back is to the nearest.
    decimals_ : int or None
        Else, to how many decimals they are given.
    grain_ : tuple of (float, float) or None
        For whole numbers, the least and the largest step that leads from it to all others: days among seconds, say.
    """

    def fit(self, column, weight):
        """Learn from the values of a column, shape (n,), none missing, and their weights."""
        values, inverse = np.unique(column, return_inverse=True)
        mass = np.bincount(inverse, weights=weight)
        counts = np.bincount(inverse)
        spike = (mass >= SPIKE_SHARE * mass.sum()) & (counts >= 10)
        if len(values) <= MAX_LEVELS and len(column) >= ROWS_PER_LEVEL * len(values):
            spike[:] = True
        self.spikes_ = values[spike].astype(np.float64)
        values, mass, counts = values[~spike].astype(np.float64), mass[~spike], counts[~spike]
        if len(values) == 1:  # a lone value has no scale of its own
            self.spikes_ = np.sort(np.append(self.spikes_, values))
            values, mass, counts = values[:0], mass[:0], counts[:0]
        self.knots_, self.scores_ = _knots(values, mass, counts.sum())
        repeats = len(values) > 0 and counts.sum() >= 2 * len(values)
        self.support_ = values if repeats else None
        self.decimals_ = _decimals(values)
        self.grain_ = _grain(values) if self.decimals_ == 0 else None
        return self

    @property
    def n_levels_(self):
        """int : levels of the categorical part: the spikes, and one for all other values if there are any."""
        return len(self.spikes_) + (self.has_rest_ if len(self.spikes_) else 0)

    @property
    def has_rest_(self):
        """bool : whether there are values that are not spikes."""
        return len(self.knots_) > 0

    def level(self, column):
        """Position of each value among the spikes, or the level behind the last for all others; shape (n,)."""
        place = np.clip(np.searchsorted(self.spikes_, column), 0, max(len(self.spikes_) - 1, 0))
        if not len(self.spikes_):
            return np.zeros(len(column))
        if not self.has_rest_:  # a value between two levels: the nearest
            below = np.clip(place - 1, 0, None)
            nearer = np.abs(column - self.spikes_[below]) < np.abs(column - self.spikes_[place])
            return np.where(nearer, below, place).astype(float)
        return np.where(self.spikes_[place] == column, place, len(self.spikes_)).astype(float)

    def holds(self, value):
        """Whether the column can take a value: all but what lies between levels, where there are levels only."""
        return self.has_rest_ or value in self.spikes_

    def score(self, column):
        """Normal scores of values that are no spikes, shape (n,), and the logarithm of their derivative."""
        k = np.clip(np.searchsorted(self.knots_, column, side="right") - 1, 0, len(self.knots_) - 2)
        slope = np.diff(self.scores_)[k] / np.diff(self.knots_)[k]
        return self.scores_[k] + (column - self.knots_[k]) * slope, np.log(slope)

    def value(self, score):
        """The way back from normal scores, shape (n,)."""
        k = np.clip(np.searchsorted(self.scores_, score, side="right") - 1, 0, len(self.knots_) - 2)
        slope = np.diff(self.knots_)[k] / np.diff(self.scores_)[k]
        value = self.knots_[k] + (score - self.scores_[k]) * slope
        if self.support_ is not None:
            place = np.clip(np.searchsorted(self.support_, value), 1, len(self.support_) - 1)
            low, high = self.support_[place - 1], self.support_[place]
            return np.where(value - low < high - value, low, high)
        if self.grain_ is not None:
            least, step = self.grain_
            return least + np.round((value - least) / step) * step
        return value if self.decimals_ is None else np.round(value, self.decimals_)


def _knots(values, mass, n):
    """Knots of the map from sorted distinct values, shape (m,), that `n` rows hold: equal shares, of at least 30 rows."""
    if not len(values):
        return values, values
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()  # mid-distribution of each value
    n_knots = int(np.clip(min(n / 30, 2 * np.sqrt(n)), 4, 1000))
    grid = np.linspace(middle[0], middle[-1], n_knots)
    chosen = np.unique(np.clip(np.searchsorted(middle, grid), 0, len(values) - 1))
    return values[chosen], ndtri(middle[chosen])


def _decimals(values):
    """The fewest decimals, at most 6, that tell all values exactly; None if that is not enough."""
    sample = values[:: max(1, len(values) // 2000)]
    for decimals in range(7):
        if np.all(np.abs(np.round(sample, decimals) - sample) <= 1e-9 * np.abs(sample).max(initial=0)):
            return decimals
    return None


def _grain(values):
    """The least of sorted whole numbers, and the greatest common divisor of their distances from it; None if too large."""
    if len(values) < 2 or np.abs(values).max() >= 2**62:
        return None
    return float(values[0]), float(np.gcd.reduce((values - values[0]).astype(np.int64)))


def in_units(location, scale):
    """A power of two, and location and scale in units of it: so that no difference overflows."""
    unit = 2.0 ** (np.frexp(max(abs(location), scale))[1] - 1)
    return unit, location / unit, scale / unit


def decode_part(values, part, kind, location, scale, quantiles):
    """Write a decoded or drawn part into `values`, those of its column, both of shape (n,), in the units of the table.

    A column's normal part comes before its categorical one, which tells where it counts.
    """
    if quantiles is not None and kind == "categorical":
        spike = np.rint(part).astype(int)
        is_spike = spike < len(quantiles.spikes_)
        values[is_spike] = quantiles.spikes_[spike[is_spike]]
    elif quantiles is not None:
        values[:] = quantiles.value(part)
    elif kind in ("normal", "bernoulli"):
        unit, location, scale = in_units(location, scale)
        largest = np.finfo(np.float64).max / max(unit, 1.0)
        values[:] = np.clip(part * scale + location, -largest, largest) * unit
    else:
        values[:] = part
