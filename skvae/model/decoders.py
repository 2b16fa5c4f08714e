"""Decoders: from latent points, and perhaps cells of the row, to what the likelihood reads.

A decoder answers whatever others need to know of it: how many cells of a row it reads, whether parts are independent given z,
which weights are cut, and how its outputs come about for a row that is made part after part. Nobody asks for its class.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skvae.model.inputs import Inputs
from skvae.model.layers import ACTIVATIONS, MLP, mlp_of, portable
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.table.layout import Layout


class Decoder(nn.Module, abc.ABC):
    """From latent points to the parameters of p(x | z).

    Parameters
    ----------
    network : torch.nn.Module
        Holds all weights.
    output_part : sequence of int of length n_outputs
        Part of the row that each output belongs to.

    Attributes
    ----------
    name : str
        What the estimator's parameter ``decoder`` calls it.
    n_components : int
        Normal components of a number's density; 0 stands for a single one whose deviation is learnt per column.
    independent : bool
        Whether the parts of a row are independent given z.
    is_guided : bool
        Whether an auxiliary decoder is trained beside a built-in one: a decoder that could do without z would not use it.
    """

    name: ClassVar[str]
    n_components: ClassVar[int]
    independent: ClassVar[bool]
    is_guided: ClassVar[bool]

    def __init__(self, network: nn.Module, output_part: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.output_part = tuple(output_part)

    @classmethod
    @abc.abstractmethod
    def built_in(
        cls,
        latent_dim: int,
        layout: Layout,
        output_part: Sequence[int],
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> Decoder:
        """A decoder of perceptron layers for rows of a layout.

        Parameters
        ----------
        latent_dim : int
        layout : Layout
            Positions of the cells in an encoded row, and the rank of each part.
        output_part : sequence of int of length n_outputs
            Part of the row that each output belongs to.
        hidden : sequence of int
            Widths of the hidden layers.
        activation : str
            A key of `skvae.model.layers.ACTIVATIONS`.
        generator : torch.Generator or None
            Source of the initial weights; None leaves them to the caller.

        Returns
        -------
        decoder : Decoder
        """

    @property
    @abc.abstractmethod
    def n_row_inputs(self) -> int:
        """int : number of inputs made of the row that the network reads behind z, either all n_inputs or 0."""

    @property
    def layers(self) -> Sequence[nn.Linear] | None:
        """torch.nn.ModuleList of torch.nn.Linear or None : layers of a built-in network; None if the network is the user's."""
        mlp = mlp_of(self.network)
        if mlp is None:
            return None

        return mlp.layers

    @abc.abstractmethod
    def weight_masks(self) -> list[torch.Tensor | None]:
        """Of each layer, 1 where a weight is free and 0 where it is cut, shape (n_out, n_in); None if all are free."""

    @abc.abstractmethod
    def forward(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        """Parameters of p(x | z) for whole rows.

        Parameters
        ----------
        z : tensor of shape (..., n, latent_dim)
        inputs : Inputs, default=None
            Of the n rows; may be None if `n_row_inputs` is 0.

        Returns
        -------
        outputs : tensor of shape (..., n, n_outputs)
        """

    @abc.abstractmethod
    def begin(self, z: torch.Tensor, inputs: Inputs | None = None) -> Reader:
        """A reader of the outputs for rows whose parts come one after the other.

        Parameters
        ----------
        z : tensor of shape (n, n_draws, latent_dim)
        inputs : Inputs, default=None
            Of the n rows: of the parts given from the start, where those still to come are missing; None if all are to come.

        Returns
        -------
        reader : Reader
            Of n * n_draws rows, the draws of a row one after the other.
        """


class Reader(abc.ABC):
    """Outputs of a decoder for rows that are made part after part, in the order of the layout."""

    @abc.abstractmethod
    def outputs(self, part: int, rows: slice | torch.Tensor) -> torch.Tensor:
        """Outputs of one part for some rows, shape (len(rows), outputs of the part); earlier parts have been taken."""

    @abc.abstractmethod
    def all_outputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs of all parts for some rows, shape (len(rows), n_outputs), once every part has been taken."""

    @abc.abstractmethod
    def take(self, part: int, parts: torch.Tensor, rows: slice | torch.Tensor) -> None:
        """Read what some rows of `parts`, tensor of shape (n_rows, n_parts), hold for one part."""


@on_one_thread
def _rebuild(cls: type[Decoder], args: tuple, training: bool) -> Decoder:
    return cls(*args).train(training)


# ------------------------------------------------------------------------------------------------------------ factorized


class FactorizedDecoder(Decoder):
    """Cells are independent given z: the textbook VAE (Kingma & Welling, 2014).

    Parameters
    ----------
    network : torch.nn.Module
        Any network, (n, latent_dim) -> (n, n_outputs).
    output_part : sequence of int of length n_outputs
        Part of the row that each output belongs to.
    """

    name = "factorized"
    n_components = 0
    independent = True
    is_guided = False

    @classmethod
    def built_in(
        cls,
        latent_dim: int,
        layout: Layout,
        output_part: Sequence[int],
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> FactorizedDecoder:
        """See `Decoder`."""
        network = MLP((latent_dim, *hidden, len(output_part)), activation, generator)

        return cls(network, output_part)

    @property
    def n_row_inputs(self) -> int:
        """int : 0, it reads z alone."""
        return 0

    def weight_masks(self) -> list[torch.Tensor | None]:
        """See `Decoder`: all weights are free."""
        return [None] * len(self.layers or ())

    def forward(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        """See `Decoder`."""
        if z.ndim == 2:
            return self.network(z)

        # custom networks are promised a matrix
        outputs = self.network(z.flatten(0, -2))

        return outputs.unflatten(0, z.shape[:-1])

    def begin(self, z: torch.Tensor, inputs: Inputs | None = None) -> Reader:
        """See `Decoder`."""
        outputs = self.network(z.flatten(0, 1))

        return _FactorizedReader(outputs, self.output_part)

    def __reduce__(self) -> tuple:
        return _rebuild, (FactorizedDecoder, (portable(self.network), self.output_part), self.training)


class _FactorizedReader(Reader):
    """All outputs are there from the start.

    Parameters
    ----------
    outputs : tensor of shape (n_rows, n_outputs)
    output_part : sequence of int of length n_outputs
    """

    def __init__(self, outputs: torch.Tensor, output_part: Sequence[int]) -> None:
        self._all = outputs
        self._part = np.array(output_part)

    def outputs(self, part: int, rows: slice | torch.Tensor) -> torch.Tensor:
        return self._all[rows][:, np.flatnonzero(self._part == part)]

    def all_outputs(self, rows: torch.Tensor) -> torch.Tensor:
        return self._all[rows]

    def take(self, part: int, parts: torch.Tensor, rows: slice | torch.Tensor) -> None:
        """Nothing: no output depends on another part."""


# -------------------------------------------------------------------------------------------------------- autoregressive


class AutoregressiveDecoder(Decoder):
    """A cell depends on z *and on the parts before it*, in the order of the layout's ranks.

    The weights are masked as in MADE (Germain et al., 2015): every hidden unit has a degree, reads the parts of a rank below
    it and the hidden units of a degree up to it, and is read by the outputs of parts of a rank from it on. All units read z.

    Parameters
    ----------
    network : MLP
        (n, latent_dim + n_inputs) -> (n, n_outputs); the weights that are cut are set to 0.
    output_part : sequence of int of length n_outputs
        Part of the row that each output belongs to.
    latent_dim : int
    layout : Layout
        Positions of the cells in an encoded row, and the rank of each part.
    """

    name = "autoregressive"
    n_components = 8
    independent = False
    is_guided = True
    network: MLP

    def __init__(self, network: MLP, output_part: Sequence[int], latent_dim: int, layout: Layout) -> None:
        super().__init__(network, output_part)
        self.latent_dim = latent_dim
        self.layout = layout
        self._cut_weights()

    @classmethod
    def built_in(
        cls,
        latent_dim: int,
        layout: Layout,
        output_part: Sequence[int],
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> AutoregressiveDecoder:
        """See `Decoder`."""
        network = MLP((latent_dim + layout.n_inputs, *hidden, len(output_part)), activation, generator)

        return cls(network, output_part, latent_dim, layout)

    @torch.no_grad()
    def _cut_weights(self) -> None:
        """Make the mask of each layer, and set the weights it cuts to 0."""
        ranks = torch.tensor(self.layout.rank, dtype=torch.long)
        input_ranks = ranks[self.layout.input_parts]
        output_ranks = ranks[list(self.output_part)]

        # the lowest degree that may read an input: any for z, the one above its rank for a cell of the row
        lowest = torch.cat([torch.full((self.latent_dim,), -1), input_ranks + 1])

        for i, layer in enumerate(self.network.layers):
            if i + 1 < len(self.network.layers):
                degrees = torch.from_numpy(unit_degrees(layer.out_features, self.layout.n_parts))
            else:
                degrees = output_ranks

            mask = (lowest <= degrees[:, None]).to(layer.weight.dtype)
            layer.weight.mul_(mask)

            # made again from the layout, not stored
            self.register_buffer(f"mask_{i}", mask, persistent=False)
            lowest = degrees

    @property
    def n_row_inputs(self) -> int:
        """int : number of inputs made of the row that the network reads behind z."""
        return self.layout.n_inputs

    def weight_masks(self) -> list[torch.Tensor | None]:
        """See `Decoder`."""
        return [self._mask(i) for i in range(len(self.network.layers))]

    def _mask(self, i: int) -> torch.Tensor:
        return self.get_buffer(f"mask_{i}")

    def forward(self, z: torch.Tensor, inputs: Inputs | None = None) -> torch.Tensor:
        """See `Decoder`."""
        if inputs is None:
            raise ValueError("An autoregressive decoder reads the rows beside z: pass their cells as `inputs`.")

        first = self.network.layers[0]
        weight = first.weight * self._mask(0)

        # several z may go with one row, which is multiplied once for them all
        by_z = F.linear(z, weight[:, : self.latent_dim])
        by_row = inputs.linear(weight[:, self.latent_dim :], first.bias)

        return self.after_first(by_z + by_row)

    def after_first(self, sums: torch.Tensor) -> torch.Tensor:
        """Outputs, shape (..., n_outputs), from the sums of the first layer, shape (..., its width)."""
        activation = ACTIVATIONS[self.network.activation]

        for i, layer in enumerate(self.network.layers):
            if i > 0:
                sums = F.linear(activation(sums), layer.weight * self._mask(i), layer.bias)

        return sums

    def begin(self, z: torch.Tensor, inputs: Inputs | None = None) -> Reader:
        """See `Decoder`."""
        first = self.network.layers[0]

        # the weights that the mask cuts are 0 already; (n, n_draws, width)
        sums = F.linear(z, first.weight[:, : self.latent_dim], first.bias)
        if inputs is not None:
            sums += inputs.linear(first.weight[:, self.latent_dim :])[:, None]

        return _OrderedReader(self, sums.flatten(0, 1))

    def __reduce__(self) -> tuple:
        # the network pickles its weights as arrays
        args = (self.network, self.output_part, self.latent_dim, self.layout)

        return _rebuild, (AutoregressiveDecoder, args, self.training)


class _OrderedReader(Reader):
    """Only what a part depends on is computed for it.

    The first layer's sums grow by each part taken. In every layer the units of a higher degree, which stand behind the
    others, are left out.

    Parameters
    ----------
    decoder : AutoregressiveDecoder
    sums : tensor of shape (n_rows, width of the first layer)
        Of z and the cells that are given.
    """

    def __init__(self, decoder: AutoregressiveDecoder, sums: torch.Tensor) -> None:
        self._decoder = decoder
        self._layout = decoder.layout
        self._layers = decoder.network.layers
        # positions are no tensors, so that a graph can be traced: no size in it depends on a cell
        self._input_part = np.array(decoder.layout.input_parts)
        self._output_part = np.array(decoder.output_part)
        self._sums = sums

    def outputs(self, part: int, rows: slice | torch.Tensor) -> torch.Tensor:
        own = np.flatnonzero(self._output_part == part)
        if len(self._layers) == 1:
            return self._sums[rows][:, own]

        activation = ACTIVATIONS[self._decoder.network.activation]
        width = self._n_units(self._layers[0], part)
        h = activation(self._sums[:, :width][rows])  # (len(rows), width)

        for layer in self._layers[1:-1]:
            n_in = width
            width = self._n_units(layer, part)
            h = activation(F.linear(h, layer.weight[:width, :n_in], layer.bias[:width]))

        last = self._layers[-1]

        return F.linear(h, last.weight[own, :width], last.bias[own])

    def _n_units(self, layer: nn.Linear, part: int) -> int:
        """How many of a layer's units have a degree up to the rank of the part."""
        degrees = unit_degrees(layer.out_features, self._layout.n_parts)

        return int((degrees <= self._layout.rank[part]).sum())

    def all_outputs(self, rows: torch.Tensor) -> torch.Tensor:
        return self._decoder.after_first(self._sums[rows])

    def take(self, part: int, parts: torch.Tensor, rows: slice | torch.Tensor) -> None:
        own = np.flatnonzero(self._input_part == part)
        weight = self._layers[0].weight[:, self._decoder.latent_dim + own].t()  # (inputs of the part, width)

        # a level is a one among zeros: it chooses a row of the weights
        if part >= self._layout.n_numbers:
            sums = weight.index_select(0, parts[rows, part].long())
        else:
            sums = number_inputs(self._layout, part, parts[rows]) @ weight

        if isinstance(rows, slice):
            self._sums[rows] += sums
        else:
            self._sums.index_add_(0, rows, sums)


def unit_degrees(n_units: int, n_ranks: int) -> np.ndarray:
    """Degrees of a layer's hidden units, ndarray of int of shape (n_units,): evenly from 0 to n_ranks - 1, in order."""
    return np.arange(n_units) * n_ranks // max(1, n_units)


def number_inputs(layout: Layout, part: int, parts: torch.Tensor) -> torch.Tensor:
    """Inputs made of a part that is not categorical.

    Parameters
    ----------
    layout : Layout
    part : int
    parts : tensor of shape (n, n_parts)
        The parts of the rows up to this one, in the order of the layout.

    Returns
    -------
    inputs : tensor of shape (n, 1 or 2)
        Its number and, if it has one, its flag.
    """
    value = parts[:, part]
    observed = torch.ones_like(value)
    gate = layout.gate[part]

    if part < layout.n_counts:
        # the network reads the standardised logarithm
        location, scale = layout.count_scales[part]
        value = (torch.log1p(value) - location) / scale
    elif gate >= 0:
        # behind a closed gate there is no number
        open_level = layout.n_levels[gate - layout.n_numbers] - 1
        observed = (parts[:, gate] == open_level).to(value.dtype)

    if part in layout.flagged:
        return torch.stack([value * observed, observed], dim=1)

    return value[:, None]


DECODERS: dict[str, type[Decoder]] = {
    FactorizedDecoder.name: FactorizedDecoder,
    AutoregressiveDecoder.name: AutoregressiveDecoder,
}
"""Decoders by name."""
