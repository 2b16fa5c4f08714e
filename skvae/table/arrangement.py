"""From the columns of a table to the parts of an encoded row, and to its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skvae.table.column import Column
from skvae.table.exposure import Exposure
from skvae.table.kinds import KINDS, Part, order_of_parts
from skvae.table.layout import Layout


@dataclass(frozen=True)
class Arrangement:
    """The parts of all columns, in the order in which an encoded row holds them.

    Attributes
    ----------
    parts : list of Part of length n_parts
    owners : list of int of length n_parts
        The column that each part belongs to.
    ranks : list of int of length n_parts
        Place of each part in the order in which parts are drawn.
    places : list of (list of int) of length n_columns
        Positions of the parts of each column, in the order of its kind.
    """

    parts: list[Part]
    owners: list[int]
    ranks: list[int]
    places: list[list[int]]

    @classmethod
    def of(cls, columns: Sequence[Column], exposure: int | None) -> Arrangement:
        """The arrangement of the parts of `columns`; `exposure` is the position of the exposure among them."""
        drawn = []
        for j in order_of_columns(columns, exposure):
            for part in columns[j].parts:
                drawn.append((part, j))

        ranks = order_of_parts([part for part, _ in drawn])
        parts = []
        owners = []
        for rank in ranks:
            part, owner = drawn[rank]
            parts.append(part)
            owners.append(owner)

        # a column's parts are drawn in the order of its kind
        places: list[list[int]] = [[] for _ in columns]
        for i in np.argsort(ranks):
            places[owners[i]].append(int(i))
        return cls(parts, owners, ranks, places)

    def layout(self, columns: Sequence[Column], exposure: Exposure | None) -> Layout:
        """The layout of an encoded row."""
        kinds: dict[str, int] = {}
        n_levels = []
        n_ordered = []
        flagged = []
        gates = []
        ranges = []
        count_scales = []

        for i, part in enumerate(self.parts):
            owner = self.owners[i]
            kinds[part.kind] = kinds.get(part.kind, 0) + 1
            # the part that says whether this one is there comes first in its column
            gate = -1
            if part.gated:
                gate = self.places[owner][0]
            gates.append(gate)
            ranges.append(part.range)

            # one-hot levels need no flag: all 0 is a missing cell
            section = KINDS[part.kind].section
            if section == "levels":
                n_levels.append(part.n_levels)
                n_ordered.append(part.n_ordered)
            elif columns[owner].has_missing or part.gated:
                flagged.append(i)
            if section == "counts":
                count_scales.append(columns[owner].kind.log_scale)

        return Layout(
            kinds=tuple(kinds.items()),
            n_levels=tuple(n_levels),
            n_ordered=tuple(n_ordered),
            flagged=tuple(flagged),
            rank=tuple(self.ranks),
            gate=tuple(gates),
            ranges=tuple(ranges),
            count_scales=tuple(count_scales),
            exposure=exposure,
        )


def order_of_columns(columns: Sequence[Column], exposure: int | None) -> list[int]:
    """Positions of columns in the order in which they are drawn: that of the table, but the exposure before all counts."""
    order = list(range(len(columns)))
    if exposure is None:
        return order

    # with an exposure, there is a count
    first_count = next(j for j in order if columns[j].kind.is_count or j == exposure)
    if exposure > first_count:
        order.insert(first_count, order.pop(exposure))
    return order
