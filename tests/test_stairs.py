"""The staircase of a mask, and products that leave out what lies beyond it."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS
from test_steps import assert_agrees_with_twin, network

from skvae.engine import stairs
from skvae.engine.flat_step import FlatStep
from skvae.engine.stairs import Stairs

MASKS = {
    # widths of the free part of each row
    "even": [1, 1, 2, 2, 3, 3, 4, 4, 5],
    "behind others": [5, 5, 2, 2, 2, 3, 4, 4, 5, 5, 1, 2],
    "nothing is read at first": [0, 0, 0, 1, 3],
    "not all units are read": [1, 2, 2, 3, 3, 3],
    "flat": [5] * 7,
    "short beside long": [1, 2, 1, 2, 3, 4, 5, 3],
}


def mask_of(widths, n_in=5):
    return (torch.arange(n_in) < torch.tensor(widths)[:, None]).double()


@pytest.fixture
def short(monkeypatch):
    """Staircases of few rows count."""
    monkeypatch.setattr(stairs, "LEAST_ROWS", 3)


@pytest.mark.parametrize("widths", MASKS.values(), ids=MASKS)
def test_products_are_those_with_the_masked_weights(widths, short):
    rng = np.random.default_rng(0)
    mask = mask_of(widths)
    n_out, n_in = mask.shape
    w = torch.from_numpy(rng.normal(size=(n_out, n_in + 1)))
    w[:, :-1] *= mask
    above, grad = torch.from_numpy(rng.normal(size=(n_in + 1, 7))), torch.from_numpy(rng.normal(size=(n_out, 7)))
    above[-1] = 1
    outputs, w_grad, below_grad = (
        torch.full_like(grad, torch.nan),
        torch.zeros_like(w),
        torch.full_like(above[1:], torch.nan),
    )
    steps = Stairs.of(mask)
    for call in (
        *steps.up(w, above, outputs),
        *steps.down(w_grad, above, grad),
        *steps.down_to_units(w, grad, below_grad),
    ):
        call()
    torch.testing.assert_close(outputs, w @ above)
    torch.testing.assert_close(below_grad, w[:, :-1].t() @ grad)
    expected = grad @ above.t()
    torch.testing.assert_close(w_grad[:, -1], expected[:, -1])
    # what is cut is masked later on, or was never filled
    torch.testing.assert_close(w_grad[:, :-1] * mask, expected[:, :-1] * mask)


def test_steps_cover_the_longest_ascent_in_order(short):
    found = Stairs.of(mask_of(MASKS["behind others"]))
    assert (found.start, found.stop) == (2, 10)
    assert [step.rows for step in found.steps] == [slice(2, 4), slice(4, 6), slice(6, 8), slice(8, 10)]
    assert [step.width for step in found.steps] == [2, 3, 4, 5]


def test_there_is_something_to_leave_out():
    rows = stairs.LEAST_ROWS
    even = mask_of([1 + i * 5 // rows for i in range(rows)])
    steps = Stairs.of(even)
    n_multiplied = sum((step.rows.stop - step.rows.start) * step.width for step in steps.steps)
    assert even.sum() < n_multiplied < 0.75 * even.numel()
    assert Stairs.of(even[1:]) is None
    assert Stairs.of(None) is None


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("hidden", [(4,), (12, 9)], ids=str)
def test_step_with_stairs_agrees_with_the_twin(kinds, hidden, short):
    vae = network(LAYOUTS[kinds], hidden, "silu", decoder="autoregressive")
    assert_agrees_with_twin(FlatStep, vae, weighted=True, penalty=0.2)


def test_step_uses_the_stairs_of_its_decoder(short):
    vae = network(LAYOUTS["many levels"], decoder="autoregressive")
    assert FlatStep(vae, 0.0).networks.decoder.stairs is not None
    assert FlatStep(network(LAYOUTS["many levels"]), 0.0).networks.decoder.stairs is None
