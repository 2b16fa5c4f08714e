"""What every kind of column answers, and the registry of kinds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

SECTIONS = ("counts", "numbers", "levels")
"""Sections of an encoded row that hold the cells of parts, in their order."""


class Part(NamedTuple):
    """What the model has to know about one part of a column.

    Attributes
    ----------
    kind : str
        Kind of the part: the name of a class in `skvae.model.likelihoods`.
    n_levels : int
        Number of levels, if it is categorical.
    n_ordered : int
        How many of its first levels are the values of a number in ascending order.
    gated : bool
        Whether it is only observed where the part before it, a categorical one, has its last level.
    range : tuple of (float, float)
        Nothing is drawn outside it.
    """

    kind: str
    n_levels: int = 0
    n_ordered: int = 0
    gated: bool = False
    range: tuple[float, float] = (-math.inf, math.inf)


class EncodedPart(NamedTuple):
    """One part of a column for rows in which the column is observed.

    Attributes
    ----------
    cells : ndarray of shape (n,)
        What the likelihood models: a standardised number, a count, or the position of a level.
    inputs : ndarray of shape (n,)
        What the network reads: `cells`, but for counts.
    observed : ndarray of bool of shape (n,) or None
        Where the part is there; None is everywhere.
    log_jacobian : ndarray of shape (n,), or float
        What decoding adds to the log density of the part, in nats.
    """

    cells: np.ndarray
    inputs: np.ndarray
    observed: np.ndarray | None = None
    log_jacobian: np.ndarray | float = 0.0


class Kind(ABC):
    """One column: how its values are scaled, encoded and decoded.

    Subclasses are frozen dataclasses whose fields are plain: numbers, tuples and arrays. They never see a missing cell.
    """

    name: ClassVar[str]
    """Name of the kind, as in ``likelihood=``."""

    section: ClassVar[str] = "numbers"
    """Section of an encoded row that holds the cells of a part of this kind."""

    is_count: ClassVar[bool] = False
    """Whether values are counts 0, 1, 2, ..., in proportion to the exposure if there is one."""

    is_discrete: ClassVar[bool] = False
    """Whether a mean of several values makes no sense: the most frequent one stands for them."""

    is_linear: ClassVar[bool] = False
    """Whether the mean of a part, decoded, is the mean of the column."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # what several kinds have in common is no kind, and has no name
        if "name" in vars(cls):
            KINDS[cls.name] = cls

    @classmethod
    @abstractmethod
    def fit(cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False) -> Kind:
        """Learn the scale of a column.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)
            Observed cells, at least one.
        weight : ndarray of shape (n,)
            Weights of their rows.
        n_levels : int, default=0
            Number of levels, if the column is categorical.
        fractions : bool, default=False
            Whether values between 0 and 1 of a two-valued column were announced, so that 0 and 1 are the two values.

        Returns
        -------
        kind : Kind
        """

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """tuple of Part : the parts of the column, in the order in which they are drawn."""

    @property
    def log_scale(self) -> tuple[float, float]:
        """tuple of (float, float) : location and scale of ``log(1 + count)``, for counts only."""
        raise TypeError(f"Columns of the kind {self.name!r} hold no counts.")

    @abstractmethod
    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """Encode values.

        Parameters
        ----------
        values : ndarray of float64 of shape (n,)
            Observed cells.
        label : str
            What errors call the column.

        Returns
        -------
        encoded : list of EncodedPart
            One for each of `parts`.

        Raises
        ------
        ValueError
            If a value is none of this kind.
        """

    @abstractmethod
    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """Values of decoded or drawn parts.

        Parameters
        ----------
        cells : sequence of ndarray of shape (n_rows,)
            One for each of `parts`.
        n_rows : int

        Returns
        -------
        values : ndarray of float64 of shape (n_rows,)
            In the units of the table.
        """

    def ranges(self, low: float, high: float) -> list[tuple[float, float]]:
        """Ranges of the cells of `parts`, for values from `low` to `high`, which may be infinite."""
        return [(-math.inf, math.inf)] * len(self.parts)

    def check_given(self, value: float, label: str) -> None:  # noqa: B027 (most kinds take any number)
        """Raise a ValueError if the column cannot take a value that the caller holds fixed."""

    def check_constant(self, values: np.ndarray, label: str) -> None:  # noqa: B027 (most kinds vary)
        """Raise a ValueError if values, shape (n,), differ in a column that has no place in the network."""

    def without_unknown(self, values: np.ndarray) -> np.ndarray:
        """Values of shape (n,) with NaN in place of those that the kind cannot encode."""
        return values

    def state(self) -> dict[str, Any]:
        """Fields by name: numbers, tuples, None and arrays, from which `from_state` makes an equal column."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Kind:
        """The column with the fields of `state`."""
        return cls(**state)


KINDS: dict[str, type[Kind]] = {}
"""Kinds by name. Parts of an encoded row are grouped by section and, within one, in this order."""


def order_of_parts(parts: Sequence[Part]) -> list[int]:
    """Positions of parts, in the order in which an encoded row holds them; parts of one kind keep their order."""
    names = list(KINDS)

    def place(i: int) -> tuple[int, int]:
        kind = parts[i].kind
        return SECTIONS.index(KINDS[kind].section), names.index(kind)

    return sorted(range(len(parts)), key=place)
