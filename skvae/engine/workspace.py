"""The buffers of a step by hand, and the passes over them, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from skvae.engine.comparison import Comparison, Own
from skvae.engine.first_layers import FirstLayer, Gather, Levels, Perceptron, Product
from skvae.engine.matmul import Calls, product
from skvae.model.auxiliary import BLUR, KEPT, WEIGHT, Auxiliary
from skvae.model.layers import Activation
from skvae.model.network import LOGVAR_MAX, LOGVAR_MIN, VAE

if TYPE_CHECKING:
    from skvae.table.layout import Layout


class Workspace:
    """The buffers of a step on `n` rows, made once with all the views of them, and the passes over them.

    All of them hold the rows side by side: the encoded rows, (width + 1, n), and each layer's activations, (width + 1, n),
    which end in the ones that meet the bias.

    Parameters
    ----------
    vae : VAE
    networks : Networks
        Its networks.
    n : int
        Number of rows.
    """

    def __init__(self, vae: VAE, networks: Networks, n: int) -> None:
        encoder = networks.encoder
        decoder = networks.decoder
        like = encoder.weights[0]
        layout = vae.likelihood.layout
        self.n = n

        # without sample weights: the share of each row in the loss, and their sum
        self.scale = like.new_full((n,), 1 / n)
        self.total = like.new_ones(())

        # tensors, for plain numbers among the operands cost a conversion in every call
        self.zero = like.new_full((), 0)
        self.half = like.new_full((), 0.5)
        self.minus_half = like.new_full((), -0.5)

        # the last row of x stays 1
        self.x = like.new_ones(layout.stop + 1, n)
        self.rows = self.x[:-1]
        self.inputs = RowInputs(layout, self.x, gathered=encoder.table is not None)
        self.auxiliary: AuxiliaryBuffers | None = None
        if vae.auxiliary is not None and networks.auxiliary is not None:
            self.auxiliary = AuxiliaryBuffers(vae.auxiliary, networks.auxiliary, networks.auxiliary_own, self.x)

        self._make_latent_buffers(vae.latent_dim, vae.decoder.n_row_inputs)
        self.read = self._encoder_inputs()
        self.encode, self.encode_back = passes(
            encoder, self.inputs.layer(encoder, self.read), self.head, self.head_grad
        )

        # the gradient by the outputs overwrites them
        self.comparison = Comparison(vae.likelihood, networks.own, self.x)
        outputs = self.comparison.outputs
        first = self.inputs.layer(decoder, self.below)
        self.decode, self.decode_back = passes(decoder, first, outputs, outputs, self.z_mean_grad)

    def _make_latent_buffers(self, latent_dim: int, n_row_inputs: int) -> None:
        """All that lies between the encoder's outputs and the decoder's inputs."""
        # the encoder's outputs are means and log-variances, one below the other
        self.head = self.x.new_empty(2 * latent_dim, self.n)
        self.head_grad = self.x.new_empty(2 * latent_dim, self.n)
        self.z_mean, self.z_logvar = self.head.split([latent_dim, latent_dim])
        self.z_mean_grad, self.z_logvar_grad = self.head_grad.split([latent_dim, latent_dim])

        self.std = self.x.new_zeros(latent_dim, self.n)
        self.shift = self.x.new_zeros(latent_dim, self.n)
        self.kl_cells = self.x.new_zeros(latent_dim, self.n)
        self.kl = self.x.new_zeros(latent_dim, self.n)

        # the decoder reads z, and what the encoder multiplies if it reads the row; else only ones, which meet the bias
        n_below = 1
        if n_row_inputs:
            n_below = len(self.inputs.dense)
        self.below = self.x.new_ones(latent_dim + n_below, self.n)
        self.z = self.below[:latent_dim]
        self.context: torch.Tensor | None = None
        if n_row_inputs:
            self.context = self.below[latent_dim:]

    def _encoder_inputs(self) -> torch.Tensor:
        """What the encoder multiplies, shape (n_dense, n): the extra numbers, if there are any, and what a decoder does."""
        if self.auxiliary is None:
            return self.inputs.dense

        return self.x.new_ones(len(self.auxiliary.numbers) + len(self.inputs.dense), self.n)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> None:
        """Fill the decoder's outputs for the rows `x` (n, layout.width) and the `noise` (noise_dim, n)."""
        self.rows.copy_(x[:, : len(self.rows)].t())
        self.inputs.read()
        if self.context is not None:
            self.context.copy_(self.inputs.dense)
        if self.auxiliary is not None:
            self.auxiliary.rows.copy_(x[:, len(self.rows) :].t())
            numbers = self.auxiliary.numbers
            self.read[: len(numbers)] = numbers
            self.read[len(numbers) :] = self.inputs.dense
        for call in self.encode:
            call()

        self.z_logvar.clamp_(LOGVAR_MIN, LOGVAR_MAX)
        torch.mul(self.z_logvar, self.half, out=self.std).exp_()
        torch.mul(self.std, noise[: len(self.std)], out=self.shift)
        torch.add(self.z_mean, self.shift, out=self.z)

        if self.auxiliary is not None:
            self.auxiliary.forward(self.z)
            self.z.mul_(KEPT).add_(noise[len(self.std) :], alpha=BLUR)
        for call in self.decode:
            call()

    def backward_likelihood(self, scale: torch.Tensor, total: torch.Tensor) -> None:
        """Overwrite the outputs of the decoders by the gradient with respect to them: see `Comparison.backward`."""
        self.comparison.backward(scale, total)
        if self.auxiliary is not None:
            self.auxiliary.comparison.backward(scale * WEIGHT, total * WEIGHT)

    def backward(self, scale: torch.Tensor, beta: float | torch.Tensor) -> None:
        """Fill the gradients of all weights from that of the decoder's outputs."""
        for call in self.decode_back:
            call()
        if self.auxiliary is not None:
            self.z_mean_grad.mul_(KEPT).add_(self.auxiliary.backward())

        # z = z_mean + shift, shift = z_std * noise, and KL = (z_mean^2 + z_std^2 - 1 - z_logvar) / 2, whose derivatives by
        # z_mean and z_logvar, z_mean and (z_std^2 - 1) / 2, come to stand side by side in `head`
        torch.addcmul(self.zero, self.z_mean_grad, self.shift, value=0.5, out=self.z_logvar_grad)
        minus_kl = torch.addcmul(self.z_logvar, self.z_mean, self.z_mean, value=-1, out=self.kl_cells)
        slope = torch.addcmul(self.minus_half, self.std, self.std, value=0.5, out=self.z_logvar)
        self.kl.addcmul_(minus_kl.sub_(slope, alpha=2), scale, value=-1)
        self.head_grad.addcmul_(self.head, scale * beta)

        for call in self.encode_back:
            call()

    def pop_totals(self) -> tuple[float, float]:
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        nll = self.comparison.pop_nll()
        if self.auxiliary is not None:
            nll += self.auxiliary.comparison.pop_nll()

        # what was summed up are shares 1 / n of the rows, and twice the divergence
        nll = self.n * nll
        kl = self.n * float(self.kl.sum()) / 2
        self.kl.zero_()

        return nll, kl


