"""From a table to a fitted model: a fit that fails leaves no trace, whatever failed and wherever."""

import ast
import copy
import functools
import inspect
import io
import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from fits import Callback, Raising, another_table, answers, quick, table
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import skvae
from skvae import VAEEstimator, fitting
from skvae.engine.flat_step import FlatStep
from skvae.exceptions import DivergenceError
from skvae.model.network import VAE
from skvae.table import Table

FOLDER = Path(skvae.__file__).parent
X = table()
OTHER_ROWS = table(seed=1)

# ---------------------------------------------------------------------------------------------------- ways to fail


class Failure:
    """A way in which a fit fails.

    Parameters
    ----------
    exception : type of exception
    prepare : callable
        ``prepare(vae, X, monkeypatch)`` makes a fit of `vae` fail and returns the table to fit.
    only : tuple of str
        The situations in which the fit then fails.
    """

    def __init__(self, exception, prepare, only=("first", "refit", "warm", "stream")):
        self.exception = exception
        self.prepare = prepare
        self.only = only

    def happen(self, vae, rows, situation):
        """Let the fit fail, and mend its cause."""
        assert situation in self.only
        parameters = vae.get_params()
        with pytest.MonkeyPatch.context() as monkeypatch:
            rows = self.prepare(vae, rows, monkeypatch)
            fit = vae.partial_fit if situation == "stream" else vae.fit
            with pytest.raises(self.exception):
                fit(rows)
        vae.set_params(**parameters)
        vae.set_callbacks()


def bad_rows(change):
    return lambda vae, X, monkeypatch: change(X)


def parameters(**params):
    def prepare(vae, X, monkeypatch):
        vae.set_params(**params)
        return X

    return prepare


def callback(hook, exception, count=1):
    def prepare(vae, X, monkeypatch):
        vae.set_callbacks(Callback(hook, Raising(exception), count))
        return X

    return prepare


def patched(owner, name, exception, count=1, wrap=lambda function: function):
    def prepare(vae, X, monkeypatch):
        function = Raising(exception, getattr(owner, name), count)

        # a plain function, so that it is bound to instances
        def replaced(*args, **kwargs):
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrap(replaced))
        return X

    return prepare


def encoder_that_raises(n_inputs, n_outputs):
    raise RuntimeError("no encoder")


