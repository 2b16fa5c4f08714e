"""The encoder, the decoder, and the variational autoencoder they make with a likelihood."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skvae.likelihoods import Likelihood, held

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An activation with its derivative beside it.

    Attributes
    ----------
    forward : callable
        ``forward(x, out=out)``, elementwise; `out` may be `x` if the derivative is told from the output.
    backward : callable
        ``backward(grad, saved)`` multiplies `grad` in place by the derivative, told from what was saved.
    derivative_from : {"input", "output"}
        What that is.
    """

    forward: Callable
    backward: Callable
    derivative_from: str

    def __call__(self, x):
        return self.forward(x)


def _softplus(x, out=None):
    return F.softplus(x) if out is None else aten.softplus.out(x, out=out)


def _relu(x, out=None):
    return torch.relu(x) if out is None else torch.clamp_min(x, 0, out=out)


def _elu(x, out=None):
    return F.elu(x) if out is None else aten.elu.out(x, out=out)


def _silu(x, out=None):
    return F.silu(x) if out is None else aten.silu.out(x, out=out)


def _gelu(x, out=None):
    return F.gelu(x) if out is None else aten.gelu.out(x, out=out)


def _identity(x, out=None):
    return x


ACTIVATIONS = {
    "identity": Activation(_identity, lambda grad, y: grad, "output"),
    "logistic": Activation(
        torch.sigmoid, lambda grad, y: aten.sigmoid_backward.grad_input(grad, y, grad_input=grad), "output"
    ),
    "tanh": Activation(torch.tanh, lambda grad, y: aten.tanh_backward.grad_input(grad, y, grad_input=grad), "output"),
    "relu": Activation(
        _relu, lambda grad, y: aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad), "output"
    ),
    "elu": Activation(
        _elu, lambda grad, y: aten.elu_backward.grad_input(grad, 1, 1, 1, True, y, grad_input=grad), "output"
    ),
    "silu": Activation(_silu, lambda grad, x: aten.silu_backward.grad_input(grad, x, grad_input=grad), "input"),
    "gelu": Activation(_gelu, lambda grad, x: aten.gelu_backward.grad_input(grad, x, grad_input=grad), "input"),
    "softplus": Activation(
        _softplus, lambda grad, x: aten.softplus_backward.grad_input(grad, x, 1, 20, grad_input=grad), "input"
    ),
}

N_COMPONENTS = 8
"""Normal components of a number's density under an autoregressive decoder."""

LOGVAR_MIN, LOGVAR_MAX = -20.0, 10.0
"""The encoder's log-variances are held in this range (standard deviations from 5e-5 to 150), so that a row far from all
training rows cannot overflow the exponential."""

INPUT_MAX = 1e4
"""The encoder sees no cell beyond this many deviations from its mean; the likelihood does. No row of a training table of
fewer than 1e8 rows gets there (a column's largest standardised value is at most sqrt(n))."""


class MLP(nn.Module):
    """Linear layers with an activation between them: (n, sizes[0]) -> (n, sizes[-1]).

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output.
    activation : str
        A key of `ACTIVATIONS`.
    generator : torch.Generator or None
        Source of the initial weights (Glorot & Bengio, 2010, uniform; biases 0); None leaves them to the caller.
    """

    def __init__(self, sizes, activation, generator=None):
        super().__init__()
        self.sizes, self.activation = tuple(sizes), activation
        self.layers = nn.ModuleList(
            _empty_linear(n_in, n_out) for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True)
        )
        if generator is not None:
            for layer in self.layers:
                bound = (6.0 / (layer.in_features + layer.out_features)) ** 0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        """Outputs of shape (n, sizes[-1])."""
        activation = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = activation(layer(x))
        return self.layers[-1](x)

    def __reduce__(self):
        return _rebuild, (MLP, (self.sizes, self.activation), _arrays(self), self.training)


def _empty_linear(n_in, n_out):
    """A float32 layer with weights of no meaning, whatever the default dtype; nothing is drawn for it."""
    layer = nn.Linear(1, 1, dtype=torch.float32, device="meta")
    layer.in_features, layer.out_features = n_in, n_out
    layer.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=torch.float32))
    layer.bias = nn.Parameter(torch.empty(n_out, dtype=torch.float32))
    return layer


