"""Tables of anything, end to end: holes, categories, counts, spikes; densities, conditional rows, and the same bits."""

import itertools
import math
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_sklearn_contract import expected_failures

from skvae import VAEEstimator

DECODERS = ["factorized", "autoregressive"]
LIKELIHOOD = {"poisson": ["visits"], "negative_binomial": ["claims"], "quantile_normal": ["income", "age"]}


def quick(**params):
    defaults = {"latent_dim": 2, "hidden_layer_sizes": (16,), "max_iter": 2, "random_state": 0}
    return VAEEstimator(**{**defaults, **params})


def mixed_frame(n=600, holes=0.1, seed=0):
    """A pandas frame of everything, whose columns hang together; a share of the cells of each is missing."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "height": hidden + rng.normal(size=n),
            "income": np.where(rng.uniform(size=n) < 0.3, 0.0, np.round(1000 * np.exp(hidden), 2)),
            "age": pd.array(np.clip(40 + 12 * hidden + 5 * rng.normal(size=n), 18, 90).astype(int), dtype="Int64"),
            "city": pd.Categorical(
                np.array(["Ulm", "Bonn", "Kiel"])[np.digitize(hidden + rng.normal(size=n), [-1, 1])]
            ),
            "note": pd.Series(np.array(["yes", "no"])[rng.integers(0, 2, n)], dtype=object),
            "smoker": pd.array(hidden + rng.normal(size=n) > 0, dtype="boolean"),
            "visits": pd.array(rng.poisson(np.exp(0.4 * hidden + 1)), dtype="Int64"),
            "claims": rng.poisson(rng.gamma(1, 2, n)).astype(float),
            "seen": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
        }
    )
    return frame.mask(rng.uniform(size=frame.shape) < holes)


def as_polars(frame):
    columns = {}
    for name in frame:
        cells = [None if pd.isna(value) else value for value in frame[name]]
        columns[name] = pl.Series(name, cells, dtype=pl.Categorical if name == "city" else None)
    return pl.DataFrame(columns)


FRAME = mixed_frame()
FRAMES = {"pandas": FRAME, "polars": as_polars(FRAME)}


@pytest.fixture(scope="module", params=itertools.product(FRAMES, DECODERS), ids="-".join)
def fitted(request):
    library, decoder = request.param
    return quick(decoder=decoder, likelihood=LIKELIHOOD, max_iter=10).fit(FRAMES[library]), FRAMES[library]


def missing_in(frame):
    """Where cells are missing, ndarray of bool."""
    if isinstance(frame, pl.DataFrame):
        return frame.select(pl.all().is_null()).to_numpy()
    return frame.isna().to_numpy()


def cells_of(frame):
    return [list(frame[name]) for name in frame.columns]


def assert_complete_copy(filled, frame):
    """No cell is missing, and those that were there are there to the bit."""
    assert type(filled) is type(frame)
    assert list(filled.columns) == list(frame.columns)
    assert not missing_in(filled).any()
    holes = missing_in(frame)
    for j, (new, old) in enumerate(zip(cells_of(filled), cells_of(frame), strict=True)):
        assert [a for a, hole in zip(new, holes[:, j], strict=True) if not hole] == [
            b for b, hole in zip(old, holes[:, j], strict=True) if not hole
        ]


# ---------------------------------------------------------------------------------------------------------------- holes


def test_every_method_reads_rows_with_holes(fitted):
    vae, frame = fitted
    assert missing_in(frame).any(0).all()
    assert np.isfinite(vae.loss_curve_).all()
    assert np.isfinite(vae.transform(frame)).all()
    assert np.isfinite(vae.posterior(frame)[1]).all()
    assert np.isfinite(vae.score_samples(frame)).all()
    rows = vae.reconstruct(frame)
    assert not missing_in(rows).any()
    assert list(rows.columns) == list(frame.columns)


def test_impute_fills_holes_only(fitted):
    vae, frame = fitted
    filled = vae.impute(frame[:150])
    assert_complete_copy(filled, frame[:150])
    assert cells_of(vae.impute(frame[:150])) == cells_of(filled)  # the same call, the same cells


def test_imputed_copies_differ_in_holes_only(fitted):
    vae, frame = fitted
    copies = vae.impute(frame[:60], n_draws=3, random_state=0)
    assert len(copies) == 3
    for copy in copies:
        assert_complete_copy(copy, frame[:60])
    assert not any(cells_of(a) == cells_of(b) for a, b in itertools.combinations(copies, 2))
    again = vae.impute(frame[:60], n_draws=3, random_state=0)
    assert [cells_of(copy) for copy in again] == [cells_of(copy) for copy in copies]
    assert len(vae.impute(frame[:2], n_draws=1)) == 1


def test_a_row_without_any_cell_says_nothing_and_is_filled(fitted):
    vae, frame = fitted
    nothing = frame[:2].mask(np.ones((2, 9), bool)) if isinstance(frame, pd.DataFrame) else frame[:2].clear(2)
    if isinstance(frame, pd.DataFrame):
        nothing = nothing.astype(frame.dtypes)
    assert missing_in(nothing).all()
    assert np.isfinite(vae.transform(nothing)).all()
    np.testing.assert_allclose(vae.score_samples(nothing, n_draws=4096), 0, atol=0.1)  # the integral of p(z)
    assert not missing_in(vae.impute(nothing)).any()
    assert not missing_in(vae.impute(nothing, n_draws=2)[1]).any()


def test_a_table_without_holes_is_left_as_it_is(fitted):
    vae, frame = fitted
    whole = vae.impute(frame)
    assert cells_of(vae.impute(whole)) == cells_of(whole)


@pytest.mark.parametrize("n_draws", [0, -1, 1.5, "many", True], ids=str)
def test_number_of_copies_must_be_a_positive_integer(n_draws):
    vae = quick().fit(np.random.default_rng(0).normal(size=(30, 2)))
    with pytest.raises(ValueError, match="n_draws must be None or an integer of at least 1"):
        vae.impute(np.full((1, 2), np.nan), n_draws=n_draws)


def test_holes_first_met_after_the_fit_are_read_too():
    whole = mixed_frame(holes=0.0)
    vae = quick(likelihood=LIKELIHOOD).fit(whole)
    assert np.isfinite(vae.score_samples(FRAME)).all()
    assert_complete_copy(vae.impute(FRAME[:40]), FRAME[:40])


EMPTY = {
    "Float64": pd.Series([pd.NA] * 60, dtype="Float64"),
    "Int64": pd.Series([pd.NA] * 60, dtype="Int64"),
    "boolean": pd.Series([pd.NA] * 60, dtype="boolean"),
    "category": pd.Series([None] * 60, dtype="category"),
    "object": pd.Series([None] * 60, dtype=object),
    "datetime": pd.Series([pd.NaT] * 60),
}


@pytest.mark.parametrize("dtype", EMPTY)
def test_a_column_without_any_cell_stays_empty(dtype):
    frame = pd.DataFrame({"nothing": EMPTY[dtype], "x": np.random.default_rng(0).normal(size=60)})
    frame.loc[3, "x"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = quick().fit(frame)
        for rows in (vae.sample(5, random_state=0), vae.impute(frame), vae.reconstruct(frame)):
            assert list(rows.dtypes) == list(frame.dtypes)
            assert rows["nothing"].isna().all()
            assert rows["x"].notna().all()


def test_a_table_without_any_cell_is_an_error():
    with pytest.raises(ValueError, match=r"(?i)all .* missing"):
        quick().fit(np.full((20, 2), np.nan))


def test_imputed_rows_keep_their_index_and_their_place():
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"], index=7 * np.arange(60)[::-1]
    )
    frame.iloc[3, 0] = np.nan
    filled = quick().fit(frame).impute(frame)
    np.testing.assert_array_equal(filled["b"], frame["b"])
    np.testing.assert_array_equal(np.delete(filled["a"].to_numpy(), 3), np.delete(frame["a"].to_numpy(), 3))
    assert list(filled.index) == list(frame.index)


def test_known_cells_of_object_arrays_keep_their_types():
    X = np.empty((60, 2), dtype=object)
    X[:, 0], X[:, 1] = np.array(["a", "b"])[np.random.default_rng(0).integers(0, 2, 60)], list(range(60))
    X[2, 0] = None
    filled = quick().fit(X).impute(X)
    known = np.delete(np.arange(60), 2)
    assert filled[known].tolist() == X[known].tolist()
    assert filled[2, 0] in ("a", "b")


# ------------------------------------------------------------------------------------------------------------ new rows


@pytest.mark.parametrize("n_samples", [1, 2, 333])
def test_samples_look_like_the_table(fitted, n_samples):
    vae, frame = fitted
    rows = vae.sample(n_samples, random_state=0)
    assert rows.shape == (n_samples, 9)
    assert list(rows.columns) == list(frame.columns)
    assert list(rows.dtypes) == list(frame.dtypes)
    assert not missing_in(rows).any()
    assert set(rows["city"]) <= {"Ulm", "Bonn", "Kiel"}
    assert set(rows["note"]) <= {"yes", "no"}
    assert all(value >= 0 and value == int(value) for name in ("visits", "claims") for value in rows[name])
    income = np.array(rows["income"], dtype=float)
    np.testing.assert_array_equal(income, np.round(income, 2))


def test_samples_larger_than_a_chunk():
    vae = quick(decoder="autoregressive").fit(np.random.default_rng(0).normal(size=(50, 2)))
    rows = vae.sample(40_000, random_state=0)
    assert rows.shape == (40_000, 2)
    assert len(np.unique(rows[:, 0])) > 39_900


GIVEN = {"city": "Kiel", "height": 0.1 + 0.2, "visits": 3, "smoker": True, "income": 0.0}


@pytest.mark.filterwarnings("ignore:The .* rows given")
def test_given_cells_are_in_every_row_to_the_bit(fitted):
    vae, frame = fitted
    for given in ({"age": 33}, {"seen": frame["seen"][3]}, {"income": 123.45}, {"claims": 2.0, "note": "no"}, GIVEN):
        rows = vae.sample(25, given=given, random_state=0)
        assert rows.shape == (25, 9)
        assert list(rows.dtypes) == list(frame.dtypes)
        assert not missing_in(rows).any()
        for name, value in given.items():
            assert list(rows[name]) == [value] * 25
    again = vae.sample(25, given=GIVEN, random_state=0)
    assert cells_of(again) == cells_of(rows)
    assert vae.sample(3, given=GIVEN, noise=False, random_state=0).shape == (3, 9)


def test_nothing_given_is_a_plain_sample(fitted):
    vae, _ = fitted
    assert cells_of(vae.sample(5, given={}, random_state=0)) == cells_of(vae.sample(5, random_state=0))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"weight": 3.0}, ["'weight'", "'height'"]),
        ({"city": "Rome"}, ["'city'", "'Rome'", "levels seen at fit", "'Bonn'"]),
        ({"height": np.nan}, ["'height'", "missing"]),
        ({"city": None}, ["'city'", "missing"]),
        ({"visits": -1}, ["'visits'", "'poisson'", "-1"]),
        ({"claims": 2.5}, ["'claims'", "'negative_binomial'", "2.5"]),
        ({"height": np.inf}, ["'height'", "finite"]),
    ],
    ids=str,
)
def test_what_cannot_be_given_is_named(fitted, given, words):
    with pytest.raises(ValueError, match=r".") as caught:
        fitted[0].sample(3, given=given)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_constant_column_can_be_given_its_value_only():
    X = np.column_stack([np.random.default_rng(0).normal(size=60), np.full(60, 4.0)])
    vae = quick().fit(X)
    assert (vae.sample(3, given={1: 4.0}, random_state=0)[:, 1] == 4).all()
    with pytest.raises(ValueError, match=r"(?i)column 1 .*constant.*4.*9"):
        vae.sample(3, given={1: 9.0})


def test_a_value_that_the_column_cannot_hold_cannot_be_given():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"rooms": rng.integers(0, 50, 60), "half": rng.choice([0.0, 0.5, 7.25], 60), "x": rng.normal(size=60)}
    )
    vae = quick(likelihood={"quantile_normal": ["half"]}).fit(frame)
    with pytest.raises(ValueError, match=r"'rooms'.*2\.5"):
        vae.sample(3, given={"rooms": 2.5})
    with pytest.raises(ValueError, match=r"'half'.*3\.7"):
        vae.sample(3, given={"half": 3.7})


def test_a_far_value_given_is_warned_about():
    X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 4)) + 0.05 * np.random.default_rng(1).normal(
        size=(200, 4)
    )
    settings = {"decoder": "factorized", "max_iter": 150, "learning_rate_init": 1e-2, "likelihood": "normal"}
    with pytest.raises(ValueError, match=r"no row can have.*see bounds"):
        quick(**settings).fit(X).sample(50, given={0: 50.0}, random_state=0)
    vae = quick(bounds=None, **settings).fit(X)
    with pytest.warns(UserWarning, match=r"rows given .* rest on only about"):
        vae.sample(50, given={0: 50.0}, random_state=0)
    # few rows may rest on one proposal each
    with pytest.warns(UserWarning, match=r"rows given .* rest on only about"):
        vae.sample(2, given={0: 50.0}, random_state=0)


# ------------------------------------------------------------------------------------------------------------ densities


@pytest.mark.parametrize("decoder", DECODERS)
def test_masses_of_categories_and_flags_sum_to_one(decoder):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, 300), rng.integers(0, 4, 300)
    frame = pd.DataFrame({"a": pd.Categorical(a), "b": pd.Categorical((a + b) % 4), "c": rng.uniform(size=300) < 0.3})
    vae = quick(decoder=decoder, max_iter=15).fit(frame)
    grid = pd.DataFrame(list(itertools.product(range(3), range(4), [False, True])), columns=list("abc"))
    assert np.exp(vae.score_samples(grid, n_draws=1024)).sum() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["poisson", "negative_binomial"])
def test_masses_of_counts_sum_to_one(decoder, kind):
    rng = np.random.default_rng(0)
    rate = rng.gamma(3, 1, 300)
    X = np.column_stack([rng.poisson(rate), rng.uniform(size=300) < rate / 6]).astype(float)
    vae = quick(decoder=decoder, likelihood={kind: [0]}, max_iter=15).fit(X)
    grid = np.array(list(itertools.product(range(150), [0.0, 1.0])))
    assert np.exp(vae.score_samples(grid, n_draws=1024)).sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("decoder", DECODERS)
def test_density_of_numbers_integrates_to_one(decoder):
    rng = np.random.default_rng(0)
    x = np.where(rng.uniform(size=400) < 0.5, rng.normal(-3, 1, 400), rng.normal(4, 0.5, 400))
    X = np.column_stack([x, x > 0])
    vae = quick(decoder=decoder, likelihood={"normal": [0]}, max_iter=20).fit(X)
    axis = np.linspace(-60, 60, 6001)
    total = sum(np.exp(vae.score_samples(np.column_stack([axis, np.full(6001, flag)]))).sum() for flag in (0.0, 1.0))
    assert total * (axis[1] - axis[0]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("spikes", [False, True])
def test_density_of_quantiles_and_masses_of_spikes_sum_to_one(decoder, spikes):
    rng = np.random.default_rng(0)
    flag = rng.uniform(size=1500) < 0.4
    x = np.exp(rng.normal(size=1500) + flag)
    if spikes:
        x[rng.uniform(size=1500) < 0.3] = 0.0
        x[rng.uniform(size=1500) < 0.1] = 2.5
    X = np.column_stack([x, flag])
    vae = quick(decoder=decoder, likelihood={"quantile_normal": [0]}, max_iter=40).fit(X)
    quantiles = vae._fitted.table.columns[0].kind.quantiles
    assert quantiles.spikes.tolist() == ([0.0, 2.5] if spikes else [])
    # a midpoint rule between the points where the density jumps, and as far beyond them as it matters
    scores = np.unique(np.concatenate([np.linspace(-9, 9, 1500), quantiles.scores]))
    slopes = np.diff(quantiles.knots) / np.diff(quantiles.scores)
    k = np.clip(np.searchsorted(quantiles.scores, scores, side="right") - 1, 0, len(slopes) - 1)
    edges = quantiles.knots[k] + (scores - quantiles.scores[k]) * slopes[k]
    middles = (edges[:-1] + edges[1:]) / 2
    total = 0.0
    for value in (0.0, 1.0):
        rows = np.column_stack([middles, np.full(len(middles), value)])
        total += (np.exp(vae.score_samples(rows, n_draws=256)) * np.diff(edges)).sum()
        if spikes:
            total += np.exp(vae.score_samples(np.array([[0.0, value], [2.5, value]]), n_draws=256)).sum()
    assert total == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("likelihood", ["normal", "quantile_normal"])
def test_another_unit_shifts_the_score_by_the_log_of_it(decoder, likelihood):
    """Numbers in units of an eighth: encoded rows are the same to the bit, and a density is per unit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3)) @ rng.normal(size=(3, 3))
    X[rng.uniform(size=1000) < 0.2, 1] = 0.0
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    kinds = quick(decoder=decoder, likelihood=likelihood)
    one, eight = kinds.fit(X).score_samples(X), kinds.fit(8 * X).score_samples(8 * X)
    cells = (~np.isnan(X)).sum(1)
    if likelihood == "quantile_normal":
        cells -= X[:, 1] == 0  # a spike has a mass, whatever the unit
    np.testing.assert_allclose(eight - one, -cells * math.log(8), rtol=0, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("decoder", DECODERS)
def test_two_hundred_categorical_columns(decoder):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, size=(300, 200))
    codes[rng.uniform(size=codes.shape) < 0.02] = -1
    frame = pd.DataFrame({f"question {j}": pd.Categorical.from_codes(codes[:, j], list("abcde")) for j in range(200)})
    vae = quick(decoder=decoder).fit(frame)
    assert np.isfinite(vae.score_samples(frame[:50])).all()
    rows = vae.sample(20, random_state=0)
    assert list(rows.dtypes) == list(frame.dtypes)
    assert not rows.isna().any().any()
    assert_complete_copy(vae.impute(frame[:10]), frame[:10])


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_column_of_a_thousand_levels(decoder):
    rng = np.random.default_rng(0)
    codes = np.concatenate([np.arange(1000), rng.integers(0, 1000, 2000)])
    frame = pd.DataFrame({"shop": [f"shop {code}" for code in codes], "sales": rng.normal(codes / 100, 1)})
    vae = quick(decoder=decoder).fit(frame)
    assert np.isfinite(vae.score_samples(frame[:100])).all()
    rows = vae.sample(500, random_state=0)
    assert set(rows["shop"]) <= set(frame["shop"])
    assert rows["shop"].nunique() > 50
    given = vae.sample(5, given={"shop": "shop 7"}, random_state=0)
    assert given["shop"].tolist() == ["shop 7"] * 5
    every = pd.DataFrame({"shop": [f"shop {code}" for code in range(1000)], "sales": np.nan})
    assert np.exp(vae.score_samples(every)).sum() == pytest.approx(1, abs=0.05)


