"""A table becomes a matrix and comes back: kinds, units, levels, names, dtypes, missing cells."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from layouts import COUNTS, LAYOUTS, encode
from polars.testing import assert_frame_equal
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier

from skvae import VAEEstimator
from skvae.table import KINDS, TableEncoder, TableReader, as_table
from skvae.table.layout import Layout
from skvae.table.quantiles import QuantileMap

N = 40
RNG = np.random.default_rng(5)
NUMBERS, FLAGS = RNG.normal(3, 2, N), RNG.integers(0, 2, N)


def encoder(X, names=None, levels=None, **options):
    """An encoder fitted to an array, or to a frame that a reader reads."""
    if hasattr(X, "columns"):
        reader = TableReader()
        X, names, levels = reader.fit(X), reader.names_, reader.levels_
    X = np.asarray(X)
    X = X if X.dtype.kind == "f" else X.astype(float)
    names = list(range(X.shape[1])) if names is None else names
    levels = [None] * X.shape[1] if levels is None else levels
    boolean = np.zeros(X.shape[1], dtype=bool)
    return TableEncoder().fit(X, labels=list(map(repr, names)), names=names, levels=levels, boolean=boolean, **options)


def quick(**params):
    return VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1, random_state=0, **params)


def test_kinds_are_told_from_the_values():
    table = encoder(
        np.column_stack([NUMBERS, FLAGS, np.where(FLAGS, 7.0, -3.0), np.full(N, 4.0), FLAGS + (NUMBERS > 4)])
    )
    assert list(table.kinds_) == ["normal", "bernoulli", "bernoulli", "constant", "normal"]
    assert table.layout_.kinds == (("normal", 2), ("bernoulli", 2))


def test_two_values_in_a_handful_of_rows_do_not_make_a_flag():
    assert list(encoder([[0.0], [1.0]]).kinds_) == ["normal"]


def test_rounding_noise_of_a_constant_is_no_variation():
    column = np.full(N, 0.1) + np.where(FLAGS, np.finfo(float).eps / 16, 0)
    assert list(encoder(column[:, None]).kinds_) == ["constant"]
    assert list(encoder(np.float32(1e6) + np.zeros((N, 1), np.float32)).kinds_) == ["constant"]


@pytest.mark.parametrize(
    ("likelihood", "kinds"),
    [
        ("auto", ["normal", "bernoulli"]),
        ("normal", ["normal", "normal"]),
        ({"normal": [1]}, ["normal", "normal"]),
        ({"normal": 1}, ["normal", "normal"]),
        ({"normal": -1}, ["normal", "normal"]),
        ({"normal": "flag", "bernoulli": []}, ["normal", "normal"]),
        ({"bernoulli": ["number"], "normal": np.array([1])}, ["bernoulli", "normal"]),
        ({}, ["normal", "bernoulli"]),
    ],
    ids=str,
)
def test_kinds_asked_for_win(likelihood, kinds):
    frame = pd.DataFrame({"number": NUMBERS, "flag": FLAGS})
    assert list(encoder(frame, likelihood=likelihood).kinds_) == kinds


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        ({"poison": [0]}, ["'poison'", *map(repr, KINDS)]),
        ({"normal": [2]}, ["2", "2 columns"]),
        ({"normal": [-3]}, ["-3", "2 columns"]),
        ({"normal": ["height"]}, ["'height'", "'number'", "'flag'"]),
        ({"normal": [0], "bernoulli": ["number"]}, ["'number'", "twice", "'normal'", "'bernoulli'"]),
        ({"normal": [0, 0]}, ["twice"]),
        ({"normal": [0.5]}, ["0.5"]),
    ],
    ids=str,
)
def test_kinds_that_cannot_be_are_named(likelihood, words):
    frame = pd.DataFrame({"number": NUMBERS, "flag": FLAGS})
    with pytest.raises(ValueError, match="likelihood") as caught:
        quick(likelihood=likelihood).fit(frame)
    assert all(word in str(caught.value) for word in words)


def test_numbers_are_standardised_and_flags_become_zero_and_one():
    X = np.column_stack([np.where(FLAGS, 7.0, -3.0), NUMBERS])
    table = encoder(X)
    encoded = table.encode(X)
    np.testing.assert_allclose(encoded[:, 0], (NUMBERS - NUMBERS.mean()) / NUMBERS.std(), rtol=1e-12)
    np.testing.assert_allclose(encoded[:, 1], FLAGS, atol=1e-15)
    np.testing.assert_allclose(table.log_jacobian(X), -np.log(NUMBERS.std()), rtol=1e-12)


def test_weights_enter_the_mean_and_the_deviation():
    weight = RNG.integers(1, 4, N)
    X = NUMBERS[:, None]
    weighted, repeated = encoder(X, sample_weight=weight), encoder(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(weighted.location_, repeated.location_, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale_, repeated.scale_, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1e-300, 1e-30, 1e-5, 1.0, 1e5, 1e30, 1e300])
def test_decode_undoes_encode_at_every_magnitude(dtype, magnitude):
    if not 10 * float(np.finfo(dtype).tiny) < magnitude < float(np.finfo(dtype).max):
        pytest.skip("out of the range of this dtype")
    X = np.column_stack([NUMBERS * magnitude, FLAGS, np.full(N, 2.5)]).astype(dtype)
    table = encoder(X)
    encoded = table.encode(X)
    assert encoded.dtype == dtype
    assert np.abs(encoded).max() < 10
    decoded = table.decode(encoded)
    np.testing.assert_allclose(decoded, X, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps * magnitude)


def test_a_large_offset_does_not_swallow_the_variation():
    column = 1e9 + RNG.normal(size=(N, 1))
    encoded = encoder(column).encode(column)
    assert encoded.mean() == pytest.approx(0, abs=1e-6)
    assert encoded.std() == pytest.approx(1, abs=1e-6)


def test_a_third_value_in_a_flag_is_an_error_that_shows_the_way_out():
    X = np.column_stack([NUMBERS, np.where(FLAGS, 7.0, -3.0)])
    vae = quick().fit(X)
    wrong = X.copy()
    wrong[5, 1] = 8.5
    with pytest.raises(ValueError, match=r"Column 1.*'bernoulli'.*-3 to 7.*8\.5.*likelihood=\{'normal': \[1\]\}"):
        vae.transform(wrong)
    frame = pd.DataFrame(X, columns=["size", "smoker"])
    with pytest.raises(ValueError, match=r"'smoker'.*8\.5.*\{'normal': \['smoker'\]\}"):
        quick().fit(frame).score_samples(pd.DataFrame(wrong, columns=frame.columns))


def test_the_way_out_that_the_error_shows_works():
    X = np.column_stack([NUMBERS, FLAGS])
    assert np.isfinite(quick(likelihood={"normal": [1]}).fit(X).score(X + 0.5))


def test_a_fraction_is_a_bernoulli_value():
    X = RNG.uniform(size=(N, 2))
    table = encoder(X, likelihood="bernoulli")
    np.testing.assert_array_equal(table.encode(X), X)


FRAMES = {
    "pandas": lambda: pd.DataFrame(
        {
            "float64": NUMBERS,
            "float32": NUMBERS.astype(np.float32),
            "int8": FLAGS.astype(np.int8),
            "uint16": (100 * FLAGS).astype(np.uint16),
            "int64": np.arange(N),
            "bool": FLAGS.astype(bool),
            "Int64": pd.array(np.arange(N) * 3, dtype="Int64"),
            "Float64": pd.array(NUMBERS, dtype="Float64"),
            "boolean": pd.array(FLAGS.astype(bool), dtype="boolean"),
        }
    ),
    "polars": lambda: pl.DataFrame(
        {
            "float64": NUMBERS,
            "float32": pl.Series(NUMBERS, dtype=pl.Float32),
            "int8": pl.Series(FLAGS, dtype=pl.Int8),
            "uint16": pl.Series(100 * FLAGS, dtype=pl.UInt16),
            "int64": np.arange(N),
            "bool": FLAGS.astype(bool),
        }
    ),
}


@pytest.mark.parametrize("library", FRAMES)
def test_frames_come_back_as_they_were(library):
    frame = FRAMES[library]()
    vae = quick().fit(frame)
    for rows in (vae.sample(7, random_state=0), vae.reconstruct(frame), vae.inverse_transform(np.zeros((3, 2)))):
        assert type(rows) is type(frame)
        assert list(rows.columns) == list(frame.columns)
        assert list(rows.dtypes) == list(frame.dtypes)
    reader = TableReader()
    values = reader.fit(frame)
    table = encoder(values, likelihood="normal")
    back = reader.write(table.decode(table.encode(values)))
    assert list(back.dtypes) == list(frame.dtypes)
    np.testing.assert_allclose(back.to_numpy().astype(float), frame.to_numpy().astype(float), rtol=1e-6)


@pytest.mark.parametrize("library", FRAMES)
def test_a_frame_says_what_its_array_says(library):
    frame = FRAMES[library]()
    by_frame, by_array = quick().fit(frame), quick().fit(frame.to_numpy().astype(float))
    np.testing.assert_array_equal(by_frame.transform(frame), by_array.transform(frame.to_numpy().astype(float)))


def test_integers_stay_in_their_range():
    frame = pd.DataFrame({"small": np.array([0, 255] * 20, np.uint8), "large": np.array([0, 2**62] * 20)})
    reader = TableReader()
    table = encoder(reader.fit(frame), likelihood="normal")
    back = reader.write(table.decode(np.array([[-1e3, -1e3], [1e3, 1e3]])))
    assert back["small"].tolist() == [0, 255]
    assert back["large"].iloc[0] < -(2**62)
    assert back["large"].iloc[1] > 2**62


def test_columns_of_a_frame_need_no_string_names():
    frame = pd.DataFrame(np.column_stack([NUMBERS, FLAGS]), columns=[10, 20])
    rows = quick(likelihood={"normal": [20]}).fit(frame).sample(3, random_state=0)
    assert list(rows.columns) == [10, 20]


def test_new_rows_have_a_plain_index():
    frame = pd.DataFrame({"a": NUMBERS, "b": FLAGS}, index=[f"row {i}" for i in range(N)])
    assert list(quick().fit(frame).sample(3, random_state=0).index) == [0, 1, 2]


def test_constant_columns_come_back_constant():
    X = np.column_stack([NUMBERS, np.full(N, 4.25), FLAGS])
    rows = quick().fit(X).sample(20, random_state=0)
    assert (rows[:, 1] == 4.25).all()
    assert set(rows[:, 2]) <= {0.0, 1.0}


def test_draws_of_a_flag_take_its_two_values():
    X = np.column_stack([NUMBERS, np.where(FLAGS, 7.0, -3.0)])
    vae = quick().fit(X)
    assert set(vae.sample(50, random_state=0)[:, 1]) == {7.0, -3.0}
    means = vae.sample(50, noise=False, random_state=0)[:, 1]
    assert ((means > -3) & (means < 7)).all()


def test_going_on_with_a_column_that_was_constant_is_an_error():
    first, then = np.column_stack([NUMBERS, np.full(N, 4.0)]), np.column_stack([NUMBERS, FLAGS])
    vae = quick().partial_fit(first)
    with pytest.raises(ValueError, match=r"Column 1 was constant \(4\)"):
        vae.partial_fit(then)


# ----------------------------------------------------------------------------------------------- containers with anything

LETTERS = np.array(list("bac"))[np.arange(N) % 3]
HOURS = np.arange(N) * 3_600
STAMPS = pd.Timestamp("2021-03-01") + pd.to_timedelta(HOURS, unit="s")
ANY = {
    "pandas": lambda: pd.DataFrame(
        {
            "float": NUMBERS,
            "text": LETTERS,
            "object": pd.Series(LETTERS, dtype=object),
            "string": pd.array(LETTERS, dtype="string"),
            "category": pd.Categorical(LETTERS, categories=["c", "a", "b", "never"]),
            "ordered": pd.Categorical(LETTERS, categories=["c", "b", "a"], ordered=True),
            "number levels": pd.Categorical(np.arange(N) % 4 * 10),
            "bool": FLAGS.astype(bool),
            "Int64": pd.array(np.arange(N) * 3, dtype="Int64"),
            "Float64": pd.array(NUMBERS, dtype="Float64"),
            "boolean": pd.array(FLAGS.astype(bool), dtype="boolean"),
            "nanoseconds": STAMPS.as_unit("ns"),
            "seconds": STAMPS.as_unit("s"),
            "zoned": STAMPS.as_unit("us").tz_localize("UTC").tz_convert("Europe/Berlin"),
            "timedelta": pd.to_timedelta(HOURS, unit="s"),
        }
    ),
    "polars": lambda: pl.DataFrame(
        {
            "float": NUMBERS,
            "string": LETTERS,
            "categorical": pl.Series(LETTERS, dtype=pl.Categorical),
            "enum": pl.Series(LETTERS, dtype=pl.Enum(["c", "b", "a", "never"])),
            "bool": FLAGS.astype(bool),
            "int": np.arange(N),
            "datetime": pl.Series(list(STAMPS.to_pydatetime())),
            "milliseconds": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Datetime("ms")),
            "zoned": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Datetime("us", "UTC")),
            "date": pl.Series(list(STAMPS.to_pydatetime())).cast(pl.Date),
            "duration": pl.Series([datetime.timedelta(seconds=int(s)) for s in HOURS]),
        }
    ),
}


def same(got, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected, rtol=1e-12)
    elif isinstance(expected, pl.DataFrame):
        assert_frame_equal(got, expected, rel_tol=1e-12)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("library", ANY)
def test_reading_and_writing_gives_the_frame_back(library):
    frame = ANY[library]()
    reader = TableReader()
    values = reader.fit(as_table(frame))
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    same(reader.write(values), frame)
    np.testing.assert_array_equal(reader.read(frame), values)


@pytest.mark.parametrize("library", ANY)
def test_reading_encoding_decoding_and_writing_gives_the_frame_back(library):
    frame = ANY[library]()
    reader = TableReader()
    values = reader.fit(frame)
    table = encoder(values, names=reader.names_, levels=reader.levels_)
    same(reader.write(table.decode(table.parts(values))), frame)


def test_missing_cells_are_read_as_such_whatever_they_are_called():
    frame = ANY["pandas"]()
    holes = frame.astype({"bool": object}).mask(np.tile(np.arange(N)[:, None] == 5, (1, frame.shape[1])))
    holes = holes.astype({c: t for c, t in frame.dtypes.items() if c != "bool"}).drop(columns="bool")
    values = TableReader().fit(holes)
    assert np.isnan(values[5]).all()
    assert np.isfinite(np.delete(values, 5, axis=0)).all()
    polars = ANY["polars"]()
    values = TableReader().fit(polars.with_columns(pl.when(pl.int_range(N) != 5).then(pl.all())))
    assert np.isnan(values[5]).all()
    assert np.isfinite(np.delete(values, 5, axis=0)).all()
    for nothing in (None, np.nan, pd.NA, pd.NaT):
        cells = pd.DataFrame({"text": pd.Series([*"abba" * 6, nothing], dtype=object), "x": np.arange(25.0)})
        assert np.isnan(TableReader().fit(cells)[-1, 0])


def test_levels_are_ordered_as_the_dtype_orders_them_else_sorted():
    frame = ANY["pandas"]()
    reader = TableReader()
    reader.fit(frame)
    levels = dict(zip(reader.names_, reader.levels_, strict=True))
    assert levels["text"] == levels["object"] == levels["string"] == ["a", "b", "c"]
    assert levels["category"] == ["c", "a", "b"]
    assert levels["ordered"] == ["c", "b", "a"]
    assert levels["number levels"] == [0, 10, 20, 30]
    assert all(levels[name] is None for name in ("float", "bool", "Int64", "nanoseconds", "timedelta"))
    assert reader.boolean_.tolist() == [name in ("bool", "boolean") for name in reader.names_]
    reader.fit(ANY["polars"]())
    levels = dict(zip(reader.names_, reader.levels_, strict=True))
    assert levels["enum"] == ["c", "b", "a"]
    assert sorted(levels["categorical"]) == levels["string"] == ["a", "b", "c"]


def test_arrays_with_text_come_back_as_they_were():
    X = np.empty((N, 3), dtype=object)
    X[:, 0], X[:, 1], X[:, 2] = NUMBERS, LETTERS, FLAGS
    reader = TableReader()
    values = reader.fit(as_table(X))
    assert reader.levels_ == [None, ["a", "b", "c"], None]
    back = reader.write(values)
    assert back.dtype == object
    np.testing.assert_array_equal(back, X)
    X[3, 1], X[4, 0] = None, np.nan
    values = TableReader().fit(as_table(X))
    assert np.isnan(values[3, 1])
    assert np.isnan(values[4, 0])
    text = np.array([["a", "x"], ["b", "y"]] * 12)
    assert TableReader().fit(as_table(text)).tolist() == [[0, 0], [1, 1]] * 12
    assert TableReader().fit(as_table(text.tolist())).tolist() == [[0, 0], [1, 1]] * 12


@pytest.mark.parametrize(
    "chosen", [["b"], [1], [-2], [False, True, False], np.array([1]), np.array([False, True, False])], ids=str
)
def test_categories_can_be_named_numbered_or_flagged(chosen):
    frame = pd.DataFrame({"a": NUMBERS, "b": np.arange(N) % 3, "c": LETTERS})
    reader = TableReader()
    values = reader.fit(frame, categorical_features=chosen)
    assert reader.levels_ == [None, [0, 1, 2], ["a", "b", "c"]]
    back = reader.write(values)
    pd.testing.assert_frame_equal(back, frame)


def test_categories_of_an_array_and_by_dtype():
    X = np.column_stack([NUMBERS, np.arange(N) % 3 + 0.5])
    reader = TableReader()
    assert reader.fit(X)[:, 1].tolist() == X[:, 1].tolist()
    np.testing.assert_array_equal(reader.fit(X, categorical_features=[1])[:, 1], np.arange(N) % 3)
    np.testing.assert_array_equal(reader.write(reader.read(X)), X)
    for by_dtype in ("from_dtype", None):
        reader.fit(pd.DataFrame({"a": NUMBERS, "b": np.arange(N) % 3}), categorical_features=by_dtype)
        assert reader.levels_ == [None, None]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [(["height"], ["'height'", "2 columns", "'a'"]), ([5], ["5", "2 columns"]), ([True], ["mask of 1", "2"])],
    ids=str,
)
def test_categories_that_cannot_be_are_named(chosen, words):
    with pytest.raises(ValueError, match="categorical_features") as caught:
        quick(categorical_features=chosen).fit(pd.DataFrame({"a": NUMBERS, "b": FLAGS}))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("library", [pd, pl], ids=lambda module: module.__name__)
def test_identifiers_are_refused_by_name(library):
    frame = library.DataFrame({"x": NUMBERS, "customer": [f"no. {i}" for i in range(N)]})
    with pytest.raises(ValueError, match=r"'customer' holds 40 distinct texts in 40 rows.*identifier"):
        quick().fit(frame)
    TableReader().fit(frame[:15])  # too few rows to tell


@pytest.mark.parametrize("library", [pd, pl], ids=lambda module: module.__name__)
def test_unknown_levels_are_errors_or_missing(library):
    frame = library.DataFrame({"x": NUMBERS, "letter": LETTERS})
    other = library.DataFrame({"x": NUMBERS[:2], "letter": ["z", "a"]})
    reader = TableReader()
    reader.fit(frame)
    with pytest.raises(ValueError, match=r"'letter' holds 'z'.*3 levels seen at fit \('a', 'b', 'c'\).*handle_unknown"):
        reader.read(other)
    codes = reader.read(other, "ignore")[:, 1]
    assert np.isnan(codes[0])
    assert codes[1] == 0
    with pytest.raises(ValueError, match="handle_unknown"):
        quick().fit(frame).transform(other)
    assert np.isfinite(quick(handle_unknown="ignore").fit(frame).transform(other)).all()


def test_level_that_only_the_dtype_names_is_unknown_as_to_histogram_boosting():
    dtype = pd.CategoricalDtype(["z", "a", "b", "c"])
    frame = pd.DataFrame({"x": NUMBERS, "letter": pd.Series(list(LETTERS), dtype=dtype)})
    never, missing = (frame[:1].assign(letter=pd.Series([level], dtype=dtype)) for level in ("z", None))
    vae = quick().fit(frame)
    with pytest.raises(ValueError, match=r"'letter' holds 'z'.*3 levels seen at fit"):
        vae.transform(never)
    vae.set_params(handle_unknown="ignore")
    np.testing.assert_array_equal(vae.transform(never), vae.transform(missing))
    boosted = HistGradientBoostingClassifier(max_iter=3).fit(frame, np.array(LETTERS) == "a")
    np.testing.assert_array_equal(boosted.predict_proba(never), boosted.predict_proba(missing))


def test_infinity_is_an_error_that_names_the_column():
    frame = pd.DataFrame({"x": NUMBERS, "income": np.where(np.arange(N) == 3, np.inf, NUMBERS)})
    with pytest.raises(ValueError, match="'income' contains infinity"):
        TableReader().fit(frame)


def test_one_row_of_cells_is_read_by_name():
    reader = TableReader()
    frame = ANY["pandas"]()
    values = reader.fit(frame)
    for j, name in enumerate(frame.columns):
        row = reader.read_cells({name: frame[name].iloc[5]})
        assert row.shape == (1, frame.shape[1])
        assert row[0, j] == values[5, j]
        assert np.isnan(np.delete(row[0], j)).all()
    with pytest.raises(ValueError, match=r"'height'.*'float'"):
        reader.read_cells({"height": 3.0})
    with pytest.raises(ValueError, match=r"given\['float'\] is missing"):
        reader.read_cells({"float": np.nan})
    with pytest.raises(ValueError, match=r"'q'.*levels seen at fit"):
        reader.read_cells({"text": "q"})


def test_cells_that_are_there_are_written_as_they_are():
    frame = pd.DataFrame({"x": [0.1 + 0.2, np.nan, 1 / 3], "letter": ["b", None, "a"]})
    reader = TableReader()
    values = reader.fit(frame)
    filled = reader.write(np.where(np.isnan(values), 1.0, values + 1e-17), like=frame)
    assert filled["x"].tolist() == [0.1 + 0.2, 1.0, 1 / 3]
    assert filled["letter"].tolist() == ["b", "b", "a"]


# ---------------------------------------------------------------------------------------------------------- quantile maps

CURVES = {
    "normal": lambda n, rng: rng.normal(5, 2, n),
    "skewed": lambda n, rng: np.exp(2 * rng.normal(size=n)),
    "two lumps": lambda n, rng: np.where(rng.uniform(size=n) < 0.3, rng.normal(-40, 1, n), rng.normal(9, 3, n)),
    "tiny": lambda n, rng: 1e-30 * rng.normal(size=n),
    "huge": lambda n, rng: 1e30 * rng.normal(size=n),
}


def fitted_map(column):
    return QuantileMap().fit(column, np.ones(len(column)))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("n", [50, 2000])
def test_score_and_value_undo_each_other(curve, n):
    column = CURVES[curve](n, np.random.default_rng(0))
    quantiles = fitted_map(column)
    assert len(quantiles.spikes_) == 0
    assert quantiles.n_levels_ == 0
    size = np.abs(column).max()
    wide = np.concatenate([column, np.linspace(column.min() - size, column.max() + size, 99)])
    score, _ = quantiles.score(wide)
    np.testing.assert_allclose(quantiles.value(score), wide, rtol=1e-9, atol=1e-9 * size)
    points = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(quantiles.score(quantiles.value(points))[0], points, atol=1e-6)
    assert (np.diff(quantiles.knots_) > 0).all()
    assert (np.diff(quantiles.scores_) > 0).all()


@pytest.mark.parametrize("curve", CURVES)
def test_derivative_is_that_of_finite_differences(curve):
    column = CURVES[curve](2000, np.random.default_rng(0))
    quantiles = fitted_map(column)
    points = (quantiles.knots_[:-1] + quantiles.knots_[1:]) / 2
    points = np.concatenate([points, [column.min() - np.ptp(column), column.max() + np.ptp(column)]])
    h = 1e-4 * np.diff(quantiles.knots_).min()
    h = np.maximum(h, 1e-7 * np.abs(points))
    numeric = (quantiles.score(points + h)[0] - quantiles.score(points - h)[0]) / (2 * h)
    inside = np.isclose(quantiles.score(points + h)[1], quantiles.score(points - h)[1], rtol=1e-12)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(quantiles.score(points)[1][inside], np.log(numeric[inside]), atol=1e-3)


@pytest.mark.parametrize("curve", ["normal", "skewed", "two lumps"])
def test_scores_are_standard_normal(curve):
    column = CURVES[curve](4000, np.random.default_rng(0))
    assert stats.kstest(fitted_map(column).score(column)[0], "norm").pvalue > 0.05


def test_spikes_are_exact():
    rng = np.random.default_rng(0)
    column = np.where(rng.uniform(size=3000) < 0.4, 0.0, np.exp(rng.normal(size=3000)))
    column[rng.uniform(size=3000) < 0.1] = 1 / 3
    quantiles = fitted_map(column)
    assert quantiles.spikes_.tolist() == [0.0, 1 / 3]
    assert quantiles.has_rest_
    assert quantiles.n_levels_ == 3
    expected = np.where(column == 0, 0, np.where(column == 1 / 3, 1, 2))
    np.testing.assert_array_equal(quantiles.level(column), expected)
    assert quantiles.level(np.array([np.nextafter(1 / 3, 1), -1.0, 1e9])).tolist() == [2, 2, 2]
    table = encoder(column[:, None], likelihood="quantile_normal")
    assert table.parts_ == [("normal", 0), ("categorical", 0)]
    assert table.layout_.gate == (1, -1)
    back = table.decode(table.parts(column[:, None]))[:, 0]
    spikes = np.isin(column, quantiles.spikes_)
    np.testing.assert_array_equal(back[spikes], column[spikes])
    np.testing.assert_allclose(back, column, rtol=1e-9)


def test_a_column_of_few_values_is_modelled_level_by_level():
    column = np.random.default_rng(0).choice([0.0, 0.5, 7.25, 9.0], size=400)
    quantiles = fitted_map(column)
    assert quantiles.spikes_.tolist() == [0.0, 0.5, 7.25, 9.0]
    assert not quantiles.has_rest_
    assert quantiles.n_levels_ == 4
    assert quantiles.level(np.array([-3.0, 0.2, 0.3, 8.0, 8.5, 99.0])).tolist() == [0, 0, 1, 2, 3, 3]
    table = encoder(column[:, None], likelihood="quantile_normal")
    assert table.parts_ == [("categorical", 0)]
    np.testing.assert_array_equal(table.decode(table.parts(column[:, None]))[:, 0], column)


@pytest.mark.parametrize("decimals", [0, 1, 2, 4])
def test_decimals_are_kept(decimals):
    column = np.round(np.random.default_rng(0).normal(0, 1000, 3000), decimals)
    quantiles = fitted_map(column)
    drawn = quantiles.value(np.random.default_rng(1).normal(size=500))
    np.testing.assert_array_equal(drawn, np.round(drawn, decimals))
    np.testing.assert_array_equal(quantiles.value(quantiles.score(column)[0]), column)


def test_values_that_repeat_are_drawn_among_themselves():
    values = np.cumsum(np.random.default_rng(0).integers(1, 9, 500)) / 7
    column = np.random.default_rng(1).choice(values, 3000)
    quantiles = fitted_map(column)
    assert np.isin(quantiles.value(np.random.default_rng(2).normal(size=500)), column).all()
    np.testing.assert_array_equal(quantiles.value(quantiles.score(column)[0]), column)


def test_weights_count_as_repetitions_in_quantiles():
    rng = np.random.default_rng(0)
    column, weight = rng.normal(size=500), rng.integers(1, 4, 500)
    weighted = QuantileMap().fit(column, weight.astype(float))
    uniform = stats.norm.cdf(weighted.score(column)[0])
    assert np.average(uniform, weights=weight) == pytest.approx(0.5, abs=0.01)


# ---------------------------------------------------------------------------------------------------- parts and encoding


def any_table(n=1500, seed=0):
    """Values and levels of a table of every kind, and what is asked for; a tenth of the cells are missing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    values = np.column_stack(
        [
            hidden + rng.normal(size=n),
            rng.integers(0, 3, n),
            np.where(rng.uniform(size=n) < 0.3, 0.0, np.exp(hidden)),
            rng.poisson(np.exp(0.3 * hidden + 1)),
            rng.uniform(size=n) < 0.4,
            rng.integers(0, 1000, n),
            np.full(n, 4.0),
            rng.poisson(rng.gamma(2, 3, n)),
            np.exp(hidden),
        ]
    ).astype(float)
    values[rng.uniform(size=values.shape) < 0.1] = np.nan
    values[:, 0] = np.where(np.isnan(values[:, 0]), 0.5, values[:, 0])
    levels = [None, ["a", "b", "c"], None, None, None, list(range(1000)), None, None, None]
    asked = {"poisson": [3], "negative_binomial": [7], "normal": [0], "quantile_normal": [2, 8]}
    return values, levels, asked


