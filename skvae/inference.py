"""What a fitted model says about rows: posteriors, decoded rows, log-likelihoods, missing cells.

Every function works through its rows in chunks, so that memory stays bounded, and on one thread: the products are small, and
threads that wait for a busy core cost more than they bring.
"""

import functools
import math

import numpy as np
import torch
from scipy.stats import qmc

from skvae.model.decoding import generate_in_order
from skvae.model.latent import Prior
from skvae.threads import at_most

CELLS_PER_CHUNK = 2**18
"""How many numbers the widest intermediate array may hold: memory stays bounded whatever the rows and the draws."""

ROWS_PER_CHUNK = 4096

DRAWS_TO_IMPUTE, DRAWS_IN_ORDER = 256, 128
"""Draws behind an imputed cell; under an autoregressive decoder, which takes one pass per column for them, fewer."""

PROPOSALS = 20
"""Proposals per row of a conditional sample."""


def _on_one_thread(kernel):
    """Run without gradients and on one thread."""

    @functools.wraps(kernel)
    def alone(*args, **kwargs):
        with torch.no_grad(), at_most(1):
            return kernel(*args, **kwargs)

    return alone


@_on_one_thread
def posterior(vae, x):
    """Means and log-variances of q(z | x) of encoded rows, two tensors of shape (n, latent_dim)."""
    chunks = [vae.encode(rows) for rows in x.split(ROWS_PER_CHUNK)]
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


@_on_one_thread
def generate(vae, z, generator=None):
    """Parts decoded from `z`, drawn if there is a generator: see `VAE.generate`."""
    return torch.cat([vae.generate(points, generator) for points in z.split(ROWS_PER_CHUNK)])


def standard_normal_draws(n_draws, latent_dim, seed, dtype=torch.float64):
    """Quasi-random draws from N(0, I), tensor of shape (n_draws, latent_dim).

    Scrambled Sobol points through the normal quantile function (Owen, 1998; `scipy.stats.qmc`): they cover the space
    more evenly than independent draws, so fewer are needed. The first draws of a longer sequence are those of a shorter.
    """
    sampler = qmc.MultivariateNormalQMC(np.zeros(latent_dim), rng=np.random.default_rng(seed))
    draws = sampler.random(2 ** math.ceil(math.log2(max(n_draws, 2))))[:n_draws]
    return torch.from_numpy(draws).to(dtype)


