"""Muon: momentum steps for weight matrices along the nearest orthogonal matrix (Jordan et al., 2024).

A gradient of a weight matrix is nearly of low rank: a few directions hold most of its length. Muon steps as far along all
directions as along these, which reaches a given likelihood in a fraction of Adam's steps. It takes the weights that read dense
inputs: all of a hidden layer between two others, and, of a first layer, those of z, numbers and flags. Those of one-hot
levels, which most rows do not meet, the last layers and all biases are Adam's.

References
----------
Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
Amsel, Persson, Musco & Gower, "The Polar Express: optimal matrix sign methods and their application to the Muon algorithm",
2025.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from skvae.engine.adam import AdamState
from skvae.engine.matmul import product
from skvae.model.layers import mlp_of
from skvae.model.network import VAE

MOMENTUM = 0.95

STEP = 0.6
"""Root mean square of the entries of a step, in learning rates: less than Adam's, which all point their own way."""

ROWS_PER_STEP = 2
"""Rows between two steps, in times of the smaller side of a matrix: a step costs as much as the gradients of 3 / 4 of them."""

POLYNOMIALS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
"""Coefficients a, b, c of ``a s + b s^3 + c s^5``, to be applied one after the other to singular values s (Amsel et al.).

They bring all from a hundredth of the matrix's norm on to between 0.18 and 1.87. That is as near to 1 as a step need be: with
more of them, or others that come nearer, the held-out likelihood was no better.
"""

MARGIN = 1.01
"""The singular values start at most at one over this: the polynomials are made for values up to 1, and rounding needs room."""

SMALLEST_NORM = 1e-18
"""Matrices below this norm, whose squares single precision does not hold, are taken for smaller ones and not scaled up."""


class Matrix(NamedTuple):
    """Weights that Muon steps on, views that stay where they are.

    Attributes
    ----------
    name : str
        Of the parameter.
    weight, grad : tensor of shape (n_out, n_columns)
    mask : tensor of shape (n_out, n_columns) or None
        1 where a weight is free and 0 where it is cut; None if all are free.
    """

    name: str
    weight: torch.Tensor
    grad: torch.Tensor
    mask: torch.Tensor | None


def columns(vae: VAE) -> dict[torch.Tensor, int]:
    """The weights of a VAE that Muon steps on, and of each how many of its first columns.

    There are none in a network of the user's, which may be of any kind.
    """
    layout = vae.likelihood.layout
    n_dense = layout.first_level - layout.first_number
    found: dict[torch.Tensor, int] = {}

    encoder = mlp_of(vae.encoder)
    if encoder is not None:
        _add_columns(found, encoder.layers, layout.n_extra_numbers + n_dense)
    if vae.decoder.layers is not None:
        _add_columns(found, vae.decoder.layers, vae.latent_dim + n_dense)
    if vae.auxiliary is not None:
        _add_columns(found, vae.auxiliary.network.layers, vae.latent_dim)

    return found


def _add_columns(found: dict[torch.Tensor, int], layers: Sequence[nn.Linear], n_dense: int) -> None:
    """Add the weights of one network, whose first layer reads `n_dense` dense cells, and one-hot levels behind them."""
    for layer in layers[:-1]:
        n_columns = layer.in_features
        if layer is layers[0]:
            n_columns = min(n_columns, n_dense)
        if n_columns > 0:
            found[layer.weight] = n_columns