def test_parts_of_every_kind_come_back_with_holes_and_all():
    values, levels, asked = any_table()
    table = encoder(values, levels=levels, likelihood=asked)
    assert table.kinds_.tolist() == [
        "normal", "categorical", "quantile_normal", "poisson", "bernoulli",
        "categorical", "constant", "negative_binomial", "quantile_normal",
    ]  # fmt: skip
    assert table.parts_ == [
        ("poisson", 3), ("negative_binomial", 7), ("normal", 0), ("normal", 2), ("normal", 8),
        ("bernoulli", 4), ("categorical", 1), ("categorical", 2), ("categorical", 5),
    ]  # fmt: skip
    layout = table.layout_
    assert layout.n_levels == (3, 2, 1000)
    assert layout.flagged == (0, 1, 3, 4, 5)
    assert layout.gate == (-1, -1, -1, 7, -1, -1, -1, -1, -1)
    # parts in the order of the columns, that of a spike before that of the rest
    assert [table.parts_[i][1] for i in np.argsort(layout.rank)] == [0, 1, 2, 2, 3, 4, 5, 7, 8]
    assert layout.rank[7] < layout.rank[3]
    parts, known = table.parts(values), table.known(values)
    np.testing.assert_array_equal(np.isnan(parts), ~known)
    there = ~np.isnan(values)
    for i, (_, j) in enumerate(table.parts_):
        rest = there[:, j] & (values[:, j] != 0) if i == 3 else there[:, j]
        np.testing.assert_array_equal(known[:, i], rest)
    back = table.decode(np.where(known, parts, 0))
    np.testing.assert_allclose(back[there], values[there], rtol=1e-9, atol=1e-12)
    assert (back[:, 6] == 4).all()


