"""Points that cover the unit cube evenly, and shifts of them that rows tell by themselves."""

import numpy as np
import pytest
import torch
from scipy import stats

from skvae.quasirandom import shifted, shifts_by_cells, uniform_points


def cells(n=4000, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 5))).to(dtype)


def test_points_are_balanced_and_follow_their_seed():
    points = uniform_points(64, 3, 0)
    assert points.dtype == torch.float64
    # one point in each of 64 equal intervals, along every axis
    for column in points.T:
        assert sorted((64 * column).long().tolist()) == list(range(64))
    assert torch.equal(points, uniform_points(64, 3, 0))
    assert not torch.equal(points, uniform_points(64, 3, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shifted_points_stay_in_the_cube_and_have_quantiles(dtype):
    points = torch.tensor([0.0, 0.25, 0.75], dtype=dtype)[:, None]
    shifts = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=dtype)
    moved = shifted(points, shifts)
    expected = np.mod(points.numpy() + shifts.numpy(), 1)
    np.testing.assert_allclose(moved, expected, atol=2 * torch.finfo(dtype).eps)
    assert torch.isfinite(torch.special.ndtri(moved)).all()


def test_shifted_points_are_as_even_as_before():
    points = shifted(uniform_points(64, 2, 0), torch.tensor([0.3, 0.9], dtype=torch.float64))
    independent = np.random.default_rng(0).uniform(size=(64, 2))
    # the mean of a smooth function of both coordinates, whose integral is 1
    own, other = (abs(np.prod(np.pi / 2 * np.sin(np.pi * u), axis=1).mean() - 1) for u in (points.numpy(), independent))
    assert own < 0.02
    assert own < other


def test_shifts_are_uniform_and_independent_of_each_other_and_of_the_cells():
    x = cells()
    shifts = shifts_by_cells(x, 3).numpy()
    assert shifts.shape == (4000, 3)
    for column in shifts.T:
        assert stats.kstest(column, "uniform").pvalue > 0.01
    correlations = np.corrcoef(np.column_stack([shifts, x.numpy()]).T)
    assert np.abs(np.triu(correlations, 1)).max() < 0.06


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_has_its_shift_whatever_stands_around_it(dtype):
    x = cells(50, dtype)
    shifts = shifts_by_cells(x, 4)
    assert shifts.dtype == dtype
    assert torch.equal(shifts_by_cells(x.flip(0), 4).flip(0), shifts)
    assert torch.equal(shifts_by_cells(x[7:8], 4), shifts[7:8])


def test_a_rounding_error_changes_no_shift_and_another_cell_does():
    x = cells(200)
    shifts = shifts_by_cells(x, 2)
    assert torch.equal(shifts_by_cells(x * (1 + 1e-13), 2), shifts)
    x[:, 3] += 0.01
    assert (shifts_by_cells(x, 2) != shifts).all()


def test_cells_may_be_huge():
    shifts = shifts_by_cells(torch.tensor([[1e300, -torch.inf], [1e9, -1e9]], dtype=torch.float64), 2)
    assert torch.equal(shifts[0], shifts[1])
