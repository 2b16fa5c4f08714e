"""The variational autoencoder: an encoder, a decoder and a likelihood."""

import copy

import numpy as np
import torch
from torch import nn

from skvae.model.decoding import generate_in_order
from skvae.model.layers import MLP, AutoregressiveMLP, arrays, load
from skvae.model.likelihoods import Likelihood, held

N_COMPONENTS = 8
"""Normal components of a number's density under an autoregressive decoder."""

LOGVAR_MIN, LOGVAR_MAX = -20.0, 10.0
"""The encoder's log-variances are held in this range (standard deviations from 5e-5 to 150), so that a row far from all
training rows cannot overflow the exponential."""

INPUT_MAX = 1e4
"""The encoder sees no cell beyond this many deviations from its mean; the likelihood does. No row of a training table of
fewer than 1e8 rows gets there (a column's largest standardised value is at most sqrt(n))."""


class VAE(nn.Module):
    """A variational autoencoder over encoded rows (Kingma & Welling, 2014).

    Parameters
    ----------
    encoder : torch.nn.Module
        (n, layout.n_inputs) -> (n, 2 latent_dim): the mean and the log-variance of q(z | x), side by side.
    decoder : torch.nn.Module
        (n, latent_dim) -> (n, n_outputs): what the likelihood reads.
    likelihood : Likelihood
        p(x | z).
    latent_dim : int

    Notes
    -----
    Rows are *encoded* rows, as ``likelihood.layout`` lays them out.
    """

    def __init__(self, encoder, decoder, likelihood, latent_dim):
        super().__init__()
        self.encoder, self.decoder, self.likelihood, self.latent_dim = encoder, decoder, likelihood, latent_dim

    @property
    def device(self):
        """torch.device : where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def encode(self, x):
        """Mean and log-variance of q(z | x), each of shape (n, latent_dim)."""
        z_mean, z_logvar = self.encoder(self.inputs(x)).chunk(2, dim=-1)
        return z_mean, held(z_logvar, LOGVAR_MIN, LOGVAR_MAX)

    @property
    def autoregressive(self):
        """bool : whether the decoder reads the parts before, too."""
        return isinstance(self.decoder, AutoregressiveMLP)

    def decode(self, z, x=None):
        """Likelihood parameters, shape (..., n, n_outputs), with the offsets of the rows `x` if they are given.

        An autoregressive decoder reads the rows beside z.
        """
        if self.autoregressive:
            outputs = self.decoder(z, self.inputs(x))
        else:  # custom modules are promised a matrix
            outputs = self.decoder(z) if z.ndim == 2 else self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])
        layout = self.likelihood.layout
        if layout.exposure is None or x is None:
            return outputs
        outputs = outputs.clone()  # autograd may need the outputs as they were
        for raised in self.likelihood.raised:
            outputs[..., raised] += x[..., layout.offset]
        return outputs

    def inputs(self, x):
        """The cells of encoded rows that networks read, shape (n, n_inputs)."""
        return x[..., self.likelihood.layout.first_number :].clamp(-INPUT_MAX, INPUT_MAX)

    def forward(self, x):
        """Mean (or most probable level) of p(x | z) at z = z_mean, shape (n, n_columns): the reconstruction."""
        return self.generate(self.encode(x)[0])

    @torch.no_grad()
    def generate(self, z, generator=None):
        """Parts decoded from `z`: drawn from p(x | z), or without a generator their means or most probable levels.

        Parameters
        ----------
        z : tensor of shape (n, latent_dim)
        generator : torch.Generator, default=None

        Returns
        -------
        parts : tensor of shape (n, n_columns)
        """
        if self.autoregressive or self.likelihood.layout.exposure is not None:
            return generate_in_order(self, z[:, None], generator)[0][:, 0]
        outputs = self.decode(z)
        return self.likelihood.mean(outputs) if generator is None else self.likelihood.draw(outputs, generator)

    def elbo_terms(self, x, noise):
        """The two terms of the evidence lower bound, row by row, with one draw of z each.

        Parameters
        ----------
        x : tensor of shape (n, layout.width)
        noise : tensor of shape (n, latent_dim)
            Standard normal; z = z_mean + z_std * noise.

        Returns
        -------
        nll : tensor of shape (n,)
            -log p(x | z), in nats of the encoded units.
        kl : tensor of shape (n,)
            KL(q(z | x) || N(0, I)), in nats.
        """
        z_mean, z_logvar = self.encode(x)
        z = z_mean + torch.exp(0.5 * z_logvar) * noise
        nll = -self.likelihood.log_prob(x, self.decode(z, x)).sum(-1)
        return nll, kl_divergence(z_mean, z_logvar).sum(-1)

    def __reduce__(self):
        # Custom modules are pickled by themselves, from the CPU, so that a file loads where there is no GPU.
        own = {name: p for name, p in arrays(self).items() if name.startswith("likelihood.")}
        encoder, decoder = (copy.deepcopy(m).cpu() if is_custom(m) else m for m in (self.encoder, self.decoder))
        return _rebuild_vae, (
            encoder,
            decoder,
            self.likelihood.layout,
            self.likelihood.n_components,
            self.latent_dim,
            own,
            self.training,
        )


def kl_divergence(z_mean, z_logvar):
    """KL(N(z_mean, exp(z_logvar)) || N(0, 1)) of each latent unit, elementwise, in nats (Kingma & Welling, 2014, B)."""
    return 0.5 * (z_mean**2 + torch.exp(z_logvar) - 1 - z_logvar)


def is_custom(module):
    """Whether a module came from a user's factory."""
    return not isinstance(module, MLP)


