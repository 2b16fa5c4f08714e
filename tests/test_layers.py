"""The built-in networks: activations beside their derivatives, and perceptrons."""

import pickle

import pytest
import torch
from reference import ACTIVATIONS as SLOW_ACTIVATIONS
from torch import nn

from skvae.model.layers import ACTIVATIONS, MLP, mlp_of, portable

POINTS = torch.linspace(-6, 6, 49, dtype=torch.float64) + 0.01  # not at the kink of relu


def test_every_activation_of_the_twin_is_offered():
    assert ACTIVATIONS.keys() == SLOW_ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_that_of_the_twin_and_has_its_derivative_beside_it(name):
    activation = ACTIVATIONS[name]
    x = POINTS.clone().requires_grad_()
    expected = SLOW_ACTIVATIONS[name](x)
    torch.testing.assert_close(activation(POINTS), expected.detach(), rtol=1e-10, atol=1e-12)
    (derivative,) = torch.autograd.grad(expected.sum(), x)
    saved = POINTS.clone() if activation.derivative_from == "input" else activation(POINTS)
    grad = torch.full_like(POINTS, 3.0)
    activation.backward(grad, saved)
    torch.testing.assert_close(grad, 3 * derivative, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_writes_where_it_is_told_to(name):
    activation = ACTIVATIONS[name]
    x = POINTS.clone()
    out = x if activation.derivative_from == "output" else torch.empty_like(x)
    activation.forward(x, out=out)
    torch.testing.assert_close(out, SLOW_ACTIVATIONS[name](POINTS), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- perceptrons


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(3, 2), (3, 4, 2), (3, 5, 4, 2)], ids=str)
def test_perceptron_is_linear_layers_with_activations_between(sizes, activation):
    mlp = MLP(sizes, activation, torch.Generator().manual_seed(0)).double()
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = x
    for i, layer in enumerate(mlp.layers):
        assert isinstance(layer, nn.Linear)
        expected = expected @ layer.weight.T + layer.bias
        if i < len(sizes) - 2:
            expected = SLOW_ACTIVATIONS[activation](expected)
    torch.testing.assert_close(mlp(x), expected, rtol=1e-10, atol=1e-12)


def test_only_the_package_s_own_perceptron_is_trained_by_hand():
    class Another(MLP):
        def forward(self, x):
            return -super().forward(x)

    mlp = MLP((2, 3), "relu")
    assert mlp_of(mlp) is mlp
    assert mlp_of(Another((2, 3), "relu")) is None
    assert mlp_of(nn.Linear(2, 3)) is None


def test_a_network_of_another_class_is_copied_to_be_pickled():
    mlp, other = MLP((2, 3), "relu", torch.Generator().manual_seed(0)), nn.Linear(2, 3)
    assert portable(mlp) is mlp
    assert portable(other) is not other
    x = torch.rand(4, 2)
    for network in (mlp, other):
        with torch.no_grad():
            assert torch.equal(pickle.loads(pickle.dumps(portable(network)))(x), network(x))
