"""The part of one rank in a fit that several processes do together."""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import distributed

from skvae.engine.ranks import Group
from skvae.estimator import VAEEstimator
from skvae.shards import Shard
from skvae.table.warning import warn

PLAIN = (bool, int, float, str, tuple, list, dict, type(None))
"""Types of parameters that ranks compare; modules and functions are taken on trust."""

OWN = ("device", "verbose")
"""Parameters that may differ from rank to rank."""


def learn_shard(estimator: VAEEstimator, X: Any, sample_weight: Any, group: Group) -> dict[str, Any]:
    """What a fit learns, on every rank of a group alike.

    Parameters
    ----------
    estimator : VAEEstimator
        Read and never written to.
    X : array-like or DataFrame of shape (n_samples, n_features)
        Rows of this rank.
    sample_weight : array-like of shape (n_samples,) or None
    group : Group

    Returns
    -------
    attributes : dict of str to object
        All that a fitted estimator has and an unfitted one lacks: those that rank 0 has learnt.
    """
    group.together(estimator._validate_params)
    _check_same(estimator, group)
    shard = Shard(group, X, sample_weight)
    sample, weight = shard.sample(estimator.categorical_features)

    worker = estimator if group.rank == 0 else _quiet(estimator)
    learnt = worker._learn(
        sample, None, weight, go_on=estimator.warm_start, n_epochs=estimator.max_iter, schedule=True, shard=shard
    )
    return group.first(learnt)


@contextmanager
def joined(device: str, timeout: float, meeting: Meeting | None = None) -> Iterator[Group]:
    """A group of `torch.distributed` for a while.

    Parameters
    ----------
    device : str
        With NCCL beside gloo, unless it is the CPU.
    timeout : float
        Seconds to wait for the others.
    meeting : Meeting, default=None
        Where they meet; None is what ``torchrun`` says.
    """
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    wait = datetime.timedelta(seconds=timeout)
    meeting = meeting or _next_meeting(wait)
    distributed.init_process_group(
        backend, timeout=wait, store=meeting.store, rank=meeting.rank, world_size=meeting.n_ranks
    )

    try:
        yield Group()
    finally:
        # whoever waits for this rank is told by the end of the connection
        distributed.destroy_process_group()


class Meeting(NamedTuple):
    """Where the ranks of a group find one another.

    Attributes
    ----------
    store : torch.distributed.Store
        Keys and values that all see.
    rank, n_ranks : int
    """

    store: Any
    rank: int
    n_ranks: int


def _next_meeting(wait: datetime.timedelta) -> Meeting:
    """The place that ``torchrun`` says, under a name of its own: what groups before left there is not read again."""
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    may_restart = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if several and may_restart and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        warn(
            "torchrun restarts with the addresses of ranks that have ended, and may wait for them (pytorch issue 135712). "
            "Beside --max-restarts, set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, and --rdzv-backend c10d."
        )

    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    place = _place(wait, *[os.environ[name] for name in names])
    name = f"skvae/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_n_groups)}"
    return place._replace(store=distributed.PrefixStore(name, place.store))


@functools.cache
def _place(wait: datetime.timedelta, *where: str) -> Meeting:
    """The one connection of this process to it."""
    return Meeting(*next(distributed.rendezvous("env://", timeout=wait)))


_n_groups = itertools.count()


def _quiet(estimator: VAEEstimator) -> VAEEstimator:
    """An estimator with the same parameters and model that neither prints nor calls back."""
    quiet = copy.copy(estimator)
    quiet.verbose = False
    quiet.__dict__.pop("_skl_callbacks", None)
    return quiet


def _check_same(estimator: VAEEstimator, group: Group) -> None:
    """Raise a ValueError unless all ranks have the same parameters."""
    # modules and functions have no text that tells them apart
    plain = {}
    for name, value in estimator.get_params(deep=False).items():
        if isinstance(value, PLAIN) and name not in OWN:
            plain[name] = repr(value)

    different = dict(set(plain.items()) - set(group.first(plain).items()))
    named = sorted(set().union(*group.gather(different)))
    if named:
        raise ValueError(f"The ranks have estimators with different {', '.join(named)}. Give all of them the same.")