class Networks(NamedTuple):
    """The networks of a VAE as the passes read and write them.

    Attributes
    ----------
    encoder, decoder : Perceptron
    own : list of dict
        Values and gradients of the own parameters of each block of the likelihood, by name.
    auxiliary : Perceptron or None
        The auxiliary decoder's.
    auxiliary_own : list of dict
        As `own`, of the auxiliary decoder's likelihood.
    """

    encoder: Perceptron
    decoder: Perceptron
    own: Sequence[Own]
    auxiliary: Perceptron | None = None
    auxiliary_own: Sequence[Own] = ()


class AuxiliaryBuffers:
    """The buffers of an auxiliary decoder, and the passes over them; the rows stand side by side.

    Parameters
    ----------
    auxiliary : Auxiliary
    network : Perceptron
    own : list of dict
        Values and gradients of the own parameters of each block of its likelihood, by name.
    x : tensor of shape (any, n)

    Attributes
    ----------
    rows : tensor of shape (width, n)
        Rows as it reads them.
    numbers : tensor of shape (n_numbers, n)
        Those of their numbers that the encoder reads.
    comparison : Comparison
    """

    def __init__(self, auxiliary: Auxiliary, network: Perceptron, own: Sequence[Own], x: torch.Tensor) -> None:
        layout = auxiliary.likelihood.layout
        ones = x.new_ones(layout.width + 1, x.shape[1])
        self.rows = ones[:-1]
        self.numbers = ones[layout.first_number : layout.first_flag]

        # the gradient by the outputs overwrites them
        self.comparison = Comparison(auxiliary.likelihood, own, ones)
        outputs = self.comparison.outputs
        latent_dim = network.weights[0].shape[1] - 1
        self.below = x.new_ones(latent_dim + 1, x.shape[1])
        self.z_grad = x.new_empty(latent_dim, x.shape[1])
        self.decode, self.decode_back = passes(network, Product(self.below), outputs, outputs, self.z_grad)

    def forward(self, z: torch.Tensor) -> None:
        """Fill the outputs for latent points, shape (latent_dim, n)."""
        self.below[:-1] = z
        for call in self.decode:
            call()

    def backward(self) -> torch.Tensor:
        """Fill the gradients of the weights from that of the outputs; the gradient by z, shape (latent_dim, n)."""
        for call in self.decode_back:
            call()

        return self.z_grad


