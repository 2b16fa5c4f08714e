"""Kinds of column: how they are chosen, what they encode and decode, their log-Jacobian and their state."""

import json

import numpy as np
import pandas as pd
import pytest
from tables import FLAGS, NUMBERS, RNG, N, kinds_of, quick, table_of

from skvae.model.likelihoods import BLOCKS
from skvae.table.kinds import KINDS, LIKELIHOODS, SECTIONS, Constant, Kind, order_of_parts

EXAMPLES = {
    "normal": NUMBERS * 1e3 + 7,
    "bernoulli": np.where(FLAGS, 7.0, -3.0),
    "categorical": np.arange(N) % 5.0,
    "constant": np.full(N, 4.25),
    "poisson": np.arange(N) % 7.0,
    "negative_binomial": np.arange(N) ** 2.0,
    "zero_inflated_negative_binomial": np.arange(N) % 4 * 3.0,
    "quantile_normal": np.where(np.arange(N) % 4, np.exp(NUMBERS), 0.5),
}
"""Values of a column of each kind."""

VARIANTS = {
    **{name: (name, values) for name, values in EXAMPLES.items()},
    "fractions": ("bernoulli", np.linspace(0, 1, N)),
    "quantiles without levels": ("quantile_normal", np.exp(NUMBERS)),
    "quantiles that are levels": ("quantile_normal", RNG.choice([0.0, 0.5, 7.25], 100)),
}


def fitted(variant):
    """A column of a kind, and its values."""
    name, values = VARIANTS[variant]
    kind = KINDS[name].fit(values, np.ones(len(values)), n_levels=5, fractions=variant == "fractions")
    return kind, values


# ------------------------------------------------------------------------------------------------------------- registry


def test_every_kind_of_part_has_a_likelihood_and_every_likelihood_a_kind():
    of_parts = set()
    for variant in VARIANTS:
        of_parts |= {part.kind for part in fitted(variant)[0].parts}
    assert of_parts == set(BLOCKS)
    for name in of_parts:
        assert KINDS[name].__name__ == BLOCKS[name].__name__
        assert KINDS[name].section == BLOCKS[name].section
        assert KINDS[name].section in SECTIONS


def test_every_kind_but_a_constant_can_be_asked_for():
    assert set(KINDS) == set(EXAMPLES)
    assert list(KINDS) == [kind.name for kind in KINDS.values()]
    assert set(LIKELIHOODS) == set(KINDS) - {Constant.name}


def test_parts_of_an_encoded_row_are_ordered_by_section():
    parts = [part for variant in VARIANTS for part in fitted(variant)[0].parts]
    order = order_of_parts(parts)
    assert sorted(order) == list(range(len(parts)))
    sections = [SECTIONS.index(KINDS[parts[i].kind].section) for i in order]
    assert sections == sorted(sections)


@pytest.mark.parametrize("forgotten", sorted(Kind.__abstractmethods__))
@pytest.mark.parametrize("name", KINDS)
def test_a_kind_that_forgets_a_method_is_an_error(name, forgotten):
    kind, _ = fitted(name)
    methods = {}
    for method in Kind.__abstractmethods__ - {forgotten}:
        methods[method] = next(vars(c)[method] for c in type(kind).__mro__ if method in vars(c))
    incomplete = type("Incomplete", (Kind,), methods)
    with pytest.raises(TypeError, match=f"abstract method '?{forgotten}"):
        incomplete()


def test_a_class_without_a_name_is_no_kind_and_one_with_a_name_is():
    before = dict(KINDS)
    try:
        type("Shared", (Kind,), {})
        assert before == KINDS
        named = type("Named", (Kind,), {"name": "named"})
        assert KINDS["named"] is named
    finally:
        KINDS.pop("named", None)


# ----------------------------------------------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("variant", VARIANTS)
def test_decode_undoes_encode(variant):
    kind, values = fitted(variant)
    encoded = kind.encode(values, "'x'")
    assert len(encoded) == len(kind.parts)
    cells = []
    for part in encoded:
        assert part.cells.shape == part.inputs.shape == values.shape
        # whatever was drawn where a part is not there
        own = part.cells.copy()
        if part.observed is not None:
            own[~part.observed] = 77.0
        cells.append(own)
    decoded = kind.decode(cells, len(values))
    # quantiles hold the decimals of the column, to 1e-9 of its largest value
    np.testing.assert_allclose(decoded, values, rtol=1e-12, atol=1e-9 * np.abs(values).max())
    if kind.is_discrete or kind.is_count:
        np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize("variant", VARIANTS)
