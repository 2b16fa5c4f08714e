"""Processes on this machine that are the ranks of a group, for tests: each call of `together` runs one job on all of them."""

import contextlib
import math
import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor

import torch

from skvae.engine.batches import OwnBatches
from skvae.engine.ranks import Alone, mixed
from skvae.joint_fit import joined


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def environment(rank, n_ranks, port):
    """What torchrun tells a rank."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return dict(zip(names, (str(rank), str(n_ranks), str(rank), "127.0.0.1", str(port)), strict=True))


def _run(job, rank, n_ranks, port, args, joins):
    os.environ.update(environment(rank, n_ranks, port))
    group = joined("cpu", 60.0) if joins else contextlib.nullcontext()
    try:
        with group:
            return job(rank, *args)
    except Exception as error:  # for the test to look at
        return error


class Processes:
    """A pool of as many processes as there are ranks.

    A job waits for the other ranks, so that no process gets two of them.
    """

    def __init__(self, n_ranks):
        self.n_ranks = n_ranks
        self.pool = ProcessPoolExecutor(n_ranks, mp_context=multiprocessing.get_context("spawn"))

    def together(self, job, *args, joins=True):
        """What ``job(rank, *args)`` returns or raises on each rank; it is a member of a group if it `joins`."""
        port = free_port()
        calls = [self.pool.submit(_run, job, rank, self.n_ranks, port, args, joins) for rank in range(self.n_ranks)]
        return [call.result(timeout=120) for call in calls]


class TogetherInOne(Alone):
    """One process that takes the batches of several ranks one below the other: what they do together, in the plainest way.

    Parameters
    ----------
    shards : list of (x, weight)
        Rows of each rank.
    batch_size : int
        Rows of a step over all ranks.
    """

    def __init__(self, shards, batch_size):
        self.shards = shards
        self.x = torch.cat([x for x, _ in shards])
        self.n_batches = math.ceil(len(self.x) / batch_size)

    def batches(self, x, weight, batch_size, noise_dim, generator):
        """A list of batches that draws anew each time it is gone through."""
        seed = generator.initial_seed()
        own = []
        for rank, (rows, row_weight) in enumerate(self.shards):
            source = torch.Generator().manual_seed(mixed(seed, rank))
            own.append(OwnBatches(rows, row_weight, self.n_batches, noise_dim, source))
        return _Joined(own, len(self.x), generator)


class _Joined:
    def __init__(self, own, n_all, generator):
        self.own = own
        self.n_all = n_all
        self.n_rows = n_all
        self.generator = generator

    def __len__(self):
        return len(self.own[0])

    def __iter__(self):
        for parts in zip(*self.own, strict=True):
            n = sum(len(x) for x, _, _ in parts)
            weights = []
            for batches, (x, weight, _) in zip(self.own, parts, strict=True):
                # the mean over a rank's batch, by its share of all rows
                weights.append(weight * (len(batches.x) / self.n_all) * n / len(x))
            noise = torch.cat([noise for _, _, noise in parts], dim=1)
            yield torch.cat([x for x, _, _ in parts]), torch.cat(weights), noise