class NeverRead(torch.nn.Module):
    """An encoder that reads zeros, as it is shown them at first, and nothing else."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.layer = torch.nn.Linear(n_inputs, n_outputs)

    def forward(self, x):
        if x.any():
            raise RuntimeError("no reading")
        return self.layer(x)


NEW = ("first", "refit")
WITH_END = ("first", "refit", "warm")

FAILURES = {
    "an infinite cell": Failure(ValueError, bad_rows(lambda X: X.replace(3.0, np.inf))),
    "no row": Failure(ValueError, bad_rows(lambda X: X[:0])),
    "no cell": Failure(ValueError, bad_rows(lambda X: X.mask(X.notna())), NEW),
    "a list of numbers": Failure(ValueError, bad_rows(lambda X: [1.0, 2.0])),
    "another width": Failure(ValueError, bad_rows(lambda X: X.iloc[:, :2]), ("warm", "stream")),
    "other names": Failure(ValueError, bad_rows(lambda X: X.add_prefix("the ")), ("warm", "stream")),
    "an unknown level": Failure(ValueError, bad_rows(lambda X: X.assign(city="Bern")), ("warm", "stream")),
    "a constant that varies": Failure(
        ValueError, bad_rows(lambda X: X.assign(planet=range(len(X)))), only=("stream",)
    ),
    "a parameter out of range": Failure(ValueError, parameters(latent_dim=0)),
    "other latent units": Failure(ValueError, parameters(latent_dim=3), ("warm", "stream")),
    "a layer without units": Failure(ValueError, parameters(hidden_layer_sizes=(6, 0))),
    "a device that is not there": Failure(ValueError, parameters(device="nowhere")),
    "no row to train on": Failure(ValueError, parameters(validation_fraction=0.999), WITH_END),
    "an unknown column": Failure(ValueError, parameters(likelihood={"poisson": ["length"]}), NEW),
    "divergence": Failure(DivergenceError, parameters(learning_rate_init=1e30)),
    "divergence of the validation rows": Failure(
        DivergenceError,
        patched(VAE, "elbo_terms", None, wrap=lambda _: lambda vae, x, noise: 2 * [x[:, 0] * np.nan]),
        WITH_END,
    ),
    "divergence of the latents": Failure(
        DivergenceError, patched(VAE, "encode", None, wrap=lambda _: lambda vae, x: 2 * [x[:, :2] * np.nan]), ("stream",)
    ),
    "setup": Failure(OSError, callback("setup", OSError)),
    "callback at the beginning": Failure(OSError, callback("fit begins", OSError)),
    "callback at the first epoch": Failure(KeyboardInterrupt, callback("epoch begins", KeyboardInterrupt)),
    "callback after the first epoch": Failure(KeyboardInterrupt, callback("epoch ends", KeyboardInterrupt)),
    "callback after the second epoch": Failure(OSError, callback("epoch ends", OSError, 2), WITH_END),
    "callback at the end": Failure(OSError, callback("fit ends", OSError)),
    "interrupt at the end": Failure(KeyboardInterrupt, callback("fit ends", KeyboardInterrupt)),
    "teardown": Failure(OSError, callback("teardown", OSError)),
    "interrupt in a table": Failure(KeyboardInterrupt, patched(Table, "encode_values", KeyboardInterrupt)),
    "interrupt in a new table": Failure(KeyboardInterrupt, patched(Table, "fit", KeyboardInterrupt), NEW),
    "interrupt in the first step": Failure(KeyboardInterrupt, patched(FlatStep, "__call__", KeyboardInterrupt)),
    "interrupt in the third step": Failure(KeyboardInterrupt, patched(FlatStep, "__call__", KeyboardInterrupt, 3)),
    "interrupt in training": Failure(KeyboardInterrupt, patched(fitting, "train", KeyboardInterrupt)),
    "interrupt after training": Failure(KeyboardInterrupt, patched(fitting, "learnt", KeyboardInterrupt)),
    "out of memory": Failure(MemoryError, patched(FlatStep, "__call__", MemoryError, 2)),
    "out of memory in a table": Failure(MemoryError, patched(Table, "encode_values", MemoryError)),
    "an encoder that is none": Failure(RuntimeError, parameters(encoder=encoder_that_raises), NEW),
    "an encoder that reads nothing": Failure(RuntimeError, parameters(encoder=NeverRead), NEW),
}


def cases(*situations):
    found = []
    for name, failure in FAILURES.items():
        for situation in situations:
            if situation in failure.only:
                found.append(pytest.param(failure, situation, id=f"{situation}-{name}"))
    return found


def fitted_names(vae):
    return {name for name in vars(vae) if name.endswith("_") or name in ("_fitted", "_n_features_out")}


def has_no_trace(vae, X):
    """Whether an estimator is as if it had never met a table."""
    with pytest.raises(NotFittedError):
        check_is_fitted(vae)
    with pytest.raises(NotFittedError):
        vae.transform(X)
    with pytest.raises(NotFittedError):
        vae.sample()
    return set(vars(vae)) == set(vars(clone(vae)))


# ------------------------------------------------------------------------------------------------------------ first fits


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize(("failure", "situation"), cases("first"))
def test_first_fit_that_fails_leaves_no_trace(failure, situation, warm_start, method):
    if method == "partial_fit" and "stream" not in failure.only:
        pytest.skip("it does not fail in a stream")
    vae = quick(warm_start=warm_start)
    failure.happen(vae, X, "stream" if method == "partial_fit" else situation)
    assert has_no_trace(vae, X)
    assert has_no_trace(pickle.loads(pickle.dumps(vae)), X)
    expected = answers(getattr(quick(), method)(X), X)
    assert answers(getattr(vae, method)(X), X) == expected


def test_first_fit_that_fails_leaves_module_and_density_missing():
    vae = quick()
    FAILURES["divergence"].happen(vae, X, "first")
    assert not hasattr(vae, "module_")
    assert not hasattr(vae, "latent_density_")
    assert not hasattr(vae, "n_features_in_")


# ------------------------------------------------------------------------------------------------------------- later fits


def fitted(situation):
    """A fitted model, to be fitted again in a way."""
    vae = quick(warm_start=situation == "warm")
    if situation == "stream":
        return vae.partial_fit(X).partial_fit(OTHER_ROWS)
    return vae.fit(X)


def rows_of(situation):
    """The table of the later fit: where columns may be others, they are."""
    return another_table().assign(u=3.0) if situation == "refit" else OTHER_ROWS


@pytest.mark.parametrize(("failure", "situation"), cases("refit", "warm", "stream"))
def test_later_fit_that_fails_leaves_the_former_model(failure, situation):
    vae = fitted(situation)
    before = answers(vae, X)
    attributes = dict(vars(vae))
    dumped = pickle.dumps(vae)

    failure.happen(vae, rows_of(situation), situation)

    assert list(vars(vae)) == list(attributes)
    assert all(value is attributes[name] for name, value in vars(vae).items())
    assert answers(vae, X) == before
    assert pickle.dumps(vae) == dumped
    assert answers(pickle.loads(pickle.dumps(vae)), X) == before

    # a fit afterwards is one without the failure
    twin = fitted(situation)
    for one in (vae, twin):
        if situation == "stream":
            one.partial_fit(OTHER_ROWS)
        else:
            one.fit(rows_of(situation))
    seen = rows_of(situation)
    assert answers(vae, seen) == answers(twin, seen)


@pytest.mark.parametrize("how", ["copy", "deepcopy", "pickle", "joblib"])
def test_copy_of_a_fitted_model_is_left_alone_by_fits_of_the_original(how):
    copies = {
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
        "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
        "joblib": through_joblib,
    }
    for situation in ("refit", "warm", "stream"):
        vae = fitted(situation)
        other = copies[how](vae)
        before = answers(vae, X)
        assert answers(other, X) == before

        FAILURES["divergence"].happen(vae, rows_of(situation), situation)
        vae.partial_fit(OTHER_ROWS)
        vae.set_params(warm_start=False).fit(another_table())
        assert answers(other, X) == before
        assert fitted_names(clone(other)) == set()


def through_joblib(vae):
    buffer = io.BytesIO()
    joblib.dump(vae, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


def test_later_fit_that_succeeds_leaves_nothing_of_the_former():
    vae = quick().fit(X).fit(another_table().to_numpy())
    assert answers(vae, another_table().to_numpy()) == answers(
        quick().fit(another_table().to_numpy()), another_table().to_numpy()
    )
    assert not hasattr(vae, "feature_names_in_")


# ------------------------------------------------------------------------------------------------- interrupts, everywhere


def functions_called():
    """Names of the package's functions and classes that the module `fitting` calls."""
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(fitting))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            thing = getattr(fitting, node.func.id, None)
            if getattr(thing, "__module__", "").startswith("skvae"):
                names.add(node.func.id)
    # the error itself is no work that could be interrupted
    return sorted(names - {"DivergenceError"})


