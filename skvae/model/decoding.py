"""Cells drawn part after part, around parts that are given."""

import torch
from torch.nn import functional as F

from skvae.model.layers import ACTIVATIONS, n_units

ROWS_PER_CHUNK = 8192
"""Rows whose decoder outputs are held at a time for the densities of given parts."""


@torch.no_grad()
def generate_in_order(vae, z, generator=None, x=None, given=None, offset=None, *, centred=()):
    """`VAE.generate` for several z per row, part after part and all rows at once, around parts that are given.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, n_draws, latent_dim)
    generator : torch.Generator, default=None
    x : tensor of shape (n, layout.width), default=None
        The encoded rows, with zeros where a part is to be drawn.
    given : tensor of shape (n, n_columns), default=None
        Their known parts; NaN where one is to be drawn.
    offset : tensor of shape (n,), default=None
        Known offsets of the counts; NaN where the exposure is to be drawn.
    centred : collection of int, default=()
        Parts whose means are taken, even with a generator.

    Returns
    -------
    parts : tensor of shape (n, n_draws, n_columns)
        The given parts as they are, the others drawn (or their means or most probable levels). What stands behind a gate
        that is given closed is 0.
    log_prob : tensor of shape (n, n_draws)
        Sum of the log densities of the given parts, each given z and the parts before it, in nats.
    """
    layout, likelihood, (n, n_draws, _) = vae.likelihood.layout, vae.likelihood, z.shape
    given = z.new_full((n, layout.n_parts), torch.nan) if given is None else given
    read = (_OrderedReader if vae.autoregressive else _FactorizedReader)(vae, z, x)
    blocks = [(block, c) for block in likelihood.blocks for c in range(block.n_columns)]
    parts, raised = given.nan_to_num().repeat_interleave(n_draws, 0), None
    wanted = _wanted(layout, given)
    for i in sorted(range(layout.n_parts), key=lambda i: layout.rank[i]):
        if not wanted[:, i].any():
            continue
        rows = _draws_of(wanted[:, i], n_draws)
        outputs = read.outputs(i, rows)
        if i < layout.n_counts and layout.exposure is not None:
            # the parts of the exposure are there: they come before all counts
            raised = _offset(layout, parts, offset, n_draws) if raised is None else raised
            outputs = outputs + raised[rows, None]
        block = blocks[i][0].one(blocks[i][1]).to(z.device, z.dtype)
        part = (block.mean(outputs) if generator is None or i in centred else block.draw(outputs, generator))[:, 0]
        parts[rows, i] = part
        read.take(i, parts, rows)
    parts = parts.view(n, n_draws, -1)
    if x is None:
        return parts, z.new_zeros(n, n_draws)
    return parts, _log_prob_of_given(likelihood, read, x, given, parts, offset)


def _wanted(layout, given):
    """Which parts are to be drawn, shape (n, n_columns): those not given, but not what stands behind a gate given closed."""
    wanted = torch.isnan(given)
    for i, gate in enumerate(layout.gate):
        if gate >= 0:
            n_levels = layout.n_levels[gate - layout.n_numbers]
            wanted[:, i] &= torch.isnan(given[:, gate]) | (given[:, gate] == n_levels - 1)
    return wanted


def _draws_of(rows, n_draws):
    """Where the draws of the chosen rows stand, one row after the other: a slice, if these are all."""
    if rows.all():
        return slice(None)
    return torch.nonzero(rows.repeat_interleave(n_draws))[:, 0]


def _offset(layout, parts, known, n_draws):
    """Offsets of the counts, shape (n * n_draws,): as `known`, else those of the exposure among the `parts`."""
    drawn = torch.from_numpy(layout.exposure.offsets_of_parts(parts.cpu().double().numpy())).to(parts)
    if known is None:
        return drawn
    known = known.repeat_interleave(n_draws)
    return torch.where(torch.isnan(known), drawn, known)


