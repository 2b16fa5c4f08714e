"""Missing cells filled: with conditional means and most probable levels, or with draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skvae.conditioning import SHARE_FROM_DENSITY, complete, given_parts, proposals, resample, truncated
from skvae.model.generation import Made, make_in_order
from skvae.model.latent import LatentDensity
from skvae.model.network import VAE
from skvae.quasirandom import shifted, uniform_points
from skvae.table import Table
from skvae.table.layout import Layout
from skvae.threads import on_one_thread

DRAWS = 256
"""Draws of z behind the completed copies of a row."""

DRAWS_IN_ORDER = 128
"""The same where the decoder takes one pass per part for them."""

EVEN_DRAWS = 32
"""Evenly spread draws of z behind a conditional mean or most probable level."""

DRAWS_AT_ONCE = 2**13
"""Draws, of all rows together, that are completed at a time."""

Report = Callable[[int], None]
"""``report(n)`` says that n more rows are done."""


@on_one_thread
def fill(
    vae: VAE,
    table: Table,
    values: np.ndarray,
    n_copies: int | None,
    generator: torch.Generator,
    density: LatentDensity,
    report: Report | None = None,
) -> np.ndarray:
    """Fill missing cells with conditional means and most probable levels, or with draws.

    Parameters
    ----------
    vae : VAE
    table : Table
    values : ndarray of shape (n, n_features)
        NaN where a cell is missing.
    n_copies : int or None
        None for means and levels; else the number of completed copies.
    generator : torch.Generator
    density : LatentDensity
    report : callable, default=None

    Returns
    -------
    copies : ndarray of shape (n_copies or 1, n, n_features)
    """
    copies = np.repeat(values[None], n_copies or 1, axis=0)
    missing = np.isnan(values)
    rows = np.flatnonzero(missing.any(1))

    # rows with the same holes take the same passes: they stand beside each other
    rows = rows[np.lexsort(missing[rows].T[::-1])]

    n_draws = EVEN_DRAWS
    if n_copies is not None:
        n_draws = max(n_copies, DRAWS if vae.decoder.independent else DRAWS_IN_ORDER)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    points = uniform_points(EVEN_DRAWS, vae.latent_dim + table.layout.n_parts, seed)

    rows_at_once = max(1, DRAWS_AT_ONCE // n_draws)
    for start in range(0, len(rows), rows_at_once):
        chunk = rows[start : start + rows_at_once]
        incomplete = IncompleteRows.of(vae, table, values[chunk])

        if n_copies is None:
            copies[0, chunk] = _with_centres(vae, table, incomplete, points, generator, density)
        else:
            copies[:, chunk] = _with_draws(vae, table, incomplete, n_copies, n_draws, generator, density)
        if report is not None:
            report(len(chunk))
    return copies


class IncompleteRows:
    """Rows with missing cells, as a network reads them.

    Attributes
    ----------
    values : ndarray of shape (n, n_features)
        NaN where a cell is missing.
    x : tensor of float32 of shape (n, layout.width)
        Encoded rows.
    given : tensor of shape (n, n_parts)
        Their observed parts; NaN where one is missing.
    offset : tensor of shape (n,) or None
        Offsets of the counts, if there is an exposure; NaN where it is missing.
    """

    def __init__(self, values: np.ndarray, x: Tensor, given: Tensor, offset: Tensor | None) -> None:
        self.values = values
        self.x = x
        self.given = given
        self.offset = offset

    @classmethod
    def of(cls, vae: VAE, table: Table, values: np.ndarray) -> IncompleteRows:
        """Encode values of shape (n, n_features)."""
        encoded = table.encode_values(values, np.float32)
        x = torch.from_numpy(encoded.x).to(vae.device)
        given = given_parts(table.layout, x, torch.from_numpy(encoded.observed).to(vae.device))
        offset = None
        if encoded.offset is not None:
            offset = torch.from_numpy(encoded.offset).to(x)

        return cls(values, x, given, offset)


# ------------------------------------------------------------------------------------------------------------ with draws


def _with_draws(
    vae: VAE,
    table: Table,
    rows: IncompleteRows,
    n_copies: int,
    n_draws: int,
    generator: torch.Generator,
    density: LatentDensity,
) -> np.ndarray:
    """Completed copies, ndarray of shape (n_copies, n, n_features)."""
    parts, weights = complete(vae, rows.x, rows.given, n_draws, generator, density, offset=rows.offset)
    weights = truncated(weights)

    # all cells of a copy come from one draw, so that they go together
    chosen = []
    for i in range(len(weights)):
        chosen.append(resample(weights[i], n_copies, generator))
    positions = torch.stack(chosen, dim=1).to(parts.device)  # (n_copies, n)

    kept = parts[torch.arange(len(weights), device=parts.device), positions]  # (n_copies, n, n_parts)
    copies = np.repeat(rows.values[None], n_copies, axis=0)
    for j, missing in enumerate(np.isnan(rows.values).T):
        if missing.any():
            own = kept[:, torch.from_numpy(missing)].flatten(0, 1)
            copies[:, missing, j] = table.decode_column(j, own.double().cpu().numpy()).reshape(n_copies, -1)
    return copies


# ---------------------------------------------------------------------------------------------------------- with centres


@torch.no_grad()
def _with_centres(
    vae: VAE, table: Table, rows: IncompleteRows, points: Tensor, generator: torch.Generator, density: LatentDensity
) -> np.ndarray:
    """Rows completed by conditional means and most probable levels, ndarray of shape (n, n_features)."""
    made, log_ratio = _make(vae, rows, points, generator, density)
    weights = truncated(torch.softmax(log_ratio + made.log_prob.sum(-1), dim=1))
    before = _WeightsBefore(vae, rows, made, log_ratio, weights)

    filled = rows.values.copy()
    for j, missing in enumerate(np.isnan(rows.values).T):
        if not missing.any():
            continue
        places = table.places[j]
        kind = table.columns[j].kind
        if not places:
            filled[missing, j] = table.decode_column(j, np.zeros((missing.sum(), table.layout.n_parts)))
        elif kind.is_discrete:
            filled[missing, j] = _levels(table, j, missing, made, before)
        else:
            filled[missing, j] = _means(table, j, missing, made, before)
    return filled


def _make(
    vae: VAE, rows: IncompleteRows, points: Tensor, generator: torch.Generator, density: LatentDensity
) -> tuple[Made, Tensor]:
    """Evenly spread completions of rows, and ``log p(z) - log proposal(z)`` of each, of shape (n, n_draws)."""
    z_mean, z_logvar = vae.encode(rows.x)
    n_draws = len(points)
    n_near = n_draws - n_draws // SHARE_FROM_DENSITY

    # the first coordinates tell the missing parts, one after the other, the others tell z
    shifts = torch.rand(len(rows.x), 1, points.shape[1], generator=generator)
    moved = shifted(points.to(shifts), shifts).to(rows.x.device)  # (n, n_draws, n_dims)
    noise = torch.special.ndtri(moved[:, :n_near, -vae.latent_dim :])
    z, log_ratio = proposals(z_mean, z_logvar, noise, n_draws, generator, density)

    made = make_in_order(
        vae,
        z,
        generator,
        x=rows.x,
        given=rows.given,
        offset=rows.offset,
        uniform=moved,
        with_expectations=True,
    )
    return made, log_ratio


class _WeightsBefore:
    """Weights of draws from all given parts, and from those before a part alone.

    Parameters
    ----------
    vae : VAE
    rows : IncompleteRows
    made : Made
    log_ratio, weights : tensor of shape (n, n_draws)
        ``log p(z) - log proposal(z)``, and the weights from all given parts.
    """

    def __init__(self, vae: VAE, rows: IncompleteRows, made: Made, log_ratio: Tensor, weights: Tensor) -> None:
        self.all = weights
        self._layout: Layout = vae.likelihood.layout
        self._independent = vae.decoder.independent
        self._is_given = ~torch.isnan(rows.given)
        self._log_prob = made.log_prob
        self._log_ratio = log_ratio
        self._rank = torch.tensor(self._layout.rank, device=rows.x.device)

    def of(self, part: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of some rows' draws from the given parts that do not depend on a part.

        Returns
        -------
        weights : tensor of shape (len(rows), n_draws)
        is_final : tensor of bool of shape (len(rows),)
            Whether these are all the given parts.
        """
        earlier = self._rank < self._rank[part]
        # without an order, no given part depends on a missing one
        if self._independent:
            earlier = torch.ones_like(earlier)
        log_prob = self._log_prob[rows][:, :, earlier].sum(-1)
        weights = truncated(torch.softmax(self._log_ratio[rows] + log_prob, dim=1))

        is_final = ~(self._is_given[rows] & ~earlier).any(1)
        return weights, is_final


