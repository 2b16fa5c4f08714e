"""Paths through the latent space, whose points are then decoded. Formulas on arrays; knows nothing of models."""

from numbers import Integral

import numpy as np

_ALMOST_PARALLEL = 1e-4
"""Below this sine of the angle between two points, the arc between them is a straight line, or has no direction."""


def fractions(n_steps):
    """Evenly spaced numbers from 0 to 1, both included, ndarray of shape (n_steps,).

    Raises
    ------
    ValueError
        If `n_steps` is no integer of at least 2.
    """
    if not isinstance(n_steps, Integral) or isinstance(n_steps, bool) or n_steps < 2:
        raise ValueError(f"n_steps must be an integer of at least 2, the two ends included, got {n_steps!r}.")
    return np.linspace(0.0, 1.0, int(n_steps))


def lerp(a, b, t):
    """Points on the straight line from `a` to `b`: ``(1 - t) a + t b``.

    Parameters
    ----------
    a, b : ndarray of shape (latent_dim,)
    t : ndarray of shape (n,)
        Where on the way: 0 is `a`, 1 is `b`, to the last bit.

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
    t = np.asarray(t)[:, None]
    return _blend(1 - t, a, t, b)


def slerp(a, b, t):
    """Points on the arc from `a` to `b` around 0, spherical linear interpolation.

    ``sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b``, where w is the angle between `a` and `b` (White, 2016, "Sampling
    generative networks"). Between two points equally far from 0 it stays at that distance, where the straight line comes
    closer to 0 than draws from N(0, I) of many units do. If both lie on one line through 0 (in one dimension, or if one
    is 0), there is no arc: the points are those of `lerp`.

    Parameters
    ----------
    a, b : ndarray of shape (latent_dim,)
    t : ndarray of shape (n,)
        Where on the way: 0 is `a`, 1 is `b`, to the last bit.

    Returns
    -------
    z : ndarray of shape (n, latent_dim)

    Examples
    --------
    >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), fractions(3)).round(3)
    array([[1.   , 0.   ],
           [0.707, 0.707],
           [0.   , 1.   ]])
    """
    length_a, length_b = (np.linalg.norm(point.astype(np.float64)) for point in (a, b))
    if length_a == 0 or length_b == 0:
        return lerp(a, b, t)
    u, v = a / length_a, b / length_b
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))  # accurate for all angles (Kahan, 2006)
    if np.sin(angle) < _ALMOST_PARALLEL:
        return lerp(a, b, t)
    t = np.asarray(t)[:, None]
    return _blend(np.sin((1 - t) * angle) / np.sin(angle), a, np.sin(t * angle) / np.sin(angle), b)


def _blend(share_a, a, share_b, b):
    """Weighted sums, in the dtype of the points."""
    return (share_a * a + share_b * b).astype(np.result_type(a, b))


def line_along(point, unit, low, high, n_steps):
    """Copies of `point` whose coordinate `unit` goes from `low` to `high` in even steps.

    Parameters
    ----------
    point : ndarray of shape (latent_dim,)
    unit : int
    low, high : float
    n_steps : int

    Returns
    -------
    z : ndarray of shape (n_steps, latent_dim)
    """
    n_points = len(fractions(n_steps))
    z = np.repeat(np.asarray(point)[None], n_points, axis=0)
    z[:, unit] = np.linspace(low, high, n_points)
    return z


INTERPOLATIONS = {"spherical": slerp, "linear": lerp}
