"""The slow, obvious twin: the model and its training written a second time, for reading rather than for speed.

It takes nothing but arrays and the layout of a row from the package. Densities are those of `torch.distributions`, layers
are plain `torch.nn.Linear`, gradients come from autograd, and the optimisers are `torch.optim.Adam` and Muon by singular value
decompositions.
"""

import copy
import math
from types import SimpleNamespace

import torch
from layouts import COUNTS
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    Poisson,
    kl_divergence,
)

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
SMALLEST_AUXILIARY_NOISE = 0.3
BLUR = 0.35
AUXILIARY_WEIGHT = 1.5
LARGEST_LOG_DISPERSION = 12.0
WAVES, OWN_SHARE = 6, 0.3
OWN_PARAMETER = {"normal": "log_std", "negative_binomial": "log_r", "zero_inflated_negative_binomial": "log_r"}


class WithExtraZeros:
    """A count that is 0 with the probability sigmoid(logit), and else follows a density."""

    def __init__(self, logit, density):
        self.p, self.density = torch.sigmoid(logit), density

    def log_prob(self, x):
        return torch.log(self.p * (x == 0) + (1 - self.p) * torch.exp(self.density.log_prob(x)))


def parts_of(layout, n_components=0):
    """Positions of each part, found by counting: its cell and its flag in an encoded row, its inputs among those of a network,
    and its outputs."""
    kinds = [kind for kind, n in layout.kinds for _ in range(n)]
    n_counts = sum(kind in COUNTS for kind in kinds)
    n_numbers = sum(kind != "categorical" for kind in kinds)
    first = n_counts + (layout.exposure is not None)
    first_level = first + n_numbers + len(layout.flagged)
    parts, next_level, next_output = [], first_level - first, 0
    for block, (kind, n) in enumerate(layout.kinds):
        first_output = next_output
        next_wave = next_output + sum(layout.n_levels)
        for k in range(n):
            i = len(parts)
            part = SimpleNamespace(kind=kind, block=block, number=k, rank=layout.rank[i], flag=None)
            if kind == "categorical":
                n_levels = layout.n_levels[i - n_numbers]
                part.cell = first_level + k
                part.inputs = [next_level + level for level in range(n_levels)]
                next_level += n_levels
                part.n_ordered = layout.n_ordered[i - n_numbers] if layout.n_ordered else 0
            else:
                part.cell, part.inputs = i if i < n_counts else first + i, [i]
                if i in layout.flagged:
                    part.flag = first + n_numbers + layout.flagged.index(i)
                    part.inputs = [i, part.flag - first]
            if kind == "normal" and n_components:
                part.outputs = [
                    [first_output + (what * n_components + c) * n + k for c in range(n_components)] for what in range(3)
                ]
                next_output += 3 * n_components
            elif kind == "zero_inflated_negative_binomial":
                part.outputs = [first_output + k, first_output + n + k]
                next_output += 2
            else:
                n_own = n_levels if kind == "categorical" else 1
                part.outputs = [next_output + o for o in range(n_own)]
                next_output += n_own
            if kind == "categorical":
                n_waves = min(WAVES, max(part.n_ordered - 1, 0))
                part.outputs += [next_wave + wave for wave in range(n_waves)]
                next_wave += n_waves
            parts.append(part)
    return parts


def _single(number):
    """A constant of the model, which it holds in single precision."""
    return float(torch.tensor(number, dtype=torch.float32))


def level_logits(outputs, n_levels, n_ordered):
    """Logits of the levels of one column: outputs of their own, and over the first `n_ordered` a sum of cosines."""
    own, waves = outputs[..., :n_levels], outputs[..., n_levels:]
    logits = []
    for level in range(n_levels):
        logit = own[..., level]
        if waves.shape[-1] and level < n_ordered:
            logit = _single(OWN_SHARE) * logit
            for k in range(waves.shape[-1]):
                wave = math.sqrt(2) * math.cos(math.pi * (k + 1) * (level + 0.5) / n_ordered)
                logit = logit + waves[..., k] * _single(wave)
        logits.append(logit)
    return torch.stack(logits, dim=-1)