class RowInputs:
    """What the first layers read of a batch of rows; the rows stand side by side.

    Parameters
    ----------
    layout : Layout
    x : tensor of shape (layout.stop + 1, n)
        The rows, and ones.
    gathered : bool
        Whether the weights of levels are gathered; else the levels are made one-hot.

    Attributes
    ----------
    dense : tensor of shape (n_dense, n)
        What is multiplied: numbers and flags, and unless `gathered`, one-hot levels and ones, which meet the bias.
    """

    def __init__(self, layout: Layout, x: torch.Tensor, *, gathered: bool) -> None:
        self.cells = x[layout.first_number : layout.first_level]
        self.positions = x[layout.first_level : layout.stop]
        self.levels: Levels | None = None
        self.one_hot: torch.Tensor | None = None

        if gathered:
            self.levels = Levels(layout, x.shape[1])
            self.dense = self.cells
        elif layout.n_levels:
            self.dense = x.new_ones(layout.n_inputs + 1, x.shape[1])
            self.one_hot = self.dense[len(self.cells) : -1]

            # of each level, its part and its position in it
            parts = torch.arange(len(layout.n_levels)).repeat_interleave(torch.tensor(layout.n_levels))
            places = torch.arange(layout.n_all_levels) - torch.tensor(layout.level_starts)[parts]
            self.part = parts.to(x.device)
            self.place = places.to(x)[:, None]
        else:
            # without levels, the ones stand behind the cells already
            self.dense = x[layout.first_number :]

    def read(self) -> None:
        """Follow the rows, which have changed."""
        if self.levels is not None:
            self.levels.read(self.positions)
        elif self.one_hot is not None:
            self.dense[: len(self.cells)].copy_(self.cells)
            torch.eq(self.positions.index_select(0, self.part), self.place, out=self.one_hot)

    def layer(self, network: Perceptron, dense: torch.Tensor) -> FirstLayer:
        """The first layer of a network, which multiplies `dense`, shape (any, n), and gathers the levels if it has a table."""
        if self.levels is None or network.table is None or network.table_grad is None:
            return Product(dense)

        return Gather(dense, self.levels, network.table, network.table_grad)


