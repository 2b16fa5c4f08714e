"""Scores of fitted models that scikit-learn's searches can maximise."""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.metrics import r2_score

from skvae.table import as_table
from skvae.table.containers import as_frame

NOT_MODELLED = "ignored"
"""What `likelihood_` says of columns that are not modelled."""


def reconstruction_score(estimator: Any, X: Any, y: Any = None) -> float:
    """How much of rows comes back from their latent points: the mean over the columns of X.

    A column of numbers or dates counts by R2, ``1 - sum (x - x_hat)^2 / sum (x - mean)^2``; one of text, categories or
    booleans by the same idea for levels, ``1 - errors / errors of the most frequent level`` (Goodman & Kruskal's lambda,
    1954). Either is 1 where every cell comes back, and 0 where the mean, or the most frequent level, would do as well. Cells
    that are missing in X do not count, nor do columns that are constant in it, or that a VAE does not model.

    It is a scorer: ``GridSearchCV(VAEEstimator(), {"latent_dim": [2, 4, 8]}, scoring=reconstruction_score)``.

    Parameters
    ----------
    estimator : VAEEstimator, Pipeline or transformer
        Fitted; anything that has `transform` and `inverse_transform`, such as `sklearn.decomposition.PCA`.
    X : array-like or DataFrame of shape (n_samples, n_features)
        Rows, best such as were not trained on.
    y : Ignored
        Not used, present by convention.

    Returns
    -------
    score : float
        At most 1; negative where the decoded rows are worse than means and most frequent levels.

    Raises
    ------
    ValueError
        If all columns are constant, or what comes back has another number of columns.

    References
    ----------
    Goodman & Kruskal, "Measures of association for cross classifications", JASA 49, 1954.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.decomposition import PCA
    >>> X, _ = load_wine(return_X_y=True)
    >>> round(reconstruction_score(PCA(13).fit(X), X), 3)
    1.0
    >>> reconstruction_score(PCA(1).fit(X), X) < 0.5
    True
    """
    return float(np.mean(list(reconstruction_by_column(estimator, X).values())))


def reconstruction_by_column(estimator: Any, X: Any) -> dict[Any, float]:
    """What `reconstruction_score` is the mean of, by name or index of the column.

    Parameters
    ----------
    estimator : VAEEstimator, Pipeline or transformer
        Fitted.
    X : array-like or DataFrame of shape (n_samples, n_features)

    Returns
    -------
    scores : dict of (str or int) to float
        Of the columns that vary and are modelled.

    Raises
    ------
    ValueError
        If there is none, or what comes back has another number of columns.
    """
    original = _columns(X)
    decoded = _columns(estimator.inverse_transform(estimator.transform(X)))
    frame = as_frame(as_table(X))
    names: list = list(range(len(original))) if frame is None else frame.columns

    # keys of rows do not come back
    kinds = list(getattr(estimator, "likelihood_", {}).values())
    modelled = [j for j, kind in enumerate(kinds) if kind != NOT_MODELLED]
    if len(modelled) < len(kinds) == len(original):
        if len(decoded) == len(original):
            decoded = [decoded[j] for j in modelled]
        original = [original[j] for j in modelled]
        names = [names[j] for j in modelled]
    if len(original) != len(decoded):
        raise ValueError(
            f"X has {len(original)} columns, but the estimator decodes rows of {len(decoded)}. Pass rows like those it was "
            f"fitted to."
        )

    scores = {}
    for name, cells, cells_hat in zip(names, original, decoded, strict=True):
        score = _skill(cells, cells_hat)
        if score is not None:
            scores[name] = score
    if not scores:
        raise ValueError(f"All {len(original)} columns of X are constant, so that there is nothing to give back.")

    return scores


def _columns(X: Any) -> list[np.ndarray]:
    """Columns of a table: floats with NaN for missing cells where they are numbers, else objects with None."""
    table = as_table(X)
    frame = as_frame(table)
    if frame is None:
        return [_numbers_or_levels(column) for column in table.T]

    columns = []
    for series in frame.iter_columns():
        # two moments lie a number apart
        if series.dtype in (nw.Date, nw.Datetime, nw.Duration):
            series = _microseconds(series)
        columns.append(_numbers_or_levels(np.asarray(series.to_list(), dtype=object)))

    return columns


def _microseconds(series: Any) -> Any:
    """A column of dates or durations as numbers."""
    if series.dtype == nw.Duration:
        return series.dt.total_microseconds()

    return series.cast(nw.Datetime("us")).dt.timestamp("us")


def _numbers_or_levels(column: np.ndarray) -> np.ndarray:
    """Cells of shape (n,) as floats if they are numbers, else as objects."""
    if column.dtype.kind != "O":
        return column.astype(np.float64)

    cells = []
    for cell in column:
        if cell is None or cell != cell:
            cells.append(np.nan)
        elif isinstance(cell, Real | Decimal) and not isinstance(cell, bool):
            cells.append(float(cell))
        else:
            return _levels(column)

    return np.array(cells)


def _levels(column: np.ndarray) -> np.ndarray:
    """Cells of shape (n,) as text, None where one is missing."""
    levels = np.empty(len(column), dtype=object)
    for i, cell in enumerate(column):
        if cell is not None and cell == cell:
            levels[i] = str(cell)

    return levels


def _skill(cells: np.ndarray, decoded: np.ndarray) -> float | None:
    """The score of one column, of shape (n,) each; None if it is constant."""
    if cells.dtype == object:
        observed = np.array([cell is not None for cell in cells])
        levels, counts = np.unique(cells[observed].astype(str), return_counts=True)
        if len(levels) < 2:
            return None

        n_wrong = (cells[observed].astype(str) != _levels(decoded)[observed].astype(str)).sum()
        return 1 - n_wrong / (observed.sum() - counts.max())

    observed = ~np.isnan(cells)
    if len(np.unique(cells[observed])) < 2:
        return None

    return r2_score(cells[observed], decoded[observed].astype(np.float64))
