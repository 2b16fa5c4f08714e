"""Missing cells filled: with conditional means and most probable levels, or with draws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skvae.conditioning import (
    SHARE_FROM_DENSITY,
    IncompleteRows,
    complete,
    proposals,
    resample,
    steps_around,
    truncated,
)
from skvae.inference import Report
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

EVEN_DRAWS = (128, 256)
"""Evenly spread draws of z behind a conditional mean or most probable level: first, and for rows that need more."""

EVEN_DRAWS_IN_ORDER = (32, 128)
"""The same where the decoder takes one pass per part for them, and z says less."""

FEWEST_EFFECTIVE = 5
"""Effective number of draws (Kong, 1992) below which a row gets more."""

LARGEST_ERROR = 1 / 8
"""Squared standard error of a filled cell, relative to its conditional variance, above which its row gets more draws."""

SMALLEST_VARIANCE = 0.05
"""Smallest conditional variance of a level's indicator that this is relative to: a sure level needs no more draws."""

DRAWS_AT_ONCE = 2**13
"""Draws, of all rows together, that are completed at a time."""


@on_one_thread
def fill(
    vae: VAE,
    table: Table,
    values: np.ndarray,
    n_copies: int | None,
    generator: torch.Generator,
    density: LatentDensity,
    report: Report | None = None,
    *,
    noise: bool = True,
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
        ``report(n)`` is told that n more rows are done.
    noise : bool, default=True
        Whether the cells of copies are drawn given z; False takes their means or most probable levels.

    Returns
    -------
    copies : ndarray of shape (n_copies or 1, n, n_features)
    """
    # as they are modelled: a difference is missing where either column is
    modelled = table.rules.forward(values)
    copies = np.repeat(modelled[None], n_copies or 1, axis=0)
    missing = np.isnan(modelled)
    rows = np.flatnonzero(missing.any(1))

    if report is not None:
        report(len(values) - len(rows))

    # rows with the same holes take the same passes: they stand beside each other
    rows = rows[np.lexsort(missing[rows].T[::-1])]

    if n_copies is not None:
        n_draws = max(n_copies, DRAWS if vae.decoder.independent else DRAWS_IN_ORDER)
        for chunk in _chunks(rows, n_draws):
            incomplete = IncompleteRows.of(vae, table, values[chunk])
            copies[:, chunk] = _with_draws(vae, table, incomplete, n_copies, n_draws, generator, density, noise=noise)
            if report is not None:
                report(len(chunk))
        return _as_observed(table, copies, values)

    numbers = EVEN_DRAWS if vae.decoder.independent else EVEN_DRAWS_IN_ORDER
    seed = int(torch.randint(2**31, (1,), generator=generator))
    points = uniform_points(numbers[-1], vae.latent_dim + table.layout.n_parts, seed)
    for n_draws in numbers:
        unsure = [rows[:0]]
        for chunk in _chunks(rows, n_draws):
            incomplete = IncompleteRows.of(vae, table, values[chunk])
            filled, errors = _with_centres(vae, table, incomplete, points[:n_draws], generator, density)
            copies[0, chunk] = filled

            is_unsure = (errors > LARGEST_ERROR) & (n_draws < numbers[-1])
            unsure.append(chunk[is_unsure])
            if report is not None:
                report(int((~is_unsure).sum()))

        # from the start again: to keep the few draws that made them unsure would favour these
        rows = np.concatenate(unsure)
    return _as_observed(table, copies, values)


def _as_observed(table: Table, copies: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Completed values in the columns of the table, with the observed ones as they were."""
    if not table.rules.differences:
        return copies

    observed = ~np.isnan(values)
    copies = table.rules.backward(copies)
    copies[:, observed] = values[observed]
    least = [0.0 if column.grid is None else column.grid.low for column in table.columns]
    return table.rules.mend(copies, observed, least)


def _chunks(rows: np.ndarray, n_draws: int) -> Iterator[np.ndarray]:
    """Some of the rows at a time, so many that they have `DRAWS_AT_ONCE` draws together."""
    rows_at_once = max(1, DRAWS_AT_ONCE // n_draws)
    for start in range(0, len(rows), rows_at_once):
        yield rows[start : start + rows_at_once]


# ------------------------------------------------------------------------------------------------------------ with draws


def _with_draws(
    vae: VAE,
    table: Table,
    rows: IncompleteRows,
    n_copies: int,
    n_draws: int,
    generator: torch.Generator,
    density: LatentDensity,
    *,
    noise: bool,
) -> np.ndarray:
    """Completed copies, ndarray of shape (n_copies, n, n_features)."""
    parts, log_weights = complete(vae, rows.x, rows.given, n_draws, generator, density, noise=noise, offset=rows.offset)
    weights = truncated(torch.softmax(log_weights, dim=1))

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
            drawn = table.decode_column(j, own.double().cpu().numpy())
            copies[:, missing, j] = table.columns[j].snap(drawn).reshape(n_copies, -1)
    return copies


# ---------------------------------------------------------------------------------------------------------- with centres


@torch.no_grad()
def _with_centres(
    vae: VAE, table: Table, rows: IncompleteRows, points: Tensor, generator: torch.Generator, density: LatentDensity
) -> tuple[np.ndarray, np.ndarray]:
    """Rows completed by conditional means and most probable levels.

    Returns
    -------
    filled : ndarray of shape (n, n_features)
    errors : ndarray of shape (n,)
        Largest squared standard error of a filled cell of the row, relative to the conditional variance of the cell; infinity
        if fewer than `FEWEST_EFFECTIVE` draws are behind it.
    """
    made, log_ratio = _make(vae, rows, points, generator, density)
    weights = torch.softmax(log_ratio + made.log_prob.sum(-1), dim=1)
    n_effective = 1 / weights.square().sum(1)
    before = _WeightsBefore(vae, rows, made, log_ratio, truncated(weights))

    filled = rows.values.copy()
    # few effective draws may agree by accident
    errors = np.zeros(len(filled))
    errors[(n_effective < FEWEST_EFFECTIVE).cpu().numpy()] = np.inf
    for j, missing in enumerate(np.isnan(rows.values).T):
        if not missing.any():
            continue
        places = table.places[j]
        if not places:
            # a constant is what it always was
            filled[missing, j] = table.decode_column(j, np.zeros((missing.sum(), table.layout.n_parts)))
            continue

        centre = _means
        if table.columns[j].kind.is_discrete:
            centre = _levels
        centres, own = centre(table, j, missing, made, before)
        filled[missing, j] = table.columns[j].snap(centres)
        errors[missing] = np.maximum(errors[missing], own)
    return filled, errors


def _make(
    vae: VAE, rows: IncompleteRows, points: Tensor, generator: torch.Generator, density: LatentDensity
) -> tuple[Made, Tensor]:
    """Evenly spread completions of rows, and ``log p(z) - log proposal(z)`` of each, of shape (n, n_draws)."""
    z_mean, z_logvar = vae.encode_blurred(rows.x)
    z_std = torch.exp(0.5 * z_logvar)
    z_mean = z_mean + z_std * steps_around(vae, rows, z_mean, z_std)
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


def _levels(
    table: Table, j: int, missing: np.ndarray, made: Made, weights: _WeightsBefore
) -> tuple[np.ndarray, np.ndarray]:
    """Most probable level of a column in rows where it is missing, and relative squared errors, each of (n_missing,)."""
    (part,) = table.places[j]
    rows = torch.from_numpy(np.flatnonzero(missing)).to(made.parts.device)
    probabilities = made.expectations[part][rows]
    # one of two values is told by the probability of the upper one
    if probabilities.shape[-1] == 1:
        probabilities = torch.cat([1 - probabilities, probabilities], dim=-1)

    n_levels = probabilities.shape[-1]
    chosen = torch.nn.functional.one_hot(made.parts[rows, :, part].long(), n_levels).to(probabilities.dtype)
    before, is_final = weights.of(part, rows)
    shares, squares = steadied(chosen, weights.all[rows], [chosen - probabilities], before, is_final)
    errors = squares / (shares * (1 - shares)).clamp_min(SMALLEST_VARIANCE)

    levels = np.zeros((n_levels, table.layout.n_parts))
    levels[:, part] = np.arange(n_levels)
    filled = table.decode_column(j, levels)[shares.argmax(1).cpu().numpy()]
    return filled, errors.amax(1).cpu().numpy()


def _means(
    table: Table, j: int, missing: np.ndarray, made: Made, weights: _WeightsBefore
) -> tuple[np.ndarray, np.ndarray]:
    """Conditional mean of a column in rows where it is missing, and relative squared errors, each of (n_missing,)."""
    places = table.places[j]
    rows = torch.from_numpy(np.flatnonzero(missing)).to(made.parts.device)
    parts = made.parts[rows].double().cpu()  # (n_missing, n_draws, n_parts)
    cells = torch.from_numpy(table.decode_column(j, parts.flatten(0, 1).numpy())).view(parts.shape[:2])
    # a power of two: squares of cells in units of it are finite
    exponent = math.frexp(float(cells.abs().max()))[1]
    unit = math.ldexp(1.0, min(max(exponent, -1000), 1000))
    cells = cells / unit

    deviations = []
    for part in places:
        if part in made.expectations:
            expected = made.expectations[part][rows].double().cpu()
            deviations.append(_deviation(table, j, part, parts, expected, unit)[..., None])

    before, is_final = weights.of(places[0], rows)
    is_alone = len(places) == 1 and table.columns[j].kind.is_linear
    is_final = is_final & is_alone
    if is_alone:
        # the coefficient is 1 in the units of the cells
        slope = _slope(table, j, places[0], unit)
        deviations = [slope * deviation for deviation in deviations]

    all_weights = weights.all[rows].double().cpu()
    before = before.double().cpu()
    means, squares = steadied(cells[..., None], all_weights, deviations, before, is_final.cpu())

    variances = (all_weights * (cells - means).square()).sum(1)
    errors = squares[:, 0] / variances.clamp_min(torch.finfo(variances.dtype).tiny)
    return means[:, 0].numpy() * unit, errors.numpy()


def _slope(table: Table, j: int, part: int, unit: float) -> float:
    """What a column grows by, in a unit, with its only part, of which it is a linear function."""
    parts = np.zeros((2, table.layout.n_parts))
    parts[1, part] = 1
    low, high = table.decode_column(j, parts) / unit
    return float(high - low)


def _deviation(table: Table, j: int, part: int, parts: Tensor, expected: Tensor, unit: float) -> Tensor:
    """What a drawn part of a number exceeds its expectation by, on any scale: tensor of shape (n, n_draws).

    Parameters
    ----------
    table : Table
    j, part : int
        The column, and a part of it.
    parts : tensor of shape (n, n_draws, n_parts)
    expected : tensor of shape (n, n_draws, n_means)
        Mean of the part, or probabilities of its levels.
    unit : float
        Of values of the column.
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
    worth = torch.from_numpy(table.decode_column(j, levels) / unit)
    return worth[drawn.long()] - expected @ worth


def steadied(
    cells: Tensor, weights: Tensor, deviations: list[Tensor], before: Tensor, is_final: Tensor
) -> tuple[Tensor, Tensor]:
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
        Whether the coefficient is 1.

    Returns
    -------
    means : tensor of shape (n, k)
    squared_errors : tensor of shape (n, k)
        Squares of their standard errors.
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
    return means, left.square().sum(1)
