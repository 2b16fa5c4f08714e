"""Training rows in batches: their order, and the noise that goes with them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
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

        self.begin()

        # drawn on the CPU, so that a seed means the same on every device
        order = torch.randperm(n, generator=self.generator).to(self.x.device)
        noise = torch.randn(self.noise_dim, n, generator=self.generator, dtype=self.x.dtype).to(self.x.device)

        for rows, own_noise in zip(self.cut(order, 0), self.cut(noise, 1), strict=True):
            own_weight = None if self.weight is None else self.weight[rows]

            yield self.x.index_select(0, rows), own_weight, own_noise

    def begin(self) -> None:
        """What comes before each epoch."""

    def cut(self, tensor: torch.Tensor, dim: int) -> tuple[torch.Tensor, ...]:
        """A tensor of all rows in pieces, one for each batch."""
        return tensor.split(self.n_rows, dim=dim)

    def go_on(self, n_epochs: int) -> None:
        """Go on after so many epochs, with the generator where it stood."""


class OwnBatches(Batches):
    """The rows that one of several processes has, in as many batches as the others have.

    What an epoch draws follows from its number, so that a process that goes on need not know where another one stood.

    Parameters
    ----------
    x, weight, noise_dim, generator
        As for `Batches`.
    n_batches : int
        At most the number of rows.
    """

    def __init__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        n_batches: int,
        noise_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(x, weight, math.ceil(len(x) / n_batches), noise_dim, generator)
        self._n_batches = n_batches
        self._seed = generator.initial_seed()
        self._epoch = 0

    def begin(self) -> None:
        """Let the generator begin anew, with a seed of the epoch's own."""
        seed = np.random.SeedSequence((self._seed, self._epoch)).generate_state(1)
        self.generator.manual_seed(int(seed[0]))
        self._epoch += 1

    def cut(self, tensor: torch.Tensor, dim: int) -> tuple[torch.Tensor, ...]:
        """Pieces of sizes that differ by 1, at most."""
        return tensor.tensor_split(self._n_batches, dim=dim)

    def go_on(self, n_epochs: int) -> None:
        """Go on after so many epochs."""
        self._epoch = n_epochs
