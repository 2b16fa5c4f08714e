"""The variational autoencoder: an encoder, a decoder and a likelihood."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from skvae.model.auxiliary import BLUR, KEPT, WEIGHT, Auxiliary
from skvae.model.decoders import DECODERS, Decoder, FactorizedDecoder, Reader
from skvae.model.inputs import INPUT_MAX, Inputs, read_inputs
from skvae.model.layers import MLP, mlp_of, portable
from skvae.model.likelihoods import Likelihood, held
from skvae.randomness import PrivateDraws
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.table.layout import Layout

NetworkFactory = Callable[[int, int], nn.Module]
"""``factory(n_inputs, n_outputs)`` makes a network (n, n_inputs) -> (n, n_outputs)."""

OUTPUTS = {"encoder": "2 * latent_dim (means, then log-variances)", "decoder": "likelihood parameters"}
"""What the outputs of the user's networks are."""

LOGVAR_MIN = -20.0
LOGVAR_MAX = 10.0
"""The encoder's log-variances are held in this range (standard deviations from 5e-5 to 150), so that a row far from all
training rows cannot overflow the exponential."""


class VAE(nn.Module):
    """A variational autoencoder over encoded rows (Kingma & Welling, 2014).

    Parameters
    ----------
    encoder : torch.nn.Module
        (n, layout.n_encoder_inputs) -> (n, 2 latent_dim): the mean and the log-variance of q(z | x), side by side.
    decoder : Decoder
        From z, and perhaps cells of the row, to what the likelihood reads.
    likelihood : Likelihood
        p(x | z).
    latent_dim : int
    auxiliary : Auxiliary, default=None
        A second decoder, which the layout of the rows then has a place for.

    Notes
    -----
    Rows are *encoded* rows, as ``likelihood.layout`` lays them out.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        likelihood: Likelihood,
        latent_dim: int,
        auxiliary: Auxiliary | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim
        self.auxiliary = auxiliary

    @property
    def noise_dim(self) -> int:
        """int : number of normal draws that a row takes in training: for z and, beside an auxiliary decoder, for its blur."""
        if self.auxiliary is None:
            return self.latent_dim

        return 2 * self.latent_dim

    @property
    def device(self) -> torch.device:
        """torch.device : where the parameters are."""
        for p in self.parameters():
            return p.device

        # custom networks may have no parameters
        return torch.device("cpu")

    def inputs(self, x: torch.Tensor) -> Inputs:
        """What decoders read of encoded rows, shape (n, layout.width)."""
        return read_inputs(self.likelihood.layout, x)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x), each of shape (n, latent_dim)."""
        layout = self.likelihood.layout
        inputs = self.inputs(x)
        if layout.auxiliary is not None:
            inputs = inputs.behind(x[..., layout.extra_numbers].clamp(-INPUT_MAX, INPUT_MAX))
        mlp = mlp_of(self.encoder)

        # a network of the user's is promised a matrix
        if mlp is None:
            outputs = self.encoder(inputs.dense(layout.n_encoder_inputs))
        else:
            first = mlp.layers[0]
            outputs = mlp.after_first(inputs.linear(first.weight, first.bias))

        # side by side in the encoder's outputs
        z_mean, z_logvar = outputs.chunk(2, dim=-1)

        return z_mean, held(z_logvar, LOGVAR_MIN, LOGVAR_MAX)

    def encode_blurred(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance, given x, of the z that the decoder reads, each of shape (n, latent_dim).

        Beside an auxiliary decoder it is blurred: see `skvae.model.auxiliary`.
        """
        z_mean, z_logvar = self.encode(x)
        if self.auxiliary is None:
            return z_mean, z_logvar

        return KEPT * z_mean, torch.log(KEPT**2 * torch.exp(z_logvar) + BLUR**2)

    def decode(self, z: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """Parameters of p(x | z).

        Parameters
        ----------
        z : tensor of shape (..., n, latent_dim)
        x : tensor of shape (n, layout.width), default=None
            Encoded rows. An autoregressive decoder reads them, and their offsets raise the counts.

        Returns
        -------
        outputs : tensor of shape (..., n, n_outputs)
        """
        if x is None:
            return self.decoder(z)

        return self.likelihood.raise_by(self.decoder(z, self.inputs(x)), x)

    def begin(self, z: torch.Tensor, x: torch.Tensor | None = None) -> Reader:
        """A reader of the decoder's outputs for rows made part after part: see `Decoder.begin`.

        Parameters
        ----------
        z : tensor of shape (n, n_draws, latent_dim)
        x : tensor of shape (n, layout.width), default=None
            Encoded rows, in which the parts still to come are missing.
        """
        if x is None:
            return self.decoder.begin(z)

        return self.decoder.begin(z, self.inputs(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean (or most probable level) of p(x | z) at z = z_mean, shape (n, n_parts).

        Under an autoregressive decoder each part is told from z and the parts before it in `x`.
        """
        z_mean, _ = self.encode(x)

        return self.likelihood.mean(self.decode(z_mean, x))

    def loss_terms(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two terms of the loss, row by row, with one draw of z each: those of the evidence lower bound.

        An auxiliary decoder's -log p(x | z) counts beside the decoder's, by `skvae.model.auxiliary.WEIGHT`.

        Parameters
        ----------
        x : tensor of shape (n, layout.width)
        noise : tensor of shape (n, noise_dim)
            Standard normal; z = z_mean + z_std * noise. What is more of it blurs z.

        Returns
        -------
        nll : tensor of shape (n,)
            -log p(x | z), in nats of the encoded units.
        kl : tensor of shape (n, latent_dim)
            KL(q(z | x) || N(0, I)) of each latent unit, in nats.
        """
        z_mean, z_logvar = self.encode(x)
        z = z_mean + torch.exp(0.5 * z_logvar) * noise[:, : self.latent_dim]  # (n, latent_dim)

        nll = torch.zeros_like(z[:, 0])
        if self.auxiliary is not None:
            nll = WEIGHT * self.auxiliary.nll(x[:, self.likelihood.layout.stop :], z)
            z = KEPT * z + BLUR * noise[:, self.latent_dim :]
        nll = nll - self.likelihood.log_prob(x, self.decode(z, x)).sum(-1)
        kl = kl_divergence(z_mean, z_logvar)

        return nll, kl

    @property
    def has_custom_networks(self) -> bool:
        """bool : whether the encoder or the decoder is the user's: such modules may draw, or act otherwise in training."""
        return mlp_of(self.encoder) is None or self.decoder.layers is None

    def __deepcopy__(self, memo: dict) -> VAE:
        # what is pickled is on the CPU
        rebuild, args = self.__reduce__()

        return rebuild(*copy.deepcopy(args, memo)).to(self.device)

    def __reduce__(self) -> tuple:
        args = (portable(self.encoder), self.decoder, self.likelihood, self.latent_dim, self.auxiliary)

        return _rebuild, (args, self.training)


@on_one_thread
def _rebuild(args: tuple, training: bool) -> VAE:
    return VAE(*args).train(training)


def kl_divergence(z_mean: torch.Tensor, z_logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(z_mean, exp(z_logvar)) || N(0, 1)) of each latent unit, elementwise, in nats (Kingma & Welling, 2014, B)."""
    return 0.5 * (z_mean**2 + torch.exp(z_logvar) - 1 - z_logvar)


# -------------------------------------------------------------------------------------------------------------- building


def build_vae(
    layout: Layout,
    mean: np.ndarray,
    *,
    latent_dim: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    encoder: NetworkFactory | nn.Module | None,
    decoder: str | NetworkFactory | nn.Module,
    seed: int,
    auxiliary_mean: np.ndarray | None = None,
) -> VAE:
    """A freshly initialised VAE.

    Parameters
    ----------
    layout : Layout
        Positions of the cells in an encoded row.
    mean : ndarray of shape (layout.first_level + layout.n_all_levels,)
        Mean of the encoded rows up to their levels, and the share of each level; the built-in decoders start there.
    latent_dim : int
    hidden_layer_sizes : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    activation : str
        A key of `skvae.model.layers.ACTIVATIONS`.
    encoder : callable, torch.nn.Module or None
        ``encoder(n_inputs, n_outputs)`` makes a module; a module is copied; None is an MLP.
    decoder : {"factorized", "autoregressive"}, callable or torch.nn.Module
        A key of `skvae.model.decoders.DECODERS`; a callable or a module makes the network of a factorized decoder.
    seed : int
        All initial weights follow from it. A factory finds torch's default generator seeded with it, and the
        generator's former state is put back afterwards.
    auxiliary_mean : ndarray of shape (auxiliary.first_level + auxiliary.n_all_levels,), default=None
        The mean of the rows as an auxiliary decoder reads them, if the layout has a place for one.

    Returns
    -------
    vae : VAE
    """
    decoder_class = DECODERS[decoder] if isinstance(decoder, str) else FactorizedDecoder
    likelihood = Likelihood(layout, decoder_class.n_components)
    output_part = likelihood.output_part.tolist()
    hidden = tuple(hidden_layer_sizes)

    # both networks draw from the same sources, the encoder first
    generator = torch.Generator().manual_seed(seed)
    draws = PrivateDraws(seed, torch.device("cpu"))

    if encoder is None:
        encoder_network: nn.Module = MLP((layout.n_encoder_inputs, *hidden, 2 * latent_dim), activation, generator)
    else:
        encoder_network = draws.run(custom_network, "encoder", encoder, layout.n_encoder_inputs, 2 * latent_dim)

    if isinstance(decoder, str):
        built = decoder_class.built_in(latent_dim, layout, output_part, hidden[::-1], activation, generator)
    else:
        network = draws.run(custom_network, "decoder", decoder, latent_dim, likelihood.n_outputs)
        built = FactorizedDecoder(network, output_part)

    auxiliary = None
    if layout.auxiliary is not None:
        auxiliary = Auxiliary.built_in(latent_dim, layout.auxiliary, hidden[-1:], activation, generator).float()
        _start(auxiliary.decoder, auxiliary.likelihood, auxiliary_mean)
    _start(built, likelihood, mean)

    return VAE(encoder_network, built, likelihood.float(), latent_dim, auxiliary)


@torch.no_grad()
def _start(decoder: Decoder, likelihood: Likelihood, mean: np.ndarray | None) -> None:
    """Let the outputs of a built-in decoder start from the mean of the rows."""
    # a network of the user's starts as its maker meant
    if decoder.layers is not None and mean is not None:
        start = likelihood.initial_outputs(torch.from_numpy(np.asarray(mean, dtype=np.float32)))
        decoder.layers[-1].bias.copy_(start)


def custom_network(role: str, factory: NetworkFactory | nn.Module, n_inputs: int, n_outputs: int) -> nn.Module:
    """The user's encoder or decoder, in single precision and ready to be read, once it is seen to fit."""
    network = copy.deepcopy(factory) if isinstance(factory, nn.Module) else factory(n_inputs, n_outputs)
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"{role}={factory!r} must be a torch.nn.Module or a callable (n_inputs, n_outputs) -> torch.nn.Module; the "
            f"call returned {type(network).__name__}."
        )

    network = network.float().eval()
    _check_shapes(role, network, n_inputs, n_outputs)

    return network


@torch.no_grad()
def _check_shapes(role: str, network: nn.Module, n_inputs: int, n_outputs: int) -> None:
    """An error unless a custom network maps (n, n_inputs) to (n, n_outputs)."""
    # two rows, to see that an axis of rows is kept
    try:
        shape = tuple(network(torch.zeros(2, n_inputs)).shape)
    except Exception as error:
        raise ValueError(f"The custom {role} could not read an input of shape (2, {n_inputs}): {error}") from error

    if shape != (2, n_outputs):
        raise ValueError(
            f"The custom {role} must map (n, {n_inputs}) to (n, {n_outputs}), {OUTPUTS[role]}; for n = 2 it returned shape "
            f"{shape}."
        )
