"""p(x_j | z), one class per kind of column, and their product over the columns of a table.

Imports nothing else of the package. Each kind is a block of columns that stand side by side in an encoded row. It says
five things: how many decoder outputs it reads, the log density of a cell, the mean (or most probable level) of a cell,
how one is drawn, and, for the hand-written training step, the gradient of the summed log density. All formulas are in
nats and are stable at any finite decoder output.
"""

import itertools
import math
from typing import ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_LOG2_E = math.log2(math.e)

LOG_STD_MIN = math.log(1e-3)
"""Smallest log noise deviation of a ``"normal"`` column in units of the column's own deviation: columns that repeat each
other have no density, and a floor keeps it finite (`GaussianMixture` does so by ``reg_covar=1e-6``)."""

LOGIT_MAX = 40.0
"""Logits of levels and log rates of counts are held within plus and minus this, so that their exponentials are finite."""

LOG_DISPERSION_MAX = 12.0

N_WAVES = 6
"""Cosines over the order of the levels that are values of one number: with them, neighbours learn together."""

OWN_SCALE = 0.3
"""Weight of such a level's logit of its own, which says how it differs from the curve and should learn the more slowly."""


def normal_log_prob(x, mean, log_std):
    """Log density of N(mean, exp(log_std)^2) at `x`, elementwise, in nats."""
    return -0.5 * ((x - mean) * torch.exp(-log_std)) ** 2 - log_std - _HALF_LOG_2PI


def bernoulli_log_prob(x, logits):
    """Log mass ``x log p + (1 - x) log(1 - p)`` with ``p = sigmoid(logits)``, elementwise, in nats; x in [0, 1]."""
    return x * logits - F.softplus(logits)


def poisson_log_prob(x, log_rate):
    """Log mass of Poisson(exp(log_rate)) at the count `x`, elementwise, in nats."""
    return x * log_rate - torch.exp(log_rate) - torch.lgamma(x + 1)


def negative_binomial_log_prob(x, log_mean, log_r):
    """Log mass of the negative binomial with mean m and variance m + m^2 / r at the count `x`, elementwise, in nats."""
    r = torch.exp(log_r)
    log_total = torch.logaddexp(log_r, log_mean)  # log(r + m)
    return (
        torch.lgamma(x + r)
        - torch.lgamma(r)
        - torch.lgamma(x + 1)
        + r * (log_r - log_total)
        + x * (log_mean - log_total)
    )


def held(outputs, low=-LOGIT_MAX, high=LOGIT_MAX):
    """Outputs held between two limits, straight through: a gradient that leads back inside is not cut off."""
    if not outputs.requires_grad:
        return outputs.clamp(low, high)
    return outputs.clamp(low, high).detach() + (outputs - outputs.detach())


def softmax_(logits):
    """Overwrite `logits` by their softmax along the first axis, and return its log normaliser, their log-sum-exp."""
    top = logits.amax(0)
    total = exp_(logits.sub_(top)).sum(0)
    logits.div_(total)
    return total.log_().add_(top)


def exp_(x):
    """Overwrite `x` by its exponential: `torch.exp2` takes a quarter of the time of `torch.exp` where that is MKL's."""
    return x.mul_(_LOG2_E).exp2_()


def cosines(n):
    """The first `N_WAVES` cosines over `n` places, tensor of shape (n, at most n - 1), each with a mean square of one."""
    places = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / max(n, 1)
    waves = math.sqrt(2) * torch.cos(math.pi * places * torch.arange(1, min(N_WAVES, max(n - 1, 0)) + 1))
    return waves.float()


