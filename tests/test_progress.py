"""What happens around the epochs of a fit: lines, and scikit-learn's callbacks."""

import re

import numpy as np
import pytest
from fits import Callback, Quiet, another_table, answers, quick, table
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skvae import progress
from skvae.model.network import VAE
from skvae.progress import hook_args

X = table()

# ------------------------------------------------------------------------------------------------------------------- lines


def lines_of(capsys):
    return capsys.readouterr().out.splitlines()


def test_without_verbose_nothing_is_printed(capsys):
    quick().fit(X).partial_fit(X)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(("max_iter", "epochs"), [(3, [1, 2, 3]), (20, [*range(1, 21)]), (60, [*range(3, 61, 3)])])
def test_about_twenty_lines_tell_the_epochs(max_iter, epochs, capsys):
    quick(max_iter=max_iter, verbose=True, early_stopping=False).fit(X)
    found = [re.match(r"epoch (\d+)/(\d+): loss (-?[\d.]+) nats per row$", line) for line in lines_of(capsys)]
    assert [int(match[1]) for match in found] == epochs
    assert {int(match[2]) for match in found} == {max_iter}


def test_lines_are_in_the_units_of_the_fitted_attributes(capsys):
    vae = quick(max_iter=20, verbose=1, batch_size=1).fit(X)
    lines = lines_of(capsys)
    assert len(lines) == len(vae.loss_curve_)
    seen = []
    for line, loss in zip(lines, vae.loss_curve_, strict=True):
        assert re.search(rf": loss {loss:.4f}(, validation score .*)? nats per row", line)
        seen += re.findall(r"validation score (\S+)", line)
    # the latest look so far, of which there is none in the first epochs
    assert len(seen) > 0
    scores = [f"{score:.4f}" for score in vae.validation_scores_]
    assert list(dict.fromkeys(seen)) == [score for score in scores if score in seen]


def test_verbose_is_read_at_the_beginning_of_a_fit(capsys):
    """What a callback sets on the estimator does not reach the fit it is called in."""
    vae = quick(verbose=True)
    vae.set_callbacks(Callback("fit begins", lambda estimator: estimator.set_params(verbose=False)))
    vae.fit(X)
    assert len(lines_of(capsys)) == 3


# --------------------------------------------------------------------------------------------------------------- callbacks


class Listener(Quiet):
    """Keeps the fitted estimators that it is given and, at once, their answers."""

    def __init__(self):
        self.heard = []

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.heard.append((context.task_name, fitted_estimator, answers(fitted_estimator, X)))


