"""New rows from pipelines, in the units of their input."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)

from skvae import VAEEstimator, sample_pipeline

FRAME = load_diabetes(as_frame=True, scaled=False).data
X = FRAME.to_numpy()
SKEWED = np.exp(1.5 * np.random.default_rng(0).normal(size=(400, 2)))


def quick(**params):
    return VAEEstimator(**{"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, **params})


def by_hand(pipeline, n_samples, seed=0, **how):
    """The slow, obvious twin: the VAE's rows through every inverse."""
    rows = pipeline[-1].sample(n_samples, random_state=seed, **how)
    for step in reversed(pipeline[:-1]):
        rows = step.inverse_transform(rows)
    return rows


STEPS = {
    "standard": [StandardScaler()],
    "min-max": [MinMaxScaler()],
    "power": [PowerTransformer()],
    "quantile": [QuantileTransformer(n_quantiles=50, output_distribution="normal")],
    "pca": [PCA(5)],
    "three": [MinMaxScaler(), PCA(10), StandardScaler()],
    "function": [FunctionTransformer(np.log1p, np.expm1, check_inverse=False, feature_names_out="one-to-one")],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_rows_go_back_through_every_step(steps):
    pipeline = make_pipeline(*map(clone, steps), quick(max_iter=60)).fit(X)
    rows = sample_pipeline(pipeline, 300, random_state=0)
    np.testing.assert_array_equal(rows, by_hand(pipeline, 300))
    assert np.isfinite(rows).all()
    assert (abs(rows.mean(0) - X.mean(0)) < 0.5 * X.std(0)).all()  # in the units of X


def test_how_rows_are_drawn_is_passed_on():
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    for how in ({"noise": False}, {"latent_density": "prior"}):
        rows = sample_pipeline(pipeline, 7, random_state=3, **how)
        np.testing.assert_array_equal(rows, by_hand(pipeline, 7, 3, **how))
    with pytest.raises(ValueError, match="latent_density"):
        sample_pipeline(pipeline, 7, latent_density="other")
    assert not np.array_equal(sample_pipeline(pipeline, 7), sample_pipeline(pipeline, 7))


def test_seeded_draws_leave_the_global_state_alone():
    pipeline = make_pipeline(PowerTransformer(), quick()).fit(X)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_pipeline(pipeline, 50, random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_pipelines_in_pipelines_and_steps_that_do_nothing():
    flat = make_pipeline(StandardScaler(), PCA(5), quick()).fit(X)
    expected = sample_pipeline(flat, 20, random_state=0)
    nested = [
        make_pipeline(make_pipeline(StandardScaler(), PCA(5)), quick()),
        make_pipeline(StandardScaler(), make_pipeline(PCA(5), quick())),
        make_pipeline(make_pipeline(StandardScaler(), make_pipeline(PCA(5), "passthrough", quick()))),
        Pipeline([("a", None), ("b", StandardScaler()), ("c", "passthrough"), ("d", PCA(5)), ("e", quick())]),
    ]
    for pipeline in nested:
        np.testing.assert_array_equal(sample_pipeline(pipeline.fit(X), 20, random_state=0), expected)
    alone = make_pipeline(quick()).fit(X)
    np.testing.assert_array_equal(sample_pipeline(alone, 5, random_state=0), alone[-1].sample(5, random_state=0))


def test_samplers_are_passed_over():
    imblearn = pytest.importorskip("imblearn")
    from imblearn.pipeline import make_pipeline as make_imbalanced

    y = np.arange(len(X)) % 5 == 0
    sampler = imblearn.under_sampling.RandomUnderSampler(random_state=0)
    pipeline = make_imbalanced(StandardScaler(), sampler, PCA(5), quick()).fit(X, y)
    rows = sample_pipeline(pipeline, 20, random_state=0)
    acting = Pipeline([step for step in pipeline.steps if step[1] is not sampler])
    assert len(acting.steps) == 3
    np.testing.assert_array_equal(rows, by_hand(acting, 20))
    assert rows.shape == (20, X.shape[1])


# --------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_frames_come_back_where_the_vae_was_fitted_on_one(steps, library):
    name = library.__name__
    table = FRAME if library is pd else pl.from_pandas(FRAME)
    pipeline = make_pipeline(*map(clone, steps), quick()).set_output(transform=name).fit(table)
    rows = sample_pipeline(pipeline, 20, random_state=0)
    assert type(rows) is library.DataFrame
    assert list(rows.columns) == list(FRAME.columns)
    plain = make_pipeline(*map(clone, steps), quick()).fit(X)
    np.testing.assert_allclose(rows.to_numpy(), sample_pipeline(plain, 20, random_state=0), rtol=1e-4)


def test_arrays_come_back_without_set_output():
    pipeline = make_pipeline(StandardScaler(), quick()).fit(FRAME)
    assert type(sample_pipeline(pipeline, 3)) is np.ndarray
    assert type(sample_pipeline(make_pipeline("passthrough", quick()).fit(FRAME), 3)) is pd.DataFrame


def test_levels_come_back_from_an_encoder():
    table = pd.DataFrame({"sex": np.where(X[:, 1] > 1, "m", "f"), "size": pd.cut(X[:, 2], 3, labels=["s", "m", "l"])})
    for output in ("default", "pandas"):
        vae = quick(categorical_features=[0, 1])
        pipeline = make_pipeline(OrdinalEncoder(), vae).set_output(transform=output).fit(table)
        rows = sample_pipeline(pipeline, 50, random_state=0)
        first, second = (set(column) for column in np.asarray(rows).T)
        assert first == {"f", "m"}
        assert second <= {"s", "m", "l"}
        assert (type(rows) is pd.DataFrame) is (output == "pandas")


def test_an_inverse_that_returns_lists_gives_an_array():
    to_lists = FunctionTransformer(np.log1p, lambda rows: np.expm1(rows).tolist(), check_inverse=False)
    rows = sample_pipeline(make_pipeline(to_lists, quick()).fit(SKEWED), 7, random_state=0)
    np.testing.assert_array_equal(
        rows, sample_pipeline(make_pipeline(*STEPS["function"], quick()).fit(SKEWED), 7, random_state=0)
    )


def test_imputer_with_an_indicator_brings_missing_cells_back():
    holes = np.random.default_rng(0).uniform(size=X.shape) < 0.2
    pipeline = make_pipeline(SimpleImputer(add_indicator=True), quick(max_iter=60)).fit(np.where(holes, np.nan, X))
    assert abs(np.isnan(sample_pipeline(pipeline, 300, random_state=0)).mean() - 0.2) < 0.05
    assert not np.isnan(sample_pipeline(pipeline, 30, noise=False)).any()  # no flag is the more probable


# ------------------------------------------------------------------------------------------------- rows with no way back


def lost_by_hand(pipeline, n_samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = by_hand(pipeline, n_samples)
    return rows, ~np.isfinite(rows).all(1)


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_rows_beyond_the_range_of_a_power_transformer_are_drawn_again(output):
    pipeline = make_pipeline(PowerTransformer(), quick(max_iter=60, bounds=None)).set_output(transform=output)
    pipeline.fit(pd.DataFrame(SKEWED, columns=["u", "v"]) if output != "default" else SKEWED)
    plain, lost = lost_by_hand(pipeline, 1000)
    assert 10 < lost.sum() < 200  # the case at hand: skewed columns have a bounded range
    with pytest.warns(UserWarning, match=r"step 'powertransformer' \(PowerTransformer\).*drawn again") as caught:
        rows = sample_pipeline(pipeline, 1000, random_state=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # the warning points to the caller
    rows = np.asarray(rows)
    assert rows.shape == (1000, 2)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[~lost], plain[~lost])
    assert len(np.unique(rows, axis=0)) == 1000


def test_box_cox_is_no_other():
    pipeline = make_pipeline(PowerTransformer("box-cox"), quick(max_iter=60, bounds=None)).fit(1 + SKEWED**2)
    assert lost_by_hand(pipeline, 1000)[1].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(sample_pipeline(pipeline, 1000, random_state=0)).all()


class Below(TransformerMixin, BaseEstimator):
    """Does nothing, and has no way back above a limit."""

    def __init__(self, limit):
        self.limit = limit

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X

    def inverse_transform(self, X):
        return np.where(self.limit < X, np.nan, X)


def test_steps_before_see_only_rows_with_a_way_back():
    pipeline = make_pipeline(PCA(2), Below(20.0), quick(max_iter=60)).fit(SKEWED)
    below, lost = lost_by_hand(pipeline[1:], 1000)
    assert lost.any()  # and PCA refuses missing values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = sample_pipeline(pipeline, 1000, random_state=0)
    np.testing.assert_allclose(rows[~lost], pipeline[0].inverse_transform(below[~lost]), rtol=1e-12)


def test_rows_drawn_again_follow_the_model_cut_off():
    column = np.random.default_rng(0).normal(size=(500, 2))
    pipeline = make_pipeline(Below(0.0), quick(hidden_layer_sizes=(), max_iter=100)).fit(column)
    with pytest.warns(UserWarning, match=r"step 'below' \(Below\) gave no finite values for \d+ of \d+ rows"):
        rows = sample_pipeline(pipeline, 8000, random_state=0)
    free = pipeline[-1].sample(40_000, random_state=1)
    kept = free[(free <= 0).all(1)]
    np.testing.assert_allclose(rows.mean(0), kept.mean(0), atol=0.05)
    np.testing.assert_allclose(rows.std(0), kept.std(0), atol=0.05)


def test_few_rows_drawn_again_make_no_warning():
    limit = np.sort(quick().fit(X).sample(1000, random_state=0)[:, 0])[-4]
    pipeline = make_pipeline(Below(np.array([limit] + [np.inf] * 9)), quick()).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = sample_pipeline(pipeline, 1000, random_state=0)
    assert (rows[:, 0] <= limit).all()


def test_no_way_back_at_all_names_the_step():
    pipeline = make_pipeline(StandardScaler(), Below(-1e9), quick()).fit(X)
    message = r"step 'below' \(Below\) gave no finite values for 210 of 210 rows drawn; 10 rows are missing after 20"
    with pytest.raises(ValueError, match=message):
        sample_pipeline(pipeline, 10)


# --------------------------------------------------------------------------------------------------------------- errors

NO_WAY_BACK = {
    "columntransformer": ColumnTransformer([("scaled", StandardScaler(), [0, 1])]),
    "featureunion": FeatureUnion([("scaled", StandardScaler())]),
    "functiontransformer": FunctionTransformer(np.square),
    "simpleimputer": SimpleImputer(),
}


@pytest.mark.parametrize("name", NO_WAY_BACK)
def test_step_without_a_way_back_is_named(name):
    step = NO_WAY_BACK[name]
    message = rf"Step '{name}' \({type(step).__name__}\) has no inverse_transform.*Leave the step out"
    with pytest.raises(ValueError, match=message):
        sample_pipeline(make_pipeline(step, quick()).fit(X), 5)
    nested = Pipeline([("outer", make_pipeline(StandardScaler(), step)), ("vae", quick())]).fit(X)
    with pytest.raises(ValueError, match=f"Step 'outer__{name}'"):
        sample_pipeline(nested, 5)


def test_step_that_fails_is_named():
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    pipeline.steps[0] = ("scaler", StandardScaler().fit(X[:, :3]))
    with pytest.raises(ValueError, match=r"Step 'scaler' \(StandardScaler\) cannot take rows back: "):
        sample_pipeline(pipeline, 5)


def test_what_is_no_pipeline_with_a_vae_at_its_end_is_refused():
    pipeline = make_pipeline(StandardScaler(), quick())
    with pytest.raises(NotFittedError, match=r"not fitted.*VAEEstimator.*Call fit"):
        sample_pipeline(pipeline, 5)
    with pytest.raises(ValueError, match=r"last step is 'pca' \(PCA\)"):
        sample_pipeline(make_pipeline(quick(), PCA(2)).fit(X), 5)
    with pytest.raises(ValueError, match="last step is missing"):
        sample_pipeline(make_pipeline("passthrough"), 5)
    with pytest.raises(TypeError, match=r"got VAEEstimator\. Call its own method sample"):
        sample_pipeline(quick().fit(X), 5)
    search = GridSearchCV(pipeline, {"vaeestimator__latent_dim": [1]}, cv=2).fit(X)
    with pytest.raises(TypeError, match=r"got GridSearchCV\. Pass its best_estimator_"):
        sample_pipeline(search, 5)
    assert sample_pipeline(search.best_estimator_, 5).shape == (5, 10)
    assert sample_pipeline(make_pipeline(StandardScaler(), quick(), PCA(2)).fit(X)[:2], 5).shape == (5, 10)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, True, None, "5"])
def test_wrong_numbers_of_rows_are_refused(n_samples):
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        sample_pipeline(pipeline, n_samples)
