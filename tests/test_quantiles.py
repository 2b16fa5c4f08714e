"""A number <-> its normal score: the map and its inverse, its derivative, spikes, and what drawn values hold."""

import numpy as np
import pytest
from scipy import stats
from tables import names_of_parts, table_of, there_and_back

from skvae.table.quantiles import QuantileMap

CURVES = {
    "normal": lambda n, rng: rng.normal(5, 2, n),
    "skewed": lambda n, rng: np.exp(2 * rng.normal(size=n)),
    "two lumps": lambda n, rng: np.where(rng.uniform(size=n) < 0.3, rng.normal(-40, 1, n), rng.normal(9, 3, n)),
    "tiny": lambda n, rng: 1e-30 * rng.normal(size=n),
    "huge": lambda n, rng: 1e30 * rng.normal(size=n),
}


def fitted_map(column):
    return QuantileMap.fit(column, np.ones(len(column)))


def test_a_value_never_seen_has_less_mass_the_further_out_it_lies():
    column = np.random.default_rng(0).integers(0, 7, 400).astype(float)
    quantiles = fitted_map(column)
    chance = quantiles.log_chance(np.array([6.0, 6.5, 8.0, 1e9, -1e300]))
    assert chance[0] == 0
    assert chance[1] == pytest.approx(-np.log(401) - 0.5 * (0.5 / column.std()) ** 2)
    assert chance[2] == pytest.approx(-np.log(401) - 0.5 * (2 / column.std()) ** 2)
    assert np.isfinite(chance).all()
    assert chance[3] < -1e9
    table = table_of(column[:, None], likelihood="quantile_normal")
    np.testing.assert_array_equal(table.encode_values(np.array([[6.5], [6.0]])).log_jacobian, [chance[1], 0])


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("n", [50, 2000])
def test_score_and_value_undo_each_other(curve, n):
    column = CURVES[curve](n, np.random.default_rng(0))
    quantiles = fitted_map(column)
    assert len(quantiles.spikes) == 0
    assert quantiles.n_levels == 0
    size = np.abs(column).max()
    wide = np.concatenate([column, np.linspace(column.min() - size, column.max() + size, 99)])
    score, _ = quantiles.score(wide)
    np.testing.assert_allclose(quantiles.value(score), wide, rtol=1e-9, atol=1e-9 * size)
    points = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(quantiles.score(quantiles.value(points))[0], points, atol=1e-6)
    assert (np.diff(quantiles.knots) > 0).all()
    assert (np.diff(quantiles.scores) > 0).all()


@pytest.mark.parametrize("curve", CURVES)
def test_derivative_is_that_of_finite_differences(curve):
    column = CURVES[curve](2000, np.random.default_rng(0))
    quantiles = fitted_map(column)
    points = (quantiles.knots[:-1] + quantiles.knots[1:]) / 2
    points = np.concatenate([points, [column.min() - np.ptp(column), column.max() + np.ptp(column)]])
    h = 1e-4 * np.diff(quantiles.knots).min()
    h = np.maximum(h, 1e-7 * np.abs(points))
    numeric = (quantiles.score(points + h)[0] - quantiles.score(points - h)[0]) / (2 * h)
    inside = np.isclose(quantiles.score(points + h)[1], quantiles.score(points - h)[1], rtol=1e-12)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(quantiles.score(points)[1][inside], np.log(numeric[inside]), atol=1e-3)


@pytest.mark.parametrize("curve", ["normal", "skewed", "two lumps"])
def test_scores_are_standard_normal(curve):
    column = CURVES[curve](4000, np.random.default_rng(0))
    assert stats.kstest(fitted_map(column).score(column)[0], "norm").pvalue > 0.05


def test_map_goes_on_gently_beyond_two_values_that_nearly_agree():
    rng = np.random.default_rng(0)
    column = np.append(rng.normal(size=3000), [4.0, 4.0 + 1e-9, -4.0, -4.0 - 1e-9])
    quantiles = fitted_map(column)
    # a deviation further out is about a score further out, not a billion
    score, log_slope = quantiles.score(np.array([-5.0, 5.0]))
    assert (np.abs(score) < 8).all()
    assert (log_slope < 2).all()


def test_heavy_tails_come_back_with_the_deviation_of_the_column():
    column = np.random.default_rng(0).standard_t(2.1, size=20_000)
    drawn = fitted_map(column).value(np.random.default_rng(1).normal(size=20_000).clip(-4, 4))
    assert drawn.std() == pytest.approx(column.std(), rel=0.25)