def test_many_rows_make_the_decoder_ordered_and_few_do_not():
    X = np.random.default_rng(0).normal(size=(1200, 2))
    assert quick(max_iter=1).fit(X).decoder_ == "autoregressive"
    assert quick(max_iter=1).fit(X[:500]).decoder_ == "factorized"
    assert quick(max_iter=1, likelihood="normal").fit(X).decoder_ == "factorized"
    assert quick(max_iter=1, hidden_layer_sizes=()).fit(X).decoder_ == "factorized"
    assert quick(max_iter=1, decoder="autoregressive", hidden_layer_sizes=()).fit(X[:50]).decoder_ == "autoregressive"


# ------------------------------------------------------------------------------------------------------- the same bits


def numbers_of(vae, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            vae.transform(frame).tolist(),
            vae.score_samples(frame).tolist(),
            cells_of(vae.sample(9, random_state=1)),
            cells_of(vae.sample(9, given={"city": "Ulm"}, random_state=1)),
            cells_of(vae.impute(frame[:20])),
            [cells_of(copy) for copy in vae.impute(frame[:20], n_draws=2, random_state=1)],
        )


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_same_seed_gives_the_same_bits_and_so_does_a_pickle(decoder):
    one, two, other = (
        quick(decoder=decoder, likelihood=LIKELIHOOD, random_state=seed).fit(FRAME) for seed in (0, 0, 1)
    )
    expected = numbers_of(one, FRAME)
    assert numbers_of(two, FRAME) == expected
    assert numbers_of(pickle.loads(pickle.dumps(one)), FRAME) == expected
    assert other.transform(FRAME).tolist() != expected[0]


