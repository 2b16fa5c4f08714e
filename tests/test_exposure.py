"""Counts in proportion to an exposure: rates, densities, draws and errors, against regressions and sums known exactly."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from reference import in_float64
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import PoissonRegressor
from tables import kinds_of

from skvae import VAEEstimator
from skvae.fitting import make_network
from skvae.inference import generate
from skvae.training_rows import encode_rows, read_rows

KINDS = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]
DECODERS = ["factorized", "autoregressive"]


def policies(n=600, seed=0, rate=0.8):
    """A table of exposures between 0.1 and 3 years, claims at one rate per year, and a number of no concern."""
    rng = np.random.default_rng(seed)
    years = rng.uniform(0.1, 3, n).round(2)
    return pd.DataFrame({"age": rng.normal(50, 10, n), "claims": rng.poisson(rate * years), "years": years})


def quick(kind="poisson", **params):
    settings = {"hidden_layer_sizes": (6,), "max_iter": 15, "random_state": 0, "exposure": "years"}
    return VAEEstimator(2, **{"likelihood": {kind: ["claims"]}, **settings, **params})


@pytest.fixture(scope="module", params=DECODERS)
def fitted(request):
    return quick(decoder=request.param, max_iter=40).fit(policies())


@pytest.mark.parametrize("kind", KINDS)
def test_rate_of_a_linear_model_is_that_of_a_poisson_regression(kind):
    X = policies(2000)[["claims", "years"]]
    # a large beta leaves z nothing to say
    vae = quick(kind, hidden_layer_sizes=(), beta=100.0, max_iter=60, early_stopping=False, bounds=None).fit(X)
    decoded = vae.inverse_transform(np.zeros((1, 2)))
    values = vae._fitted.table.decode(generate(vae.module_, torch.zeros(1, 2)).double().numpy())[0]
    nothing = np.zeros((len(X), 1))
    regression = PoissonRegressor(alpha=0).fit(nothing, X["claims"] / X["years"], sample_weight=X["years"])
    log_rate = np.log(X["claims"].sum() / X["years"].sum())
    assert regression.intercept_ == pytest.approx(log_rate, abs=1e-6)
    assert np.log(values[0] / values[1]) == pytest.approx(log_rate, abs=0.02)
    assert decoded["claims"][0] == np.rint(values[0])


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_starts_at_the_rate_of_all_rows(decoder):
    X = policies()
    vae = quick(decoder=decoder)
    table, values, weight = read_rows(vae, X, None, None, may_vary=True)
    if decoder == "autoregressive":
        table = table.with_auxiliary(values, weight)
    rows, _ = encode_rows(table, values, weight, "cpu")
    module = make_network(vae, table, rows, decoder, vae.hidden_layer_sizes, 0)
    bias = float(module.decoder.layers[-1].bias[0].detach())
    assert np.exp(bias) / X["years"].mean() == pytest.approx(X["claims"].sum() / X["years"].sum(), rel=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", KINDS)
def test_unit_of_the_exposure_does_not_matter(kind, decoder):
    X = policies()
    days = X.assign(years=X["years"] * 256)
    in_years, in_days = (quick(kind, decoder=decoder).fit(table) for table in (X, days))
    np.testing.assert_allclose(in_days.transform(days), in_years.transform(X), rtol=1e-5, atol=1e-5)
    # the density of the exposures themselves has their unit
    np.testing.assert_allclose(in_days.score_samples(days) + np.log(256), in_years.score_samples(X), rtol=1e-5)
    one, other = (vae.sample(50, random_state=0) for vae in (in_years, in_days))
    assert (one["claims"] == other["claims"]).all()
    np.testing.assert_allclose(other["years"], one["years"] * 256, rtol=0.01, atol=2)


@pytest.mark.parametrize("kind", KINDS)
def test_masses_given_an_exposure_sum_to_one(kind):
    for decoder in DECODERS:
        vae = quick(kind, decoder=decoder, max_iter=60).fit(policies())
        row = pd.DataFrame({"age": [52.0], "claims": [np.nan], "years": [2.7]})
        counts = pd.concat([row.assign(claims=float(k)) for k in range(60)])
        joint = np.exp(vae.score_samples(counts, n_draws=4096)).sum()
        assert joint == pytest.approx(np.exp(vae.score_samples(row, n_draws=4096)[0]), rel=0.02)


def test_score_of_a_count_is_its_mass_at_exposure_times_rate():
    X = policies()[["claims", "years"]]
    vae = quick(decoder="factorized", hidden_layer_sizes=()).fit(X)
    with torch.no_grad():
        for network in (vae.module_.encoder, vae.module_.decoder):  # z says nothing, and nothing says what z is
            network.layers[0].weight.zero_()
        vae.module_.encoder.layers[0].bias.zero_()
        rate = float(torch.exp(vae.module_.decoder.layers[0].bias[0])) / X["years"].mean()
    # the draws of both are those around q(z | row)
    without = vae.score_samples(X.assign(claims=np.nan), n_draws=4096)
    expected = stats.poisson(rate * X["years"]).logpmf(X["claims"])
    np.testing.assert_allclose(vae.score_samples(X, n_draws=4096) - without, expected, rtol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_twice_the_given_exposure_draws_twice_the_counts(decoder):
    # so many rows that the model knows the rate to a few per cent
    fitted = quick(decoder=decoder, max_iter=40).fit(policies(2000))
    short, long = (fitted.sample(3000, given={"years": years}, random_state=0) for years in (0.7, 1.4))
    assert (short["years"] == 0.7).all()
    assert (long["years"] == 1.4).all()
    # the rate itself may move with the exposure in an autoregressive model
    assert long["claims"].mean() / short["claims"].mean() == pytest.approx(2, rel=0.15)
    assert short["claims"].mean() == pytest.approx(0.8 * 0.7, rel=0.15)


def test_drawn_counts_follow_the_drawn_exposures(fitted):
    X = fitted.sample(5000, random_state=0)
    years, claims = X["years"].to_numpy(), X["claims"].to_numpy()
    assert (years >= 0.1).all()
    assert claims.dtype.kind == "i"
    for low, high in ((0.1, 1), (1, 2), (2, 3)):
        inside = (years >= low) & (years < high)
        assert claims[inside].sum() / years[inside].sum() == pytest.approx(0.8, rel=0.15)


def test_decoded_counts_are_the_mean_at_the_decoded_exposure():
    X = policies()
    vae = quick(decoder="factorized", bounds=None).fit(X)
    Z = np.random.default_rng(0).normal(size=(20, 2))
    z = torch.from_numpy(Z)
    module = in_float64(vae.module_)
    values = vae._fitted.table.decode(generate(module, z).numpy())
    with torch.no_grad():
        rate = torch.exp(module.decode(z)[:, 0]).numpy() / X["years"].mean()
    np.testing.assert_allclose(values[:, 1], rate * values[:, 2], rtol=1e-6)
    np.testing.assert_array_equal(vae.inverse_transform(Z)["claims"], np.rint(values[:, 1]))


def test_imputed_counts_use_the_exposure_of_the_row_and_a_missing_exposure_is_filled(fitted):
    X = policies()
    holes = pd.concat([X.assign(claims=np.nan, years=years).head(20) for years in (0.5, 2.0)])
    copies = fitted.impute(holes, n_draws=200, random_state=0)
    filled = np.mean([copy["claims"] for copy in copies], axis=0).reshape(2, 20).mean(1)
    assert filled == pytest.approx([0.8 * 0.5, 0.8 * 2.0], rel=0.2)
    drawn = [fitted.sample(5000, given={"years": years}, random_state=0)["claims"].mean() for years in (0.5, 2.0)]
    assert filled == pytest.approx(drawn, rel=0.1)
    no_claim, many = (fitted.impute(X.assign(years=np.nan, claims=k).head(10))["years"] for k in (0, 6))
    assert ((no_claim > 0) & (many > 0)).all()
    assert many.mean() > no_claim.mean()  # many claims were observed for long


@pytest.mark.parametrize("decoder", DECODERS)
def test_rows_without_a_count_need_no_exposure(decoder):
    X = policies()
    X.loc[::7, ["claims", "years"]] = np.nan
    vae = quick(decoder=decoder).fit(X)
    assert np.isfinite(vae.score_samples(X)).all()
    assert np.isfinite(vae.transform(X)).all()
    assert vae.sample(20, random_state=0).notna().all().all()


def test_the_exposure_is_known_by_index_and_drawn_before_the_counts():
    X = policies()
    vae = quick(exposure=-1, likelihood={"poisson": [1]}).fit(X.to_numpy())
    table = vae._fitted.table
    layout = table.layout
    assert [table.owners[i] for i in np.argsort(layout.rank)] == [0, 2, 1]
    assert layout.exposure.column == 2
    np.testing.assert_array_equal(vae.score_samples(X.to_numpy()), quick().fit(X).score_samples(X))


@pytest.mark.parametrize("values", [(0.5, 1.0), (1.0,), (3, 7)], ids=str)
def test_exposures_of_few_values_are_drawn_as_they_are(values):
    X = policies().assign(years=np.random.default_rng(0).choice(values, 600))
    vae = quick().fit(X)
    assert set(vae.sample(100, random_state=0)["years"]) <= set(values)
    assert np.isfinite(vae.score_samples(X)).all()


def test_normal_exposures_are_never_drawn_below_the_smallest_seen():
    X = policies()
    vae = quick(likelihood={"poisson": ["claims"], "normal": ["years"]}, bounds=None).fit(X)
    drawn = vae.sample(2000, random_state=0)
    assert drawn["years"].min() == X["years"].min()
    assert drawn["years"].max() > 3.2  # and beyond the largest
    assert vae.sample(3000, given={"years": 9.0}, random_state=0)["claims"].mean() == pytest.approx(0.8 * 9, rel=0.2)


def test_one_kind_for_all_columns_leaves_the_exposure_a_number():
    X = policies()[["claims", "years"]].assign(visits=1)
    X["visits"] = np.random.default_rng(1).poisson(2 * X["years"])
    vae = quick(likelihood="poisson").fit(X)
    assert kinds_of(vae._fitted.table) == ["poisson", "quantile_normal", "poisson"]


def test_held_out_rows_are_likelier_with_their_exposure():
    rng = np.random.default_rng(5)
    years = np.exp(rng.normal(0, 1.2, 1500))
    group = rng.integers(0, 3, 1500)
    X = pd.DataFrame({"claims": rng.poisson(years * np.array([0.5, 2, 6])[group]), "years": years})
    X["group"] = pd.Categorical(np.array(["a", "b", "c"])[group])
    scores = [
        quick(exposure=exposure, max_iter=60, decoder=decoder).fit(X[:1000]).score(X[1000:])
        for decoder in DECODERS
        for exposure in ("years", None)
    ]
    assert scores[0] > scores[1] + 0.1
    assert scores[2] > scores[3] + 0.02


def test_weights_are_repetitions():
    X = policies(200)
    weight = np.random.default_rng(0).integers(1, 4, 200)
    settings = {"early_stopping": False, "max_iter": 3}
    table = quick(**settings).fit(X, sample_weight=weight)._fitted.table
    repeated = quick(**settings).fit(X.loc[np.repeat(X.index, weight)])._fitted.table
    assert table.layout.exposure.log_mean == pytest.approx(repeated.layout.exposure.log_mean, rel=1e-12)


def test_fitted_models_are_pickled_cloned_and_go_on(fitted):
    X = policies()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    pd.testing.assert_frame_equal(again.sample(20, random_state=3), fitted.sample(20, random_state=3))
    pd.testing.assert_frame_equal(clone(fitted).fit(X).sample(20, random_state=3), fitted.sample(20, random_state=3))
    stream = quick().partial_fit(X[:300]).partial_fit(X[300:])
    assert np.isfinite(stream.score(X))
    with pytest.raises(ValueError, match="'years' is the exposure"):
        stream.partial_fit(X.assign(years=np.nan))


@pytest.mark.parametrize("cell", [0.0, -2.0])
def test_exposure_that_is_not_positive_is_an_error(fitted, cell):
    X = policies()
    X.loc[[4, 9], "years"] = cell
    message = rf"'years' is the exposure.*must be positive, but 2 of 600 rows hold {cell:g}.*first is row 4"
    for call in (quick().fit, fitted.score_samples, fitted.transform, fitted.impute):
        with pytest.raises(ValueError, match=message):
            call(X)
    with pytest.raises(ValueError, match="must be positive"):
        fitted.sample(3, given={"years": cell})


def test_missing_exposure_of_a_count_is_an_error(fitted):
    X = policies()
    X.loc[[4, 9, 11], "years"] = np.nan
    for call in (quick().fit, fitted.score_samples):
        with pytest.raises(
            ValueError, match=r"'years' is the exposure.*missing in 3 of 600 rows.*first is row 4.*impute"
        ):
            call(X)
    with pytest.raises(ValueError, match=r"'years' is the exposure of the counts, but all its cells are missing"):
        quick().fit(X.assign(years=np.nan))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"exposure": "days"},
            r"exposure='days' names no column: the table has 3 columns \('age', 'claims', 'years'\)",
        ),
        ({"exposure": 3}, "exposure=3 names no column"),
        ({"categorical_features": ["years"]}, "names a categorical column"),
        ({"likelihood": {"poisson": ["claims", "years"]}}, "models as 'poisson'. Leave it out of likelihood"),
        ({"exposure": "claims"}, "models as 'poisson'"),
        ({"likelihood": "auto"}, "no other column is a count"),
        ({"likelihood": {"poisson": ["years"]}}, "models as 'poisson'"),
        ({"exposure": 1.5}, "exposure.*must be"),
    ],
    ids=str,
)
def test_what_cannot_be_the_exposure_is_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(policies())