# ------------------------------------------------------------------------------------------------- through the networks


class HiddenLayer:
    """The buffers of a hidden layer; the rows stand side by side.

    Parameters
    ----------
    width : int
        Number of units.
    activation : Activation
    like : tensor of shape (any, n)

    Attributes
    ----------
    above : tensor of shape (width + 1, n)
        What the layer above reads: the activations, and ones that meet its bias.
    activations : tensor of shape (width, n)
        Outputs of the units.
    sums : tensor of shape (width, n)
        What the activations are computed from, and the derivatives from afterwards.
    grad : tensor of shape (width, n)
        Gradient by the activations, overwritten by that by the sums.
    """

    def __init__(self, width: int, activation: Activation, like: torch.Tensor) -> None:
        self.above = like.new_ones(width + 1, like.shape[1])
        self.activations = self.above[:-1]
        self.grad = torch.empty_like(self.activations)

        # relu and its like may overwrite what they read; others need their input for the derivative
        self.sums = self.activations
        if activation.derivative_from == "input":
            self.sums = torch.empty_like(self.activations)


def passes(
    network: Perceptron,
    first: FirstLayer,
    outputs: torch.Tensor,
    outputs_grad: torch.Tensor,
    inputs_grad: torch.Tensor | None = None,
) -> tuple[Calls, Calls]:
    """The passes through the layers of one network, up and down.

    Parameters
    ----------
    network : Perceptron
    first : FirstLayer
    outputs, outputs_grad : tensor of shape (n_outputs, n)
        What the way up fills and the way down starts from; they may be the same.
    inputs_grad : tensor of shape (k, n), default=None
        What the way down fills by the gradient at the first `k` inputs, if it is wanted.

    Returns
    -------
    up, down : list of callable
    """
    hidden = [HiddenLayer(len(w), network.activation, outputs) for w in network.weights[:-1]]
    up = _way_up(network, first, hidden, outputs)
    down = _way_down(network, first, hidden, outputs_grad, inputs_grad)

    return up, down


def _way_up(network: Perceptron, first: FirstLayer, hidden: Sequence[HiddenLayer], outputs: torch.Tensor) -> Calls:
    """Fill the hidden layers and the outputs."""
    # of each layer, its sums
    sums = [layer.sums for layer in hidden]
    sums.append(outputs)
    calls = first.up(network, sums[0])

    for layer, w, own in zip(hidden, network.weights[1:], sums[1:], strict=True):
        calls.append(functools.partial(network.activation.forward, layer.sums, out=layer.activations))
        if network.stairs is not None and own is outputs:
            calls += network.stairs.up(w, layer.above, own)
        else:
            calls.append(product(w, layer.above, own))

    return calls


def _way_down(
    network: Perceptron,
    first: FirstLayer,
    hidden: Sequence[HiddenLayer],
    outputs_grad: torch.Tensor,
    inputs_grad: torch.Tensor | None,
) -> Calls:
    """Fill the gradients of the weights, and of the inputs if that is wanted, from the gradient of the outputs."""
    calls: Calls = []
    grad = outputs_grad

    # layer k + 1 reads hidden layer k
    for k in reversed(range(len(hidden))):
        below = hidden[k]
        w = network.weights[k + 1]
        w_grad = network.weight_grads[k + 1]

        # the bias has no layer below
        if network.stairs is not None and grad is outputs_grad:
            calls += network.stairs.down(w_grad, below.above, grad)
            calls += network.stairs.down_to_units(w, grad, below.grad)
        else:
            calls.append(product(grad, below.above.t(), w_grad))
            calls.append(product(w[:, :-1].t(), grad, below.grad))

        calls.append(functools.partial(network.activation.backward, below.grad, below.sums))
        grad = below.grad

    calls += first.down(network, grad)
    if inputs_grad is not None:
        w = network.weights[0][:, : len(inputs_grad)]
        calls.append(product(w.t(), grad, inputs_grad))

    return calls
