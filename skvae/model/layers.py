"""What networks are made of: activations with their derivatives, and perceptrons, plain and autoregressive."""

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


class AutoregressiveMLP(MLP):
    """A decoder that reads z *and the parts before*: (n, latent_dim), (n, n_inputs) -> (n, n_outputs).

    The weights are masked as in MADE (Germain et al., 2015): every hidden unit has a degree, reads the parts of a rank below
    it and the hidden units of a degree up to it, and is read by the outputs of parts of a rank from it on. z is read by all.

    Parameters
    ----------
    latent_dim : int
    input_ranks, output_ranks : sequence of int
        Rank of the part that each input, and each output, belongs to.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : str
    generator : torch.Generator or None
    """

    def __init__(self, latent_dim, input_ranks, output_ranks, hidden, activation, generator=None):
        super().__init__((latent_dim + len(input_ranks), *hidden, len(output_ranks)), activation, generator)
        self.latent_dim, self.input_ranks, self.output_ranks = latent_dim, tuple(input_ranks), tuple(output_ranks)
        n_ranks = max((*self.input_ranks, *self.output_ranks), default=0) + 1
        below = torch.tensor([-1] * latent_dim + [rank + 1 for rank in self.input_ranks])
        for i, layer in enumerate(self.layers):
            last = i == len(self.layers) - 1
            degrees = torch.tensor(self.output_ranks) if last else unit_degrees(layer.out_features, n_ranks)
            mask = (below[None, :] <= degrees[:, None]).to(layer.weight.dtype)
            layer.register_buffer("mask", mask, persistent=False)
            with torch.no_grad():
                layer.weight.mul_(mask)
            below = degrees

    def forward(self, z, inputs):
        """Outputs of shape (..., n, n_outputs) for z of shape (..., n, latent_dim) and inputs of shape (n, n_inputs)."""
        first = self.layers[0]
        weight = first.weight * first.mask
        return self.after_first(
            F.linear(z, weight[:, : self.latent_dim]) + F.linear(inputs, weight[:, self.latent_dim :], first.bias)
        )

    def after_first(self, sums):
        """Outputs, shape (..., n_outputs), from the sums of the first layer, shape (..., sizes[1])."""
        for layer in self.layers[1:]:
            sums = F.linear(ACTIVATIONS[self.activation](sums), layer.weight * layer.mask, layer.bias)
        return sums

    def __reduce__(self):
        args = (self.latent_dim, self.input_ranks, self.output_ranks, self.sizes[1:-1], self.activation)
        return _rebuild, (AutoregressiveMLP, args, arrays(self), self.training)


def unit_degrees(n_hidden, n_ranks):
    """Degrees of a layer's hidden units, shape (n_hidden,): evenly from 0 to n_ranks - 1, in order."""
    return torch.arange(n_hidden) * n_ranks // max(1, n_hidden)


def n_units(layer, rank, n_ranks):
    """How many of a layer's hidden units have a degree up to `rank`."""
    return int((unit_degrees(layer.out_features, n_ranks) <= rank).sum())


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
