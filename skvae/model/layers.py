"""Activations with their derivatives, and the perceptrons that networks are built of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skvae.threads import on_one_thread

# the operators behind torch.nn.functional, which can write to a tensor that is there already
aten = torch.ops.aten

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Activation:
    """An activation and its derivative.

    Attributes
    ----------
    forward : callable
        ``forward(x, out=out)``, elementwise; `out` may be `x` if the derivative is computed from the output.
    backward : callable
        ``backward(grad, saved)`` multiplies `grad` in place by the derivative at `saved`, and returns it.
    derivative_from : {"input", "output"}
        Whether `saved` is the input or the output of `forward`.
    """

    forward: Callable[..., torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    derivative_from: Literal["input", "output"]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)


def _identity(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return x


def _identity_backward(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return grad


def _logistic_backward(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return aten.sigmoid_backward.grad_input(grad, y, grad_input=grad)


def _tanh_backward(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return aten.tanh_backward.grad_input(grad, y, grad_input=grad)


def _relu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    if out is None:
        return torch.relu(x)

    # torch.relu has no `out`; the clamp has, and the in-place form is the faster one
    if out is x:
        return x.relu_()

    return torch.clamp_min(x, 0, out=out)


def _relu_backward(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)


def _elu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    if out is None:
        return F.elu(x)

    return aten.elu.out(x, out=out)


def _elu_backward(grad: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # alpha, scale and input scale are 1; True says that `y` is the output
    return aten.elu_backward.grad_input(grad, 1, 1, 1, True, y, grad_input=grad)


def _silu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    if out is None:
        return F.silu(x)

    return aten.silu.out(x, out=out)


def _silu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return aten.silu_backward.grad_input(grad, x, grad_input=grad)


def _gelu(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    if out is None:
        return F.gelu(x)

    return aten.gelu.out(x, out=out)


def _gelu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return aten.gelu_backward.grad_input(grad, x, grad_input=grad)


def _softplus(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    if out is None:
        return F.softplus(x)

    return aten.softplus.out(x, out=out)


def _softplus_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    # beta 1 and threshold 20 are the defaults of the way forward
    return aten.softplus_backward.grad_input(grad, x, 1, 20, grad_input=grad)


ACTIVATIONS = {
    "identity": Activation(_identity, _identity_backward, "output"),
    "logistic": Activation(torch.sigmoid, _logistic_backward, "output"),
    "tanh": Activation(torch.tanh, _tanh_backward, "output"),
    "relu": Activation(_relu, _relu_backward, "output"),
    "elu": Activation(_elu, _elu_backward, "output"),
    "silu": Activation(_silu, _silu_backward, "input"),
    "gelu": Activation(_gelu, _gelu_backward, "input"),
    "softplus": Activation(_softplus, _softplus_backward, "input"),
}
"""The activations of the built-in networks, by name."""


class MLP(nn.Module):
    """Linear layers with an activation between them: (n, sizes[0]) -> (n, sizes[-1]).

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output.
    activation : str
        A key of `ACTIVATIONS`.
    generator : torch.Generator or None
        Source of the initial weights (Glorot & Bengio, 2010, uniform; biases 0). None leaves them uninitialised.

    Attributes
    ----------
    layers : torch.nn.ModuleList of torch.nn.Linear
        From the inputs to the outputs.
    """

    layers: Sequence[nn.Linear]

    def __init__(self, sizes: Sequence[int], activation: str, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.activation = activation

        layers = []
        for n_in, n_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            layer = _empty_linear(n_in, n_out)
            layers.append(layer)

            if generator is not None:
                bound = (6.0 / (n_in + n_out)) ** 0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                nn.init.zeros_(layer.bias)

        self.layers = cast(Sequence[nn.Linear], nn.ModuleList(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs of shape (n, sizes[-1])."""
        return self.after_first(self.layers[0](x))

    def after_first(self, sums: torch.Tensor) -> torch.Tensor:
        """Outputs, shape (..., sizes[-1]), from the sums of the first layer, shape (..., sizes[1])."""
        activation = ACTIVATIONS[self.activation]

        for layer in self.layers[1:]:
            sums = layer(activation(sums))

        return sums

    def __reduce__(self) -> tuple[Any, ...]:
        # as arrays, for a pickled view would carry the whole buffer that it is a part of
        return _rebuild, (MLP, (self.sizes, self.activation), arrays(self), self.training)


def _empty_linear(n_in: int, n_out: int) -> nn.Linear:
    """An uninitialised float32 layer, whatever the default dtype; nothing is drawn for it."""
    # a layer on the meta device has neither memory nor initial weights
    layer = nn.Linear(1, 1, dtype=torch.float32, device="meta")
    layer.in_features = n_in
    layer.out_features = n_out

    layer.weight = nn.Parameter(torch.empty(n_out, n_in, dtype=torch.float32))
    layer.bias = nn.Parameter(torch.empty(n_out, dtype=torch.float32))

    return layer


def mlp_of(network: nn.Module) -> MLP | None:
    """The network itself if it is a built-in one, which can be trained by hand; None if it is of any other class."""
    if type(network) is MLP:
        return network
    return None


def portable(network: nn.Module) -> nn.Module:
    """What to pickle for a network, so that the file loads where there is no GPU."""
    # a built-in network pickles its weights as arrays
    if mlp_of(network) is not None:
        return network
    return copy.deepcopy(network).cpu()


@on_one_thread
def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Copies of the parameters and buffers as numpy arrays, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def load(module: Module, arrays: Mapping[str, np.ndarray], training: bool) -> Module:
    """Load parameters and buffers into a module.

    Parameters
    ----------
    module : torch.nn.Module
        In single precision; it is changed in place, and is in double precision afterwards if the arrays are.
    arrays : dict of str to ndarray
        Parameters and buffers by name, as from `arrays`; those left out stay as they are.
    training : bool
        Whether the module is in training mode afterwards.

    Returns
    -------
    module : torch.nn.Module
    """
    dtypes = {array.dtype for array in arrays.values()}
    state = module.state_dict()

    if dtypes == {np.dtype(np.float64)}:
        module.double()

    # copied, for a module's memory is its own
    for name, array in arrays.items():
        state[name] = torch.from_numpy(array.copy())

    module.load_state_dict(state)

    return module.train(training)


@on_one_thread
def _rebuild(cls: type[MLP], args: tuple[Any, ...], arrays: Mapping[str, np.ndarray], training: bool) -> MLP:
    return load(cls(*args), arrays, training)
