"""The interface of a block of columns, the registry of its kinds, and the helpers that the kinds share.

A block holds all columns of one kind, which stand side by side in an encoded row. All log densities are in nats, and all
formulas are stable at any finite decoder output.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from torch import nn

if TYPE_CHECKING:
    from skvae.table.layout import Layout

SECTIONS = ("counts", "numbers", "levels")
"""Sections of an encoded row that hold the cells which blocks are compared with: see `Layout`."""

LOGIT_MAX = 40.0
"""Logits of levels and log means of counts are held within plus and minus this, so that their exponentials are finite."""

Limits: TypeAlias = dict[str, tuple[float | None, float | None]]
"""Lowest and highest value (None: no limit) of parameters, by name."""

Own: TypeAlias = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Values of a block's own parameters, and the tensors that receive their gradients, by name."""

BLOCKS: dict[str, type[Block]] = {}
"""The class of each kind of column, by the kind's name."""

LOG2_E = math.log2(math.e)
"""``exp(x)`` is ``exp2(LOG2_E * x)``: see `exp_`."""


class Block(nn.Module, abc.ABC):
    """A block of columns of one kind: p(cell | decoder outputs) of each column.

    A subclass with a `name` is a kind of column, and is entered in `BLOCKS`.

    Parameters
    ----------
    n_columns : int

    Attributes
    ----------
    name : str
        Name of the kind, as in ``layout.kinds``.
    section : {"counts", "numbers", "levels"}
        Section of an encoded row that holds the block's cells.
    limits : dict
        Range of parameters, by name. After each step of an optimiser, `project` puts them back into it.
    n_outputs, n_means : int
        Number of decoder outputs that the block reads, and of means that they start from.
    """

    name: ClassVar[str] = ""
    section: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        section = getattr(cls, "section", None)

        if section not in SECTIONS:
            raise TypeError(f"{cls.__name__}.section must be one of {SECTIONS}, got {section!r}.")

        # a name that is inherited belongs to the parent
        if "name" in vars(cls):
            BLOCKS[cls.name] = cls

    def __init__(self, n_columns: int) -> None:
        super().__init__()
        self.n_columns = n_columns
        self.limits: Limits = {}

        # a kind with several outputs or means per column says so in its own __init__
        self.n_outputs = n_columns
        self.n_means = n_columns

    @classmethod
    def for_layout(cls, layout: Layout, n_columns: int, n_components: int) -> Block:
        """The block of this kind for encoded rows.

        Parameters
        ----------
        layout : Layout
            Positions of the cells in an encoded row.
        n_columns : int
            Number of columns of this kind.
        n_components : int
            Normal components of each number; 0 is a single one with a deviation that does not depend on z.

        Returns
        -------
        block : Block
        """
        return cls(n_columns)

    @property
    def output_column(self) -> torch.Tensor:
        """Tensor of int of shape (n_outputs,) : the column of the block that each decoder output belongs to."""
        return torch.arange(self.n_columns)

    @property
    def raised(self) -> slice:
        """slice : positions of the outputs that the row's offset is added to, among the block's outputs."""
        return slice(0, 0)

    @abc.abstractmethod
    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log density of each column.

        Parameters
        ----------
        cells : tensor of shape (..., n_columns)
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        log_prob : tensor of shape (..., n_columns)
            In nats of the encoded units.
        """

    @abc.abstractmethod
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
        """Overwrite the outputs by the gradient of ``loss = sum(scale * -log_prob)``: `log_prob` differentiated by hand.

        Rows stand side by side, along the last axis. Nothing but `outputs`, the gradients in `own` and `nll` is written to.

        Parameters
        ----------
        cells : tensor of shape (n_columns, n)
        outputs : tensor of shape (n_outputs, n)
            Decoder outputs, overwritten by the gradient with respect to them.
        observed : tensor of shape (n_columns, n) or None
            1 where a cell is observed, 0 where it is missing; None if all are observed.
        scale : tensor of shape (n,)
            Weight of each row in the loss.
        total : tensor of shape ()
            Sum of `scale`.
        own : dict
            By name, the value of each parameter of the block and the tensor to be filled by its gradient.
        nll : tensor of shape (n_columns,)
            The loss of each column, in nats, is added to it.
        """

    @abc.abstractmethod
    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean, or position of the most probable level, of each column.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        mean : tensor of shape (..., n_columns)
        """

    @abc.abstractmethod
    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw, a value or the position of a level, of each column.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)
        generator : torch.Generator
            On the CPU: the same draws on every device.

        Returns
        -------
        draw : tensor of shape (..., n_columns)
        """

    def expectation(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean of each column, or the probabilities of its levels.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        expectation : tensor of shape (..., n_means)
        """
        return self.mean(outputs)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """`draw` told by uniform numbers, such as evenly spread ones, where the kind has a quantile function.

        Parameters
        ----------
        outputs : tensor of shape (..., n_outputs)
        uniform : tensor of shape (..., n_columns)
            Between 0 and 1, both excluded.
        generator : torch.Generator
            On the CPU; for kinds without a quantile function, as here.

        Returns
        -------
        draw : tensor of shape (..., n_columns)
        """
        return self.draw(outputs, generator)

    @abc.abstractmethod
    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs that training starts from.

        Parameters
        ----------
        mean : tensor of shape (n_means,)
            Mean of each column's cells over the training rows, or the shares of its levels.

        Returns
        -------
        outputs : tensor of shape (n_outputs,)
            Outputs at which `mean`, or the shares of the levels, are the given ones.
        """

    def one(self, column: int) -> Block:
        """A block for a single column of this one, with a copy of that column's parameters."""
        block = self._alone(column)

        # copied, for the parameters may be views of the buffer of a training step
        for name, p in self.named_parameters():
            block.get_parameter(name).data = p.data[column : column + 1].clone()

        return block

    def _alone(self, column: int) -> Block:
        """A new block for a single column, its parameters at their start."""
        return type(self)(1)

    def project(self) -> None:
        """Put parameters that are out of their limits back into them, in place."""
        # on `data`, for autograd has nothing to record here
        for name, (low, high) in self.limits.items():
            self.get_parameter(name).data.clamp_(low, high)