def test_log_jacobian_is_that_of_finite_differences(variant):
    kind, values = fitted(variant)
    if not len(kind.parts) or kind.parts[-1].kind != "normal":
        # masses, which have no units
        assert all(np.all(part.log_jacobian == 0) for part in kind.encode(values, "'x'"))
        return
    # between the points where the slope may jump
    points = np.unique(values)
    points = (points[1:] + points[:-1]) / 2
    h = 1e-6 * np.diff(np.unique(values)).min()
    above, here, below = (kind.encode(points + step, "'x'")[-1] for step in (h, 0.0, -h))
    numeric = np.log((above.cells - below.cells) / (2 * h))
    np.testing.assert_allclose(np.broadcast_to(here.log_jacobian, len(points)), numeric, atol=1e-4)
    if here.observed is not None:
        assert here.observed.all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_what_counts_is_read_as_it_is(variant):
    kind, values = fitted(variant)
    for part in kind.encode(values, "'x'"):
        if kind.is_count:
            np.testing.assert_array_equal(part.cells, values)
            location, scale = kind.log_scale
            np.testing.assert_allclose(part.inputs * scale + location, np.log1p(values), rtol=1e-12)
        else:
            np.testing.assert_array_equal(part.inputs, part.cells)
    if not kind.is_count:
        with pytest.raises(TypeError, match=f"'{kind.name}' hold no counts"):
            _ = kind.log_scale


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_kind_is_made_again_from_its_state(variant):
    kind, values = fitted(variant)
    state = kind.state()
    for name, value in state.items():
        # what is no array, JSON holds to the bit; NaN, too
        if not isinstance(value, np.ndarray):
            assert repr(json.loads(json.dumps(value))) == repr(list(value) if isinstance(value, tuple) else value), name
    again = type(kind).from_state(state)
    assert type(again) is type(kind)
    assert again.parts == kind.parts
    for one, other in zip(again.encode(values, "'x'"), kind.encode(values, "'x'"), strict=True):
        np.testing.assert_equal(tuple(one), tuple(other))
    # equal fields, to the bit
    for name, value in again.state().items():
        np.testing.assert_array_equal(value, state[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1e-300, 1e-30, 1e-5, 1.0, 1e5, 1e30, 1e300])
def test_decode_undoes_encode_at_every_magnitude(dtype, magnitude):
    if not 10 * float(np.finfo(dtype).tiny) < magnitude < float(np.finfo(dtype).max):
        pytest.skip("out of the range of this dtype")
    X = np.column_stack([NUMBERS * magnitude, FLAGS, np.full(N, 2.5)]).astype(dtype)
    table = table_of(X)
    encoded = table.encode_values(X).x
    assert encoded.dtype == dtype
    assert np.abs(encoded).max() < 10
    decoded = table.decode(encoded)
    np.testing.assert_allclose(decoded, X, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps * magnitude)


# --------------------------------------------------------------------------------------------------------------- choice


def test_kinds_are_told_from_the_values():
    table = table_of(
        np.column_stack([NUMBERS, FLAGS, np.where(FLAGS, 7.0, -3.0), np.full(N, 4.0), FLAGS + (NUMBERS > 4)])
    )
    assert kinds_of(table) == ["normal", "bernoulli", "bernoulli", "constant", "normal"]
    assert table.layout.kinds == (("normal", 2), ("bernoulli", 2))


def test_two_values_in_a_handful_of_rows_do_not_make_a_flag():
    assert kinds_of(table_of([[0.0], [1.0]])) == ["normal"]
    # but a boolean dtype does
    assert kinds_of(table_of(pd.DataFrame({"flag": [False, True]}))) == ["bernoulli"]


def test_rounding_noise_of_a_constant_is_no_variation():
    column = np.full(N, 0.1) + np.where(FLAGS, np.finfo(float).eps / 16, 0)
    assert kinds_of(table_of(column[:, None])) == ["constant"]
    assert kinds_of(table_of(np.float32(1e6) + np.zeros((N, 1), np.float32))) == ["constant"]


