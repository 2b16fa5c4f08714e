"""The processes that train one network together: one by itself, or the ranks of a group of `torch.distributed`.

Every rank has rows of its own and a copy of the network. A step is one all-reduce: of the mean gradients of the ranks'
batches, each counted by the share that the rank has of all rows. All ranks then take the same step, and so stay the same.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed

from skvae.engine.batches import Batches, OwnBatches
from skvae.exceptions import LostRankError

T = TypeVar("T")


class Alone:
    """One process that trains by itself: it has all rows, and nobody to ask.

    Attributes
    ----------
    is_alone : bool
    """

    is_alone = True

    def generator(self, seed: int) -> torch.Generator:
        """Where the order of the rows and the noise come from."""
        return torch.Generator().manual_seed(seed)

    def batches(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        batch_size: int,
        noise_dim: int,
        generator: torch.Generator,
    ) -> Batches:
        """The rows of this process in batches."""
        return Batches(x, weight, batch_size, noise_dim, generator)

    def n_rows(self, n: int) -> int:
        """Rows of a batch of which this process has `n`."""
        return n

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor of means by means over the rows of all."""

    def sums(self, *values: float) -> list[float]:
        """Sums over all processes."""
        return list(values)

    def any(self, value: object) -> bool:
        """Whether it is true of any process."""
        return bool(value)

    def start_alike(self, network: torch.nn.Module) -> None:
        """Let all processes start from the same parameters: there are no others."""


class Group:
    """The ranks of a group of `torch.distributed`, which say things to one another.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, default=None
        None is the default group.

    Attributes
    ----------
    rank : int
        Of this process.
    size : int
        Number of ranks.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = distributed.get_rank(group)
        self.size = distributed.get_world_size(group)

    def gather(self, value: T) -> list[T]:
        """What each rank gives, by rank, on all of them."""
        # the ranks of one fit trust one another: objects travel as pickles
        values: list[Any] = [None] * self.size
        self._ask(distributed.all_gather_object, values, value, group=self.group)
        return values

    def first(self, value: T) -> T:
        """What rank 0 gives, on all of them."""
        values = [value]
        self._ask(distributed.broadcast_object_list, values, group=self.group, group_src=0)
        return values[0]

    def sum(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""
        self._ask(distributed.all_reduce, tensor, group=self.group)

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns. Where it fails on one rank, all of them fail: none is left waiting.

        Parameters
        ----------
        work : callable
            Takes no argument, and talks to nobody.

        Raises
        ------
        Exception
            The error of this rank, or else that of the first rank that has one.
        """
        error = None
        try:
            result = work()
        except Exception as own:
            error = own

        failed = [e for e in self.gather(_portable(error)) if e is not None]
        if error is not None:
            raise error
        if failed:
            raise failed[0]
        return result

    def _ask(self, collective: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a function that all ranks call."""
        try:
            collective(*args, **kwargs)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise LostRankError(
                f"Rank {self.rank} of {self.size} waited for the others in vain: one of them has ended, or cannot be reached "
                f"({reason}). The last checkpoint, if any was written, can be gone on with: load it on every rank, and fit "
                f"with warm_start=True."
            ) from error


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


class Ranks(Group):
    """Ranks that train together.

    Parameters
    ----------
    group : Group
    n_rows : sequence of int
        Number of training rows of each rank.
    batch_size : int
        Rows of a step over all ranks, at most.

    Attributes
    ----------
    is_alone : bool
    n_batches : int
        Steps of an epoch, the same number on all ranks.
    share : float
        Part of all rows that this rank has.

    Raises
    ------
    ValueError
        If a rank has fewer rows than an epoch has steps.
    """

    is_alone = False

    def __init__(self, group: Group, n_rows: Sequence[int], batch_size: int) -> None:
        super().__init__(group.group)
        n_all = sum(n_rows)
        self.n_batches = math.ceil(n_all / batch_size)
        self.share = n_rows[self.rank] / n_all
        self._rows_per_batch = math.ceil(n_all / self.n_batches)

        if min(n_rows) < self.n_batches:
            raise ValueError(
                f"Rank {int(np.argmin(n_rows))} has {min(n_rows)} rows to train on, fewer than the {self.n_batches} steps of "
                f"an epoch. Give each rank about as many rows, or take a larger batch_size."
            )

    def generator(self, seed: int) -> torch.Generator:
        """Where the order of the rows and the noise of this rank come from."""
        return torch.Generator().manual_seed(mixed(seed, self.rank))

    def batches(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        batch_size: int,
        noise_dim: int,
        generator: torch.Generator,
    ) -> Batches:
        """The rows of this rank in as many batches as the others have."""
        return OwnBatches(x, weight, self.n_batches, noise_dim, generator)

    def n_rows(self, n: int) -> int:
        """Rows of a batch over all ranks: all take the same number for it."""
        return self._rows_per_batch

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor of means over a batch by its mean over the ranks, weighted by their rows."""
        tensor.mul_(self.share)
        self.sum(tensor)

    def sums(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        tensor = torch.tensor(values, dtype=torch.float64)
        self.sum(tensor)
        return tensor.tolist()

    def start_alike(self, network: torch.nn.Module) -> None:
        """Start from the parameters of rank 0, from which those of this rank may differ by rounding.

        Raises
        ------
        ValueError
            On every rank, if one of them has another network.
        """
        own = network.state_dict()
        first = self.first({name: tensor.cpu() for name, tensor in own.items()})

        def check() -> None:
            for name in own.keys() | first.keys():
                is_same = name in own and name in first and own[name].shape == first[name].shape
                if not is_same or not torch.allclose(own[name].cpu(), first[name], rtol=1e-3, atol=1e-5):
                    raise ValueError(
                        f"The ranks start from different networks ({name}). Give all of them the same modules and, with "
                        f"warm_start=True, load the same model on each."
                    )

        self.together(check)
        network.load_state_dict(first)

    def any(self, value: object) -> bool:
        """Whether it is true of any rank."""
        return self.sums(float(bool(value)))[0] > 0


def mixed(*numbers: int) -> int:
    """A seed made of several numbers, of which another one makes another seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint32)[0])