class Kind(nn.Module):
    """A block of columns of one kind.

    Parameters
    ----------
    n_columns : int

    Notes
    -----
    `backward_` is what `log_prob` is to autograd, with the rows side by side. Given the `cells` (n_cells, n), the decoder's
    `outputs` (n_outputs, n), which cells are `known` (n_columns, n; None if all are), the `scale` of each row in the loss (n,)
    and its sum `total` (), it overwrites the outputs by the gradient of ``loss = sum(scale * -log_prob)`` and adds the loss
    by column to `nll`, (n_columns,). `own` has the values of the block's own parameters and where their gradients go, by
    name.
    """

    limits: ClassVar = {}
    """Lowest and highest value (None: no limit) of parameters, by name; an optimiser step is followed by `project`."""

    def __init__(self, n_columns):
        super().__init__()
        self.n_columns = self.n_cells = self.n_outputs = n_columns

    @property
    def output_column(self):
        """Tensor of int of shape (n_outputs,) : which of the block's columns each decoder output belongs to."""
        return torch.arange(self.n_columns)

    @property
    def cell_column(self):
        """Tensor of int of shape (n_cells,) : which of the block's columns each cell belongs to."""
        return torch.arange(self.n_columns)

    def one(self, column):
        """The same kind for one of the block's columns."""
        block = self._alone(column)
        for name, p in self.named_parameters():
            getattr(block, name).data = p.data[column : column + 1].clone()
        return block

    def _alone(self, column):
        return type(self)(1)

    def project(self):
        """Put parameters that an optimiser step took out of their limits back into them, in place."""
        for name, (low, high) in self.limits.items():
            getattr(self, name).data.clamp_(low, high)


class Normal(Kind):
    """Numbers with Gaussian noise: the mean is the decoder's output, the noise deviation is learnt per column."""

    limits: ClassVar = {"log_std": (LOG_STD_MIN, None)}

    def __init__(self, n_columns):
        super().__init__(n_columns)
        self.log_std = nn.Parameter(torch.zeros(n_columns, dtype=torch.float32))

    def log_prob(self, cells, mean):
        """Log density of each cell, shape (..., n_columns), in nats of the encoded units."""
        return normal_log_prob(cells, mean, self.log_std)

    def backward_(self, cells, mean, known, scale, total, own, nll):
        """See `Kind`."""
        log_std, log_std_grad = own["log_std"]
        precision = torch.exp(-log_std)[:, None]
        r = mean.sub_(cells).mul_(precision)
        if known is not None:
            r.mul_(known)
            total = known @ scale
        torch.addmv(total, r * r, scale, alpha=-1, out=log_std_grad)  # total - squares
        r.mul_(precision).mul_(scale)
        nll.addcmul_(log_std, total).add_(total, alpha=_HALF_LOG_2PI + 0.5).sub_(log_std_grad, alpha=0.5)

    def mean(self, mean):
        """Mean of each cell, shape (..., n_columns)."""
        return mean

    def draw(self, mean, generator):
        """One draw of each cell, shape (..., n_columns)."""
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + torch.exp(self.log_std) * noise.to(mean.device)

    def initial_outputs(self, mean):
        """Decoder outputs for cells of the stated `mean`, shape (n_cells,): where training starts."""
        return mean