def test_numbers_of_many_rows_are_modelled_by_their_quantiles():
    column = np.random.default_rng(0).normal(size=(1000, 1))
    assert kinds_of(table_of(column)) == ["quantile_normal"]
    assert kinds_of(table_of(column[:999])) == ["normal"]
    column[0] = np.nan
    assert kinds_of(table_of(column)) == ["normal"]  # cells count, not rows


# -------------------------------------------------------------------------------------------------------------- numbers


def test_numbers_are_standardised_and_flags_become_zero_and_one():
    X = np.column_stack([np.where(FLAGS, 7.0, -3.0), NUMBERS])
    encoded = table_of(X).encode_values(X)
    np.testing.assert_allclose(encoded.x[:, 0], (NUMBERS - NUMBERS.mean()) / NUMBERS.std(), rtol=1e-12)
    np.testing.assert_allclose(encoded.x[:, 1], FLAGS, atol=1e-15)
    np.testing.assert_allclose(encoded.log_jacobian, -np.log(NUMBERS.std()), rtol=1e-12)


@pytest.mark.parametrize("name", ["normal", "poisson"])
def test_weights_enter_the_mean_and_the_deviation(name):
    weight = RNG.integers(1, 4, N)
    X = np.abs(np.rint(NUMBERS))[:, None]
    weighted = table_of(X, sample_weight=weight, likelihood=name).columns[0].kind
    repeated = table_of(np.repeat(X, weight, axis=0), likelihood=name).columns[0].kind
    assert weighted.location == pytest.approx(repeated.location, rel=1e-12)
    assert weighted.scale == pytest.approx(repeated.scale, rel=1e-12)


def test_rows_of_weight_zero_do_not_count():
    X = np.concatenate([NUMBERS, [1e9]])[:, None]
    weight = np.ones(N + 1)
    weight[-1] = 0
    assert table_of(X, sample_weight=weight).columns == table_of(X[:-1]).columns


def test_a_large_offset_does_not_swallow_the_variation():
    column = 1e9 + RNG.normal(size=(N, 1))
    encoded = table_of(column).encode_values(column).x
    assert encoded.mean() == pytest.approx(0, abs=1e-6)
    assert encoded.std() == pytest.approx(1, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- two values


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


def test_a_third_value_is_missing_where_unknown_ones_are_ignored():
    values = np.array([-3.0, 2.0, 7.0, 8.0, -3.1, np.nan])
    kind, _ = fitted("bernoulli")
    np.testing.assert_array_equal(kind.without_unknown(values), [-3.0, 2.0, 7.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(fitted("normal")[0].without_unknown(values), values)


def test_two_values_other_than_zero_and_one_stay_themselves():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=200), rng.choice([0.5, 1.0], size=200), rng.choice([-3.0, 7.0], size=200)])
    rows = quick().fit(X).sample(200, random_state=0)
    assert set(rows[:, 1]) == {0.5, 1.0}
    assert set(rows[:, 2]) == {-3.0, 7.0}


def test_a_third_value_of_a_two_valued_column_is_refused_or_missing():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(200, 2)), rng.choice([0.0, 1.0], size=200)])
    vae = quick().fit(X)
    other, holed = X[:3].copy(), X[:3].copy()
    other[1, 2], holed[1, 2] = 2.0, np.nan
    with pytest.raises(ValueError, match=r"from 0 to 1, as seen at fit, but got 2.*handle_unknown='ignore'"):
        vae.transform(other)
    vae.set_params(handle_unknown="ignore")
    np.testing.assert_array_equal(vae.transform(other), vae.transform(holed))
    np.testing.assert_array_equal(vae.score_samples(other), vae.score_samples(holed))
    assert other[1, 2] == 2.0


def test_a_fraction_is_a_bernoulli_value():
    X = RNG.uniform(size=(N, 2))
    np.testing.assert_array_equal(table_of(X, likelihood="bernoulli").encode_values(X).x, X)


