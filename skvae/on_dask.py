"""A fit on the workers of a Dask cluster, and answers partition by partition."""

from __future__ import annotations

import importlib
import math
import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import check_random_state
from torch import distributed

from skvae.estimator import VAEEstimator
from skvae.joint_fit import Meeting, joined, learn_shard
from skvae.kept_rows import beside
from skvae.parameters import check_positive_integer

SLACK = 1.1
"""Largest number of rows of a worker, in times of the mean, up to which it keeps the partitions that it holds."""

ROWS_PER_PARTITION = 2**16
"""Rows of a partition that is made, at most."""


def learn_on_workers(estimator: VAEEstimator, frame: Any, client: Any, timeout: float) -> dict[str, Any]:
    """What a fit learns from a Dask DataFrame: each worker is a rank.

    Parameters
    ----------
    estimator : VAEEstimator
    frame : dask.dataframe.DataFrame
    client : distributed.Client
    timeout : float
        Seconds that ranks wait for one another.

    Returns
    -------
    attributes : dict of str to object
        See `skvae.joint_fit.learn_shard`.
    """
    if not hasattr(frame, "to_delayed"):
        raise TypeError(
            f"With a client, X is a Dask DataFrame; got {type(frame).__name__}. Make one by dask.dataframe.from_pandas."
        )
    dask = importlib.import_module("distributed")
    _check_processes(client)

    parts = client.compute(frame.to_delayed())
    dask.wait(parts)
    holders = client.who_has(parts)
    n_rows = client.gather(client.map(len, parts))
    shares = share_out([holders[part.key] for part in parts], n_rows, client.scheduler_info(-1)["workers"])
    if not shares:
        raise ValueError("The DataFrame has no rows. Expected at least one.")

    # all at the same time, each on the worker it is meant for, and never twice
    meeting = f"skvae-{uuid.uuid4().hex}"
    calls = []
    for rank, (worker, own) in enumerate(shares.items()):
        place = {"workers": [worker], "pure": False, "retries": 0}
        chosen = [parts[i] for i in own]
        calls.append(client.submit(_be_a_rank, estimator, chosen, rank, len(shares), meeting, timeout, **place))

    try:
        for call in dask.as_completed(calls):
            # the first error ends the fit
            call.result()
        return calls[0].result()
    finally:
        client.cancel([*calls, *parts])


def share_out(holders: Sequence[Sequence[str]], n_rows: Sequence[int], workers: Sequence[str]) -> dict[str, list[int]]:
    """Which worker has which partitions: those that it holds, unless it then had many more rows than others.

    Parameters
    ----------
    holders : sequence of (sequence of str)
        Workers that hold each partition.
    n_rows : sequence of int
        Rows of each partition.
    workers : sequence of str
        All workers.

    Returns
    -------
    shares : dict of str to list of int
        Partitions of each worker that has any, in their order; empty ones are left out.
    """
    limit = SLACK * sum(n_rows) / len(workers)
    load = dict.fromkeys(workers, 0)
    shares: dict[str, list[int]] = {worker: [] for worker in workers}

    # large ones first, as long as there is room anywhere
    for i in sorted(range(len(n_rows)), key=lambda i: -n_rows[i]):
        if not n_rows[i]:
            continue
        nearby = [worker for worker in holders[i] if worker in load and load[worker] + n_rows[i] <= limit]
        worker = min(nearby or workers, key=load.__getitem__)
        load[worker] += n_rows[i]
        shares[worker].append(i)

    return {worker: sorted(own) for worker, own in shares.items() if own}


def _check_processes(client: Any) -> None:
    """Raise a ValueError unless every worker is a process of its own."""
    homes = client.run(_home)
    if len(set(homes.values())) < len(homes):
        raise ValueError(
            "Workers share a process, and ranks cannot. Give each worker one: LocalCluster(processes=True), or "
            "dask worker --nworkers N."
        )


