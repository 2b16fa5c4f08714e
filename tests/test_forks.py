"""A forked process answers, whatever its parent did and does, and no call leaves a thread behind that a child would miss."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FORKING = """
import copy, os, pickle, random, sys, threading, time, traceback
import numpy as np, torch
sys.path.insert(0, {tests!r})
from side_by_side import X, bits, openblas, quick
from skvae import threads
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
        from side_by_side import Guest, MODELS, changed, in_new_thread, shared_state

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
        from side_by_side import changed, shared_state

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
