"""Rows made from latent points: cells drawn part after part, around parts that are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch

from skvae.model.decoders import Reader
from skvae.model.likelihoods import Block, Likelihood
from skvae.model.network import VAE

if TYPE_CHECKING:
    from skvae.table.layout import Layout

ROWS_PER_CHUNK = 1024
"""Rows whose decoder outputs are held at a time for the densities of given parts: they stay in the processor's cache."""

REDRAWS = 16
"""How often cells are drawn anew that fall out of their range."""

Ranges: TypeAlias = Sequence[tuple[float, float]]
"""Lowest and highest cell of each part; no parts stand for no limits."""

Draw: TypeAlias = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Parts of shape (n, n_parts) from outputs of shape (n, n_outputs)."""


@torch.no_grad()
def generate(vae: VAE, z: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Parts of rows decoded from `z`: drawn from p(x | z), or without a generator their means or most probable levels.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, latent_dim)
    generator : torch.Generator, default=None

    Returns
    -------
    parts : tensor of shape (n, n_parts)
    """
    likelihood = vae.likelihood

    # counts are in proportion to an exposure, which is drawn before them
    if not vae.decoder.independent or likelihood.raised:
        parts, _ = generate_in_order(vae, z[:, None], generator)
        return parts[:, 0]

    outputs = vae.decode(z)
    ranges = likelihood.layout.ranges
    if generator is None:
        return _held(likelihood.mean(outputs), ranges)

    return _drawn_within(likelihood.draw, outputs, ranges, generator)


