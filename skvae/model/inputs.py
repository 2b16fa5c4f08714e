"""What networks read of encoded rows: numbers, flags, and levels, one-hot or by their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from skvae.table.layout import Layout

INPUT_MAX = 1e4
"""Networks see no number beyond this many deviations from its mean; the likelihood does. No row of a training table of
fewer than 1e8 rows gets there (a column's largest standardised value is at most sqrt(n))."""

LEVELS_TO_GATHER = 100
"""First layers gather the weights of levels from about this number of levels on: see `is_gathered`."""

LEVELS_PER_PART = 2
"""Levels that take a product as long as each categorical part takes a gather."""


class Inputs(NamedTuple):
    """Inputs of a network, for some rows.

    Attributes
    ----------
    cells : tensor of shape (n, n_cells)
        The first inputs, as they are.
    levels : tensor of int of shape (n, n_categorical), default=None
        The other inputs, by the positions of their ones; beyond the last one where a cell is missing. None if there are no
        others.
    """

    cells: torch.Tensor
    levels: torch.Tensor | None = None

    def behind(self, numbers: torch.Tensor) -> Inputs:
        """These inputs behind others, numbers of shape (n, n_numbers)."""
        return Inputs(torch.cat([numbers, self.cells], dim=-1), self.levels)

    def dense(self, n_inputs: int) -> torch.Tensor:
        """All inputs, levels one-hot, shape (n, n_inputs)."""
        if self.levels is None:
            return self.cells

        return torch.cat([self.cells, one_hot(self.levels, n_inputs - self.cells.shape[1], self.cells.dtype)], dim=1)

    def linear(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Product of all inputs with a layer's weights.

        Parameters
        ----------
        weight : tensor of shape (n_units, n_inputs)
        bias : tensor of shape (n_units,), default=None

        Returns
        -------
        sums : tensor of shape (n, n_units)
        """
        n_cells = self.cells.shape[1]
        sums = F.linear(self.cells, weight[:, :n_cells], bias)
        if self.levels is None:
            return sums

        # one row of weights per level, and one of zeros for missing cells
        rows = F.pad(weight[:, n_cells:].t(), (0, 0, 0, 1))

        return sums + F.embedding_bag(self.levels, rows, mode="sum")


def read_inputs(layout: Layout, x: torch.Tensor) -> Inputs:
    """Inputs of networks.

    Parameters
    ----------
    layout : Layout
    x : tensor of shape (n, layout.width)
        Encoded rows.

    Returns
    -------
    inputs : Inputs
        Of layout.n_inputs inputs.
    """
    cells = x[..., layout.first_number : layout.first_level].clamp(-INPUT_MAX, INPUT_MAX)
    if not layout.n_levels:
        return Inputs(cells)

    inputs = Inputs(cells, level_positions(layout, x[..., layout.first_level : layout.stop]))
    if is_gathered(layout, x.device):
        return inputs

    return Inputs(inputs.dense(layout.n_inputs))


def level_positions(layout: Layout, levels: torch.Tensor) -> torch.Tensor:
    """Positions of levels among those of all parts.

    Parameters
    ----------
    layout : Layout
    levels : tensor of shape (..., n_categorical)
        Positions among the levels of each part; -1 where a cell is missing.

    Returns
    -------
    positions : tensor of int of shape (..., n_categorical)
        ``layout.n_all_levels`` where a cell is missing.
    """
    starts = torch.tensor(layout.level_starts, device=levels.device)
    positions = starts + levels.long()

    return torch.where(levels < 0, layout.n_all_levels, positions)


def one_hot(positions: torch.Tensor, n_levels: int, dtype: torch.dtype) -> torch.Tensor:
    """Ones at some positions of each row, and zeros elsewhere.

    Parameters
    ----------
    positions : tensor of int of shape (n, n_ones)
        Those that are `n_levels` are left out.
    n_levels : int
    dtype : torch.dtype

    Returns
    -------
    rows : tensor of shape (n, n_levels)
    """
    rows = torch.zeros(positions.shape[0], n_levels + 1, dtype=dtype, device=positions.device)

    return rows.scatter_(1, positions, 1)[:, :-1]


def is_gathered(layout: Layout, device: torch.device) -> bool:
    """Whether first layers gather the weights of levels, rather than multiply one-hot cells.

    A product costs time in proportion to the levels. A gather costs time in proportion to the parts, and the sort for the way
    back, and some calls, whatever the table. On one thread of a processor a training step takes as long with either at
    ``LEVELS_TO_GATHER + LEVELS_PER_PART * n_parts`` levels, of 1 to 100 parts, at batches of 128 rows and 128 hidden units.
    On a device with thousands of cores the product is the quicker one.
    """
    n_least = LEVELS_TO_GATHER + LEVELS_PER_PART * len(layout.n_levels)

    return device.type == "cpu" and layout.n_all_levels >= n_least
