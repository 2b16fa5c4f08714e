"""Rows completed around given cells, and new rows under conditions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skvae.model.decoders import number_inputs
from skvae.model.generation import generate_in_order
from skvae.model.inputs import INPUT_MAX
from skvae.model.latent import LatentDensity, Prior
from skvae.model.network import VAE
from skvae.model.proposals import steps_uphill
from skvae.table import EncodedRows, Layout, Table
from skvae.table.given import Conditions
from skvae.threads import on_one_thread

PROPOSALS = 20
"""Proposals per row of a conditional sample."""

FEWEST_PROPOSALS = 1000
"""Proposals of a conditional sample, however few rows it has."""

MOST_TIMES = 32
"""How many times as many proposals are tried where few fall into the ranges and sets that are given."""

SHARE_FROM_DENSITY = 4
"""One of so many draws of z comes from p(z), the others from q(z | x)."""

SAMPLES_AT_ONCE = 2000
"""Rows that are drawn around given cells at a time."""


class IncompleteRows(NamedTuple):
    """Rows of which some cells are given, as a network reads them.

    Attributes
    ----------
    values : ndarray of shape (n, n_features)
        As they are modelled; NaN where a cell is missing.
    x : tensor of float32 of shape (n, layout.width)
        Encoded rows. Numbers are held within `INPUT_MAX` deviations, where the weights of draws by their densities are still
        numbers.
    given : tensor of shape (n, n_parts)
        Their given parts; NaN where one is missing.
    offset : tensor of shape (n,) or None
        Offsets of the counts, if there is an exposure; NaN where it is missing.
    """

    values: np.ndarray
    x: Tensor
    given: Tensor
    offset: Tensor | None

    @classmethod
    def of(cls, vae: VAE, table: Table, values: np.ndarray) -> IncompleteRows:
        """Encode values of shape (n, n_features)."""
        layout = table.layout
        encoded: EncodedRows = table.encode_values(values, np.float32)
        x = torch.from_numpy(encoded.x).to(vae.device)
        x[:, layout.first_number : layout.first_flag].clamp_(-INPUT_MAX, INPUT_MAX)

        given = given_parts(layout, x, torch.from_numpy(encoded.observed).to(vae.device))
        offset = None
        if encoded.offset is not None:
            offset = torch.from_numpy(encoded.offset).to(x)

        return cls(table.rules.forward(values), x, given, offset)


@on_one_thread
@torch.no_grad()
def complete(
    vae: VAE,
    x: Tensor,
    given: Tensor,
    n_draws: int,
    generator: torch.Generator,
    density: LatentDensity,
    *,
    noise: bool = True,
    offset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Complete rows around their given parts, with importance weights (Mattei & Frellsen, 2019).

    z is drawn from q(z | x), and a quarter of the draws from p(z), which covers what an encoder that met few missing cells in
    training misses; the missing parts are drawn given z and the parts before them; the weight of a draw is
    ``p(given | z) p(z) / proposal(z)``.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows.
    given : tensor of shape (n, n_parts)
        Their observed parts; NaN where one is missing.
    n_draws : int
    generator : torch.Generator
    density : LatentDensity
        p(z).
    noise : bool, default=True
        Whether missing parts are drawn given z; False takes their means or most probable levels.
    offset : tensor of shape (n,), default=None
        Offsets of the counts, if there is an exposure; NaN where it is missing.

    Returns
    -------
    parts : tensor of shape (n, n_draws, n_parts)
    log_weights : tensor of shape (n, n_draws)
    """
    z_mean, z_logvar = vae.encode_blurred(x)
    n_near = n_draws - n_draws // SHARE_FROM_DENSITY
    noise_near = torch.randn(len(x), n_near, vae.latent_dim, generator=generator, dtype=x.dtype).to(x.device)
    z, log_ratio = proposals(z_mean, z_logvar, noise_near, n_draws, generator, density)

    source = generator if noise else None
    parts, log_prob = generate_in_order(vae, z, source, x=x, given=given, offset=offset)
    return parts, log_prob + log_ratio


