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
import pandas as pd
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


def patched(owner, name, exception, count=1):
    """A function of the package raises an exception when it is called for the `count`-th time."""

    def prepare(vae, X, monkeypatch):
        function = Raising(exception, getattr(owner, name), count)

        # a plain function, so that it is bound to instances
        def call(*args, **kwargs):
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)
        return X

    return prepare


def replaced(name, width):
    """A method of the network returns two tensors, of `width` columns, of what is no number."""

    def prepare(vae, X, monkeypatch):
        def nan(self, x, *args):
            row = torch.full((len(x), width), torch.nan)
            return row.squeeze(1), row

        monkeypatch.setattr(VAE, name, nan)
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
    "a constant that varies": Failure(ValueError, bad_rows(lambda X: X.assign(planet=range(len(X)))), only=("stream",)),
    "a parameter out of range": Failure(ValueError, parameters(latent_dim=0)),
    "other latent units": Failure(ValueError, parameters(latent_dim=3), ("warm", "stream")),
    "a layer without units": Failure(ValueError, parameters(hidden_layer_sizes=(6, 0))),
    "a device that is not there": Failure(ValueError, parameters(device="nowhere")),
    "no row to train on": Failure(ValueError, parameters(validation_fraction=0.999), WITH_END),
    "an unknown column": Failure(ValueError, parameters(likelihood={"poisson": ["length"]}), NEW),
    "divergence": Failure(DivergenceError, parameters(learning_rate_init=1e30)),
    "divergence of the validation rows": Failure(DivergenceError, replaced("loss_terms", 1), WITH_END),
    "divergence of the latents": Failure(DivergenceError, replaced("encode", 2), ("stream",)),
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
    other = clone(vae).set_params(max_iter=1).fit(rows_of(situation))
    learnt = {name: vars(other)[name] for name in fitted_names(other)}
    monkeypatch.setattr(VAEEstimator, "_learn", lambda self, *args, **kwargs: learnt)

    def is_watched(code):
        return code.co_filename == inspect.getsourcefile(VAEEstimator)

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


# ------------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("container", ["frame", "array"])
def test_divergence_names_the_column_furthest_out_and_the_way_out(method, container):
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["height", "weight", "length"])
    rows.loc[17, "weight"] = 40.0
    label = "'weight'"
    if container == "array":
        rows = rows.to_numpy()
        label = "1"
    distance = np.abs((np.asarray(rows)[:, 1] - np.asarray(rows)[:, 1].mean()) / np.asarray(rows)[:, 1].std()).max()

    vae = quick(learning_rate_init=1e30, likelihood="normal")
    with pytest.raises(DivergenceError) as caught:
        getattr(vae, method)(rows)

    message = str(caught.value)
    assert f"furthest out is {label}," in message
    assert f"lies {distance:.3g} deviations" in message
    assert "Lower learning_rate_init=1e+30" in message
    assert isinstance(caught.value.__cause__, DivergenceError)


def test_divergence_is_a_value_error_of_its_own():
    assert issubclass(DivergenceError, ValueError)
    assert DivergenceError.__module__ == "skvae.exceptions"
    with pytest.raises(ValueError, match="the loss became"):
        quick(learning_rate_init=1e30).fit(X)


def test_divergence_of_a_table_without_numbers_names_no_column():
    with pytest.raises(DivergenceError, match=r"^Training stopped: .*\. Lower learning_rate_init=1e\+30\.$"):
        quick(learning_rate_init=1e30).fit(X[["city"]])


def test_divergence_survives_pickling():
    with pytest.raises(DivergenceError) as caught:
        quick(learning_rate_init=1e30).fit(X)
    other = pickle.loads(pickle.dumps(caught.value))
    assert type(other) is DivergenceError
    assert str(other) == str(caught.value)


@pytest.mark.parametrize("n", [9, 10])
def test_tables_of_fewer_than_ten_rows_are_trained_whole(n):
    vae = quick().fit(np.random.default_rng(0).normal(size=(n, 2)))
    assert (vae.validation_scores_ is None) == (n < 10)


# --------------------------------------------------------------------------------------------------------- what is learnt


def test_latents_are_the_posteriors_of_the_rows_and_what_they_say_of_the_units():
    vae = quick(max_iter=40, early_stopping=False).fit(X)
    encoded = torch.from_numpy(vae._fitted.table.encode(X).x).float()
    with torch.no_grad():
        z_mean, z_logvar = vae.module_.encode(encoded)
    latents, kl_per_unit, active_units = fitting.read_latents(vae.module_, fitting.TrainingRows(encoded, None))

    np.testing.assert_array_equal(latents.z_mean, z_mean.numpy())
    np.testing.assert_allclose(latents.z_std, np.exp(z_logvar.numpy() / 2), rtol=1e-6)
    np.testing.assert_array_equal(latents.weight, np.ones(60))
    posterior = torch.distributions.Normal(z_mean, torch.exp(z_logvar / 2))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).mean(0)
    np.testing.assert_allclose(kl_per_unit, expected, rtol=1e-5)
    assert active_units == (z_mean.numpy().var(0) > 0.01).sum()
    assert vae.active_units_ == active_units
    np.testing.assert_array_equal(vae.kl_per_unit_, kl_per_unit)


def test_moments_of_the_optimiser_are_kept_for_streams_only():
    assert quick().fit(X)._fitted.adam_state is None
    assert quick(warm_start=True).fit(X).fit(X)._fitted.adam_state is None
    assert quick().partial_fit(X)._fitted.adam_state is not None


def test_a_stream_adds_to_what_was_learnt_and_a_warm_start_begins_anew():
    stream = quick().partial_fit(X)
    first = list(stream.loss_curve_)
    stream.partial_fit(OTHER_ROWS)
    assert stream.loss_curve_[:1] == first
    assert stream.n_iter_ == len(stream.loss_curve_) == 2
    assert len(stream._fitted.latents.z_mean) == 120

    warm = quick(warm_start=True).fit(X).fit(OTHER_ROWS)
    assert warm.n_iter_ == len(warm.loss_curve_) == 3
    assert len(warm._fitted.latents.z_mean) == 60


@pytest.mark.parametrize("situation", ["warm", "stream"])
def test_a_model_gone_on_from_keeps_its_latent_density_unless_another_is_asked_for(situation):
    vae = quick(latent_density="gaussian", warm_start=situation == "warm")
    fit = vae.partial_fit if situation == "stream" else vae.fit
    assert fit(X).latent_density_name_ == "gaussian"
    vae.set_params(latent_density="auto", hidden_layer_sizes=())
    assert fit(X).latent_density_name_ == "gaussian"
    vae.set_params(latent_density="prior")
    assert fit(X).latent_density_name_ == vae.latent_density_.name == "prior"


def test_the_estimator_is_not_written_to():
    vae = quick()
    before = dict(vars(vae))
    attributes = fitting.fit_model(vae, X, None, None, former=None, n_epochs=1, schedule=True)
    assert {name: vars(vae)[name] for name in before} == before
    assert fitted_names(vae) == set()
    assert {"_fitted", "n_features_in_", "feature_names_in_", "likelihood_"} <= attributes.keys()