def _home() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _be_a_rank(
    estimator: VAEEstimator, parts: Sequence[Any], rank: int, n_ranks: int, meeting: str, timeout: float
) -> dict[str, Any] | None:
    """What rank 0 has learnt; nothing from the others."""
    dask = importlib.import_module("distributed")
    rows = beside([nw.from_native(part, eager_only=True) for part in parts]).to_native()

    # rank 0 says where all meet
    place = dask.Variable(meeting)
    if rank == 0:
        host = importlib.import_module("distributed.comm").get_address_host(dask.get_worker().address)
        store = distributed.TCPStore(host, 0, n_ranks, is_master=True, wait_for_workers=False)
        place.set((host, store.port))
    else:
        host, port = place.get(timeout=timeout)
        store = distributed.TCPStore(host, port, n_ranks, is_master=False)

    with joined(estimator.device, timeout, Meeting(store, rank, n_ranks)) as group:
        learnt = learn_shard(estimator, rows, None, group)
    return learnt if rank == 0 else None


# ------------------------------------------------------------------------------------------------------------------ answers


def transform(estimator: VAEEstimator, frame: Any) -> Any:
    """Latent means of the rows of a Dask DataFrame, partition by partition.

    Parameters
    ----------
    estimator : VAEEstimator
        A fitted one.
    frame : dask.dataframe.DataFrame

    Returns
    -------
    z_mean : dask.dataframe.DataFrame
        With the index and the partitions of `frame`; nothing is computed yet.
    """
    names = estimator.get_feature_names_out()
    return frame.map_partitions(_latent_means, estimator, meta=dict.fromkeys(names, "f8"))


def score_samples(estimator: VAEEstimator, frame: Any) -> Any:
    """Log-likelihood of the rows of a Dask DataFrame, in nats: a Series named ``score``. See `transform`."""
    return frame.map_partitions(_scores, estimator, meta=("score", "f8"))


def sample(estimator: VAEEstimator, n_samples: int, *, random_state: Any = None, **options: Any) -> Any:
    """New rows as a Dask DataFrame, of partitions of up to 65,536 rows.

    Parameters
    ----------
    estimator : VAEEstimator
        One that was fitted to a frame of pandas.
    n_samples : int
        Number of rows.
    random_state : int, RandomState instance or None, default=None
        Seed.
    **options
        As for `VAEEstimator.sample`.

    Returns
    -------
    rows : dask.dataframe.DataFrame
        Nothing is computed yet.
    """
    frames = importlib.import_module("dask.dataframe")
    n_samples = check_positive_integer("n_samples", n_samples)
    rng = check_random_state(random_state)

    n_parts = math.ceil(n_samples / ROWS_PER_PARTITION)
    sizes = np.diff(np.linspace(0, n_samples, n_parts + 1).astype(int)).tolist()
    seeds = rng.randint(2**31 - 1, size=n_parts).tolist()
    like = estimator.sample(1, random_state=0).iloc[:0]
    return frames.from_map(_rows, sizes, seeds, estimator=estimator, options=options, meta=like)


def _latent_means(rows: Any, estimator: VAEEstimator) -> Any:
    pandas = importlib.import_module("pandas")
    names = estimator.get_feature_names_out()
    if not len(rows):
        return pandas.DataFrame(columns=names, index=rows.index, dtype="f8")
    return pandas.DataFrame(estimator.transform(rows), columns=names, index=rows.index, dtype="f8")


def _scores(rows: Any, estimator: VAEEstimator) -> Any:
    pandas = importlib.import_module("pandas")
    scores = np.empty(0)
    if len(rows):
        scores = estimator.score_samples(rows)
    return pandas.Series(scores, index=rows.index, name="score", dtype="f8")


def _rows(n: int, seed: int, estimator: VAEEstimator, options: Mapping[str, Any]) -> Any:
    return estimator.sample(n, random_state=seed, **options)
