"""Missing and given cells: conditional distributions known exactly, weights, and what stays as it is."""

import numpy as np
import pandas as pd
import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import shaken
from scipy import stats
from tables import ASKED, any_table
from test_inference import linear_model

from skvae import VAEEstimator, conditioning
from skvae.conditioning import complete, given_parts, resample, sample_given, truncated
from skvae.inference import generate
from skvae.model.latent import Prior
from skvae.table.given import Conditions

DECODERS = ["factorized", "autoregressive"]


@pytest.fixture(scope="module")
def linear():
    return linear_model()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------- exact distributions


def test_rows_given_a_number_have_the_moments_that_a_linear_model_states(linear):
    vae, X, mean, covariance = linear
    given = X[3, 0]
    rows = vae.sample(4000, given={0: given}, random_state=0)
    slopes = covariance[1:, 0] / covariance[0, 0]
    expected = mean[1:] + slopes * (given - mean[0])
    left = covariance[1:, 1:] - np.outer(slopes, slopes) * covariance[0, 0]
    deviation = np.sqrt(np.diag(left))
    np.testing.assert_allclose((rows[:, 1:].mean(0) - expected) / deviation, 0, atol=0.1)
    scales = np.outer(deviation, deviation)
    np.testing.assert_allclose(np.cov(rows[:, 1:].T) / scales, left / scales, atol=0.1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_weighted_completions_have_the_mean_of_rows_drawn_and_thrown_away(decoder):
    """Rows of the model itself that have the level given, against completions of that level."""
    module = shaken("gated", decoder=decoder).float()
    layout = LAYOUTS["gated"]
    parts = generate(module, torch.randn(40_000, 2, generator=seeded(1)), seeded(2))
    kept = parts[parts[:, 2] == 1, 0]
    x = torch.zeros(1, layout.width)
    x[0, layout.first_level] = 1
    given = torch.tensor([[torch.nan, torch.nan, 1.0]])
    drawn, log_weights = complete(module, x, given, 40_000, seeded(), Prior(2))
    weights = torch.softmax(log_weights, dim=1)
    mean = float(weights[0] @ drawn[0, :, 0])
    deviation = float((weights[0] @ (drawn[0, :, 0] - mean) ** 2).sqrt())
    assert mean == pytest.approx(float(kept.mean()), abs=0.05 * float(kept.std()))
    assert deviation == pytest.approx(float(kept.std()), rel=0.05)


# ------------------------------------------------------------------------------------------- simulated distributions


def two_columns(n=4000):
    """A number around a mean told by a letter: the conditional distributions are known."""
    rng = np.random.default_rng(3)
    letter = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame({"x": np.array([-2.0, 0.0, 3.0])[letter] + 0.7 * rng.normal(size=n)})
    frame["letter"] = np.array(list("abc"))[letter]
    return frame


@pytest.fixture(scope="module", params=DECODERS)
def letters(request):
    settings = {
        "max_iter": 40,
        "learning_rate_init": 5e-3,
        "hidden_layer_sizes": (32,),
        "likelihood": {"normal": ["x"]},
    }
    return VAEEstimator(2, decoder=request.param, random_state=0, **settings).fit(two_columns())


def letter_given(x):
    """P(letter | x) of the simulated table."""
    weight = np.array([0.5, 0.3, 0.2]) * np.exp(-0.5 * ((x - np.array([-2.0, 0.0, 3.0])) / 0.7) ** 2)
    return weight / weight.sum()


@pytest.mark.filterwarnings("ignore:The .* rows given")
@pytest.mark.parametrize(("letter", "mean"), [("a", -2.0), ("b", 0.0), ("c", 3.0)])
def test_numbers_follow_the_category_given(letters, letter, mean):
    rows = letters.sample(2000, given={"letter": letter}, random_state=0)["x"]
    assert rows.mean() == pytest.approx(mean, abs=0.3)
    # tighter: the rows of that letter among rows drawn without a condition
    own = letters.sample(20_000, random_state=1)
    own = own["x"][own["letter"] == letter]
    assert rows.mean() == pytest.approx(own.mean(), abs=0.12)
    assert rows.std() == pytest.approx(own.std(), abs=0.12)
    filled = letters.impute(pd.DataFrame({"x": [np.nan] * 30, "letter": [letter] * 30}))["x"]
    assert filled.mean() == pytest.approx(own.mean(), abs=0.25)
    copies = letters.impute(pd.DataFrame({"x": [np.nan] * 30, "letter": [letter] * 30}), n_draws=20, random_state=0)
    drawn = pd.concat(copies)["x"]
    assert drawn.mean() == pytest.approx(own.mean(), abs=0.3)
    assert drawn.std() == pytest.approx(own.std(), abs=0.3)


@pytest.mark.filterwarnings("ignore:The .* rows given")
@pytest.mark.parametrize("x", [-2.0, -0.8, 0.1, 1.6, 3.0])
def test_categories_follow_the_number_given(letters, x):
    rows = letters.sample(2000, given={"x": x}, random_state=0)
    shares = [(rows["letter"] == letter).mean() for letter in "abc"]
    np.testing.assert_allclose(shares, letter_given(x), atol=0.15)
    copies = letters.impute(pd.DataFrame({"x": [x], "letter": [None]}), n_draws=400, random_state=0)
    shares = [np.mean([copy["letter"].iloc[0] == letter for copy in copies]) for letter in "abc"]
    np.testing.assert_allclose(shares, letter_given(x), atol=0.18)


def test_most_probable_category_is_imputed(letters):
    points = np.array([-2.5, -1.8, 0.0, 2.9, 3.4])
    filled = letters.impute(pd.DataFrame({"x": points, "letter": [None] * 5}))
    assert filled["letter"].tolist() == ["abc"[letter_given(x).argmax()] for x in points]


def test_a_row_with_a_hole_has_the_density_of_what_it_shows(letters):
    """Integrating the letter out: p(x) = sum over letters of p(x, letter)."""
    points = np.array([-2.0, 0.0, 1.0, 3.0])
    hole = letters.score_samples(pd.DataFrame({"x": points, "letter": [None] * 4}), n_draws=4096)
    joint = [
        letters.score_samples(pd.DataFrame({"x": points, "letter": [letter] * 4}), n_draws=4096) for letter in "abc"
    ]
    np.testing.assert_allclose(hole, np.logaddexp.reduce(joint), atol=0.15)


# ------------------------------------------------------------------------------------------------------------ completing


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kinds", ["both", "missing", "gated", "exposure", "all"])
@pytest.mark.parametrize("noise", [True, False])
def test_completed_rows_hold_the_given_parts_and_have_weights(kinds, decoder, noise):
    module = shaken(kinds, decoder=decoder)
    layout = LAYOUTS[kinds]
    x, parts = rows_of(layout, 6)
    offset = None
    if layout.exposure is not None:
        offset = layout.exposure.offsets_of_parts(parts)
    drawn, log_weights = complete(module, x, parts, 16, seeded(), Prior(2), noise=noise, offset=offset)
    assert drawn.shape == (6, 16, layout.n_parts)
    assert log_weights.shape == (6, 16)
    assert torch.isfinite(log_weights).all()
    observed = ~torch.isnan(parts)
    for k in range(16):
        assert torch.equal(drawn[:, k][observed], parts[observed])
    # what is behind a closed gate stays missing
    for i in range(layout.n_parts):
        if layout.gate[i] < 0:
            assert torch.isfinite(drawn[:, :, i]).all()
    again, _ = complete(module, x, parts, 16, seeded(), Prior(2), noise=noise, offset=offset)
    torch.testing.assert_close(again, drawn, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_given_parts_are_those_of_which_rows_were_made(name):
    layout = LAYOUTS[name]
    x, parts = rows_of(layout, 30)
    torch.testing.assert_close(given_parts(layout, x, ~torch.isnan(parts)), parts, rtol=0, atol=0, equal_nan=True)
    nothing = given_parts(layout, x, torch.zeros(30, layout.n_parts, dtype=torch.bool))
    assert torch.isnan(nothing).all()


# --------------------------------------------------------------------------------------------------------------- weights


def test_no_draw_has_more_than_a_cut_weight_before_they_sum_to_one_again():
    weights = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    expected = torch.tensor([[0.5, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(truncated(weights), expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize("n_samples", [1, 7, 1000])
def test_positions_are_drawn_as_often_as_their_weights_say(n_samples):
    weights = torch.softmax(torch.randn(20, generator=seeded(3)), 0)
    positions = resample(weights, n_samples, seeded())
    assert positions.shape == (n_samples,)
    # systematically: no share is off by a row or more (plus the rounding of the sum)
    counts = torch.bincount(positions, minlength=20).double()
    assert ((counts - n_samples * weights.double()).abs() < 1 + 1e-4).all()
    assert torch.equal(resample(weights, n_samples, seeded()), positions)


def test_positions_are_in_random_order_and_in_range():
    positions = resample(torch.full((50,), 0.0199), 500, seeded())  # weights that sum to less than one
    assert positions.max() == 49
    assert not torch.equal(positions, positions.sort().values)


def test_on_average_positions_are_drawn_by_their_weights():
    weights = torch.tensor([0.03, 0.37, 0.6])
    drawn = torch.cat([resample(weights, 2, seeded(seed)) for seed in range(2000)])
    np.testing.assert_allclose(torch.bincount(drawn, minlength=3) / 4000, weights, atol=0.02)


# ---------------------------------------------------------------------------------------------------- filling and drawing


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    """A fitted model of every kind of column, and values with holes."""
    _, values = any_table(300)
    settings = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "decoder": request.param}
    vae = VAEEstimator(2, likelihood=ASKED, categorical_features=[1], **settings)
    values[:, 5] %= 7
    return vae.fit(values)._fitted, values


def test_given_cells_are_in_every_row_and_there_are_proposals_behind_them(model, monkeypatch):
    fitted, _ = model
    row = np.full((1, 10), np.nan)
    row[0, [0, 1, 3]] = [0.1 + 0.2, 2, 3]
    monkeypatch.setattr(conditioning, "SAMPLES_AT_ONCE", 20)
    conditions = Conditions(row, {}, {})
    values, n_effective = sample_given(fitted.network, fitted.table, conditions, 50, seeded(), Prior(2))
    assert values.shape == (50, 10)
    assert (values[:, [0, 1, 3]] == row[0, [0, 1, 3]]).all()
    assert np.isfinite(values).all()
    # the last ten rows rest on as many proposals as the others
    assert 0 < n_effective <= 1000
    nothing = Conditions(np.full((1, 10), np.nan), {}, {})
    plain, whole = sample_given(fitted.network, fitted.table, nothing, 10, seeded(), Prior(2))
    assert np.isfinite(plain).all()
    assert 10 < whole <= 1000


# ------------------------------------------------------------------------------------------------------- ranges and sets


def test_rows_within_ranges_and_sets_are_those_of_many_rows_that_meet_them(letters):
    rows = letters.sample(4000, given={"x": (-1.0, 2.0), "letter": ["a", "b"]}, random_state=0)
    assert rows["x"].between(-1, 2).all()
    assert set(rows["letter"]) == {"a", "b"}
    many = letters.sample(40_000, random_state=1)
    many = many[many["x"].between(-1, 2) & many["letter"].isin(["a", "b"])]
    assert (rows["letter"] == "a").mean() == pytest.approx((many["letter"] == "a").mean(), abs=0.04)
    assert stats.ks_2samp(rows["x"], many["x"]).statistic < 0.04


def test_a_range_beside_a_cell_and_one_without_an_end(letters):
    rows = letters.sample(500, given={"x": (0.5, None), "letter": "b"}, random_state=0)
    assert (rows["x"] >= 0.5).all()
    assert (rows["letter"] == "b").all()
    assert rows["x"].nunique() > 300


def test_conditions_that_no_row_meets_are_refused(letters, monkeypatch):
    monkeypatch.setattr(conditioning, "MOST_TIMES", 2)
    least = float(two_columns()["x"].min())
    with pytest.raises(ValueError, match="None of 2000 rows drawn"):
        letters.sample(2, given={"x": (least, least + 1e-9), "letter": ["c"]}, random_state=0)


# --------------------------------------------------------------------------------------------------- conditions per row


def test_a_frame_has_a_condition_per_row(letters):
    conditions = pd.DataFrame(
        {"letter": ["a", None, "c"] * 300, "x": [np.nan, 0.25, np.nan] * 300}, index=range(5, 905)
    )
    rows = letters.sample(given=conditions, random_state=0)
    assert list(rows.columns) == ["x", "letter"]
    assert rows.index.tolist() == list(range(900))
    assert (rows["letter"][0::3] == "a").all()
    assert (rows["x"][1::3] == 0.25).all()
    assert (rows["letter"][2::3] == "c").all()
    assert not rows.isna().to_numpy().any()
    own = letters.sample(20_000, random_state=1)
    assert rows["x"][0::3].mean() == pytest.approx(own["x"][own["letter"] == "a"].mean(), abs=0.2)
    assert rows["x"][2::3].std() == pytest.approx(own["x"][own["letter"] == "c"].std(), abs=0.2)


def test_several_rows_per_condition_stand_beside_each_other(letters):
    rows = letters.sample(3, given=pd.DataFrame({"letter": ["a", "c"]}), random_state=0)
    assert rows["letter"].tolist() == ["a"] * 3 + ["c"] * 3
    assert rows["x"].nunique() == 6
    again = letters.sample(3, given=pd.DataFrame({"letter": ["a", "c"]}), random_state=0)
    pd.testing.assert_frame_equal(rows, again)
    means = letters.sample(given=pd.DataFrame({"letter": ["a", "c"]}), noise=False, random_state=0)
    assert means["letter"].tolist() == ["a", "c"]


def test_conditions_of_an_array(model):
    _, values = model
    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=2, random_state=0).fit(values[:, [0, 3]])
    given = np.array([[0.3, np.nan], [np.nan, values[0, 3]]])
    rows = vae.sample(2, given=given, random_state=0)
    assert rows.shape == (4, 2)
    assert (rows[:2, 0] == 0.3).all()
    assert (rows[2:, 1] == values[0, 3]).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "dict of conditions"),
        (pd.Series([1.0]), "dict of conditions"),
        (pd.DataFrame({"x": []}), "dict of conditions"),
        (pd.DataFrame({"y": [1.0]}), "'y'"),
        (pd.DataFrame({"letter": ["z"]}), "'z'"),
        (pd.DataFrame({"x": [500.0]}), "no row can have"),
        ("a", "dict of conditions"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_tables_of_conditions_that_cannot_be_are_named(letters, given, words):
    with pytest.raises(ValueError, match=words):
        letters.sample(given=given)
