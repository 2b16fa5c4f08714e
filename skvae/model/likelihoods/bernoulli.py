"""Cells in {0, 1}: the Bernoulli distribution."""

import torch
from torch.nn import functional as F

from skvae.model.likelihoods.base import Block, Own


def bernoulli_log_prob(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Log mass ``x log p + (1 - x) log(1 - p)`` with ``p = sigmoid(logits)``, elementwise, in nats.

    `x` is in [0, 1]: a fraction stands for a share of ones. Shapes are broadcast.
    """
    return x * logits - F.softplus(logits)


class Bernoulli(Block):
    """Cells in {0, 1}, or fractions between them: the decoder's output is the logit of a one.

    Parameters
    ----------
    n_columns : int
    """

    name = "bernoulli"
    section = "numbers"

    def log_prob(self, cells: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Log mass of each cell, shape (..., n_columns), in nats."""
        return bernoulli_log_prob(cells, outputs)

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

        Minus the log mass has the derivative p - x by the logit.
        """
        log_prob = bernoulli_log_prob(cells, outputs)
        outputs.sigmoid_().sub_(cells).mul_(scale)

        # a missing cell is encoded as 0, which has a mass
        if observed is not None:
            log_prob.mul_(observed)
            outputs.mul_(observed)

        nll.addmv_(log_prob, scale, alpha=-1)

    def mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Probability of a one, shape (..., n_columns)."""
        return torch.sigmoid(outputs)

    def draw(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of each cell, 0 or 1, shape (..., n_columns)."""
        uniform = torch.rand(outputs.shape, generator=generator, dtype=outputs.dtype)

        return self.draw_at(outputs, uniform.to(outputs.device), generator)

    def draw_at(self, outputs: torch.Tensor, uniform: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `Block.draw_at`."""
        ones = uniform < torch.sigmoid(outputs)

        return ones.to(outputs.dtype)

    def initial_outputs(self, mean: torch.Tensor) -> torch.Tensor:
        """Decoder outputs for cells of the given `mean`, shape (n_columns,)."""
        # kept away from 0 and 1, whose logits are infinite
        return torch.logit(mean, eps=1e-3)
