"""What a fitted model says of rows: posteriors, decoded rows, log-likelihoods.

Every function works through its rows in chunks, so that memory stays bounded, and on one thread: the products are small, and
threads that wait for a busy core cost more than they bring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from skvae.model.auxiliary import Auxiliary
from skvae.model.generation import generate as generate_points
from skvae.model.latent import LatentDensity, Prior
from skvae.model.network import VAE
from skvae.model.proposals import steps_uphill
from skvae.quasirandom import shifted, shifts_by_cells, uniform_points
from skvae.threads import on_one_thread

CELLS_PER_CHUNK = 2**18
"""Cells of the widest intermediate array: memory stays bounded whatever the rows and the draws."""

ROWS_PER_CHUNK = 4096

FEWEST_DRAWS = 16
"""Draws of z that every row gets."""

MOST_DRAWS = 256
"""Draws of z that no row gets more of."""

DRAWS_PER_SQUARED_STEP = 16
"""Draws of z for each squared deviation between the encoder's mean and the mean that is drawn around."""

WIDER = ((1.25, 1 / 2), (4.0, 1 / 8), (16.0, 1 / 8))
"""Deviations that draws for a part of a row have, in deviations of q for the whole row, and their shares of the draws."""

Report = Callable[[int], None]
"""``report(n)`` says that n more rows are done."""


@on_one_thread
@torch.no_grad()
def posterior(vae: VAE, x: Tensor, *, blurred: bool = False) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z | x).

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.
    blurred : bool, default=False
        Whether they are those of the z that the decoder reads: see `VAE.encode_blurred`.

    Returns
    -------
    z_mean, z_std : tensor of shape (n, latent_dim)
    """
    encode = vae.encode_blurred if blurred else vae.encode
    means = []
    logvars = []

    for rows in x.split(ROWS_PER_CHUNK):
        z_mean, z_logvar = encode(rows)
        means.append(z_mean)
        logvars.append(z_logvar)
    return torch.cat(means), torch.exp(0.5 * torch.cat(logvars))


@on_one_thread
@torch.no_grad()
def generate(vae: VAE, z: Tensor, generator: torch.Generator | None = None, report: Report | None = None) -> Tensor:
    """Parts decoded from latent points.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, latent_dim)
    generator : torch.Generator, default=None
        Source of draws from p(x | z); without it, parts are means or most probable levels.
    report : callable, default=None
        ``report(n)`` is told that n more rows are done.

    Returns
    -------
    parts : tensor of shape (n, n_parts)
    """
    parts = []
    for points in z.split(ROWS_PER_CHUNK):
        parts.append(generate_points(vae, points, generator))
        if report is not None:
            report(len(points))

    return torch.cat(parts)


@on_one_thread
@torch.no_grad()
def restore(auxiliary: Auxiliary, z: Tensor, report: Report | None = None) -> Tensor:
    """Means and most probable levels that an auxiliary decoder tells from latent points.

    Parameters
    ----------
    auxiliary : Auxiliary
    z : tensor of shape (n, latent_dim)
    report : callable, default=None
        ``report(n)`` is told that n more rows are done.

    Returns
    -------
    parts : tensor of shape (n, n_parts)
        Of rows as the auxiliary decoder reads them.
    """
    parts = []
    for points in z.split(ROWS_PER_CHUNK):
        parts.append(auxiliary.likelihood.mean(auxiliary.decode(points)))
        if report is not None:
            report(len(points))

    return torch.cat(parts)


def standard_normal_draws(n_draws: int, latent_dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Quasi-random draws from N(0, I).

    Scrambled Sobol points through the normal quantile function (Owen, 1998; `scipy.stats.qmc`): they cover the space
    more evenly than independent draws, so fewer are needed. The first draws of a longer sequence are those of a shorter.

    Parameters
    ----------
    n_draws : int
    latent_dim : int
    seed : int
    dtype : torch.dtype, default=torch.float64

    Returns
    -------
    draws : tensor of shape (n_draws, latent_dim)
    """
    sampler = qmc.MultivariateNormalQMC(np.zeros(latent_dim), rng=np.random.default_rng(seed))
    # a Sobol sequence is balanced at powers of two
    n_points = 2 ** math.ceil(math.log2(max(n_draws, 2)))
    return torch.from_numpy(sampler.random(n_points)[:n_draws]).to(dtype)


