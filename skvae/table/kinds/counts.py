"""Kinds of column that hold counts 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skvae.table.kinds.base import EncodedPart, Kind, Part
from skvae.table.kinds.scales import mean_and_deviation, standardise


@dataclass(frozen=True)
class Count(Kind):
    """A count: the likelihood reads it as it is, the network reads its standardised logarithm.

    Attributes
    ----------
    location, scale : float
        Mean and standard deviation of ``log(1 + count)``.
    """

    location: float
    scale: float

    section: ClassVar[str] = "counts"
    is_count: ClassVar[bool] = True
    is_linear: ClassVar[bool] = True

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Count:
        """See `Kind`."""
        return cls(*mean_and_deviation(np.log1p(values), weight))

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        return (Part(self.name),)

    @property
    def log_scale(self) -> tuple[float, float]:
        """See `Kind`."""
        return self.location, self.scale

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        check_counts(values, label, self.name)

        # networks cannot read numbers that span many orders of magnitude
        return [EncodedPart(values, standardise(np.log1p(values), self.location, self.scale))]

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        return cells[0]

    def check_given(self, value: float, label: str) -> None:
        """See `Kind`."""
        check_counts(np.array([value]), label, self.name)


class Poisson(Count):
    """A count whose variance is its mean."""

    name: ClassVar[str] = "poisson"


class NegativeBinomial(Count):
    """A count that varies more than a Poisson count."""

    name: ClassVar[str] = "negative_binomial"


class ZeroInflatedNegativeBinomial(Count):
    """A count that varies more than a Poisson count and has more zeros than that explains."""

    name: ClassVar[str] = "zero_inflated_negative_binomial"


def check_counts(values: np.ndarray, label: str, name: str) -> None:
    """Raise a ValueError if values, shape (n,), of a column modelled as `name` are no counts."""
    wrong = values[(values < 0) | (values != np.floor(values))]
    if len(wrong):
        raise ValueError(
            f"Column {label} is modelled as {name!r}, whose values are counts 0, 1, 2, ..., but got {wrong[0]:g}. "
            f"Round it, or model it as 'normal'."
        )
