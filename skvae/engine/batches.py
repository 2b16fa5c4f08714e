"""Training rows in batches: their order, and the noise that goes with them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch


class Batches:
    """The rows in batches of nearly equal size, each time in another order and with fresh noise.

    Parameters
    ----------
    x : tensor of shape (n, layout.width)
    weight : tensor of shape (n,) or None
    batch_size : int
        Rows of a batch, at most.
    noise_dim : int
        Number of normal draws for each row.
    generator : torch.Generator
        Source of orders and noise, on the CPU.

    Attributes
    ----------
    n_rows : int
        Rows of each batch but the last.
    """

    def __init__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        batch_size: int,
        noise_dim: int,
        generator: torch.Generator,
    ) -> None:
        self.x = x
        self.weight = weight
        self.noise_dim = noise_dim
        self.generator = generator

        # no last batch of a few rows
        self._n_batches = math.ceil(len(x) / batch_size)
        self.n_rows = math.ceil(len(x) / self._n_batches)

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]:
        """Rows, shape (n_rows, layout.width), their weights, shape (n_rows,), and noise, shape (noise_dim, n_rows)."""
        n = len(self.x)

        # drawn on the CPU, so that a seed means the same on every device
        order = torch.randperm(n, generator=self.generator).to(self.x.device)
        noise = torch.randn(self.noise_dim, n, generator=self.generator, dtype=self.x.dtype).to(self.x.device)

        for rows, own_noise in zip(order.split(self.n_rows), noise.split(self.n_rows, dim=1), strict=True):
            own_weight = None if self.weight is None else self.weight[rows]

            yield self.x.index_select(0, rows), own_weight, own_noise
