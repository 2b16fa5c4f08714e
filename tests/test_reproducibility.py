"""The same seed gives the same bits anywhere on a machine, and nobody else's random state or settings are touched."""

import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skvae import VAEEstimator

X = np.random.default_rng(17).normal(size=(70, 4)) @ np.random.default_rng(18).normal(size=(4, 4))
X = np.column_stack([X, X[:, 0] > 0])


def quick(**params):
    return VAEEstimator(**{"latent_dim": 2, "hidden_layer_sizes": (16,), "max_iter": 6, "random_state": 0, **params})


def bits(vae):
    """All that a model says, as bytes."""
    arrays = [
        *(p.detach().numpy() for p in vae.module_.parameters()),
        vae.transform(X),
        vae.posterior(X)[1],
        vae.score_samples(X),
        vae.sample(9, random_state=1),
        vae.reconstruct(X),
        np.array(vae.loss_curve_),
        np.array(vae.validation_scores_ or []),
    ]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


class Dropped(torch.nn.Module):
    """A network with dropout, which draws from torch's global generator."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(n_inputs, n_outputs))

    def forward(self, x):
        return self.layers(x)


MODELS = {
    "plain": {},
    "linear": {"hidden_layer_sizes": ()},
    "whole": {"early_stopping": False},
    "custom": {"encoder": Dropped},
    "wide": {"hidden_layer_sizes": (200, 200), "max_iter": 2},
}

CALLS = {
    "fit": lambda vae: vae.fit(X),
    "fit_transform": lambda vae: vae.fit_transform(X),
    "partial_fit": lambda vae: vae.partial_fit(X),
    "transform": lambda vae: vae.transform(X),
    "posterior": lambda vae: vae.posterior(X),
    "inverse_transform": lambda vae: vae.inverse_transform(np.zeros((3, 2))),
    "reconstruct": lambda vae: vae.reconstruct(X),
    "sample": lambda vae: vae.sample(3, random_state=0),
    "score_samples": lambda vae: vae.score_samples(X, random_state=0),
    "score": lambda vae: vae.score(X),
}


def raising_callback():
    class Raising:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context, **kwargs):
            pass

        def on_fit_task_end(self, estimator, context, **kwargs):
            raise KeyboardInterrupt

    return Raising()


def broken(*sizes):
    torch.rand(3)
    raise RuntimeError("broken factory")


FAILURES = {
    "diverging": lambda vae: vae.set_params(learning_rate_init=1e20, max_iter=50).fit(X),
    "interrupted": lambda vae: vae.set_callbacks(raising_callback()).fit(X),
    "broken factory": lambda vae: vae.set_params(encoder=broken).fit(X),
    "nan": lambda vae: vae.fit(np.full((20, 5), np.nan)),
    "wrong width": lambda vae: vae.transform(X[:, :2]),
    "wrong latent width": lambda vae: vae.inverse_transform(np.zeros((2, 5))),
    "no rows": lambda vae: vae.sample(0),
}


@pytest.mark.parametrize("model", MODELS)
def test_repeated_fits_are_equal_to_the_last_bit(model):
    first = bits(quick(**MODELS[model]).fit(X))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert bits(quick(**MODELS[model]).fit(X)) == first
    assert bits(quick(**MODELS[model], random_state=np.random.RandomState(0)).fit(X)) == first


def test_another_seed_is_another_model():
    assert bits(quick(random_state=1).fit(X)) != bits(quick().fit(X))


def test_fits_one_after_the_other_from_one_random_state_differ():
    state = np.random.RandomState(0)
    first, second = (bits(quick(random_state=state).fit(X)) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("model", MODELS)
def test_pickled_models_say_the_same_to_the_last_bit(model):
    vae = quick(**MODELS[model]).fit(X)
    other = pickle.loads(pickle.dumps(vae))
    assert bits(other) == bits(vae)
    assert bits(pickle.loads(pickle.dumps(quick(**MODELS[model]))).fit(X)) == bits(vae)
    assert bits(other.fit(X)) == bits(vae)


@pytest.mark.parametrize("n_threads", ["1", "3"])
def test_another_process_with_other_threads_gives_the_same_bits(n_threads, tmp_path):
    models = {name: params for name, params in MODELS.items() if name != "custom"}
    fitted = {name: quick(**params).fit(X) for name, params in models.items()}
    (tmp_path / "fitted.pickle").write_bytes(pickle.dumps(fitted))
    code = f"""
import pickle, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_reproducibility import MODELS, X, bits, quick
for name, vae in pickle.load(open({str(tmp_path / "fitted.pickle")!r}, "rb")).items():
    assert bits(vae) == bits(quick(**MODELS[name]).fit(X)), name
    print(name, hash(bits(vae)))
