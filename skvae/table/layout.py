"""Positions of the cells in an encoded row, and encoded rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from skvae.table.exposure import Exposure


@dataclass(frozen=True)
class Layout:
    """Positions of the cells in an encoded row.

    An encoded row is ``[counts | offset | numbers | flags | levels]``. *Counts* are the values that count columns are compared
    with. The *offset* exists if there is an exposure: the decoder's outputs for all counts are raised by it. It is the
    logarithm of the row's exposure over the mean exposure, 0 where it is missing. *Numbers* are normal and bernoulli cells
    and, standardised, the logarithms of the counts. *Flags* belong to columns that had missing cells at fit: 1 where the cell
    is observed, 0 where it is missing. *Levels* are the positions of categorical cells among the levels of their part, -1
    where the cell is missing. The network reads everything behind counts and offset, the levels as if they were one-hot.

    Behind all that may stand the same row once more, as an auxiliary decoder reads it: its layout is `auxiliary`. The encoder
    reads the numbers there, too.

    Attributes
    ----------
    kinds : tuple of (str, int)
        Kinds of parts that occur and the number of parts of each, in the order of an encoded row.
    n_levels : tuple of int
        Number of levels of each categorical part.
    n_ordered : tuple of int
        Of each categorical part, how many of its first levels are the values of a number in ascending order; empty if none.
    flagged : tuple of int
        Parts (positions among all of them) that have a flag.
    rank : tuple of int
        Place of each part in the order in which an autoregressive decoder reads and draws them.
    gate : tuple of int
        For each part, the categorical part whose last level says that it is observed; -1 if there is none.
    ranges : tuple of (float, float)
        For each part, the lowest and the highest cell that is drawn; empty if there are no limits.
    count_scales : tuple of (float, float)
        Location and scale of the logarithm of one plus the count, of each count part.
    exposure : Exposure or None
        The column that the counts are in proportion to. Its parts have a lower rank than they.
    auxiliary : Layout or None
        Of the row as an auxiliary decoder reads it; None if there is none.
    """

    kinds: tuple[tuple[str, int], ...]
    n_levels: tuple[int, ...] = ()
    n_ordered: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    rank: tuple[int, ...] = ()
    gate: tuple[int, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    count_scales: tuple[tuple[float, float], ...] = ()
    exposure: Exposure | None = None
    auxiliary: Layout | None = None

    @property
    def n_parts(self) -> int:
        """int : number of parts."""
        return sum(n for _, n in self.kinds)

    @property
    def n_counts(self) -> int:
        """int : number of count parts, which come first and whose counts the network does not read."""
        return len(self.count_scales)

    @property
    def n_numbers(self) -> int:
        """int : number of parts that are not categorical, counts included."""
        return self.n_parts - len(self.n_levels)

    @property
    def offset(self) -> slice:
        """slice : position of the *offset*; empty without exposure."""
        return slice(self.n_counts, self.first_number)

    @property
    def first_number(self) -> int:
        """int : position of the first *number*, where the part of the row that the network reads begins."""
        return self.n_counts + (self.exposure is not None)

    @property
    def first_flag(self) -> int:
        """int : position of the first *flag*."""
        return self.first_number + self.n_numbers

    @property
    def first_level(self) -> int:
        """int : position of the first *level*."""
        return self.first_flag + len(self.flagged)

    @property
    def stop(self) -> int:
        """int : position behind the last *level*, where the row for an auxiliary decoder begins."""
        return self.first_level + len(self.n_levels)

    @property
    def width(self) -> int:
        """int : length of an encoded row."""
        if self.auxiliary is None:
            return self.stop

        return self.stop + self.auxiliary.width

    @property
    def extra_numbers(self) -> slice:
        """slice : positions of the *numbers* for an auxiliary decoder, which the encoder reads beside all others."""
        if self.auxiliary is None:
            return slice(self.stop, self.stop)

        return slice(self.stop + self.auxiliary.first_number, self.stop + self.auxiliary.first_flag)

    @property
    def n_all_levels(self) -> int:
        """int : number of levels of all categorical parts."""
        return sum(self.n_levels)

    @property
    def level_starts(self) -> list[int]:
        """list of int of length n_categorical : position of the first level of each part among the levels of all."""
        starts = []
        start = 0

        for n_levels in self.n_levels:
            starts.append(start)
            start += n_levels

        return starts

    @property
    def n_extra_numbers(self) -> int:
        """int : number of *numbers* for an auxiliary decoder."""
        return self.extra_numbers.stop - self.extra_numbers.start

    @property
    def n_inputs(self) -> int:
        """int : number of inputs of a decoder: the numbers, the flags and, one-hot, the levels."""
        return self.first_level - self.first_number + self.n_all_levels

    @property
    def n_encoder_inputs(self) -> int:
        """int : number of inputs of the encoder: those of a decoder behind the extra numbers."""
        return self.n_extra_numbers + self.n_inputs

    @property
    def input_parts(self) -> list[int]:
        """list of int of length n_inputs : the part that each input of the network belongs to."""
        parts = [*range(self.n_numbers), *self.flagged]

        # a categorical part is read by as many cells as it has levels
        for categorical, n_levels in enumerate(self.n_levels):
            parts += [self.n_numbers + categorical] * n_levels

        return parts


class EncodedRows(NamedTuple):
    """Rows as the network reads them.

    Attributes
    ----------
    x : ndarray of shape (n_samples, layout.width)
        Encoded rows.
    observed : ndarray of bool of shape (n_samples, n_parts)
        Which parts are there.
    log_jacobian : ndarray of float64 of shape (n_samples,)
        ``log p(row) = log p(encoded row) + log_jacobian``, in nats.
    offset : ndarray of float64 of shape (n_samples,) or None
        Offsets of the counts, NaN where the exposure is missing; None without exposure.
    auxiliary_log_jacobian : ndarray of float64 of shape (n_samples,) or None
        That of the row as an auxiliary decoder reads it; None if there is none.
    """

    x: np.ndarray
    observed: np.ndarray
    log_jacobian: np.ndarray
    offset: np.ndarray | None
    auxiliary_log_jacobian: np.ndarray | None = None
