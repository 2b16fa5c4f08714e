"""The distribution of one column given the other cells of a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skvae.conditioning import IncompleteRows
from skvae.inference import Report
from skvae.marginal import evenly_around, log_prob_of_given
from skvae.model.generation import make_in_order
from skvae.model.latent import LatentDensity
from skvae.model.network import VAE
from skvae.table import Table

DRAWS_OF_LEVELS = 64
"""Draws of z behind the probabilities of levels."""

DRAWS_OF_NUMBERS = 256
"""Draws of z, and of the number, behind the distribution of a number."""

DRAWS_AT_ONCE = 2**14
"""Draws, of all rows together, that are made at a time."""


@dataclass(frozen=True)
class Conditional:
    """The distribution of one column in each of n rows, given their other cells: values and their weights.

    Attributes
    ----------
    values : ndarray of shape (m,) or (n, m)
        The values that a column of levels can take, as it holds them; or m draws of a number for each row. Times are ticks.
    weights : ndarray of float64 of shape (n, m)
        Probabilities of the levels, or weights of the draws; they sum to 1 by row.
    dtype : dtype or None
        For times, the dtype of `mean`, `quantile` and `mode`, whose numbers are ticks of it.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae import VAEEstimator
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 1)) + 0.1 * rng.normal(size=(300, 2))
    >>> vae = VAEEstimator(1, max_iter=60, random_state=0).fit(X)
    >>> low, high = vae.conditional(X[:3], 1).quantile([0.05, 0.95]).T
    >>> bool((low < high).all())
    True
    """

    values: np.ndarray
    weights: np.ndarray
    dtype: Any = None

    @property
    def is_discrete(self) -> bool:
        """bool : whether the column has levels, rather than numbers."""
        return self.values.ndim == 1

    @property
    def probabilities(self) -> np.ndarray:
        """ndarray of shape (n, m) : probabilities of the levels `values`; an error for a column of numbers."""
        if not self.is_discrete:
            raise ValueError("The column holds numbers, which have no probabilities. Use mean, quantile or mode.")
        return self.weights

    def mean(self) -> np.ndarray:
        """Mean of a number (or time), ndarray of shape (n,)."""
        numbers = self._numbers()
        # halves of the largest numbers have a sum
        return self._as_times((self.weights * numbers).sum(1))

    def std(self) -> np.ndarray:
        """Standard deviation of a number, in its units (for times, in ticks); ndarray of float64 of shape (n,)."""
        numbers = self._numbers()
        mean = (self.weights * numbers).sum(1, keepdims=True)
        return np.sqrt((self.weights * (numbers - mean) ** 2).sum(1))

    def quantile(self, q: Any) -> np.ndarray:
        """Quantiles of a number (or time).

        Parameters
        ----------
        q : float or array-like of shape (n_q,)
            Between 0 and 1.

        Returns
        -------
        quantiles : ndarray of shape (n,) or (n, n_q)
            The smallest values whose cumulative weight is at least q.
        """
        levels = np.atleast_1d(np.asarray(q, dtype=float))
        if levels.ndim != 1 or not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"q must be a number from 0 to 1, or a list of such, got {q!r}.")

        numbers = np.broadcast_to(self._numbers(), self.weights.shape)
        order = np.argsort(numbers, axis=1)
        in_order = np.take_along_axis(numbers, order, axis=1)
        cumulative = np.take_along_axis(self.weights, order, axis=1).cumsum(1)

        # the last sum may be rounded to less than 1
        places = (cumulative[:, :, None] < levels * cumulative[:, -1:, None] - 1e-12).sum(1)
        found = np.take_along_axis(in_order, places.clip(max=in_order.shape[1] - 1), axis=1)
        return self._as_times(found[:, 0] if np.ndim(q) == 0 else found)

    def mode(self) -> np.ndarray:
        """The most probable level, or of a number the median; ndarray of shape (n,)."""
        if not self.is_discrete:
            return self.quantile(0.5)
        return self._as_times(self.values[self.weights.argmax(1)])

    def _numbers(self) -> np.ndarray:
        if self.values.dtype == object:
            raise ValueError(
                "The column holds categories, which have no mean and no quantiles. Use probabilities or mode."
            )
        return self.values

    def _as_times(self, ticks: np.ndarray) -> np.ndarray:
        return ticks if self.dtype is None else np.rint(ticks).astype(np.int64).astype(self.dtype)


def level_values(table: Table, j: int) -> np.ndarray | None:
    """Values of the levels of column `j`, as `Table.encode_values` reads them; None if it is a number."""
    column = table.columns[j]
    parts = column.parts
    if column.levels is not None:
        return np.arange(len(column.levels), dtype=float)
    if not column.kind.is_discrete and (len(parts) != 1 or not parts[0].n_levels):
        return None

    # two values, or a number's levels
    n_levels = parts[0].n_levels or 2
    cells = np.zeros((n_levels, table.layout.n_parts))
    cells[:, table.places[j][0]] = np.arange(n_levels)
    return table.decode_column(j, cells)


@torch.no_grad()
def level_weights(
    vae: VAE,
    table: Table,
    values: np.ndarray,
    j: int,
    levels: np.ndarray,
    density: LatentDensity,
    seed: int,
    n_draws: int,
    report: Report | None,
) -> np.ndarray:
    """Probabilities of the levels of column `j` given the other cells: p(level, others) for each level, normalised.

    All levels are weighed with the same draws of z, ``log 1/K sum_k p(level, others | z_k) p(z_k) / q(z_k)``, from around the
    posterior given the others, and from p(z): their noise is common to the levels.

    Parameters
    ----------
    vae : VAE
    table : Table
    values : ndarray of shape (n, n_features)
        NaN where a cell is missing; column `j` is not read.
    j : int
    levels : ndarray of shape (m,)
        From `level_values`.
    density : LatentDensity
    seed : int
    n_draws : int
    report : callable or None

    Returns
    -------
    probabilities : ndarray of shape (n, m)
    """
    weights = np.empty((len(values), len(levels)))
    for chunk in _chunks(len(values), n_draws):
        own = values[chunk].astype(np.float64)
        own[:, j] = np.nan
        around = IncompleteRows.of(vae, table, own)
        z, log_ratio, uniform = evenly_around(vae, around, n_draws, density, seed)

        for i, level in enumerate(levels):
            own[:, j] = level
            rows = IncompleteRows.of(vae, table, own)
            made = log_prob_of_given(vae, rows, z, uniform)
            weights[chunk, i] = torch.logsumexp(log_ratio + made, dim=1).double().cpu().numpy()
        if report is not None:
            report(len(own))

    weights -= weights.max(1, keepdims=True)
    weights = np.exp(weights)
    return weights / weights.sum(1, keepdims=True)


@torch.no_grad()
def number_draws(
    vae: VAE,
    table: Table,
    values: np.ndarray,
    j: int,
    density: LatentDensity,
    seed: int,
    n_draws: int,
    report: Report | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a number given the other cells, and their weights, two arrays of shape (n, n_draws).

    The number is drawn in its place from p(number | z, cells before it), and the cells behind it weigh.

    Parameters
    ----------
    vae, table, values, j, density, seed, n_draws, report
        See `level_weights`.
    """
    draws = np.empty((len(values), n_draws))
    weights = np.empty((len(values), n_draws))
    for chunk in _chunks(len(values), n_draws):
        own = values[chunk].astype(np.float64)
        own[:, j] = np.nan
        rows = IncompleteRows.of(vae, table, own)
        z, log_ratio, uniform = evenly_around(vae, rows, n_draws, density, seed)

        generator = torch.Generator().manual_seed(seed)
        made = make_in_order(vae, z, generator, x=rows.x, given=rows.given, offset=rows.offset, uniform=uniform)
        parts = made.parts.flatten(0, 1).double().cpu().numpy()
        draws[chunk] = table.columns[j].snap(table.decode_column(j, parts)).reshape(len(own), n_draws)
        if j in table.rules.differences:
            draws[chunk] += table.rules.scales[j] * own[:, table.rules.differences[j], None]
        log_weights = (log_ratio + made.log_prob.sum(-1)).double()
        weights[chunk] = torch.softmax(log_weights, dim=1).cpu().numpy()
        if report is not None:
            report(len(own))

    return draws, weights


def _chunks(n: int, n_draws: int) -> Iterator[slice]:
    rows_at_once = max(1, DRAWS_AT_ONCE // n_draws)
    for start in range(0, n, rows_at_once):
        yield slice(start, start + rows_at_once)
