"""Counts: Poisson, negative binomial, and negative binomial with extra zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from skvae.model.likelihoods.base import LOGIT_MAX, Block, Own, held

LOG_DISPERSION_MAX = 12.0
"""Log dispersions are held within plus and minus this, where their gradient is accurate."""

SMALLEST_MEAN = 1e-3
"""Training starts from no mean below it, so that a column of zeros has a log mean."""

INITIAL_ZERO_LOGIT = -2.0
"""Logit of the extra zero that training starts from, a probability of .12: far from 0 and 1, where the gradient vanishes."""


class Count(Block):
    """A block of counts, whose first outputs, one per column, are log means to which a row's offset is added."""

    section = "counts"

    @property
    def raised(self) -> slice:
        """slice : positions of the log means among the block's outputs."""
        return slice(0, self.n_columns)


def in_double(log_prob: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """A log mass in double precision, given back in that of the tensors: of a count of a million, terms of 1e7 nats cancel."""
    # some devices have no double precision
    if tensors[0].device.type == "mps":
        return log_prob(*tensors)
    return log_prob(*(tensor.double() for tensor in tensors)).to(tensors[0].dtype)


def poisson_quantile(uniform: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """The smallest count whose cumulative mass is at least `uniform`, elementwise; of the shape of `rate`."""
    counts = stats.poisson.ppf(uniform.detach().double().cpu().numpy(), rate.detach().double().cpu().numpy())
    return _or_mean(counts, rate)


def negative_binomial_quantile(uniform: torch.Tensor, mean: torch.Tensor, log_r: torch.Tensor) -> torch.Tensor:
    """The same of the negative binomial: see `negative_binomial_log_prob`."""
    r = torch.exp(log_r.detach().double()).cpu().numpy()
    p = r / (r + mean.detach().double().cpu().numpy())
    return _or_mean(stats.nbinom.ppf(uniform.detach().double().cpu().numpy(), r, p), mean)


def _or_mean(counts: np.ndarray, mean: torch.Tensor) -> torch.Tensor:
    # means of 1e15 and more have no quantile in double precision
    drawn = torch.from_numpy(np.asarray(counts)).to(mean)
    return torch.where(torch.isfinite(drawn), drawn, mean.round())


def poisson_log_prob(x: torch.Tensor, log_rate: torch.Tensor) -> torch.Tensor:
    """Log mass of Poisson(exp(log_rate)) at the count `x`, elementwise, in nats; shapes are broadcast."""
    return x * log_rate - torch.exp(log_rate) - torch.lgamma(x + 1)


class Poisson(Count):
    """Counts whose variance is their mean: the decoder's output is the log rate.

    Parameters
    ----------
    n_columns : int
    """

    name = "poisson"

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return in_double(poisson_log_prob, cells, held(outputs))

    def backward_(
        self,
        cells: torch.Tensor,
        outputs: torch.Tensor,
        observed: torch.Tensor | None,
        scale: torch.Tensor,
        total: torch.Tensor,
        own: Own,
        nll: torch.Tensor,
    ) -> None:
        """Gradient in place: see `Block.backward_`.

        Minus the log mass has the derivative rate - x by the log rate.
        """
        log_prob = poisson_log_prob(cells, outputs.clamp_(-LOGIT_MAX, LOGIT_MAX))
        outputs.exp_().sub_(cells).mul_(scale)

        # a missing cell is encoded as 0, which has a mass
        if observed is not None:
            log_prob.mul_(observed)
            outputs.mul_(observed)

        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Rate of each cell, shape (..., n_columns)."""
        return torch.exp(held(outputs))

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, shape (..., n_columns)."""
        rate = self.mean(outputs)

        return torch.poisson(rate.cpu(), generator=generator).to(rate.device)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        return poisson_quantile(uniform, torch.exp(held(outputs)))

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for counts of the given `mean`, shape (n_columns,)."""
        return torch.log(mean.clamp_min(SMALLEST_MEAN))


def negative_binomial_log_prob(x: torch.Tensor, log_mean: torch.Tensor, log_r: torch.Tensor) -> torch.Tensor:
    """Log mass of the negative binomial NB2 (Cameron & Trivedi, 2013, section 3.3.1) at the count `x`.

    Elementwise, in nats; shapes are broadcast. The mean is m = exp(log_mean), the variance m + m^2 / r with r = exp(log_r).
    """
    r = torch.exp(log_r)

    # log(r + m), finite where r + m is not
    log_total = torch.logaddexp(log_r, log_mean)

    return (
        torch.lgamma(x + r)
        - torch.lgamma(r)
        - torch.lgamma(x + 1)
        + r * (log_r - log_total)
        + x * (log_mean - log_total)
    )


def negative_binomial_backward_(
    x: torch.Tensor, log_mean: torch.Tensor, log_r: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overwrite `log_mean` by the derivative of *minus* the log mass by it, m (x + r) / (m + r) - x.

    Parameters
    ----------
    x, log_mean : tensor of shape (n_columns, n)
    log_r : tensor of shape (n_columns, 1)

    Returns
    -------
    log_prob : tensor of shape (n_columns, n)
        `negative_binomial_log_prob`, in nats.
    by_log_r : tensor of shape (n_columns, n)
        Its derivative by `log_r`, r (digamma(x + r) - digamma(r) + log(r / (r + m)) + 1 - (x + r) / (r + m)).
    """
    r = torch.exp(log_r)
    log_prob = negative_binomial_log_prob(x, log_mean, log_r)

    # m / (r + m), and 1 - share is r / (r + m)
    share = torch.sigmoid(log_mean - log_r)

    by_log_r = r * (
        torch.digamma(x + r) - torch.digamma(r) + F.logsigmoid(log_r - log_mean) + 1 - (x + r) * (1 - share) / r
    )
    torch.mul(share, x + r, out=log_mean).sub_(x)

    return log_prob, by_log_r


def draw_negative_binomial(mean: torch.Tensor, log_r: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One draw per mean, a Poisson count of a Gamma rate (Cameron & Trivedi, 2013), of the shape of `mean`."""
    # drawn on the CPU, where the generator is
    r = torch.exp(log_r).expand(mean.shape)
    gamma = torch._standard_gamma(r.cpu(), generator=generator).to(r.device)

    return torch.poisson((gamma * mean / r).cpu(), generator=generator).to(r.device)


class Dispersed(Count):
    """A block of counts whose log dispersion `log_r` is learnt per column.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self.limits = {"log_r": (-LOG_DISPERSION_MAX, LOG_DISPERSION_MAX)}
        self.log_r = nn.Parameter(torch.zeros(n_columns, dtype=torch.float32))


class NegativeBinomial(Dispersed):
    """Counts that vary more than Poisson's: the decoder's output is the log mean, the dispersion is learnt per column.

    The variance is ``mean + mean^2 / r`` with ``r = exp(log_r)`` (Cameron & Trivedi, 2013, NB2).

    Parameters
    ----------
    n_columns : int
    """

    name = "negative_binomial"

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return in_double(negative_binomial_log_prob, cells, held(outputs), self.log_r)

    def backward_(
        self,
        cells: torch.Tensor,
        outputs: torch.Tensor,
        observed: torch.Tensor | None,
        scale: torch.Tensor,
        total: torch.Tensor,
        own: Own,
        nll: torch.Tensor,
    ) -> None:
        """Gradient in place: see `Block.backward_` and `negative_binomial_backward_`."""
        log_r, log_r_grad = own["log_r"]
        outputs.clamp_(-LOGIT_MAX, LOGIT_MAX)
        log_prob, by_log_r = negative_binomial_backward_(cells, outputs, log_r[:, None])
        outputs.mul_(scale)

        # a missing cell is encoded as 0, which has a mass
        if observed is not None:
            log_prob.mul_(observed)
            by_log_r.mul_(observed)
            outputs.mul_(observed)

        torch.mv(by_log_r, scale, out=log_r_grad).neg_()
        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean of each cell, shape (..., n_columns)."""
        return torch.exp(held(outputs))

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, shape (..., n_columns)."""
        return draw_negative_binomial(self.mean(outputs), self.log_r, generator)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        return negative_binomial_quantile(uniform, torch.exp(held(outputs)), self.log_r)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for counts of the given `mean`, shape (n_columns,)."""
        return torch.log(mean.clamp_min(SMALLEST_MEAN))


def zero_inflated_log_prob(x: torch.Tensor, log_prob: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """Log mass of a count that is 0 with probability pi = sigmoid(logit), and else has the log mass `log_prob` at `x`.

    Elementwise, in nats (Lambert, 1992): log(pi + (1 - pi) exp(log_prob)) at 0, log(1 - pi) + log_prob elsewhere. Both are
    written over the common denominator 1 + exp(logit).
    """
    return torch.where(x == 0, torch.logaddexp(logit, log_prob), log_prob) - F.softplus(logit)


class ZeroInflatedNegativeBinomial(Dispersed):
    """Negative binomial counts beside extra zeros (Lambert, 1992, for Poisson counts; Lopez et al., 2018, for these).

    A cell is an extra zero with probability pi = sigmoid(logit), and else a count as in `NegativeBinomial`. Outputs are laid
    out as (2, n_columns): log means of the counts, then logits of the extra zeros. The dispersion is learnt per column.

    Parameters
    ----------
    n_columns : int
    """

    name = "zero_inflated_negative_binomial"

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self.n_outputs = 2 * n_columns

    @property
    def output_column(self) -> torch.Tensor:
        """See `Block`."""
        return torch.arange(self.n_columns).repeat(2)

    def _parameters_of(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log means of the counts and logits of the extra zeros, each of shape (..., n_columns)."""
        log_mean, logit = held(outputs).split(self.n_columns, dim=-1)

        return log_mean, logit

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log mass of each cell, shape (..., n_columns), in nats."""
        log_mean, logit = self._parameters_of(outputs)

        return zero_inflated_log_prob(cells, in_double(negative_binomial_log_prob, cells, log_mean, self.log_r), logit)

    def backward_(
        self,
        cells: torch.Tensor,
        outputs: torch.Tensor,
        observed: torch.Tensor | None,
        scale: torch.Tensor,
        total: torch.Tensor,
        own: Own,
        nll: torch.Tensor,
    ) -> None:
        """Gradient in place: see `Block.backward_` and `negative_binomial_backward_`.

        With q the probability that a cell is no extra zero given its value (1 above 0, sigmoid(log NB(0) - logit) at 0),
        minus the log mass has the derivative pi - (1 - q) by the logit, and q times that of the negative binomial by the
        log mean and by log_r.
        """
        log_r, log_r_grad = own["log_r"]
        outputs.clamp_(-LOGIT_MAX, LOGIT_MAX)

        # each (n_columns, n)
        log_mean, logit = outputs.split(self.n_columns)
        count_log_prob, by_log_r = negative_binomial_backward_(cells, log_mean, log_r[:, None])

        # q itself and not 1 - q, which would lose its digits where nearly all zeros are extra ones
        q = torch.sigmoid(count_log_prob - logit).masked_fill_(cells != 0, 1)
        log_prob = zero_inflated_log_prob(cells, count_log_prob, logit)

        by_log_r.mul_(q)
        log_mean.mul_(q)
        logit.sigmoid_().add_(q).sub_(1)
        outputs.mul_(scale)

        # a missing cell is encoded as 0, the very value that both sources have
        if observed is not None:
            log_prob.mul_(observed)
            by_log_r.mul_(observed)
            log_mean.mul_(observed)
            logit.mul_(observed)

        torch.mv(by_log_r, scale, out=log_r_grad).neg_()
        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean (1 - pi) m of each cell, shape (..., n_columns)."""
        log_mean, logit = self._parameters_of(outputs)

        return torch.exp(log_mean) * torch.sigmoid(-logit)

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, shape (..., n_columns)."""
        log_mean, logit = self._parameters_of(outputs)
        counts = draw_negative_binomial(torch.exp(log_mean), self.log_r, generator)

        uniform = torch.rand(logit.shape, generator=generator, dtype=logit.dtype)
        extra = uniform.to(logit.device) < torch.sigmoid(logit)

        return counts.masked_fill_(extra, 0)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        log_mean, logit = self._parameters_of(outputs)
        extra = torch.sigmoid(logit)

        # the extra zeros come first, and the other counts share the rest
        rest = ((uniform - extra) / (1 - extra)).clamp(0, 1 - torch.finfo(uniform.dtype).eps)
        counts = negative_binomial_quantile(rest, torch.exp(log_mean), self.log_r)
        return counts.masked_fill_(uniform < extra, 0)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for cells of the given `mean`, extra zeros included, shape (n_outputs,)."""
        logit = torch.full_like(mean, INITIAL_ZERO_LOGIT)

        # mean = (1 - pi) m, and log(1 - pi) = -softplus(logit)
        log_mean = torch.log(mean.clamp_min(SMALLEST_MEAN)) + F.softplus(logit)

        return torch.cat([log_mean, logit])