class SlowDecoder(nn.Module):
    """A decoder with perceptrons and the densities that read its outputs, in float64, with weights of its own."""

    def __init__(self, activation, latent_dim, decoder, likelihood, prefix=""):
        super().__init__()
        self.activation, self.latent_dim, self.prefix = activation, latent_dim, prefix
        self.decoder = _linear_layers(decoder.network)
        state = {name: value.detach().clone().double() for name, value in likelihood.state_dict().items()}
        self.n_components, self.layout = likelihood.n_components, likelihood.layout
        layout = self.layout
        self.parts = parts_of(layout, self.n_components)
        self.n_counts = sum(part.kind in COUNTS for part in self.parts)
        self.has_exposure = layout.exposure is not None
        self.first_input = self.n_counts + self.has_exposure
        self.own = nn.ParameterDict()
        for i, (kind, _) in enumerate(layout.kinds):
            if kind in OWN_PARAMETER and not (kind == "normal" and self.n_components):
                self.own[str(i)] = nn.Parameter(state[f"blocks.{i}.{OWN_PARAMETER[kind]}"])
        self.own_kinds = {i: layout.kinds[int(i)][0] for i in self.own}
        self.masks = None
        if decoder.name == "autoregressive":
            self.masks = self.autoregressive_masks()

    def autoregressive_masks(self):
        """One mask per decoder layer: what may reach what, entry by entry."""
        n_ranks = max(part.rank for part in self.parts) + 1
        # what a unit may know: parts of a rank below its degree
        n_row = self.decoder[0].in_features - self.latent_dim
        degrees = [0] * self.latent_dim + [None] * n_row
        for part in self.parts:
            for cell in part.inputs:
                degrees[self.latent_dim + cell] = part.rank + 1
        masks = []
        for layer in self.decoder:
            if layer is self.decoder[-1]:
                above = [None] * layer.out_features
                for part in self.parts:
                    for output in _flat(part.outputs):
                        above[output] = part.rank
            else:
                above = [int(u * n_ranks / layer.out_features) for u in range(layer.out_features)]
            mask = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
            for u, knows in enumerate(above):
                for v, needed in enumerate(degrees):
                    if needed <= knows:
                        mask[u, v] = 1
            masks.append(mask)
            degrees = above
        return masks

    def run(self, layers, x, masks=None):
        for i, layer in enumerate(layers):
            weight = layer.weight if masks is None else layer.weight * masks[i]
            x = x @ weight.T + layer.bias
            if i < len(layers) - 1:
                x = self.activation(x)
        return x

    def inputs(self, x):
        """What networks read of the rows, with each level a one among zeros."""
        n_inputs = max((cell for part in self.parts for cell in part.inputs), default=-1) + 1
        rows = torch.zeros(len(x), n_inputs, dtype=x.dtype)
        for row, cells in zip(rows, x, strict=True):
            for part in self.parts:
                if part.kind != "categorical":
                    row[part.inputs[0]] = cells[self.first_input + part.inputs[0]]
                    if part.flag is not None:
                        row[part.inputs[1]] = cells[part.flag]
                elif cells[part.cell] >= 0:
                    row[part.inputs[int(cells[part.cell])]] = 1
        return rows

    def decode(self, z, x):
        """Outputs of the decoder, which reads the rows too if it is autoregressive."""
        if self.masks is None:
            return self.run(self.decoder, z)
        return self.run(self.decoder, torch.cat([z, self.inputs(x)], dim=1), self.masks)

    def density(self, part, outputs, offset):
        """The distribution of one part, given the outputs of the decoder and the log exposures of the rows."""
        if part.kind == "normal" and self.n_components:
            logits, means, log_stds = (outputs[:, o] for o in part.outputs)
            return MixtureSameFamily(Categorical(logits=logits), Normal(means, torch.exp(log_stds)))
        if part.kind == "categorical":
            return Categorical(logits=level_logits(outputs[:, part.outputs], len(part.inputs), part.n_ordered))
        out = outputs[:, part.outputs[0]]
        if part.kind == "normal":
            return Normal(out, torch.exp(self.own[str(part.block)][part.number]))
        if part.kind == "bernoulli":
            return Bernoulli(logits=out, validate_args=False)  # fractions are allowed
        if part.kind == "poisson":
            return Poisson(torch.exp(offset) * torch.exp(out), validate_args=False)  # means of counts are no integers
        log_r = self.own[str(part.block)][part.number]
        counts = NegativeBinomial(torch.exp(log_r), logits=out + offset - log_r, validate_args=False)
        if part.kind == "negative_binomial":
            return counts
        return WithExtraZeros(outputs[:, part.outputs[1]], counts)

    def log_probs(self, x, z):
        """log p(part | z, parts before) of each row, shape (n, n_parts); 0 where a part is not there."""
        outputs, columns = self.decode(z, x), []
        offset = x[:, self.n_counts] if self.has_exposure else torch.zeros(len(x), dtype=x.dtype)
        for part in self.parts:
            density = self.density(part, outputs, offset)
            if part.kind == "categorical":
                level = x[:, part.cell]
                log_prob = density.log_prob(level.clamp_min(0)) * (level >= 0)
            else:
                log_prob = density.log_prob(x[:, part.cell])
                if part.flag is not None:
                    log_prob = log_prob * x[:, part.flag]
            columns.append(log_prob)
        return torch.stack(columns, dim=1)

    def log_prob(self, x, z):
        """log p(x | z) of each row."""
        return self.log_probs(x, z).sum(1)

    def named(self):
        """Weights by the names that the package gives them."""
        named = {}
        for i, p in self.own.items():
            named[f"{self.prefix}likelihood.blocks.{i}.{OWN_PARAMETER[self.own_kinds[i]]}"] = p
        for i, layer in enumerate(self.decoder):
            named[f"{self.prefix}decoder.network.layers.{i}.weight"] = layer.weight
            named[f"{self.prefix}decoder.network.layers.{i}.bias"] = layer.bias
        return named

    def project(self, smallest_noise=SMALLEST_NOISE):
        with torch.no_grad():
            for i, p in self.own.items():
                if self.own_kinds[i] == "normal":
                    p.clamp_(min=math.log(smallest_noise))
                else:
                    p.clamp_(-LARGEST_LOG_DISPERSION, LARGEST_LOG_DISPERSION)


