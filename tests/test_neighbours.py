"""Rows between near rows: how often each is used, which partners it has, and where between the two a new row lies."""

import numpy as np
import pytest

from skvae.neighbours import RowsBetween, between, partners, spread

A, B = np.random.default_rng(0).normal(size=(2, 4000, 3))


def seeded(seed=0):
    return np.random.RandomState(seed)


@pytest.mark.parametrize("n", [0, 3, 7, 20])
def test_every_row_is_used_alike(n):
    rows = np.arange(10, 17)
    counts = np.bincount(spread(rows, n, seeded()), minlength=17)[10:]
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("n_neighbors", [1, 3, 100])
def test_partners_are_the_nearest_of_the_rows(n_neighbors):
    points = np.random.default_rng(1).normal(size=(40, 2))
    rows = np.arange(0, 40, 2)
    first = np.tile(rows, 200)
    second = partners(points, rows, first, n_neighbors, seeded())
    for row in rows:
        others = rows[rows != row]
        distances = np.linalg.norm(points[others] - points[row], axis=1)
        nearest = others[np.argsort(distances)[:n_neighbors]]
        assert set(second[first == row]) == set(nearest)  # 200 draws leave none of 19 out


def test_a_row_alone_is_its_own_partner():
    np.testing.assert_array_equal(partners(A, np.array([5]), np.array([5, 5]), 3, seeded()), [5, 5])


def test_numbers_lie_on_the_line_between_two_rows():
    weight = (between(A, B, np.zeros(3, dtype=bool), seeded()) - A) / (B - A)
    np.testing.assert_allclose(weight, weight[:, :1] * np.ones(3), atol=1e-9)  # one weight a row
    assert 0 <= weight.min() < 0.01
    assert 0.99 < weight.max() <= 1
    assert abs(weight[:, 0].mean() - 0.5) < 0.02


def test_discrete_cells_are_those_of_either_row_by_its_weight():
    discrete = np.array([True, True, False])
    values = between(A, B, discrete, seeded())
    from_b = values[:, :2] == B[:, :2]
    np.testing.assert_array_equal(values[:, :2], np.where(from_b, B[:, :2], A[:, :2]))
    weight = (values[:, 2] - A[:, 2]) / (B[:, 2] - A[:, 2])
    assert abs(from_b.mean() - 0.5) < 0.02
    for column in from_b.T:
        assert abs(column[weight > 0.9].mean() - 0.95) < 0.03
        assert abs(column[weight < 0.1].mean() - 0.05) < 0.03
    assert (from_b[:, 0] != from_b[:, 1]).any()


def test_missing_cells_are_those_of_the_first_row():
    a, b = A.copy(), B.copy()
    a[::2, :2] = np.nan
    b[::3] = np.nan
    values = between(a, b, np.array([True, False, False]), seeded())
    np.testing.assert_array_equal(np.isnan(values), np.isnan(a))
    np.testing.assert_array_equal(values[::3], a[::3])


def test_counts_between_rows_are_whole_and_rows_stem_from_the_first():
    values = np.column_stack([np.arange(20) ** 2, np.arange(20.0) ** 2])
    table = RowsBetween(values, np.arange(20.0)[:, None], np.zeros(2, dtype=bool), np.array([True, False]))
    rows = np.arange(5, 15)
    drawn, first = table.draw(50, rows, 1, seeded())
    np.testing.assert_array_equal(drawn[:, 0], np.rint(drawn[:, 1]))
    assert (drawn[:, 1] != drawn[:, 0]).any()
    assert set(first) == set(rows)
    assert (np.abs(np.sqrt(drawn[:, 1]) - first) <= 1).all()
    assert ((drawn[:, 1] >= 25) & (drawn[:, 1] <= 14**2)).all()
