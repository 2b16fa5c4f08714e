"""Log-likelihoods of rows with missing cells, where the cells behind a missing one depend on it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skvae.conditioning import IncompleteRows, given_parts, proposals, steps_around
from skvae.inference import Report
from skvae.model.generation import make_in_order, wanted_parts
from skvae.model.latent import LatentDensity
from skvae.model.network import VAE
from skvae.quasirandom import shifted, shifts_by_cells, uniform_points

SHARE_NEAR = 7 / 8
"""Share of the draws of z that come from around the posterior; the others come from p(z), which bounds their weights."""

DRAWS = (64, 256)
"""Draws of z and the missing cells: first, and for rows whose weights differ much."""

FEWEST_EFFECTIVE = 10
"""Effective number of draws (Kong, 1992) below which a row gets more."""

DRAWS_AT_ONCE = 2**14
"""Draws, of all rows together, that are made at a time."""


def has_holes(vae: VAE, x: Tensor, observed: Tensor) -> Tensor:
    """Which rows miss a part, tensor of bool of shape (n,).

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.
    observed : tensor of bool of shape (n, n_parts)
    """
    # what is behind a closed gate is not missing
    layout = vae.likelihood.layout
    return wanted_parts(layout, given_parts(layout, x, observed)).any(1)


@torch.no_grad()
def marginal_log_likelihood(
    vae: VAE,
    x: Tensor,
    observed: Tensor,
    offset: Tensor | None,
    density: LatentDensity,
    seed: int,
    n_draws: int | None = None,
    report: Report | None = None,
) -> Tensor:
    """Importance-weighted bound on the log density of the observed cells of rows.

    z is drawn from q(z | x), moved towards the posterior, and from p(z); the missing parts are then drawn in their order from
    p(part | z, parts before it), and the observed ones weigh: ``log 1/K sum_k p(observed | z_k, drawn_k) p(z_k) / q(z_k)``
    (Mattei & Frellsen, 2019, with the missing parts as further latent variables). The mean of the weights is p(observed) in
    expectation. All numbers that a row is drawn with follow from the seed and its own cells.

    Parameters
    ----------
    vae, x, observed
        See `has_holes`.
    offset : tensor of shape (n,) or None
        Offsets of the counts, if there is an exposure; NaN where it is missing.
    density : LatentDensity
        p(z).
    seed : int
    n_draws : int, default=None
        None takes as many as `DRAWS` says.
    report : callable, default=None
        See `skvae.inference.log_likelihood`.

    Returns
    -------
    log_likelihood : tensor of shape (n,)
        In nats of the encoded units.
    """
    given = given_parts(vae.likelihood.layout, x, observed)
    log_likelihood = x.new_empty(len(x))
    # rows with the same holes take the same passes: they stand beside each other
    order = np.lexsort(observed.cpu().numpy().T[::-1])
    rows = torch.from_numpy(order).to(x.device)

    numbers = DRAWS if n_draws is None else (n_draws,)
    for k in numbers:
        unsure = [rows[:0]]
        for chunk in _chunks(rows, k):
            own_offset = None if offset is None else offset[chunk]
            incomplete = IncompleteRows(np.empty(0), x[chunk], given[chunk], own_offset)
            z, log_ratio, uniform = evenly_around(vae, incomplete, k, density, seed)
            log_weights = log_ratio + log_prob_of_given(vae, incomplete, z, uniform)
            log_likelihood[chunk] = torch.logsumexp(log_weights, dim=1) - math.log(k)

            n_effective = 1 / torch.softmax(log_weights, dim=1).square().sum(1)
            is_unsure = (n_effective < FEWEST_EFFECTIVE) & (k < numbers[-1])
            unsure.append(chunk[is_unsure])
            if report is not None:
                report(int((~is_unsure).sum()))

        # from the start again: to keep the draws that made them unsure would lower the bound
        rows = torch.cat(unsure)
    return log_likelihood


def evenly_around(
    vae: VAE, rows: IncompleteRows, n_draws: int, density: LatentDensity, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Evenly spread draws of z around the posteriors of rows, and from p(z), which are the same for all rows.

    Parameters
    ----------
    vae : VAE
    rows : IncompleteRows
    n_draws : int
    density : LatentDensity
        p(z).
    seed : int

    Returns
    -------
    z : tensor of shape (n, n_draws, latent_dim)
    log_ratio : tensor of shape (n, n_draws)
        ``log p(z) - log proposal(z)``, in nats.
    uniform : tensor of shape (n, n_draws, n_parts + latent_dim)
        The even points behind them: the first coordinates are left for missing parts, one after the other.
    """
    x = rows.x
    z_mean, z_logvar = vae.encode_blurred(x)
    z_std = torch.exp(0.5 * z_logvar)
    z_mean = z_mean + z_std * steps_around(vae, rows, z_mean, z_std)

    n_dims = vae.likelihood.n_parts + vae.latent_dim
    points = uniform_points(n_draws, n_dims, seed).to(x)
    uniform = shifted(points, shifts_by_cells(x, n_dims)[:, None])
    n_near = math.ceil(SHARE_NEAR * n_draws)
    noise = torch.special.ndtri(uniform[:, :n_near, -vae.latent_dim :])

    generator = torch.Generator().manual_seed(seed)
    z, log_ratio = proposals(z_mean, z_logvar, noise, n_draws, generator, density, far_of_all=True)
    return z, log_ratio, uniform


def log_prob_of_given(vae: VAE, rows: IncompleteRows, z: Tensor, uniform: Tensor) -> Tensor:
    """Log density of the given parts of rows for each z, the missing ones drawn; tensor of shape (n, n_draws)."""
    # all kinds have quantile functions
    generator = torch.Generator().manual_seed(0)
    made = make_in_order(vae, z, generator, rows.x, rows.given, rows.offset, uniform=uniform, within_ranges=False)
    return made.log_prob.sum(-1)


def _chunks(rows: Tensor, n_draws: int) -> Iterator[Tensor]:
    """Some of the rows at a time, so many that they have `DRAWS_AT_ONCE` draws together."""
    if len(rows):
        yield from rows.split(max(1, DRAWS_AT_ONCE // n_draws))
