"""Missing and given cells: conditional distributions known exactly, weights, and what stays as it is."""

import numpy as np
import pandas as pd
import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import shaken
from tables import ASKED, any_table
from test_inference import linear_model

from skvae import VAEEstimator, conditioning
from skvae.conditioning import complete, given_parts, resample, sample_given, truncated
from skvae.inference import generate
from skvae.model.latent import Prior

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
    drawn, weights = complete(module, x, given, 40_000, seeded(), Prior(2))
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
def test_completed_rows_hold_the_given_parts_and_weights_sum_to_one(kinds, decoder, noise):
    module = shaken(kinds, decoder=decoder)
    layout = LAYOUTS[kinds]
    x, parts = rows_of(layout, 6)
    offset = None
    if layout.exposure is not None:
        offset = layout.exposure.offsets_of_parts(parts)
    drawn, weights = complete(module, x, parts, 16, seeded(), Prior(2), noise=noise, offset=offset)
    assert drawn.shape == (6, 16, layout.n_parts)
    assert weights.shape == (6, 16)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=weights.dtype))
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


def test_given_cells_are_in_every_row_and_shares_are_at_most_the_proposals(model, monkeypatch):
    fitted, _ = model
    row = np.full((1, 10), np.nan)
    row[0, [0, 1, 3]] = [0.1 + 0.2, 2, 3]
    monkeypatch.setattr(conditioning, "SAMPLES_AT_ONCE", 20)
    values, share = sample_given(fitted.network, fitted.table, row, 50, seeded(), Prior(2))
    assert values.shape == (50, 10)
    assert (values[:, [0, 1, 3]] == row[0, [0, 1, 3]]).all()
    assert np.isfinite(values).all()
    # the last ten rows rest on as many proposals as the others
    assert 0 < share <= 1000 / 10
    plain, whole = sample_given(fitted.network, fitted.table, np.full((1, 10), np.nan), 10, seeded(), Prior(2))
    assert np.isfinite(plain).all()
    assert 1 < whole <= 1000 / 10