def build_vae(layout, mean, *, latent_dim, hidden_layer_sizes, activation, encoder, decoder, seed):
    """A freshly initialised VAE.

    Parameters
    ----------
    layout : Layout
        Where what stands in an encoded row.
    mean : ndarray of shape (layout.width,)
        Mean of the encoded rows; the built-in decoder starts there.
    latent_dim : int
    hidden_layer_sizes : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    activation : str
    encoder : callable, torch.nn.Module or None
        ``encoder(n_inputs, n_outputs)`` makes a module; a module is copied; None is an MLP.
    decoder : "factorized", "autoregressive", callable or torch.nn.Module
        Likewise.
    seed : int
        All initial weights follow from it. A factory finds torch's global generator seeded with it, and the
        generator's former state is put back afterwards.

    Returns
    -------
    vae : VAE
    """
    autoregressive = decoder == "autoregressive"
    likelihood = Likelihood(layout, N_COMPONENTS if autoregressive else 0)
    generator = torch.Generator().manual_seed(seed)
    hidden = tuple(hidden_layer_sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder = _make("encoder", encoder, layout.n_inputs, 2 * latent_dim, hidden, activation, generator)
        if autoregressive:
            inputs, outputs = (
                [layout.rank[i] for i in parts] for parts in (layout.input_parts, likelihood.output_part)
            )
            decoder = AutoregressiveMLP(latent_dim, inputs, outputs, hidden[::-1], activation, generator)
        else:
            decoder = _make("decoder", decoder, latent_dim, likelihood.n_outputs, hidden[::-1], activation, generator)
    if not is_custom(decoder):
        with torch.no_grad():
            start = likelihood.initial_outputs(torch.from_numpy(np.asarray(mean, dtype=np.float32)))
            decoder.layers[-1].bias.copy_(start)
    return VAE(encoder, decoder, likelihood.float(), latent_dim)


def _make(role, factory, n_inputs, n_outputs, hidden, activation, generator):
    """The encoder or the decoder, and a check that a custom one maps (n, n_inputs) to (n, n_outputs)."""
    if factory is None or isinstance(factory, str):
        return MLP((n_inputs, *hidden, n_outputs), activation, generator)
    module = copy.deepcopy(factory) if isinstance(factory, nn.Module) else factory(n_inputs, n_outputs)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{role}={factory!r} must be a torch.nn.Module or a callable (n_inputs, n_outputs) -> torch.nn.Module; the "
            f"call returned {type(module).__name__}."
        )
    module = module.float().eval()
    try:
        with torch.no_grad():
            shape = tuple(module(torch.zeros(2, n_inputs)).shape)
    except Exception as error:
        raise ValueError(f"The custom {role} could not read an input of shape (2, {n_inputs}): {error}") from error
    if shape != (2, n_outputs):
        what = "2 * latent_dim (means, then log-variances)" if role == "encoder" else "likelihood parameters"
        raise ValueError(
            f"The custom {role} must map (n, {n_inputs}) to (n, {n_outputs}), {what}; for n = 2 it returned shape "
            f"{shape}."
        )
    return module


def _rebuild_vae(encoder, decoder, layout, n_components, latent_dim, arrays, training):
    likelihood = load(
        Likelihood(layout, n_components),
        {name.removeprefix("likelihood."): array for name, array in arrays.items()},
        training,
    )
    return VAE(encoder, decoder, likelihood, latent_dim).train(training)