def _log_prob_of_given(likelihood, read, x, given, parts, offset):
    """Log density of the given parts, shape (n, n_draws), once the decoder has read all of them."""
    layout, (n, n_draws, _) = likelihood.layout, parts.shape
    if layout.exposure is not None:
        offset = _offset(layout, parts.flatten(0, 1), offset, n_draws)[:, None]
    sums = []
    for draws in torch.arange(n * n_draws, device=x.device).split(ROWS_PER_CHUNK):
        rows, outputs = draws // n_draws, read.all_outputs(draws)
        if layout.exposure is not None:
            outputs[:, : layout.n_counts] += offset[draws]
        sums.append(torch.where(torch.isnan(given[rows]), 0.0, likelihood.log_prob(x[rows], outputs)).sum(1))
    return torch.cat(sums).view(n, n_draws)


class _FactorizedReader:
    """The outputs of each part from z alone."""

    def __init__(self, vae, z, x):
        self.all, self.part = vae.decode(z.flatten(0, 1)), vae.likelihood.output_part

    def outputs(self, i, rows):
        return self.all[rows][:, self.part == i]

    def all_outputs(self, rows):
        return self.all[rows]

    def take(self, i, parts, rows):
        """Nothing: later parts do not depend on it."""


class _OrderedReader:
    """The outputs of each part from z and the parts taken before.

    Only what they depend on is computed: the first layer's sums grow by each part taken, and of every layer the units of a
    higher degree, which stand behind the others, are left out.
    """

    def __init__(self, vae, z, x):
        self.decoder, self.layout = vae.decoder, vae.likelihood.layout
        self.input_part = torch.tensor(self.layout.input_parts)
        self.output_part = vae.likelihood.output_part
        first, latent_dim = self.decoder.layers[0], self.decoder.latent_dim
        sums = F.linear(z, first.weight[:, :latent_dim], first.bias)
        if x is not None:
            sums += F.linear(vae.inputs(x), first.weight[:, latent_dim:])[:, None]
        self.sums = sums.flatten(0, 1)

    def outputs(self, i, rows):
        activation, layers = ACTIVATIONS[self.decoder.activation], self.decoder.layers
        rank, n_ranks, out = self.layout.rank[i], self.layout.n_parts, torch.nonzero(self.output_part == i)[:, 0]
        if len(layers) == 1:
            return self.sums[rows][:, out]
        width = n_units(layers[0], rank, n_ranks)
        h = activation(self.sums[rows][:, :width])
        for layer in layers[1:-1]:
            width_in, width = width, n_units(layer, rank, n_ranks)
            h = activation(F.linear(h, layer.weight[:width, :width_in], layer.bias[:width]))
        return F.linear(h, layers[-1].weight[out, :width], layers[-1].bias[out])

    def all_outputs(self, rows):
        return self.decoder.after_first(self.sums[rows])

    def take(self, i, parts, rows):
        where = self.decoder.latent_dim + torch.nonzero(self.input_part == i)[:, 0]
        self.sums[rows] += _input_cells(self.layout, i, parts[rows]) @ self.decoder.layers[0].weight[:, where].t()


def _input_cells(layout, i, parts):
    """What an encoded row holds for the part `i` once it is drawn, in the order of its cells: (n, cells)."""
    value, categorical = parts[:, i], i >= layout.n_numbers
    if categorical:
        return F.one_hot(value.long(), layout.n_levels[i - layout.n_numbers]).to(value.dtype)
    there = torch.ones_like(value)
    if i < layout.n_counts:
        location, scale = layout.count_scales[i]
        value = (torch.log1p(value) - location) / scale
    elif layout.gate[i] >= 0:
        gate = layout.gate[i]
        there = (parts[:, gate] == layout.n_levels[gate - layout.n_numbers] - 1).to(value.dtype)
    cells = [value * there, there] if i in layout.flagged else [value]
    return torch.stack(cells, dim=1)
