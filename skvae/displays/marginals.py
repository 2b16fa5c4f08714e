"""Every column of real rows beside that of synthetic ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import REAL, SYNTHETIC, grid, shortened
from skvae.evaluation.coding import Coded, Columns, code_together
from skvae.evaluation.fidelity import column_errors

N_BINS = 30
"""Bars of a histogram."""

MOST_LEVELS = 10
"""Levels that have bars of their own: the most frequent ones."""

CELL = (3.1, 2.3)
"""Inches of one picture."""


class MarginalsDisplay:
    """A small picture of each column: histograms of numbers and dates, bars of levels.

    It is best made by `from_tables` or `from_estimator`.

    Parameters
    ----------
    columns : Columns
    real, synthetic : Coded
        Rows of both tables, coded together.

    Attributes
    ----------
    axes_ : ndarray of Axes of shape (n_columns,)
        Numbers first.
    figure_ : Figure
    """

    def __init__(self, columns: Columns, real: Coded, synthetic: Coded) -> None:
        self.columns = columns
        self.real = real
        self.synthetic = synthetic

    @classmethod
    def from_tables(
        cls, real: Any, synthetic: Any, *, categorical_features: Any = "from_dtype", n_columns: int = 4
    ) -> MarginalsDisplay:
        """Draw the columns of two tables.

        Parameters
        ----------
        real, synthetic : array-like or DataFrame of shape (n, n_features)
        categorical_features : "from_dtype", None, or array-like of {bool, int, str}
            As for `VAEEstimator`.
        n_columns : int, default=4
            Pictures beside one another.

        Returns
        -------
        display : MarginalsDisplay
        """
        columns, (a, b) = code_together([real, synthetic], categorical_features)
        return cls(columns, a, b).plot(n_columns=n_columns)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, n_columns: int = 4, random_state: Any = 0) -> MarginalsDisplay:
        """Draw rows beside as many new ones of a fitted estimator."""
        check_is_fitted(estimator)
        new = estimator.sample(len(X), random_state=random_state)
        return cls.from_tables(X, new, categorical_features=estimator.categorical_features, n_columns=n_columns)

    def plot(self, *, n_columns: int = 4) -> MarginalsDisplay:
        """Draw the pictures, `n_columns` of them beside one another."""
        names = [*self.columns.numbers, *self.columns.categories]
        p = len(self.columns.numbers)
        errors = column_errors(self.real, self.synthetic)
        self.figure_, self.axes_ = grid(len(names), n_columns, CELL)

        for j, (ax, name, error) in enumerate(zip(self.axes_, names, errors, strict=True)):
            if j < p:
                self._draw_numbers(ax, j)
            else:
                self._draw_levels(ax, j - p)
            ax.set_title(f"{shortened(name)}  ({error:.3f})", fontsize="medium")
            ax.set_yticks([])
        self.axes_[0].legend(fontsize="small")
        return self

    def _draw_numbers(self, ax: Any, j: int) -> None:
        """Histograms of a column of numbers, as outlines over one another."""
        tables = (self.real.numbers[:, j], self.synthetic.numbers[:, j])
        cells = np.concatenate(tables)
        edges = _edges(cells[~np.isnan(cells)])
        dtype = self.columns.times.get(self.columns.numbers[j])
        shown = edges
        if dtype is not None:
            shown = edges.astype(np.int64).astype(dtype)
        for own, colour, label in zip(tables, (REAL, SYNTHETIC), ("real", "synthetic"), strict=True):
            # new rows may have no cell of a column
            if np.isnan(own).all():
                continue
            heights, _ = np.histogram(own[~np.isnan(own)], edges, density=True)
            ax.stairs(heights, shown, color=colour, label=label, fill=colour == REAL, alpha=0.7, linewidth=1.8)
        if dtype is not None:
            ax.tick_params(axis="x", rotation=30)

        # missing cells are in no bar
        real, synthetic = map(_missing, tables)
        if max(real, synthetic) > 0:
            ax.set_xlabel(f"missing: {real:.1%} real, {synthetic:.1%} synthetic", fontsize="small")

    def _draw_levels(self, ax: Any, j: int) -> None:
        """Bars of the shares of levels, side by side."""
        n_levels = int(self.real.n_levels[j])
        shares = []
        for own in (self.real, self.synthetic):
            shares.append(np.bincount(own.codes[:, j], minlength=n_levels) / len(own.codes))

        # names are written upright where there are many
        names = [*map(str, self.columns.levels[j]), "missing"]
        most = np.argsort(-(shares[0] + shares[1]), kind="stable")[:MOST_LEVELS]
        most = most[(shares[0] + shares[1])[most] > 0]
        places = np.arange(len(most))
        ax.bar(places - 0.2, shares[0][most], 0.4, color=REAL, label="real")
        ax.bar(places + 0.2, shares[1][most], 0.4, color=SYNTHETIC, label="synthetic")
        turn = 0 if len(most) <= 3 else 60
        ax.set_xticks(places, [shortened(names[code], 12) for code in most], rotation=turn, fontsize="small")


def _missing(cells: np.ndarray) -> float:
    """Share of the cells that are missing."""
    return float(np.isnan(cells).mean())


def _edges(cells: np.ndarray) -> np.ndarray:
    """Edges of the bars of a histogram: one bar for each of a few whole numbers."""
    low, high = cells.min(), cells.max()
    is_whole = np.array_equal(cells, np.round(cells))
    if is_whole and high - low < N_BINS:
        return np.arange(low - 0.5, high + 1.0)
    return np.histogram_bin_edges(cells, bins=N_BINS)