SITUATIONS = ["refit", "warm", "stream"]


def test_the_functions_that_fitting_calls_are_found():
    assert {"Progress", "learnt", "make_network", "names_of", "read_rows", "train"} <= set(functions_called())


@pytest.mark.parametrize("name", functions_called())
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_interrupt_around_each_function_leaves_the_former_model(name, is_done, monkeypatch):
    function = getattr(fitting, name)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(name)
        if is_done:
            function(*args, **kwargs)
        raise KeyboardInterrupt

    for situation in SITUATIONS:
        vae = fitted(situation)
        attributes = dict(vars(vae))
        before = answers(vae, X)
        n_calls = len(calls)

        monkeypatch.setattr(fitting, name, interrupted)
        diverges = name == "describe_divergence"
        if diverges:
            vae.set_params(learning_rate_init=1e30)
        try:
            (vae.partial_fit if situation == "stream" else vae.fit)(rows_of(situation))
        except KeyboardInterrupt:
            assert len(calls) == n_calls + 1
            assert {k: v for k, v in vars(vae).items() if k != "learning_rate_init"} == {
                k: v for k, v in attributes.items() if k != "learning_rate_init"
            }
            assert answers(vae, X) == before
        monkeypatch.undo()
    assert calls, f"{name} is called in no kind of fit"


