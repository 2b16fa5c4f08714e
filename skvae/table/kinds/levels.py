"""Kinds of column that hold one of several levels, or always the same value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from skvae.table.kinds.base import EncodedPart, Kind, Part


@dataclass(frozen=True)
class Categorical(Kind):
    """A category: values are the positions of its levels.

    Attributes
    ----------
    n_levels : int
    """

    n_levels: int

    name: ClassVar[str] = "categorical"
    section: ClassVar[str] = "levels"
    is_discrete: ClassVar[bool] = True

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Categorical:
        """See `Kind`."""
        return cls(n_levels)

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        return (Part(self.name, self.n_levels),)

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        return [EncodedPart(values, values)]

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        return cells[0]


@dataclass(frozen=True)
class Constant(Kind):
    """A column that tells rows nothing apart: remembered, not modelled.

    Attributes
    ----------
    value : float
        NaN if all cells were missing.
    """

    value: float

    name: ClassVar[str] = "constant"

    @classmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Constant:
        """See `Kind`; a column without an observed cell is constant, too."""
        # decoded, it stays missing
        if not len(values):
            return cls(np.nan)

        return cls(float(values[0]))

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        return ()

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        return []

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        return np.full(n_rows, self.value)

    def check_given(self, value: float, label: str) -> None:
        """See `Kind`."""
        self.check_constant(np.array([value]), label)

    def check_constant(self, values: np.ndarray, label: str) -> None:
        """See `Kind`."""
        # a missing cell contradicts nothing
        other = values[(values != self.value) & ~np.isnan(values)]
        if len(other):
            raise ValueError(
                f"Column {label} was constant ({self.value:g}) in the rows the model was built on, so it is not part of "
                f"it, but now it holds {other[0]:g}. Start from rows in which it varies."
            )
