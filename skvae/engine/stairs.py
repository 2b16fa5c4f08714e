"""The last layer of a decoder that reads parts in order: its mask is a staircase, beyond which no weight is multiplied."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch

from skvae.engine.matmul import Calls, product

N_STEPS = 4
"""Steps that a staircase is cut into: of the weights under an even one, 5 in 8 are multiplied."""

LEAST_ROWS = 256
"""Smallest number of rows of a staircase: the products of shorter ones are too small to be worth four times the calls."""


class Step(NamedTuple):
    """Neighbouring outputs, and how many units they read at most.

    Attributes
    ----------
    rows : slice
    width : int
        Number of the first units that they read.
    """

    rows: slice
    width: int


class Stairs:
    """A masked layer whose outputs read ever more units.

    Parameters
    ----------
    steps : list of Step
        One beside the other, of ascending width. Outputs before and behind them read all units.

    Attributes
    ----------
    start, stop : int
        First output of the steps, and first one behind them.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.start = steps[0].rows.start
        self.stop = steps[-1].rows.stop

    @classmethod
    def of(cls, mask: torch.Tensor | None) -> Stairs | None:
        """The stairs of a mask.

        Parameters
        ----------
        mask : tensor of shape (n_out, n_in) or None
            1 where a weight is free and 0 where it is cut; None if all are free.

        Returns
        -------
        stairs : Stairs or None
            None if there is no staircase of `LEAST_ROWS` outputs.
        """
        if mask is None or len(mask) < LEAST_ROWS:
            return None

        # the units that each output reads, up to the last one
        places = torch.arange(1, mask.shape[1] + 1)
        widths = (mask.cpu() * places).amax(1).long().tolist()

        start, stop = _longest_ascent(widths)
        if stop - start < LEAST_ROWS:
            return None

        # no step is without rows
        steps = []
        n_steps = min(N_STEPS, stop - start)
        for k in range(n_steps):
            first = start + (stop - start) * k // n_steps
            last = start + (stop - start) * (k + 1) // n_steps
            steps.append(Step(slice(first, last), widths[last - 1]))

        return cls(steps)

    def up(self, w: torch.Tensor, above: torch.Tensor, outputs: torch.Tensor) -> Calls:
        """Calls that fill the outputs.

        Parameters
        ----------
        w : tensor of shape (n_out, n_in + 1)
            The last column is the bias.
        above : tensor of shape (n_in + 1, n)
            Activations that the layer reads, and ones.
        outputs : tensor of shape (n_out, n)

        Returns
        -------
        calls : list of callable
        """
        calls: Calls = []
        for rows in self._others(len(w)):
            calls.append(product(w[rows], above, outputs[rows]))

        for rows, width in self.steps:
            call = functools.partial(torch.addmm, w[rows, -1:], w[rows, :width], above[:width], out=outputs[rows])
            calls.append(call)

        return calls

    def down(self, w_grad: torch.Tensor, above: torch.Tensor, grad: torch.Tensor) -> Calls:
        """Calls that fill the gradient of the weights, shape (n_out, n_in + 1), from that of the outputs, shape (n_out, n).

        What stands for weights beyond the steps is left alone.
        """
        calls: Calls = []
        for rows in self._others(len(grad)):
            calls.append(product(grad[rows], above.t(), w_grad[rows]))

        for rows, width in self.steps:
            calls.append(functools.partial(torch.mm, grad[rows], above[:width].t(), out=w_grad[rows, :width]))
            calls.append(functools.partial(torch.sum, grad[rows], 1, out=w_grad[rows, -1]))

        return calls

    def down_to_units(self, w: torch.Tensor, grad: torch.Tensor, below_grad: torch.Tensor) -> Calls:
        """Calls that fill the gradient of the units, shape (n_in, n), from that of the outputs, shape (n_out, n)."""
        calls: Calls = [below_grad.zero_]
        n_in = len(below_grad)
        for rows in self._others(len(grad)):
            calls.append(_add_product(w[rows, :n_in].t(), grad[rows], below_grad))

        # units behind the width of a step are read from the next one on
        first = 0
        for rows, width in self.steps:
            units = slice(first, width)
            readers = slice(rows.start, self.stop)
            first = width
            if units.start < units.stop:
                calls.append(_add_product(w[readers, units].t(), grad[readers], below_grad[units]))

        return calls

    def _others(self, n_out: int) -> list[slice]:
        """Outputs before and behind the steps, where there are any."""
        others = []
        for rows in (slice(0, self.start), slice(self.stop, n_out)):
            if rows.start < rows.stop:
                others.append(rows)

        return others


def _add_product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> functools.partial:
    """A call that adds the product of two matrices to a third one."""
    return functools.partial(torch.addmm, out, a, b, out=out)


def _longest_ascent(numbers: list[int]) -> tuple[int, int]:
    """Start and stop of the longest run of numbers of which none is smaller than the one before it."""
    best = (0, 0)
    start = 0

    for i in range(1, len(numbers) + 1):
        # a run ends at the end, too
        if i == len(numbers) or numbers[i] < numbers[i - 1]:
            if i - start > best[1] - best[0]:
                best = (start, i)
            start = i

    return best
