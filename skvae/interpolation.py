"""Paths through the latent space, whose points are then decoded.

Formulas on arrays, and the two public methods of an estimator that decodes along them.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from narwhals.stable.v2.typing import IntoDataFrame

_ALMOST_PARALLEL = 1e-4
"""Smallest sine of the angle between two points for which the arc between them is computed as an arc."""


# --------------------------------------------------------------------------------------------------------------- formulas


def fractions(n_steps: int) -> np.ndarray:
    """Evenly spaced numbers from 0 to 1, both included.

    Parameters
    ----------
    n_steps : int
        Number of numbers, at least 2.

    Returns
    -------
    t : ndarray of shape (n_steps,)

    Raises
    ------
    ValueError
        If `n_steps` is not an integer of at least 2.
    """
    if not isinstance(n_steps, Integral) or isinstance(n_steps, bool) or n_steps < 2:
        raise ValueError(f"n_steps must be an integer of at least 2, the two ends included, got {n_steps!r}.")

    return np.linspace(0.0, 1.0, int(n_steps))


def lerp(a: np.ndarray, b: np.ndarray, t: npt.ArrayLike) -> np.ndarray:
    """Points on the straight line from `a` to `b`: ``(1 - t) a + t b``.

    Parameters
    ----------
    a, b : ndarray of shape (latent_dim,)
        The ends of the line.
    t : array-like of shape (n,)
        Positions on the line: 0 is `a`, 1 is `b`, to the last bit.

    Returns
    -------
    z : ndarray of shape (n, latent_dim)

    Examples
    --------
    >>> lerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), fractions(3))
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """
    share_b = np.asarray(t)[:, None]

    return _weighted_sum(1 - share_b, a, share_b, b)


def slerp(a: np.ndarray, b: np.ndarray, t: npt.ArrayLike) -> np.ndarray:
    """Points on the arc from `a` to `b` around 0: spherical linear interpolation.

    ``sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b``, where w is the angle between `a` and `b` [1]_. Between two points
    at the same distance from 0, the arc stays at that distance, whereas the straight line comes closer to 0 than draws from
    an N(0, I) of many units do. If `a`, `b` and 0 lie on one line (in one dimension, or if `a` or `b` is 0), there is no
    arc, and the points are those of `lerp`.

    Parameters
    ----------
    a, b : ndarray of shape (latent_dim,)
        The ends of the arc.
    t : array-like of shape (n,)
        Positions on the arc: 0 is `a`, 1 is `b`, to the last bit.

    Returns
    -------
    z : ndarray of shape (n, latent_dim)

    References
    ----------
    .. [1] White, "Sampling generative networks", arXiv:1609.04468, 2016.

    Examples
    --------
    >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), fractions(3)).round(3)
    array([[1.   , 0.   ],
           [0.707, 0.707],
           [0.   , 1.   ]])
    """
    length_a = np.linalg.norm(a.astype(np.float64))
    length_b = np.linalg.norm(b.astype(np.float64))
    if length_a == 0 or length_b == 0:
        return lerp(a, b, t)

    # half-angle formula of Kahan (2006, section 12): unlike the arc cosine, it is accurate for all angles
    direction_a = a / length_a
    direction_b = b / length_b
    difference = np.linalg.norm(direction_a - direction_b)
    total = np.linalg.norm(direction_a + direction_b)
    angle = 2 * np.arctan2(difference, total)

    # near-parallel points make an arc that no digit tells from a line; opposite ones make infinitely many
    if np.sin(angle) < _ALMOST_PARALLEL:
        return lerp(a, b, t)

    position = np.asarray(t)[:, None]
    share_a = np.sin((1 - position) * angle) / np.sin(angle)
    share_b = np.sin(position * angle) / np.sin(angle)
    return _weighted_sum(share_a, a, share_b, b)


def _weighted_sum(share_a: np.ndarray, a: np.ndarray, share_b: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of `a` and `b`, weighted by shares of shape (n, 1), in the dtype of the points."""
    return (share_a * a + share_b * b).astype(np.result_type(a, b))


def line_along(point: npt.ArrayLike, unit: int, low: float, high: float, n_steps: int) -> np.ndarray:
    """Copies of `point` in which one coordinate goes from `low` to `high` in even steps.

    Parameters
    ----------
    point : array-like of shape (latent_dim,)
        The other coordinates.
    unit : int
        Index of the coordinate that moves.
    low, high : float
        Its first and its last value.
    n_steps : int
        Number of points, at least 2.

    Returns
    -------
    z : ndarray of shape (n_steps, latent_dim)
    """
    n_points = len(fractions(n_steps))

    z = np.repeat(np.asarray(point)[None], n_points, axis=0)
    z[:, unit] = np.linspace(low, high, n_points)
    return z


INTERPOLATIONS: dict[str, Callable[[np.ndarray, np.ndarray, npt.ArrayLike], np.ndarray]] = {
    "spherical": slerp,
    "linear": lerp,
}
"""The paths between two points, by the names that users call them."""


# ----------------------------------------------------------------------------------------------------- the public methods


