"""Decoders: what they answer, the order among parts, and outputs that come about part after part."""

import copy
import pickle

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, encode, rows_of
from networks import behind_gates, make, shaken
from reference import SlowVAE, parts_of
from torch import nn

from skvae.model.decoders import (
    DECODERS,
    AutoregressiveDecoder,
    Decoder,
    FactorizedDecoder,
    number_inputs,
    unit_degrees,
)
from skvae.model.inputs import Inputs, read_inputs
from skvae.model.layers import MLP

ORDERED = [kinds for kinds in LAYOUTS if kinds not in ("both", "ordered")]
THROUGH = {"pickle": lambda m: pickle.loads(pickle.dumps(m)), "deepcopy": copy.deepcopy}


def latents(n, latent_dim=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, latent_dim)))


# --------------------------------------------------------------------------------------------------------- what they say


def test_decoders_are_known_by_their_names():
    assert list(DECODERS.items()) == [("factorized", FactorizedDecoder), ("autoregressive", AutoregressiveDecoder)]
    assert all(cls.name == name for name, cls in DECODERS.items())


@pytest.mark.parametrize("forgotten", ["built_in", "n_row_inputs", "weight_masks", "forward", "begin"])
def test_a_decoder_that_forgets_an_answer_cannot_be_made(forgotten):
    answers = {"built_in": classmethod(lambda cls: None), "n_row_inputs": 0}
    answers |= {name: lambda self: None for name in ("weight_masks", "forward", "begin")}
    del answers[forgotten]
    with pytest.raises(TypeError, match=forgotten):
        type("Half", (Decoder,), answers)(nn.Linear(1, 1), [0])


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("name", DECODERS)
def test_what_a_decoder_says_of_itself_is_so(name, kinds):
    vae, layout = shaken(kinds, decoder=name), LAYOUTS[kinds]
    decoder = vae.decoder
    assert decoder.name == name
    assert vae.likelihood.n_components == decoder.n_components
    assert decoder.output_part == tuple(vae.likelihood.output_part.tolist())
    assert decoder.n_row_inputs in (0, layout.n_inputs)
    assert decoder.layers[0].in_features == vae.latent_dim + decoder.n_row_inputs
    # cells are independent given z exactly where no output changes with the row
    x, _ = rows_of(layout, 6)
    inputs = vae.inputs(x).dense(layout.n_inputs).clone().requires_grad_()
    outputs = decoder(latents(6), Inputs(inputs))
    (by_row,) = torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)
    reads = by_row is not None and bool(by_row.any())
    assert reads == (not decoder.independent and layout.n_parts > 1)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("hidden", [(), (12,), (7, 5)], ids=str)
def test_masks_are_those_of_the_twin_and_cut_the_weights(name, hidden):
    vae = shaken("all", hidden, name)
    masks = vae.decoder.weight_masks()
    assert len(masks) == len(vae.decoder.layers) == len(hidden) + 1
    expected = SlowVAE(vae).masks or [None] * len(masks)
    for mask, slow, layer in zip(masks, expected, vae.decoder.layers, strict=True):
        if slow is None:
            assert mask is None
        else:
            assert torch.equal(mask, slow)
            assert mask.dtype == layer.weight.dtype
            assert (layer.weight[mask == 0] == 0).all()


def test_networks_of_ones_own_are_within_reach_and_have_no_layers():
    module = nn.Linear(2, 5)
    decoder = make(decoder=module).decoder
    assert isinstance(decoder.network, nn.Linear)
    assert torch.equal(decoder.network.weight, module.weight)
    assert decoder.layers is None
    assert decoder.weight_masks() == []
    assert decoder.independent


def test_custom_networks_are_handed_a_matrix():
    shapes = []

    class Shy(nn.Module):
        def forward(self, z):
            shapes.append(tuple(z.shape))
            return torch.cat([z, z], dim=1)

    decoder = FactorizedDecoder(Shy(), [0, 1, 2, 3])
    z = torch.rand(3, 4, 2)
    outputs = decoder(z)
    assert outputs.shape == (3, 4, 4)
    assert torch.equal(outputs, torch.cat([z, z], dim=-1))
    decoder.begin(z)
    assert set(shapes) == {(12, 2)}


def test_ordered_decoder_without_rows_is_an_error():
    with pytest.raises(ValueError, match="reads the rows beside z"):
        shaken("normal").decoder(latents(3))


# ------------------------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("kinds", ORDERED)
@pytest.mark.parametrize("hidden", [(), (12,), (40, 30), (3, 2)], ids=str)
def test_no_output_reads_a_part_of_its_rank_or_later(kinds, hidden):
    vae, layout = shaken(kinds, hidden), LAYOUTS[kinds]
    x, _ = rows_of(layout, 5)
    z = latents(5).requires_grad_()
    inputs = vae.inputs(x).dense(layout.n_inputs).clone().requires_grad_()
    outputs, parts = vae.decoder(z, Inputs(inputs)), parts_of(layout, vae.likelihood.n_components)
    wide = len(hidden) == 0 or min(hidden) >= len(parts)
    for part in parts:
        for o in np.ravel(part.outputs):
            by_z, by_row = torch.autograd.grad(outputs[:, o].sum(), [z, inputs], retain_graph=True)
            assert (by_z.abs().sum(0) > 0).all()
            for other in parts:
                reached = by_row[:, other.inputs].abs().sum(0)
                if other.rank >= part.rank:
                    assert (reached == 0).all()
                elif wide:
                    assert (reached > 0).all()


