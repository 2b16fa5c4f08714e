"""What a fitted model says about rows: importance-weighted log-likelihoods."""

import math

import numpy as np
import torch
from scipy.stats import qmc

CELLS_PER_CHUNK = 2**21
"""How many numbers the widest intermediate array may hold: memory stays bounded whatever the rows and the draws."""


def standard_normal_draws(n_draws, latent_dim, seed, dtype=torch.float64):
    """Quasi-random draws from N(0, I), tensor of shape (n_draws, latent_dim).

    Scrambled Sobol points through the normal quantile function (Owen, 1998; `scipy.stats.qmc`): they cover the space
    more evenly than independent draws, so fewer are needed. The first draws of a longer sequence are those of a shorter.
    """
    sampler = qmc.MultivariateNormalQMC(np.zeros(latent_dim), rng=np.random.default_rng(seed))
    draws = sampler.random(2 ** math.ceil(math.log2(max(n_draws, 2))))[:n_draws]
    return torch.from_numpy(draws).to(dtype)


@torch.no_grad()
def log_likelihood(vae, x, known, draws):
    """Importance-weighted bound on log p(x) (Burda, Grosse & Salakhutdinov, 2016, equation 8).

    ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)`` with ``z_k = z_mean + z_std * draws[k]``: the same draws serve every
    row. The bound rises with K towards log p(x) in expectation.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width + 1)
        Encoded rows, with a last column of ones.
    known : tensor of bool of shape (n, n_columns)
        The cells that count: the others are integrated out (Mattei & Frellsen, 2019).
    draws : tensor of shape (K, latent_dim)

    Returns
    -------
    log_likelihood : tensor of shape (n,), in nats of the encoded units
    """
    log_q = -0.5 * (draws**2).sum(-1, keepdim=True)  # (K, 1), with the constant and the deviations added below
    chunks = []
    widest = max([p.shape[0] for p in vae.parameters() if p.ndim == 2] + [vae.likelihood.n_outputs, 1])
    rows_per_chunk = max(1, CELLS_PER_CHUNK // (len(draws) * widest))
    for rows, mask in zip(x.split(rows_per_chunk), known.split(rows_per_chunk), strict=True):
        z_mean, z_logvar = vae.encode(rows)  # (n, latent_dim)
        z = z_mean + torch.exp(0.5 * z_logvar) * draws[:, None]  # (K, n, latent_dim)
        if vae.autoregressive:
            outputs = vae.decode(z, rows)  # (K, n, n_outputs)
        else:
            outputs = vae.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        log_x = torch.where(mask, vae.likelihood.log_prob(rows, outputs), 0.0).sum(-1)  # (K, n)
        log_ratio = -0.5 * (z**2).sum(-1) - log_q + 0.5 * z_logvar.sum(-1)  # log p(z) - log q(z | x)
        chunks.append(torch.logsumexp(log_x + log_ratio, dim=0) - math.log(len(draws)))
    return torch.cat(chunks)
