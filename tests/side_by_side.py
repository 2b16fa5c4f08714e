"""Small models, what a process shares, and guests in it, for the tests of threads and forks."""

import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import torch
from threadpoolctl import threadpool_info

from skvae import VAEEstimator
from skvae.threads import on_one_thread

X = np.random.default_rng(3).normal(size=(300, 4)) @ np.random.default_rng(4).normal(size=(4, 6))
X[:, 5] = X[:, 5] > 0


class Dropped(torch.nn.Module):
    """A network with dropout, which draws from torch's default generator; it notes torch's numbers of threads."""

    numbers: ClassVar = set()

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(n_inputs, 16), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(16, n_outputs)
        )

    def forward(self, x):
        self.numbers.add(torch.get_num_threads())
        return self.layers(x)


MODELS = {
    "factorized": {},
    "autoregressive": {"decoder": "autoregressive"},
    "custom": {"encoder": Dropped, "decoder": Dropped},
}


def quick(**params):
    few = {"latent_dim": 2, "hidden_layer_sizes": (16,), "max_iter": 8, "latent_density": "gaussian", "random_state": 0}
    return VAEEstimator(**{**few, **params})


def bits(vae):
    """All that a model says, as bytes."""
    arrays = [
        *(p.detach().numpy() for p in vae.module_.parameters()),
        vae.transform(X),
        vae.score_samples(X[:40]),
        vae.sample(20, random_state=1),
        np.array(vae.loss_curve_),
    ]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def openblas():
    """OpenBLAS's numbers of threads."""
    return [library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openblas"]


def in_new_thread(function):
    """What `function` returns in a thread that starts now."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def shared_state():
    """What the whole process shares, and what a thread that starts now finds."""
    return {
        "threads": torch.get_num_threads(),
        "threads of new threads": in_new_thread(torch.get_num_threads),
        "OpenBLAS": openblas(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's generator": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "Python's generator": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy errors": np.geterr(),
    }


def changed(before):
    """Names of what differs from an earlier `shared_state`."""
    now = shared_state()
    return [name for name in before if now[name] != before[name]]


class Guest:
    """A thread that comes in and leaves when it is told to.

    Parameters
    ----------
    own : int, default=None
        Number of threads that it sets for itself by `torch.set_num_threads`, before.
    """

    def __init__(self, own=None):
        self.go = threading.Event()
        self.there = threading.Event()
        self.seen = {}
        self.thread = threading.Thread(target=self._run, args=(own,), daemon=True)
        self.thread.start()
        assert self.there.wait(60)

    def _run(self, own):
        if own is not None:
            torch.set_num_threads(own)
        self.seen["before"] = torch.get_num_threads()
        self._stay()
        self.seen["after"] = torch.get_num_threads()

    @on_one_thread
    def _stay(self):
        self.there.set()
        assert self.go.wait(60)
        self.seen["inside"] = torch.get_num_threads(), openblas()

    def leave(self):
        """Let the thread leave and return what it saw."""
        self.go.set()
        self.thread.join(60)
        return self.seen