@on_one_thread
@torch.no_grad()
def log_likelihood(
    vae: VAE, x: Tensor, observed: Tensor, draws: Tensor, density: LatentDensity, report: Report | None = None
) -> Tensor:
    """Importance-weighted bound on log p(x) (Burda, Grosse & Salakhutdinov, 2016, equation 8).

    ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)`` with ``z_k = z_mean + z_std * draws[k]``: the same draws serve every
    row. The bound rises with K towards log p(x) in expectation.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.
    observed : tensor of bool of shape (n, n_parts)
        The parts that count: the others are integrated out (Mattei & Frellsen, 2019).
    draws : tensor of shape (K, latent_dim)
    density : LatentDensity
        p(z).
    report : callable, default=None
        ``report(n)`` is told that n more rows are done.

    Returns
    -------
    log_likelihood : tensor of shape (n,)
        In nats of the encoded units.
    """
    rows = Rows(x, observed, *posterior(vae, x, blurred=True))
    return _log_mean_weight(vae, rows, len(draws), lambda chunk: draws[:, None], density, report)


@on_one_thread
@torch.no_grad()
def adaptive_log_likelihood(
    vae: VAE, x: Tensor, observed: Tensor, density: LatentDensity, seed: int, report: Report | None = None
) -> Tensor:
    """`log_likelihood` from better draws of z, and from as many of them as a row needs.

    The proposal is q(z | x) moved towards the posterior: see `_steps`. The longer the step, the less q fits, and the more
    draws there are: see `numbers_of_draws`. The weights of the draws do not decide, for to stop where they happen to be alike
    would keep the rows whose draws have missed the largest weights, and lower the bound.

    Every row has draws of its own, which follow from its cells and the seed: the errors of the rows are then independent, and
    their mean has little of them.

    Parameters
    ----------
    vae, x, observed, density
        See `log_likelihood`.
    seed : int
    report : callable, default=None
        ``report(n)`` is told that n more rows are done.

    Returns
    -------
    log_likelihood : tensor of shape (n,)
        In nats of the encoded units.
    """
    z_mean, z_std = posterior(vae, x, blurred=True)
    steps = _steps(vae, x, observed, z_mean, z_std)
    rows = Rows(x, observed, z_mean + z_std * steps, z_std)
    points = uniform_points(MOST_DRAWS, vae.latent_dim, seed).to(x)
    shifts = shifts_by_cells(x, vae.latent_dim)

    n_draws = numbers_of_draws(steps)
    bounds = x.new_empty(len(x))
    for k in n_draws.unique().tolist():
        own = torch.nonzero(n_draws == k)[:, 0]
        draws_of = partial(_draws_of_own, points[:k], shifts[own])
        bounds[own] = _log_mean_weight(vae, rows.at(own), k, draws_of, density, report)

    return bounds


