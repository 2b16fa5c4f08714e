"""Rows that stand for more than memory holds: a uniform sample, and the rows with the extremes and the levels of all."""

from __future__ import annotations

import itertools
import math
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

MOST_LEVELS = 10_000
"""Largest number of levels of a column that are all learnt: one with more holds keys or free text, as a rule."""


class Keeper:
    """A uniform sample of a stream's rows, and the rows with its extremes and levels.

    Every row draws a number, and the rows with the smallest numbers are kept.

    Parameters
    ----------
    n_rows : int
    rng : RandomState
    """

    def __init__(self, n_rows: int, rng: np.random.RandomState) -> None:
        self.n_rows = n_rows
        self.rng = rng
        self.n_seen = 0
        self.columns: list[str] = []

        # kept so far, with their numbers, of which none is above the threshold
        self.frames: list[nw.DataFrame] = []
        self.numbers: list[np.ndarray] = []
        self.threshold = math.inf

        # rows with extremes, by column and end, each beside the extreme
        self.extremes: dict[tuple[str, int], tuple[Any, nw.DataFrame]] = {}
        # by column the levels so far, None where they are too many, and the first row of each
        self.levels: dict[str, set | None] = {}
        self.firsts: dict[str, list[nw.DataFrame]] = {}

    def add(self, frame: nw.DataFrame) -> None:
        """Take in some rows."""
        self.columns = self.columns or frame.columns
        if frame.columns != self.columns:
            raise ValueError(
                f"The frames of a stream have the columns {self.columns} and {frame.columns}. Expected the same."
            )

        for name in self.columns:
            dtype = frame[name].dtype
            if dtype.is_numeric() or dtype.is_temporal():
                self._find_extremes(frame, name)
            else:
                self._find_levels(frame, name)

        numbers = self.rng.uniform(size=len(frame))
        chosen = np.flatnonzero(numbers < self.threshold)
        self.n_seen += len(frame)
        self.frames.append(frame[chosen])
        self.numbers.append(numbers[chosen])
        if sum(map(len, self.numbers)) > 2 * self.n_rows:
            self._shrink()

    def _find_extremes(self, frame: nw.DataFrame, name: str) -> None:
        """Keep the row with the smallest cell of a column of numbers, and that with the largest."""
        column = frame[name]
        present = column.drop_nulls()
        if column.dtype.is_float():
            present = present.filter(~present.is_nan())
        if not len(present):
            return

        for sign, end in ((-1, present.min()), (1, present.max())):
            former = self.extremes.get((name, sign))
            is_further = former is None or (end < former[0] if sign < 0 else end > former[0])
            if is_further:
                self.extremes[name, sign] = (end, frame.filter((column == end).fill_null(False)).head(1))

    def _find_levels(self, frame: nw.DataFrame, name: str) -> None:
        """Keep the first row of each level of a column."""
        seen = self.levels.setdefault(name, set())
        if seen is None:
            return

        new = set(frame[name].drop_nulls().unique().to_list()) - seen
        if len(seen) + len(new) > MOST_LEVELS:
            # keys, or free text
            self.levels[name] = None
            self.firsts.pop(name, None)
            return
        if not new:
            return

        seen |= new
        # read from the end, so that the first one stays
        cells = frame[name].to_list()
        places = dict(zip(reversed(cells), reversed(range(len(cells))), strict=True))
        rows = np.sort(list(map(places.__getitem__, new)))
        self.firsts.setdefault(name, []).append(frame[rows])

    def _shrink(self) -> None:
        """Keep the rows with the smallest numbers alone."""
        numbers = np.concatenate(self.numbers)
        kept = np.sort(np.argpartition(numbers, self.n_rows - 1)[: self.n_rows])
        whole = nw.concat(self.frames)
        self.frames = [whole[kept]]
        self.numbers = [numbers[kept]]
        self.threshold = numbers[kept].max()

    def rows(self) -> tuple[Any, np.ndarray | None]:
        """The rows to fit to, a frame, and their weights, shape (n,), if they differ."""
        if not self.frames:
            raise ValueError("The stream has no rows. Expected at least one.")
        if self.n_seen <= self.n_rows:
            return nw.concat(self.frames).to_native(), None

        self._shrink()
        ends = [row for _, row in self.extremes.values()]
        kept = nw.concat([*self.frames, *ends])
        firsts = list(itertools.chain.from_iterable(self.firsts.values()))
        if not firsts:
            return kept.to_native(), None

        # rows of weight 0 count for their levels alone
        levels = nw.concat(firsts)
        weight = np.repeat([1.0, 0.0], [len(kept), len(levels)])
        return nw.concat([kept, levels]).to_native(), weight