class Tracer:
    """Counts the lines, or the bytecodes, that run in some files, and raises KeyboardInterrupt at one of them.

    Parameters
    ----------
    is_watched : callable
        ``is_watched(code) -> bool``.
    at : int or None
        Number of the line; None only counts.
    opcodes : bool, default=False
    """

    def __init__(self, is_watched, at=None, opcodes=False):
        self.is_watched = is_watched
        self.at = at
        self.opcodes = opcodes
        self.count = 0

    def __call__(self, frame, event, arg):
        if not self.is_watched(frame.f_code):
            return None
        frame.f_trace_opcodes = self.opcodes
        frame.f_trace_lines = not self.opcodes
        if event == ("opcode" if self.opcodes else "line"):
            if self.count == self.at:
                raise KeyboardInterrupt
            self.count += 1
        return self

    def __enter__(self):
        self.former = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *exc):
        sys.settrace(self.former)


@functools.cache
def is_ours(code):
    """Whether code is the package's. What lends threads and generators has tests of its own."""
    path = Path(code.co_filename)
    return FOLDER in path.parents and path.name not in ("threads.py", "randomness.py")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_interrupt_at_any_line_leaves_the_former_model(situation):
    vae = fitted(situation)
    attributes = dict(vars(vae))
    before = answers(vae, X)
    z_mean = vae.transform(X)

    def fit(one):
        (one.partial_fit if situation == "stream" else one.fit)(rows_of(situation))

    # what is done only once in a process is done before the lines are counted
    fit(copy.deepcopy(vae))
    other = copy.deepcopy(vae)
    with Tracer(is_ours) as tracer:
        fit(other)
    n_lines = tracer.count
    assert n_lines > 500

    # one in a hundred of all lines, and the last ones before the new model is set
    points = sorted({*np.linspace(0, n_lines - 30, 30).astype(int).tolist(), *range(n_lines - 30, n_lines)})
    n_interrupts = 0
    for point in points:
        try:
            with Tracer(is_ours, at=point):
                fit(vae)
        except KeyboardInterrupt:
            n_interrupts += 1
        if vars(vae).keys() != attributes.keys() or any(vars(vae)[name] is not attributes[name] for name in attributes):
            # only the lines that set it, and those behind them, may find the new model
            assert point > n_lines - 8
            vae.__dict__ = dict(attributes)
        np.testing.assert_array_equal(vae.transform(X), z_mean)
    assert n_interrupts == len(points)
    assert answers(vae, X) == before

    twin = fitted(situation)
    fit(vae)
    fit(twin)
    seen = rows_of(situation)
    assert answers(vae, seen) == answers(twin, seen)


@pytest.mark.parametrize("situation", ["first", *SITUATIONS])
def test_interrupt_at_any_bytecode_around_the_assignment_leaves_one_whole_model(situation, monkeypatch):
    vae = quick() if situation == "first" else fitted(situation)
    former = {name: vars(vae)[name] for name in fitted_names(vae)}
    seen = []

    # the fit itself is done once, and its result set again and again
    learnt = copy.deepcopy(vae)._learn(rows_of(situation), None, None, go_on=False, n_epochs=1, schedule=False)
    monkeypatch.setattr(VAEEstimator, "_learn", lambda self, *args, **kwargs: learnt)

    def is_watched(code):
        return code.co_filename == inspect.getsourcefile(VAEEstimator) and code.co_name in ("fit", "_set", "<dictcomp>")

    with Tracer(is_watched, opcodes=True) as tracer:
        copy.copy(vae).fit(X)
    assert tracer.count > 20

    for point in range(tracer.count):
        one = copy.copy(vae)
        with pytest.raises(KeyboardInterrupt), Tracer(is_watched, at=point, opcodes=True):
            one.fit(X)
        now = {name: vars(one)[name] for name in fitted_names(one)}
        assert now.keys() in (former.keys(), learnt.keys())
        whole = former if now.get("_fitted") is former.get("_fitted") else learnt
        assert now.keys() == whole.keys()
        assert all(now[name] is whole[name] for name in whole)
        seen.append(whole is learnt)
    assert seen == sorted(seen)
    assert not seen[0]
