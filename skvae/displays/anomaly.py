"""Why rows are unlike the others, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae._sklearn import safe_indexing
from skvae.drawing import axes_like, shortened, styled, text_on
from skvae.table import as_table
from skvae.table.containers import as_frame

MOST_COLUMNS = 30
"""Columns that are drawn: those with the most surprising cells."""

MOST_TEXTS = 200
"""Cells up to which each one shows what it holds."""


class AnomalyDisplay:
    """The surprise of every cell of some rows, given the others of its row, in nats.

    It is best made by `from_estimator`.

    Parameters
    ----------
    surprise : ndarray of shape (n_rows, n_columns)
    columns, rows : list
        Names.
    cells : ndarray of object of shape (n_rows, n_columns), default=None
        What they hold.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    image_ : AxesImage
    texts_ : list of Text
    """

    def __init__(self, surprise: np.ndarray, columns: list, rows: list, cells: np.ndarray | None = None) -> None:
        self.surprise = surprise
        self.columns = columns
        self.rows = rows
        self.cells = cells

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        rows: Sequence[int] | None = None,
        n_rows: int = 10,
        ax: Any = None,
        image_kwargs: dict[str, Any] | None = None,
    ) -> AnomalyDisplay:
        """Draw the surprise of cells.

        Parameters
        ----------
        estimator : VAEEstimator or VAEOutlierDetector
            A fitted one.
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.
        rows : sequence of int, default=None
            Positions of the rows to draw; None takes the least likely ones.
        n_rows : int, default=10
            How many of these.
        ax, image_kwargs
            As for `plot`.

        Returns
        -------
        display : AnomalyDisplay
        """
        check_is_fitted(estimator)
        if rows is None:
            rows = np.argsort(estimator.score_samples(X), kind="stable")[:n_rows].tolist()

        # only these are scored cell by cell, which takes longer than to score rows
        chosen = list(rows)
        few = safe_indexing(X, chosen)
        surprise = estimator.score_cells(few)

        frame = as_frame(as_table(few))
        if frame is None:
            names: list = list(range(surprise.shape[1]))
            cells = np.asarray(few, dtype=object)
        else:
            names = frame.columns
            cells = np.array([column.to_list() for column in frame.iter_columns()], dtype=object).T

        # in the order of the table
        most = np.sort(np.argsort(-surprise.max(0), kind="stable")[:MOST_COLUMNS])
        display = cls(surprise[:, most], np.array(names, dtype=object)[most].tolist(), chosen, cells[:, most])
        return display.plot(ax, image_kwargs=image_kwargs)

    def plot(self, ax: Any = None, *, image_kwargs: dict[str, Any] | None = None) -> AnomalyDisplay:
        """Draw a cell for each cell.

        Parameters
        ----------
        ax : Axes, default=None
            Where to; None makes a figure.
        image_kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : AnomalyDisplay
        """
        n, d = self.surprise.shape
        ax = axes_like(ax, (2.2 + 0.75 * d, 1.6 + 0.36 * n))
        # cells that are more likely than not have less than no surprise
        low, high = float(min(0.0, self.surprise.min())), float(max(1.0, self.surprise.max()))
        options = styled({"cmap": "cividis", "vmin": low, "vmax": high, "aspect": "auto"}, image_kwargs)
        self.image_ = ax.imshow(self.surprise, **options)

        # what a cell holds says why it surprises, where there is room for it
        self.texts_ = []
        if self.cells is not None and n * d <= MOST_TEXTS:
            for (i, j), cell in np.ndenumerate(self.cells):
                colour = text_on(float(self.surprise[i, j]), low, high)
                self.texts_.append(
                    ax.text(j, i, _text(cell), ha="center", va="center", color=colour, fontsize="x-small")
                )

        ax.set_xticks(np.arange(d), list(map(shortened, self.columns)), rotation=45, ha="right")
        ax.set_yticks(np.arange(n), list(map(str, self.rows)))
        ax.set(ylabel="row", title="Surprise of each cell, given the others of its row")
        ax.figure.colorbar(self.image_, ax=ax, label="nats")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _text(cell: Any) -> str:
    """What a cell holds, in a few letters."""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return shortened(cell, 9)
