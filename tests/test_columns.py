"""A table becomes a matrix and comes back: kinds, units, names, dtypes."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skvae import VAEEstimator
from skvae.columns import KINDS, TableEncoder

N = 40
RNG = np.random.default_rng(5)
NUMBERS, FLAGS = RNG.normal(3, 2, N), RNG.integers(0, 2, N)


def encoder(X, container=None, **options):
    X = np.asarray(X, dtype=float)
    return TableEncoder().fit(X, X if container is None else container, **options)


def quick(**params):
    return VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1, random_state=0, **params)


def test_kinds_are_told_from_the_values():
    table = encoder(
        np.column_stack([NUMBERS, FLAGS, np.where(FLAGS, 7.0, -3.0), np.full(N, 4.0), FLAGS + (NUMBERS > 4)])
    )
    assert list(table.kinds_) == ["normal", "bernoulli", "bernoulli", "constant", "normal"]
    assert table.counts_ == {"normal": 2, "bernoulli": 2}


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
    assert list(encoder(frame, frame, likelihood=likelihood).kinds_) == kinds


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
    assert table.log_scale_ == pytest.approx(np.log(NUMBERS.std()), rel=1e-12)


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
    table = TableEncoder().fit(X, X)
    encoded = table.encode(X)
    assert encoded.dtype == dtype
    assert np.abs(encoded).max() < 10
    decoded = table.decode(encoded)
    assert decoded.dtype == dtype
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
    table = TableEncoder().fit(frame.to_numpy().astype(float), frame)
    back = table.decode(table.encode(frame.to_numpy().astype(float)))
    assert list(back.dtypes) == list(frame.dtypes)
    np.testing.assert_allclose(back.to_numpy().astype(float), frame.to_numpy().astype(float), rtol=1e-6)


@pytest.mark.parametrize("library", FRAMES)
def test_a_frame_says_what_its_array_says(library):
    frame = FRAMES[library]()
    by_frame, by_array = quick().fit(frame), quick().fit(frame.to_numpy().astype(float))
    np.testing.assert_array_equal(by_frame.transform(frame), by_array.transform(frame.to_numpy().astype(float)))


def test_integers_stay_in_their_range():
    frame = pd.DataFrame({"small": np.array([0, 255] * 20, np.uint8), "large": np.array([0, 2**62] * 20)})
    table = TableEncoder().fit(frame.to_numpy().astype(float), frame, likelihood="normal")
    back = table.decode(np.array([[-1e3, -1e3], [1e3, 1e3]]))
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
