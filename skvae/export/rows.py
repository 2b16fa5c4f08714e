"""Values <-> encoded rows in operations that a graph can hold: the twins of `Table.encode_values` and `Table.decode`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skvae.table import Table
from skvae.table.column import Column
from skvae.table.grids import Grid
from skvae.table.kinds import KINDS, Bernoulli, Categorical, Constant, Kind, Normal, QuantileNormal
from skvae.table.layout import Layout
from skvae.table.quantiles import FARTHEST, QuantileMap


class Encoded(NamedTuple):
    """Encoded rows.

    Attributes
    ----------
    x : tensor of shape (n, layout.width)
    observed : tensor of bool of shape (n, n_parts)
    log_jacobian : tensor of shape (n,)
    holed : tensor of bool of shape (n,)
        Rows that miss a cell.
    refused : tensor of bool of shape (n,)
        Rows that the table would not read; their cells are encoded as if they were missing.
    """

    x: Tensor
    observed: Tensor
    log_jacobian: Tensor
    holed: Tensor
    refused: Tensor


class _Part(NamedTuple):
    """What `EncodedPart` holds, for all rows."""

    cells: Tensor
    inputs: Tensor
    observed: Tensor
    log_jacobian: Tensor


def constant(array: np.ndarray | float) -> Tensor:
    """An array or a number as a constant of the graph, in double precision: plain numbers are single ones there."""
    return torch.from_numpy(np.array(array, dtype=np.float64))


# -------------------------------------------------------------------------------------------------------- values -> rows


def encode(table: Table, values: Tensor, handle_unknown: str) -> Encoded:
    """Encode values of shape (n, n_features), NaN where a cell is missing and -1 where a level was never seen."""
    # as `Table.read` has it: a level that was left out has no name any more
    ignored: tuple[type[Kind], ...] = ()
    if handle_unknown == "ignore":
        ignored = (Categorical, Bernoulli)
    elif table.protects:
        ignored = (Categorical,)

    layout = table.layout

    # a missing cell stays 0 everywhere, and its level -1
    zeros = torch.zeros_like(values[:, 0])
    cells = [zeros] * layout.stop
    cells[layout.first_level :] = [zeros - 1] * len(layout.n_levels)
    observed = [torch.zeros_like(values[:, 0], dtype=torch.bool)] * layout.n_parts
    log_jacobian = zeros
    holed = refused = torch.zeros_like(zeros, dtype=torch.bool)

    for j, column in enumerate(table.columns):
        if column.aside is not None:
            continue
        own = values[:, j]
        strange = _strange(column.kind, own)
        if not isinstance(column.kind, ignored):
            refused = refused | strange
        present = ~torch.isnan(own) & ~strange
        if table.places[j]:
            holed = holed | ~present

        # no kind reads a missing cell
        parts = _encode_column(column.kind, torch.where(present, own, zeros))

        for i, part in zip(table.places[j], parts, strict=True):
            there = present & part.observed
            observed[i] = there
            log_jacobian = log_jacobian + torch.where(there, part.log_jacobian, 0.0)
            _place(cells, layout, i, KINDS[table.arrangement.parts[i].kind].section, there, part)

    # behind it, the same row as an auxiliary decoder reads it
    encoded = [torch.stack(cells, dim=1)]
    if table.auxiliary is not None:
        encoded.append(encode(table.auxiliary, values, handle_unknown).x)
    return Encoded(torch.cat(encoded, dim=1), torch.stack(observed, dim=1), log_jacobian, holed, refused)


def _place(cells: list[Tensor], layout: Layout, i: int, section: str, there: Tensor, part: _Part) -> None:
    """Put part `i` into the cells of encoded rows: see `skvae.table.encoding`."""
    if section == "levels":
        cells[layout.first_level + i - layout.n_numbers] = torch.where(there, part.cells, -1.0)
        return

    # the likelihood reads a count as it is, the network its logarithm
    if section == "counts":
        cells[i] = torch.where(there, part.cells, 0.0)
    cells[layout.first_number + i] = torch.where(there, part.inputs, 0.0)
    if i in layout.flagged:
        cells[layout.first_flag + layout.flagged.index(i)] = there.to(part.cells.dtype)


def _strange(kind: Kind, values: Tensor) -> Tensor:
    """Which values the kind cannot encode."""
    if isinstance(kind, Categorical):
        return values < 0
    if isinstance(kind, Bernoulli):
        return (values - constant(kind.low + 0.5 * kind.width)).abs() > constant((0.5 + 1e-6) * kind.width)
    if kind.is_count:
        return (values < 0) | (values != torch.floor(values)) | torch.isinf(values)
    # the table reads no infinite number
    return torch.isinf(values)


def _encode_column(kind: Kind, values: Tensor) -> list[_Part]:
    """Parts of a column, none of whose values is missing."""
    everywhere = torch.ones_like(values, dtype=torch.bool)
    zeros = torch.zeros_like(values)
    if isinstance(kind, Constant):
        return []
    if isinstance(kind, QuantileNormal):
        return _encode_quantiles(kind.quantiles, values, everywhere)
    if isinstance(kind, Categorical):
        return [_Part(values, values, everywhere, zeros)]
    if isinstance(kind, Bernoulli):
        cells = ((values - constant(kind.low)) / constant(kind.width)).clamp(0, 1)
        return [_Part(cells, cells, everywhere, zeros)]
    if isinstance(kind, Normal):
        cells = (values - constant(kind.location)) / constant(kind.scale)
        return [_Part(cells, cells, everywhere, zeros - constant(math.log(kind.scale)))]

    location, scale = kind.log_scale
    return [_Part(values, (torch.log1p(values) - constant(location)) / constant(scale), everywhere, zeros)]


def _encode_quantiles(quantiles: QuantileMap, values: Tensor, everywhere: Tensor) -> list[_Part]:
    parts = []
    n_spikes = len(quantiles.spikes)
    if quantiles.n_levels:
        spikes = constant(quantiles.spikes)
        distance = (values[:, None] - spikes).abs()
        # of two that are as near, the upper one
        level = (n_spikes - 1 - distance.flip(1).argmin(1)).to(values.dtype)
        nearest = distance.amin(1)
        log_chance = torch.zeros_like(values)

        if quantiles.has_rest:
            level = torch.where(nearest == 0, level, n_spikes)
        else:
            far = (nearest / constant(quantiles.deviation)).clamp(max=FARTHEST)
            log_chance = torch.where(nearest == 0, 0.0, constant(quantiles.log_new) - 0.5 * far**2)
        parts.append(_Part(level, level, everywhere, log_chance))
        everywhere = level == n_spikes

    if quantiles.has_rest:
        score, slope = _along(quantiles.knots, quantiles.scores, values)
        parts.append(_Part(score, score, everywhere, torch.log(slope)))
    return parts


def _along(starts: np.ndarray, ends: np.ndarray, points: Tensor) -> tuple[Tensor, Tensor]:
    """The piecewise linear map from `starts` to `ends` at points, and its slope there, both of shape (n,)."""
    interval = ((points[:, None] >= constant(starts)).sum(1) - 1).clamp(0, len(starts) - 2)
    slope = constant(np.diff(ends) / np.diff(starts))[interval]
    return constant(ends)[interval] + (points - constant(starts)[interval]) * slope, slope


# -------------------------------------------------------------------------------------------------------- parts -> values


def decode(table: Table, parts: Tensor) -> Tensor:
    """Values of shape (n, n_features), within the ranges and steps of their columns, of parts of shape (n, n_parts)."""
    columns = []
    for j, column in enumerate(table.columns):
        own = list(parts[:, table.places[j]].unbind(1))
        values = _decode_column(column, own, parts[:, 0])
        if column.grid is not None:
            values = _snap(column.grid, values)
        # as the dtype of a frame has it
        if table.schema.is_boolean(j):
            values = (values > 0.5).to(values.dtype)
        elif table.schema.is_integer(j):
            values = torch.round(values)
        columns.append(values)
    return torch.stack(columns, dim=1)


def _decode_column(column: Column, parts: list[Tensor], like: Tensor) -> Tensor:
    kind = column.kind
    if isinstance(kind, Constant):
        return torch.zeros_like(like) + constant(kind.value)
    if isinstance(kind, Normal):
        return constant(kind.location) + constant(kind.scale) * parts[0]
    if isinstance(kind, Bernoulli):
        return constant(kind.low) + constant(kind.width) * parts[0]
    if not isinstance(kind, QuantileNormal):
        return parts[0]

    # a level decides, whatever score was drawn beside it
    quantiles = kind.quantiles
    values = torch.zeros_like(like)
    if quantiles.has_rest:
        values, _ = _along(quantiles.scores, quantiles.knots, parts[-1])
        if quantiles.support is not None:
            values = _nearest(constant(quantiles.support), values)
    if quantiles.n_levels:
        level = torch.round(parts[0]).long()
        n_spikes = len(quantiles.spikes)
        values = torch.where(level < n_spikes, constant(quantiles.spikes)[level.clamp(max=n_spikes - 1)], values)
    return values


def _nearest(support: Tensor, values: Tensor) -> Tensor:
    """See `skvae.table.quantiles`: of two that are as near, the upper one."""
    place = (values[:, None] > support).sum(1).clamp(1, len(support) - 1)
    low = support[place - 1]
    high = support[place]
    return torch.where(values - low < high - values, low, high)


def _snap(grid: Grid, values: Tensor) -> Tensor:
    """See `Grid.snap`."""
    low = constant(grid.low)
    high = constant(grid.high)
    snapped = values.clamp(low, high)
    if grid.decimals is None:
        return snapped

    unit = constant(10.0**grid.decimals)
    if grid.least is None or grid.step is None:
        snapped = torch.round(snapped * unit) / unit
    else:
        least = constant(grid.least)
        step = constant(grid.step)
        first = torch.ceil((low * unit - least) / step - 1e-6)
        last = torch.floor((high * unit - least) / step + 1e-6)
        steps = torch.round((snapped * unit - least) / step).clamp(first, last)
        # a range may be narrower than a step
        snapped = torch.where(first <= last, (least + steps * step) / unit, snapped)

    # a number of single precision is not its decimal text
    if grid.is_single:
        snapped = snapped.float().double()
    return snapped.clamp(low, high)
