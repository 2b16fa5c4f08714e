"""Samplers for imbalanced-learn: their checks, containers, dtypes, small classes, pipelines, and the rows that they add."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score

from skvae import VAEEstimator
from skvae.oversampling import VAEAugmenter, VAEOverSampler


def small(**params):
    """A prototype that fits in no time."""
    defaults = {
        "latent_dim": 2,
        "hidden_layer_sizes": (8,),
        "max_iter": 3,
        "likelihood": "normal",
        "decoder": "factorized",
    }
    return VAEEstimator(**{**defaults, **params})


def quick(sampler=VAEOverSampler, **params):
    return sampler(**{"vae": small(), "random_state": 0, **params})


@parametrize_with_checks(
    [
        VAEOverSampler(random_state=0),
        quick(n_neighbors=1),
        quick(vae=small(likelihood="auto", decoder="autoregressive")),
        quick(vae=small(hidden_layer_sizes=(), early_stopping=False)),
    ]
)
def test_imbalanced_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def imbalanced():
    """120 rows of 4 columns, 20 of them of class 1."""
    X, y = make_classification(240, 4, n_redundant=0, flip_y=0, random_state=0)
    rows = np.sort(np.concatenate([np.flatnonzero(y == 0)[:100], np.flatnonzero(y == 1)[:20]]))
    return X[rows], y[rows]


@pytest.fixture(scope="module")
def people():
    """60 rows of every dtype, a tenth of the cells missing, and two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 60),
            "income": rng.normal(3000, 500, 60),
            "height": rng.normal(170, 8, 60).astype(np.float32),
            "town": pd.Categorical(rng.choice(["a", "b", "c"], 60), categories=["c", "b", "a", "never"]),
            "job": rng.choice(["x", "y"], 60),
            "member": rng.uniform(size=60) < 0.5,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1000, 60), unit="D"),
        }
    )
    for column in ("income", "town", "job", "since"):
        frame.loc[rng.uniform(size=60) < 0.1, column] = None
    return frame, np.array(["no"] * 48 + ["yes"] * 12)


# ------------------------------------------------------------------------------------------------------ what comes back


LABELS = {
    "int": lambda y: y,
    "negative": lambda y: 2 * y - 1,
    "float": lambda y: y.astype(float),
    "bool": lambda y: y == 1,
    "text": lambda y: np.where(y == 1, "rare", "common"),
    "object": lambda y: np.array(["common", "rare"], dtype=object)[y],
    "int8": lambda y: y.astype(np.int8),
    "list": lambda y: y.tolist(),
    "list of text": lambda y: [["common", "rare"][label] for label in y],
    "pandas": lambda y: pd.Series(y, name="label"),
    "pandas text": lambda y: pd.Series(np.where(y == 1, "rare", "common")),
    "pandas categorical": lambda y: pd.Series(pd.Categorical.from_codes(y, ["common", "rare", "never"])),
    "pandas boolean": lambda y: pd.Series(y == 1, dtype="boolean"),
    "pandas frame": lambda y: pd.DataFrame({"label": y}),
    "polars": lambda y: pl.Series("label", np.where(y == 1, "rare", "common").tolist()),
}


