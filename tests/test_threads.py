"""Fits in threads and forked processes answer as they do alone, and leave every number of threads as it was."""

import math
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info, threadpool_limits

from skvae import VAEEstimator, threads
from skvae.engine import training
from skvae.model.latent import LATENT_DENSITIES
from skvae.randomness import PrivateDraws
from skvae.threads import on_callers_threads, on_one_thread

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


@pytest.fixture
def two_threads():
    """torch and OpenBLAS have two threads; their former numbers are put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    if torch.get_num_threads() != 2:
        pytest.skip("torch was built without OpenMP: its number of threads stays")
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=["of the libraries", "of torch"])
def way(request, monkeypatch, two_threads):
    """Both ways to set the numbers: that of this machine and the one for machines where the libraries hide theirs."""
    if request.param == "of torch":
        monkeypatch.setattr(threads, "_own_numbers", lambda: threads._TorchNumber)
    elif threads._own_numbers() is not threads._OwnNumbers:
        pytest.skip("this torch does not show the functions of its OpenMP")


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


# ------------------------------------------------------------------------------------------------------------ one thread


def test_one_thread_inside_and_the_former_numbers_after(way):
    before = shared_state()
    assert set(openblas()) == {2}
    inside = on_one_thread(lambda: (torch.get_num_threads(), set(openblas())))()
    assert inside == (1, {1})
    assert changed(before) == []


def test_products_of_mkl_are_on_one_thread_too(two_threads):
    if threads._own_numbers() is not threads._OwnNumbers or not torch.backends.mkl.is_available():
        pytest.skip("torch multiplies by something else than MKL here")
    number = threads._torch_library().MKL_Get_Max_Threads
    assert number() == 2
    assert on_one_thread(number)() == 1
    assert number() == 2


def test_arguments_and_results_pass_through():
    @on_one_thread
    def divided(a, *, by):
        """Quotient."""
        return a / by

    assert divided(6, by=3) == 2
    assert divided.__name__ == "divided"
    assert divided.__doc__ == "Quotient."


def test_calls_may_be_nested(way):
    before = shared_state()

    @on_one_thread
    def outer():
        inner = on_one_thread(torch.get_num_threads)()
        return inner, torch.get_num_threads(), set(openblas())

    assert outer() == (1, 1, {1})
    assert changed(before) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_numbers_come_back_after_an_exception(error, way):
    before = shared_state()

    @on_one_thread
    def failing():
        on_one_thread(torch.get_num_threads)()
        raise error

    with pytest.raises(error):
        on_one_thread(failing)()
    assert changed(before) == []


def test_other_threads_keep_their_number_and_new_ones_have_theirs(way):
    guest = Guest()
    assert torch.get_num_threads() == 2
    assert in_new_thread(torch.get_num_threads) == 2
    assert set(openblas()) == {1}
    assert guest.leave() == {"before": 2, "inside": (1, [1] * len(openblas())), "after": 2}
    assert set(openblas()) == {2}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_whoever_leaves_first_those_inside_stay_at_one(order, way):
    before = shared_state()
    guests = [Guest(), Guest(), Guest()]
    ones = [1] * len(openblas())
    for i in order:
        assert openblas() == ones
        assert guests[i].leave() == {"before": 2, "inside": (1, ones), "after": 2}
    assert changed(before) == []


def test_every_thread_gets_its_own_number_back(way):
    own = [Guest(own=3), Guest(own=1), Guest(own=2)]
    before = in_new_thread(torch.get_num_threads)
    late = Guest()
    after = [guest.leave()["after"] for guest in (*own, late)]
    assert after == [3, 1, 2, before]
    assert in_new_thread(torch.get_num_threads) == before


def test_a_generator_function_is_refused():
    def rows():
        yield 1

    with pytest.raises(TypeError, match=r"rows is a generator function.*Decorate the function that iterates"):
        on_one_thread(rows)


def test_torch_without_openmp_is_left_alone(monkeypatch, two_threads):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    threads._own_numbers.cache_clear()
    try:
        assert on_one_thread(lambda: (torch.get_num_threads(), set(openblas())))() == (2, {1})
    finally:
        threads._own_numbers.cache_clear()
    assert torch.get_num_threads() == 2


# ----------------------------------------------------------------------------------------------------- several threads


def test_the_callers_threads_come_back_within_one_thread(way):
    before = shared_state()
    several = on_callers_threads(lambda: (torch.get_num_threads(), on_one_thread(torch.get_num_threads)()))

    @on_one_thread
    def outer():
        return torch.get_num_threads(), several(), torch.get_num_threads(), set(openblas())

    assert outer() == (1, (2, 1), 1, {1})
    assert changed(before) == []
    assert several() == (2, 1)  # outside of all, nothing changes


def test_the_callers_threads_go_after_an_exception(way):
    before = shared_state()

    @on_callers_threads
    def failing():
        raise KeyboardInterrupt

    @on_one_thread
    def outer():
        with pytest.raises(KeyboardInterrupt):
            failing()
        return torch.get_num_threads()

    assert outer() == 1
    assert changed(before) == []


# --------------------------------------------------------------------------------------------------------- interruption


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that interrupts")
@pytest.mark.parametrize("lifted", [False, True])
def test_an_interruption_at_any_moment_leaves_nothing_behind(lifted, two_threads):
    home = torch.get_rng_state()
    draws = PrivateDraws(0, torch.device("cpu"))
    number = on_one_thread(torch.get_num_threads)
    several = on_callers_threads(number) if lifted else number
    call = on_one_thread(lambda: draws.run(several))
    fired = hit = 0

    def interrupt(*_):
        nonlocal fired
        fired += 1
        raise KeyboardInterrupt

    call()
    delays = random.Random(7)
    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            n_fired = fired
            try:
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-6, 1e-4))
                call()
                while fired == n_fired:
                    pass
            except KeyboardInterrupt as error:
                files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
                hit += threads.__file__ in files
            assert torch.get_num_threads() == 2
            assert not threads._process.inside
            assert torch.equal(torch.get_rng_state(), home)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert hit > 20
    assert set(openblas()) == {2}
    assert (threads._here.outside, threads._here.inside) == (None, None)
    assert in_new_thread(call) == 1  # no lock is held


# ----------------------------------------------------------------------------------------------------------------- fits


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


# ---------------------------------------------------------------------------------------------------- threads and forks

FORKING = """
import copy, os, pickle, random, sys, threading, time, traceback
import numpy as np, torch
sys.path.insert(0, {tests!r})
from test_threads import X, bits, openblas, quick, threads
from skvae.engine import training