def test_range_of_scores_is_that_of_the_smallest_and_the_largest_value():
    column = np.exp(np.random.default_rng(0).normal(size=1500))
    quantiles = fitted_map(column)
    low, high = quantiles.range_of_scores(column.min(), column.max())
    np.testing.assert_allclose(quantiles.value(np.array([low, high])), [column.min(), column.max()], rtol=1e-9)


def test_range_of_scores_reaches_as_far_as_the_range_does():
    column = np.exp(np.random.default_rng(0).normal(size=1500))
    quantiles = fitted_map(column)
    low, high = quantiles.range_of_scores(column.min(), 2 * column.max())
    np.testing.assert_allclose(quantiles.value(np.array([low, high])), [column.min(), 2 * column.max()], rtol=1e-9)
    assert quantiles.range_of_scores(-np.inf, np.inf) == (-np.inf, np.inf)


def test_a_range_that_ends_at_a_spike_leaves_the_others_where_they_are():
    rng = np.random.default_rng(0)
    column = np.where(rng.uniform(size=1500) < 0.4, 0.0, 1 + np.exp(rng.normal(size=1500)))
    quantiles = fitted_map(column)
    low, _ = quantiles.range_of_scores(0.0, column.max())
    assert quantiles.value(np.array([low]))[0] == pytest.approx(column[column > 0].min())


def test_spikes_are_exact():
    rng = np.random.default_rng(0)
    column = np.where(rng.uniform(size=3000) < 0.4, 0.0, np.exp(rng.normal(size=3000)))
    column[rng.uniform(size=3000) < 0.1] = 1 / 3
    quantiles = fitted_map(column)
    assert quantiles.spikes.tolist() == [0.0, 1 / 3]
    assert quantiles.has_rest
    assert quantiles.n_levels == 3
    expected = np.where(column == 0, 0, np.where(column == 1 / 3, 1, 2))
    np.testing.assert_array_equal(quantiles.level(column), expected)
    assert quantiles.level(np.array([np.nextafter(1 / 3, 1), -1.0, 1e9])).tolist() == [2, 2, 2]
    table = table_of(column[:, None], likelihood="quantile_normal")
    assert names_of_parts(table) == [("normal", 0), ("categorical", 0)]
    assert table.layout.gate == (1, -1)
    back = there_and_back(table, column[:, None])[:, 0]
    spikes = np.isin(column, quantiles.spikes)
    np.testing.assert_array_equal(back[spikes], column[spikes])
    np.testing.assert_allclose(back, column, rtol=1e-9)


def test_a_column_of_few_values_is_modelled_level_by_level():
    column = np.random.default_rng(0).choice([0.0, 0.5, 7.25, 9.0], size=400)
    quantiles = fitted_map(column)
    assert quantiles.spikes.tolist() == [0.0, 0.5, 7.25, 9.0]
    assert not quantiles.has_rest
    assert quantiles.n_levels == 4
    assert quantiles.level(np.array([-3.0, 0.2, 0.3, 8.0, 8.5, 99.0])).tolist() == [0, 0, 1, 2, 3, 3]
    table = table_of(column[:, None], likelihood="quantile_normal")
    assert names_of_parts(table) == [("categorical", 0)]
    np.testing.assert_array_equal(there_and_back(table, column[:, None])[:, 0], column)


def test_a_column_holds_any_number_or_its_levels_only():
    rng = np.random.default_rng(0)
    levels = fitted_map(rng.choice([0.0, 0.5], size=400))
    assert levels.holds(0.5)
    assert not levels.holds(0.25)
    assert fitted_map(rng.normal(size=400)).holds(0.25)


def test_values_that_repeat_are_drawn_among_themselves():
    values = np.cumsum(np.random.default_rng(0).integers(1, 9, 500)) / 7
    column = np.random.default_rng(1).choice(values, 3000)
    quantiles = fitted_map(column)
    assert np.isin(quantiles.value(np.random.default_rng(2).normal(size=500)), column).all()
    np.testing.assert_array_equal(quantiles.value(quantiles.score(column)[0]), column)


def test_weights_count_as_repetitions_in_quantiles():
    rng = np.random.default_rng(0)
    column, weight = rng.normal(size=500), rng.integers(1, 4, 500)
    weighted = QuantileMap.fit(column, weight.astype(float))
    uniform = stats.norm.cdf(weighted.score(column)[0])
    assert np.average(uniform, weights=weight) == pytest.approx(0.5, abs=0.01)
