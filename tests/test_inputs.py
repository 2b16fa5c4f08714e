"""Inputs of networks: what they hold, and products with them."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import make
from reference import SlowVAE

from skvae.model import inputs as inputs_module
from skvae.model.inputs import (
    INPUT_MAX,
    LEVELS_PER_PART,
    LEVELS_TO_GATHER,
    Inputs,
    is_gathered,
    level_positions,
    one_hot,
    read_inputs,
)
from skvae.table.layout import Layout

CPU = torch.device("cpu")


@pytest.fixture(params=[0, 10**9], ids=["gathered", "dense"])
def way(request, monkeypatch):
    """Either way of reading levels, for tables of any size."""
    monkeypatch.setattr(inputs_module, "LEVELS_TO_GATHER", request.param)
    monkeypatch.setattr(inputs_module, "LEVELS_PER_PART", 0)
    return request.param == 0


@pytest.mark.parametrize("kinds", LAYOUTS)
def test_dense_inputs_are_those_of_the_twin(kinds, way):
    layout = LAYOUTS[kinds]
    x, _ = rows_of(layout, 20)
    inputs = read_inputs(layout, x)
    assert (inputs.levels is not None) == (way and len(layout.n_levels) > 0)
    torch.testing.assert_close(inputs.dense(layout.n_inputs), SlowVAE(make(kinds=kinds)).inputs(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("biased", [False, True])
def test_linear_is_the_product_with_dense_inputs(kinds, biased, dtype, way):
    layout, rng = LAYOUTS[kinds], np.random.default_rng(1)
    x, _ = rows_of(layout, 9)
    inputs = read_inputs(layout, x.to(dtype))
    weight = torch.from_numpy(rng.normal(size=(4, layout.n_inputs))).to(dtype).requires_grad_()
    bias = torch.from_numpy(rng.normal(size=4)).to(dtype).requires_grad_() if biased else None
    out_grad = torch.from_numpy(rng.normal(size=(9, 4))).to(dtype)
    sums = inputs.linear(weight, bias)
    expected = inputs.dense(layout.n_inputs) @ weight.t() + (0 if bias is None else bias)
    torch.testing.assert_close(sums, expected)
    of = [weight] if bias is None else [weight, bias]
    got, want = (torch.autograd.grad(out, of, out_grad) for out in (sums, expected))
    torch.testing.assert_close(got, want)


def test_numbers_are_held_in_range_and_levels_are_not():
    layout = Layout(
        kinds=(("normal", 1), ("categorical", 1)), n_levels=(3 * int(INPUT_MAX),), rank=(0, 1), gate=(-1, -1)
    )
    x = torch.tensor([[-2 * INPUT_MAX, 2 * INPUT_MAX], [2 * INPUT_MAX, -1.0]])
    inputs = read_inputs(layout, x)
    assert inputs.cells.tolist() == [[-INPUT_MAX], [INPUT_MAX]]
    assert inputs.levels.tolist() == [[2 * INPUT_MAX], [3 * INPUT_MAX]]


def test_positions_are_among_the_levels_of_all_parts():
    layout = LAYOUTS["categorical"]
    levels = torch.tensor([[0.0, 2, 3], [1, -1, 0], [-1, -1, -1]])
    assert level_positions(layout, levels).tolist() == [[0, 4, 8], [1, 9, 5], [9, 9, 9]]


def test_one_hot_leaves_out_what_is_missing():
    rows = one_hot(torch.tensor([[0, 3], [4, 4]]), 4, torch.float64)
    assert rows.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert rows.dtype == torch.float64


def test_inputs_without_levels_are_their_cells():
    cells = torch.rand(3, 5)
    assert Inputs(cells).dense(5) is cells


@pytest.mark.parametrize("n_parts", [1, 40])
def test_levels_are_gathered_from_a_number_of_them_on(n_parts):
    least = LEVELS_TO_GATHER + LEVELS_PER_PART * n_parts
    for n_levels, gathered in ((least, True), (least - 1, False)):
        levels = (*[2] * (n_parts - 1), n_levels - 2 * (n_parts - 1))
        layout = Layout(
            kinds=(("categorical", n_parts),), n_levels=levels, rank=tuple(range(n_parts)), gate=(-1,) * n_parts
        )
        assert is_gathered(layout, CPU) == gathered
    assert not is_gathered(layout, torch.device("cuda"))
    assert not is_gathered(LAYOUTS["normal"], CPU)