class NormalMixture(Kind):
    """Numbers whose density is a mixture of normals: the decoder gives its logits, means and log deviations.

    Parameters
    ----------
    n_columns : int
    n_components : int
        Outputs are laid out as (3, n_components, n_columns): logits, means and log deviations.
    """

    def __init__(self, n_columns, n_components):
        super().__init__(n_columns)
        self.n_components = n_components
        self.n_outputs = 3 * n_columns * n_components

    @property
    def output_column(self):
        """See `Kind`."""
        return torch.arange(self.n_columns).repeat(3 * self.n_components)

    def _alone(self, column):
        return NormalMixture(1, self.n_components)

    def _parts(self, outputs):
        """Logits, means and log deviations, each of shape (..., n_components, n_columns)."""
        return outputs.unflatten(-1, (3, self.n_components, self.n_columns)).unbind(-3)

    def log_prob(self, cells, outputs):
        """Log density of each cell, shape (..., n_columns), in nats of the encoded units."""
        logits, means, log_stds = self._parts(outputs)
        log_probs = normal_log_prob(cells[..., None, :], means, held(log_stds, LOG_STD_MIN, -LOG_STD_MIN))
        return torch.logsumexp(logits + log_probs, dim=-2) - torch.logsumexp(logits, dim=-2)

    def backward_(self, cells, outputs, known, scale, total, own, nll):
        """See `Kind`. With r_k a component's share of the density and w_k its weight, minus the log density has the
        derivatives w_k - r_k, r_k (m_k - x) / s_k^2 and r_k (1 - (x - m_k)^2 / s_k^2) by logit, mean and log deviation."""
        logits, means, log_stds = outputs.view(3, self.n_components, *cells.shape)
        log_stds.clamp_(LOG_STD_MIN, -LOG_STD_MIN)
        precision = exp_(-log_stds)
        t = means.sub_(cells).mul_(precision)  # (m - x) / s
        squares = t * t
        share = torch.add(logits, squares, alpha=-0.5).sub_(log_stds)
        log_prob = softmax_(share).sub_(softmax_(logits))
        if known is not None:
            scale = scale * known
            total = scale.sum(1)
        share.mul_(scale)
        logits.mul_(scale).sub_(share)
        t.mul_(precision).mul_(share)
        torch.sub(share, squares.mul_(share), out=log_stds)
        nll.add_(total, alpha=_HALF_LOG_2PI).sub_(log_prob.mul_(scale).sum(1))

    def mean(self, outputs):
        """Mean of each cell, shape (..., n_columns)."""
        logits, means, _ = self._parts(outputs)
        return (torch.softmax(logits, dim=-2) * means).sum(-2)

    def draw(self, outputs, generator):
        """One draw of each cell, shape (..., n_columns)."""
        logits, means, log_stds = self._parts(outputs)
        gumbel = torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=generator).log_().neg_()
        k = (logits + gumbel.to(logits.device)).argmax(-2, keepdim=True)
        noise = torch.randn(k.shape, generator=generator, dtype=logits.dtype).to(logits.device)
        stds = torch.exp(log_stds.gather(-2, k).clamp(LOG_STD_MIN, -LOG_STD_MIN))
        return (means.gather(-2, k) + stds * noise).squeeze(-2)

    def initial_outputs(self, mean):
        """Decoder outputs that spread the components over the column, shape (n_outputs,)."""
        spread = (
            torch.linspace(-1.5, 1.5, self.n_components, dtype=mean.dtype)
            if self.n_components > 1
            else mean.new_zeros(1)
        )
        means = mean + spread[:, None]
        log_stds = torch.full_like(means, -0.5 if self.n_components > 1 else 0.0)
        return torch.stack([torch.zeros_like(means), means, log_stds]).flatten()


class Bernoulli(Kind):
    """Cells in {0, 1} (or fractions between): the decoder's output is the logit of a one."""

    def log_prob(self, cells, logits):
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return bernoulli_log_prob(cells, logits)

    def backward_(self, cells, logits, known, scale, total, own, nll):
        """See `Kind`; the gradient is expected - observed."""
        log_prob = bernoulli_log_prob(cells, logits)
        logits.sigmoid_().sub_(cells).mul_(scale)
        if known is not None:
            log_prob.mul_(known)
            logits.mul_(known)
        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, logits):
        """Probability of a one, shape (..., n_columns)."""
        return torch.sigmoid(logits)

    def draw(self, logits, generator):
        """One draw of each cell, 0 or 1, shape (..., n_columns)."""
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
        return (uniform.to(logits.device) < torch.sigmoid(logits)).to(logits.dtype)

    def initial_outputs(self, mean):
        """Decoder outputs for cells of the stated `mean`, kept away from 0 and 1, shape (n_cells,)."""
        return torch.logit(mean, eps=1e-3)


