"""What latent points tell of each column."""

from __future__ import annotations

import math

import numpy as np
import torch

from skvae.model.latent import LatentDensity
from skvae.model.network import VAE
from skvae.table import Table
from skvae.threads import on_one_thread

POINTS = 1024
"""Latent points behind an estimate."""


@on_one_thread
@torch.no_grad()
def information_of_columns(vae: VAE, table: Table, density: LatentDensity, seed: int) -> np.ndarray:
    """Mutual information of z and each column, in nats.

    ``I(x_j; z) = E log p(x_j | z) / p(x_j)`` (Cover & Thomas, 2006, section 2.3), for z from the latent density, x_j drawn
    from p(x_j | z), and p(x_j) the mean of p(x_j | z') over the points. An autoregressive decoder has no p(x_j | z): the
    auxiliary decoder beside it answers.

    Parameters
    ----------
    vae : VAE
    table : Table
    density : LatentDensity
    seed : int

    Returns
    -------
    information : ndarray of float64 of shape (n_features,)
        At least 0; at most log of `POINTS`.
    """
    generator = torch.Generator().manual_seed(seed)
    z = density.sample(POINTS, generator).to(vae.device)
    likelihood = vae.likelihood
    read = table
    decode = vae.decode
    if vae.auxiliary is not None and table.auxiliary is not None:
        likelihood, read, decode = vae.auxiliary.likelihood, table.auxiliary, vae.auxiliary.decode

    outputs = decode(z)
    parts = likelihood.draw(outputs, generator).double().cpu().numpy()
    values = np.stack([read.decode_column(j, parts) for j in range(len(read.columns))], axis=1)
    encoded = read.encode_values(values, np.float32)
    x = torch.from_numpy(encoded.x).to(z)
    observed = torch.from_numpy(encoded.observed).to(z.device)

    information = np.zeros(len(read.columns))
    own = torch.zeros(POINTS, len(read.columns), dtype=torch.float64)
    of_all = torch.empty(POINTS, POINTS, len(read.columns), dtype=torch.float64)
    for i in range(POINTS):
        # row i under all points
        by_part = torch.where(observed[i], likelihood.log_prob(x[i].expand(POINTS, -1), outputs), 0.0).double().cpu()
        for j, places in enumerate(read.places):
            of_all[i, :, j] = by_part[:, places].sum(1)
        own[i] = of_all[i, i]

    marginal = torch.logsumexp(of_all, dim=1) - math.log(POINTS)
    information[:] = (own - marginal).mean(0).clamp_min(0).numpy()
    return information
