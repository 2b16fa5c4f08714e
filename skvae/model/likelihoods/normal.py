"""Numbers: a normal density with a deviation learnt per column, and a mixture of normals read from the decoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from skvae.model.likelihoods.base import LOG2_E, Block, Own, exp_, held, log_sum_exp, softmax_

if TYPE_CHECKING:
    from skvae.table.layout import Layout

LOG_STD_MIN = math.log(1e-3)
"""Smallest log noise deviation of a ``"normal"`` column, in units of the column's own deviation.

Columns that repeat each other have no density; a floor keeps it finite (`GaussianMixture` does so by ``reg_covar=1e-6``).
"""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normal_log_prob(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log density of N(mean, exp(log_std)^2) at `x`, elementwise, in nats; shapes are broadcast."""
    return -0.5 * ((x - mean) * torch.exp2(-LOG2_E * log_std)) ** 2 - log_std - _HALF_LOG_2PI


class Normal(Block):
    """Numbers with Gaussian noise: the decoder's output is the mean, the noise deviation is learnt per column.

    Parameters
    ----------
    n_columns : int
    """

    name = "normal"
    section = "numbers"

    def __init__(self, n_columns: int) -> None:
        super().__init__(n_columns)
        self.limits = {"log_std": (LOG_STD_MIN, None)}
        self.log_std = nn.Parameter(torch.zeros(n_columns, dtype=torch.float32))

    @classmethod
    def for_layout(cls, layout: Layout, n_columns: int, n_components: int) -> Block:
        """A mixture of normals if there are components, else a single normal: see `Block.for_layout`."""
        if n_components > 0:
            return NormalMixture(n_columns, n_components)

        return cls(n_columns)

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log density of each cell, shape (..., n_columns), in nats of the encoded units."""
        return normal_log_prob(cells, outputs, self.log_std)

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

        With s = exp(log_std) and t = (mean - x) / s, minus the log density has the derivatives t / s by the mean and
        1 - t^2 by log_std.
        """
        log_std, log_std_grad = own["log_std"]
        precision = torch.exp(-log_std)[:, None]
        t = outputs.sub_(cells).mul_(precision)

        # a missing cell weighs nothing; the total weight then differs by column, (n_columns,)
        if observed is not None:
            t.mul_(observed)
            total = observed @ scale

        torch.addmv(total, t * t, scale, alpha=-1, out=log_std_grad)
        t.mul_(precision).mul_(scale)

        # the sum of scale * t^2 / 2 is (total - log_std_grad) / 2
        nll.addcmul_(log_std, total).add_(total, alpha=_HALF_LOG_2PI + 0.5).sub_(log_std_grad, alpha=0.5)

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean of each cell, shape (..., n_columns)."""
        return outputs

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, shape (..., n_columns)."""
        noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)

        return outputs + torch.exp(self.log_std) * noise.to(outputs.device)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        return outputs + torch.exp(self.log_std) * torch.special.ndtri(uniform)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for cells of the given `mean`, shape (n_columns,)."""
        return mean


class NormalMixture(Block):
    """Numbers whose density is a mixture of normals (Bishop, 1994): the decoder gives all of its parameters.

    Outputs are laid out as (3, n_components, n_columns): logits of the weights, means and log deviations. It is no kind of
    its own: a ``"normal"`` column has it under a decoder that asks for components.

    Parameters
    ----------
    n_columns : int
    n_components : int
    """

    section = "numbers"

    def __init__(self, n_columns: int, n_components: int) -> None:
        super().__init__(n_columns)
        self.n_components = n_components
        self.n_outputs = 3 * n_columns * n_components

    @property
    def output_column(self) -> torch.Tensor:
        """See `Block`."""
        return torch.arange(self.n_columns).repeat(3 * self.n_components)

    def _alone(self, column: int) -> Block:
        return NormalMixture(1, self.n_components)

    def _parameters_of(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits, means and log deviations, each of shape (..., n_components, n_columns)."""
        logits, means, log_stds = outputs.unflatten(-1, (3, self.n_components, self.n_columns)).unbind(-3)

        return logits, means, log_stds

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log density of each cell, shape (..., n_columns), in nats of the encoded units."""
        logits, means, log_stds = self._parameters_of(outputs)
        log_probs = normal_log_prob(cells[..., None, :], means, held(log_stds, LOG_STD_MIN, -LOG_STD_MIN))

        return log_sum_exp(logits + log_probs, dim=-2) - log_sum_exp(logits, dim=-2)

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

        With r_k a component's share of the density, w_k its weight and t_k = (m_k - x) / s_k, minus the log density has the
        derivatives w_k - r_k by the logit, r_k t_k / s_k by the mean and r_k (1 - t_k^2) by the log deviation.
        """
        # each (n_components, n_columns, n)
        logits, means, log_stds = outputs.view(3, self.n_components, *cells.shape)
        log_stds.clamp_(LOG_STD_MIN, -LOG_STD_MIN)
        precision = exp_(-log_stds)
        t = means.sub_(cells).mul_(precision)
        squares = t * t

        # softmax_ works in place: from here on `logits` are the weights w, and `share` is r
        share = torch.add(logits, squares, alpha=-0.5).sub_(log_stds)
        log_prob = softmax_(share).sub_(softmax_(logits))

        # a missing cell weighs nothing; the scale is now (n_columns, n)
        if observed is not None:
            scale = scale * observed
            total = scale.sum(1)

        share.mul_(scale)
        logits.mul_(scale).sub_(share)
        t.mul_(precision).mul_(share)
        torch.sub(share, squares.mul_(share), out=log_stds)

        nll.add_(total, alpha=_HALF_LOG_2PI).sub_(log_prob.mul_(scale).sum(1))

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean of each cell, shape (..., n_columns)."""
        logits, means, _ = self._parameters_of(outputs)

        return (torch.softmax(logits, dim=-2) * means).sum(-2)

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, shape (..., n_columns)."""
        logits, means, log_stds = self._parameters_of(outputs)

        # the largest of logits plus Gumbel noise is a draw of the component (Gumbel, 1954)
        gumbel = torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=generator).log_().neg_()
        k = (logits + gumbel.to(logits.device)).argmax(-2, keepdim=True)

        noise = torch.randn(k.shape, generator=generator, dtype=logits.dtype).to(logits.device)
        stds = torch.exp(log_stds.gather(-2, k).clamp(LOG_STD_MIN, -LOG_STD_MIN))

        return (means.gather(-2, k) + stds * noise).squeeze(-2)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`: the component whose share the number falls into, at the quantile of its place there."""
        logits, means, log_stds = self._parameters_of(outputs)
        weights = exp_(logits - logits.amax(-2, keepdim=True))
        upper = weights.cumsum(-2)  # (..., n_components, n_columns)

        # the last sum is the largest, so that one component is always found
        point = uniform[..., None, :] * upper[..., -1:, :]
        k = (point >= upper).sum(-2, keepdim=True).clamp_max(self.n_components - 1)

        weight = weights.gather(-2, k)
        place = 1 - (upper.gather(-2, k) - point) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        edge = torch.finfo(place.dtype).eps
        quantile = torch.special.ndtri(place.clamp(edge, 1 - edge))
        stds = torch.exp(log_stds.gather(-2, k).clamp(LOG_STD_MIN, -LOG_STD_MIN))

        return (means.gather(-2, k) + stds * quantile).squeeze(-2)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs that spread the components over each column, shape (n_outputs,)."""
        spread = mean.new_zeros(1)
        log_std = 0.0

        if self.n_components > 1:
            spread = torch.linspace(-1.5, 1.5, self.n_components, dtype=mean.dtype)
            log_std = -0.5

        # (n_components, n_columns)
        means = mean + spread[:, None]
        log_stds = torch.full_like(means, log_std)

        return torch.stack([torch.zeros_like(means), means, log_stds]).flatten()