@torch.no_grad()
def generate_in_order(
    vae: VAE,
    z: torch.Tensor,
    generator: torch.Generator | None = None,
    x: torch.Tensor | None = None,
    given: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    *,
    centred: Collection[int] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """`generate` for several z per row, part after part and all rows at once, around parts that are given.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, n_draws, latent_dim)
    generator : torch.Generator, default=None
        None takes means or most probable levels.
    x : tensor of shape (n, layout.width), default=None
        The encoded rows, in which the parts to be drawn are missing.
    given : tensor of shape (n, n_parts), default=None
        Their given parts; NaN where one is to be drawn.
    offset : tensor of shape (n,), default=None
        Given offsets of the counts; NaN where the exposure is to be drawn.
    centred : collection of int, default=()
        Parts whose means are taken, even with a generator.

    Returns
    -------
    parts : tensor of shape (n, n_draws, n_parts)
        The given parts as they are, the others drawn (or their means or most probable levels). A part behind a gate that is
        given closed is 0.
    log_prob : tensor of shape (n, n_draws)
        Sum of the log densities of the given parts, each given z and the parts before it, in nats.
    """
    made = make_in_order(vae, z, generator, x, given, offset, centred=centred)

    return made.parts, made.log_prob.sum(-1)


class Made(NamedTuple):
    """Rows made part after part.

    Attributes
    ----------
    parts : tensor of shape (n, n_draws, n_parts)
        See `generate_in_order`.
    log_prob : tensor of shape (n, n_draws, n_parts)
        Log density of each given part, given z and the parts before it, in nats; 0 for the others.
    expectations : dict of int to tensor of shape (n, n_draws, n_means)
        By part, its mean or the probabilities of its levels given z and the parts before it; 0 in rows where it is given.
    """

    parts: torch.Tensor
    log_prob: torch.Tensor
    expectations: dict[int, torch.Tensor]


@torch.no_grad()
def make_in_order(
    vae: VAE,
    z: torch.Tensor,
    generator: torch.Generator | None = None,
    x: torch.Tensor | None = None,
    given: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    *,
    centred: Collection[int] = (),
    uniform: torch.Tensor | None = None,
    with_expectations: bool = False,
    within_ranges: bool = True,
) -> Made:
    """`generate_in_order` with densities and expectations by part.

    Parameters
    ----------
    vae, z, generator, x, given, offset, centred
        See `generate_in_order`.
    uniform : tensor of shape (n, n_draws, n_dims), default=None
        Numbers between 0 and 1 that tell the draws of the first, second, … part of a row to be drawn, where the part's kind
        has a quantile function. `n_dims` is the largest number of such parts, or more.
    with_expectations : bool, default=False
        Whether expectations are kept.
    within_ranges : bool, default=True
        Whether parts are held within their ranges. Densities speak of a model without any.

    Returns
    -------
    made : Made
    """
    likelihood = vae.likelihood
    layout = likelihood.layout
    n, n_draws, _ = z.shape
    if given is None:
        given = z.new_full((n, layout.n_parts), torch.nan)

    reader = vae.begin(z, x)
    wanted = wanted_parts(layout, given)
    parts = given.nan_to_num().repeat_interleave(n_draws, 0)  # (n * n_draws, n_parts)
    expectations = {}
    offsets = None
    ranges = layout.ranges if within_ranges else ()
    # how many parts of a row have been drawn
    n_drawn = wanted.new_zeros(n, dtype=torch.long)

    for part in sorted(range(layout.n_parts), key=layout.rank.__getitem__):
        if not wanted[:, part].any():
            continue

        rows = _draws_of(wanted[:, part], n_draws)
        outputs = reader.outputs(part, rows)
        raised = _raised_outputs(likelihood, part)
        if len(raised):
            # the parts of the exposure come before all counts: they are there now
            if offsets is None:
                offsets = _offsets(layout, parts, offset, n_draws)
            outputs[:, raised] += offsets[rows, None]

        own = None
        if uniform is not None:
            position = n_drawn[:, None, None].expand(n, n_draws, 1)
            own = uniform.gather(2, position).flatten(0, 1)[rows]
            n_drawn += wanted[:, part]

        source = None if part in centred else generator
        block = likelihood.one(part, z)
        parts[rows, part] = _cells(block, outputs, ranges[part : part + 1], source, own)
        reader.take(part, parts, rows)

        if with_expectations:
            means = block.expectation(outputs)
            expected = z.new_zeros(n * n_draws, means.shape[-1])
            expected[rows] = means
            expectations[part] = expected.view(n, n_draws, -1)

    log_prob = z.new_zeros(n, n_draws, layout.n_parts)
    if x is not None:
        log_prob = _log_prob_of_given(likelihood, reader, x, given, parts, offset)

    return Made(parts.view(n, n_draws, -1), log_prob, expectations)


def _cells(
    block: Block,
    outputs: torch.Tensor,
    ranges: Ranges,
    generator: torch.Generator | None,
    uniform: torch.Tensor | None,
) -> torch.Tensor:
    """Cells of one part, shape (n,): drawn, or without a generator their means or most probable levels."""
    if generator is None:
        return _held(block.mean(outputs)[:, :1], ranges)[:, 0]
    if uniform is not None:
        return _held(block.draw_at(outputs, uniform, generator), ranges)[:, 0]

    return _drawn_within(block.draw, outputs, ranges, generator)[:, 0]


def _drawn_within(draw: Draw, outputs: torch.Tensor, ranges: Ranges, generator: torch.Generator) -> torch.Tensor:
    """Parts drawn from densities that are cut off at their ranges.

    What falls outside is drawn anew, and moved to the end of the range if it still does: a mixture that was learnt from few
    rows has draws now and then that lie far out, and cells drawn after them would follow.

    Parameters
    ----------
    draw : callable
        ``draw(outputs, generator)`` gives a tensor of shape (n, n_parts).
    outputs : tensor of shape (n, n_outputs)
    ranges : sequence of (float, float) of length n_parts
    generator : torch.Generator

    Returns
    -------
    parts : tensor of shape (n, n_parts)
    """
    parts = draw(outputs, generator)

    for _ in range(REDRAWS):
        outside = parts != _held(parts.clone(), ranges)
        rows = torch.nonzero(outside.any(1))[:, 0]
        if not len(rows):
            return parts
        parts[rows] = torch.where(outside[rows], draw(outputs[rows], generator), parts[rows])

    return _held(parts, ranges)


def _held(parts: torch.Tensor, ranges: Ranges) -> torch.Tensor:
    """Put parts, shape (n, n_parts), into their ranges, in place, and return them."""
    for part, (low, high) in enumerate(ranges):
        if low > -math.inf or high < math.inf:
            parts[:, part].clamp_(low, high)

    return parts


def wanted_parts(layout: Layout, given: torch.Tensor) -> torch.Tensor:
    """Which parts are to be drawn, tensor of bool of shape (n, n_parts): those that are not given.

    A part behind a gate that is given closed is not drawn either, for there is none.
    """
    wanted = torch.isnan(given)

    for part, gate in enumerate(layout.gate):
        if gate >= 0:
            open_level = layout.n_levels[gate - layout.n_numbers] - 1
            wanted[:, part] &= torch.isnan(given[:, gate]) | (given[:, gate] == open_level)

    return wanted


def _draws_of(rows: torch.Tensor, n_draws: int) -> slice | torch.Tensor:
    """Positions of the draws of the rows chosen by a mask: of all draws of all rows, row by row."""
    # a view is cheaper than a copy
    if rows.all():
        return slice(None)

    return torch.nonzero(rows.repeat_interleave(n_draws))[:, 0]


def _raised_outputs(likelihood: Likelihood, part: int) -> torch.Tensor:
    """Positions, among the outputs of a part, of those that a row's offset is added to; tensor of int of shape (n_raised,)."""
    # most tables have no exposure
    if not likelihood.raised:
        return torch.empty(0, dtype=torch.long)

    raised = torch.zeros(likelihood.n_outputs, dtype=torch.bool)
    for outputs in likelihood.raised:
        raised[outputs] = True

    return torch.nonzero(raised[likelihood.output_part == part])[:, 0]


def _offsets(layout: Layout, parts: torch.Tensor, given: torch.Tensor | None, n_draws: int) -> torch.Tensor:
    """Offsets of the counts.

    Parameters
    ----------
    layout : Layout
    parts : tensor of shape (n * n_draws, n_parts)
        Those of the exposure are there.
    given : tensor of shape (n,) or None
        Offsets that are given; NaN where they are told from `parts`.
    n_draws : int

    Returns
    -------
    offsets : tensor of shape (n * n_draws,)
    """
    if layout.exposure is None:
        raise ValueError("The layout has no exposure, so that there are no offsets.")

    drawn = torch.from_numpy(layout.exposure.offsets_of_parts(parts.cpu().double().numpy())).to(parts)
    if given is None:
        return drawn

    # the same for all draws of a row
    given = given.repeat_interleave(n_draws)

    return torch.where(torch.isnan(given), drawn, given)


def _log_prob_of_given(
    likelihood: Likelihood,
    reader: Reader,
    x: torch.Tensor,
    given: torch.Tensor,
    parts: torch.Tensor,
    offset: torch.Tensor | None,
) -> torch.Tensor:
    """Log density of each given part, shape (n, n_draws, n_parts), once the reader has taken all of them; 0 for the others."""
    n = len(x)
    n_draws = len(parts) // n
    if likelihood.raised:
        offsets = _offsets(likelihood.layout, parts, offset, n_draws)

    log_probs = []
    for draws in torch.arange(len(parts), device=x.device).split(ROWS_PER_CHUNK):
        rows = draws // n_draws
        outputs = reader.all_outputs(draws)  # (len(draws), n_outputs)
        for raised in likelihood.raised:
            outputs[:, raised] += offsets[draws, None]

        log_prob = likelihood.log_prob(x[rows], outputs)
        log_probs.append(torch.where(torch.isnan(given[rows]), 0.0, log_prob))

    return torch.cat(log_probs).view(n, n_draws, -1)