class Categorical(Kind):
    """One of several levels, the cells of a column being its levels one-hot; all 0 where it is missing.

    A level's logit is an output of its own. If levels are the ordered values of a number, that output counts less, and a
    smooth curve over their order is added, a sum of cosines (Ahmed, Natarajan & Rao, 1974) whose coefficients are outputs,
    too: a level may be rare, but its neighbours tell about it.

    Parameters
    ----------
    n_levels : sequence of int
        Number of levels of each column.
    n_ordered : sequence of int, default=None
        How many of its first levels are values in ascending order, of each column; None is 0 for all.
    """

    def __init__(self, n_levels, n_ordered=None):
        super().__init__(len(n_levels))
        self.n_levels, self.n_ordered = list(n_levels), list(n_ordered or [0] * len(n_levels))
        waves = [cosines(n) for n in self.n_ordered]
        columns = torch.arange(self.n_columns)
        self._cell_column = columns.repeat_interleave(torch.tensor(self.n_levels))
        n_waves = torch.tensor([each.shape[1] for each in waves])
        self._output_column = torch.cat([self._cell_column, columns.repeat_interleave(n_waves)])
        self.n_cells, self.n_outputs = len(self._cell_column), len(self._output_column)
        # by level: its column, whether that is the k-th one, its waves, and the weight of its own output
        waves = [F.pad(each, (0, 0, 0, n - len(each))) for each, n in zip(waves, self.n_levels, strict=True)]
        waves, member = torch.block_diag(*waves), F.one_hot(self._cell_column, self.n_columns).float()
        own = torch.where(waves.any(1), OWN_SCALE, 1.0).float()
        ends = itertools.accumulate(self.n_levels)
        places = [slice(end - n, end) for n, end in zip(self.n_levels, ends, strict=True)]
        self._curved = [place for place, n in zip(places, self.n_ordered, strict=True) if n > 1]
        for name, tensor in {"column": self._cell_column, "member": member, "waves": waves, "own": own}.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def output_column(self):
        """See `Kind`."""
        return self._output_column

    @property
    def cell_column(self):
        """See `Kind`."""
        return self._cell_column

    def _alone(self, column):
        alone = Categorical(self.n_levels[column : column + 1], self.n_ordered[column : column + 1])
        return alone.to(self.member.device, self.member.dtype)

    def _logits(self, outputs):
        """Logit of each level, shape (..., n_cells)."""
        logits, coefficients = outputs.split([self.n_cells, self.n_outputs - self.n_cells], dim=-1)
        if self._curved:
            logits = logits * self.own + coefficients @ self.waves.t()
            tops = [logits[..., place].detach().amax(-1, keepdim=True) for place in self._curved]
            for place, top in zip(self._curved, tops, strict=True):
                logits[..., place] -= top
        return held(logits)

    def _log_levels(self, outputs):
        """Log probability of each level, shape (..., n_cells)."""
        logits = self._logits(outputs)
        log_sums = torch.log(torch.exp(logits) @ self.member)
        return logits - log_sums.index_select(-1, self.column)

    def log_prob(self, cells, outputs):
        """Log mass of each column's level, shape (..., n_columns), in nats; 0 where it is missing."""
        return (cells * self._log_levels(outputs)) @ self.member

    def backward_(self, cells, outputs, known, scale, total, own, nll):
        """See `Kind`; the gradient by the logits is expected - observed, and nothing where all of a column's cells are 0."""
        logits, coefficients = outputs[: self.n_cells], outputs[self.n_cells :]
        if self._curved:
            logits.mul_(self.own[:, None]).addmm_(self.waves, coefficients)
            for place in self._curved:  # a curve that is cut off above would grow ever steeper
                logits[place] -= logits[place].amax(0)
        logits.clamp_(-LOGIT_MAX, LOGIT_MAX)
        chosen = torch.mv(cells * logits, scale) @ self.member
        probs = exp_(logits)
        sums, there = self.member.t() @ probs, self.member.t() @ cells
        log_sums = torch.mv(torch.log(sums).mul_(there), scale)
        probs.mul_(there.div_(sums).index_select(0, self.column)).sub_(cells).mul_(scale)
        nll.add_(log_sums).sub_(chosen)
        if self._curved:
            torch.mm(self.waves.t(), probs, out=coefficients)
            probs.mul_(self.own[:, None])

    def mean(self, outputs):
        """Position of the most probable level of each column, shape (..., n_columns)."""
        parts = self._logits(outputs).split(self.n_levels, dim=-1)
        return torch.stack([part.argmax(-1) for part in parts], dim=-1).to(outputs.dtype)

    def draw(self, outputs, generator):
        """Position of a drawn level of each column, shape (..., n_columns)."""
        uniform = torch.rand(*outputs.shape[:-1], self.n_columns, generator=generator, dtype=outputs.dtype)
        parts, positions = self._logits(outputs).split(self.n_levels, dim=-1), []
        for part, u in zip(parts, uniform.to(outputs.device).split(1, dim=-1), strict=True):
            cumulative = torch.softmax(part, dim=-1).cumsum(-1)
            positions.append(torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True))
        return torch.cat(positions, dim=-1).to(outputs.dtype)

    def initial_outputs(self, mean):
        """Decoder outputs for levels of the stated shares, shape (n_outputs,)."""
        logits = torch.log(mean.clamp_min(1e-3))
        return torch.cat([logits / self.own.to(mean), mean.new_zeros(self.n_outputs - self.n_cells)])


