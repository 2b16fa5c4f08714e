"""First layers of the networks in a step by hand: products with the inputs, and gathers where rows hold many levels.

A row has one level in each categorical part. Of one-hot levels, a product multiplies all the zeros; a gather adds up the
weights of the levels that the row holds, and the way back sums up, for each level, the gradients of the rows that hold it.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from skvae.engine.matmul import Calls, product
from skvae.engine.stairs import Stairs
from skvae.model.layers import Activation

if TYPE_CHECKING:
    from skvae.table.layout import Layout


class Perceptron(NamedTuple):
    """A built-in network as the passes read and write it.

    Attributes
    ----------
    activation : Activation
    weights, weight_grads : list of tensor of shape (n_out, n_in + 1)
        Of each layer; the last column is the bias.
    table, table_grad : tensor of shape (n_levels + 2, n_out) or None
        Of a first layer that gathers: the weights of the levels, the bias, and zeros. None if it does not.
    stairs : Stairs or None
        The mask of the last layer, where there is something to leave out.
    """

    activation: Activation
    weights: Sequence[torch.Tensor]
    weight_grads: Sequence[torch.Tensor]
    table: torch.Tensor | None = None
    table_grad: torch.Tensor | None = None
    stairs: Stairs | None = None


class FirstLayer(abc.ABC):
    """The first layer of a network, and the inputs that it reads."""

    @abc.abstractmethod
    def up(self, network: Perceptron, sums: torch.Tensor) -> Calls:
        """Calls that fill the layer's sums, shape (n_out, n)."""

    @abc.abstractmethod
    def down(self, network: Perceptron, grad: torch.Tensor) -> Calls:
        """Calls that fill the gradient of the layer's weights from that of its sums, shape (n_out, n)."""


class Product(FirstLayer):
    """A first layer that multiplies.

    Parameters
    ----------
    inputs : tensor of shape (n_in + 1, n)
        With a last row of ones.
    """

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs

    def up(self, network: Perceptron, sums: torch.Tensor) -> Calls:
        """See `FirstLayer`."""
        return [product(network.weights[0], self.inputs, sums)]

    def down(self, network: Perceptron, grad: torch.Tensor) -> Calls:
        """See `FirstLayer`."""
        return [product(grad, self.inputs.t(), network.weight_grads[0])]


class Gather(FirstLayer):
    """A first layer that multiplies its first inputs, and gathers the weights of levels and the bias.

    Parameters
    ----------
    cells : tensor of shape (n_cells, n)
        The first inputs; there may be none.
    levels : Levels
    table, table_grad : tensor of shape (n_levels + 2, n_out)
        Weights of the levels, bias and zeros, and their gradients.
    """

    def __init__(self, cells: torch.Tensor, levels: Levels, table: torch.Tensor, table_grad: torch.Tensor) -> None:
        self.cells = cells
        self.levels = levels
        self.table = table
        self.table_grad = table_grad

    def up(self, network: Perceptron, sums: torch.Tensor) -> Calls:
        """See `FirstLayer`."""
        calls: Calls = []
        n_cells = len(self.cells)

        if n_cells:
            calls.append(product(network.weights[0][:, :n_cells], self.cells, sums))
        else:
            calls.append(sums.zero_)
        calls.append(functools.partial(self.levels.gather, self.table, sums))

        return calls

    def down(self, network: Perceptron, grad: torch.Tensor) -> Calls:
        """See `FirstLayer`."""
        calls: Calls = []
        n_cells = len(self.cells)

        if n_cells:
            calls.append(product(grad, self.cells.t(), network.weight_grads[0][:, :n_cells]))
        calls.append(functools.partial(self.levels.scatter, grad, self.table_grad))

        return calls


class Levels:
    """The levels of a batch of rows: which rows of a table of weights to add up, and which gradients for which of them.

    Parameters
    ----------
    layout : Layout
    n : int
        Number of rows of the batch.
    """

    def __init__(self, layout: Layout, n: int) -> None:
        n_parts = len(layout.n_levels)
        self.n = n
        self.n_levels = layout.n_all_levels
        self.starts = torch.tensor(layout.level_starts)[:, None]

        # of each row, the levels and then the bias, which stands behind them
        self.index = torch.full((n, n_parts + 1), self.n_levels)
        self.first = torch.arange(0, self.index.numel(), n_parts + 1)

        # the row of each cell, part after part, and then all rows: each holds the bias
        self.row = torch.arange(n).repeat(n_parts)
        self.rows = torch.arange(n)
        self.ends = torch.zeros(self.n_levels + 1, dtype=torch.long)

        # a sort of 16 bits takes half the time of one of 32
        self.code = torch.int32
        if self.n_levels < torch.iinfo(torch.int16).max:
            self.code = torch.int16

    def read(self, levels: torch.Tensor) -> None:
        """Take in the positions of the levels, shape (n_categorical, n), -1 where a cell is missing."""
        # the row of zeros stands behind the bias
        positions = torch.where(levels < 0, self.n_levels + 1, self.starts + levels.long())
        self.index[:, :-1] = positions.t()

        # the rows that hold a level, level after level; those of missing cells come last, and are left out
        codes = positions.view(-1)
        order = np.argsort(codes.to(self.code).numpy(), kind="stable")
        counts = torch.bincount(codes, minlength=self.n_levels)
        torch.cumsum(counts[: self.n_levels], 0, out=self.ends[1:])

        held = self.row.index_select(0, torch.from_numpy(order[: int(self.ends[-1])]))
        self.rows = torch.cat([held, self.row[: self.n]])

    def gather(self, table: torch.Tensor, sums: torch.Tensor) -> None:
        """Add, to the sums of each row, shape (n_out, n), the weights of its levels and the bias."""
        bags, *_ = torch.embedding_bag(table, self.index.view(-1), self.first)
        sums += bags.t()

    def scatter(self, grad: torch.Tensor, table_grad: torch.Tensor) -> None:
        """Fill the gradient of the table from that of the sums, shape (n_out, n); the row of zeros is left alone."""
        # sorted by levels, the way back is a gather, too: it takes a third of the time of adding rows one by one
        bags, *_ = torch.embedding_bag(grad.t().contiguous(), self.rows, self.ends)
        table_grad[:-1] = bags