def test_draws_of_a_flag_take_its_two_values():
    X = np.column_stack([NUMBERS, np.where(FLAGS, 7.0, -3.0)])
    vae = quick().fit(X)
    assert set(vae.sample(50, random_state=0)[:, 1]) == {7.0, -3.0}
    assert set(vae.sample(50, noise=False, random_state=0)[:, 1]) <= {7.0, -3.0}
    means = quick(bounds=None).fit(X).sample(50, noise=False, random_state=0)[:, 1]
    assert ((means > -3) & (means < 7)).all()


# --------------------------------------------------------------------------------------------------- levels and constants


def test_constant_columns_come_back_constant():
    X = np.column_stack([NUMBERS, np.full(N, 4.25), FLAGS])
    rows = quick().fit(X).sample(20, random_state=0)
    assert (rows[:, 1] == 4.25).all()
    assert set(rows[:, 2]) <= {0.0, 1.0}


def test_going_on_with_a_column_that_was_constant_is_an_error():
    first, then = np.column_stack([NUMBERS, np.full(N, 4.0)]), np.column_stack([NUMBERS, FLAGS])
    vae = quick().partial_fit(first)
    with pytest.raises(ValueError, match=r"Column 1 was constant \(4\)"):
        vae.partial_fit(then)


def test_a_column_without_any_cell_is_no_part():
    values = np.column_stack([NUMBERS, np.full(N, np.nan), FLAGS])
    table = table_of(values)
    assert kinds_of(table) == ["normal", "constant", "bernoulli"]
    assert table.layout.n_parts == 2
    assert np.isfinite(table.encode_values(values).x).all()
    rows = quick().fit(values).sample(5, random_state=0)
    assert np.isfinite(rows[:, [0, 2]]).all()
    assert np.isnan(rows[:, 1]).all()


def test_a_category_of_one_level_is_constant_and_comes_back():
    frame = pd.DataFrame({"x": NUMBERS, "country": pd.Series(["DE"] * N, dtype=object)})
    assert kinds_of(table_of(frame)) == ["normal", "constant"]
    assert quick().fit(frame).sample(4, random_state=0)["country"].tolist() == ["DE"] * 4


# --------------------------------------------------------------------------------------------------------------- counts

COUNT_KINDS = [name for name, kind in KINDS.items() if kind.is_count]


@pytest.mark.parametrize("kind", COUNT_KINDS)
@pytest.mark.parametrize("cell", [-1.0, 2.5])
def test_what_is_no_count_is_an_error_that_shows_the_way_out(kind, cell):
    X = np.column_stack([NUMBERS, np.random.default_rng(0).poisson(3, N)])
    wrong = X.copy()
    wrong[4, 1] = cell
    with pytest.raises(ValueError, match=rf"Column 1.*'{kind}'.*{cell:g}.*'normal'"):
        quick(likelihood={kind: [1]}).fit(wrong)
    with pytest.raises(ValueError, match=rf"Column 1.*'{kind}'.*{cell:g}.*'normal'"):
        quick(likelihood={kind: [1]}).fit(X).score_samples(wrong)


# ----------------------------------------------------------------------------------------------------- values held fixed


@pytest.mark.parametrize(
    ("variant", "value", "words"),
    [
        ("constant", 5.0, r"'x' was constant \(4\.25\).*5"),
        ("quantiles that are levels", 0.3, r"'x' takes the 3 values seen at fit only \(0, 0\.5, 7\.25\), but got 0\.3"),
    ],
)
def test_a_value_that_a_column_cannot_take_is_refused(variant, value, words):
    kind, values = fitted(variant)
    with pytest.raises(ValueError, match=words):
        kind.check_given(value, "'x'")
    kind.check_given(values[0], "'x'")


@pytest.mark.parametrize("variant", ["normal", "poisson", "quantile_normal", "quantiles without levels"])
def test_other_columns_take_any_number(variant):
    kind, _ = fitted(variant)
    kind.check_given(12.0, "'x'")
    kind.check_constant(np.arange(3.0), "'x'")


def test_many_levels_are_listed_in_part():
    kind = KINDS["quantile_normal"].fit(np.repeat(np.arange(9.0), 40), np.ones(360))
    with pytest.raises(ValueError, match=r"9 values seen at fit only \(0, 1, 2, 3, 4, \.\.\.\)"):
        kind.check_given(0.5, "'x'")