def dtype_of(y):
    if isinstance(y, list):
        return type(y[0])
    return y.dtypes.tolist() if isinstance(y, pd.DataFrame) else y.dtype


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_dtype(imbalanced, sampler, kind):
    X, codes = imbalanced
    y = LABELS[kind](codes)
    params = {"target": "class"} if sampler is VAEAugmenter else {}
    X_new, y_new = quick(sampler, **params).fit_resample(X, y)
    assert type(y_new) is type(y)
    assert dtype_of(y_new) == dtype_of(y)
    assert len(y_new) == len(X_new) == (200 if sampler is VAEOverSampler else 240)
    assert np.array_equal(np.asarray(y_new)[:120], np.asarray(y))
    counts = np.unique(np.asarray(y_new).ravel(), return_counts=True)[1]
    if sampler is VAEOverSampler:
        assert sorted(counts) == [100, 100]
    else:  # the classes are drawn
        assert 24 < min(counts) < 60


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_mixed_frames_with_missing_cells(people, sampler, library):
    X, y = people
    X = pl.from_pandas(X) if library == "polars" else X.set_index(np.arange(60)[::-1])
    params = {"n_neighbors": 3} if sampler is VAEOverSampler else {}
    X_new, y_new = quick(sampler, **params).fit_resample(X, y)
    assert type(X_new) is type(X)
    assert list(X_new.columns) == list(X.columns)
    assert list(X_new.dtypes) == list(X.dtypes)
    assert len(X_new) == len(y_new) > 60
    old, new = X_new[:60], X_new[60:]
    assert old.equals(X.reset_index(drop=True) if library == "pandas" else X)
    as_pandas = new if library == "pandas" else new.to_pandas()
    assert set(as_pandas["job"].dropna()) <= {"x", "y"}
    assert "never" not in set(as_pandas["town"])
    if sampler is VAEOverSampler:  # rows between rows; those that are drawn have the tails of a normal
        assert as_pandas["age"].between(18, 80).all()
    assert as_pandas[["age", "member"]].notna().all().all()


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_pyarrow_frames_are_resampled_like_pandas_ones(people, sampler):
    X, y = people
    table = pa.Table.from_pandas(X, preserve_index=False)
    X_new, y_new = quick(sampler).fit_resample(table, pa.chunked_array([y]))
    expected, labels = quick(sampler).fit_resample(X, y)
    assert X_new.schema == table.schema
    assert X_new.slice(0, 60).equals(table)
    assert X_new.to_pandas().isna().equals(expected.isna())
    np.testing.assert_allclose(X_new.to_pandas()["height"], expected["height"], rtol=1e-6)
    assert X_new.to_pandas()["job"].dropna().tolist() == expected["job"].dropna().tolist()
    assert y_new.to_pylist() == labels.tolist()


def test_new_rows_have_the_holes_of_their_parents(people):
    X, y = people
    X = X.assign(income=X["income"].where(y == "no"), job=X["job"].fillna("x"))  # no row of class "yes" has an income
    X_new, y_new = quick().fit_resample(X, y)
    assert X_new["income"][y_new == "yes"].isna().all()
    assert X_new["job"].notna().all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, bool])
def test_arrays_keep_their_dtype(imbalanced, dtype):
    X = (3 * imbalanced[0]).astype(dtype)
    X_new, _ = quick().fit_resample(X, imbalanced[1])
    assert X_new.dtype == dtype
    np.testing.assert_array_equal(X_new[:120], X)


def test_integer_cells_stay_in_the_range_of_their_column(imbalanced):
    X = np.round(10 * imbalanced[0]).astype(int)
    X_new, _ = quick().fit_resample(X, imbalanced[1])
    assert (X_new.min(0) == X.min(0)).all()
    assert (X_new.max(0) == X.max(0)).all()


# ------------------------------------------------------------------------------------------------------- which new rows


@pytest.mark.parametrize("n_rare", [1, 2, 6])
def test_tiny_classes(imbalanced, n_rare):
    X, y = imbalanced
    rows = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:n_rare]])
    X_new, y_new = quick().fit_resample(X[rows], y[rows])
    assert np.bincount(y_new).tolist() == [100, 100]
    new, rare = X_new[100 + n_rare :], X[rows[100:]]
    if n_rare == 1:
        np.testing.assert_allclose(new, np.tile(rare, (99, 1)), rtol=1e-5)
    else:
        assert len(np.unique(new, axis=0)) > n_rare


def test_each_class_of_several_gets_its_own_rows():
    X, y = load_iris(return_X_y=True)
    rows = np.concatenate([np.arange(50), np.arange(50, 70), np.arange(100, 108)])
    X_new, y_new = VAEOverSampler(random_state=0).fit_resample(X[rows], y[rows])
    assert np.bincount(y_new).tolist() == [50, 50, 50]
    centres = np.array([X[y == c].mean(0) for c in range(3)])
    nearest = np.linalg.norm(X_new[78:, None] - centres, axis=-1).argmin(1)
    assert (nearest == y_new[78:]).mean() > 0.85


