"""Rare things that a model shall not learn: levels of few rows, and the outermost numbers and dates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def protected(
    values: np.ndarray, levels: Sequence[list | None], counts: np.ndarray, k: int
) -> tuple[np.ndarray, list[list | None]]:
    """Values and levels without what fewer than k rows share.

    Levels of fewer than k rows become missing cells, and are forgotten. In columns of numbers, the k smallest become the
    largest of them, and the k largest the smallest of them: no end of the range is a single row's.

    Parameters
    ----------
    values : ndarray of float of shape (n_samples, n_features)
        NaN where a cell is missing.
    levels : sequence of (list or None) of length n_features
        Levels of the categorical columns.
    counts : ndarray of bool of shape (n_samples,)
        Which rows count.
    k : int

    Returns
    -------
    values : ndarray of float of shape (n_samples, n_features)
    levels : list of (list or None) of length n_features
    """
    values = values.copy()
    kept: list[list | None] = list(levels)

    for j, own in enumerate(levels):
        cells = values[counts, j]
        cells = cells[~np.isnan(cells)]
        if own is None:
            values[:, j] = _within(values[:, j], cells, k)
            continue

        numbers = np.bincount(cells.astype(int), minlength=len(own))
        common = np.flatnonzero(numbers >= k)
        kept[j] = [own[level] for level in common]
        places = np.full(len(own) + 1, np.nan)
        places[common] = np.arange(len(common))
        # the last place is that of missing cells
        values[:, j] = places[np.where(np.isnan(values[:, j]), len(own), values[:, j]).astype(int)]

    return values, kept


def _within(values: np.ndarray, cells: np.ndarray, k: int) -> np.ndarray:
    """Values of shape (n_samples,) between the k-th smallest and the k-th largest of the cells."""
    if len(cells) < k:
        return np.full_like(values, np.nan)

    low = np.partition(cells, k - 1)[k - 1]
    high = np.partition(cells, len(cells) - k)[len(cells) - k]
    # of fewer than 2 k rows, the middle is left
    if low > high:
        low = high = np.median(cells)
    return np.clip(values, low, high)
