"""A fit that was killed goes on from its checkpoint, and ends where it would have ended, to the bit."""

import copy
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from fits import Callback, Quiet
from models import MODELS, assert_answers_alike, mixed, numbers, quick

import skvae
from skvae import fitting
from skvae.callbacks import Checkpoint


def interrupt(estimator):
    """What Ctrl-C does in the middle of a fit."""
    raise KeyboardInterrupt


def killed(vae, X, path, *, after, every=1, **fit):
    """A model from the checkpoint of a fit that was killed after some epochs."""
    with pytest.raises(KeyboardInterrupt):
        copy.deepcopy(vae).set_callbacks(Checkpoint(path, every), Callback("epoch ends", interrupt, after)).fit(
            X, **fit
        )


def with_dropout(n_inputs, n_outputs):
    layers = torch.nn.Linear(n_inputs, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, n_outputs)
    return torch.nn.Sequential(*layers)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fit.safetensors"


@pytest.mark.parametrize("name", MODELS)
def test_a_killed_fit_goes_on_to_the_same_end(name, path):
    vae, X = MODELS[name]()
    vae.set_params(max_iter=12)
    whole = copy.deepcopy(vae).fit(X)
    killed(vae, X, path, after=5)
    rest = skvae.load(path)
    assert rest.n_iter_ == 5
    rest.set_params(warm_start=True).fit(X)
    assert rest.loss_curve_ == whole.loss_curve_
    assert rest.validation_scores_ == whole.validation_scores_
    assert_answers_alike(rest, whole, X)


@pytest.mark.parametrize(
    "params",
    [
        {"early_stopping": False},
        {"encoder": with_dropout},
        {"batch_size": 7, "learning_rate_init": 0.1, "tol": 1.0, "n_iter_no_change": 1},
        {"random_state": None},
        {"random_state": np.random.RandomState(3)},
        {"protect": 2, "alpha": 0.1},
    ],
    ids=["no rows held out", "dropout", "in its descent", "no seed", "random state", "protected"],
)
@pytest.mark.parametrize("after", [1, 40])
def test_every_state_of_a_fit_is_kept(params, after, path):
    X = numbers(150).round(1)
    weight = np.linspace(0, 1, 150)
    vae = quick(**{"max_iter": 60, "batch_size": 16, "random_state": 1, **params})
    # both with the same draws, be they without a seed
    snapshots = []

    class Collector(Quiet):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.task_name == "epoch":
                snapshots.append(fitted_estimator)

    whole = vae.set_callbacks(Collector()).fit(X, sample_weight=weight)
    skvae.save(snapshots[:after][-1], path)
    rest = skvae.load(path, encoder=params.get("encoder")).set_params(warm_start=True).fit(X, sample_weight=weight)
    assert rest.loss_curve_ == whole.loss_curve_
    assert_answers_alike(rest, whole, X)


def test_a_pickled_checkpoint_goes_on_too(path):
    X = mixed(1100)
    whole = quick(max_iter=4).fit(X)
    killed(quick(max_iter=4), X, path, after=2)
    rest = pickle.loads(pickle.dumps(skvae.load(path))).set_params(warm_start=True).fit(X)
    assert_answers_alike(rest, whole, X)


def test_a_fit_goes_on_in_several_pieces(path):
    X = numbers()
    whole = quick(max_iter=9).fit(X)
    killed(quick(max_iter=9), X, path, after=3)
    for _ in range(2):
        rest = skvae.load(path).set_params(warm_start=True)
        killed(rest, X, path, after=3)
    rest = skvae.load(path).set_params(warm_start=True).fit(X)
    assert_answers_alike(rest, whole, X)


def test_a_finished_fit_has_no_state_of_training(path):
    X = numbers()
    vae = quick(max_iter=4, warm_start=True).set_callbacks(Checkpoint(path, 1)).fit(X)
    assert vae._fitted.training is None
    # and begins anew
    assert vae.fit(X).n_iter_ == 4


def test_files_come_every_so_many_epochs(path):
    X = numbers()
    vae = quick(max_iter=8, early_stopping=False).set_callbacks(Checkpoint(path, 3)).fit(X)
    checkpoint = skvae.load(path)
    assert checkpoint.n_iter_ == 6
    assert checkpoint.loss_curve_ == vae.loss_curve_[:6]
    # what it answers before it goes on
    assert checkpoint.sample(3).shape == (3, 3)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        quick().set_callbacks(Checkpoint(path, 0)).fit(X)


def test_other_rows_or_parameters_cannot_go_on(path):
    X = numbers()
    killed(quick(max_iter=6), X, path, after=3)
    rest = skvae.load(path).set_params(warm_start=True)
    for change in ({"learning_rate_init": 0.02}, {"max_iter": 7}, {"beta": 2.0}):
        with pytest.raises(ValueError, match="had other rows, weights or parameters"):
            copy.deepcopy(rest).set_params(**change).fit(X)
    for other in (X[::-1], X[1:], X + 0.1):
        with pytest.raises(ValueError, match="had other rows, weights or parameters"):
            rest.fit(other)
    with pytest.raises(ValueError, match="had other rows, weights or parameters"):
        rest.fit(X, sample_weight=np.arange(1, 101))
    assert rest.set_params(warm_start=False, max_iter=2).fit(X[1:]).n_iter_ == 2


SCRIPT = """
import sys, numpy as np, skvae
from pathlib import Path
sys.path.insert(0, {tests!r})
from models import numbers, quick
from skvae.callbacks import Checkpoint
print("begins", flush=True)
quick(max_iter=100_000, early_stopping=False).set_callbacks(Checkpoint({path!r}, 2)).fit(numbers(400))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_process_that_is_killed_leaves_a_whole_checkpoint(path):
    code = SCRIPT.format(tests=os.path.dirname(__file__), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while not path.exists():
            assert process.poll() is None
        process.kill()
    checkpoint = skvae.load(path)
    assert checkpoint.n_iter_ % 2 == 0
    assert checkpoint._fitted.training is not None


def test_numbers_of_numpy_are_the_numbers_that_they_are(path):
    """As a search sets them; a file has them as Python's."""
    X = numbers()
    vae = quick(max_iter=np.int64(6), learning_rate_init=np.float64(0.02), early_stopping=np.bool_(True))
    whole = copy.deepcopy(vae).fit(X)
    killed(vae, X, path, after=3)
    assert_answers_alike(skvae.load(path).set_params(warm_start=True).fit(X), whole, X)


def test_an_epoch_without_a_file_costs_no_copy(path, monkeypatch):
    learnt, calls = fitting.learnt, []

    def counted(*args):
        calls.append(args)
        return learnt(*args)

    monkeypatch.setattr(fitting, "learnt", counted)
    vae = quick(max_iter=7).set_callbacks(Checkpoint(path, every=3))
    vae.fit(numbers())
    # after the third epoch, the sixth, and the fit
    assert len(calls) == 3
    assert skvae.load(path).n_iter_ == 6
    assert vae.n_iter_ == 7
