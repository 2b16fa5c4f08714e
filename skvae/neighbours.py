"""New rows between rows that are near each other: SMOTE with the neighbours of any points.

Formulas on arrays; a row is a row of numbers here, NaN where a cell is missing.

References
----------
Chawla, Bowyer, Hall & Kegelmeyer, "SMOTE: synthetic minority over-sampling technique", JAIR 16, 2002.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors


@dataclass(frozen=True)
class RowsBetween:
    """Rows drawn between rows of a table.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_columns)
        Cells as numbers, NaN where one is missing.
    points : ndarray of shape (n_samples, latent_dim)
        Points whose distances tell which rows are near each other.
    discrete : ndarray of bool of shape (n_columns,)
        Mask of the columns whose cells are taken from one row or another, never averaged.
    counts : ndarray of bool of shape (n_columns,)
        Mask of the columns whose averaged cells are rounded.
    """

    values: np.ndarray
    points: np.ndarray
    discrete: np.ndarray
    counts: np.ndarray

    def draw(
        self, n: int, rows: np.ndarray, n_neighbors: int, rng: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw new rows between some rows of the table.

        Parameters
        ----------
        n : int
            Number of new rows.
        rows : ndarray of int of shape (n_rows,)
            Positions, in order, of the rows between which the new ones are to lie.
        n_neighbors : int
            Number of nearest rows among which a partner is drawn.
        rng : RandomState
            Source of the random numbers.

        Returns
        -------
        values : ndarray of shape (n, n_columns)
            Cells as numbers, NaN where one is missing.
        first : ndarray of int of shape (n,)
            Position of the row that each stems from.
        """
        first = spread(rows, n, rng)
        second = partners(self.points, rows, first, n_neighbors, rng)

        values = between(self.values[first], self.values[second], self.discrete, rng)
        values[:, self.counts] = np.rint(values[:, self.counts])
        return values, first


def spread(rows: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Choose `n` of the rows, each as often as any other, plus or minus one; ndarray of int of shape (n,)."""
    rest = rng.choice(rows, n % len(rows), replace=False)

    return np.concatenate([np.tile(rows, n // len(rows)), rest])


def partners(
    points: np.ndarray, rows: np.ndarray, first: np.ndarray, n_neighbors: int, rng: np.random.RandomState
) -> np.ndarray:
    """Draw for each row one of its nearest rows.

    Parameters
    ----------
    points : ndarray of shape (n_samples, latent_dim)
        Latent means of all rows.
    rows : ndarray of int of shape (n_rows,)
        Positions, in order, of the rows that may be partners.
    first : ndarray of int of shape (n,)
        Positions of the rows that need a partner, each one of `rows`.
    n_neighbors : int
        Number of nearest rows among which a partner is drawn.
    rng : RandomState
        Source of the random numbers.

    Returns
    -------
    second : ndarray of int of shape (n,)
        Positions of the partners; a row that is alone is its own partner.
    """
    n_nearest = min(n_neighbors, len(rows) - 1)
    if not n_nearest:
        return first

    # positions among `rows`, shape (n_rows, n_nearest)
    nearest = NearestNeighbors(n_neighbors=n_nearest).fit(points[rows]).kneighbors(return_distance=False)
    place = np.searchsorted(rows, first)
    return rows[nearest[place, rng.randint(n_nearest, size=len(first))]]


def between(a: np.ndarray, b: np.ndarray, discrete: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw rows between those of `a` and those of `b`.

    ``(1 - w) a + w b`` with one w uniform on [0, 1] for each row; a discrete cell is that of `b` with probability w, that
    of `a` otherwise (SMOTE of Chawla et al., 2002, but for the discrete cells).

    Parameters
    ----------
    a, b : ndarray of shape (n, n_columns)
        NaN where a cell is missing.
    discrete : ndarray of bool of shape (n_columns,)
        Mask of the columns whose cells are taken from one of the two rows rather than averaged.
    rng : RandomState
        Source of the random numbers.

    Returns
    -------
    values : ndarray of shape (n, n_columns)
        A cell that `a` lacks stays missing, one that only `b` lacks is that of `a`.
    """
    b = np.where(np.isnan(b), a, b)

    # one weight a row, one draw a cell: discrete cells of a row may stem from either row
    weight = rng.uniform(size=(len(a), 1))
    from_b = rng.uniform(size=a.shape) < weight
    chosen = np.where(from_b & ~np.isnan(a), b, a)
    return np.where(discrete, chosen, a + weight * (b - a))