@on_one_thread
@torch.no_grad()
def log_likelihoods_without(
    vae: VAE,
    x: Tensor,
    observed: Tensor,
    places: Sequence[Sequence[int]],
    density: LatentDensity,
    seed: int,
    report: Report | None = None,
) -> tuple[Tensor, Tensor]:
    """`log_likelihood` of rows, and of the rows without one group of parts each, from the same draws of z.

    For decoders whose parts are independent given z: the weights of the draws are then products over the parts, and those
    without a group follow by a division. The draws come from q(z | whole row), moved as in `adaptive_log_likelihood` and made
    wider, for the posterior of a part of the row is the wider one, and a quarter of them from p(z).

    Parameters
    ----------
    vae, x, observed, density, seed, report
        See `adaptive_log_likelihood`.
    places : sequence of (sequence of int) of length n_groups
        Parts of each group.

    Returns
    -------
    whole : tensor of shape (n,)
    without : tensor of shape (n, n_groups)
        In nats of the encoded units.
    """
    z_mean, z_std = posterior(vae, x, blurred=True)
    z_mean = z_mean + z_std * _steps(vae, x, observed, z_mean, z_std)
    points = uniform_points(MOST_DRAWS, vae.latent_dim, seed).to(x)
    shifts = shifts_by_cells(x, vae.latent_dim)
    far = density.sample(MOST_DRAWS // 4, torch.Generator().manual_seed(seed), x.dtype).to(x.device)

    whole = x.new_empty(len(x))
    without = x.new_empty(len(x), len(places))
    rows_per_chunk = max(1, CELLS_PER_CHUNK // (MOST_DRAWS * _widest_layer(vae)))
    for start in range(0, len(x), rows_per_chunk):
        chunk = slice(start, start + rows_per_chunk)
        draws = _draws_of_own(points, shifts, chunk)
        z, log_ratio = _widely_around(z_mean[chunk], z_std[chunk], draws, far, density)  # (n_draws, n, latent_dim)
        by_part = vae.likelihood.log_prob(x[chunk], vae.decode(z, x[chunk]))
        by_part = torch.where(observed[chunk], by_part, 0.0)
        log_weights = by_part.sum(-1) + log_ratio

        whole[chunk] = torch.logsumexp(log_weights, dim=0) - math.log(MOST_DRAWS)
        for j, own in enumerate(places):
            left = log_weights - by_part[..., list(own)].sum(-1)
            without[chunk, j] = torch.logsumexp(left, dim=0) - math.log(MOST_DRAWS)
        if report is not None:
            report(len(draws[0]))

    return whole, without


def _widely_around(
    z_mean: Tensor, z_std: Tensor, draws: Tensor, far: Tensor, density: LatentDensity
) -> tuple[Tensor, Tensor]:
    """Points from a mixture of normals around the means and of p(z).

    Parameters
    ----------
    z_mean, z_std : tensor of shape (n, latent_dim)
    draws : tensor of shape (n_draws, n, latent_dim)
        Standard normal; three quarters of them are used.
    far : tensor of shape (n_draws / 4, latent_dim)
        From p(z).
    density : LatentDensity
        p(z).

    Returns
    -------
    z : tensor of shape (n_draws, n, latent_dim)
    log_ratio : tensor of shape (n_draws, n)
        ``log p(z) - log q(z)``, q being the mixture (the balance heuristic).
    """
    n_draws, n, latent_dim = draws.shape
    scales = torch.cat([draws.new_full((int(share * n_draws),), scale) for scale, share in WIDER])
    z = z_mean + z_std * scales[:, None, None] * draws[: len(scales)]
    z = torch.cat([z, far[:, None].expand(-1, n, -1)])

    prior = Prior(latent_dim)
    log_p = density.log_prob(z)
    distance = (z - z_mean) / z_std
    log_scale = torch.log(z_std).sum(-1)
    parts = [log_p + math.log(len(far) / n_draws)]
    for scale, share in WIDER:
        log_q = prior.log_prob(distance / scale) - log_scale - latent_dim * math.log(scale)
        parts.append(log_q + math.log(share))
    return z, log_p - torch.logsumexp(torch.stack(parts), dim=0)


def numbers_of_draws(steps: Tensor) -> Tensor:
    """How many draws of z a row gets, a power of two between `FEWEST_DRAWS` and `MOST_DRAWS`: about 16 times step^2.

    The bound of K draws lies about v / (2 K) below log p(x), where v is the relative variance of their weights (Domke &
    Sheldon, 2018). It grows like exp(step^2) - 1 with the distance between q and the posterior, in deviations of q.

    Parameters
    ----------
    steps : tensor of shape (n, latent_dim)
        From the encoder's mean, in units of z_std.

    Returns
    -------
    n_draws : tensor of int of shape (n,)
    """
    squared = steps.square().sum(1).clamp_min(torch.finfo(steps.dtype).tiny)
    doublings = torch.ceil(torch.log2(DRAWS_PER_SQUARED_STEP * squared / FEWEST_DRAWS))

    return (FEWEST_DRAWS * 2 ** doublings.clamp_min(0)).clamp_max(MOST_DRAWS).long()


class Rows(NamedTuple):
    """Encoded rows, and the normal density that z is drawn from for each of them.

    Attributes
    ----------
    x : tensor of shape (n, layout.width)
    observed : tensor of bool of shape (n, n_parts)
    z_mean, z_std : tensor of shape (n, latent_dim)
    """

    x: Tensor
    observed: Tensor
    z_mean: Tensor
    z_std: Tensor

    def at(self, positions: Tensor) -> Rows:
        """The rows at some positions."""
        return Rows(*(tensor[positions] for tensor in self))


def _log_mean_weight(
    vae: VAE,
    rows: Rows,
    n_draws: int,
    draws_of: Callable[[slice], Tensor],
    density: LatentDensity,
    report: Report | None,
) -> Tensor:
    """Logarithm of the mean over the draws of the weights p(x, z) / q(z).

    Parameters
    ----------
    vae : VAE
    rows : Rows
    n_draws : int
    draws_of : callable
        Standard normal draws of some of the rows: ``draws_of(slice)`` has the shape (n_draws, rows or 1, latent_dim).
    density : LatentDensity
    report : callable or None

    Returns
    -------
    log_mean : tensor of shape (n,)
    """
    prior = Prior(vae.latent_dim)
    # every layer holds each row once for each draw
    rows_per_chunk = max(1, CELLS_PER_CHUNK // (n_draws * _widest_layer(vae)))

    log_means = []
    for start in range(0, len(rows.x), rows_per_chunk):
        chunk = slice(start, start + rows_per_chunk)
        x, observed, z_mean, z_std = (tensor[chunk] for tensor in rows)
        draws = draws_of(chunk)
        z = z_mean + z_std * draws  # (n_draws, n, latent_dim)

        log_q = prior.log_prob(draws) - torch.log(z_std).sum(-1)
        log_weights = _log_prob(vae, z, x, observed) + density.log_prob(z) - log_q  # (n_draws, n)
        log_means.append(torch.logsumexp(log_weights, dim=0) - math.log(n_draws))
        if report is not None:
            report(len(x))

    return torch.cat(log_means)


def _draws_of_own(points: Tensor, shifts: Tensor, rows: slice) -> Tensor:
    """Standard normal draws of some rows.

    Parameters
    ----------
    points : tensor of shape (n_draws, latent_dim)
        In the unit cube.
    shifts : tensor of shape (n, latent_dim)
    rows : slice

    Returns
    -------
    draws : tensor of shape (n_draws, rows, latent_dim)
    """
    return torch.special.ndtri(shifted(points[:, None], shifts[rows]))


def _log_prob(vae: VAE, z: Tensor, x: Tensor, observed: Tensor) -> Tensor:
    """Log density of the observed parts given z of shape (..., n, latent_dim), tensor of shape (..., n)."""
    outputs = vae.decode(z, x)  # (..., n, n_outputs)

    # a part that is not observed has no say, whatever its cells hold
    return torch.where(observed, vae.likelihood.log_prob(x, outputs), 0.0).sum(-1)


def _steps(vae: VAE, x: Tensor, observed: Tensor, z_mean: Tensor, z_std: Tensor) -> Tensor:
    """`steps_uphill` for encoded rows, some at a time: tensor of shape (n, latent_dim)."""
    steps = []
    rows_per_chunk = max(1, CELLS_PER_CHUNK // _widest_layer(vae))

    for start in range(0, len(x), rows_per_chunk):
        chunk = slice(start, start + rows_per_chunk)
        steps.append(steps_uphill(partial(_log_prob, vae), z_mean[chunk], z_std[chunk], x[chunk], observed[chunk]))

    return torch.cat(steps)


def _widest_layer(vae: VAE) -> int:
    widths = [vae.likelihood.n_outputs, 1]
    for parameter in vae.parameters():
        if parameter.ndim == 2:
            widths.append(parameter.shape[0])
    return max(widths)