torch.set_num_threads(2)
if torch.get_num_threads() != 2:
    print("no OpenMP")
    sys.exit()

def answer_in_child(answer, n_seconds=60):
    # what `answer` returns in a forked process, as bytes
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, answer())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)
    end = time.monotonic() + n_seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return os.read(read, 2**20)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    sys.exit("the child does not answer")

"""


def run_forking(code):
    """Run code after `FORKING` in a process of its own; skip where its torch has only one thread."""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    script = FORKING.format(tests=str(Path(__file__).parent)) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env, timeout=300
    )
    if done.stdout == "no OpenMP\n":
        pytest.skip("torch was built without OpenMP: its number of threads stays")
    assert done.returncode == 0, done.stderr


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_no_public_call_leaves_a_thread_behind_and_a_child_answers_everything():
    run_forking("""
        def n_threads():
            return len(os.listdir("/proc/self/task"))

        def fit_large():
            training.WORK_PER_THREAD = 0
            quick(hidden_layer_sizes=(200, 200), max_iter=1, batch_size=200).fit(wide[:400])
            training.WORK_PER_THREAD = 10**12
            return b"fitted"

        training.WORK_PER_THREAD = 10**12
        # large enough that torch would use two threads for each of these calls
        wide = np.random.default_rng(0).normal(size=(9000, 5))
        wide[:, 4] = wide[:, 4] > 0
        holes = wide[:300].copy()
        holes[::7, 1] = np.nan
        points = torch.from_numpy(np.ones((40000, 2)))
        vae = quick(hidden_layer_sizes=(200, 200), max_iter=1, batch_size=200)
        calls = {
            "fit": lambda: vae.fit(wide).loss_curve_,
            "partial_fit": lambda: copy.deepcopy(vae).partial_fit(wide).loss_curve_,
            "transform": lambda: vae.transform(wide),
            "posterior": lambda: vae.posterior(wide),
            "reconstruct": lambda: vae.reconstruct(wide),
            "inverse_transform": lambda: vae.inverse_transform(np.ones((9000, 2))),
            "sample": lambda: vae.sample(9000, random_state=0),
            "sample given": lambda: vae.sample(200, given={0: 1.0}, random_state=0),
            "aggregated": lambda: vae.sample(900, latent_density="aggregated_posterior", random_state=0),
            "score_samples": lambda: vae.score_samples(wide[:600]),
            "impute": lambda: vae.impute(holes),
            "interpolate": lambda: vae.interpolate(wide[:1], wide[1:2]),
            "traverse": lambda: vae.traverse(0),
            "log_prob": lambda: vae.latent_density_.log_prob(points).numpy(),
            "load": lambda: pickle.loads(pickle.dumps(vae)).transform(wide),
        }
        expected = {}
        for name, call in calls.items():
            before = n_threads()
            expected[name] = np.asarray(call()).tobytes()
            assert n_threads() == before, f"{name} left {n_threads() - before} threads behind"

        before = n_threads()
        fit_large()
        assert n_threads() == before, "a large fit left threads behind"

        several = torch.ones(600, 600) @ torch.ones(600, 600)  # the caller's own threads, which the child has not
        assert n_threads() > before
        for name, call in calls.items():
            assert answer_in_child(lambda: np.asarray(call()).tobytes()[:2**15]) == expected[name][:2**15], name
        assert answer_in_child(fit_large) == b"fitted"
    """)


@needs_fork
def test_a_child_forked_while_threads_fit_is_sane():
    run_forking("""
        from test_threads import Guest, MODELS, changed, in_new_thread, shared_state

        expected = {name: bits(quick(**params).fit(X)) for name, params in MODELS.items()}
        before = shared_state()
        inside = Guest()
        stop = threading.Event()

        def go_on():
            while not stop.is_set():
                quick(**MODELS["custom"], max_iter=1).fit(X)

        fitting = threading.Thread(target=go_on, daemon=True)
        fitting.start()

        def answer():
            # which Python seeds anew in a child
            assert changed(before) == ["Python's generator"], changed(before)
            assert not threads._process.inside
            before["Python's generator"] = random.getstate()
            for name, params in MODELS.items():
                assert in_new_thread(lambda: bits(quick(**params).fit(X))) == expected[name], name
            assert changed(before) == []
            return b"fine"

        for _ in range(3):
            assert answer_in_child(answer) == b"fine"
        stop.set()
        fitting.join()
        inside.leave()
        assert changed(before) == []
    """)


@needs_fork
def test_a_child_forked_from_inside_a_fit_goes_on():
    run_forking("""
        from skvae.threads import on_callers_threads, on_one_thread
        from test_threads import changed, shared_state

        before = shared_state()

        def state():
            product = torch.ones(600, 600) @ torch.ones(600, 600)
            return pickle.dumps((torch.get_num_threads(), openblas()))

        @on_callers_threads
        def several():
            assert torch.get_num_threads() == 2
            state()  # its threads are not in the child
            return answer_in_child(state), state()

        @on_one_thread
        def alone():
            return answer_in_child(state), several()

        child, (child_of_several, own) = alone()
        assert pickle.loads(child)[0] == pickle.loads(child_of_several)[0] == 1
        assert set(pickle.loads(child_of_several)[1]) == {1}
        assert pickle.loads(own)[0] == 2
        assert changed(before) == []
    """)