def test_classes_of_equal_rows_get_different_draws(imbalanced):
    X, y = imbalanced
    twice = np.concatenate([X[y == 0], X[y == 1], X[y == 1]])
    labels = np.repeat([0, 1, 2], [100, 20, 20])
    X_new, y_new = quick().fit_resample(twice, labels)
    a, b = (np.sort(X_new[140:][y_new[140:] == c][:, 0]) for c in (1, 2))
    assert len(a) == len(b) == 80
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize(("strategy", "counts"), [(0.5, [100, 50]), ({1: 30}, [100, 30]), ("all", [100, 100])])
def test_sampling_strategy(imbalanced, strategy, counts):
    sampler = quick(sampling_strategy=strategy)
    _, y_new = sampler.fit_resample(*imbalanced)
    assert np.bincount(y_new).tolist() == counts
    assert sampler.sampling_strategy_[1] == counts[1] - 20


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_a_seed_makes_equal_rows(imbalanced, sampler):
    X, y = imbalanced
    one, other, third = (quick(sampler, random_state=seed).fit_resample(X, y)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


def test_new_rows_lie_between_neighbours_in_the_latent_space(imbalanced):
    X, y = imbalanced
    sampler = quick(n_neighbors=2)
    X_new, _ = sampler.fit_resample(X, y)
    z, rare = sampler.vae_.transform(np.column_stack([X, y]))[y == 1], X[y == 1]
    distances = np.linalg.norm(z[:, None] - z, axis=-1)
    np.fill_diagonal(distances, np.inf)
    pairs = [(rare[i], rare[j]) for i, row in enumerate(distances) for j in np.argsort(row)[:2]]
    for row in X_new[120:]:
        off = [np.linalg.norm(row - a - (b - a) * ((row - a) @ (b - a) / ((b - a) @ (b - a)))) for a, b in pairs]
        assert min(off) < 1e-9


def test_the_gap_between_two_parts_of_a_class_stays_empty():
    """Rows of two levels that go with two clusters: a new row's numbers lie in the cluster of one of its rows, or between."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, 60)
    X = pd.DataFrame({"x": 10 * level + rng.normal(size=60), "level": np.array(["low", "high"])[level]})
    X_new, _ = VAEOverSampler(n_neighbors=3, random_state=0).fit_resample(X, np.repeat([0, 1], [40, 20]))
    new = X_new[60:]
    assert ((new["x"] > 5) == (new["level"] == "high")).all()
    assert not new["x"].between(3.5, 6.5).any()


@pytest.mark.parametrize("strategy", ["auto", {}])
def test_nothing_to_add(imbalanced, strategy):
    rows = np.concatenate([np.flatnonzero(imbalanced[1] == label)[:20] for label in (0, 1)])
    X, y = pd.DataFrame(imbalanced[0][rows], columns=list("abcd")), imbalanced[1][rows]
    X_new, y_new = quick(sampling_strategy=strategy).fit_resample(X, y)
    pd.testing.assert_frame_equal(X_new, X)
    np.testing.assert_array_equal(y_new, y)


def test_the_prototype_is_left_as_it_is(imbalanced):
    vae = small(categorical_features=[True, False, False, False], random_state=3)
    X = np.column_stack([np.arange(120) % 3, imbalanced[0][:, 1:]])
    before = vae.get_params()
    sampler = quick(vae=vae)
    X_new, _ = sampler.fit_resample(X, imbalanced[1])
    assert vae.get_params() == before
    assert not hasattr(vae, "module_")
    assert sampler.vae_.n_features_in_ == 5
    assert set(X_new[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize("names", [["a", "b", "target", "target_"], [0, 1, 2, 4]])
def test_a_column_may_be_called_as_the_target_is(imbalanced, names):
    X = pd.DataFrame(imbalanced[0], columns=names)
    X_new, _ = quick().fit_resample(X, pd.Series(imbalanced[1], name="a"))
    assert X_new.columns.tolist() == names


@pytest.mark.parametrize("likelihood", ["auto", "poisson", "negative_binomial", "quantile_normal"])
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_every_likelihood_and_decoder(imbalanced, likelihood, decoder):
    X = np.random.default_rng(0).poisson(3, size=(120, 3)).astype(float)
    X_new, _ = quick(vae=small(likelihood=likelihood, decoder=decoder)).fit_resample(X, imbalanced[1])
    assert len(X_new) == 200
    assert (X_new >= 0).all()
    if likelihood in ("poisson", "negative_binomial"):
        np.testing.assert_array_equal(X_new, np.rint(X_new))


# --------------------------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize(("n_samples", "n_new"), [(1, 1), (50, 50), (0.25, 30), (1.0, 120), (2.0, 240), (1e-9, 1)])
def test_n_samples_is_a_count_or_a_share(imbalanced, n_samples, n_new):
    X, y = imbalanced
    X_new, y_new = quick(VAEAugmenter, n_samples=n_samples).fit_resample(X, y)
    assert len(X_new) == len(y_new) == 120 + n_new
    np.testing.assert_array_equal(X_new[:120], X)


def test_shares_of_the_classes_stay(imbalanced):
    _, y_new = quick(VAEAugmenter, n_samples=3.0).fit_resample(*imbalanced)
    np.testing.assert_allclose(np.bincount(y_new), [400, 80], atol=30)


@pytest.mark.parametrize("container", ["array", "list", "pandas", "polars", "frame"])
def test_targets_that_are_numbers(container):
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    target = {
        "array": y.to_numpy(),
        "list": y.tolist(),
        "pandas": y.astype("int64"),
        "polars": pl.Series("t", y.to_numpy()),
        "frame": y.to_frame(),
    }[container]
    _, y_new = quick(VAEAugmenter, target="number").fit_resample(X, target)
    assert type(y_new) is type(target)
    assert dtype_of(y_new) == dtype_of(target)
    values = np.asarray(y_new, dtype=float).ravel()
    assert len(values) == 884
    np.testing.assert_array_equal(values[:442], y)
    assert abs(values[442:].mean() - y.mean()) < 0.2 * y.std()
    assert 0.8 < values[442:].std() / y.std() < 1.2


def test_new_rows_keep_what_X_says_of_y():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4))
    y = X @ [1.0, -2.0, 0.5, 1.0] + 0.5 * rng.normal(size=400)
    X_new, y_new = VAEAugmenter(n_samples=1000, random_state=0).fit_resample(X, y)
    line = LinearRegression().fit(X, y)
    assert abs(line.score(X_new[400:], y_new[400:]) - line.score(X, y)) < 0.1
    np.testing.assert_allclose(X_new[400:].mean(0), X.mean(0), atol=0.3)
    np.testing.assert_allclose(np.corrcoef(X_new[400:].T), np.corrcoef(X.T), atol=0.15)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_samples": -0.5}, "n_samples"),
        ({"n_samples": "many"}, "n_samples"),
        ({"target": "text"}, "target"),
        ({"vae": LinearRegression()}, "vae"),
    ],
)
def test_bad_parameters_are_named(imbalanced, params, message):
    with pytest.raises(ValueError, match=f"'{message}' parameter of VAEAugmenter"):
        quick(VAEAugmenter, **params).fit_resample(*imbalanced)


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_bad_tables_are_refused(imbalanced, sampler):
    X, y = imbalanced
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick(sampler).fit_resample(X, y[:-1])
    with pytest.raises(TypeError, match="Sparse data"):
        quick(sampler).fit_resample(csr_array(X), y)
    with pytest.raises(ValueError, match="Expected a 2-dimensional container"):
        quick(sampler).fit_resample(pd.Series(X[:, 0]), y)
    with pytest.raises(ValueError, match="infinity"):
        quick(sampler).fit_resample(np.where(X > 1, np.inf, X), y)


def test_targets_that_are_no_numbers_are_refused(imbalanced):
    with pytest.raises(ValueError, match="target='class'"):
        quick(VAEAugmenter, target="number").fit_resample(imbalanced[0], np.where(imbalanced[1] == 1, "rare", "common"))
    with pytest.raises(ValueError, match="y is missing"):
        quick(VAEAugmenter).fit_resample(imbalanced[0], np.where(imbalanced[1] == 1, np.nan, 0.5))


# ------------------------------------------------------------------------------------------------------------ pipelines


class Witness(BaseEstimator):
    """Remembers, in a list of all its clones, the rows that it was fitted on and asked to predict."""

    fitted, asked = [], []

    def fit(self, X, y):
        self.fitted.append((X.copy(), y.copy()))
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        self.asked.append(X.copy())
        return np.zeros(len(X), dtype=int)


class ClassifierWitness(ClassifierMixin, Witness):
    pass


class RegressorWitness(RegressorMixin, Witness):
    pass


@pytest.mark.parametrize("case", ["over-sampling", "classes", "numbers"])
def test_cross_validation_cannot_leak(imbalanced, case, monkeypatch):
    monkeypatch.setattr(Witness, "fitted", [])
    monkeypatch.setattr(Witness, "asked", [])
    seen = []
    monkeypatch.setattr(
        VAEEstimator, "fit", lambda self, X, *args, fit=VAEEstimator.fit: seen.append(X) or fit(self, X)
    )
    X, y = imbalanced
    y = X[:, 0] + 0.1 if case == "numbers" else y
    sampler = quick(VAEOverSampler if case == "over-sampling" else VAEAugmenter)
    model = make_pipeline(sampler, RegressorWitness() if case == "numbers" else ClassifierWitness())
    folds = list((KFold if case == "numbers" else StratifiedKFold)(3).split(X, y))
    cross_val_score(model, X, y, cv=folds)
    assert len(seen) == len(Witness.fitted) == len(Witness.asked) == 3
    for (train, test), table, (rows, _), asked in zip(folds, seen, Witness.fitted, Witness.asked, strict=True):
        np.testing.assert_array_equal(table[:, :-1], X[train])  # the VAE sees training rows, and nothing else
        np.testing.assert_array_equal(rows[: len(train)], X[train])
        assert len(rows) > len(train)
        np.testing.assert_array_equal(asked, X[test])  # predict neither adds rows nor changes them


def test_parameters_can_be_searched_over(imbalanced):
    X, y = imbalanced
    model = make_pipeline(quick(), LogisticRegression())
    grid = {"vaeoversampler__n_neighbors": [1, 3], "vaeoversampler__vae__latent_dim": [1, 2]}
    search = GridSearchCV(model, grid, cv=2, scoring="balanced_accuracy", error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert 0.5 < search.best_score_ <= 1


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_copies(imbalanced, sampler):
    X, y = imbalanced
    fitted = quick(sampler)
    X_new, _ = fitted.fit_resample(X, y)
    for other in (clone(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.fit_resample(X, y)[0], X_new)
    assert fitted.fit(X, y) is fitted
    assert fitted.n_features_in_ == 4


def test_a_class_of_one_row_is_copied_with_a_warning():
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array([0] * 59 + [1])
    with pytest.warns(UserWarning, match=r"Class 1 has a single row.* its 58 new rows are copies of it"):
        VAEOverSampler(vae=VAEEstimator(2, max_iter=3), random_state=0).fit_resample(X, y)


# ------------------------------------------------------------------------------------------------------------ what is asked


@pytest.mark.parametrize(
    "params",
    [
        {"categorical_features": [-1]},
        {"categorical_features": [False, False, True]},
        {"exposure": -1, "likelihood": {"poisson": [-2]}},
        {"bounds": {-1: (0, 9)}},
    ],
    ids=str,
)
def test_positions_from_the_end_are_those_of_columns_of_X(params):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=60), rng.integers(0, 9, 60), rng.integers(1, 4, 60)]).astype(float)
    y = rng.integers(0, 2, 60)
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=2, **params)
    augmenter = VAEAugmenter(vae=vae, random_state=0)
    augmenter.fit_resample(X, y)
    alone = clone(vae).fit(X)
    assert {j: augmenter.vae_.likelihood_[j] for j in range(3)} == alone.likelihood_
    grids = [column.grid for column in augmenter.vae_._fitted.table.columns[:3]]
    assert grids == [column.grid for column in alone._fitted.table.columns]


@pytest.mark.parametrize(
    "strategy",
    [{0: 50, 1: "a"}, lambda y: 3, lambda y: {1: 20.5}, {1: 20.5}],
    ids=["text", "no dict", "returns half a row", "half a row"],
)
def test_strategies_that_tell_no_numbers_of_rows_are_named(strategy):
    y = np.array([0] * 45 + [1] * 15)
    with pytest.raises(ValueError, match="no whole number of rows by class"):
        VAEOverSampler(sampling_strategy=strategy).fit_resample(np.random.default_rng(0).normal(size=(60, 2)), y)


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
@pytest.mark.parametrize(
    "y", [np.array(["a", None] * 30, dtype=object), np.array([0, np.nan] * 30)], ids=["text", "number"]
)
def test_a_missing_class_is_an_error(sampler, y):
    with pytest.raises(ValueError, match="y is missing in 30 rows, the first of which is row 1"):
        sampler().fit_resample(np.random.default_rng(0).normal(size=(60, 2)), y)


def test_rows_between_rows_could_be_real():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"age": rng.integers(18, 80, 80).astype(float), "height": rng.normal(1.7, 0.1, 80).round(2)})
    y = np.array([0] * 60 + [1] * 20)
    new, _ = VAEOverSampler(random_state=0).fit_resample(X, y)
    np.testing.assert_array_equal(new["age"], new["age"].round())
    np.testing.assert_array_equal(new["height"], new["height"].round(2))