@pytest.mark.parametrize("decoder", DECODERS)
def test_partial_fit_takes_streams_with_holes(decoder):
    vae = quick(decoder=decoder, likelihood=LIKELIHOOD)
    for start in range(0, 600, 200):
        vae.partial_fit(FRAME[start : start + 200])
    assert vae.n_iter_ == 3
    assert np.isfinite(vae.score_samples(FRAME)).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_weights_count_in_tables_with_holes(decoder):
    weight = np.random.default_rng(0).uniform(0.5, 2, 600)
    weight[::3] = 0
    vae = quick(decoder=decoder, likelihood=LIKELIHOOD)
    one = vae.fit(FRAME, sample_weight=weight).transform(FRAME)
    kept = FRAME[weight > 0]
    np.testing.assert_array_equal(vae.fit(kept, sample_weight=weight[weight > 0]).transform(FRAME), one)


@parametrize_with_checks(
    [VAEEstimator(decoder="autoregressive", likelihood="quantile_normal", max_iter=2)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("decoder", DECODERS)
def test_numbers_stay_in_the_range_of_their_column(decoder):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_t(1.5, 1200), np.exp(2 * rng.normal(size=1200)), rng.uniform(2, 3, 1200)])
    X[:, 1] += X[:, 0]
    holes = np.where(rng.uniform(size=X.shape) < 0.2, np.nan, X)
    vae = quick(decoder=decoder, likelihood="quantile_normal", max_iter=5).fit(holes)
    low, high = np.nanmin(holes, 0), np.nanmax(holes, 0)
    made = [
        vae.sample(5000, random_state=0),
        vae.sample(500, given={0: float(high[0])}, random_state=0),
        vae.impute(holes, random_state=0),
        *vae.impute(holes, n_draws=3, random_state=0),
    ]
    for rows in made:
        assert not ((rows < low) | (rows > high)).any()
