"""Rows made from latent points: cell by cell, drawn, and around cells that are given."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, encode, rows_of
from networks import behind_gates, shaken
from reference import SlowVAE
from scipy import stats

from skvae.model import generation
from skvae.model.decoders import DECODERS
from skvae.model.generation import generate, generate_in_order

KINDS = [kinds for kinds in LAYOUTS if kinds not in ("both", "ordered")]


def latents(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2)))


def rows_that_hold(layout, parts):
    """Encoded rows of parts, of which those behind a closed gate do not count."""
    return torch.from_numpy(encode(layout, behind_gates(layout, parts).numpy()))


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("hidden", [(), (12, 9), (3,)], ids=str)
@pytest.mark.parametrize("decoder", DECODERS)
def test_parts_made_one_by_one_are_those_of_the_completed_row(kinds, hidden, decoder):
    vae, layout = shaken(kinds, hidden, decoder), LAYOUTS[kinds]
    z = latents(9)
    parts = generate(vae, z)
    torch.testing.assert_close(parts, generate_in_order(vae, z[:, None])[0][:, 0], rtol=1e-12, atol=1e-12)
    row = rows_that_hold(layout, parts)
    with torch.no_grad():
        torch.testing.assert_close(parts, vae.likelihood.mean(vae.decode(z, row)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("drawn", [False, True])
def test_given_parts_come_back_to_the_bit_with_their_density(kinds, decoder, drawn):
    vae, layout = shaken(kinds, decoder=decoder), LAYOUTS[kinds]
    z = latents(40)
    _, given = rows_of(layout, 40)
    given[torch.from_numpy(np.random.default_rng(1).uniform(size=given.shape) < 0.3)] = torch.nan
    # a part behind a gate can only be given where the gate is given open
    given = behind_gates(layout, given)
    observed = ~torch.isnan(given)
    generator = torch.Generator().manual_seed(0) if drawn else None
    x = torch.from_numpy(encode(layout, given.numpy()))
    parts, log_prob = (t[:, 0] for t in generate_in_order(vae, z[:, None], generator, x, given))
    assert torch.equal(parts[observed], given[observed])
    assert torch.isfinite(parts).all()
    with torch.no_grad():
        by_part = SlowVAE(vae).log_probs(rows_that_hold(layout, parts), z)
    torch.testing.assert_close(log_prob, torch.where(observed, by_part, 0.0).sum(1), rtol=1e-9, atol=1e-9)


def within(vae, ranges, n, *, in_order=False, seed=0):
    """The first part of rows drawn from one latent point, within ranges."""
    vae.likelihood.layout = replace(vae.likelihood.layout, ranges=ranges)
    z = torch.zeros(n, 2, dtype=torch.float64)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if in_order:
        return generate_in_order(vae, z[:, None], generator)[0][:, 0]
    return generate(vae, z, generator)


FREE = (-np.inf, np.inf)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("in_order", [False, True])
def test_parts_are_drawn_from_the_density_within_their_range(decoder, in_order):
    vae = shaken("normal", decoder=decoder)
    free = within(vae, (), 40_000, in_order=in_order)[:, 0]
    low, high = free.quantile(0.2).item(), free.quantile(0.7).item()
    held = within(vae, ((low, high), *[FREE] * 4), 10_000, in_order=in_order, seed=1)[:, 0]
    assert held.min() >= low
    assert held.max() <= high
    assert stats.ks_2samp(held, free[(free >= low) & (free <= high)]).pvalue > 0.01


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("in_order", [False, True])
def test_what_lies_far_outside_its_range_is_moved_to_the_end_and_later_parts_follow(decoder, in_order, seed):
    vae = shaken("normal", decoder=decoder)
    without = within(vae, (), 300, in_order=in_order, seed=None)
    held = within(vae, ((50.0, 60.0), *[FREE] * 4), 300, in_order=in_order, seed=seed)
    assert (held[:, 0] == 50).all()
    if seed is None:
        # cells after it are told from the cell that is there
        changed = (held[:, 1:] != without[:, 1:]).any()
        assert bool(changed) is (decoder == "autoregressive")


@pytest.mark.parametrize("kinds", ["all", "zero inflated exposure"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_drawn_parts_follow_the_density_of_the_rows_they_make(kinds, decoder):
    """The mean log density of drawn rows is minus their entropy: by parts, it is that of fresh draws at the same outputs."""
    vae, layout = shaken(kinds, decoder=decoder), LAYOUTS[kinds]
    z = torch.zeros(20_000, 2, dtype=torch.float64)
    parts = generate(vae, z, torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = vae.decode(z, rows_that_hold(layout, parts))
        again = vae.likelihood.draw(outputs, torch.Generator().manual_seed(1))
    # given what came before, a part and a fresh draw of it are alike
    for i in range(layout.n_parts):
        one, other = parts[:, i].numpy(), again[:, i].numpy()
        assert abs(one.mean() - other.mean()) < 5 * np.hypot(one.std(), other.std()) / np.sqrt(20_000)
        assert one.var() / other.var() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("decoder", DECODERS)
def test_several_draws_of_a_row_are_rows_of_their_own(decoder):
    vae, layout = shaken("exposure", decoder=decoder), LAYOUTS["exposure"]
    z = torch.stack([latents(7, seed) for seed in range(3)], dim=1)
    _, given = rows_of(layout, 7)
    given[:, [1, 3]] = torch.nan
    x = torch.from_numpy(encode(layout, given.numpy()))
    parts, log_prob = generate_in_order(vae, z, None, x, given)
    assert parts.shape == (7, 3, layout.n_parts)
    for draw in range(3):
        alone, its_log_prob = generate_in_order(vae, z[:, draw : draw + 1], None, x, given)
        torch.testing.assert_close(parts[:, draw], alone[:, 0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_prob[:, draw], its_log_prob[:, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kinds", ["exposure", "zero inflated exposure"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_given_offsets_raise_the_counts_and_missing_ones_come_from_the_parts(kinds, decoder):
    vae, layout = shaken(kinds, decoder=decoder), LAYOUTS[kinds]
    z = latents(6)[:, None]
    offset = torch.tensor([2.0, torch.nan, -1.0, torch.nan, 0.0, 0.5], dtype=torch.float64)
    x = torch.from_numpy(encode(layout, np.full((6, layout.n_parts), np.nan)))
    given = torch.full((6, layout.n_parts), torch.nan, dtype=torch.float64)
    parts = generate_in_order(vae, z, None, x, given, offset)[0][:, 0]
    own = torch.from_numpy(layout.exposure.offsets_of_parts(parts.numpy()))
    row = rows_that_hold(layout, parts)
    row[:, layout.offset] = torch.where(torch.isnan(offset), own, offset)[:, None]
    with torch.no_grad():
        expected = vae.likelihood.mean(vae.decode(z[:, 0], row))
    torch.testing.assert_close(parts, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("decoder", DECODERS)
def test_centred_parts_are_means_among_draws(decoder):
    vae, layout = shaken("both", decoder=decoder), LAYOUTS["both"]
    z = latents(5)[:, None].expand(5, 200, 2)
    parts, _ = generate_in_order(vae, z, torch.Generator().manual_seed(0), centred=[0, 2])
    with torch.no_grad():
        expected = vae.likelihood.mean(vae.decode(z.flatten(0, 1), rows_that_hold(layout, parts.flatten(0, 1))))
    for part in range(layout.n_parts):
        is_mean = torch.allclose(parts[..., part].flatten(), expected[:, part])
        assert is_mean == (part in [0, 2])


def test_a_part_behind_a_gate_given_closed_is_not_drawn():
    vae = shaken("gated")
    given = torch.full((4, 3), torch.nan, dtype=torch.float64)
    given[:, 2] = torch.tensor([0.0, 1.0, 2.0, torch.nan])
    x = torch.from_numpy(encode(LAYOUTS["gated"], given.numpy()))
    parts, _ = generate_in_order(vae, latents(4)[:, None], torch.Generator().manual_seed(0), x, given)
    assert parts[:2, 0, 1].tolist() == [0, 0]
    assert (parts[2:, 0, 1] != 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_densities_do_not_depend_on_how_many_rows_are_held_at_a_time(decoder, monkeypatch):
    vae, layout = shaken("exposure", decoder=decoder), LAYOUTS["exposure"]
    x, given = rows_of(layout, 11)
    z = torch.stack([latents(11, seed) for seed in range(2)], dim=1)
    whole = generate_in_order(vae, z, None, x, given)[1]
    monkeypatch.setattr(generation, "ROWS_PER_CHUNK", 4)
    torch.testing.assert_close(generate_in_order(vae, z, None, x, given)[1], whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_draws_follow_the_generator_and_need_no_gradient(decoder):
    vae = shaken("all", decoder=decoder)
    one, same, other = (generate(vae, latents(20), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not one.requires_grad