class Muon:
    """Momentum, and steps along its nearest orthogonal matrix, for some matrices.

    An orthogonal matrix is computed once per so many rows as `ROWS_PER_STEP` times the smaller side of the matrix, so that its
    cost stays in proportion to that of the gradients, whatever the batch. The step is as much longer if it goes for several
    gradients.

    Parameters
    ----------
    matrices : sequence of Matrix
    always : bool, default=False
        Whether to step after every gradient: what is captured on a device does the same each time.
    """

    def __init__(self, matrices: Sequence[Matrix], *, always: bool = False) -> None:
        self._states = [_State(matrix, always) for matrix in matrices]

    def update(self, n_rows: int, learning_rate: float | torch.Tensor) -> None:
        """Step on the gradients of a batch, and set them to 0, so that Adam leaves the weights alone.

        Parameters
        ----------
        n_rows : int
        learning_rate : float or tensor of shape ()
        """
        for state in self._states:
            state.update(n_rows, learning_rate)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """By name of the parameter: the momentum, an array of shape (n_out, n_columns), and what has come since the last step.

        The latter are two numbers, of rows and of gradients.
        """
        states = {}

        for state in self._states:
            momentum = state.momentum.cpu().numpy().copy()
            since = np.array([state.n_rows, state.n_gradients])
            states[state.matrix.name] = {"momentum": momentum, "since_step": since}

        return states

    def load(self, states: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Go on from what `state` returned earlier; a parameter that is not there begins anew."""
        for state in self._states:
            saved = states.get(state.matrix.name, {})
            if "momentum" in saved:
                state.momentum.copy_(torch.from_numpy(saved["momentum"]))
                state.n_rows = int(saved["since_step"][0])
                state.n_gradients = int(saved["since_step"][1])


def without_idle_moments(states: AdamState) -> AdamState:
    """States without Adam's moments of the parameters that are all Muon's, which are 0."""
    for state in states.values():
        momentum = state.get("momentum")
        if momentum is not None and momentum.shape == state["exp_avg"].shape:
            del state["exp_avg"], state["exp_avg_sq"]

    return states


class _State:
    """Momentum of one matrix, and the buffers of its step."""

    def __init__(self, matrix: Matrix, always: bool) -> None:
        self.matrix = matrix
        self.momentum = torch.zeros_like(matrix.grad, memory_format=torch.contiguous_format)
        self.polar = PolarFactor(self.momentum)

        # an orthogonal matrix (m, n) has entries of mean square 1 / max(m, n)
        self.length = STEP * max(self.momentum.shape) ** 0.5

        self.rows_per_step = 0 if always else ROWS_PER_STEP * min(self.momentum.shape)
        self.n_rows = 0
        self.n_gradients = 0

    def update(self, n_rows: int, learning_rate: float | torch.Tensor) -> None:
        grad = self.matrix.grad
        self.momentum.lerp_(grad, 1 - MOMENTUM)
        self.n_rows += n_rows
        self.n_gradients += 1

        if self.n_rows >= self.rows_per_step:
            # Nesterov's momentum looks one step ahead
            torch.lerp(grad, self.momentum, MOMENTUM, out=self.polar.start)
            direction = self.polar()
            if self.matrix.mask is not None:
                direction *= self.matrix.mask

            # one after the other: a captured rate is in single precision
            direction *= self.length * self.n_gradients
            direction *= learning_rate
            self.matrix.weight.sub_(direction)
            self.n_rows = 0
            self.n_gradients = 0

        grad.zero_()


class PolarFactor:
    """Roughly the orthogonal matrix nearest to another, by products alone.

    ``x <- a x + (b x x' + c (x x')^2) x`` with the coefficients of `POLYNOMIALS`: the singular vectors stay, and the singular
    values come near 1 (Amsel et al., 2025), but for the smallest ones.

    Parameters
    ----------
    like : tensor of shape (m, n)

    Attributes
    ----------
    start : tensor of shape (m, n)
        Where the matrix is to be written before a call, which overwrites it.
    """

    def __init__(self, like: torch.Tensor) -> None:
        is_tall = like.shape[0] > like.shape[1]
        small = min(like.shape)
        shape = (small, max(like.shape))

        # the products are those of the smaller side
        x = like.new_empty(shape)
        y = like.new_empty(shape)
        self._gram = like.new_empty(small, small)
        self._square = like.new_empty(small, small)
        self.start = x.t() if is_tall else x
        self._first = x

        self._rounds: list[_Round] = []
        for a, b, c in POLYNOMIALS:
            calls = (
                product(x, x.t(), self._gram),
                product(self._gram, self._gram, self._square),
                product(self._square, x, y),
            )
            self._rounds.append(_Round(a, b, c, x, y, calls))
            x, y = y, x
        self._result = x.t() if is_tall else x

    def __call__(self) -> torch.Tensor:
        """The orthogonal matrix, in a buffer of shape (m, n) that the next call overwrites."""
        # a gradient of zeros stays one
        self._first.div_(self._first.norm().mul_(MARGIN).add_(SMALLEST_NORM))

        for a, b, c, x, y, (gram, square, times) in self._rounds:
            gram()
            square()
            self._square.mul_(c).add_(self._gram, alpha=b)
            times()
            y.add_(x, alpha=a)

        return self._result


class _Round(NamedTuple):
    """One polynomial, from `x` to `y`."""

    a: float
    b: float
    c: float
    x: torch.Tensor
    y: torch.Tensor
    calls: tuple[Callable[[], object], Callable[[], object], Callable[[], object]]
