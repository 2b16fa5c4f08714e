"""Fits on many machines: under ``torchrun``, or on the workers of a Dask cluster; and answers to Dask DataFrames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import distributed

from skvae.engine.ranks import Group
from skvae.estimator import VAEEstimator
from skvae.joint_fit import joined, learn_shard
from skvae.on_dask import learn_on_workers, sample, score_samples, transform

__all__ = ["fit", "sample", "score_samples", "transform"]


def fit(
    estimator: VAEEstimator,
    X: Any,
    client: Any = None,
    *,
    sample_weight: Any = None,
    timeout: float = 300.0,
) -> VAEEstimator:
    """Fit one model to the rows of several processes, each of which has some of them.

    Under ``torchrun``, every process (a *rank*) calls this function with its own rows, its shard. The ranks learn the columns
    from a uniform sample of up to 100,000 rows of all, and the extremes and levels of all rows; they take gradient steps
    together, each on a batch of its own, and all return the same model. A step is of `batch_size` rows over all ranks, so that
    the fit is that of one process, but for the order of the rows.

    In a process by itself it is ``estimator.fit(X)``.

    Parameters
    ----------
    estimator : VAEEstimator
        The same on all ranks, with ``warm_start=True`` the same fitted one. Callbacks are those of rank 0, which alone prints.
    X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
        The rows of this rank; with `client`, a Dask DataFrame.
    client : distributed.Client, default=None
        Of a Dask cluster: each of its workers is a rank and has the partitions that it holds already.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows of this rank.
    timeout : float, default=300.0
        Seconds that ranks wait for one that is silent. One that has ended is noticed at once.

    Returns
    -------
    estimator : VAEEstimator
        The one given, fitted.

    Raises
    ------
    LostRankError
        If a rank has ended, or is silent for too long. The last checkpoint can be gone on with.
    ValueError
        On every rank, if one of them has rows that `VAEEstimator.fit` refuses, has fewer rows than an epoch has steps, or has
        an estimator with other parameters.

    Notes
    -----
    A group that `torch.distributed` has is used and left as it is; else one is made of what ``torchrun`` says, with gloo, and
    with NCCL beside it for a `device` that is no CPU, and ended again.
    """
    if client is not None:
        if sample_weight is not None:
            raise ValueError("sample_weight is for rows of this process, and a client has them elsewhere.")
        return estimator._set(learn_on_workers(estimator, X, client, timeout))

    with _group(estimator.device, timeout) as group:
        if group is None or group.size == 1:
            return estimator.fit(X, sample_weight=sample_weight)
        return estimator._set(learn_shard(estimator, X, sample_weight, group))


@contextmanager
def _group(device: str, timeout: float) -> Iterator[Group | None]:
    """The group that this process is in, one made of what ``torchrun`` says, or None."""
    if not distributed.is_available() or not (distributed.is_initialized() or "WORLD_SIZE" in os.environ):
        yield None
    elif distributed.is_initialized():
        yield Group()
    else:
        with joined(device, timeout) as group:
            yield group
