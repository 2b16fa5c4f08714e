"""One of several levels: the categorical distribution, with a smooth curve over levels that are values of a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from skvae.model.likelihoods.base import LOGIT_MAX, Block, Own, exp_, held

if TYPE_CHECKING:
    from skvae.table.layout import Layout

N_WAVES = 6
"""Cosines over the order of the levels that are values of one number: by them, neighbours learn from each other."""

OWN_SCALE = 0.3
"""Weight of the own logit of such a level: the difference from the curve should be learnt more slowly than the curve."""


def cosines(n: int) -> torch.Tensor:
    """The first cosines of the discrete cosine transform (Ahmed, Natarajan & Rao, 1974) over `n` positions.

    Returns
    -------
    waves : tensor of shape (n, n_waves)
        Each with a mean square of one. ``n_waves = min(N_WAVES, n - 1)``, for a constant and n - 1 cosines span all curves.
    """
    n_waves = min(N_WAVES, max(n - 1, 0))
    positions = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / max(n, 1)
    waves = math.sqrt(2) * torch.cos(math.pi * positions * torch.arange(1, n_waves + 1))

    return waves.float()


class Categorical(Block):
    """One of several levels; a cell is the position of its level among those of its column, -1 where it is missing.

    Each level has an output, its own logit. Where the first levels of a column are the values of a number in ascending
    order, the own logits of the column have a smaller weight, and a smooth curve over the order is added to the logits of
    those levels: a sum of cosines, whose coefficients are outputs, too. A rare level then learns from its neighbours.
    The own logits of all columns come first, then the coefficients of all columns.

    Parameters
    ----------
    n_levels : sequence of int
        Number of levels of each column.
    n_ordered : sequence of int, default=None
        Of each column, how many of its first levels are the values of a number in ascending order; None is 0 for all.
    """

    name = "categorical"
    section = "levels"

    column: torch.Tensor  # (n_all,) : column of each level, of n_all levels of all columns
    starts: torch.Tensor  # (n_columns,) : position of each column's first level among all
    positions: torch.Tensor  # (n_all,) : all levels in order
    waves: torch.Tensor  # (n_all, n_coefficients) : values of the cosines at each level
    own_scale: torch.Tensor  # (n_all,) : weight of each level's own logit

    def __init__(self, n_levels: Sequence[int], n_ordered: Sequence[int] | None = None) -> None:
        super().__init__(len(n_levels))
        self.n_levels = list(n_levels)
        self.n_ordered = list(n_ordered or [0] * len(n_levels))

        columns = torch.arange(self.n_columns)
        column = columns.repeat_interleave(torch.tensor(self.n_levels))
        waves = []
        curved = []
        first = 0

        for levels, ordered in zip(self.n_levels, self.n_ordered, strict=True):
            curve = cosines(ordered)

            # not by `pad`, which older releases of torch refuse for a curve without waves
            behind = curve.new_zeros(levels - ordered, curve.shape[1])
            waves.append(torch.cat([curve, behind]))  # (levels, n_waves), 0 at levels behind the curve

            if ordered > 1:
                curved.append(slice(first, first + levels))

            first += levels

        n_waves = torch.tensor([wave.shape[1] for wave in waves])
        self._curved = curved
        self._output_column = torch.cat([column, columns.repeat_interleave(n_waves)])
        self.n_outputs = len(self._output_column)
        self.n_means = first

        # not persistent, for they follow from the arguments
        all_waves = torch.block_diag(*waves)
        starts = torch.tensor([0, *self.n_levels[:-1]]).cumsum(0)
        self.register_buffer("column", column, persistent=False)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("positions", torch.arange(first), persistent=False)
        self.register_buffer("waves", all_waves, persistent=False)
        self.register_buffer("own_scale", torch.where(all_waves.any(1), OWN_SCALE, 1.0).float(), persistent=False)

    @classmethod
    def for_layout(cls, layout: Layout, n_columns: int, n_components: int) -> Block:
        """See `Block.for_layout`."""
        return cls(layout.n_levels, layout.n_ordered)

    @property
    def output_column(self) -> torch.Tensor:
        """See `Block`."""
        return self._output_column

    def _alone(self, column: int) -> Block:
        alone = Categorical(self.n_levels[column : column + 1], self.n_ordered[column : column + 1])

        return alone.to(self.waves.device, self.waves.dtype)

    def _logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logit of each level, shape (..., n_all)."""
        logits, coefficients = outputs.split([self.n_means, self.n_outputs - self.n_means], dim=-1)

        if self._curved:
            logits = logits * self.own_scale + coefficients @ self.waves.t()

            # a curve that is cut off above would grow ever steeper
            for levels in self._curved:
                logits[..., levels] -= logits[..., levels].detach().amax(-1, keepdim=True)

        return held(logits)

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log mass of each column's level, shape (..., n_columns), in nats; 0 where it is missing."""
        logits = self._logits(outputs)

        # several draws of outputs may go with one row
        levels = (self.starts + cells.clamp_min(0)).long()
        shape = torch.broadcast_shapes(levels.shape[:-1], logits.shape[:-1])
        chosen = logits.expand(*shape, -1).gather(-1, levels.expand(*shape, -1))

        return (chosen - self._log_sums(logits)) * (cells >= 0)

    def _log_sums(self, logits: torch.Tensor) -> torch.Tensor:
        """Logarithm of the sum of the exponentials of each column's logits, shape (..., n_columns)."""
        sums = []

        for own in torch.exp(logits).split(self.n_levels, dim=-1):
            sums.append(own.sum(-1))

        return torch.log(torch.stack(sums, dim=-1))

    def backward_(
        self,
        cells: torch.Tensor,
        outputs: torch.Tensor,
        observed: torch.Tensor | None,
        scale: torch.Tensor,
        total: torch.Tensor,
        own: Own,
        nll: torch.Tensor,
    ) -> None:
        """Gradient in place: see `Block.backward_`. The cells say which are missing; `observed` is not read.

        Minus the log mass has the derivative p by the logit of a level with probability p, and p - 1 by that of the level
        that the cell holds; none where it is missing.
        """
        logits = outputs[: self.n_means]
        coefficients = outputs[self.n_means :]

        if self._curved:
            logits.mul_(self.own_scale[:, None]).addmm_(self.waves, coefficients)

            # as in `_logits`
            for levels in self._curved:
                logits[levels] -= logits[levels].amax(0)

        # of each row and column, (n_columns, n): the share of the cell in the loss, 0 at -1, and the level it holds
        share = (cells + 1).clamp_max_(1).mul_(scale)
        held = cells.clamp_min(0).add_(self.starts[:, None]).long()

        logits.clamp_(-LOGIT_MAX, LOGIT_MAX)
        chosen = logits.gather(0, held)

        probs = exp_(logits)
        sums = self._sums(probs)
        nll.add_(torch.log(sums).sub_(chosen).mul_(share).sum(1))

        probs.mul_((share / sums).index_select(0, self.column))
        probs.scatter_add_(0, held, share.neg_())

        if self._curved:
            torch.mm(self.waves.t(), probs, out=coefficients)
            probs.mul_(self.own_scale[:, None])

    def _sums(self, probs: torch.Tensor) -> torch.Tensor:
        """Sums over the levels of each column, shape (n_columns, n), of a tensor of shape (n_all, n)."""
        # one bag of rows per column: a product with zeros and ones takes ten times as long
        sums, *_ = torch.embedding_bag(probs, self.positions, self.starts)

        return sums

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Position of the most probable level of each column, shape (..., n_columns)."""
        positions = []

        for logits in self._logits(outputs).split(self.n_levels, dim=-1):
            positions.append(logits.argmax(-1))

        return torch.stack(positions, dim=-1).to(outputs.dtype)

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probability of each level, shape (..., n_all)."""
        logits = self._logits(outputs)

        return torch.exp(logits - self._log_sums(logits).index_select(-1, self.column))

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Position of a drawn level of each column, shape (..., n_columns)."""
        uniform = torch.rand(*outputs.shape[:-1], self.n_columns, generator=generator, dtype=outputs.dtype)

        return self.draw_at(outputs, uniform.to(outputs.device), generator)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        by_column = uniform.split(1, dim=-1)
        positions = []

        # the inverse of the cumulative distribution, whose last value may be rounded to less than 1
        for logits, u in zip(self._logits(outputs).split(self.n_levels, dim=-1), by_column, strict=True):
            cumulative = torch.softmax(logits, dim=-1).cumsum(-1)
            positions.append(torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True))

        return torch.cat(positions, dim=-1).to(outputs.dtype)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for levels of the given shares, with a flat curve, shape (n_outputs,)."""
        # a level that is never observed has a logit, too
        logits = torch.log(mean.clamp_min(1e-3))
        coefficients = mean.new_zeros(self.n_outputs - self.n_means)

        return torch.cat([logits / self.own_scale.to(mean), coefficients])
