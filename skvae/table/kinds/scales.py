"""Standardising that survives values of any magnitude."""

from __future__ import annotations

import numpy as np


def mean_and_deviation(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Weighted mean and standard deviation of values of shape (n,), without overflow."""
    # in units of the largest value, whose square cannot overflow
    unit = np.abs(values).max()
    mean = np.average(values / unit, weights=weight)
    deviation = np.sqrt(np.average((values / unit - mean) ** 2, weights=weight))

    # never 0: it divides
    return float(mean * unit), float(max(deviation * unit, np.finfo(np.float64).tiny))


def _in_units(location: float, scale: float) -> tuple[float, float, float]:
    """A power of two, and location and scale in units of it: no difference of values in these units overflows."""
    unit = 2.0 ** (np.frexp(max(abs(location), scale))[1] - 1)
    return unit, location / unit, scale / unit


def standardise(values: np.ndarray, location: float, scale: float) -> np.ndarray:
    """``(values - location) / scale`` for values of shape (n,)."""
    unit, location, scale = _in_units(location, scale)
    return (values / unit - location) / scale


def unstandardise(cells: np.ndarray, location: float, scale: float) -> np.ndarray:
    """``location + scale * cells`` for cells of shape (n,), held within the range of float64."""
    unit, location, scale = _in_units(location, scale)
    largest = np.finfo(np.float64).max / max(unit, 1.0)
    return np.clip(cells * scale + location, -largest, largest) * unit