"""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": n_threads,
        "MKL_NUM_THREADS": n_threads,
        "OPENBLAS_NUM_THREADS": n_threads,
        "PYTHONHASHSEED": "0",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(models)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit_of_a_fit(n_threads, threads):
    expected = [p.detach().numpy() for p in quick(**MODELS["wide"]).fit(X).module_.parameters()]
    threads(n_threads)
    got = [p.detach().numpy() for p in quick(**MODELS["wide"]).fit(X).module_.parameters()]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------------------------------------------- global state


@pytest.fixture
def threads():
    """Sets the number of torch's threads and of numpy's; the former numbers are put back at the end."""

    def set_both(n_threads):
        torch.set_num_threads(n_threads)
        threadpool_limits(n_threads, user_api="blas")

    before = torch.get_num_threads()
    with threadpool_limits(user_api="blas"):
        yield set_both
    torch.set_num_threads(before)


def numpy_state():
    return pickle.dumps(np.random.get_state())  # noqa: NPY002


def other_states():
    return random.getstate(), torch.get_rng_state().numpy().tobytes()


def settings():
    return {
        "threads": torch.get_num_threads(),
        "BLAS threads": [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"],
        "interop threads": torch.get_num_interop_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "anomaly": torch.is_anomaly_enabled(),
        "flush denormal": (torch.tensor([1e-310], dtype=torch.float64) * 1.0).item(),
        "numpy errors": np.geterr(),
    }


@pytest.mark.parametrize("encoder", [None, Dropped])
@pytest.mark.parametrize("call", CALLS)
def test_with_a_seed_no_global_generator_is_read_or_moved(call, encoder):
    said = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        vae = quick(encoder=encoder).fit(X)
        before = numpy_state(), other_states()
        CALLS[call](vae)
        assert (numpy_state(), other_states()) == before
        said.append(bits(vae))
    assert said[0] == said[1]


@pytest.mark.parametrize("encoder", [None, Dropped])
@pytest.mark.parametrize("call", ["fit", "partial_fit", "sample"])
def test_without_a_seed_only_numpys_generator_moves(call, encoder):
    said = []
    for _ in range(2):
        np.random.seed(5)  # noqa: NPY002
        vae = quick(random_state=None, encoder=encoder).fit(X)
        before, others = numpy_state(), other_states()
        rows = vae.sample(3) if call == "sample" else getattr(vae, call)(X).transform(X)
        assert numpy_state() != before
        assert other_states() == others
        said.append(rows.tobytes())
    assert said[0] == said[1]  # numpy's seed settles it


@pytest.mark.parametrize(
    "call", ["transform", "posterior", "inverse_transform", "reconstruct", "score_samples", "score"]
)
def test_deterministic_methods_draw_from_nobody(call):
    vae = quick(random_state=None).fit(X)
    before = numpy_state(), other_states()
    first = CALLS[call](vae) if call != "score_samples" else vae.score_samples(X)
    second = CALLS[call](vae) if call != "score_samples" else vae.score_samples(X)
    np.testing.assert_array_equal(first, second)
    assert (numpy_state(), other_states()) == before


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("call", CALLS)
def test_settings_are_as_before_after_every_call(call, n_threads, threads):
    vae = quick().fit(X)
    threads(n_threads)
    before = settings()
    CALLS[call](vae)
    assert settings() == before


@pytest.mark.parametrize("failure", FAILURES)
def test_settings_and_generators_are_as_before_after_an_exception(failure, threads):
    vae = quick().fit(X)
    threads(2)
    before = settings(), numpy_state(), other_states()
    with pytest.raises((ValueError, RuntimeError, KeyboardInterrupt)):
        FAILURES[failure](vae)
    assert (settings(), numpy_state(), other_states()) == before


def test_settings_of_the_users_own_are_respected(threads):
    expected = bits(quick().fit(X))
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        before = settings()
        vae = quick().fit(X)
        assert settings() == before
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert bits(vae) == expected


@pytest.mark.parametrize("encoder", [None, Dropped])
def test_grad_mode_of_the_caller_does_not_stop_training(encoder):
    with torch.no_grad():
        inside = bits(quick(encoder=encoder).fit(X))
    assert inside == bits(quick(encoder=encoder).fit(X))


def test_a_fit_that_failed_leaves_the_next_one_alone():
    expected = bits(quick().fit(X))
    vae = quick().set_callbacks(raising_callback())
    with pytest.raises(KeyboardInterrupt):
        vae.fit(X)
    assert bits(vae.set_callbacks().fit(X)) == expected
