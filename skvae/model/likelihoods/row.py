"""p(x | z) of a whole encoded row: the product over its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn

from skvae.model.layers import arrays, load
from skvae.model.likelihoods.base import BLOCKS, Block
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.table.layout import Layout


class Place(NamedTuple):
    """A block of parts, and the positions of what belongs to it.

    Attributes
    ----------
    block : Block
    parts : slice
        Its parts.
    cells : slice
        Its cells in an encoded row.
    outputs : slice
        Its decoder outputs.
    means : slice
        Its means among those that the decoder's outputs start from.
    """

    block: Block
    parts: slice
    cells: slice
    outputs: slice
    means: slice


class Likelihood(nn.Module):
    """p(x | z) of a whole row: the product over its parts, each of its own kind.

    Parameters
    ----------
    layout : Layout
        Positions of the cells in an encoded row.
    n_components : int, default=0
        Normal components of each number, all of them read from the decoder. 0 is a single one whose deviation is learnt per
        column and does not depend on z.

    Attributes
    ----------
    blocks : torch.nn.ModuleList of Block
        One per kind, in the order of ``layout.kinds``.
    places : tuple of Place
        One per block, in the same order.
    n_parts, n_outputs : int
        Number of parts of a row, and of decoder outputs.
    raised : tuple of slice
        Positions of the decoder outputs that a row's offset is added to; empty without exposure.
    """

    def __init__(self, layout: Layout, n_components: int = 0) -> None:
        super().__init__()
        self.layout = layout
        self.n_components = n_components

        blocks = list(_blocks(layout, n_components))
        self.blocks = nn.ModuleList(blocks)
        self.places = tuple(_places(layout, blocks))
        self.n_parts = layout.n_parts
        self.n_outputs = sum(place.block.n_outputs for place in self.places)

        # no submodules, for they have no parameters of their own
        self._alone: dict[tuple[int, torch.device, torch.dtype], Block] = {}

        # rows without exposure have no offset
        self.raised: tuple[slice, ...] = ()
        if layout.exposure is not None:
            self.raised = _raised(self.places)

    @property
    def output_part(self) -> torch.Tensor:
        """Tensor of int of shape (n_outputs,) : the part that each decoder output belongs to."""
        # a table of constants has no block
        parts = [torch.empty(0, dtype=torch.long)]

        for place in self.places:
            parts.append(place.block.output_column + place.parts.start)

        return torch.cat(parts)

    def log_prob(self, x: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log density of each part of `x` given the decoder's `outputs`.

        Parameters
        ----------
        x : tensor of shape (..., layout.width)
            Encoded rows.
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        log_prob : tensor of shape (..., n_parts)
            In nats of the encoded units; 0 for a missing cell of a column that had missing cells at fit.
        """
        parts = []
        for place in self.places:
            parts.append(place.block.log_prob(x[..., place.cells], outputs[..., place.outputs]))

        log_prob = _side_by_side(parts, outputs)
        if not self.layout.flagged:
            return log_prob

        # a part without a flag counts as observed: the caller leaves it out if it is not
        observed = x.new_ones(*x.shape[:-1], self.n_parts)
        observed[..., list(self.layout.flagged)] = x[..., self.layout.first_flag : self.layout.first_level]

        return log_prob * observed

    def raise_by(self, outputs: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Decoder outputs, shape (..., n, n_outputs), raised by the offsets of encoded rows, shape (n, layout.width)."""
        if not self.raised:
            return outputs

        # autograd may need the outputs as they were
        outputs = outputs.clone()
        for raised in self.raised:
            outputs[..., raised] += x[..., self.layout.offset]

        return outputs

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean, or position of the most probable level, of each part.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        mean : tensor of shape (..., n_parts)
        """
        parts = []
        for place in self.places:
            parts.append(place.block.mean(outputs[..., place.outputs]))

        return _side_by_side(parts, outputs)

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw, a value or the position of a level, of each part.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)
        generator : torch.Generator
            On the CPU.

        Returns
        -------
        draw : tensor of shape (..., n_parts)
        """
        parts = []
        for place in self.places:
            parts.append(place.block.draw(outputs[..., place.outputs], generator))

        return _side_by_side(parts, outputs)

    def one(self, part: int, like: torch.Tensor) -> Block:
        """The likelihood of one part alone, on the device and in the precision of a tensor.

        It is made once, and has the parameters as they are now whenever it is asked for.
        """
        place = next(place for place in self.places if part < place.parts.stop)
        column = part - place.parts.start

        key = (part, like.device, like.dtype)
        if key not in self._alone:
            self._alone[key] = place.block.one(column).to(like.device, like.dtype)

        block = self._alone[key]
        for name, p in place.block.named_parameters():
            block.get_parameter(name).data = p.data[column : column + 1].to(like)

        return block

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs that training starts from.

        Parameters
        ----------
        mean : tensor of shape (layout.first_level + layout.n_all_levels,)
            Mean of the encoded rows up to their levels, and the share of each level.

        Returns
        -------
        outputs : tensor of shape (n_outputs,)
        """
        parts = []
        for place in self.places:
            parts.append(place.block.initial_outputs(mean[place.means]))

        return _side_by_side(parts, mean.new_empty(0))

    def project(self) -> None:
        """Put parameters that a step of an optimiser took out of their limits back into them, in place."""
        for place in self.places:
            place.block.project()

    def __reduce__(self) -> tuple:
        # as arrays, for a pickled view would carry the whole buffer that it is a part of
        args = (self.layout, self.n_components, arrays(self), _dtype_of(self), self.training)

        return _rebuild, args


