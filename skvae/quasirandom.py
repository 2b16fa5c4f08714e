"""Points that cover the unit cube more evenly than independent draws do, so that fewer are needed."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, made odd: the increment of SplitMix64."""

ROUNDING = 7e-4
"""Cells of rows are rounded to multiples of this before they tell draws: larger than errors of single precision."""

LARGEST_CELL = 1e9
"""Cells beyond it, on either side, are taken for it."""


def uniform_points(n_points: int, n_dims: int, seed: int) -> Tensor:
    """Scrambled Sobol points in the unit cube (Owen, 1998; `scipy.stats.qmc`).

    Parameters
    ----------
    n_points : int
        A power of two, at which the points are balanced.
    n_dims : int
    seed : int

    Returns
    -------
    points : tensor of float64 of shape (n_points, n_dims)
    """
    sampler = qmc.Sobol(n_dims, rng=np.random.default_rng(seed))
    return torch.from_numpy(sampler.random(n_points))


def shifted(points: Tensor, shifts: Tensor) -> Tensor:
    """Points moved by shifts, modulo 1 (Cranley & Patterson, 1976): each is then uniform, and the points stay even.

    Parameters
    ----------
    points, shifts : tensor
        Between 0 and 1; shapes are broadcast.

    Returns
    -------
    moved : tensor
        Between 0 and 1, both excluded.
    """
    moved = torch.frac(points + shifts)
    edge = torch.finfo(moved.dtype).eps / 2

    # 0 and 1 have no quantile
    return moved.clamp(edge, 1 - edge)


def shifts_by_cells(x: Tensor, n_dims: int) -> Tensor:
    """A point of the unit cube for each row, told by its cells.

    The cells are rounded, so that a row in other units has the same point, and hashed by a sum of products with odd numbers,
    modulo 2^64 (Dietzfelbinger, 1996), which does not depend on the rows around it. The finaliser of SplitMix64 (Steele, Lea
    & Flood, 2014) makes the coordinates of it.

    Parameters
    ----------
    x : tensor of shape (n, n_cells)
    n_dims : int

    Returns
    -------
    shifts : tensor of shape (n, n_dims)
        In the dtype of `x` and where it is.
    """
    scaled = x.double().cpu().numpy().clip(-LARGEST_CELL, LARGEST_CELL) / ROUNDING
    cells = np.rint(scaled).astype(np.int64).view(np.uint64)
    factors = np.random.default_rng(0).integers(2**63, size=cells.shape[1], dtype=np.uint64)
    keys = (cells * (factors * np.uint64(2) + np.uint64(1))).sum(1, dtype=np.uint64)

    bits = keys[:, None] + _GOLDEN * np.arange(1, n_dims + 1, dtype=np.uint64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)

    # the upper 53 bits make a double
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53).to(x)
