"""Fits in threads are those of one thread, and leave all that the process shares as it was."""

import math
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from side_by_side import MODELS, Dropped, X, bits, changed, quick, shared_state
from sklearn.exceptions import ConvergenceWarning

from skvae.engine import training
from skvae.model.latent import LATENT_DENSITIES
from skvae.randomness import PrivateDraws


def in_threads(fit, n_threads=8):
    """What `fit(i)` returns for each i below `n_threads`, called in as many threads at once, whose settings it leaves."""
    start = threading.Barrier(n_threads)

    def settings():
        return torch.get_num_threads(), torch.is_grad_enabled(), np.geterr()

    def run(i):
        before = settings()
        start.wait(60)
        result = fit(i)
        assert settings() == before
        return result

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(run, range(n_threads)))


@pytest.mark.parametrize("model", MODELS)
def test_fits_in_eight_threads_are_those_of_one_and_leave_everything_as_it_was(model, two_threads):
    alone = [bits(quick(**MODELS[model], random_state=i).fit(X)) for i in range(8)]
    before = shared_state()
    together = in_threads(lambda i: bits(quick(**MODELS[model], random_state=i).fit(X)))
    assert together == alone
    assert changed(before) == []


def test_models_of_all_kinds_side_by_side(two_threads):
    kinds = [*MODELS.values()] * 3
    alone = [bits(quick(**kinds[i]).fit(X)) for i in range(8)]
    before = shared_state()
    assert in_threads(lambda i: bits(quick(**kinds[i]).fit(X))) == alone
    assert changed(before) == []


def test_a_mixture_that_stops_early_says_nothing_and_sets_no_warnings_filter(monkeypatch):
    class Watched(warnings.catch_warnings):
        """Refuses us: threads that set the process's filters for the time of a fit leave them set."""

        def __init__(self, *args, **kwargs):
            assert not sys._getframe(1).f_globals["__name__"].startswith("skvae")
            super().__init__(*args, **kwargs)

    # long tails, which a mixture of normals takes long to suit
    z_mean = np.random.default_rng(0).exponential(size=(300, 1)) ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        monkeypatch.setattr(warnings, "catch_warnings", Watched)
        LATENT_DENSITIES["mixture"].fit(z_mean, np.full_like(z_mean, 1e-3))


def test_fits_that_fail_beside_others_leave_everything_as_it_was(two_threads):
    before = shared_state()

    def fit(i):
        if i % 2:
            return bits(quick(**MODELS["custom"]).fit(X))
        with pytest.raises(ValueError, match="Training stopped"):
            quick(**MODELS["custom"], learning_rate_init=1e20, max_iter=50).fit(X)
        return None

    in_threads(fit)
    assert changed(before) == []


@pytest.mark.parametrize("model", ["factorized", "autoregressive"])
def test_built_in_networks_borrow_no_generator(model, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("torch's default generator was lent")

    monkeypatch.setattr(PrivateDraws, "run", refuse)
    bits(quick(**MODELS[model]).fit(X))


@pytest.mark.parametrize(("limit", "expected"), [(0, {2}), (math.inf, {1})])
def test_only_large_steps_have_the_callers_threads(limit, expected, monkeypatch, two_threads):
    monkeypatch.setattr(training, "WORK_PER_THREAD", limit)
    vae = quick(**MODELS["custom"]).fit(X[:50])  # the last number noted in a fit is that of a training step
    before = shared_state()
    Dropped.numbers.clear()
    vae.partial_fit(X[:50])
    assert expected <= Dropped.numbers <= {1, *expected}
    Dropped.numbers.clear()
    vae.transform(X)
    assert Dropped.numbers == {1}
    assert changed(before) == []


def test_large_fits_side_by_side_are_those_of_one(monkeypatch, two_threads):
    monkeypatch.setattr(training, "WORK_PER_THREAD", 0)
    large = {"hidden_layer_sizes": (200,), "max_iter": 2}
    alone = [bits(quick(**large, random_state=i).fit(X)) for i in range(8)]
    before = shared_state()
    assert in_threads(lambda i: bits(quick(**large, random_state=i).fit(X))) == alone
    assert changed(before) == []