class Looking(Listener):
    """A callback that takes the model, and does nothing with it."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.heard.append(fitted_estimator)


class Silent(Listener):
    """A callback that looks at no model."""

    def on_fit_task_end(self, estimator, context):
        self.heard.append(context.task_name)


def fitted(situation, *callbacks, rows=X):
    """A model after the fit of a situation, in which its callbacks are called."""
    vae = quick(warm_start=situation == "warm")
    if situation in ("warm", "refit"):
        vae.fit(another_table() if situation == "refit" else table(seed=3))
    if situation == "stream":
        vae.partial_fit(table(seed=3))

    vae.set_callbacks(*callbacks)
    (vae.partial_fit if situation == "stream" else vae.fit)(rows)
    return vae.set_callbacks()


SITUATIONS = ["first", "refit", "warm", "stream"]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_model_at_the_end_is_the_fitted_one_and_each_model_stays_as_it_was(situation):
    listener = Listener()
    vae = fitted(situation, listener)
    names = [name for name, _, _ in listener.heard]
    assert names == ["epoch"] * (1 if situation == "stream" else 3) + ["fit"]
    assert listener.heard[-1][2] == answers(vae, X) == answers(fitted(situation), X)

    # neither the rest of that fit nor another one reaches them
    vae.set_params(warm_start=True).fit(X).partial_fit(X).set_params(warm_start=False).fit(another_table())
    for _, model, said in listener.heard:
        assert answers(model, X) == said

    # each is an estimator of its own, which can go on
    told = [model.set_callbacks() for _, model, _ in listener.heard]
    for model in told:
        assert model.partial_fit(X).n_iter_ > 1
    for (_, _, said), model in zip(listener.heard, told, strict=True):
        assert answers(model, X) != said


@pytest.mark.parametrize("situation", ["first", "refit"])
def test_model_after_an_epoch_is_that_of_the_moment(situation):
    class Stopping(Listener):
        def on_fit_task_end(self, estimator, context):
            self.heard.append(context.task_name)
            return len(self.heard) == 2

    listener = Listener()
    vae = quick(early_stopping=False)
    if situation == "refit":
        vae.fit(another_table())
    vae.set_callbacks(listener).fit(X)

    stopped = quick(early_stopping=False).set_callbacks(Stopping()).fit(X)
    assert stopped.n_iter_ == 2
    assert listener.heard[1][2] == answers(stopped, X)


def test_model_of_a_refit_has_no_names_that_the_former_table_had(recwarn):
    listener = Listener()
    vae = quick().fit(X.drop(columns="city"))
    vae.set_callbacks(listener).fit(np.random.default_rng(0).normal(size=(40, 3)))
    for _, model, _ in listener.heard:
        assert getattr(model, "feature_names_in_", None) is None
    assert not [warning for warning in recwarn if "feature names" in str(warning.message)]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_within_its_own_fit_an_estimator_is_what_it_was_before(situation):
    said = []

    def look(estimator):
        if situation == "first":
            with pytest.raises(NotFittedError):
                check_is_fitted(estimator)
            said.append(None)
        else:
            said.append(answers(estimator, rows))

    rows = another_table() if situation == "refit" else X
    hooks = ("setup", "fit begins", "epoch begins", "epoch ends", "fit ends", "teardown")
    vae = fitted(situation, *(Callback(hook, look) for hook in hooks))
    assert len(said) == len(hooks)

    former = None
    if situation != "first":
        one = quick()
        former = answers((one.partial_fit if situation == "stream" else one.fit)(table(seed=3)), X)
        if situation == "refit":
            former = answers(quick().fit(another_table()), another_table())
    assert said == [former] * len(hooks)
    check_is_fitted(vae)


def test_a_callback_that_looks_at_no_model_does_not_pay_for_copies(monkeypatch):
    copies = []
    monkeypatch.setattr(progress.Progress, "__call__", counted(progress.Progress.__call__, copies))
    listener = Silent()
    quick().set_callbacks(listener).fit(X)
    assert listener.heard == ["epoch"] * 3 + ["fit"]
    assert copies == [0, 0, 0]

    copies.clear()
    quick().set_callbacks(Looking()).fit(X)
    assert copies == [1, 1, 1]


def counted(call, copies):
    """`call`, and beside it the number of networks that are copied in it."""

    def wrapped(self, epoch, history, state):
        n_copies = 0

        def reduce(network):
            nonlocal n_copies
            n_copies += 1
            return former(network)

        with pytest.MonkeyPatch.context() as patch:
            former = VAE.__reduce__
            patch.setattr(VAE, "__reduce__", reduce)
            result = call(self, epoch, history, state)
        copies.append(n_copies)
        return result

    return wrapped


def test_hooks_are_told_the_data():
    y = np.arange(60)
    weight = np.ones(60)
    assert hook_args(X, y, None).keys() == {"X", "y"}
    # a scorer wants a target
    assert hook_args(X, None, None)["y"] is X
    told = hook_args(X, y, weight)
    assert told["X"] is X
    assert told["y"] is y
    assert told["metadata"]["sample_weight"] is weight


# ---------------------------------------------------------------------------------------------------------- rows that are done


def test_work_of_a_moment_says_nothing_and_long_work_says_how_far_it_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    report = progress.RowReport("impute", 100, True)
    for seconds in (1.0, 1.9, 2.5, 3.0, 4.6):
        now[0] = seconds
        report(20)
    assert capsys.readouterr().out.splitlines() == ["impute: 60/100 rows", "impute: 100/100 rows"]


def test_without_verbose_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    progress.RowReport("impute", 100, False)(20)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["sample", "impute", "score_samples"])
def test_long_calls_report_all_rows(method, monkeypatch, capsys):
    vae = quick().fit(X).set_params(verbose=True)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    getattr(vae, method)(60 if method == "sample" else X)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{method}: 60/60 rows"
    assert all(line.startswith(f"{method}: ") for line in lines)