class AutoregressiveMLP(MLP):
    """A decoder that reads z *and the parts before*: (n, latent_dim), (n, n_inputs) -> (n, n_outputs).

    The weights are masked as in MADE (Germain et al., 2015): every hidden unit has a degree, reads the parts of a rank below
    it and the hidden units of a degree up to it, and is read by the outputs of parts of a rank from it on. z is read by all.

    Parameters
    ----------
    latent_dim : int
    input_ranks, output_ranks : sequence of int
        Rank of the part that each input, and each output, belongs to.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : str
    generator : torch.Generator or None
    """

    def __init__(self, latent_dim, input_ranks, output_ranks, hidden, activation, generator=None):
        super().__init__((latent_dim + len(input_ranks), *hidden, len(output_ranks)), activation, generator)
        self.latent_dim, self.input_ranks, self.output_ranks = latent_dim, tuple(input_ranks), tuple(output_ranks)
        n_ranks = max((*self.input_ranks, *self.output_ranks), default=0) + 1
        below = torch.tensor([-1] * latent_dim + [rank + 1 for rank in self.input_ranks])
        for i, layer in enumerate(self.layers):
            last = i == len(self.layers) - 1
            degrees = torch.tensor(self.output_ranks) if last else unit_degrees(layer.out_features, n_ranks)
            mask = (below[None, :] <= degrees[:, None]).to(layer.weight.dtype)
            layer.register_buffer("mask", mask, persistent=False)
            with torch.no_grad():
                layer.weight.mul_(mask)
            below = degrees

    def forward(self, z, inputs):
        """Outputs of shape (..., n, n_outputs) for z of shape (..., n, latent_dim) and inputs of shape (n, n_inputs)."""
        activation, first = ACTIVATIONS[self.activation], self.layers[0]
        weight = first.weight * first.mask
        x = F.linear(z, weight[:, : self.latent_dim]) + F.linear(inputs, weight[:, self.latent_dim :], first.bias)
        for layer in self.layers[1:]:
            x = F.linear(activation(x), layer.weight * layer.mask, layer.bias)
        return x

    def __reduce__(self):
        args = (self.latent_dim, self.input_ranks, self.output_ranks, self.sizes[1:-1], self.activation)
        return _rebuild, (AutoregressiveMLP, args, _arrays(self), self.training)


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
    Rows are *encoded* rows, as ``likelihood.layout`` lays them out, with a last column of ones (which meets the biases in the
    hand-written training step).
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
        """Likelihood parameters, shape (..., n, n_outputs); an autoregressive decoder reads the rows `x` beside z."""
        if self.autoregressive:
            return self.decoder(z, self.inputs(x))
        # custom modules are promised a matrix
        return self.decoder(z) if z.ndim == 2 else self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])

    def inputs(self, x):
        """The cells of encoded rows that networks read, shape (n, n_inputs)."""
        return x[..., self.likelihood.layout.n_counts : -1].clamp(-INPUT_MAX, INPUT_MAX)

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
        if self.autoregressive:
            return generate_in_order(self, z, generator)[0]
        outputs = self.decode(z)
        return self.likelihood.mean(outputs) if generator is None else self.likelihood.draw(outputs, generator)

    def elbo_terms(self, x, noise):
        """The two terms of the evidence lower bound, row by row, with one draw of z each.

        Parameters
        ----------
        x : tensor of shape (n, layout.width + 1)
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
        own = {name: p for name, p in _arrays(self).items() if name.startswith("likelihood.")}
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


@torch.no_grad()
def generate_in_order(vae, z, generator=None, given=None):
    """`VAE.generate`, part after part and all rows at once, around parts that are given.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, latent_dim)
    generator : torch.Generator, default=None
    given : tensor of shape (n, n_columns), default=None
        Known parts; NaN where one is to be drawn.

    Returns
    -------
    parts : tensor of shape (n, n_columns)
        The given parts as they are, the others drawn (or their means or most probable levels).
    log_prob : tensor of shape (n,)
        Sum of the log densities of the given parts, each given z and the parts before it, in nats.
    """
    layout, likelihood = vae.likelihood.layout, vae.likelihood
    read = _OrderedReader(vae, z) if vae.autoregressive else _FactorizedReader(vae, z)
    blocks = [(block, c) for block in likelihood.blocks for c in range(block.n_columns)]
    parts, log_prob = z.new_zeros(len(z), layout.n_columns), z.new_zeros(len(z))
    for i in sorted(range(layout.n_columns), key=lambda i: layout.rank[i]):
        outputs = read.outputs(i)
        block = blocks[i][0].one(blocks[i][1]).to(z.device, z.dtype)
        part = (block.mean(outputs) if generator is None else block.draw(outputs, generator))[:, 0]
        if given is not None:
            known = ~torch.isnan(given[:, i])
            part = torch.where(known, given[:, i], part)
            cells = part[:, None]
            if i >= layout.n_numbers:
                cells = F.one_hot(part.long(), block.n_cells).to(z.dtype)
            log_prob += torch.where(known, block.log_prob(cells, outputs)[:, 0], 0.0)
        parts[:, i] = part
        read.take(i, parts)
    return parts, log_prob


class _FactorizedReader:
    """The outputs of each part from z alone."""

    def __init__(self, vae, z):
        self.all, self.part = vae.decode(z), vae.likelihood.output_part

    def outputs(self, i):
        return self.all[:, self.part == i]

    def take(self, i, parts):
        """Nothing: later parts do not depend on it."""


class _OrderedReader:
    """The outputs of each part from z and the parts taken before.

    Only what they depend on is computed: the first layer's sums grow by each part taken, and of every layer the units of a
    higher degree, which stand behind the others, are left out.
    """

    def __init__(self, vae, z):
        self.decoder, self.layout = vae.decoder, vae.likelihood.layout
        self.input_part = torch.tensor(self.layout.input_parts)
        self.output_part = vae.likelihood.output_part
        first = self.decoder.layers[0]
        self.sums = F.linear(z, first.weight[:, : self.decoder.latent_dim], first.bias)

    def outputs(self, i):
        activation, layers = ACTIVATIONS[self.decoder.activation], self.decoder.layers
        rank, n_ranks, out = self.layout.rank[i], self.layout.n_columns, torch.nonzero(self.output_part == i)[:, 0]
        if len(layers) == 1:
            return self.sums[:, out]
        width = n_units(layers[0], rank, n_ranks)
        h = activation(self.sums[:, :width])
        for layer in layers[1:-1]:
            width_in, width = width, n_units(layer, rank, n_ranks)
            h = activation(F.linear(h, layer.weight[:width, :width_in], layer.bias[:width]))
        return F.linear(h, layers[-1].weight[out, :width], layers[-1].bias[out])

    def take(self, i, parts):
        where = self.decoder.latent_dim + torch.nonzero(self.input_part == i)[:, 0]
        self.sums.addmm_(_input_cells(self.layout, i, parts), self.decoder.layers[0].weight[:, where].t())


def unit_degrees(n_hidden, n_ranks):
    """Degrees of a layer's hidden units, shape (n_hidden,): evenly from 0 to n_ranks - 1, in order."""
    return torch.arange(n_hidden) * n_ranks // max(1, n_hidden)


