"""The step by hand for CUDA devices, where the launches of its hundred small kernels would take longer than the kernels."""

import functools
import warnings
from collections.abc import Callable

import torch

from skvae.engine.adam import AdamState
from skvae.engine.flat_step import FlatStep
from skvae.model.network import VAE

Capture = Callable[[Callable[[], object], torch.device], Callable[[], object]]
"""``capture(function, device)`` returns a function that repeats what `function` does on the device."""


def cuda_graph(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A function without arguments that repeats on `device`, in one launch, all that `function` does there."""
    graph = torch.cuda.CUDAGraph()
    # other threads may use the device meanwhile
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class CapturedStep(FlatStep):
    """A `FlatStep` whose kernels are captured once and then repeated in one launch.

    The first step on a number of rows runs as it is, for what libraries set up on their first use. The second is captured and,
    from then on, repeated: whatever changes is copied to where the captured kernels read it.

    Parameters
    ----------
    vae, penalty, adam_state
        See `FlatStep`.
    capture : callable, default=cuda_graph
    """

    def __init__(
        self, vae: VAE, penalty: float, adam_state: AdamState | None = None, capture: Capture = cuda_graph
    ) -> None:
        super().__init__(vae, penalty, adam_state)
        self.capture = capture
        self.repeats: dict[int, tuple[list[torch.Tensor | None], Callable[[], object]]] = {}

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
        if n not in self.repeats:
            self.repeats[n] = self._repeat(x, weight, noise)

        places, repeat = self.repeats[n]
        for place, value in zip(places, (x, weight, noise, beta, learning_rate), strict=True):
            if place is None:
                continue
            if torch.is_tensor(value):
                place.copy_(value)
            else:
                place.fill_(value)
        repeat()

    def _repeat(
        self, x: torch.Tensor, weight: torch.Tensor | None, noise: torch.Tensor
    ) -> tuple[list[torch.Tensor | None], Callable[[], object]]:
        """The tensors that the inputs are read from, and the function that steps once from there."""
        weight_place = None
        if weight is not None:
            weight_place = torch.empty_like(weight)
        beta_place = x.new_empty(())
        # Adam reads its rate in single precision
        rate_place = torch.empty((), dtype=torch.float32, device=x.device)
        places = [torch.empty_like(x), weight_place, torch.empty_like(noise), beta_place, rate_place]

        step = functools.partial(super().__call__, *places)
        try:
            repeat = self.capture(step, x.device)
        except RuntimeError as error:
            message = (
                f"Training goes on without a CUDA graph, and more slowly, since the step could not be captured: {error}"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            repeat = step
        return places, repeat