class Poisson(Kind):
    """Counts whose variance is their mean: the decoder's output is the log rate."""

    def log_prob(self, cells, log_rate):
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return poisson_log_prob(cells, held(log_rate))

    def backward_(self, cells, log_rate, known, scale, total, own, nll):
        """See `Kind`; the gradient is expected - observed."""
        log_prob = poisson_log_prob(cells, log_rate.clamp_(-LOGIT_MAX, LOGIT_MAX))
        log_rate.exp_().sub_(cells).mul_(scale)
        if known is not None:
            log_prob.mul_(known)
            log_rate.mul_(known)
        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, log_rate):
        """Rate of each cell, shape (..., n_columns)."""
        return torch.exp(held(log_rate))

    def draw(self, log_rate, generator):
        """One draw of each cell, shape (..., n_columns)."""
        rate = self.mean(log_rate)
        return torch.poisson(rate.cpu(), generator=generator).to(rate.device)

    def initial_outputs(self, mean):
        """Decoder outputs for counts of the stated `mean`, shape (n_cells,)."""
        return torch.log(mean.clamp_min(1e-3))


class NegativeBinomial(Kind):
    """Counts that vary more than Poisson's: the decoder's output is the log mean, the dispersion is learnt per column.

    The variance is ``mean + mean^2 / r`` with ``r = exp(log_r)`` (Cameron & Trivedi, 2013, NB2).
    """

    limits: ClassVar = {"log_r": (-LOG_DISPERSION_MAX, LOG_DISPERSION_MAX)}  # within which the gradient is accurate

    def __init__(self, n_columns):
        super().__init__(n_columns)
        self.log_r = nn.Parameter(torch.zeros(n_columns, dtype=torch.float32))

    def log_prob(self, cells, log_mean):
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return negative_binomial_log_prob(cells, held(log_mean), self.log_r)

    def backward_(self, cells, log_mean, known, scale, total, own, nll):
        """See `Kind`."""
        log_r, log_r_grad = own["log_r"]
        log_r = log_r[:, None]
        r = torch.exp(log_r)
        log_mean.clamp_(-LOGIT_MAX, LOGIT_MAX)
        log_prob = negative_binomial_log_prob(cells, log_mean, log_r)
        share = torch.sigmoid(log_mean - log_r)  # m / (r + m)
        by_r = r * (
            torch.digamma(cells + r)
            - torch.digamma(r)
            + F.logsigmoid(log_r - log_mean)
            + 1
            - (cells + r) * (1 - share) / r
        )
        torch.mul(share, cells + r, out=log_mean).sub_(cells).mul_(scale)
        if known is not None:
            log_prob.mul_(known)
            by_r.mul_(known)
            log_mean.mul_(known)
        torch.mv(by_r, scale, out=log_r_grad).neg_()
        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, log_mean):
        """Mean of each cell, shape (..., n_columns)."""
        return torch.exp(held(log_mean))

    def draw(self, log_mean, generator):
        """One draw of each cell, a Poisson count of a Gamma rate, shape (..., n_columns)."""
        r = torch.exp(self.log_r).expand(log_mean.shape)
        gamma = torch._standard_gamma(r.cpu(), generator=generator).to(r.device)
        return torch.poisson((gamma * self.mean(log_mean) / r).cpu(), generator=generator).to(r.device)

    def initial_outputs(self, mean):
        """Decoder outputs for counts of the stated `mean`, shape (n_cells,)."""
        return torch.log(mean.clamp_min(1e-3))