def test_encoded_rows_are_those_made_cell_by_cell():
    values, levels, asked = any_table(60)
    table = encoder(values, levels=levels, likelihood=asked)
    by_hand = encode(table.layout_, table.parts(values))
    np.testing.assert_allclose(table.encode(values), by_hand, rtol=1e-10, atol=1e-12)
    assert table.encode(values, np.float32).dtype == np.float32
    assert table.encode(values).shape == (60, table.layout_.width)


def test_log_jacobian_is_that_of_the_parts_there():
    values, levels, asked = any_table()
    table = encoder(values, levels=levels, likelihood=asked)
    expected = np.full(len(values), -np.log(table.scale_[0]))
    for j in (2, 8):
        rest = ~np.isnan(values[:, j]) & ((values[:, j] != 0) | (j == 8))
        expected[rest] += table.maps_[j].score(values[rest, j])[1]
    np.testing.assert_allclose(table.log_jacobian(values), expected, rtol=1e-12)


def test_a_column_without_any_cell_is_no_part():
    values = np.column_stack([NUMBERS, np.full(N, np.nan), FLAGS])
    table = encoder(values)
    assert table.kinds_.tolist() == ["normal", "constant", "bernoulli"]
    assert table.layout_.n_parts == 2
    assert np.isfinite(table.encode(values)).all()
    rows = quick().fit(values).sample(5, random_state=0)
    assert np.isfinite(rows[:, [0, 2]]).all()
    assert np.isnan(rows[:, 1]).all()


