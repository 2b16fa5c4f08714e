"""The step by hand for CUDA devices, where the launches of its hundred small kernels would take longer than the kernels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch

from skvae.engine.adam import AdamState
from skvae.engine.flat_step import FlatStep
from skvae.model.network import VAE

Call = Callable[[], object]

Capture = Callable[[Call, torch.device], Call]
"""``capture(function, device)`` returns a function that repeats what `function` does on the device."""


def cuda_graph(function: Call, device: torch.device) -> Call:
    """A function without arguments that repeats on `device`, in one launch, all that `function` does there."""
    graph = torch.cuda.CUDAGraph()

    # other threads may use the device meanwhile
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()

    return graph.replay


class CapturedStep(FlatStep):
    """A `FlatStep` whose kernels are captured once and then repeated in one launch.

    The first step on a number of rows runs as it is, for what libraries set up on their first use. The second is captured, and
    repeated from then on: whatever changes is copied to where the captured kernels read it.

    Parameters
    ----------
    vae, penalty, adam_state
        See `FlatStep`.
    capture : callable, default=cuda_graph
    """

    muon_always = True

    def __init__(
        self, vae: VAE, penalty: float, adam_state: AdamState | None = None, capture: Capture = cuda_graph
    ) -> None:
        super().__init__(vae, penalty, adam_state)

        self.capture = capture
        self.repeats: dict[int, _Repeat] = {}

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        noise: torch.Tensor,
        beta: float | torch.Tensor,
        learning_rate: float | torch.Tensor,
    ) -> None:
        """Step once: see `AutogradStep.__call__`."""
        n = len(x)
        if n not in self.workspaces:
            super().__call__(x, weight, noise, beta, learning_rate)
            return

        # one graph for each number of rows: all of its shapes are fixed
        if n not in self.repeats:
            self.repeats[n] = _Repeat(super().__call__, x, weight, noise, self.capture)

        self.repeats[n](x, weight, noise, beta, learning_rate)


class _Repeat:
    """A step that reads its inputs from tensors of its own.

    Parameters
    ----------
    step : callable
        ``step(x, weight, noise, beta, learning_rate)``
    x, weight, noise
        Inputs of the shapes and types to come.
    capture : callable
    """

    def __init__(
        self,
        step: Callable[..., None],
        x: torch.Tensor,
        weight: torch.Tensor | None,
        noise: torch.Tensor,
        capture: Capture,
    ) -> None:
        self.x = torch.empty_like(x)
        self.weight = None if weight is None else torch.empty_like(weight)
        self.noise = torch.empty_like(noise)
        self.beta = x.new_empty(())

        # Adam reads its rate in single precision
        self.learning_rate = torch.empty((), dtype=torch.float32, device=x.device)

        call = functools.partial(step, self.x, self.weight, self.noise, self.beta, self.learning_rate)
        self.repeat = _captured(call, x.device, capture)

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        noise: torch.Tensor,
        beta: float | torch.Tensor,
        learning_rate: float | torch.Tensor,
    ) -> None:
        self.x.copy_(x)
        if self.weight is not None and weight is not None:
            self.weight.copy_(weight)
        self.noise.copy_(noise)

        # they change from step to step, but a graph holds the numbers it was captured with
        self.beta.fill_(beta)
        self.learning_rate.fill_(learning_rate)

        self.repeat()


def _captured(call: Call, device: torch.device, capture: Capture) -> Call:
    """What repeats the call; the call itself, and a warning, if it cannot be captured."""
    # an operation without a fixed launch, or a library that will not be captured
    try:
        return capture(call, device)
    except RuntimeError as error:
        message = (
            f"Training goes on without a CUDA graph, and more slowly, since the step could not be captured: {error}"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)

        return call
