"""First layers of a step by hand, one-hot and gathered."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, rows_of
from test_steps import STEPS, assert_agrees_with_twin, network

from skvae.engine.first_layers import Levels
from skvae.engine.flat_step import FlatStep
from skvae.engine.workspace import RowInputs
from skvae.model import inputs
from skvae.model.inputs import read_inputs

LEVELLED = [name for name, layout in LAYOUTS.items() if layout.n_levels]


def choose(monkeypatch, *, gathered):
    """Let levels be gathered, or not, whatever their number."""
    monkeypatch.setattr(inputs, "LEVELS_TO_GATHER", 0 if gathered else 10**9)
    monkeypatch.setattr(inputs, "LEVELS_PER_PART", 0)


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("gathered", [True, False])
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", LEVELLED)
def test_step_agrees_with_the_twin_either_way(kinds, decoder, gathered, step_class, monkeypatch):
    choose(monkeypatch, gathered=gathered)
    vae = network(LAYOUTS[kinds], (5, 4), "silu", decoder=decoder)
    assert_agrees_with_twin(step_class, vae, weighted=True, penalty=0.3)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", LEVELLED)
def test_linear_networks_agree_with_the_twin(kinds, decoder, monkeypatch):
    choose(monkeypatch, gathered=True)
    assert_agrees_with_twin(
        STEPS["autograd"], network(LAYOUTS[kinds], (), decoder=decoder), weighted=False, penalty=0.0
    )
    assert_agrees_with_twin(FlatStep, network(LAYOUTS[kinds], ()), weighted=False, penalty=0.0)


@pytest.mark.parametrize("kinds", LEVELLED)
def test_gathered_parameters_are_views_by_name_in_the_shapes_of_the_module(kinds, monkeypatch):
    choose(monkeypatch, gathered=True)
    vae = network(LAYOUTS[kinds], decoder="autoregressive")
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    step = FlatStep(vae, 0.0)
    named = step.parameters.named(step.theta)
    assert named.keys() == before.keys()
    for name, p in vae.named_parameters():
        assert torch.equal(p, before[name])
        assert p.shape == named[name].shape
        assert p.data_ptr() == named[name].data_ptr()
    states = step.adam_state()
    assert states.keys() == before.keys()
    for name, state in states.items():
        # what is all Muon's has a momentum of the same shape
        moments = state.get("exp_avg", state.get("momentum"))
        assert moments.shape == tuple(before[name].shape)
    step.release()
    assert all(p.is_contiguous() for p in vae.parameters())


def test_what_missing_cells_gather_stays_zero(monkeypatch):
    choose(monkeypatch, gathered=True)
    layout = LAYOUTS["many levels"]
    vae = network(layout, decoder="autoregressive")
    step = FlatStep(vae, 0.1)
    x, _ = rows_of(layout, 12)
    x[:5, layout.first_level :] = -1
    for _ in range(5):
        step(x, None, torch.ones(2, 12, dtype=torch.float64), 1.0, 0.1)
    for network_ in (step.networks.encoder, step.networks.decoder):
        assert network_.table.shape[0] == layout.n_all_levels + 2
        assert (network_.table[-1] == 0).all()
        assert (network_.table[:-1] != 0).any()


@pytest.mark.parametrize("kinds", LEVELLED)
def test_gather_and_scatter_are_products_with_one_hot_rows(kinds):
    layout, rng, n = LAYOUTS[kinds], np.random.default_rng(0), 11
    x, _ = rows_of(layout, n)
    x[3, layout.first_level : layout.stop] = -1
    levels = Levels(layout, n)
    dense = read_inputs(layout, x).dense(layout.n_inputs)[:, layout.first_level - layout.first_number :]
    ones = torch.cat([dense, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    # each batch anew, also one in which nothing is missing
    for rows in (x, x.flip(0)):
        levels.read(rows[:, layout.first_level : layout.stop].t().contiguous())
        own = ones if rows is x else ones.flip(0)
        table = torch.from_numpy(rng.normal(size=(layout.n_all_levels + 2, 4)))
        table[-1] = 0
        sums = torch.ones(4, n, dtype=torch.float64)
        levels.gather(table, sums)
        torch.testing.assert_close(sums, 1 + (own @ table[:-1]).t())
        grad, table_grad = torch.from_numpy(rng.normal(size=(4, n))), torch.zeros_like(table)
        levels.scatter(grad, table_grad)
        torch.testing.assert_close(table_grad[:-1], own.t() @ grad.t())
        assert (table_grad[-1] == 0).all()


@pytest.mark.parametrize("kinds", LAYOUTS)
def test_rows_are_one_hot_where_nothing_is_gathered(kinds):
    layout = LAYOUTS[kinds]
    x = torch.ones(layout.stop + 1, 8, dtype=torch.float64)
    rows = RowInputs(layout, x, gathered=False)
    # what one batch leaves behind is no part of the next
    for seed in (0, 1):
        batch, _ = rows_of(layout, 8, seed)
        x[:-1] = batch[:, : layout.stop].t()
        rows.read()
        expected = read_inputs(layout, batch).dense(layout.n_inputs)
        assert torch.equal(rows.dense, torch.cat([expected.t(), torch.ones(1, 8, dtype=torch.float64)]))


def test_nothing_as_wide_as_the_levels_is_made_for_a_gather():
    layout = LAYOUTS["many levels"]
    x = torch.ones(layout.width + 1, 8)
    rows = RowInputs(layout, x, gathered=True)
    assert rows.dense.shape == (layout.first_level - layout.first_number, 8)
    assert rows.levels.index.shape == (8, len(layout.n_levels) + 1)
