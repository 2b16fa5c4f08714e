"""What is left of a sum, shared among its missing parts."""

from __future__ import annotations

import numpy as np


def shared(parts: np.ndarray, missing: np.ndarray, total: np.ndarray, *, whole: bool) -> np.ndarray:
    """Parts of which the missing ones share what the others leave of the total.

    Parameters
    ----------
    parts : ndarray of float of shape (n, n_parts)
    missing : ndarray of bool of shape (n, n_parts)
        At least one in each row.
    total : ndarray of float of shape (n,)
    whole : bool
        Whether parts are whole numbers.

    Returns
    -------
    shared : ndarray of float of shape (n, n_parts)
    """
    left = total - np.where(missing, 0.0, parts).sum(axis=1)
    drawn = np.where(missing, parts, 0.0).sum(axis=1)

    # in proportion, or by equal steps where that would turn signs around
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = left / drawn
    step = (left - drawn) / missing.sum(axis=1)
    in_proportion = np.isfinite(factor) & (factor >= 0)
    shares = np.where(
        in_proportion[:, None], parts * np.where(in_proportion, factor, 1.0)[:, None], parts + step[:, None]
    )

    # running sums are rounded, so that the last one still is what is left
    if whole:
        sums = np.rint(np.where(missing, shares, 0.0).cumsum(axis=1))
        shares = np.diff(sums, axis=1, prepend=0.0)
    return np.where(missing, shares, parts)