KINDS = {
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "normal": Normal,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
}


class Place(NamedTuple):
    """A block of parts, and the positions of its parts, of its cells in an encoded row, and of its decoder outputs."""

    block: Kind
    parts: slice
    cells: slice
    outputs: slice


class Likelihood(nn.Module):
    """p(x | z) of a whole row: the product over its columns, each of its own kind.

    Parameters
    ----------
    layout : Layout
        Where the cells of each column stand in an encoded row.
    n_components : int, default=0
        Normal components of each number, all of them read from the decoder. 0 is a single one whose deviation is learnt per
        column and does not depend on z.
    """

    def __init__(self, layout, n_components=0):
        super().__init__()
        self.layout, self.n_components = layout, n_components
        self.blocks = nn.ModuleList(self._block(kind, n) for kind, n in layout.kinds)
        self.n_parts = layout.n_parts
        self.n_outputs = sum(block.n_outputs for block in self.blocks)
        self.places = self._find_places()

    def _block(self, kind, n):
        if kind == "categorical":
            return Categorical(self.layout.n_levels, self.layout.n_ordered)
        if kind == "normal" and self.n_components:
            return NormalMixture(n, self.n_components)
        return KINDS[kind](n)

    @property
    def output_part(self):
        """Tensor of int of shape (n_outputs,) : the part that each decoder output belongs to."""
        parts = [place.block.output_column + place.parts.start for place in self.places]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)

    def _find_places(self):
        """A `Place` for each block."""
        places = []
        part = 0
        output = 0
        for (kind, n), block in zip(self.layout.kinds, self.blocks, strict=True):
            if kind == "categorical":
                first = self.layout.first_level
            elif kind in ("poisson", "negative_binomial"):
                first = part
            else:
                first = self.layout.first_number + part
            cells = slice(first, first + block.n_cells)
            outputs = slice(output, output + block.n_outputs)
            places.append(Place(block, slice(part, part + n), cells, outputs))
            part += n
            output += block.n_outputs
        return places

    @property
    def raised(self):
        """tuple of slice : the decoder outputs that a row's offset is added to."""
        return (slice(0, self.layout.n_counts),) if self.layout.exposure is not None else ()

    def log_prob(self, x, outputs):
        """Log density of each cell of `x` given the decoder's `outputs`.

        Parameters
        ----------
        x : tensor of shape (..., layout.width)
            Encoded rows.
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        log_prob : tensor of shape (..., n_columns)
            In nats of the encoded units; 0 for a missing cell of a column that had missing cells at fit.
        """
        parts = [place.block.log_prob(x[..., place.cells], outputs[..., place.outputs]) for place in self.places]
        log_prob = _side_by_side(parts, outputs)
        if not self.layout.flagged:
            return log_prob

        observed = x.new_ones(*x.shape[:-1], self.n_parts)
        observed[..., list(self.layout.flagged)] = x[..., self.layout.first_flag : self.layout.first_level]
        return log_prob * observed

    def mean(self, outputs):
        """Mean, or position of the most probable level, of each cell, shape (..., n_columns)."""
        return _side_by_side([place.block.mean(outputs[..., place.outputs]) for place in self.places], outputs)

    def draw(self, outputs, generator):
        """One draw of each cell, shape (..., n_columns)."""
        return _side_by_side([place.block.draw(outputs[..., place.outputs], generator) for place in self.places], outputs)

    def initial_outputs(self, mean):
        """Decoder outputs, shape (n_outputs,), for encoded rows whose mean is `mean`, shape (layout.width,)."""
        parts = [place.block.initial_outputs(mean[place.cells]) for place in self.places]
        return _side_by_side(parts, mean.new_empty(0))

    def project(self):
        """Put parameters that an optimiser step took out of range back into it."""
        for block in self.blocks:
            block.project()


def _side_by_side(parts, like):
    """The parts side by side; a table of constants only has none, and `like` then has no columns either."""
    return torch.cat(parts, dim=-1) if parts else like
