"""Rules between columns: by themselves, and in what a model makes, fills and scores."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skvae import VAEEstimator
from skvae.constraints import AllowedCombinations, FixedSum, Function, Inequality, Satisfies
from skvae.oversampling import VAEAugmenter, VAEOverSampler

N = 300


def stays(n=N):
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    nights = rng.geometric(0.3, n)
    town = rng.choice(["Bonn", "Kiel", "Köln"], n)
    frame = pd.DataFrame(
        {
            "from": start,
            "until": start + pd.to_timedelta(nights, unit="D"),
            "room": rng.integers(40, 90, n) * nights,
            "meals": rng.integers(0, 30, n),
            "total": 0,
            "town": town,
            "state": np.where(town == "Kiel", "SH", "NRW"),
            "age": rng.integers(16, 80, n),
        }
    )
    frame["total"] = frame["room"] + frame["meals"]
    frame["drives"] = (frame["age"] >= 18) & (rng.uniform(size=n) < 0.7)
    return frame


def may_drive(X):
    return np.asarray(~X["drives"].astype(bool) | (X["age"] >= 18))


RULES = [
    Inequality("from", "until", strict=True),
    FixedSum(["room", "meals"], "total"),
    AllowedCombinations(["town", "state"]),
    Satisfies(may_drive),
]


def quick(**params):
    return VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=4, random_state=0, constraints=RULES, **params)


def assert_kept(rows, rules=RULES):
    for rule in rules:
        assert clone(rule).fit(stays()).is_valid(rows).all(), rule


@pytest.fixture(scope="module", params=["factorized", "autoregressive"])
def model(request):
    return quick(decoder=request.param).fit(stays())


# ----------------------------------------------------------------------------------------------------------- by themselves


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables_come_back_and_broken_rows_are_found(rule, library):
    X = stays()
    broken = X.assign(until=X["from"], total=-1, state="BY", drives=True, age=16)
    if library == "polars":
        if isinstance(rule, Satisfies):
            rule = Satisfies(lambda X: (~X["drives"] | (X["age"] >= 18)).to_numpy())
        X, broken = pl.from_pandas(X), pl.from_pandas(broken)
    fitted = clone(rule).fit(X)
    back = fitted.inverse_transform(fitted.transform(X))
    if library == "pandas":
        pd.testing.assert_frame_equal(back, X)
    else:
        assert back.equals(X)
    assert fitted.is_valid(X).all()
    assert not fitted.is_valid(broken).any()
    assert (fitted.log_abs_det_jacobian(X) == 0).all()
    if not isinstance(rule, AllowedCombinations):
        with pytest.raises(ValueError, match=r"is broken by 300 of 300 rows, the first of which is row 0"):
            clone(rule).fit(broken)


def test_combinations_may_be_stated():
    rule = AllowedCombinations(["town", "state"], [("Bonn", "NRW"), ("Kiel", "SH")])
    with pytest.raises(ValueError, match="is broken by"):
        rule.fit(stays())
    rule.fit(stays()[lambda X: X["town"] != "Köln"])


def test_arrays_are_constrained_by_position():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(50, 3))
    X = np.column_stack([X[:, 0], X[:, 0] + X[:, 1], X[:, 2], 1 - X[:, 2]])
    for rule in (Inequality(0, 1), FixedSum([2, 3]), Function(3, lambda X: 1 - X[:, 2])):
        fitted = clone(rule).fit(X)
        np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(X)), X)
        assert not fitted.is_valid(X[:, [1, 0, 2, 2]]).all()
    rules = [Inequality(0, 1), FixedSum([2, 3])]
    vae = VAEEstimator(1, max_iter=2, hidden_layer_sizes=(4,), constraints=rules, random_state=0)
    made = vae.fit(X).sample(200, random_state=0)
    assert (made[:, 0] <= made[:, 1]).all()
    np.testing.assert_allclose(made[:, 2] + made[:, 3], 1)


def test_a_rule_is_a_step_of_a_pipeline():
    X = stays()[["room", "meals", "total"]]
    pipeline = make_pipeline(FixedSum(["room", "meals"], "total"), VAEEstimator(1, max_iter=1, hidden_layer_sizes=(4,)))
    back = pipeline.fit(X).inverse_transform(pipeline.transform(X))
    assert list(back.columns) == ["room", "meals", "total"]
    assert (back["room"] + back["meals"] == back["total"]).all()


def test_missing_cells_break_no_rule():
    X = stays()
    for name in ("from", "total", "town"):
        X[name] = X[name].where(X.index % 3 > 0)
    for rule in RULES[:3]:
        assert clone(rule).fit(X).is_valid(X).all()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Inequality("from", "end"), "'end', which the table does not have"),
        (Satisfies(lambda X: True), "Expected one boolean per row"),
        (Function("total", lambda X: 3), "Expected one cell per row"),
        (Inequality("from", "room"), "two types|cannot|Cannot|Invalid"),
        (Inequality("room", "room"), "with itself"),
    ],
    ids=["no column", "one boolean", "one cell", "two types", "itself"],
)
def test_rules_that_cannot_be_are_named(rule, words):
    with pytest.raises((ValueError, TypeError), match=words):
        VAEEstimator(constraints=[rule]).fit(stays())


def test_inequalities_form_chains_and_no_circles():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(np.cumsum(rng.integers(0, 9, (200, 4)), axis=1), columns=list("abcd"))
    chain = [Inequality("c", "d"), Inequality("a", "b"), Inequality("b", "c")]
    vae = VAEEstimator(2, max_iter=3, hidden_layer_sizes=(8,), constraints=chain, random_state=0).fit(X)
    made = vae.sample(500, random_state=0)
    assert (made.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    same = X.assign(b=X["a"])
    with pytest.raises(ValueError, match="circle"):
        VAEEstimator(constraints=[Inequality("a", "b"), Inequality("b", "a")]).fit(same)
    with pytest.raises(ValueError, match="from below"):
        VAEEstimator(constraints=[Inequality("a", "c"), Inequality("b", "c")]).fit(X)
    with pytest.raises(ValueError, match="State its limits by Satisfies"):
        VAEEstimator(constraints=[Inequality("a", "b")], bounds={"b": (0, None)}).fit(X)


@pytest.mark.parametrize("units", [("s", "us"), ("ns", "ms")])
def test_dates_of_two_units_are_compared(units):
    X = stays()[["from", "until", "age"]]
    X = X.astype({"from": f"datetime64[{units[0]}]", "until": f"datetime64[{units[1]}]"})
    rule = Inequality("from", "until", strict=True)
    vae = VAEEstimator(1, hidden_layer_sizes=(4,), max_iter=2, constraints=[rule], random_state=0).fit(X)
    made = vae.sample(300, random_state=0)
    assert list(made.dtypes) == list(X.dtypes)
    assert clone(rule).fit(X).is_valid(made).all()
    assert (made["until"] - made["from"]).max() <= (X["until"] - X["from"]).max()
    holes = X.assign(**{"from": X["from"].where(X.index % 2 > 0)})
    assert clone(rule).fit(X).is_valid(vae.impute(holes)).all()
    assert (vae.conditional(X[:3], "until").mean() > X["from"][:3].to_numpy()).all()


# ------------------------------------------------------------------------------------------------------------- in a model


@pytest.mark.filterwarnings("ignore:The .* rows given")
def test_rules_hold_in_all_that_is_drawn(model):
    X = stays()
    made = model.sample(500, random_state=0)
    assert list(made.dtypes) == list(X.dtypes)
    assert_kept(made)
    assert_kept(model.sample(50, given={"town": "Kiel", "age": 17}, random_state=0))
    june = (pd.Timestamp("2021-01-01"), pd.Timestamp("2021-06-01"))
    rows = model.sample(50, given={"until": june}, random_state=0)
    assert rows["until"].between(*june).all()
    assert_kept(rows)
    both = {"from": X["from"][3], "until": X["until"][3]}
    rows = model.sample(5, given=both, random_state=0)
    assert (rows["from"] == both["from"]).all()
    assert (rows["until"] == both["until"]).all()
    assert_kept(model.sample(3, given=X[["town", "from"]][:20], random_state=0))
    with pytest.raises(ValueError, match="without 'from'"):
        model.sample(3, given={"until": X["until"][3]})


def test_rules_hold_in_filled_rows_and_observed_cells_stay(model):
    X = stays()
    holes = X.mask(np.random.default_rng(1).uniform(size=X.shape) < 0.2)
    # where a part of a sum is missing, so is the sum
    holes["total"] = X["total"].where(holes[["room", "meals"]].notna().all(axis=1))
    observed = holes.notna()
    for filled in (model.impute(holes), *model.impute(holes, n_draws=2, random_state=0)):
        assert not filled.isna().any(axis=None)
        assert_kept(filled, RULES[1:3])
        assert (filled["from"] <= filled["until"]).all()
        for name in X.columns:
            assert (filled[name][observed[name]] == holes[name][observed[name]]).all()


def test_decoded_rows_keep_rules_by_construction(model):
    X = stays()
    for rows in (model.reconstruct(X), model.inverse_transform(np.zeros((3, 2))), model.interpolate(X[:1], X[5:6])):
        assert_kept(rows, RULES[:2])


def test_scores_are_those_of_the_differences():
    X = stays()[["from", "until", "meals"]]
    settings = {"hidden_layer_sizes": (8,), "max_iter": 4, "random_state": 0}
    rule = Inequality("from", "until")
    constrained = VAEEstimator(2, constraints=[rule], **settings).fit(X)
    of_differences = clone(rule).fit(X).transform(X)
    plain = VAEEstimator(2, **settings).fit(of_differences)
    np.testing.assert_allclose(constrained.score_samples(X), plain.score_samples(of_differences))
    np.testing.assert_allclose(constrained.transform(X), plain.transform(of_differences))
    assert (constrained.conditional(X[:5], "until").mean() >= X["from"][:5].to_numpy()).all()
    with pytest.raises(ValueError, match="cannot be predicted"):
        constrained.conditional(X, "from")


@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_rules_hold_in_rows_that_samplers_add(sampler):
    y = np.array([0] * 220 + [1] * 80)
    rows, _ = sampler(vae=quick(), random_state=0).fit_resample(stays(), y)
    assert len(rows) > N
    assert_kept(rows[N:], RULES[:2] if sampler is VAEOverSampler else RULES)


def test_a_rule_that_the_model_has_not_learnt_is_an_error_and_not_an_endless_loop():
    X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=100)})
    never = Satisfies(lambda X: np.full(len(X), len(X) == 100))
    vae = VAEEstimator(1, max_iter=1, hidden_layer_sizes=(4,), constraints=[never], random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"only 0 keep the constraints, of 7 that are wanted"):
        vae.sample(7, random_state=0)


def test_rows_that_cannot_be_mended_are_warned_about_at_the_line_of_the_call(model):
    X = stays()
    broken = X.assign(age=16, drives=True, meals=np.nan, total=np.nan)[:30]
    with pytest.warns(UserWarning, match="30 rows were filled, but no completion was found") as caught:
        model.impute(broken)
    assert caught[0].filename == __file__


# --------------------------------------------------------------------------------------------------- columns that are computed


def bills(n=200):
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"net": rng.gamma(2, 50, n).round(2), "tip": rng.gamma(1, 5, n).round(2)})
    rows["gross"] = 1.2 * rows["net"]
    return rows.assign(total=rows["gross"] + rows["tip"], half=0.5 * (rows["gross"] + rows["tip"]))


def small(X, rules):
    return VAEEstimator(1, hidden_layer_sizes=(4,), max_iter=3, random_state=0, constraints=rules).fit(X)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_computed_columns_may_depend_on_one_another_in_any_order(order):
    rules = [
        Function("gross", lambda X: 1.2 * X["net"]),
        FixedSum(["gross", "tip"], "total"),
        Function("half", lambda X: 0.5 * X["total"]),
    ]
    made = small(bills(), [rules[k] for k in order]).sample(50, random_state=0)
    np.testing.assert_allclose(made["gross"], 1.2 * made["net"], rtol=1e-9)
    np.testing.assert_allclose(made["total"], made["gross"] + made["tip"], rtol=1e-9)
    np.testing.assert_allclose(made["half"], 0.5 * made["total"], rtol=1e-9)


def test_a_column_is_computed_once():
    rules = [FixedSum(["gross", "tip"], "total"), Function("total", lambda X: X["gross"] + X["tip"])]
    with pytest.raises(ValueError, match=r"Two constraints compute the column 'total'\. Keep one of them"):
        small(bills(), rules)


def test_columns_computed_from_one_another_in_a_circle_are_refused():
    rules = [Function("gross", lambda X: 1.2 * X["net"]), Function("net", lambda X: X["gross"] / 1.2)]
    with pytest.raises(ValueError, match=r"compute the columns \['gross', 'net'\] from one another in a circle"):
        small(bills()[["gross", "net", "tip"]], rules)


def test_a_part_that_is_computed_elsewhere_takes_no_share():
    rules = [FixedSum(["gross", "tip"], "total"), Function("gross", lambda X: 1.2 * X["net"])]
    X = bills().drop(columns="half")
    holed = X.copy()
    holed.loc[:49, ["gross", "tip"]] = np.nan
    filled = small(X, rules).impute(holed)
    np.testing.assert_allclose(filled[["gross", "tip"]], X[["gross", "tip"]], rtol=1e-6, atol=1e-6)


def test_sums_are_as_exact_as_their_terms():
    """A part that is 0 but for the rounding error of the others breaks no sum."""
    parts = np.random.default_rng(0).dirichlet([1, 1, 1e-3], 300) * 100
    X = np.column_stack([parts[:, :2], 100 - parts[:, 0] - parts[:, 1]])
    X[:50, 0] = 100 - X[:50, 1]
    X[:50, 2] = 0.0
    assert FixedSum([0, 1, 2], 100).fit(X).is_valid(X).all()
    X[0, 2] = 0.01
    assert not FixedSum([0, 1, 2], 100).is_valid(X)[0]


def test_missing_parts_of_an_observed_sum_are_what_is_left():
    X = bills()[["net", "tip"]]
    X["total"] = X["net"] + X["tip"]
    vae = small(X, [FixedSum(["net", "tip"], "total")])
    holed = X.copy()
    holed.loc[:49, "net"] = np.nan
    holed.loc[50:99, ["net", "tip"]] = np.nan
    holed.loc[100:149, "total"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled = vae.impute(holed)
        copies = vae.impute(holed, n_draws=3, random_state=0)
    for rows in (filled, *copies):
        np.testing.assert_allclose(rows["net"] + rows["tip"], rows["total"], rtol=1e-9)
        np.testing.assert_allclose(rows["net"][:50], X["net"][:50], rtol=1e-9)
        assert (rows["total"][:100] == X["total"][:100]).all()
        assert (rows[["net", "tip"]][50:100] > -1e-9).all(axis=None)
    # several that are missing are drawn, and share what is left
    assert copies[0]["net"][50:100].std() > 0
    assert (copies[0]["net"][50:100] != copies[1]["net"][50:100]).any()


def test_missing_whole_parts_of_a_constant_sum_stay_whole():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.multinomial(24, [0.5, 0.3, 0.2], 200), columns=["sleep", "work", "rest"])
    vae = small(X, [FixedSum(["sleep", "work", "rest"], 24)])
    holed = X.astype("Int64")
    holed.loc[:59, "sleep"] = pd.NA
    holed.loc[30:59, "work"] = pd.NA
    holed.loc[60:80, "rest"] = pd.NA
    filled = vae.impute(holed)
    assert (filled.sum(axis=1) == 24).all()
    assert filled["sleep"][:30].tolist() == X["sleep"][:30].tolist()
    assert (filled.to_numpy(int) >= 0).all()
