"""Any input a person may pass: it works, or the error says what was expected, what came, and the way out."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skvae import VAEEstimator
from skvae.exceptions import DivergenceError

RNG = np.random.default_rng(13)
X = np.round(10 * RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)))
METHODS = {
    "transform": lambda vae, X: vae.transform(X),
    "posterior": lambda vae, X: vae.posterior(X)[1],
    "reconstruct": lambda vae, X: vae.reconstruct(X),
    "score_samples": lambda vae, X: vae.score_samples(X),
    "score": lambda vae, X: np.array(vae.score(X)),
}


def quick(**params):
    return VAEEstimator(**{"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, **params})


def assert_all_of_it_works(rows, **params):
    """Fit, then every method: finite numbers of the right shape. The fitted model is returned."""
    n, n_columns = np.shape(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = quick(**params).fit(rows)
        assert vae.transform(rows).shape == (n, 2)
        for method in METHODS.values():
            assert np.isfinite(np.asarray(method(vae, rows), dtype=float)).all()
        for new in (vae.sample(5, random_state=0), vae.inverse_transform(np.zeros((5, 2)))):
            assert np.shape(new) == (5, n_columns)
            assert np.isfinite(np.asarray(new, dtype=float)).all()
    assert np.isfinite(vae.loss_curve_).all()
    assert np.isfinite(vae.kl_per_unit_).all()
    assert all(torch.isfinite(p).all() for p in vae.module_.parameters())
    return vae


# ----------------------------------------------------------------------------------------------------------- what works

CONTAINERS = {
    "float64": X,
    "float32": X.astype(np.float32),
    "float16": X.astype(np.float16),
    "int64": X.astype(np.int64),
    "int8": X.astype(np.int8),
    "uint8": (X - X.min()).astype(np.uint8),
    "bool": X > 0,
    "object": X.astype(object),
    "list": X.tolist(),
    "tuple": tuple(map(tuple, X)),
    "Fortran order": np.asfortranarray(X),
    "every other row": np.repeat(X, 2, axis=0)[::2],
    "reversed": X[::-1, ::-1],
    "big endian": X.astype(">f8"),
    "pandas": pd.DataFrame(X, columns=list("abcd")),
    "pandas with an index": pd.DataFrame(X, columns=list("abcd"), index=np.arange(60) * 7),
    "pandas with numbered columns": pd.DataFrame(X),
    "pandas float32": pd.DataFrame(X.astype(np.float32), columns=list("abcd")),
    "pandas nullable integers": pd.DataFrame(X.astype(int), columns=list("abcd")).astype("Int64"),
    "pandas nullable floats": pd.DataFrame(X, columns=list("abcd")).astype("Float64"),
    "pandas nullable booleans": pd.DataFrame(X > 0, columns=list("abcd")).astype("boolean"),
    "pandas booleans": pd.DataFrame(X > 0, columns=list("abcd")),
    "pandas pyarrow": pd.DataFrame(X.astype(int), columns=list("abcd")).astype("int64[pyarrow]"),
    "pandas of several types": pd.DataFrame({"a": X[:, 0], "b": X[:, 1].astype(int), "c": X[:, 2] > 0}),
    "polars": pl.DataFrame(X, schema=list("abcd")),
    "polars of several types": pl.DataFrame({"a": X[:, 0], "b": X[:, 1].astype(np.int32), "c": X[:, 2] > 0}),
    "polars float32": pl.DataFrame(X.astype(np.float32), schema=list("abcd")),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_container_works(container):
    assert_all_of_it_works(CONTAINERS[container])


@pytest.mark.parametrize(
    "container",
    ["list", "tuple", "int64", "object", "Fortran order", "every other row", "big endian", "pandas", "polars"],
)
def test_container_of_the_same_values_gives_the_same_bits(container):
    expected = quick().fit(X)
    rows = CONTAINERS[container]
    vae = quick().fit(rows)
    np.testing.assert_array_equal(vae.transform(rows), expected.transform(X))
    np.testing.assert_array_equal(vae.score_samples(rows), expected.score_samples(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_dtype_is_kept(dtype):
    rows = X.astype(dtype)
    vae = quick().fit(rows)
    assert vae.transform(rows).dtype == dtype
    assert all(part.dtype == dtype for part in vae.posterior(rows))
    for new in (vae.sample(3, random_state=0), vae.reconstruct(rows), vae.inverse_transform(np.zeros((2, 2), dtype))):
        assert new.dtype == dtype
    assert quick().fit(X.astype(int)).transform(X.astype(int)).dtype == np.float64


def test_float32_and_float64_say_nearly_the_same():
    rows = X.astype(np.float32)
    single, double = quick().fit(rows), quick().fit(X)
    np.testing.assert_allclose(single.transform(rows), double.transform(X), atol=1e-3)
    np.testing.assert_allclose(single.score_samples(rows), double.score_samples(X), atol=1e-2)


def test_input_is_not_changed_and_may_be_read_only():
    rows = X.copy()
    rows.setflags(write=False)
    vae = assert_all_of_it_works(rows)
    np.testing.assert_array_equal(rows, X)
    Z = vae.transform(rows)
    Z.setflags(write=False)
    vae.inverse_transform(Z)
    weight = np.ones(60)
    weight.setflags(write=False)
    quick().fit(rows, sample_weight=weight).partial_fit(rows, sample_weight=weight)


def test_results_are_arrays_of_the_users_own():
    vae = quick().fit(X)
    Z, rows = vae.transform(X), vae.sample(3, random_state=0)
    again = vae.transform(X)
    Z[:] = 0
    rows[:] = 0
    np.testing.assert_array_equal(vae.transform(X), again)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 11, 129])
def test_any_number_of_rows(n):
    rows = np.random.default_rng(0).normal(size=(n, 3))
    assert_all_of_it_works(rows)
    assert_all_of_it_works(rows, early_stopping=False)


def test_one_row_of_several_at_transform():
    vae = quick().fit(X)
    np.testing.assert_allclose(vae.transform(X[:1]), vae.transform(X)[:1], rtol=1e-10)


def test_last_batch_of_one_row():
    assert_all_of_it_works(X[:33], batch_size=32, early_stopping=False)
    assert_all_of_it_works(X[:3], batch_size=1, early_stopping=False)


def test_one_column():
    vae = assert_all_of_it_works(X[:, :1])
    assert vae.sample(3, random_state=0).shape == (3, 1)


def test_more_latent_units_than_columns():
    vae = quick(latent_dim=16).fit(X)
    assert vae.transform(X).shape == (60, 16)
    assert np.isfinite(vae.score(X))


@pytest.mark.parametrize("n_constant", [1, 3, 4])
def test_constant_columns(n_constant):
    rows = X.copy()
    rows[:, :n_constant] = [5.0, 0.0, -1e6, 3.0][:n_constant]
    vae = assert_all_of_it_works(rows)
    np.testing.assert_array_equal(vae.sample(5, random_state=0)[:, :n_constant], np.tile(rows[0, :n_constant], (5, 1)))
    np.testing.assert_array_equal(vae.reconstruct(rows)[:, :n_constant], rows[:, :n_constant])


def test_columns_that_repeat_each_other_have_a_finite_density():
    rows = np.column_stack([X[:, 0], X[:, 0], 3 * X[:, 0] + 1])
    assert_all_of_it_works(rows, max_iter=500, learning_rate_init=2e-2)


def test_784_columns():
    rows = np.random.default_rng(0).uniform(size=(100, 784)).astype(np.float32)
    assert_all_of_it_works(rows, likelihood="bernoulli")
    assert_all_of_it_works(rows)


def test_many_rows():
    rows = np.random.default_rng(0).normal(size=(200_000, 3)).astype(np.float32)
    vae = quick(max_iter=1, batch_size=8192).fit(rows)
    assert vae.transform(rows).shape == (200_000, 2)
    assert vae.reconstruct(rows).shape == rows.shape
    assert np.isfinite(vae.score_samples(rows, n_draws=2)).all()


SCALES = {
    "huge": (np.float64, [1e300, 1.0, 1e150, 1e300]),
    "tiny": (np.float64, [1e-300, 1.0, 1e-150, 1e-300]),
    "huge and tiny": (np.float64, [1e300, 1e-300, 1e200, 1e-200]),
    "huge in float32": (np.float32, [1e36, 1.0, 1e30, 1e36]),
    "tiny in float32": (np.float32, [1e-36, 1.0, 1e-30, 1e-36]),
}


@pytest.mark.parametrize("scale", SCALES)
def test_huge_and_tiny_scales(scale):
    dtype, factors = SCALES[scale]
    rows = (X / 100 * factors).astype(dtype)
    plain = (X / 100).astype(dtype)
    assert_all_of_it_works(rows)
    vae, expected = quick(bounds=None).fit(rows), quick(bounds=None).fit(plain)
    np.testing.assert_allclose(vae.transform(rows), expected.transform(plain), atol=1e-3)
    drawn, drawn_plain = vae.sample(50, random_state=0).astype(float), expected.sample(50, random_state=0)
    np.testing.assert_allclose(drawn / factors, drawn_plain, atol=1e-3)


def test_subnormal_numbers():
    assert_all_of_it_works(X * [1e-310, 1.0, 1.0, 1.0])


def test_the_largest_floats_of_both_signs():
    rows = X.copy()
    rng = np.random.default_rng(0)
    rows[:, 0] = rng.choice([-1.0, 1.0], 60) * rng.uniform(1.5e308, 1.7e308, 60)
    vae = quick().fit(rows)
    assert np.isfinite(vae.transform(rows)).all()
    assert np.isfinite(vae.sample(5, random_state=0)[:, 1:]).all()


def test_large_offset():
    assert_all_of_it_works(1e12 + X)


def test_one_outlier_among_many():
    rows = X.copy()
    rows[7, 1] = 1e12
    assert_all_of_it_works(rows, max_iter=50)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [1e30, -1e30, 1e200, -1e200])
def test_absurd_rows_give_no_nan(dtype, value):
    if abs(value) > float(np.finfo(dtype).max):
        value = np.sign(value) * 3e38
    vae = quick(max_iter=30).fit(X.astype(dtype))
    absurd = X.astype(dtype)
    absurd[::2] = value
    absurd[1, 0] = -value
    for method in METHODS.values():
        assert not np.isnan(method(vae, absurd)).any()
    for part in (vae.transform(absurd), *vae.posterior(absurd), vae.reconstruct(absurd)):
        assert np.isfinite(part).all()
    assert (vae.score_samples(absurd)[::2] < vae.score_samples(X.astype(dtype)).min()).all()


def test_absurd_latent_points_give_no_nan():
    vae = quick().fit(np.column_stack([X, X[:, 0] > 0]))
    assert not np.isnan(vae.inverse_transform(np.full((2, 2), 1e30))).any()


# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED = {
    "infinity": (np.where(X[3, 1] == X, np.inf, X), r"(?i)infinity"),
    "minus infinity": (np.where(X[3, 1] == X, -np.inf, X), r"(?i)infinity"),
    "text": (
        np.arange(240).reshape(60, 4).astype(str).astype(object) + "cm",
        r"All columns look like identifiers or free text: 0|could not convert string to float",
    ),
    "text in a frame": (
        pd.DataFrame({"a": [f"blue {i}" for i in range(60)], "b": [f"red {i}" for i in range(60)]}),
        r"'b' \(sequence\)|2 features|could not",
    ),
    "complex": (X + 1j, r"Complex data not supported"),
    "sparse": (scipy.sparse.csr_array(X), r"(?i)sparse .*dense"),
    "one dimension": (X[:, 0], r"(?s)Expected 2D array.*reshape"),
    "three dimensions": (X[:, :, None], r"dim(ension)? ?3|3"),
    "no rows": (X[:0], r"0 sample\(s\).*minimum of 1"),
    "no columns": (X[:, :0], r"0 feature\(s\).*minimum of 1"),
    "a number": (3.0, r"Expected 2D array"),
    "nothing": (None, r"(?i)array|2D|None|NaN"),
    "ragged lists": ([[1.0, 2.0], [3.0]], r"inhomogeneous|sequence"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "transform", "score_samples"])
@pytest.mark.parametrize("what", REFUSED)
def test_input_is_refused_with_a_reason(what, method):
    rows, words = REFUSED[what]
    vae = quick()
    if method in METHODS:
        vae.fit(X[:, :1] if getattr(rows, "shape", (0, 4))[1:] == (1,) else X[:, : 2 if "frame" in what else 4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names of columns
        with pytest.raises((ValueError, TypeError), match=words):
            getattr(vae, method)(rows)
    assert method in METHODS or not hasattr(vae, "module_")


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_table_without_a_single_value_is_refused(method):
    with pytest.raises(ValueError, match="All 60 cells of X are missing"):
        getattr(quick(), method)(np.full((20, 3), np.nan))


@pytest.mark.parametrize("method", METHODS)
def test_wrong_width_is_refused(method):
    vae = quick().fit(X)
    for width in (3, 5):
        with pytest.raises(ValueError, match=f"X has {width} features, but VAEEstimator is expecting 4 features"):
            METHODS[method](vae, np.zeros((2, width)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_wrong_names_are_refused(method, library):
    vae = quick().fit(library({name: X[:, j] for j, name in enumerate("abcd")}))
    for names in ("abce", "dcba"):
        wrong = library({name: X[:, j] for j, name in enumerate(names)})
        with pytest.raises(ValueError, match="feature names should match"):
            METHODS[method](vae, wrong)


def test_values_without_names_after_names_are_a_warning():
    vae = quick().fit(pd.DataFrame(X, columns=list("abcd")))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        vae.transform(X)


@pytest.mark.parametrize("width", [1, 3])
def test_latent_points_of_the_wrong_width_are_refused(width):
    with pytest.raises(ValueError, match=f"X has {width} columns, but the model has latent_dim=2"):
        quick().fit(X).inverse_transform(np.zeros((2, width)))


@pytest.mark.parametrize(
    ("Z", "words"),
    [
        ([[np.nan, 0.0]], "X contains NaN"),
        ([[np.inf, 0.0]], "X contains infinity"),
        ([0.0, 0.0], "Expected 2D array"),
        (np.zeros((0, 2)), "0 sample"),
        ([["a", "b"]], "could not convert string"),
    ],
    ids=str,
)
def test_latent_points_that_are_none_are_refused(Z, words):
    with pytest.raises(ValueError, match=words):
        quick().fit(X).inverse_transform(Z)


def test_latent_points_may_be_lists_integers_and_frames():
    vae = quick().fit(X)
    expected = vae.inverse_transform(np.ones((3, 2)))
    for Z in ([[1, 1]] * 3, pd.DataFrame(np.ones((3, 2))), pl.DataFrame(np.ones((3, 2))), np.ones((3, 2), np.int8)):
        np.testing.assert_allclose(vae.inverse_transform(Z), expected, rtol=1e-6)


UNFITTED = {
    **METHODS,
    "inverse_transform": lambda vae, X: vae.inverse_transform(np.zeros((2, 2))),
    "sample": lambda vae, X: vae.sample(),
    "get_feature_names_out": lambda vae, X: vae.get_feature_names_out(),
}


@pytest.mark.parametrize("method", UNFITTED)
def test_unfitted_use_says_so(method):
    with pytest.raises(NotFittedError, match=r"VAEEstimator instance is not fitted yet.*fit"):
        UNFITTED[method](quick(), X)


BAD_PARAMETERS = [
    ("latent_dim", [0, -1, 1.5, "two", None, np.nan]),
    ("hidden_layer_sizes", [(0,), (-3, 4), (2.5,), ("a",), None, 0, 3.5, "wide"]),
    ("activation", ["swish", None, 3]),
    ("likelihood", ["gauss", None, 3, ["normal"]]),
    ("exposure", [1.5, ["years"], np.nan]),
    ("latent_density", ["posterior", None, 3]),
    ("beta", [-0.1, "much", None, np.nan, np.inf]),
    ("alpha", [-1, "some", None, np.nan, np.inf]),
    ("batch_size", [0, -5, 2.5, "auto", None]),
    ("learning_rate_init", [0, -1e-3, "adaptive", None, np.nan, np.inf]),
    ("max_iter", [0, -1, 1.5, "many"]),
    ("tol", [-1e-3, "small", None, np.nan]),
    ("early_stopping", ["yes", None, 2]),
    ("validation_fraction", [0, 1, -0.5, 1.5, "half", None]),
    ("n_iter_no_change", [0, -1, 1.5, None]),
    ("warm_start", ["yes", None, 2]),
    ("encoder", ["mlp", 3, [torch.nn.Linear(2, 2)]]),
    ("decoder", ["mlp", None, 3]),
    ("categorical_features", ["all", 3]),
    ("handle_unknown", ["skip", None]),
    ("bounds", ["seen", 3, (0, 1)]),
    ("protect", [0, 1, 2.5, "all"]),
    ("ignore", ["none", 3, {0: "forget"}]),
    ("constraints", ["positive", 3]),
    ("device", ["abacus", None, 3, "cuda:99", "meta"]),
    ("verbose", ["loud", -1, None]),
    ("random_state", ["seed", -1, 1.5]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}={value!r:.20}") for name, values in BAD_PARAMETERS for value in values],
)
def test_bad_parameter_is_named_with_its_value(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        quick(**{name: value}).fit(X)
    assert repr(value) in str(caught.value) or str(value) in str(caught.value)


def test_every_parameter_is_among_the_bad_ones():
    assert {name for name, _ in BAD_PARAMETERS} == set(VAEEstimator().get_params())


def test_bad_parameters_are_found_by_fit_and_not_before():
    vae = VAEEstimator(latent_dim=-1)
    with pytest.raises(InvalidParameterError, match="latent_dim"):
        vae.fit(X)


GOOD_PARAMETERS = [
    {"latent_dim": np.int64(3)},
    {"batch_size": np.int64(16)},
    {"max_iter": np.int32(2)},
    {"n_iter_no_change": np.int64(2)},
    {"hidden_layer_sizes": 8},
    {"hidden_layer_sizes": [8, 4]},
    {"hidden_layer_sizes": np.array([8, 4])},
    {"hidden_layer_sizes": ()},
    {"beta": 0},
    {"beta": np.float32(0.5)},
    {"alpha": 1},
    {"batch_size": 10**9},
    {"learning_rate_init": np.float32(1e-3)},
    {"tol": 0},
    {"early_stopping": np.bool_(True)},
    {"random_state": np.random.RandomState(0)},
    {"random_state": np.int32(5)},
    {"random_state": None},
    {"device": "cpu"},
    {"validation_fraction": 0.9},
    {"validation_fraction": 1e-9},
]


@pytest.mark.parametrize("params", GOOD_PARAMETERS, ids=lambda params: f"{params!r:.40}")
def test_good_parameter_is_taken_and_left_as_it_is(params):
    vae = quick(**params)
    ((name, value),) = params.items()
    vae.fit(X)
    assert np.isfinite(vae.transform(X)).all()
    assert getattr(vae, name) is value


def test_validation_fraction_that_leaves_no_training_row_is_named():
    with pytest.raises(ValueError, match="validation_fraction"):
        quick(validation_fraction=0.99).fit(X)


def test_masked_cells_are_missing():
    X = np.random.default_rng(0).normal(size=(80, 3))
    mask = np.random.default_rng(1).uniform(size=X.shape) < 0.2
    masked = np.ma.masked_array(np.where(mask, 1e6, X), mask=mask)
    with_nan = np.where(mask, np.nan, X)
    one, other = quick().fit(masked), quick().fit(with_nan)
    np.testing.assert_array_equal(one.transform(masked), other.transform(with_nan))
    np.testing.assert_array_equal(one.impute(masked, random_state=0), other.impute(with_nan, random_state=0))
    counts = np.ma.masked_array(np.random.default_rng(2).integers(0, 50, (80, 2)), mask=mask[:, :2])
    assert np.isnan(quick().fit(counts)._read(counts)).sum() == mask[:, :2].sum()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_cells_beside_one_that_is_far_out_are_filled_by_numbers(decoder):
    vae = quick(decoder=decoder).fit(np.random.default_rng(0).normal(size=(80, 2)))
    far = np.array([[1e20, np.nan], [np.nan, -1e200], [1e5, np.nan]])
    for full in (vae.impute(far), *vae.impute(far, n_draws=2)):
        assert np.isfinite(full).all()
        np.testing.assert_array_equal(full[~np.isnan(far)], far[~np.isnan(far)])
    vae = quick(decoder=decoder, bounds=None).fit(np.random.default_rng(0).normal(size=(80, 2)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .* rows given")
        rows = vae.sample(3, given={0: 1e20}, random_state=0)
    assert np.isfinite(rows).all()
    assert (rows[:, 0] == 1e20).all()


def of_every_object():
    numbers = np.random.default_rng(0).normal(size=60)
    days = [datetime.date(2020, 1, 1 + i % 28) for i in range(60)]
    return {
        "floats": ([*numbers[:-1], None], "normal"),
        "integers": (list(range(60)), "normal"),
        "large integers": ([2**70 + i * 2**60 for i in range(60)], "normal"),
        "decimals": ([decimal.Decimal(i) / 7 for i in range(60)], "normal"),
        "dates": (days, "normal"),
        "datetimes": ([datetime.datetime(2020, 1, 1, i % 24) for i in range(60)], "normal"),
        "datetimes in a zone": (
            [datetime.datetime(2020, 1, 1, i % 24, tzinfo=datetime.UTC) for i in range(60)],
            "normal",
        ),
        "durations": ([datetime.timedelta(minutes=i) for i in range(60)], "normal"),
        "text": (["a", "b", "c"] * 20, "categorical"),
        "text and numbers": (["a", 1, 2.5] * 20, "categorical"),
        "nothing": ([None] * 60, "constant"),
    }


@pytest.mark.parametrize("cells", of_every_object())
def test_objects_of_pandas_are_what_they_all_are(cells):
    column, kind = of_every_object()[cells]
    frame = pd.DataFrame({"c": pd.Series(column, dtype=object), "x": np.random.default_rng(1).normal(size=60)})
    vae = quick().fit(frame)
    assert vae.likelihood_["c"] == kind
    assert frame["c"].dtype == object
    assert np.isfinite(vae.score_samples(frame)).all()
    assert len(vae.sample(3, random_state=0)) == 3


def test_sparse_columns_and_long_doubles_are_numbers():
    X = np.random.default_rng(0).normal(size=(60, 2))
    for frame in (pd.DataFrame(X).astype(pd.SparseDtype(float, 0)), pd.DataFrame(X.astype(np.longdouble))):
        vae = quick().fit(frame)
        assert set(vae.likelihood_.values()) == {"normal"}
        np.testing.assert_allclose(vae.transform(frame), quick().fit(pd.DataFrame(X)).transform(pd.DataFrame(X)))


def test_tensors_are_arrays():
    X = np.random.default_rng(0).normal(size=(60, 2))
    vae = quick().fit(torch.from_numpy(X))
    np.testing.assert_array_equal(vae.transform(torch.from_numpy(X)), quick().fit(X).transform(X))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pl.DataFrame({"a": [1.0, 2.0]}).lazy(), r"got a LazyFrame of polars\. Pass X\.collect\(\)"),
        (pl.Series("a", [1.0, 2.0]), r"got a column of 2 cells\. Pass X\.to_frame\(\)"),
        (pd.DataFrame(np.ones((3, 3)), columns=["a", "b", "a"]), "names of their own, but 'a' occurs more than once"),
        (
            pl.DataFrame({"a": [[1], [2, 3]]}),
            r"Column 'a' of dtype List\(Int64\) holds a list or a record in each cell",
        ),
        (pl.DataFrame({"a": [{"k": 1}] * 3}), "Column 'a' of dtype Struct.* holds a list or a record in each cell"),
    ],
    ids=["lazy", "column", "same names", "lists", "records"],
)
def test_what_is_no_table_of_cells_is_refused_with_the_way_out(table, message):
    with pytest.raises(ValueError, match=message):
        quick().fit(table)


# ------------------------------------------------------------------------------------------------- the ends of the numbers


ENDS = {
    "single": (np.float32, [-3e38, 3e38]),
    "double": (np.float64, [-1e308, 1e308]),
    "largest": (np.float64, [-1.79e308, 1.79e308]),
    "subnormal": (np.float64, [5e-324, 1e-320]),
    "both": (np.float64, [1e308, 1e-308]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bounds", ["observed", None])
@pytest.mark.parametrize("name", ENDS)
def test_numbers_at_the_ends_of_their_dtype(name, bounds):
    dtype, ends = ENDS[name]
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.choice(ends, 60) * rng.uniform(0.5, 1, 60), rng.normal(size=60)]).astype(dtype)
    vae = quick(bounds=bounds, likelihood="normal").fit(rows)
    holes = rows.copy()
    holes[::3, 0] = np.nan
    for made in (
        vae.sample(300, random_state=0),
        vae.impute(holes),
        vae.reconstruct(rows),
        *vae.impute(holes, n_draws=2),
    ):
        assert made.dtype == dtype
        assert np.isfinite(made).all()
    assert np.isfinite(vae.score_samples(rows)).all()


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_dates_that_stand_for_none_leave_dates(library):
    ends = [datetime.datetime(2020, 1, 1), datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1)] * 20
    cells = {"when": ends, "day": [end.date() for end in ends], "x": np.random.default_rng(0).normal(size=60).tolist()}
    if library is pd.DataFrame:
        frame = pd.DataFrame(cells).astype({"when": "datetime64[us]"})
    else:
        frame = pl.DataFrame(
            {**cells, "clock": [datetime.time(0, 0, 1), datetime.time(23, 59, 59), datetime.time(9)] * 20}
        )
    for bounds in ("observed", None):
        made = quick(bounds=bounds).fit(frame).sample(500, random_state=0)
        for name in made.columns:
            assert all(cell is not None and cell == cell for cell in made[name].to_list())


def test_a_loss_that_grows_by_its_own_weights_is_not_blamed_on_a_column():
    with pytest.raises(DivergenceError, match="No number lies far out"):
        quick(learning_rate_init=1e30).fit(X)


# --------------------------------------------------------------------------------------- frames that are like the one fitted


def test_categories_of_other_levels_are_filled_and_kept():
    frame = pd.DataFrame({"a": pd.Categorical(list("abc") * 20), "x": np.random.default_rng(0).normal(size=60)})
    vae = quick(handle_unknown="ignore").fit(frame)
    fewer = vae.impute(pd.DataFrame({"a": pd.Categorical(["a", None]), "x": [np.nan, 1.0]}))
    assert fewer["a"].iloc[0] == "a"
    assert fewer["a"].iloc[1] in set("abc")
    assert fewer["a"].dtype == frame["a"].dtype
    unknown = vae.impute(pd.DataFrame({"a": pd.Categorical(["q", None]), "x": [np.nan, 1.0]}))
    assert unknown["a"].iloc[0] == "q"
    assert unknown["a"].iloc[1] in set("abc")


def test_frames_of_two_libraries_are_not_mixed():
    vae = quick().fit(pd.DataFrame({"a": list("abc") * 20, "x": np.random.default_rng(0).normal(size=60)}))
    with pytest.raises(ValueError, match=r"frame of polars.*fitted on one of pandas.*Convert"):
        vae.impute(pl.DataFrame({"a": ["a", None], "x": [None, 1.0]}))


def test_values_that_are_read_as_missing_are_kept_in_arrays():
    rng = np.random.default_rng(0)
    two = np.column_stack([rng.choice([0.0, 1.0], 60), rng.normal(size=60)])
    rows = two[:4].copy()
    rows[0, 0] = 7.0
    rows[1, 1] = np.nan
    filled = quick(handle_unknown="ignore").fit(two).impute(rows)
    np.testing.assert_array_equal(np.where(np.isnan(rows), filled, rows), filled)
    assert np.isfinite(filled).all()
    letters = np.column_stack([rng.choice(["a", "b"], 60), rng.normal(size=60)]).astype(object)
    unknown = np.array([["q", 0.5], ["a", None]], dtype=object)
    filled = quick(handle_unknown="ignore", categorical_features=[0]).fit(letters[:, :1]).impute(unknown[:, :1])
    assert filled[:, 0].tolist() == ["q", "a"]
