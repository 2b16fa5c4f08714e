"""What a graph computes: each answer of the estimator as a module that reads and gives double precision."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from skvae.export.rows import constant, decode, encode
from skvae.fitted import FittedModel
from skvae.inference import standard_normal_draws
from skvae.model.decoders import AutoregressiveDecoder, number_inputs
from skvae.model.latent import AggregatedPosterior, LatentDensity, Mixture, Prior
from skvae.model.layers import ACTIVATIONS
from skvae.model.likelihoods import Block
from skvae.model.network import VAE

DRAWS = 4
"""Draws of a part with a range: if one in ten is beyond it, one in ten thousand is moved to its end."""


class Answer(nn.Module):
    """A module with the table and the network of a fitted model.

    Parameters
    ----------
    model : FittedModel
    reads_unknown : bool
        Whether cells that the model cannot read count as missing; if not, what is said of their rows is NaN.
    """

    def __init__(self, model: FittedModel, reads_unknown: bool) -> None:
        super().__init__()
        self.table = model.table
        self.network: VAE = copy.deepcopy(model.network).cpu().double().eval()
        self.reads_unknown = reads_unknown

    def told(self, answer: Tensor, unknown: Tensor) -> Tensor:
        """An answer on rows, NaN where a row cannot be read."""
        if self.reads_unknown:
            return answer
        return torch.where(unknown.view(-1, *[1] * (answer.ndim - 1)), torch.nan, answer)


class Transform(Answer):
    """z_mean of rows: (n, n_features) -> (n, latent_dim)."""

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        encoded = encode(self.table, values)
        z_mean, _ = self.network.encode(encoded.x)
        return self.told(z_mean, encoded.unknown)


class InverseTransform(Answer):
    """Rows decoded from latent points: (n, latent_dim) -> (n, n_features)."""

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        # what z alone tells of each cell
        auxiliary = self.network.auxiliary
        if auxiliary is not None and self.table.auxiliary is not None:
            return decode(self.table.auxiliary, auxiliary.likelihood.mean(auxiliary.decode(z)))

        parts = self.network.likelihood.mean(self.network.decode(z))
        return decode(self.table, _within(parts, self.table.layout.ranges))


class ScoreSamples(Answer):
    """Importance-weighted bounds on log p(x): (n, n_features) -> (n,). NaN where the density of a hole has no closed form.

    Parameters
    ----------
    model : FittedModel
    reads_unknown : bool
    n_draws : int
        Draws of z, the same for all rows: see `skvae.inference.log_likelihood`.
    seed : int
    """

    def __init__(self, model: FittedModel, reads_unknown: bool, n_draws: int, seed: int) -> None:
        super().__init__(model, reads_unknown)
        self.density = model.density("auto")
        self.draws = standard_normal_draws(n_draws, self.network.latent_dim, seed)[:, None]

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        network = self.network
        encoded = encode(self.table, values)
        z_mean, z_logvar = network.encode_blurred(encoded.x)
        z_std = torch.exp(0.5 * z_logvar)
        z = z_mean + z_std * self.draws  # (n_draws, n, latent_dim)

        # the weights of the draws, p(x, z) / q(z | x)
        log_q = Prior(network.latent_dim).log_prob(self.draws) - torch.log(z_std).sum(-1)
        by_part = network.likelihood.log_prob(encoded.x, network.decode(z, encoded.x))
        log_p = torch.where(encoded.observed, by_part, 0.0).sum(-1)
        log_weights = log_p + _log_density(self.density, z) - log_q
        score = torch.logsumexp(log_weights, dim=0) - math.log(len(self.draws)) + encoded.log_jacobian

        if not network.decoder.independent:
            # an integral over the missing cells, which the graph does not have
            modelled = np.flatnonzero(list(map(len, self.table.places)))
            holes = torch.isnan(values[:, modelled]).any(1) | encoded.unknown
            score = torch.where(holes, torch.nan, score)
        return self.told(score, encoded.unknown)


class Sample(Answer):
    """New rows from uniform numbers: (n, n_uniform) -> (n, n_features).

    The first number chooses the component of the latent density, the next ones z in it, and the others the parts of the row,
    each by its quantile function. A part that has a range takes several: the first draw within the range counts.
    """

    def __init__(self, model: FittedModel, reads_unknown: bool) -> None:
        super().__init__(model, reads_unknown)
        self.density = model.density("auto")
        # made before the trace, which no module can be made in
        like = torch.zeros(1, dtype=torch.float64)
        self.blocks: list[Block] = []
        for part in range(self.table.layout.n_parts):
            self.blocks.append(self.network.likelihood.one(part, like))

    @property
    def n_uniform(self) -> int:
        """int : how many uniform numbers a row takes."""
        n_draws = sum(map(self.n_draws, range(self.table.layout.n_parts)))
        return 1 + self.network.latent_dim + n_draws

    def n_draws(self, part: int) -> int:
        """How many draws of a part there are to choose from."""
        ranges = self.table.layout.ranges
        if not ranges or not np.isfinite(ranges[part]).any():
            return 1
        return DRAWS

    def forward(self, uniform: Tensor) -> Tensor:
        """See the class."""
        first = 1 + self.network.latent_dim
        z = latent_points(self.density, uniform[:, 0], torch.special.ndtri(uniform[:, 1:first]))
        return decode(self.table, self.parts(z, uniform[:, first:]))

    def parts(self, z: Tensor, uniform: Tensor) -> Tensor:
        """Parts of rows, drawn one after the other, shape (n, n_parts), from points and the numbers for them."""
        layout = self.table.layout
        decoder = self.network.decoder
        generator = torch.Generator()
        drawn = [torch.zeros_like(z[:, 0])] * layout.n_parts

        # under a factorized decoder, all outputs are there at once
        reader = None
        if isinstance(decoder, AutoregressiveDecoder):
            reader = _Reader(decoder, z)
        else:
            outputs = self.network.decode(z)

        output_part = np.array(decoder.output_part)
        k = 0
        for part in sorted(range(layout.n_parts), key=layout.rank.__getitem__):
            own = np.flatnonzero(output_part == part)
            read = reader.outputs(part, own) if reader is not None else outputs[:, own]
            own_range = layout.ranges[part : part + 1]
            draws = []
            for _ in range(self.n_draws(part)):
                draws.append(self.blocks[part].draw_at(read, uniform[:, k : k + 1], generator))
                k += 1

            # from the last one on, which is moved to the end of the range if it is beyond it
            cells = _within(draws[-1], own_range)
            for draw in reversed(draws[:-1]):
                cells = torch.where(draw == _within(draw, own_range), draw, cells)
            drawn[part] = cells[:, 0]
            if reader is not None:
                reader.take(part, torch.stack(drawn, dim=1))
        return torch.stack(drawn, dim=1)


class _Reader:
    """An autoregressive decoder part after part: see `skvae.model.decoders`. No size depends on the cells."""

    def __init__(self, decoder: AutoregressiveDecoder, z: Tensor) -> None:
        self.decoder = decoder
        self.layout = decoder.layout
        self.layers = decoder.network.layers
        first = self.layers[0]
        self.sums = z @ first.weight[:, : decoder.latent_dim].t() + first.bias

    def outputs(self, part: int, own: np.ndarray) -> Tensor:
        """Outputs at some positions, shape (n, n_own)."""
        rows = torch.from_numpy(own)
        if len(self.layers) == 1:
            return self.sums[:, own]

        activation = ACTIVATIONS[self.decoder.network.activation]
        width = self._n_units(self.layers[0].out_features, part)
        h = activation(self.sums[:, :width])
        for layer in self.layers[1:-1]:
            n_in = width
            width = self._n_units(layer.out_features, part)
            h = activation(h @ layer.weight[:width, :n_in].t() + layer.bias[:width])

        last = self.layers[-1]
        return h @ last.weight[rows][:, :width].t() + last.bias[rows]

    def take(self, part: int, parts: Tensor) -> None:
        """Read a part that is there now."""
        inputs = np.flatnonzero(np.array(self.layout.input_parts) == part)
        weight = self.layers[0].weight[:, torch.from_numpy(self.decoder.latent_dim + inputs)].t()
        if part >= self.layout.n_numbers:
            self.sums = self.sums + weight[parts[:, part].long()]
        else:
            self.sums = self.sums + number_inputs(self.layout, part, parts) @ weight

    def _n_units(self, n_units: int, part: int) -> int:
        # as `unit_degrees`, whose tensors a trace would take for data
        degrees = np.arange(n_units) * self.layout.n_parts // max(1, n_units)
        return int((degrees <= self.layout.rank[part]).sum())


def _within(parts: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """Parts, shape (n, n_parts), held within their ranges."""
    held = list(parts.unbind(1))
    for part, (low, high) in enumerate(ranges):
        if low > -math.inf or high < math.inf:
            held[part] = held[part].clamp(low, high)
    return torch.stack(held, dim=1)


# --------------------------------------------------------------------------------------------------------- latent densities


def latent_points(density: LatentDensity, uniform: Tensor, noise: Tensor) -> Tensor:
    """Draws from a latent density, shape (n, latent_dim), from uniform numbers, (n,), and normal ones, (n, latent_dim)."""
    if isinstance(density, Prior):
        return noise

    if not isinstance(density, Mixture | AggregatedPosterior):
        raise ValueError(f"The latent density {density.name!r} cannot be exported.")
    # the component whose share the number falls into
    upper = constant(np.cumsum(density.weights) / np.sum(density.weights))
    component = (uniform[:, None] >= upper).sum(1).clamp(max=len(upper) - 1)
    means = constant(density.means)[component]
    if isinstance(density, AggregatedPosterior):
        return means + constant(density.deviations)[component] * noise
    return means + (constant(density.factors)[component] @ noise[:, :, None])[:, :, 0]


def _log_density(density: LatentDensity, z: Tensor) -> Tensor:
    """Log density of points, shape (..., latent_dim): see `skvae.model.latent`."""
    if isinstance(density, Prior):
        return density.log_prob(z)

    if isinstance(density, AggregatedPosterior):
        # a normal with independent units at each training row
        inverses = np.eye(density.means.shape[1]) / density.deviations.astype(np.float64)[:, None]
    elif isinstance(density, Mixture):
        inverses = np.linalg.inv(density.factors.astype(np.float64))
    else:
        raise ValueError(f"The latent density {density.name!r} cannot be exported.")

    latent_dim = density.means.shape[1]
    constants = np.log(density.weights) + np.log(np.diagonal(inverses, axis1=1, axis2=2)).sum(1)
    constants -= 0.5 * latent_dim * math.log(2 * math.pi)
    # deviations from all means, whitened: (..., n_components, latent_dim)
    centred = z[..., None, :] - constant(density.means)
    whitened = (constant(inverses) @ centred[..., None])[..., 0]
    return torch.logsumexp(constant(constants) - 0.5 * whitened.square().sum(-1), dim=-1)