def held(outputs: torch.Tensor, low: float = -LOGIT_MAX, high: float = LOGIT_MAX) -> torch.Tensor:
    """`outputs` clamped to a range, with the gradient of the identity.

    With the gradient of the clamp, which is 0 outside the range, training could never lead an output back into it.
    """
    if not outputs.requires_grad:
        return outputs.clamp(low, high)

    # the difference is 0, and carries the gradient
    return outputs.clamp(low, high).detach() + (outputs - outputs.detach())


def softmax_(logits: torch.Tensor) -> torch.Tensor:
    """Overwrite `logits` by their softmax along the first axis, and return their log-sum-exp.

    Parameters
    ----------
    logits : tensor of shape (k, ...)

    Returns
    -------
    log_normaliser : tensor of shape (...)
    """
    # less the largest logit, no exponential overflows
    top = logits.amax(0)
    total = exp_(logits.sub_(top)).sum(0)
    logits.div_(total)

    return total.log_().add_(top)


def log_sum_exp(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Logarithm of the sum of exponentials along an axis, at a third of the time of `torch.logsumexp`.

    Parameters
    ----------
    x : tensor of shape (..., k, ...)
    dim : int
        The axis of length k.

    Returns
    -------
    log_sum : tensor of shape (..., ...)
    """
    # less the largest, no exponential overflows; infinity less infinity is no number
    top = x.detach().amax(dim, keepdim=True).clamp_min(torch.finfo(x.dtype).min)
    total = torch.exp2((x - top) * LOG2_E).sum(dim)

    return torch.log(total) + top.squeeze(dim)


def exp_(x: torch.Tensor) -> torch.Tensor:
    """Overwrite `x` by its exponential, and return it."""
    # torch.exp2 takes a quarter of the time of torch.exp on builds where the latter is MKL's
    return x.mul_(LOG2_E).exp2_()
