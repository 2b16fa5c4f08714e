"""p(x_j | z), one class per kind of column, and their sum over the columns of a table.

Imports nothing else of the package. Each kind is a block of columns that stand side by side in the encoded matrix. It
says four things: how many decoder outputs it reads, the log density of a cell, the mean of a cell, and how one is
drawn; and, for the hand-written training step, the gradient of the summed log density. All formulas are in nats and are
stable at any finite decoder output.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
LOG_STD_MIN = math.log(1e-3)
"""Smallest log noise deviation of a ``"normal"`` column in units of the column's own deviation: columns that repeat each
other have no density, and a floor keeps it finite (`GaussianMixture` does so by ``reg_covar=1e-6``)."""


def normal_log_prob(x, mean, log_std):
    """Log density of N(mean, exp(log_std)^2) at `x`, elementwise, in nats."""
    return -0.5 * ((x - mean) * torch.exp(-log_std)) ** 2 - log_std - _HALF_LOG_2PI


def bernoulli_log_prob(x, logits):
    """Log mass ``x log p + (1 - x) log(1 - p)`` with ``p = sigmoid(logits)``, elementwise, in nats; x in [0, 1]."""
    return x * logits - F.softplus(logits)


class Normal(nn.Module):
    """Numbers with Gaussian noise: the mean is the decoder's output, the noise deviation is learnt per column.

    Parameters
    ----------
    n_columns : int

    Notes
    -----
    `backward_`, here and in the other kinds, is what `log_prob` is to autograd: given the cells `x` and the decoder's
    outputs, each (n, n_columns), the `scale` of each row in the loss, (n,), and its sum `total`, (), it overwrites the
    outputs by the loss's gradient, fills `grads` with that of the block's own parameters, and returns the loss by column,
    (n_columns,).
    """

    def __init__(self, n_columns):
        super().__init__()
        self.n_outputs = n_columns
        self.log_std = nn.Parameter(torch.zeros(n_columns))

    def log_prob(self, x, mean):
        """Log density of each cell, shape (..., n_columns), in nats of the encoded units."""
        return normal_log_prob(x, mean, self.log_std)

    def backward_(self, x, mean, scale, total, grads):
        """Overwrite `mean` by the gradient of ``sum(scale * -log_prob)`` and set that of `log_std`; the sum by column."""
        log_std = self.log_std.detach()
        precision = torch.exp(-log_std)
        r = mean.sub_(x).mul_(precision)
        squares = torch.mv((r * r).t(), scale)
        torch.sub(total, squares, out=grads["log_std"])
        r.mul_(precision).mul_(scale[:, None])
        return squares.mul_(0.5).addcmul_(log_std + _HALF_LOG_2PI, total)

    def mean(self, mean):
        """Mean of each cell, shape (..., n_columns)."""
        return mean

    def draw(self, mean, generator):
        """One draw of each cell, shape (..., n_columns)."""
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + torch.exp(self.log_std) * noise.to(mean.device)

    def initial_outputs(self, mean):
        """Decoder outputs whose mean is `mean`, shape (n_columns,): where training starts."""
        return mean

    @torch.no_grad()
    def project(self):
        """Keep the noise deviations above their floor, in place."""
        self.log_std.clamp_(min=LOG_STD_MIN)


class Bernoulli(nn.Module):
    """Cells in {0, 1} (or fractions between): the decoder's output is the logit of a one.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns):
        super().__init__()
        self.n_outputs = n_columns

    def log_prob(self, x, logits):
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return bernoulli_log_prob(x, logits)

    def backward_(self, x, logits, scale, total, grads):
        """Overwrite `logits` by the gradient of ``sum(scale * -log_prob)``, expected - observed; the sum by column."""
        nll = torch.mv(bernoulli_log_prob(x, logits).t(), scale).neg_()
        logits.sigmoid_().sub_(x).mul_(scale[:, None])
        return nll

    def mean(self, logits):
        """Probability of a one, shape (..., n_columns)."""
        return torch.sigmoid(logits)

    def draw(self, logits, generator):
        """One draw of each cell, 0 or 1, shape (..., n_columns)."""
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
        return (uniform.to(logits.device) < torch.sigmoid(logits)).to(logits.dtype)

    def initial_outputs(self, mean):
        """Logits whose mean is `mean`, shape (n_columns,), kept away from 0 and 1: where training starts."""
        return torch.logit(mean, eps=1e-3)

    def project(self):
        """Nothing to keep in range."""


KINDS = {"normal": Normal, "bernoulli": Bernoulli}


class Likelihood(nn.Module):
    """p(x | z) of a whole row: the product over its columns, each of its own kind.

    Parameters
    ----------
    counts : dict of str to int
        How many columns of each kind stand side by side in the encoded matrix, in order.
    """

    def __init__(self, counts):
        super().__init__()
        self.counts = dict(counts)
        self.blocks = nn.ModuleList(KINDS[kind](n) for kind, n in self.counts.items())
        self.n_columns = sum(self.counts.values())
        self.n_outputs = sum(block.n_outputs for block in self.blocks)

    def _each(self, outputs, x=None):
        """Triples (block, its outputs, its cells)."""
        widths = [block.n_outputs for block in self.blocks]
        cells = [None] * len(widths) if x is None else x.split(list(self.counts.values()), dim=-1)
        return zip(self.blocks, outputs.split(widths, dim=-1), cells, strict=True)

    def log_prob(self, x, outputs):
        """Log density of each cell of `x` given the decoder's `outputs`.

        Parameters
        ----------
        x : tensor of shape (..., n_columns)
        outputs : tensor of shape (..., n_outputs)

        Returns
        -------
        log_prob : tensor of shape (..., n_columns), in nats of the encoded units
        """
        return _side_by_side([block.log_prob(cells, out) for block, out, cells in self._each(outputs, x)], outputs)

    def mean(self, outputs):
        """Mean of each cell, shape (..., n_columns)."""
        return _side_by_side([block.mean(out) for block, out, _ in self._each(outputs)], outputs)

    def draw(self, outputs, generator):
        """One draw of each cell, shape (..., n_columns)."""
        return _side_by_side([block.draw(out, generator) for block, out, _ in self._each(outputs)], outputs)

    def initial_outputs(self, mean):
        """Decoder outputs, shape (n_outputs,), that give columns of the stated `mean`, shape (n_columns,)."""
        means = mean.split(list(self.counts.values()))
        return _side_by_side([block.initial_outputs(m) for block, m in zip(self.blocks, means, strict=True)], mean)

    def project(self):
        """Put parameters that an optimiser step took out of range back into it."""
        for block in self.blocks:
            block.project()


def _side_by_side(parts, like):
    """The parts side by side; a table of constants only has none, and `like` then has no columns either."""
    return torch.cat(parts, dim=-1) if parts else like
