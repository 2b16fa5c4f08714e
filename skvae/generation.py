"""Cells drawn part after part, around parts that are given."""

import torch
from torch.nn import functional as F

from skvae.layers import ACTIVATIONS, n_units


@torch.no_grad()
def generate_in_order(vae, z, generator=None, given=None, offset=None, *, centred=()):
    """`VAE.generate`, part after part and all rows at once, around parts that are given.

    Parameters
    ----------
    vae : VAE
    z : tensor of shape (n, latent_dim)
    generator : torch.Generator, default=None
    given : tensor of shape (n, n_columns), default=None
        Known parts; NaN where one is to be drawn.
    offset : tensor of shape (n,), default=None
        Known offsets of the counts; NaN where the exposure is to be drawn.
    centred : collection of int, default=()
        Parts whose means are taken, even with a generator.

    Returns
    -------
    parts : tensor of shape (n, n_columns)
        The given parts as they are, the others drawn (or their means or most probable levels).
    log_prob : tensor of shape (n,)
        Sum of the log densities of the given parts, each given z and the parts before it, in nats.
    """
    layout, likelihood = vae.likelihood.layout, vae.likelihood
    read = _OrderedReader(vae, z) if vae.autoregressive else _FactorizedReader(vae, z)
    blocks = [(block, c) for block in likelihood.blocks for c in range(block.n_columns)]
    parts, log_prob, raised = z.new_zeros(len(z), layout.n_columns), z.new_zeros(len(z)), None
    for i in sorted(range(layout.n_columns), key=lambda i: layout.rank[i]):
        outputs = read.outputs(i)
        if i < layout.n_counts and layout.exposure is not None:
            # the parts of the exposure are there: they come before all counts
            raised = _offset(layout, parts, offset) if raised is None else raised
            outputs = outputs + raised[:, None]
        block = blocks[i][0].one(blocks[i][1]).to(z.device, z.dtype)
        part = (block.mean(outputs) if generator is None or i in centred else block.draw(outputs, generator))[:, 0]
        if given is not None:
            known = ~torch.isnan(given[:, i])
            part = torch.where(known, given[:, i], part)
            cells = part[:, None]
            if i >= layout.n_numbers:
                cells = F.one_hot(part.long(), block.n_cells).to(z.dtype)
            log_prob += torch.where(known, block.log_prob(cells, outputs)[:, 0], 0.0)
        parts[:, i] = part
        read.take(i, parts)
    return parts, log_prob


def _offset(layout, parts, known):
    """Offsets of the counts, shape (n,): as `known`, else those of the exposure among the `parts`."""
    drawn = torch.from_numpy(layout.exposure.offsets_of_parts(parts.cpu().double().numpy())).to(parts)
    return drawn if known is None else torch.where(torch.isnan(known), drawn, known)


class _FactorizedReader:
    """The outputs of each part from z alone."""

    def __init__(self, vae, z):
        self.all, self.part = vae.decode(z), vae.likelihood.output_part

    def outputs(self, i):
        return self.all[:, self.part == i]

    def take(self, i, parts):
        """Nothing: later parts do not depend on it."""


class _OrderedReader:
    """The outputs of each part from z and the parts taken before.

    Only what they depend on is computed: the first layer's sums grow by each part taken, and of every layer the units of a
    higher degree, which stand behind the others, are left out.
    """

    def __init__(self, vae, z):
        self.decoder, self.layout = vae.decoder, vae.likelihood.layout
        self.input_part = torch.tensor(self.layout.input_parts)
        self.output_part = vae.likelihood.output_part
        first = self.decoder.layers[0]
        self.sums = F.linear(z, first.weight[:, : self.decoder.latent_dim], first.bias)

    def outputs(self, i):
        activation, layers = ACTIVATIONS[self.decoder.activation], self.decoder.layers
        rank, n_ranks, out = self.layout.rank[i], self.layout.n_columns, torch.nonzero(self.output_part == i)[:, 0]
        if len(layers) == 1:
            return self.sums[:, out]
        width = n_units(layers[0], rank, n_ranks)
        h = activation(self.sums[:, :width])
        for layer in layers[1:-1]:
            width_in, width = width, n_units(layer, rank, n_ranks)
            h = activation(F.linear(h, layer.weight[:width, :width_in], layer.bias[:width]))
        return F.linear(h, layers[-1].weight[out, :width], layers[-1].bias[out])

    def take(self, i, parts):
        where = self.decoder.latent_dim + torch.nonzero(self.input_part == i)[:, 0]
        self.sums.addmm_(_input_cells(self.layout, i, parts), self.decoder.layers[0].weight[:, where].t())


def _input_cells(layout, i, parts):
    """What an encoded row holds for the part `i` once it is drawn, in the order of its cells: (n, cells)."""
    value, categorical = parts[:, i], i >= layout.n_numbers
    if categorical:
        return F.one_hot(value.long(), layout.n_levels[i - layout.n_numbers]).to(value.dtype)
    there = torch.ones_like(value)
    if i < layout.n_counts:
        location, scale = layout.count_ranges[i]
        value = (torch.log1p(value) - location) / scale
    elif layout.gate[i] >= 0:
        gate = layout.gate[i]
        there = (parts[:, gate] == layout.n_levels[gate - layout.n_numbers] - 1).to(value.dtype)
    cells = [value * there, there] if i in layout.known else [value]
    return torch.stack(cells, dim=1)