def test_initial_ordered_weights_are_masked_and_follow_the_seed():
    a, b, c = (make(decoder="autoregressive", kinds="all", seed=seed).decoder for seed in (0, 0, 1))
    for one, same, other, mask in zip(a.layers, b.layers, c.layers, a.weight_masks(), strict=True):
        assert torch.equal(one.weight, same.weight)
        assert not torch.equal(one.weight, other.weight)
        assert (one.weight[mask == 0] == 0).all()
        assert (one.weight[mask == 1] != 0).all()


@pytest.mark.parametrize(("n_units", "n_ranks"), [(6, 3), (7, 3), (2, 5), (0, 4), (1, 1)])
def test_units_have_degrees_in_order_and_evenly(n_units, n_ranks):
    degrees = unit_degrees(n_units, n_ranks).tolist()
    assert degrees == [int(unit * n_ranks / n_units) for unit in range(n_units)]


# ------------------------------------------------------------------------------------------------------- part after part


@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("hidden", [(), (12, 9), (3,)], ids=str)
@torch.no_grad()
def test_reader_gives_the_outputs_of_the_whole_row(kinds, name, hidden):
    vae, layout = shaken(kinds, hidden, name), LAYOUTS[kinds]
    x, parts = rows_of(layout, 5)
    expected = vae.decoder(latents(5), vae.inputs(x))
    # nothing is given at first: the parts that are not missing are taken in their order
    reader = vae.decoder.begin(latents(5)[:, None])
    for part in np.argsort(layout.rank).tolist():
        own = torch.tensor([o for o, belongs in enumerate(vae.decoder.output_part) if belongs == part])
        torch.testing.assert_close(reader.outputs(part, slice(None)), expected[:, own], rtol=1e-9, atol=1e-11)
        rows = torch.nonzero(~torch.isnan(parts[:, part]))[:, 0]
        torch.testing.assert_close(reader.outputs(part, rows), expected[rows][:, own], rtol=1e-9, atol=1e-11)
        reader.take(part, parts, rows)
    some = torch.tensor([3, 0, 3])
    torch.testing.assert_close(reader.all_outputs(some), expected[some], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_reader_begins_from_the_cells_that_are_given(name):
    vae = shaken("all", decoder=name)
    x, _ = rows_of(LAYOUTS["all"], 4)
    z = torch.stack([latents(4, seed=seed) for seed in range(3)], dim=1)  # three draws a row
    reader = vae.decoder.begin(z, vae.inputs(x))
    outputs = reader.all_outputs(torch.arange(12)).view(4, 3, -1)
    for draw in range(3):
        torch.testing.assert_close(outputs[:, draw], vae.decoder(z[:, draw], vae.inputs(x)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kinds", LAYOUTS)
def test_inputs_made_of_a_number_are_those_of_an_encoded_row(kinds):
    layout = LAYOUTS[kinds]
    _, parts = rows_of(layout, 30)
    parts = parts.nan_to_num()
    x = torch.from_numpy(encode(layout, behind_gates(layout, parts).numpy()))
    inputs = read_inputs(layout, x).dense(layout.n_inputs)
    for i, part in enumerate(parts_of(layout)[: layout.n_numbers]):
        if i not in layout.flagged and layout.gate[i] >= 0:
            continue  # a part behind a gate always has a flag
        torch.testing.assert_close(number_inputs(layout, i, parts), inputs[:, part.inputs], rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------------------------------------------------- copying


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_decoder_survives_copying_by_itself(name, hidden, dtype, through):
    vae = make(decoder=name, kinds="all", hidden=hidden).to(dtype).eval()
    decoder, other = vae.decoder, through(vae.decoder)
    assert type(other) is type(decoder)
    assert other.output_part == decoder.output_part
    assert not other.training
    z = torch.rand(3, 2, dtype=dtype)
    inputs = Inputs(torch.rand(3, LAYOUTS["all"].n_inputs, dtype=dtype))
    assert torch.equal(other(z, inputs), decoder(z, inputs))
    for mask, again in zip(decoder.weight_masks(), other.weight_masks(), strict=True):
        assert mask is again is None or (torch.equal(mask, again) and again.dtype == dtype)


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_decoder_of_a_custom_network_survives_copying(through):
    decoder = FactorizedDecoder(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)), [0, 1, 2]).train()
    other = through(decoder)
    assert other.training
    assert other.network[1].training
    assert torch.equal(other.network[0].weight, decoder.network[0].weight)
    assert other.network[0].weight is not decoder.network[0].weight


@pytest.mark.parametrize("name", DECODERS)
def test_pickled_decoder_holds_its_weights_once(name):
    decoder = make(decoder=name, kinds="all", hidden=(200, 200)).decoder
    assert isinstance(decoder.network, MLP)
    n_bytes = sum(p.numel() * p.element_size() for p in decoder.parameters())
    assert len(pickle.dumps(decoder)) < 1.05 * n_bytes + 5000
