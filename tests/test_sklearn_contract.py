"""VAEEstimator among scikit-learn's own: its checks, copies, meta-estimators, frames and callbacks."""

import copy
import io
import itertools
import pickle
import pickletools

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_validate
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_sample_weight_equivalence_on_dense_data, parametrize_with_checks

from skvae import VAEEstimator

X, Y = load_iris(return_X_y=True)


def quick(**params):
    defaults = {"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    return VAEEstimator(**{**defaults, **params})


FIT_TWICE = {
    "check_pipeline_consistency",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
}
"""Checks that fit one instance twice and expect the same model both times."""


def expected_failures(estimator):
    """scikit-learn expects the same of its own estimators that draw at random, such as those of `sklearn.ensemble`."""
    reason = "repeated rows come in another order than weighted ones, and each has noise of its own"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(
    [
        VAEEstimator(),
        VAEEstimator(max_iter=3, hidden_layer_sizes=(8,), latent_dim=2, activation="relu"),
        VAEEstimator(max_iter=3, hidden_layer_sizes=()),
        VAEEstimator(max_iter=3, likelihood="bernoulli"),
        VAEEstimator(max_iter=5, early_stopping=True, n_iter_no_change=1, validation_fraction=0.3),
        VAEEstimator(max_iter=3, early_stopping=False),
        VAEEstimator(max_iter=3, warm_start=True),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    # a second fit goes on from the first under warm_start: check_fit_idempotent turns it off likewise
    if check.func.__name__ in FIT_TWICE:
        estimator.set_params(warm_start=False)
    check(estimator)


def test_sample_weight_check_is_the_only_one_expected_to_fail_and_still_does():
    with pytest.raises(AssertionError, match="not equivalent to fitting with removed or repeated data points"):
        check_sample_weight_equivalence_on_dense_data("VAEEstimator", VAEEstimator(max_iter=3))
    assert list(expected_failures(VAEEstimator())) == ["check_sample_weight_equivalence_on_dense_data"]


def test_tags_say_what_a_table_may_hold():
    tags = get_tags(VAEEstimator()).input_tags
    assert tags.allow_nan
    assert tags.categorical
    assert tags.string
    assert not tags.sparse
    table = np.array([["a", 1.0, np.nan], ["b", 2.5, 3.0]] * 10, dtype=object)
    assert quick().fit(table).transform(table).shape == (20, 2)
    table[0, 1] = {"foo": "bar"}  # which scikit-learn's checks no longer try on those that read strings
    for rows in (table, table[:, 1:]):
        with pytest.raises(TypeError, match=r"argument must be .* string.* number"):
            quick().fit(rows)


# --------------------------------------------------------------------------------------------------------------- copies

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
    "joblib": lambda vae: _through_joblib(vae),
}


def _through_joblib(vae):
    buffer = io.BytesIO()
    joblib.dump(vae, buffer)
    buffer.seek(0)
    return joblib.load(buffer)


class Halved(torch.nn.Module):
    """A network of one's own, with a buffer and dropout."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5))
        self.layers = torch.nn.Sequential(torch.nn.Linear(n_inputs, n_outputs), torch.nn.Dropout(0.5))

    def forward(self, x):
        return self.factor * self.layers(x)


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_an_unfitted_estimator_fit_alike(how):
    other = COPIES[how](quick())
    assert other.get_params() == quick().get_params()
    np.testing.assert_array_equal(other.fit(X).transform(X), quick().fit(X).transform(X))


@pytest.mark.parametrize("networks", [{}, {"encoder": Halved, "decoder": Halved}], ids=["built-in", "custom"])
@pytest.mark.parametrize("how", COPIES)
def test_copies_of_a_fitted_estimator_give_the_same_numbers(how, networks):
    vae = quick(**networks).fit(X)
    other = COPIES[how](vae)
    np.testing.assert_array_equal(other.transform(X), vae.transform(X))
    np.testing.assert_array_equal(other.score_samples(X), vae.score_samples(X))
    np.testing.assert_array_equal(other.sample(5, random_state=1), vae.sample(5, random_state=1))
    assert other.loss_curve_ == vae.loss_curve_


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "joblib"])
def test_deep_copies_share_nothing(how):
    vae = quick(max_iter=1, early_stopping=False).fit(X)
    before = vae.transform(X)
    other = COPIES[how](vae)
    with torch.no_grad():
        for p in other.module_.parameters():
            p.zero_()
    np.testing.assert_array_equal(vae.transform(X), before)
    assert not np.array_equal(other.transform(X), before)


def test_clone_keeps_parameters_and_forgets_the_fit():
    vae = quick(alpha=0.5, likelihood={"bernoulli": []}).fit(X)
    other = clone(vae)
    assert other.get_params() == vae.get_params()
    assert not hasattr(other, "module_")


def test_every_parameter_is_reached_by_set_params():
    vae = VAEEstimator()
    for name in vae.get_params():
        marker = object()
        assert vae.set_params(**{name: marker}).get_params()[name] is marker


def torch_names(thing):
    """What unpickling would look up in torch."""
    strings = (arg for _, arg, _ in pickletools.genops(pickle.dumps(thing)) if isinstance(arg, str))
    return [name for name in strings if name.split(".")[0] == "torch"]


def test_pickle_holds_plain_arrays_only():
    assert torch_names(torch.zeros(1))
    for vae in (quick().fit(X), quick().partial_fit(X), quick(warm_start=True).fit(X)):
        assert not torch_names(vae)


def test_pickle_is_close_to_the_size_of_the_weights():
    vae = VAEEstimator(hidden_layer_sizes=(256, 256), max_iter=1).fit(np.random.default_rng(0).normal(size=(64, 30)))
    n_bytes = sum(p.numel() * p.element_size() for p in vae.module_.parameters())
    assert len(pickle.dumps(vae)) < 1.05 * n_bytes + 10_000
    # Adam keeps two moments for every weight, and Muon one, which further calls of partial_fit need
    assert len(pickle.dumps(clone(vae).partial_fit(np.random.default_rng(0).normal(size=(64, 30))))) < 3.2 * n_bytes


def test_pickle_loads_in_training_and_evaluation_mode_as_saved():
    vae = quick(encoder=Halved).fit(X)
    assert not any(m.training for m in pickle.loads(pickle.dumps(vae)).module_.modules())


# ------------------------------------------------------------------------------------------------------ meta-estimators


def test_cross_validate_in_two_processes_is_that_in_one_to_the_last_bit():
    one, two = (cross_validate(quick(), X, cv=3, n_jobs=n_jobs, return_estimator=True) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one["test_score"], two["test_score"])
    assert np.isfinite(one["test_score"]).all()
    for here, there in zip(one["estimator"], two["estimator"], strict=True):
        np.testing.assert_array_equal(here.transform(X), there.transform(X))
        np.testing.assert_array_equal(here.sample(9, random_state=1), there.sample(9, random_state=1))


def test_fitted_models_answer_in_other_processes_to_the_last_bit():
    models = [quick().fit(X), quick(decoder="autoregressive").fit(X), quick().partial_fit(X)]
    with joblib.parallel_config(backend="loky", n_jobs=2):
        z_means = joblib.Parallel()(joblib.delayed(vae.transform)(X) for vae in models)
        samples = joblib.Parallel()(joblib.delayed(vae.sample)(9, random_state=1) for vae in models)
        fitted = joblib.Parallel()(joblib.delayed(vae.partial_fit)(X) for vae in models)

    for vae, z_mean, sample, there in zip(models, z_means, samples, fitted, strict=True):
        np.testing.assert_array_equal(z_mean, vae.transform(X))
        np.testing.assert_array_equal(sample, vae.sample(9, random_state=1))
        assert there is not vae
        np.testing.assert_array_equal(there.transform(X), vae.partial_fit(X).transform(X))


def test_cross_validation_of_a_fitted_model_leaves_it_as_it_was():
    vae = quick().fit(X)
    z_mean = vae.transform(X)
    fitted, unfitted = (cross_validate(one, X, cv=2, n_jobs=2)["test_score"] for one in (vae, quick()))
    np.testing.assert_array_equal(fitted, unfitted)
    np.testing.assert_array_equal(vae.transform(X), z_mean)


def test_scaler_in_front_changes_nothing():
    # bits may differ by the rounding of the scaled values, and training carries that on
    plain = quick(max_iter=10).fit(X)
    scaled = make_pipeline(StandardScaler(), quick(max_iter=10)).fit(X)
    np.testing.assert_allclose(scaled.transform(X), plain.transform(X), atol=1e-3)
    assert scaled.score(X) == pytest.approx(plain.score(X) + np.log(X.std(0)).sum(), abs=1e-3)


def test_pipeline_takes_rows_back_through_its_scaler():
    pipeline = make_pipeline(StandardScaler(), quick(max_iter=10)).fit(X)
    Z = pipeline.transform(X)
    X_hat = pipeline.inverse_transform(Z)
    assert Z.shape == (150, 2)
    assert X_hat.shape == X.shape
    np.testing.assert_allclose(X_hat.mean(0), X.mean(0), atol=0.5)


def test_classifier_behind_it_learns():
    pipeline = make_pipeline(quick(max_iter=300), LogisticRegression()).fit(X, Y)
    assert pipeline.score(X, Y) > 0.85
    assert pipeline.predict_proba(X[:3]).shape == (3, 3)


def test_column_transformer_and_feature_union_name_its_outputs():
    frame = load_iris(as_frame=True).data
    columns = ColumnTransformer([("vae", quick(), list(frame.columns[:3]))], remainder="passthrough").fit(frame)
    assert list(columns.get_feature_names_out()) == [
        "vae__vaeestimator0",
        "vae__vaeestimator1",
        f"remainder__{frame.columns[3]}",
    ]
    assert columns.transform(frame).shape == (150, 3)
    union = FeatureUnion([("vae", quick()), ("pca", PCA(2))]).fit(frame)
    assert list(union.get_feature_names_out()) == ["vae__vaeestimator0", "vae__vaeestimator1", "pca__pca0", "pca__pca1"]
    np.testing.assert_array_equal(union.transform(frame)[:, :2], quick().fit_transform(frame))


def test_grid_search_picks_the_latent_dim_of_the_data():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(400, 8))
    model = quick(hidden_layer_sizes=(), max_iter=100, batch_size=32, learning_rate_init=2e-2, early_stopping=False)
    search = GridSearchCV(model, {"latent_dim": [1, 2]}, cv=3).fit(flat)
    assert search.best_params_ == {"latent_dim": 2}
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"][1])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_halving_search_takes_epochs_as_its_resource():
    search = HalvingGridSearchCV(
        quick(), {"latent_dim": [1, 2, 3]}, resource="max_iter", min_resources=2, max_resources=8, factor=2, cv=2
    ).fit(X)
    assert search.n_resources_ == [2, 4]
    assert search.best_estimator_.max_iter == 4
    assert search.best_estimator_.n_iter_ == 4


def test_score_and_fit_route_sample_weight():
    weight = np.random.default_rng(0).uniform(size=150)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X, vaeestimator__sample_weight=weight)
    vae = pipeline[-1]
    scaled = pipeline[:-1].transform(X)
    assert vae.score(scaled, sample_weight=weight) == pytest.approx(
        np.average(vae.score_samples(scaled), weights=weight), rel=1e-12
    )


# --------------------------------------------------------------------------------------------------------------- frames


def test_names_and_set_output():
    vae = quick().fit(X)
    names = ["vaeestimator0", "vaeestimator1"]
    assert list(vae.get_feature_names_out()) == names
    plain = vae.transform(X)
    as_pandas = vae.set_output(transform="pandas").transform(pd.DataFrame(X, index=range(1000, 1150)).to_numpy())
    assert isinstance(as_pandas, pd.DataFrame)
    assert list(as_pandas.columns) == names
    np.testing.assert_array_equal(as_pandas.to_numpy(), plain)
    as_polars = vae.set_output(transform="polars").transform(X)
    assert isinstance(as_polars, pl.DataFrame)
    assert as_polars.columns == names
    np.testing.assert_array_equal(as_polars.to_numpy(), plain)


def test_set_output_keeps_the_index_of_a_pandas_frame():
    frame = pd.DataFrame(X, index=[f"row {i}" for i in range(150)], columns=list("abcd"))
    Z = quick().set_output(transform="pandas").fit_transform(frame)
    assert list(Z.index) == list(frame.index)


# ------------------------------------------------------------------------------------------------------------ callbacks


class Listener:
    """Keeps what it is told; stops after `stop_after` epochs."""

    def __init__(self, stop_after=None):
        self.stop_after, self.tasks, self.estimators = stop_after, [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.torn_down = True

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        pass

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.tasks.append(context.task_name)
        self.estimators.append((fitted_estimator, fitted_estimator.transform(X), metadata))
        return self.stop_after is not None and len(self.tasks) >= self.stop_after


def score_monitor():
    return ScoringMonitor(scoring={"score": lambda estimator, X, y: estimator.score(X)})


def test_callbacks_change_no_bit():
    quiet, heard = quick().fit(X), quick().set_callbacks(Listener(), score_monitor()).fit(X)
    np.testing.assert_array_equal(heard.transform(X), quiet.transform(X))
    assert heard.loss_curve_ == quiet.loss_curve_


def test_callbacks_hear_every_epoch_and_the_fit():
    listener = Listener()
    quick(max_iter=4).set_callbacks(listener).fit(X)
    assert listener.tasks == ["epoch"] * 4 + ["fit"]
    assert listener.torn_down


@pytest.mark.parametrize("early_stopping", [True, False])
def test_callback_that_returns_true_stops_after_that_epoch(early_stopping):
    vae = quick(max_iter=50, early_stopping=early_stopping).set_callbacks(Listener(stop_after=3)).fit(X)
    assert vae.n_iter_ == len(vae.loss_curve_) == 3
    assert np.isfinite(vae.score(X))


def test_callback_gets_an_independent_copy_of_the_estimator():
    listener = Listener()
    vae = quick(max_iter=4, early_stopping=False).set_callbacks(listener).fit(X)
    seen = [Z for _, Z, _ in listener.estimators]
    for estimator, Z, _ in listener.estimators:
        assert estimator is not vae
        np.testing.assert_array_equal(estimator.transform(X), Z)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(seen[:4]))
    np.testing.assert_array_equal(seen[-1], vae.transform(X))


def test_copy_handed_to_a_callback_is_the_model_stopped_there():
    listener = Listener()
    quick(max_iter=4, early_stopping=False).set_callbacks(listener).fit(X)
    stopped = quick(max_iter=4, early_stopping=False).set_callbacks(Listener(stop_after=2)).fit(X)
    np.testing.assert_array_equal(listener.estimators[1][1], stopped.transform(X))


@pytest.mark.parametrize("encoder", [None, Halved])
def test_copy_handed_to_a_callback_is_a_whole_fitted_estimator(encoder):
    listener = Listener()
    quick(max_iter=2, encoder=encoder).set_callbacks(listener).fit(X)
    for n_epochs, (estimator, _, _) in zip((1, 2, 2), listener.estimators, strict=True):
        assert estimator.n_iter_ == len(estimator.loss_curve_) == n_epochs
        assert np.isfinite(estimator.score(X))
        assert estimator.sample(3, random_state=0).shape == (3, 4)
        assert estimator.set_output(transform="pandas").transform(X).shape == (150, 2)
        assert list(estimator.get_feature_names_out()) == ["vaeestimator0", "vaeestimator1"]


def test_callback_gets_the_sample_weight():
    listener, weight = Listener(), np.ones(150)
    quick(max_iter=1).set_callbacks(listener).fit(X, sample_weight=weight)
    assert all(metadata["sample_weight"] is weight for _, _, metadata in listener.estimators)


def test_callback_that_fails_leaves_no_trace():
    class Failing(Listener):
        def on_fit_task_end(self, estimator, context, **kwargs):
            raise RuntimeError("no more")

    vae = quick().set_callbacks(Failing())
    with pytest.raises(RuntimeError, match="no more"):
        vae.fit(X)
    np.testing.assert_array_equal(vae.set_callbacks().fit(X).transform(X), quick().fit(X).transform(X))


def test_scoring_monitor_logs_one_score_per_epoch():
    monitor = score_monitor()
    vae = quick(max_iter=4, early_stopping=False).set_callbacks(monitor).fit(X)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    scores = [row["score"] for row in rows]
    assert len(scores) == 4
    assert len(set(scores)) == 4
    assert scores[-1] == pytest.approx(vae.score(X), rel=1e-12)


def test_progress_bar_alone_shows_every_epoch(capsys):
    quick(max_iter=4).set_callbacks(ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "VAEEstimator" in out
    assert "4/4" in out or "100%" in out


def test_progress_bar_shows_a_grid_search_and_the_fits_in_it(capsys):
    search = GridSearchCV(quick(max_iter=2), {"latent_dim": [1, 2]}, cv=2).set_callbacks(ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "GridSearchCV" in out
    assert "VAEEstimator" in out
    assert search.best_estimator_.n_iter_ == 2


def test_callbacks_are_heard_by_partial_fit():
    listener = Listener()
    quick().set_callbacks(listener).partial_fit(X)
    assert listener.tasks == ["epoch", "fit"]
