"""Rows that stand for more than memory holds: a uniform sample, and the rows with the extremes and the levels of all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.selection import categorical_mask

MOST_LEVELS = 10_000
"""Largest number of levels of a column that are all learnt: one with more holds keys or free text, as a rule."""


class Keeper:
    """A uniform sample of a stream's rows, and the rows with its extremes and levels.

    Every row draws a number, and the rows with the smallest numbers are kept.

    Parameters
    ----------
    n_rows : int
    rng : RandomState
    categorical_features : "from_dtype", None, or array-like of {bool, int, str}, default=None
        As for `VAEEstimator`: the levels of numbers that are categories are found, too.
    """

    def __init__(self, n_rows: int, rng: np.random.RandomState, categorical_features: Any = None) -> None:
        self.n_rows = n_rows
        self.rng = rng
        self.categorical_features = categorical_features
        self.categories: list[str] = []
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
        if not self.columns:
            self.columns = frame.columns
            mask = categorical_mask(self.categorical_features, self.columns, [False] * len(self.columns))
            self.categories = np.array(self.columns)[mask].tolist()
        self._check_columns(frame.columns)

        for name in self.columns:
            dtype = frame[name].dtype
            is_ordered = dtype.is_numeric() or dtype.is_temporal()
            if is_ordered and name not in self.categories:
                self._find_extremes(frame, name)
            else:
                self._find_levels(frame, name)

        numbers = self.rng.uniform(size=len(frame))
        chosen = np.flatnonzero(numbers < self.threshold)
        self.n_seen += len(frame)
        self.frames.append(frame[chosen])
        self.numbers.append(numbers[chosen])
        if sum(map(len, self.numbers)) > 2 * self.n_rows:
            self.shrink()

    def _check_columns(self, columns: list[str]) -> None:
        if columns != self.columns:
            raise ValueError(
                f"The parts of the table have the columns {self.columns} and {columns}. Expected the same."
            )

    def _find_extremes(self, frame: nw.DataFrame, name: str) -> None:
        """Keep the row with the smallest cell of a column of numbers, and that with the largest."""
        column = frame[name]
        present = column.drop_nulls()
        if column.dtype.is_float():
            present = present.filter(~present.is_nan())
        if not len(present):
            return

        for sign, end in ((-1, present.min()), (1, present.max())):
            if self._is_further(name, sign, end):
                self.extremes[name, sign] = (end, frame.filter((column == end).fill_null(False)).head(1))

    def _is_further(self, name: str, sign: int, end: Any) -> bool:
        """Whether a cell lies beyond the extreme so far."""
        former = self.extremes.get((name, sign))
        if former is None:
            return True
        return end < former[0] if sign < 0 else end > former[0]

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

    def merge(self, other: Keeper) -> None:
        """Take in what another one has kept of other rows."""
        self.n_seen += other.n_seen
        self.columns = self.columns or other.columns
        self._check_columns(other.columns)
        self.frames += other.frames
        self.numbers += other.numbers

        for (name, sign), (end, row) in other.extremes.items():
            if self._is_further(name, sign, end):
                self.extremes[name, sign] = (end, row)
        for name in other.levels:
            self._merge_levels(other, name)

    def _merge_levels(self, other: Keeper, name: str) -> None:
        """Keep the first rows of another one's levels of a column."""
        if other.levels[name] is None:
            self.levels[name] = None
            self.firsts.pop(name, None)
            return

        for frame in other.firsts.get(name, []):
            self._find_levels(frame, name)

    def shrink(self) -> None:
        """Keep the rows with the smallest numbers alone."""
        numbers = np.concatenate(self.numbers)
        kept = np.sort(np.argpartition(numbers, self.n_rows - 1)[: self.n_rows])
        whole = beside(self.frames)
        self.frames = [whole[kept]]
        self.numbers = [numbers[kept]]
        self.threshold = numbers[kept].max()

    def rows(self) -> tuple[Any, np.ndarray | None]:
        """The rows to fit to, a frame, and their weights, shape (n,), if they differ."""
        if not self.frames:
            raise ValueError("The stream has no rows. Expected at least one.")
        if self.n_seen <= self.n_rows:
            return beside(self.frames).to_native(), None

        self.shrink()
        ends = [row for _, row in self.extremes.values()]
        kept = beside([*self.frames, *ends])
        firsts = list(itertools.chain.from_iterable(self.firsts.values()))
        if not firsts:
            return kept.to_native(), None

        # rows of weight 0 count for their levels alone
        levels = beside(firsts)
        weight = np.repeat([1.0, 0.0], [len(kept), len(levels)])
        return beside([kept, levels]).to_native(), weight


def beside(frames: Sequence[nw.DataFrame]) -> nw.DataFrame:
    """Frames of the same columns one below the other; numbers of several dtypes become floats, and categories stay such.

    Raises
    ------
    TypeError
        If the dtypes of a column cannot be reconciled.
    """
    if len(frames) == 1:
        return frames[0]

    casts = []
    for name in frames[0].columns:
        dtypes = {frame.schema[name] for frame in frames}
        if len(dtypes) > 1:
            casts.append(nw.col(name).cast(_common(name, dtypes)))
    whole = nw.concat([frame.with_columns(casts) for frame in frames])

    # pandas gives categories up where they are not the same
    back = []
    for name in whole.columns:
        if frames[0].schema[name] == nw.Categorical != whole.schema[name]:
            back.append(nw.col(name).cast(nw.Categorical()))
    return whole.with_columns(back)


def _common(name: str, dtypes: set[Any]) -> Any:
    """The dtype that holds what all of these do."""
    if all(dtype.is_numeric() for dtype in dtypes):
        return nw.Float64()
    if dtypes <= {nw.String, nw.Categorical, nw.Object}:
        return nw.String()
    named = ", ".join(sorted(map(str, dtypes)))
    raise TypeError(f"Column {name!r} is of dtype {named} in different parts of the table. Give it one dtype.")