class SlowVAE(SlowDecoder):
    """The model of a `skvae` network with perceptrons, in float64, with weights of its own."""

    def __init__(self, vae):
        activation = ACTIVATIONS[vae.encoder.activation]
        super().__init__(activation, vae.latent_dim, vae.decoder, vae.likelihood)
        self.encoder = _linear_layers(vae.encoder)
        self.auxiliary = None
        if vae.auxiliary is not None:
            second = vae.auxiliary
            self.auxiliary = SlowDecoder(activation, vae.latent_dim, second.decoder, second.likelihood, "auxiliary.")

    def second_row(self, x):
        """The rows once more, as the auxiliary decoder reads them: what lies behind their levels."""
        return x[:, x.shape[1] - self.layout.auxiliary.width :]

    def encoder_inputs(self, x):
        if self.auxiliary is None:
            return self.inputs(x)
        second = self.auxiliary
        n_numbers = sum(part.kind != "categorical" for part in second.parts)
        numbers = self.second_row(x)[:, second.first_input : second.first_input + n_numbers]
        return torch.cat([numbers, self.inputs(x)], dim=1)

    def posterior(self, x):
        z_mean, z_logvar = self.run(self.encoder, self.encoder_inputs(x)).chunk(2, dim=1)
        return Normal(z_mean, torch.sqrt(torch.exp(z_logvar)))

    def loss_terms(self, x, noise):
        """-log p(x | z) and the KL divergence of each row, z by reparametrisation."""
        posterior = self.posterior(x)
        z = posterior.mean + posterior.stddev * noise[:, : self.latent_dim]
        kl = kl_divergence(posterior, Normal(0.0, 1.0))
        if self.auxiliary is None:
            return -self.log_prob(x, z), kl
        blurred = math.sqrt(1 - BLUR) * z + math.sqrt(BLUR) * noise[:, self.latent_dim :]
        return -self.log_prob(x, blurred) - AUXILIARY_WEIGHT * self.auxiliary.log_prob(self.second_row(x), z), kl

    def arrays(self):
        """Weights by the names that the package gives them."""
        named = self.named()
        if self.auxiliary is not None:
            named |= self.auxiliary.named()
        for i, layer in enumerate(self.encoder):
            named[f"encoder.layers.{i}.weight"] = layer.weight
            named[f"encoder.layers.{i}.bias"] = layer.bias
        return {name: p.detach().numpy().copy() for name, p in named.items()}