def test_a_category_of_one_level_is_constant_and_comes_back():
    frame = pd.DataFrame({"x": NUMBERS, "country": pd.Series(["DE"] * N, dtype=object)})
    vae = quick().fit(frame)
    assert vae.sample(4, random_state=0)["country"].tolist() == ["DE"] * 4


@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("cell", [-1.0, 2.5])
def test_what_is_no_count_is_an_error_that_shows_the_way_out(kind, cell):
    X = np.column_stack([NUMBERS, np.random.default_rng(0).poisson(3, N)])
    wrong = X.copy()
    wrong[4, 1] = cell
    with pytest.raises(ValueError, match=rf"Column 1.*'{kind}'.*{cell:g}.*'normal'"):
        quick(likelihood={kind: [1]}).fit(wrong)
    with pytest.raises(ValueError, match=rf"Column 1.*'{kind}'.*{cell:g}.*'normal'"):
        quick(likelihood={kind: [1]}).fit(X).score_samples(wrong)


def test_numbers_of_many_rows_are_modelled_by_their_quantiles():
    column = np.random.default_rng(0).normal(size=(1000, 1))
    assert encoder(column).kinds_.tolist() == ["quantile_normal"]
    assert encoder(column[:999]).kinds_.tolist() == ["normal"]
    column[0] = np.nan
    assert encoder(column).kinds_.tolist() == ["normal"]  # cells count, not rows


