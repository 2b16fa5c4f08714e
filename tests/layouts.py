"""Encoded rows of every kind of column, made by hand, for the tests of what reads them."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from skvae.table.layout import Layout

COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
"""Kinds of parts whose counts stand first in a row."""


@dataclass(frozen=True)
class LinearOffset:
    """Offsets of the counts that are read from one part."""

    part: int

    def offsets_of_parts(self, parts):
        return 0.3 + 0.7 * parts[:, self.part]


READ_ALIKE = Layout(
    kinds=(("poisson", 1), ("negative_binomial", 1), ("normal", 1), ("categorical", 2)),
    n_levels=(14, 112),
    n_ordered=(0, 0),
    flagged=(1,),
    rank=(2, 4, 0, 1, 3),
    gate=(-1,) * 5,
    count_scales=((0.8, 0.5), (1.0, 0.7)),
    exposure=LinearOffset(2),
)
"""A layout of rows that an auxiliary decoder reads as the other one does."""

LAYOUTS = {
    "normal": Layout(kinds=(("normal", 5),), rank=(0, 1, 2, 3, 4), gate=(-1,) * 5),
    "one column": Layout(kinds=(("normal", 1),), rank=(0,), gate=(-1,)),
    "bernoulli": Layout(kinds=(("bernoulli", 4),), rank=(3, 1, 0, 2), gate=(-1,) * 4),
    "both": Layout(kinds=(("normal", 3), ("bernoulli", 2)), rank=(0, 2, 3, 1, 4), gate=(-1,) * 5),
    "categorical": Layout(kinds=(("categorical", 3),), n_levels=(2, 3, 4), rank=(1, 0, 2), gate=(-1,) * 3),
    # levels that are values, with and without one behind them for all others
    "ordered": Layout(
        kinds=(("categorical", 4),), n_levels=(9, 3, 5, 2), n_ordered=(9, 0, 4, 1), rank=(2, 1, 3, 0), gate=(-1,) * 4
    ),
    # so many levels that their weights are gathered, with numbers before them and without
    "many levels": Layout(
        kinds=(("poisson", 1), ("normal", 2), ("categorical", 3)),
        n_levels=(14, 3, 95),
        n_ordered=(5, 0, 0),
        flagged=(1, 2),
        rank=(3, 0, 5, 2, 4, 1),
        gate=(-1, -1, 4, -1, -1, -1),
        count_scales=((0.8, 0.5),),
    ),
    "levels alone": Layout(kinds=(("categorical", 2),), n_levels=(8, 110), rank=(1, 0), gate=(-1,) * 2),
    "counts": Layout(
        kinds=(("poisson", 2), ("negative_binomial", 2)),
        rank=(0, 3, 1, 2),
        gate=(-1,) * 4,
        count_scales=((0.8, 0.5), (1.0, 0.7), (0.4, 0.9), (1.2, 1.1)),
    ),
    "missing": Layout(kinds=(("normal", 3), ("bernoulli", 2)), flagged=(0, 2, 4), rank=(4, 0, 2, 1, 3), gate=(-1,) * 5),
    "gated": Layout(
        kinds=(("normal", 2), ("categorical", 1)),
        n_levels=(3,),
        n_ordered=(2,),
        flagged=(1,),
        rank=(0, 2, 1),
        gate=(-1, 2, -1),
    ),
    "exposure": Layout(
        kinds=(("poisson", 2), ("negative_binomial", 1), ("normal", 2), ("categorical", 1)),
        n_levels=(3,),
        flagged=(1, 2, 4),
        rank=(2, 5, 4, 0, 1, 3),
        gate=(-1,) * 6,
        count_scales=((0.8, 0.5), (1.0, 0.7), (0.4, 0.9)),
        exposure=LinearOffset(3),
    ),
    "zero inflated": Layout(
        kinds=(("zero_inflated_negative_binomial", 2), ("normal", 2)),
        flagged=(1,),
        rank=(2, 0, 3, 1),
        gate=(-1,) * 4,
        count_scales=((0.8, 0.5), (1.0, 0.7)),
    ),
    "zero inflated exposure": Layout(
        kinds=(("poisson", 1), ("negative_binomial", 1), ("zero_inflated_negative_binomial", 2), ("normal", 2)),
        flagged=(2, 4),
        rank=(2, 5, 3, 4, 0, 1),
        gate=(-1,) * 6,
        count_scales=((0.8, 0.5), (1.0, 0.7), (0.4, 0.9), (1.2, 1.1)),
        exposure=LinearOffset(4),
    ),
    # the last normal part is the rest beside the spikes of the first categorical one
    "all": Layout(
        kinds=(("poisson", 1), ("negative_binomial", 2), ("normal", 3), ("bernoulli", 2), ("categorical", 2)),
        n_levels=(3, 4),
        n_ordered=(2, 0),
        flagged=(1, 3, 5, 7),
        rank=(4, 0, 8, 1, 9, 6, 2, 3, 5, 7),
        gate=(-1, -1, -1, -1, -1, 8, -1, -1, -1, -1),
        count_scales=((0.8, 0.5), (1.0, 0.7), (0.4, 0.9)),
    ),
    # what an auxiliary decoder reads behind a row: fewer parts, for the rest beside spikes is none of its own
    "auxiliary": Layout(
        kinds=(("normal", 2), ("bernoulli", 1), ("categorical", 2)),
        n_levels=(3, 4),
        n_ordered=(2, 0),
        flagged=(1,),
        rank=(0, 3, 1, 2, 4),
        gate=(-1, 3, -1, -1, -1),
        auxiliary=Layout(
            kinds=(("normal", 2), ("bernoulli", 1), ("categorical", 1)),
            n_levels=(4,),
            n_ordered=(0,),
            flagged=(0, 2),
            rank=(0, 1, 2, 3),
            gate=(-1,) * 4,
        ),
    ),
    "auxiliary without levels": Layout(
        kinds=(("normal", 3),),
        rank=(2, 0, 1),
        gate=(-1,) * 3,
        auxiliary=Layout(kinds=(("normal", 3),), rank=(2, 0, 1), gate=(-1,) * 3),
    ),
    "auxiliary exposure": replace(READ_ALIKE, auxiliary=READ_ALIKE),
}
"""Layouts of tables of one kind and of several, with and without cells that may be missing, an order and an exposure."""


def rows_of(layout, n, seed=0):
    """Encoded rows, and their parts with NaN where one is missing; both float64.

    A third of the cells that may be missing are missing, and a fifth of the categories.
    """
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, count in layout.kinds for _ in range(count)]
    n_numbers = sum(kind != "categorical" for kind in kinds)
    parts = np.empty((n, len(kinds)))
    for i, kind in enumerate(kinds):
        if kind in COUNTS:
            parts[:, i] = rng.poisson(2.5, n)
            if kind == "zero_inflated_negative_binomial":
                parts[rng.uniform(size=n) < 0.4, i] = 0
        elif kind == "normal":
            parts[:, i] = rng.normal(size=n)
        elif kind == "bernoulli":
            parts[:, i] = rng.integers(0, 2, n)
        else:
            parts[:, i] = rng.integers(0, layout.n_levels[i - n_numbers], n)
            parts[rng.uniform(size=n) < 0.2, i] = np.nan
        if i in layout.flagged:
            parts[rng.uniform(size=n) < 1 / 3, i] = np.nan
    for i, gate in enumerate(layout.gate):
        if gate >= 0:
            parts[:, i] = rng.normal(size=n)
            parts[parts[:, gate] != layout.n_levels[gate - n_numbers] - 1, i] = np.nan
    x = torch.from_numpy(encode(layout, parts))
    if layout.auxiliary is not None:
        x = torch.cat([x, rows_of(layout.auxiliary, n, seed + 100)[0]], dim=1)
    return x, torch.from_numpy(parts)


def encode(layout, parts):
    """Encoded rows that hold `parts`, made cell by cell."""
    kinds = [kind for kind, count in layout.kinds for _ in range(count)]
    rows = []
    for row in parts:
        offset = [] if layout.exposure is None else np.nan_to_num(layout.exposure.offsets_of_parts(row[None])).tolist()
        counts, numbers, flags, levels = [], [], [], []
        for i, (kind, value) in enumerate(zip(kinds, row, strict=True)):
            there = not np.isnan(value)
            if kind == "categorical":
                levels.append(value if there else -1.0)
                continue
            number = value
            if kind in COUNTS:
                counts.append(value if there else 0.0)
                location, scale = layout.count_scales[i]
                number = (np.log(1 + value) - location) / scale
            numbers.append(number if there else 0.0)
        for i in layout.flagged:
            flags.append(float(not np.isnan(row[i])))
        rows.append([*counts, *offset, *numbers, *flags, *levels])
    return np.array(rows)


def means_of(layout, value):
    """Means of the cells and shares of the levels that are all `value`, as networks start from."""
    return np.full(layout.first_level + sum(layout.n_levels), value)


def auxiliary_means_of(layout, value):
    """The same for an auxiliary decoder; None if there is none."""
    if layout.auxiliary is None:
        return None
    return means_of(layout.auxiliary, value)
