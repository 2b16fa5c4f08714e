"""What a graph computes: each answer of the estimator as a module that reads and gives double precision."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from skvae.export.rows import Encoded, constant, decode, encode
from skvae.fitted import FittedModel
from skvae.inference import standard_normal_draws
from skvae.model.latent import AggregatedPosterior, LatentDensity, Mixture, Prior
from skvae.model.likelihoods import Block
from skvae.model.network import VAE

DRAWS = 4
"""Draws of a part with a range: if one in ten is beyond it, one in ten thousand is moved to its end."""


class Answer(nn.Module):
    """A module with the table and the network of a fitted model.

    Parameters
    ----------
    model : FittedModel
    handle_unknown : {"error", "ignore"}
        Under ``"ignore"``, what was never seen counts as missing; under ``"error"``, what is said of such a row is NaN.
    """

    def __init__(self, model: FittedModel, handle_unknown: str) -> None:
        super().__init__()
        self.table = model.table
        self.network: VAE = copy.deepcopy(model.network).cpu().double().eval()
        self.handle_unknown = handle_unknown

    def encode(self, values: Tensor) -> Encoded:
        """Encoded rows: see `skvae.export.rows.encode`."""
        return encode(self.table, values, self.handle_unknown)


class Transform(Answer):
    """z_mean of rows: (n, n_features) -> (n, latent_dim)."""

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        encoded = self.encode(values)
        z_mean, _ = self.network.encode(encoded.x)
        return torch.where(encoded.refused[:, None], torch.nan, z_mean)


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
    handle_unknown : {"error", "ignore"}
    n_draws : int
        Draws of z, the same for all rows: see `skvae.inference.log_likelihood`.
    seed : int
    """

    def __init__(self, model: FittedModel, handle_unknown: str, n_draws: int, seed: int) -> None:
        super().__init__(model, handle_unknown)
        self.density = model.density("auto")
        self.draws = standard_normal_draws(n_draws, self.network.latent_dim, seed)[:, None]

    def forward(self, values: Tensor) -> Tensor:
        """See the class."""
        network = self.network
        encoded = self.encode(values)
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
            score = torch.where(encoded.holed, torch.nan, score)
        return torch.where(encoded.refused, torch.nan, score)


class Sample(Answer):
    """New rows from uniform numbers: (n, n_uniform) -> (n, n_features).

    The first number chooses the component of the latent density, the next ones z in it, and the others the parts of the row,
    each by its quantile function. A part that has a range takes several: the first draw within the range counts.
    """

    def __init__(self, model: FittedModel, handle_unknown: str) -> None:
        super().__init__(model, handle_unknown)
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
        generator = torch.Generator()
        drawn = [torch.zeros_like(z[:, 0])] * layout.n_parts
        reader = self.network.begin(z[:, None])
        rows = slice(None)

        k = 0
        for part in sorted(range(layout.n_parts), key=layout.rank.__getitem__):
            outputs = reader.outputs(part, rows)
            own_range = layout.ranges[part : part + 1]
            draws = []
            for _ in range(self.n_draws(part)):
                draws.append(self.blocks[part].draw_at(outputs, uniform[:, k : k + 1], generator))
                k += 1

            # from the last one on, which is moved to the end of the range if it is beyond it
            cells = _within(draws[-1], own_range)
            for draw in reversed(draws[:-1]):
                cells = torch.where(draw == _within(draw, own_range), draw, cells)
            drawn[part] = cells[:, 0]
            reader.take(part, torch.stack(drawn, dim=1), rows)
        return torch.stack(drawn, dim=1)


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