@on_one_thread
def _rebuild(
    layout: Layout, n_components: int, own: dict[str, np.ndarray], dtype: torch.dtype, training: bool
) -> Likelihood:
    # the blocks' constants are made anew, in single precision
    return load(Likelihood(layout, n_components), own, training).to(dtype)


def _dtype_of(likelihood: Likelihood) -> torch.dtype:
    """Precision of the parameters and constants of the blocks."""
    for tensor in (*likelihood.parameters(), *likelihood.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype

    return torch.float32


def mean_row(layout: Layout, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted mean of encoded rows up to their levels, and the share of each level.

    Parameters
    ----------
    layout : Layout
    x : tensor of shape (n, layout.width)
    weight : tensor of shape (n,), default=None
        None weights all rows alike.

    Returns
    -------
    mean : tensor of shape (layout.first_level + layout.n_all_levels,)
        On the CPU.
    """
    cells = x[:, : layout.first_level]
    if weight is None:
        weight = x.new_ones(len(x))
        means = [cells.mean(0).cpu()]
    else:
        means = [(weight @ cells / weight.sum()).cpu()]

    # counted in order: devices add up in another one each time
    weight = weight.cpu()
    for k, n_levels in enumerate(layout.n_levels):
        levels = x[:, layout.first_level + k].cpu()
        observed = levels >= 0
        counts = torch.bincount(levels[observed].long(), weight[observed], minlength=n_levels)
        means.append(counts / weight.sum())

    return torch.cat(means)


def _blocks(layout: Layout, n_components: int) -> Iterator[Block]:
    """A block for each kind of the layout, in order."""
    for kind, n_columns in layout.kinds:
        if kind not in BLOCKS:
            expected = ", ".join(map(repr, BLOCKS))
            raise ValueError(f"The layout has parts of the kind {kind!r}; expected one of {expected}.")

        yield BLOCKS[kind].for_layout(layout, n_columns, n_components)


def _places(layout: Layout, blocks: Iterable[Block]) -> Iterator[Place]:
    """The place of each block, in order."""
    # where the next block of each section of a row begins; counts have cells among the numbers, too, before all others
    next_cell = {
        "counts": 0,
        "numbers": layout.first_number + layout.n_counts,
        "levels": layout.first_level,
    }
    part = 0
    output = 0

    for block in blocks:
        cell = next_cell[block.section]
        next_cell[block.section] += block.n_columns

        # the levels come last, so that only their means have places of their own
        parts = slice(part, part + block.n_columns)
        cells = slice(cell, cell + block.n_columns)
        outputs = slice(output, output + block.n_outputs)
        means = slice(cell, cell + block.n_means)
        part = parts.stop
        output = outputs.stop

        yield Place(block, parts, cells, outputs, means)


def _raised(places: Iterable[Place]) -> tuple[slice, ...]:
    """Positions of the decoder outputs that the offset is added to, neighbours in one slice."""
    merged: list[slice] = []

    # each slice is one addition in every training step
    for place in places:
        start = place.outputs.start + place.block.raised.start
        stop = place.outputs.start + place.block.raised.stop

        if start == stop:
            continue

        if merged and merged[-1].stop == start:
            merged[-1] = slice(merged[-1].start, stop)
        else:
            merged.append(slice(start, stop))

    return tuple(merged)


def _side_by_side(parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The parts side by side; a table of constants only has none, and `like` then has no columns either."""
    if not parts:
        return like

    return torch.cat(parts, dim=-1)