# ---------------------------------------------------------------------------------------------------------------- layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_counts_what_an_encoded_row_holds(name):
    layout = LAYOUTS[name]
    kinds = [kind for kind, n in layout.kinds for _ in range(n)]
    n_counts = sum(kind in COUNTS for kind in kinds)
    n_numbers = len(kinds) - kinds.count("categorical")
    row = encode(layout, np.full((1, len(kinds)), np.nan))[0]
    assert layout.n_parts == len(kinds) == len(layout.rank) == len(layout.gate)
    assert (layout.n_counts, layout.n_numbers) == (n_counts, n_numbers)
    assert layout.width == len(row)
    first = n_counts + (layout.exposure is not None)
    assert (layout.first_number, layout.offset) == (first, slice(n_counts, first))
    assert layout.first_flag == first + n_numbers
    assert layout.first_level == layout.first_flag + len(layout.flagged) == layout.width - sum(layout.n_levels)
    assert layout.n_inputs == layout.width - first == len(layout.input_parts)
    # filling one part of an empty row changes its cells only
    for i in range(len(kinds)):
        parts = np.full((1, len(kinds)), np.nan)
        parts[0, i] = 1
        changed = encode(layout, parts)[0, first:] != row[first:]
        assert set(np.array(layout.input_parts)[changed]) == {i}


def test_layout_of_a_table_of_constants_is_empty():
    layout = encoder(np.ones((N, 2))).layout_
    assert layout == Layout(kinds=())
    assert (layout.width, layout.n_inputs, layout.input_parts) == (0, 0, [])


def test_whole_numbers_keep_their_grain():
    rng = np.random.default_rng(0)
    days = rng.choice(20_000, 3000, replace=False) * 86_400.0 + 3_600  # an hour past midnight, in seconds
    quantiles = QuantileMap().fit(days, np.ones(len(days)))
    back = quantiles.value(rng.normal(size=500))
    np.testing.assert_array_equal((back - 3_600) % 86_400, 0)
    np.testing.assert_array_equal(quantiles.value(quantiles.score(days)[0]), days)