class SlowStep:
    """One gradient step after another on a `SlowVAE`: plain `torch.optim.Adam`, and Muon by singular value decompositions."""

    def __init__(self, vae, penalty=0.0, muon_always=False):
        self.vae, self.penalty = vae, penalty
        self.optimizer = torch.optim.Adam(vae.parameters(), betas=(0.9, 0.99), foreach=False, fused=False)
        self.totals = [0.0, 0.0]
        self.muon = [SlowMuon(*place, muon_always) for place in self.muon_places()]

    def muon_places(self):
        """Of each layer but the last: its weight, how many of its first columns are dense inputs, and its mask."""
        layout = self.vae.layout
        dense = layout.first_level - layout.first_number
        masks = self.vae.masks or [None] * len(self.vae.decoder)
        networks = [(self.vae.decoder, self.vae.latent_dim + dense, masks)]
        more = 0
        if self.vae.auxiliary is not None:
            second = self.vae.auxiliary
            networks.append((second.decoder, self.vae.latent_dim, [None] * len(second.decoder)))
            more = sum(part.kind != "categorical" for part in second.parts)
        networks.append((self.vae.encoder, more + dense, [None] * len(self.vae.encoder)))
        for layers, n_dense, own in networks:
            for i, layer in enumerate(layers[:-1]):
                n_columns = layer.in_features if i else min(n_dense, layer.in_features)
                if n_columns:
                    yield layer.weight, n_columns, own[i]

    def loss(self, x, weight, noise, beta):
        """Mean of the weighted rows' loss, and the penalty on the weight matrices."""
        nll, kl = self.vae.loss_terms(x, noise)
        weight = torch.ones(len(x), dtype=x.dtype) if weight is None else weight
        kl = kl.sum(1)
        self.totals[0] += (weight * nll).sum().item()
        self.totals[1] += (weight * kl).sum().item()
        layers = [*self.vae.encoder, *self.vae.decoder]
        if self.vae.auxiliary is not None:
            layers += self.vae.auxiliary.decoder
        squares = sum((layer.weight**2).sum() for layer in layers)
        return (weight * (nll + beta * kl)).mean() + self.penalty / 2 * squares

    def __call__(self, x, weight, noise, beta, learning_rate):
        """`x` encoded rows, `noise` (n, latent_dim)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self.loss(x, weight, noise, beta)
        self.optimizer.zero_grad()
        loss.backward()
        for muon in self.muon:
            muon.step(len(x), learning_rate)
        self.optimizer.step()
        self.vae.project()
        if self.vae.auxiliary is not None:
            self.vae.auxiliary.project(SMALLEST_AUXILIARY_NOISE)


class SlowMuon:
    """Momentum of .95 and Nesterov's look ahead; the step's singular values are those of three quintics, one after another."""

    QUINTICS = (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    )

    def __init__(self, weight, n_columns, mask, always):
        self.always = always
        self.weight, self.n_columns, self.mask = weight, n_columns, mask
        self.momentum = torch.zeros_like(weight[:, :n_columns])
        self.n_rows = self.n_gradients = 0

    @torch.no_grad()
    def step(self, n_rows, learning_rate):
        grad = self.weight.grad[:, : self.n_columns]
        if self.mask is not None:
            grad = grad * self.mask[:, : self.n_columns]
        self.momentum = 0.95 * self.momentum + 0.05 * grad
        self.n_rows, self.n_gradients = self.n_rows + n_rows, self.n_gradients + 1
        if self.always or self.n_rows >= 2 * min(grad.shape):
            direction = self.polar(0.05 * grad + 0.95 * self.momentum)
            if self.mask is not None:
                direction = direction * self.mask[:, : self.n_columns]
            length = 0.6 * math.sqrt(max(grad.shape)) * self.n_gradients
            self.weight[:, : self.n_columns] -= learning_rate * length * direction
            self.n_rows = self.n_gradients = 0
        self.weight.grad[:, : self.n_columns] = 0

    def polar(self, matrix):
        norm = torch.linalg.norm(matrix)
        if norm == 0:
            return matrix
        u, s, v = torch.linalg.svd(matrix / (1.01 * norm), full_matrices=False)
        for a, b, c in self.QUINTICS:
            s = a * s + b * s**3 + c * s**5
        return u @ torch.diag(s) @ v


def importance_weighted_bound(vae, x, draws, known=None, moved=None):
    """log 1/K sum_k p(x, z_k) / q(z_k | x), one row and one draw after another.

    Parameters
    ----------
    vae : SlowVAE
    x : tensor of shape (n, layout.width), float64
    draws : tensor of shape (n, K, latent_dim) or (K, latent_dim), float64
        Standard normal draws, for each row or the same for all.
    known : tensor of bool of shape (n, n_parts), default=None
        Which parts count; None is all.
    moved : tensor of shape (n, latent_dim), default=None
        What the proposal's mean is moved by, in deviations of q(z | x).
    """
    bounds = []
    prior = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    with torch.no_grad():
        for i in range(len(x)):
            row, weights = x[i : i + 1], []
            posterior = vae.posterior(row)
            if moved is not None:
                posterior = Normal(posterior.mean + posterior.stddev * moved[i], posterior.stddev)
            for draw in draws[i] if draws.ndim == 3 else draws:
                z = posterior.mean + posterior.stddev * draw
                log_probs = vae.log_probs(row, z)[0]
                log_x = log_probs.sum() if known is None else log_probs[known[i]].sum()
                log_joint = log_x + prior.log_prob(z).sum(1)
                weights.append(log_joint - posterior.log_prob(z).sum(1))
            bounds.append(torch.logsumexp(torch.cat(weights), 0) - math.log(len(weights)))
    return torch.stack(bounds)


def in_float64(vae):
    """A copy of a network in double precision."""
    return copy.deepcopy(vae).double()


def _flat(outputs):
    return [o for group in outputs for o in (group if isinstance(group, list) else [group])]


def _linear_layers(network):
    """Copies of a built-in network's layers in double precision."""
    layers = nn.ModuleList()
    for built_in in network.layers:
        layer = nn.Linear(built_in.in_features, built_in.out_features, dtype=torch.float64)
        layer.weight = nn.Parameter(built_in.weight.detach().clone().double())
        layer.bias = nn.Parameter(built_in.bias.detach().clone().double())
        layers.append(layer)
    return layers