def _levels(table: Table, j: int, missing: np.ndarray, made: Made, weights: _WeightsBefore) -> np.ndarray:
    """Most probable level of a column in rows where it is missing, ndarray of shape (n_missing,)."""
    (part,) = table.places[j]
    rows = torch.from_numpy(np.flatnonzero(missing)).to(made.parts.device)
    probabilities = made.expectations[part][rows]
    # one of two values is told by the probability of the upper one
    if probabilities.shape[-1] == 1:
        probabilities = torch.cat([1 - probabilities, probabilities], dim=-1)

    n_levels = probabilities.shape[-1]
    chosen = torch.nn.functional.one_hot(made.parts[rows, :, part].long(), n_levels).to(probabilities.dtype)
    before, is_final = weights.of(part, rows)
    shares = steadied(chosen, weights.all[rows], [chosen - probabilities], before, is_final)

    levels = np.zeros((n_levels, table.layout.n_parts))
    levels[:, part] = np.arange(n_levels)
    return table.decode_column(j, levels)[shares.argmax(1).cpu().numpy()]


def _means(table: Table, j: int, missing: np.ndarray, made: Made, weights: _WeightsBefore) -> np.ndarray:
    """Conditional mean of a column in rows where it is missing, ndarray of shape (n_missing,)."""
    places = table.places[j]
    rows = torch.from_numpy(np.flatnonzero(missing)).to(made.parts.device)
    parts = made.parts[rows].double().cpu()  # (n_missing, n_draws, n_parts)
    cells = torch.from_numpy(table.decode_column(j, parts.flatten(0, 1).numpy())).view(parts.shape[:2])

    deviations = []
    for part in places:
        if part in made.expectations:
            expected = made.expectations[part][rows].double().cpu()
            deviations.append(_deviation(table, j, part, parts, expected)[..., None])

    before, is_final = weights.of(places[0], rows)
    is_final = is_final & (len(places) == 1) & table.columns[j].kind.is_linear
    means = steadied(cells[..., None], weights.all[rows].double().cpu(), deviations, before.double().cpu(), is_final.cpu())
    return means[:, 0].numpy()


