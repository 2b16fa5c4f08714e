"""The slow, obvious twin: the model and its training written a second time, for reading rather than for speed.

It takes nothing but arrays from the package. Densities are those of `torch.distributions`, layers are plain
`torch.nn.Linear`, gradients come from autograd and the optimiser is `torch.optim.Adam` without any option.
"""

import copy
import math

import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

ACTIVATIONS = {
    "identity": lambda x: x,
    "logistic": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: x * Normal(0.0, 1.0).cdf(x),
    "softplus": lambda x: torch.log(1 + torch.exp(x)),
}

SMALLEST_NOISE = 1e-3


class SlowVAE(nn.Module):
    """The model of a `skvae` network with perceptrons, in float64, with weights of its own."""

    def __init__(self, vae):
        super().__init__()
        state = {name: value.detach().clone().double() for name, value in vae.state_dict().items()}
        self.activation = ACTIVATIONS[vae.encoder.activation]
        self.encoder, self.decoder = _linear_layers(state, "encoder"), _linear_layers(state, "decoder")
        self.counts = dict(vae.likelihood.counts)
        self.noise = nn.ParameterDict()
        for i, kind in enumerate(self.counts):
            if kind == "normal":
                self.noise[str(i)] = nn.Parameter(state[f"likelihood.blocks.{i}.log_std"])

    def run(self, layers, x):
        for layer in layers[:-1]:
            x = self.activation(layer(x))
        return layers[-1](x)

    def posterior(self, x):
        z_mean, z_logvar = self.run(self.encoder, x).chunk(2, dim=1)
        return Normal(z_mean, torch.sqrt(torch.exp(z_logvar)))

    def log_prob(self, x, z):
        """log p(x | z) of each row."""
        outputs = self.run(self.decoder, z)
        total, start = 0.0, 0
        for i, (kind, n_columns) in enumerate(self.counts.items()):
            cells, out = x[:, start : start + n_columns], outputs[:, start : start + n_columns]
            if kind == "normal":
                cell_density = Normal(out, torch.exp(self.noise[str(i)]))
            else:
                cell_density = Bernoulli(logits=out, validate_args=False)  # fractions are allowed
            total = total + cell_density.log_prob(cells).sum(1)
            start += n_columns
        return total

    def elbo_terms(self, x, noise):
        """-log p(x | z) and the KL divergence of each row, z by reparametrisation."""
        posterior = self.posterior(x)
        z = posterior.mean + posterior.stddev * noise
        return -self.log_prob(x, z), kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)

    def arrays(self):
        """Weights by the names that the package gives them."""
        named = {f"likelihood.blocks.{i}.log_std": p for i, p in self.noise.items()}
        for part in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(self, part)):
                named[f"{part}.layers.{i}.weight"], named[f"{part}.layers.{i}.bias"] = layer.weight, layer.bias
        return {name: p.detach().numpy().copy() for name, p in named.items()}


class SlowStep:
    """One gradient step after another on a `SlowVAE`."""

    def __init__(self, vae, penalty=0.0):
        self.vae, self.penalty = vae, penalty
        self.optimizer = torch.optim.Adam(vae.parameters(), foreach=False, fused=False)
        self.totals = [0.0, 0.0]

    def loss(self, x, weight, noise, beta):
        """Mean of the weighted rows' loss, and the penalty on the weight matrices."""
        nll, kl = self.vae.elbo_terms(x, noise)
        weight = torch.ones(len(x), dtype=x.dtype) if weight is None else weight
        self.totals[0] += (weight * nll).sum().item()
        self.totals[1] += (weight * kl).sum().item()
        squares = sum((layer.weight**2).sum() for layer in [*self.vae.encoder, *self.vae.decoder])
        return (weight * (nll + beta * kl)).mean() + self.penalty / 2 * squares

    def __call__(self, x, weight, noise, beta, learning_rate):
        """`x` (n, n_columns), `noise` (n, latent_dim)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self.loss(x, weight, noise, beta)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for log_std in self.vae.noise.values():
                log_std.clamp_(min=math.log(SMALLEST_NOISE))


def importance_weighted_bound(vae, x, draws):
    """log 1/K sum_k p(x, z_k) / q(z_k | x), one row and one draw after another.

    Parameters
    ----------
    vae : SlowVAE
    x : tensor of shape (n, n_columns), float64
    draws : tensor of shape (n, K, latent_dim) or (K, latent_dim), float64
        Standard normal draws, for each row or the same for all.
    """
    bounds = []
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    with torch.no_grad():
        for i in range(len(x)):
            row, weights = x[i : i + 1], []
            posterior = vae.posterior(row)
            for draw in draws[i] if draws.ndim == 3 else draws:
                z = posterior.mean + posterior.stddev * draw
                log_joint = vae.log_prob(row, z) + prior.log_prob(z).sum(1)
                weights.append(log_joint - posterior.log_prob(z).sum(1))
            bounds.append(torch.logsumexp(torch.cat(weights), 0) - math.log(len(weights)))
    return torch.stack(bounds)


def in_float64(vae):
    """A copy of a network in double precision."""
    return copy.deepcopy(vae).double()


def _linear_layers(state, part):
    layers = nn.ModuleList()
    while f"{part}.layers.{len(layers)}.weight" in state:
        weight = state[f"{part}.layers.{len(layers)}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.weight = nn.Parameter(weight)
        layer.bias = nn.Parameter(state[f"{part}.layers.{len(layers)}.bias"])
        layers.append(layer)
    return layers
