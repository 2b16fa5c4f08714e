"""What networks are made of: activations with their derivatives, and perceptrons."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skvae.threads import on_one_thread

aten = torch.ops.aten


@dataclass(frozen=True)
class Activation:
    """An activation with its derivative beside it.

    Attributes
    ----------
    forward : callable
        ``forward(x, out=out)``, elementwise; `out` may be `x` if the derivative is told from the output.
    backward : callable
        ``backward(grad, saved)`` multiplies `grad` in place by the derivative, told from what was saved.
    derivative_from : {"input", "output"}
        What that is.
    """

    forward: Callable
    backward: Callable
    derivative_from: str

    def __call__(self, x):
        return self.forward(x)


def _softplus(x, out=None):
    return F.softplus(x) if out is None else aten.softplus.out(x, out=out)


def _relu(x, out=None):
    if out is x:
        return x.relu_()
    return torch.relu(x) if out is None else torch.clamp_min(x, 0, out=out)


def _elu(x, out=None):
    return F.elu(x) if out is None else aten.elu.out(x, out=out)


def _silu(x, out=None):
    return F.silu(x) if out is None else aten.silu.out(x, out=out)


def _gelu(x, out=None):
    return F.gelu(x) if out is None else aten.gelu.out(x, out=out)


def _identity(x, out=None):
    return x


ACTIVATIONS = {
    "identity": Activation(_identity, lambda grad, y: grad, "output"),
    "logistic": Activation(
        torch.sigmoid, lambda grad, y: aten.sigmoid_backward.grad_input(grad, y, grad_input=grad), "output"
    ),
    "tanh": Activation(torch.tanh, lambda grad, y: aten.tanh_backward.grad_input(grad, y, grad_input=grad), "output"),
    "relu": Activation(
        _relu, lambda grad, y: aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad), "output"
    ),
    "elu": Activation(
        _elu, lambda grad, y: aten.elu_backward.grad_input(grad, 1, 1, 1, True, y, grad_input=grad), "output"
    ),
    "silu": Activation(_silu, lambda grad, x: aten.silu_backward.grad_input(grad, x, grad_input=grad), "input"),
    "gelu": Activation(_gelu, lambda grad, x: aten.gelu_backward.grad_input(grad, x, grad_input=grad), "input"),
    "softplus": Activation(
        _softplus, lambda grad, x: aten.softplus_backward.grad_input(grad, x, 1, 20, grad_input=grad), "input"
    ),
}


class MLP(nn.Module):
    """Linear layers with an activation between them: (n, sizes[0]) -> (n, sizes[-1]).

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output.
    activation : str
        A key of `ACTIVATIONS`.
    generator : torch.Generator or None
        Source of the initial weights (Glorot & Bengio, 2010, uniform; biases 0); None leaves them to the caller.
    """

    def __init__(self, sizes, activation, generator=None):
        super().__init__()
        self.sizes, self.activation = tuple(sizes), activation
        self.layers = nn.ModuleList(
            _empty_linear(n_in, n_out) for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True)
        )
        if generator is not None:
            for layer in self.layers:
                bound = (6.0 / (layer.in_features + layer.out_features)) ** 0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, x):
        """Outputs of shape (n, sizes[-1])."""
        activation = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = activation(layer(x))
        return self.layers[-1](x)

    def __reduce__(self):
        return _rebuild, (MLP, (self.sizes, self.activation), arrays(self), self.training)


def _empty_linear(n_in, n_out):
    """A float32 layer with weights of no meaning, whatever the default dtype; nothing is drawn for it."""
    layer = nn.Linear(1, 1, dtype=torch.float32, device="meta")
    layer.in_features, layer.out_features = n_in, n_out
    layer.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=torch.float32))
    layer.bias = nn.Parameter(torch.empty(n_out, dtype=torch.float32))
    return layer


def layers_of(network: nn.Module) -> list[nn.Linear] | None:
    """Layers of a built-in network, from its inputs to its outputs; None for a network of any other class."""
    if type(network) is MLP:
        return list(network.layers)
    return None


def portable(network: nn.Module) -> nn.Module:
    """What to pickle for a network, so that the file loads where there is no GPU."""
    if layers_of(network) is not None:
        return network
    return copy.deepcopy(network).cpu()


@on_one_thread
def arrays(module):
    """Parameters and buffers as numpy arrays of their own, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load(module, arrays, training):
    """`module` with the parameters and buffers of `arrays`, in their precision."""
    state = module.state_dict()
    dtypes = {array.dtype for array in arrays.values()}
    if dtypes == {np.dtype(np.float64)}:
        module.double()
    for name, array in arrays.items():
        state[name] = torch.from_numpy(array.copy())
    module.load_state_dict(state)
    return module.train(training)


@on_one_thread
def _rebuild(cls, args, arrays, training):
    return load(cls(*args), arrays, training)