class _Network(Protocol):
    @property
    def latent_dim(self) -> int: ...


class _LatentModel(Protocol):
    """The parts of a fitted estimator that `InterpolationMixin` relies on."""

    @property
    def module_(self) -> _Network: ...

    def inverse_transform(self, X: np.ndarray) -> np.ndarray | IntoDataFrame:
        """Decode latent points of shape (n, latent_dim)."""

    def _latent_mean(self, row: Any, name: str) -> np.ndarray:
        """Latent mean of one row, ndarray of shape (latent_dim,); errors call the row by `name`."""


class InterpolationMixin:
    """The methods `interpolate` and `traverse` of an estimator that encodes rows and decodes latent points.

    The estimator has the methods `inverse_transform` and ``_latent_mean(row, name)``, and the fitted attribute
    ``module_.latent_dim``.
    """

    def interpolate(
        self: _LatentModel, x_a: Any, x_b: Any, n_steps: int = 10, *, method: str = "spherical"
    ) -> np.ndarray | IntoDataFrame:
        """Decode points on a path between the latent means of two rows.

        Parameters
        ----------
        x_a : array-like, DataFrame, Series or dict
            The row to start from: a table of one row, its cells in order, or a dict (or pandas Series) from column to cell.
            Columns that a dict does not name are missing cells.
        x_b : array-like, DataFrame, Series or dict
            The row to end at, likewise.
        n_steps : int, default=10
            Number of points, both ends included; at least 2.
        method : {"spherical", "linear"}, default="spherical"
            The path: on an arc around 0 (White, "Sampling generative networks", arXiv:1609.04468, 2016), which stays where
            the prior has its mass, or on a straight line. They are the same where both ends and 0 lie on one line, as with
            one latent unit.

        Returns
        -------
        X : ndarray, pandas or polars DataFrame of shape (n_steps, n_features)
            Rows in the units and the container of the training table, decoded as by `inverse_transform`. The first and the
            last are the reconstructions of `x_a` and `x_b`.
        """
        check_method(method)
        t = fractions(n_steps)

        z_a = self._latent_mean(x_a, "x_a")
        z_b = self._latent_mean(x_b, "x_b")
        path = INTERPOLATIONS[method]
        return self.inverse_transform(path(z_a, z_b, t))

    def traverse(
        self: _LatentModel, unit: int, *, X: Any = None, n_steps: int = 10, extent: float | tuple[float, float] = 3.0
    ) -> np.ndarray | IntoDataFrame:
        """Decode points on a line along one latent unit, which shows what the unit means.

        Parameters
        ----------
        unit : int
            Index of the unit, from 0. `kl_per_unit_` tells which units carry information about rows.
        X : array-like, DataFrame, Series or dict, default=None
            One row (as for `interpolate`), at whose latent mean the other units stay. None leaves them at 0, the prior's mean.
        n_steps : int, default=10
            Number of points, both ends included; at least 2.
        extent : float or (float, float), default=3.0
            The ends of the line, in standard deviations of the prior: a number is the distance from 0 on either side.

        Returns
        -------
        X : ndarray, pandas or polars DataFrame of shape (n_steps, n_features)
            Rows in the units and the container of the training table, decoded as by `inverse_transform`.
        """
        check_is_fitted(self)
        n_units = self.module_.latent_dim
        check_unit(unit, n_units)
        low, high = ends_of(extent)

        centre = np.zeros(n_units)
        if X is not None:
            centre = self._latent_mean(X, "X")

        return self.inverse_transform(line_along(centre, unit, low, high, n_steps))


# ----------------------------------------------------------------------------------------------------------------- checks


def check_method(method: str) -> None:
    """Raise a ValueError unless `method` is one of `INTERPOLATIONS`."""
    if method not in INTERPOLATIONS:
        raise ValueError(f"method must be one of {', '.join(map(repr, INTERPOLATIONS))}, got {method!r}.")


def check_unit(unit: int, n_units: int) -> None:
    """Raise a ValueError unless `unit` is an integer from 0 to ``n_units - 1``."""
    if not isinstance(unit, Integral) or isinstance(unit, bool) or not 0 <= unit < n_units:
        raise ValueError(f"unit must be an integer from 0 to {n_units - 1}, one of the latent units, got {unit!r}.")


def ends_of(extent: float | tuple[float, float]) -> np.ndarray:
    """The two ends of a line along a unit, ndarray of shape (2,).

    Parameters
    ----------
    extent : float or (float, float)
        The two ends, or their distance from 0 on either side.

    Raises
    ------
    ValueError
        If `extent` is not made of finite numbers, or the two ends are the same.
    """
    ends = np.asarray(extent)
    if isinstance(extent, Real):
        ends = np.asarray((-extent, extent))

    if ends.shape != (2,) or ends.dtype.kind not in "fiu" or not np.isfinite(ends).all() or ends[0] == ends[1]:
        raise ValueError(
            f"extent must be a number other than 0 or two different numbers (low, high), finite and in standard "
            f"deviations of the prior, got {extent!r}."
        )

    return ends
