"""Muon: the orthogonal matrix, the weights it steps on, and when it steps. `test_steps` compares it with the twin."""

import numpy as np
import pytest
import torch
from layouts import LAYOUTS
from networks import shaken

from skvae.engine.muon import Matrix, Muon, PolarFactor, columns


def matrix_of(singular_values, shape, seed=0):
    rng = np.random.default_rng(seed)
    small = len(singular_values)
    u, _ = np.linalg.qr(rng.normal(size=(shape[0], small)))
    v, _ = np.linalg.qr(rng.normal(size=(shape[1], small)))
    return torch.from_numpy(u * singular_values @ v.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 7), (5, 1), (1, 1)], ids=str)
def test_polar_factor_has_singular_values_near_one_and_the_same_vectors(shape, dtype):
    values = np.geomspace(1, 0.02, min(shape)) * 1e-3
    matrix = matrix_of(values, shape)
    polar = PolarFactor(torch.empty(shape, dtype=dtype))
    polar.start.copy_(matrix)
    got = polar().double()
    assert got.shape == shape
    found = torch.linalg.svdvals(got)
    assert found.min() > 0.18
    assert found.max() < 1.87
    # along the same directions: what is symmetric for the exact factor is symmetric
    symmetric = got.t() @ matrix
    torch.testing.assert_close(symmetric, symmetric.t(), atol=1e-7, rtol=1e-4)


def test_polar_factor_of_zeros_is_zeros_and_of_anything_is_finite():
    polar = PolarFactor(torch.empty(3, 5))
    for scale in (0.0, 1e-40, 1e-30, 1e-10, 1e10, 1e30):
        polar.start.copy_(scale * torch.ones(3, 5))
        got = polar()
        assert torch.isfinite(got).all()
        if scale == 0:
            assert (got == 0).all()


def test_it_steps_on_hidden_weights_and_on_those_of_dense_inputs():
    vae = shaken("all", decoder="autoregressive")
    layout = LAYOUTS["all"]
    n_dense = layout.first_level - layout.first_number
    found = columns(vae)
    encoder, decoder = vae.encoder.layers, vae.decoder.layers
    assert found[encoder[0].weight] == n_dense < encoder[0].in_features
    assert found[decoder[0].weight] == vae.latent_dim + n_dense < decoder[0].in_features
    hidden = [*encoder[1:-1], *decoder[1:-1]]
    assert all(found[layer.weight] == layer.in_features for layer in hidden)
    assert len(found) == 2 + len(hidden)


def test_it_leaves_networks_of_a_users_and_linear_ones_alone():
    vae = shaken("normal", decoder="factorized")
    vae.encoder = torch.nn.Linear(5, 4)
    assert set(columns(vae)) == {layer.weight for layer in vae.decoder.layers[:-1]}
    assert not columns(shaken("normal", decoder="factorized", hidden=()))


def muon_on(shape, mask=None, **params):
    matrix = Matrix("w", torch.zeros(shape), torch.zeros(shape), mask)
    return matrix, Muon([matrix], **params)


def test_a_step_comes_once_per_twice_as_many_rows_as_the_smaller_side_is_long():
    matrix, muon = muon_on((8, 10))
    moved = []
    for _ in range(6):
        matrix.grad.copy_(torch.eye(8, 10))
        before = matrix.weight.clone()
        muon.update(6, 0.1)
        moved.append(float(torch.linalg.norm(matrix.weight - before)))
        assert (matrix.grad == 0).all()
    assert [m > 0 for m in moved] == [False, False, True] * 2
    always, often = muon_on((8, 10), always=True)
    always.grad.copy_(torch.eye(8, 10))
    often.update(6, 0.1)
    # three gradients, one step three times as long
    assert moved[2] == pytest.approx(3 * float(torch.linalg.norm(always.weight)), rel=1e-3)


def test_masked_weights_stay():
    mask = torch.tril(torch.ones(6, 6))
    matrix, muon = muon_on((6, 6), mask)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        matrix.grad.copy_(torch.randn(6, 6, generator=generator) * mask)
        muon.update(12, 0.1)
    assert (matrix.weight[mask == 0] == 0).all()
    assert (matrix.weight[mask == 1] != 0).all()


def test_it_goes_on_from_its_state_to_the_same_bits():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(7, 4, 5, generator=generator)
    through, muon = muon_on((4, 5))
    other, first = muon_on((4, 5))
    for k, gradient in enumerate(gradients):
        through.grad.copy_(gradient)
        muon.update(6, 0.1)
        if k == 3:  # between two steps
            state = first.state()
            first = Muon([other])
            first.load(state)
        other.grad.copy_(gradient)
        first.update(6, 0.1)
    assert torch.equal(through.weight, other.weight)
