"""Figures on synthetic rows: exact where the answer is, beside those of real rows, for tables of all sorts."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fits import quick
from scipy.stats import chi2_contingency, ks_2samp
from sklearn.model_selection import train_test_split

import skvae
from skvae.evaluation.coding import Coded, code_together, dense
from skvae.evaluation.distances import copied_share, density_and_coverage, nearer_share
from skvae.evaluation.fidelity import (
    associations,
    column_errors,
    correlations,
    ks_statistic,
    missing_error,
    pair_errors,
    total_variation,
    trend_error,
)
from skvae.evaluation.models import detection, predictive_score, utility


def table(n=600, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": hidden + 0.1 * rng.normal(size=n),
            "y": hidden**2,
            "k": pd.Categorical(np.where(hidden > 0, "up", "down")),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 99, n), unit="D"),
            "flag": rng.uniform(size=n) < 0.3,
        }
    )
    frame["x"] = frame["x"].where(rng.uniform(size=n) > 0.1)
    return frame


def coded(numbers, codes=None, n_levels=()):
    numbers = np.asarray(numbers, dtype=float)
    codes = np.empty((len(numbers), 0), dtype=int) if codes is None else np.asarray(codes)
    return Coded(numbers, codes, np.array(n_levels, dtype=int))


# ------------------------------------------------------------------------------------------------------------- the coding


def test_tables_are_coded_together():
    a, b = table(), table(seed=1).astype({"k": str})
    b.loc[3, "k"] = "sideways"
    b.loc[4, "k"] = None
    columns, (first, second) = code_together([a, b[list(b)[::-1]]])
    assert columns.numbers == ["x", "y", "day"]
    assert columns.categories == ["k", "flag"]
    assert columns.levels == [["down", "up", "sideways"], [False, True]]
    assert columns.times["day"].kind == "M"
    np.testing.assert_array_equal(first.numbers[:, 0], a["x"])
    np.testing.assert_array_equal(second.codes[3:5, 0], [2, 3])
    assert list(first.n_levels) == [4, 3]
    np.testing.assert_array_equal(second.codes[:, 1], b["flag"])
    # a difference of a day is one of as many ticks in both
    np.testing.assert_array_equal(second.numbers[:, 2] == second.numbers[0, 2], b["day"] == b["day"][0])


def test_identifiers_are_left_out_and_arrays_and_polars_are_read():
    X = table()
    X.insert(0, "id", [f"row-{i:04}" for i in range(len(X))])
    columns, (one,) = code_together([X])
    assert columns.left_out == ["id"]
    assert one.numbers.shape == (600, 3)
    again, (same,) = code_together([pl.from_pandas(X)])
    assert again.numbers == columns.numbers
    # levels stand in the order of the library's own dtype
    for own, coded_rows in ((columns, one), (again, same)):
        np.testing.assert_array_equal(np.array(own.levels[0])[coded_rows.codes[:, 0]], X["k"])
    columns, _ = code_together([X[["x", "y"]].to_numpy()])
    assert columns.numbers == [0, 1]
    columns, _ = code_together([X.assign(j=np.arange(600) % 3)[["x", "j"]]], ["j"])
    assert columns.categories == ["j"]
    with pytest.raises(ValueError, match="Expected the same"):
        code_together([X, X.drop(columns="x")])
    with pytest.raises(ValueError, match="All columns look like identifiers"):
        code_together([X[["id"]]])

    # a column that is empty in the first table is none to compare
    columns, (holed, full) = code_together([X.assign(x=np.nan), X])
    assert columns.left_out == ["id", "x"]
    assert columns.numbers == ["y", "day"]
    assert holed.numbers.shape == full.numbers.shape == (600, 2)
    assert np.isfinite(list(skvae.evaluate(X.assign(x=np.nan), X, X).to_dict().values())).all()


# ---------------------------------------------------------------------------------------------------------- the fidelity


def test_shape_is_that_of_scipy_and_of_counting():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(0.3, size=80)
    assert ks_statistic(a, np.r_[b, np.nan]) == pytest.approx(ks_2samp(a, b).statistic)
    assert ks_statistic(a, np.array([np.nan])) == 1
    assert total_variation(np.array([0, 0, 1, 1]), np.array([0, 2, 2, 2]), 3) == pytest.approx(0.75)
    real, new = coded(a[:, None], np.zeros((50, 1), int), [2]), coded(b[:, None], np.ones((80, 1), int), [2])
    np.testing.assert_allclose(column_errors(real, new), [ks_2samp(a, b).statistic, 1])


def test_correlations_are_those_of_pandas_with_holes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    X[:, 3] = 2.0
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    np.testing.assert_allclose(correlations(X), pd.DataFrame(X).corr().fillna(0.0), atol=1e-12)


def test_trend_of_known_pairs():
    # two numbers, of correlation 1 and -1: half their difference
    x = np.linspace(0, 1, 100)
    real, new = coded(np.column_stack([x, x])), coded(np.column_stack([x, -x]))
    assert pair_errors(real, new)[0, 1] == pytest.approx(1)
    assert np.isnan(pair_errors(real, new)[0, 0])
    assert trend_error(real, real) == 0
    # two categories that always agree, and two that never do
    codes = np.arange(100) % 2
    same = coded(np.empty((100, 0)), np.column_stack([codes, codes]), [2, 2])
    other = coded(np.empty((100, 0)), np.column_stack([codes, 1 - codes]), [2, 2])
    assert trend_error(same, other) == 1
    # a number and a category: bins beside levels
    mixed = coded(x[:, None], (x > 0.5).astype(int)[:, None], [2])
    turned = coded(x[:, None], (x <= 0.5).astype(int)[:, None], [2])
    assert trend_error(mixed, turned) == pytest.approx(1)
    assert trend_error(coded(x[:, None]), coded(x[:, None])) == 0
    assert missing_error(coded(x[:, None]), coded(np.where(x < 0.25, np.nan, x)[:, None])) == pytest.approx(0.25)


def test_associations_are_the_textbooks():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 300)
    b = np.where(rng.uniform(size=300) < 0.6, a, rng.integers(0, 2, 300))
    x = a + rng.normal(size=300)
    strength = associations(coded(np.column_stack([x, -x]), np.column_stack([a, b]), [4, 4]))
    np.testing.assert_allclose(strength, strength.T)
    assert strength[0, 1] == pytest.approx(1)
    # Cramer's V from scipy's statistic
    chi2 = chi2_contingency(pd.crosstab(a, b), correction=False).statistic
    assert strength[2, 3] == pytest.approx(np.sqrt(chi2 / 300 / 2))
    # the correlation ratio squared is the R2 of the means of the levels
    means = pd.Series(x).groupby(a).transform("mean")
    assert strength[0, 2] ** 2 == pytest.approx(means.var(ddof=0) / x.var())
    # what is constant hangs together with nothing
    constant = associations(coded(np.ones((20, 1)), np.zeros((20, 1), int), [2]))
    np.testing.assert_array_equal(constant, np.eye(2))


# ------------------------------------------------------------------------------------------------- models and distances


def test_what_can_be_told_apart_is_told_apart():
    rng = np.random.default_rng(0)
    real, same = coded(rng.normal(size=(400, 3))), coded(rng.normal(size=(400, 3)))
    moved, ring = coded(rng.normal(2.0, size=(400, 3))), rng.normal(size=(400, 3))
    assert abs(np.array(detection(real, same)) - 0.5).max() < 0.1
    assert min(detection(real, moved)) > 0.95
    # of the same means and variances, and told by trees alone
    ring /= np.sqrt((ring**2).mean(1, keepdims=True))
    logistic, trees = detection(real, coded(ring))
    assert logistic < 0.62 < 0.7 < trees


def test_utility_of_classes_and_numbers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1))
    y = np.digitize(x[:, 0], [-0.5, 0.5])
    rows = coded(x, y[:, None], [3])
    shuffled = coded(x, rng.permutation(y)[:, None], [3])
    assert utility(rows, rows, 0, "classification") > 0.99
    assert abs(utility(shuffled, rows, 0, "classification") - 0.5) < 0.2
    numbers = coded(np.column_stack([x, 2 * x]))
    assert utility(numbers, numbers, 1, "regression") > 0.95
    # one class alone, and one that was not there
    one = coded(x, np.zeros((600, 1), int), [3])
    assert utility(one, rows, 0, "classification") == 0.5
    assert predictive_score(None, x, np.zeros(600), x, y, "classification") == 0.5
    assert utility(coded(x[y < 2], y[y < 2][:, None], [3]), rows, 0, "classification") > 0.5


def test_copies_and_neighbours():
    rng = np.random.default_rng(0)
    train, test = coded(rng.normal(size=(500, 2))), coded(rng.normal(size=(500, 2)))
    assert nearer_share(train, test, train) == 1
    assert nearer_share(train, test, test) == 0
    assert abs(nearer_share(train, test, coded(rng.normal(size=(500, 2)))) - 0.5) < 0.08

    holed = coded([[1.0, np.nan], [0.0, 2.0]], [[1], [0]], [2])
    assert copied_share(holed, holed) == 1
    assert copied_share(holed, coded([[1.0, np.nan], [-0.0, 2.0]], [[0], [0]], [2])) == 0.5


def test_density_and_coverage_are_the_papers():
    rng = np.random.default_rng(0)
    real, new = coded(rng.normal(size=(60, 2))), coded(rng.normal(size=(60, 2)))
    density, coverage = density_and_coverage(real, new)
    # written out: radii to the fifth neighbour, and who lies within
    generator = np.random.default_rng(0)
    points, others = dense(real.at_most(60, generator), new.at_most(60, generator))
    inside = np.zeros((60, 60), dtype=bool)
    for i, point in enumerate(points):
        radius = np.sort(np.linalg.norm(points - point, axis=1))[5]
        inside[i] = np.linalg.norm(others - point, axis=1) <= radius
    assert density == pytest.approx(inside.sum() / 60 / 5)
    assert coverage == pytest.approx(inside.any(1).mean())

    assert density_and_coverage(real, coded(rng.normal(50, size=(60, 2)))) == (0, 0)
    # all at one point: dense, and nothing covered
    density, coverage = density_and_coverage(real, coded(np.zeros((60, 2))))
    assert density > 0.5
    assert coverage < 0.5
    assert density_and_coverage(coded([[1.0]]), coded([[1.0]])) == (0, 0)


# ---------------------------------------------------------------------------------------------------------- all together


def test_every_figure_stands_beside_that_of_real_rows():
    X = table(900)
    train, test = train_test_split(X, test_size=0.4, random_state=0)
    vae = quick(max_iter=10).fit(train)
    evaluation = skvae.evaluate(train, vae.sample(len(train), random_state=0), test, target="k")
    figures = evaluation.to_dict()
    assert set(figures) == set(skvae.evaluation.evaluation.MEANINGS)
    assert evaluation["shape"] == figures["shape"] == pytest.approx(np.mean(list(evaluation.column_errors.values())))
    assert evaluation["trend"] == pytest.approx(np.nanmean(evaluation.pair_errors))
    real = {measure.name: measure.real for measure in evaluation.measures}
    assert real["utility"] > 0.9
    assert real["nearer"] == 0.5
    assert real["shape"] < figures["shape"]
    assert list(evaluation.column_errors) == ["x", "y", "day", "k", "flag"]

    text = repr(evaluation)
    assert max(map(len, text.splitlines())) <= 100
    for measure in evaluation.measures:
        assert f"{measure.value:.3f}" in text
        assert measure.meaning in text
    assert evaluation._repr_html_().count("<tr>") == len(figures) + 1

    # copies are found out
    copied = skvae.evaluate(train, train, test, target="y")
    assert copied["copies"] == 1
    assert copied["nearer"] > 0.75
    assert copied["shape"] == copied["trend"] == 0
    assert "utility" not in skvae.evaluate(train, test, test).to_dict()
    with pytest.raises(ValueError, match="One of the tables has 9 rows; expected at least 10"):
        skvae.evaluate(train, test[:9], test)
    with pytest.raises(ValueError, match="There is no column 'z' to predict"):
        skvae.evaluate(train, test, test, target="z")


def test_figures_are_drawn(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    X = table(300)
    evaluation = skvae.evaluate(X[:100], X[100:200], X[200:])
    figures, columns = evaluation.plot()
    assert len(figures.get_yticklabels()) == 8
    drawn = figures.collections[-1].get_offsets()
    np.testing.assert_allclose(sorted(drawn[:, 0]), sorted(evaluation.to_dict().values()))
    worst = sorted(evaluation.column_errors.values())
    np.testing.assert_allclose([bar.get_width() for bar in columns.patches], worst)
    plt.close("all")