def proposals(
    z_mean: Tensor,
    z_logvar: Tensor,
    noise: Tensor,
    n_draws: int,
    generator: torch.Generator,
    density: LatentDensity,
    *,
    far_of_all: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draws of z from q(z | x), and behind them draws from p(z).

    Parameters
    ----------
    z_mean, z_logvar : tensor of shape (n, latent_dim)
        Of q(z | x).
    noise : tensor of shape (n, n_near, latent_dim)
        Standard normal: the draws from q(z | x) follow from it.
    n_draws : int
        Number of all draws.
    generator : torch.Generator
        Source of the draws from p(z).
    density : LatentDensity
        p(z).
    far_of_all : bool, default=False
        Whether the draws from p(z) are the same for all rows.

    Returns
    -------
    z : tensor of shape (n, n_draws, latent_dim)
    log_ratio : tensor of shape (n, n_draws)
        ``log p(z) - log proposal(z)``, in nats.
    """
    n, n_near, latent_dim = noise.shape
    z_mean = z_mean[:, None]  # (n, 1, latent_dim)
    z_logvar = z_logvar[:, None]
    z_std = torch.exp(0.5 * z_logvar)

    z = z_mean + z_std * noise
    n_far = n_draws - n_near
    if n_far:
        far = density.sample(n_far if far_of_all else n * n_far, generator, noise.dtype).to(noise.device)
        far = far.view(-1, n_far, latent_dim).expand(n, n_far, latent_dim)
        z = torch.cat([z, far], dim=1)

    # the proposal is a mixture of both, whichever a draw came from (Veach & Guibas, 1995: the balance heuristic)
    log_p = density.log_prob(z)
    log_q = Prior(latent_dim).log_prob((z - z_mean) / z_std) - 0.5 * z_logvar.sum(-1)
    share_near = n_near / n_draws
    log_far = math.log1p(-share_near) if n_far else -math.inf
    log_proposal = torch.logaddexp(log_q + math.log(share_near), log_p + log_far)
    return z, log_p - log_proposal


def steps_around(vae: VAE, rows: IncompleteRows, z_mean: Tensor, z_std: Tensor) -> Tensor:
    """`steps_uphill` on the density of the given parts, missing ones before them at their means: (n, latent_dim)."""
    x = rows.x
    if not vae.decoder.independent:
        parts, _ = generate_in_order(vae, z_mean[:, None], None, rows.x, rows.given, rows.offset)
        x = completed(vae.likelihood.layout, rows.x, rows.given, parts[:, 0])

    def log_prob(z: Tensor, compared: Tensor, read: Tensor, given: Tensor) -> Tensor:
        by_part = vae.likelihood.log_prob(compared, vae.decode(z, read))
        return torch.where(torch.isnan(given), 0.0, by_part)

    return steps_uphill(log_prob, z_mean, z_std, rows.x, x, rows.given)


def completed(layout: Layout, x: Tensor, given: Tensor, parts: Tensor) -> Tensor:
    """Encoded rows that hold, in the cells that a network reads, what was missing in them.

    Parameters
    ----------
    layout : Layout
    x : tensor of shape (n, layout.width)
    given, parts : tensor of shape (n, n_parts)
        The given parts, NaN where one is missing, and all parts.

    Returns
    -------
    x : tensor of shape (n, layout.width)
    """
    x = x.clone()

    for part in range(layout.n_parts):
        rows = torch.nonzero(torch.isnan(given[:, part]))[:, 0]
        if not len(rows):
            continue
        if part >= layout.n_numbers:
            x[rows, layout.first_level + part - layout.n_numbers] = parts[rows, part]
            continue

        # the number, and behind it its flag
        inputs = number_inputs(layout, part, parts[rows])
        x[rows, layout.first_number + part] = inputs[:, 0]
        if part in layout.flagged:
            x[rows, layout.first_flag + layout.flagged.index(part)] = inputs[:, 1]

    return x


def truncated(weights: Tensor) -> Tensor:
    """Normalised weights, shape (n, n_draws), cut at ``n_draws ** -0.5`` so that a few draws do not decide (Ionides, 2008)."""
    weights = weights.clamp_max(weights.shape[1] ** -0.5)
    return weights / weights.sum(1, keepdim=True)


def resample(weights: Tensor, n_samples: int, generator: torch.Generator) -> Tensor:
    """Positions drawn by weights of shape (n,), systematically (Kitagawa, 1996), in random order.

    Returns
    -------
    positions : tensor of int of shape (n_samples,)
    """
    # one random start, then even steps: a position of weight w comes n_samples * w times, plus or minus one
    start = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (start + torch.arange(n_samples, dtype=torch.float64)) / n_samples
    # the last point may lie behind the last cumulated weight by a rounding error
    positions = torch.searchsorted(torch.cumsum(weights.double().cpu(), 0), points).clamp_max(len(weights) - 1)
    return positions[torch.randperm(n_samples, generator=generator)]


@on_one_thread
def sample_given(
    vae: VAE,
    table: Table,
    conditions: Conditions,
    n_samples: int,
    generator: torch.Generator,
    density: LatentDensity,
    *,
    noise: bool = True,
) -> tuple[np.ndarray, float]:
    """Draw rows that meet conditions, by importance resampling.

    Proposals are drawn around the given cells, and those whose other cells are not allowed are left out.

    Parameters
    ----------
    vae : VAE
    table : Table
    conditions : Conditions
    n_samples : int
    generator : torch.Generator
    density : LatentDensity
    noise : bool, default=True
        Whether cells are drawn given z; False takes their means or most probable levels.

    Returns
    -------
    values : ndarray of shape (n_samples, n_features)
        The given cells as they are.
    n_effective : float
        Smallest effective number of proposals (Kong, 1992) behind `SAMPLES_AT_ONCE` rows, or all if there are fewer.

    Raises
    ------
    ValueError
        If no proposal meets the conditions.
    """
    pieces = []
    numbers = []
    for start in range(0, n_samples, SAMPLES_AT_ONCE):
        n = min(SAMPLES_AT_ONCE, n_samples - start)
        drawn, weights = _proposed_rows(vae, table, conditions, n, generator, density, noise=noise)
        numbers.append(float(1 / weights.square().sum()))
        pieces.append(drawn[resample(weights, n, generator).numpy()])

    # to the bit: encoding and decoding may have rounded them
    values = np.concatenate(pieces)
    is_given = ~np.isnan(conditions.row[0])
    values[:, is_given] = conditions.row[0, is_given]
    return values, min(numbers)


def _keep_rules(table: Table, conditions: Conditions, drawn: np.ndarray) -> np.ndarray:
    """Which rows drawn, with the given cells as they are, keep the constraints of the table."""
    if not table.rules.all:
        return np.ones(len(drawn), dtype=bool)

    given = ~np.isnan(conditions.row[0])
    drawn = drawn.copy()
    drawn[:, given] = conditions.row[0, given]
    return table.rules.hold(table.write(drawn, exact=conditions.exact))


def _proposed_rows(
    vae: VAE,
    table: Table,
    conditions: Conditions,
    n: int,
    generator: torch.Generator,
    density: LatentDensity,
    *,
    noise: bool,
) -> tuple[np.ndarray, Tensor]:
    """Proposals that meet conditions: values of shape (n_proposals, n_features), and weights, which sum to 1."""
    # few rows still need proposals to choose from
    n_proposals = max(PROPOSALS * n, FEWEST_PROPOSALS)
    rows = IncompleteRows.of(vae, table, conditions.row)

    kept = []
    log_weights = []
    n_kept = 0
    n_tried = 0
    while n_kept < n_proposals and n_tried < MOST_TIMES * n_proposals:
        parts, own = complete(vae, rows.x, rows.given, n_proposals, generator, density, noise=noise, offset=rows.offset)
        # float64, for a large whole number of single precision is not exact
        drawn = table.decode(parts[0].double().cpu().numpy())
        met = conditions.hold(drawn) & _keep_rules(table, conditions, drawn)
        kept.append(drawn[met])
        log_weights.append(own[0].cpu()[torch.from_numpy(met)])
        n_kept += int(met.sum())
        n_tried += n_proposals

    if n_kept == 0:
        raise ValueError(
            f"None of {n_tried} rows drawn from the model meets the conditions of given. Give a wider range or more levels."
        )
    return np.concatenate(kept), torch.softmax(torch.cat(log_weights).double(), dim=0)


def given_parts(layout: Layout, x: Tensor, observed: Tensor) -> Tensor:
    """Parts of encoded rows as they are drawn: standardised numbers, counts, and positions of levels.

    Parameters
    ----------
    layout : Layout
    x : tensor of shape (n, layout.width)
    observed : tensor of bool of shape (n, n_parts)

    Returns
    -------
    parts : tensor of shape (n, n_parts)
        NaN where a part is not observed.
    """
    # a count stands twice in an encoded row: its logarithm among the numbers is left out
    counts = x[:, : layout.n_counts]
    numbers = x[:, layout.first_number + layout.n_counts : layout.first_flag]
    levels = x[:, layout.first_level : layout.stop]

    parts = torch.cat([counts, numbers, levels], dim=1)
    parts[~observed] = torch.nan
    return parts