def n_units(layer, rank, n_ranks):
    """How many of a layer's hidden units have a degree up to `rank`."""
    return int((unit_degrees(layer.out_features, n_ranks) <= rank).sum())


def _input_cells(layout, i, parts):
    """What an encoded row holds for the part `i` once it is drawn, in the order of its cells: (n, cells)."""
    value, categorical = parts[:, i], i >= layout.n_numbers
    if categorical:
        return F.one_hot(value.long(), layout.n_levels[i - layout.n_numbers]).to(value.dtype)
    there = torch.ones_like(value)
    if i < layout.n_counts:
        location, scale = layout.count_ranges[i]
        value = (torch.log1p(value) - location) / scale
    elif layout.gate[i] >= 0:
        gate = layout.gate[i]
        there = (parts[:, gate] == layout.n_levels[gate - layout.n_numbers] - 1).to(value.dtype)
    cells = [value * there, there] if i in layout.known else [value]
    return torch.stack(cells, dim=1)


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


def _arrays(module):
    """Parameters and buffers as numpy arrays of their own, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def _load(module, arrays, training):
    state = module.state_dict()
    dtypes = {array.dtype for array in arrays.values()}
    if dtypes == {np.dtype(np.float64)}:
        module.double()
    for name, array in arrays.items():
        state[name] = torch.from_numpy(array.copy())
    module.load_state_dict(state)
    return module.train(training)


def _rebuild(cls, args, arrays, training):
    return _load(cls(*args), arrays, training)


def _rebuild_vae(encoder, decoder, layout, n_components, latent_dim, arrays, training):
    likelihood = _load(
        Likelihood(layout, n_components),
        {name.removeprefix("likelihood."): array for name, array in arrays.items()},
        training,
    )
    return VAE(encoder, decoder, likelihood, latent_dim).train(training)
