"""The outputs of a decoder for a batch of rows, and the gradient of their likelihood, written out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from skvae.model.likelihoods import Block, Likelihood

if TYPE_CHECKING:
    from skvae.table.layout import Layout

Own = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Values and gradients of a block's own parameters, by the name it has for them."""


class BlockBuffers(NamedTuple):
    """What the gradient of one block of the likelihood reads and writes; the rows stand side by side.

    Attributes
    ----------
    block : Block
    cells : tensor of shape (n_columns, n)
    outputs : tensor of shape (n_outputs, n)
        Outputs of the decoder, overwritten by the gradient.
    flags : tensor of int of shape (n_parts,) or None
        Positions among the encoded rows of what says which cells are observed; None if all are.
    own : dict of str to (tensor, tensor)
        Values and gradients of the block's own parameters, by name.
    nll : tensor of shape (n_parts,)
        Sums of the loss since they were last read.
    """

    block: Block
    cells: torch.Tensor
    outputs: torch.Tensor
    flags: torch.Tensor | None
    own: Own
    nll: torch.Tensor


class Comparison:
    """The outputs of a decoder, and the cells that they are compared with; the rows stand side by side.

    Parameters
    ----------
    likelihood : Likelihood
    own : list of dict
        Values and gradients of the own parameters of each block of the likelihood, by name.
    x : tensor of shape (width + 1, n)
        Encoded rows as the likelihood lays them out, and ones.

    Attributes
    ----------
    outputs : tensor of shape (n_outputs, n)
        They stand like the cells they are compared with.
    """

    def __init__(self, likelihood: Likelihood, own: Sequence[Own], x: torch.Tensor) -> None:
        self.x = x
        self.outputs = x.new_empty(likelihood.n_outputs, x.shape[1])
        self.offset = x[likelihood.layout.offset]
        self.raised = [self.outputs[raised] for raised in likelihood.raised]
        self.blocks = self._make_blocks(likelihood, own)

    def _make_blocks(self, likelihood: Likelihood, own: Sequence[Own]) -> list[BlockBuffers]:
        """The buffers of each block of the likelihood, which are views, but for the sums of its loss."""
        blocks = []

        for place, own_of_block in zip(likelihood.places, own, strict=True):
            cells = self.x[place.cells]
            outputs = self.outputs[place.outputs]
            flags = _flags(likelihood.layout, place.parts, self.x.device)
            nll = self.x.new_zeros(place.parts.stop - place.parts.start)
            blocks.append(BlockBuffers(place.block, cells, outputs, flags, own_of_block, nll))

        return blocks

    def backward(self, scale: torch.Tensor, total: torch.Tensor) -> None:
        """Overwrite the outputs by the gradient of the loss with respect to them.

        Parameters
        ----------
        scale : tensor of shape (n,)
            Each row's share of the loss.
        total : tensor of shape ()
            Their sum.
        """
        for outputs in self.raised:
            outputs += self.offset

        for block, cells, outputs, flags, own, nll in self.blocks:
            observed = None
            if flags is not None:
                observed = self.x.index_select(0, flags)
            block.backward_(cells, outputs, observed, scale, total, own, nll)

    def pop_nll(self) -> float:
        """Sum of the loss since the last call, in nats, each row by its share."""
        nll = 0.0

        for block in self.blocks:
            nll += float(block.nll.sum())
            block.nll.zero_()

        return nll


def _flags(layout: Layout, parts: slice, device: torch.device) -> torch.Tensor | None:
    """Positions of the flags of some parts in a row, tensor of int of shape (n_parts,).

    A part without a flag is always observed: it has the position of the ones. None if no part has a flag.
    """
    positions = [layout.stop] * (parts.stop - parts.start)
    found = False

    for k, part in enumerate(layout.flagged):
        if parts.start <= part < parts.stop:
            positions[part - parts.start] = layout.first_flag + k
            found = True

    if not found:
        return None

    return torch.tensor(positions, device=device)