def _deviation(table: Table, j: int, part: int, parts: Tensor, expected: Tensor) -> Tensor:
    """What a drawn part of a number exceeds its expectation by, in any unit: tensor of shape (n, n_draws).

    Parameters
    ----------
    table : Table
    j, part : int
        The column, and a part of it.
    parts : tensor of shape (n, n_draws, n_parts)
    expected : tensor of shape (n, n_draws, n_cells)
        Mean of the part, or probabilities of its levels.
    """
    drawn = parts[..., part]
    if part < table.layout.n_numbers:
        gate = table.layout.gate[part]
        deviation = drawn - expected[..., 0]
        if gate < 0:
            return deviation

        # behind a closed gate nothing was drawn
        open_level = table.layout.n_levels[gate - table.layout.n_numbers] - 1
        return torch.where(parts[..., gate] == open_level, deviation, 0.0)

    # levels of a number are values
    levels = np.zeros((expected.shape[-1], table.layout.n_parts))
    levels[:, part] = np.arange(len(levels))
    worth = torch.from_numpy(table.decode_column(j, levels))
    return worth[drawn.long()] - expected @ worth


def steadied(cells: Tensor, weights: Tensor, deviations: list[Tensor], before: Tensor, is_final: Tensor) -> Tensor:
    """Weighted means of drawn cells, with less noise than they have by themselves.

    The draws of a cell deviate from its conditional mean given z and the parts before it. Weighted by these parts alone, the
    mean of the deviations is 0 in expectation: it is a control variate (Owen, 2013, chapter 8.9), whose coefficient is told
    by regression over the draws. If no given part depends on the cell, the coefficient is 1, and the result the mean of the
    conditional means (Rao & Blackwell).

    Parameters
    ----------
    cells : tensor of shape (n, n_draws, k)
    weights : tensor of shape (n, n_draws)
        From all given parts; their sums are 1, as those of `before`.
    deviations : list of tensor of shape (n, n_draws, k)
        One for each control variate.
    before : tensor of shape (n, n_draws)
        From the given parts that do not depend on the cell.
    is_final : tensor of bool of shape (n,)
        Whether the coefficient is known to be 1.

    Returns
    -------
    means : tensor of shape (n, k)
    """
    means = (weights[..., None] * cells).sum(1)
    left = weights[..., None] * (cells - means[:, None])  # what each draw contributes to the error, (n, n_draws, k)

    for deviation in deviations:
        control = before[..., None] * deviation
        total = control.sum(1, keepdim=True)
        centred = control - total / control.shape[1]

        variance = centred.square().sum(1, keepdim=True).clamp_min(torch.finfo(control.dtype).tiny)
        coefficient = (left * centred).sum(1, keepdim=True) / variance
        coefficient = torch.where(is_final[:, None, None], 1.0, coefficient)
        means = means - (coefficient * total)[:, 0]
        left = left - coefficient * centred
    return means