@_on_one_thread
def log_likelihood(vae, x, known, draws, density):
    """Importance-weighted bound on log p(x) (Burda, Grosse & Salakhutdinov, 2016, equation 8).

    ``log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)`` with ``z_k = z_mean + z_std * draws[k]``: the same draws serve every
    row. The bound rises with K towards log p(x) in expectation.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.
    known : tensor of bool of shape (n, n_columns)
        The cells that count: the others are integrated out (Mattei & Frellsen, 2019).
    draws : tensor of shape (K, latent_dim)
    density : latent density
        p(z): see `skvae.model.latent`.

    Returns
    -------
    log_likelihood : tensor of shape (n,), in nats of the encoded units
    """
    log_q = Prior(vae.latent_dim).log_prob(draws)[:, None]  # (K, 1); the deviations are added below
    chunks = []
    widest = max([p.shape[0] for p in vae.parameters() if p.ndim == 2] + [vae.likelihood.n_outputs, 1])
    rows_per_chunk = max(1, CELLS_PER_CHUNK // (len(draws) * widest))
    for rows, mask in zip(x.split(rows_per_chunk), known.split(rows_per_chunk), strict=True):
        z_mean, z_logvar = vae.encode(rows)  # (n, latent_dim)
        z = z_mean + torch.exp(0.5 * z_logvar) * draws[:, None]  # (K, n, latent_dim)
        outputs = vae.decode(z, rows)  # (K, n, n_outputs)
        log_x = torch.where(mask, vae.likelihood.log_prob(rows, outputs), 0.0).sum(-1)  # (K, n)
        log_ratio = density.log_prob(z) - log_q + 0.5 * z_logvar.sum(-1)  # log p(z) - log q(z | x)
        chunks.append(torch.logsumexp(log_x + log_ratio, dim=0) - math.log(len(draws)))
    return torch.cat(chunks)


@_on_one_thread
def complete(vae, x, given, n_draws, generator, density, *, noise=True, offset=None, centred=()):
    """Rows completed around their given parts, with importance weights (Mattei & Frellsen, 2019).

    z is drawn from q(z | x), and a quarter of the draws from p(z), which covers what an encoder that met few holes in
    training misses; the missing parts are drawn given z and the parts before them; a draw's weight is
    ``p(given | z) p(z) / proposal(z)``.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows, missing cells zero.
    given : tensor of shape (n, n_columns)
        Their known parts; NaN where one is missing.
    n_draws : int
    generator : torch.Generator
    density : latent density
        p(z): see `skvae.model.latent`.
    noise : bool, default=True
        Whether missing parts are drawn given z; False takes their means or most probable levels.
    offset : tensor of shape (n,), default=None
        Offsets of the counts, where there is an exposure; NaN where it is missing.
    centred : collection of int, default=()
        Parts whose means are taken anyway.

    Returns
    -------
    parts : tensor of shape (n, n_draws, n_columns)
    weights : tensor of shape (n, n_draws)
        Normalised to sum to one by row.
    """
    n, latent_dim, n_near = len(x), vae.latent_dim, n_draws - n_draws // 4
    z_mean, z_logvar = (t[:, None] for t in vae.encode(x))  # (n, 1, latent_dim)
    z_std = torch.exp(0.5 * z_logvar)
    near = z_mean + z_std * torch.randn(n, n_near, latent_dim, generator=generator, dtype=x.dtype).to(x.device)
    far = density.sample(n * (n_draws - n_near), generator, x.dtype).to(x.device)
    z = torch.cat([near, far.view(n, -1, latent_dim)], dim=1)
    log_p = density.log_prob(z)
    log_q = Prior(latent_dim).log_prob((z - z_mean) / z_std) - 0.5 * z_logvar.sum(-1)
    log_proposal = torch.logaddexp(log_q + math.log(n_near / n_draws), log_p + math.log1p(-n_near / n_draws))
    parts, log_prob = generate_in_order(vae, z, generator if noise else None, x, given, offset, centred=centred)
    return parts, torch.softmax(log_prob + log_p - log_proposal, dim=1)


def truncated(weights):
    """Normalised weights, shape (n, n_draws), cut at ``n_draws ** -0.5`` so that a few draws do not decide (Ionides, 2008)."""
    weights = weights.clamp_max(weights.shape[1] ** -0.5)
    return weights / weights.sum(1, keepdim=True)


def resample(weights, n_samples, generator):
    """Positions drawn by `weights`, shape (n,), systematically (Kitagawa, 1996): tensor of int of shape (n_samples,)."""
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (start + torch.arange(n_samples, dtype=torch.float64)) / n_samples
    return torch.searchsorted(torch.cumsum(weights.double().cpu(), 0), points).clamp_max(len(weights) - 1)


def fill(vae, table, values, n_copies, generator, density):
    """Values with their missing cells filled: with conditional means and most probable levels, or with draws.

    Parameters
    ----------
    vae : VAE
    table : TableEncoder
    values : ndarray of shape (n, n_features)
        NaN where a cell is missing.
    n_copies : int or None
        None for means and levels; else the number of completed copies.
    generator : torch.Generator
    density : latent density

    Returns
    -------
    copies : ndarray of shape (n_copies or 1, n, n_features)
    """
    # where no part reads another, the mean of means has less noise than that of draws (Rao & Blackwell)
    centred = () if n_copies or vae.autoregressive else table.linear_parts
    copies = np.repeat(values[None], n_copies or 1, axis=0)
    n_draws = max(n_copies or 1, DRAWS_IN_ORDER if vae.autoregressive else DRAWS_TO_IMPUTE)
    rows = np.flatnonzero(np.isnan(values).any(1))
    for chunk in np.array_split(rows, math.ceil(len(rows) / 64)) if len(rows) else ():
        drawn, weights = _complete_values(vae, table, values[chunk], n_draws, generator, density, centred=centred)
        weights = truncated(weights)
        for i, row in enumerate(chunk):
            missing = np.flatnonzero(np.isnan(values[row]))
            if n_copies is None:
                copies[0, row, missing] = [
                    _centre(drawn[i, :, j], weights[i].numpy(), table.kinds_[j]) for j in missing
                ]
            else:
                chosen = resample(weights[i], n_copies, generator)[torch.randperm(n_copies, generator=generator)]
                copies[:, row, missing] = drawn[i][np.ix_(chosen.numpy(), missing)]
    return copies


def sample_given(vae, table, row, n_samples, generator, density, *, noise=True):
    """Rows drawn around given cells, by importance resampling.

    Parameters
    ----------
    vae : VAE
    table : TableEncoder
    row : ndarray of shape (1, n_features)
        The given cells; NaN elsewhere.
    n_samples : int
    generator : torch.Generator
    density : latent density
    noise : bool, default=True
        Whether cells are drawn given z; False takes their means or most probable levels.

    Returns
    -------
    values : ndarray of shape (n_samples, n_features)
        The given cells as they are.
    share : float
        Effective number of proposals (Kong, 1992) per row drawn, at the least.
    """
    values, shares = [], []
    for start in range(0, n_samples, 2000):
        n = min(2000, n_samples - start)
        n_proposals = max(PROPOSALS * n, 1000)
        drawn, weights = _complete_values(vae, table, row, n_proposals, generator, density, noise=noise)
        shares.append(float(1 / (weights**2).sum()) / n)
        chosen = resample(weights[0], n, generator)[torch.randperm(n, generator=generator)]
        values.append(drawn[0, chosen.numpy()])
    values = np.concatenate(values)
    fixed = ~np.isnan(row[0])
    values[:, fixed] = row[0, fixed]
    return values, min(shares)


def _complete_values(vae, table, values, n_draws, generator, density, *, noise=True, centred=()):
    """`complete` from values to values: ndarray of shape (n, n_draws, n_features), and weights on the CPU (n, n_draws)."""
    x = torch.from_numpy(table.encode(values, np.float32)).to(vae.device)
    given = torch.from_numpy(table.parts(values)).to(x)
    offset = table.offsets(values)
    offset = None if offset is None else torch.from_numpy(offset).to(x)
    how = {"noise": noise, "offset": offset, "centred": centred}
    parts, weights = complete(vae, x, given, n_draws, generator, density, **how)
    drawn = table.decode(parts.flatten(0, 1).double().cpu().numpy())
    return drawn.reshape(len(values), n_draws, -1), weights.cpu()


def _centre(cells, weights, kind):
    """Weighted mean of drawn cells, shape (n,), or their most frequent level."""
    if kind not in ("categorical", "bernoulli"):
        return np.average(cells, weights=weights)
    levels, inverse = np.unique(cells, return_inverse=True)
    return levels[np.bincount(inverse, weights=weights).argmax()]
