"""Kinds of column that hold numbers on a scale of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skvae.table.kinds.base import EncodedPart, Kind, Part
from skvae.table.kinds.scales import mean_and_deviation, standardise, unstandardise


@dataclass(frozen=True)
class Normal(Kind):
    """A number, standardised by mean and deviation.

    Attributes
    ----------
    location, scale : float
        Mean and standard deviation of the training values.
    """

    location: float
    scale: float

    name: ClassVar[str] = "normal"
    is_linear: ClassVar[bool] = True

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Normal:
        """See `Kind`."""
        return cls(*mean_and_deviation(values, weight))

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        return (Part(self.name),)

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        cells = standardise(values, self.location, self.scale)

        # of a linear map, the same for all rows
        return [EncodedPart(cells, cells, log_jacobian=-np.log(self.scale))]

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        return unstandardise(cells[0], self.location, self.scale)

    def ranges(self, low: float, high: float) -> list[tuple[float, float]]:
        """See `Kind`."""
        lowest, highest = standardise(np.array([low, high]), self.location, self.scale)
        return [(float(lowest), float(highest))]


@dataclass(frozen=True)
class Bernoulli(Kind):
    """One of two values, encoded as 0 and 1, or a fraction between them.

    Attributes
    ----------
    low, width : float
        The lower value, and the distance to the upper one.
    """

    low: float
    width: float

    name: ClassVar[str] = "bernoulli"
    is_discrete: ClassVar[bool] = True

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Bernoulli:
        """See `Kind`."""
        low = values.min()
        high = values.max()

        # probabilities keep their scale
        if low >= 0 and high <= 1 and (fractions or low == high):
            return cls(0.0, 1.0)
        return cls(float(low), float(high - low) or 1.0)

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        return (Part(self.name),)

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        cells = standardise(values, self.low, self.width)

        # a rounding error is no third value
        outside = (cells < -1e-6) | (cells > 1 + 1e-6)
        if outside.any():
            raise ValueError(
                f"Column {label} is modelled as 'bernoulli' with values from {self.low:g} to {self.low + self.width:g}, as "
                f"seen at fit, but got {values[outside][0]:g}. Fit on rows with every value, model it as 'normal' with "
                f"likelihood={{'normal': [{label}]}}, or set handle_unknown='ignore' to treat it as missing."
            )

        cells = np.clip(cells, 0, 1)
        return [EncodedPart(cells, cells)]

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        return unstandardise(cells[0], self.low, self.width)

    def without_unknown(self, values: np.ndarray) -> np.ndarray:
        """See `Kind`."""
        with np.errstate(invalid="ignore"):
            outside = np.abs((values - self.low) / self.width - 0.5) > 0.5 + 1e-6
        return np.where(outside, np.nan, values)
