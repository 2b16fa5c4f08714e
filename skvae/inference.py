"""What a fitted model says of rows: posteriors, decoded rows, log-likelihoods.

Every function works through its rows in chunks, so that memory stays bounded, and on one thread: the products are small, and
threads that wait for a busy core cost more than they bring.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from skvae.model.generation import generate as generate_points
from skvae.model.latent import LatentDensity, Prior
from skvae.model.network import VAE
from skvae.threads import on_one_thread

CELLS_PER_CHUNK = 2**18
"""Cells of the widest intermediate array: memory stays bounded whatever the rows and the draws."""

ROWS_PER_CHUNK = 4096


@on_one_thread
@torch.no_grad()
def posterior(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of q(z | x).

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.

    Returns
    -------
    z_mean, z_std : tensor of shape (n, latent_dim)
    """
    means = []
    logvars = []

    for rows in x.split(ROWS_PER_CHUNK):
        z_mean, z_logvar = vae.encode(rows)
        means.append(z_mean)
        logvars.append(z_logvar)
    return torch.cat(means), torch.exp(0.5 * torch.cat(logvars))


@on_one_thread
@torch.no_grad()
def generate(vae: VAE, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Parts decoded from latent points.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, latent_dim)
    generator : torch.Generator, default=None
        Source of draws from p(x | z); without it, parts are means or most probable levels.

    Returns
    -------
    parts : tensor of shape (n, n_parts)
    """
    return torch.cat([generate_points(vae, points, generator) for points in z.split(ROWS_PER_CHUNK)])


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
def log_likelihood(vae: VAE, x: Tensor, observed: Tensor, draws: Tensor, density: LatentDensity) -> Tensor:
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

    Returns
    -------
    log_likelihood : tensor of shape (n,)
        In nats of the encoded units.
    """
    log_q = Prior(vae.latent_dim).log_prob(draws)[:, None]  # (K, 1); the deviations are added below
    # every layer holds each row once for each draw
    rows_per_chunk = max(1, CELLS_PER_CHUNK // (len(draws) * _widest_layer(vae)))

    chunks = []
    for rows, mask in zip(x.split(rows_per_chunk), observed.split(rows_per_chunk), strict=True):
        z_mean, z_logvar = vae.encode(rows)  # (n, latent_dim)
        z = z_mean + torch.exp(0.5 * z_logvar) * draws[:, None]  # (K, n, latent_dim)

        outputs = vae.decode(z, rows)  # (K, n, n_outputs)
        # a part that is not observed has no say, whatever its cells hold
        log_x = torch.where(mask, vae.likelihood.log_prob(rows, outputs), 0.0).sum(-1)  # (K, n)
        log_ratio = density.log_prob(z) - log_q + 0.5 * z_logvar.sum(-1)  # log p(z) - log q(z | x)
        chunks.append(torch.logsumexp(log_x + log_ratio, dim=0) - math.log(len(draws)))
    return torch.cat(chunks)


def _widest_layer(vae: VAE) -> int:
    widths = [vae.likelihood.n_outputs, 1]
    for parameter in vae.parameters():
        if parameter.ndim == 2:
            widths.append(parameter.shape[0])
    return max(widths)
