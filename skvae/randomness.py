"""torch's own generators, lent to modules that draw from them: dropout, and the initial weights of torch's layers."""

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from skvae.threads import process_lock

P = ParamSpec("P")
R = TypeVar("R")

_lock = process_lock()


class PrivateDraws:
    """A sequence of random numbers of one's own for code that draws from torch's default generators.

    Those are put into a private state for the length of one call, and then back into the state they had. One call runs at a
    time in the process, so that the numbers are the same however many threads do this.

    Parameters
    ----------
    seed : int
    device : torch.device
        The default generator of a CUDA device is lent beside that of the CPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._lent = [torch.default_generator]
        if device.type == "cuda":
            # "cuda" without a number is the current device
            index = torch.cuda.current_device() if device.index is None else device.index
            self._lent.append(torch.cuda.default_generators[index])

        self._states = [torch.Generator(g.device).manual_seed(seed).get_state() for g in self._lent]

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function`, whose draws go on where those of the last call ended, and return what it returns."""
        # a lock of C's, between whose release and the caller's next line no KeyboardInterrupt can fall
        with _lock:
            own = [generator.get_state() for generator in self._lent]

            try:
                self._set(self._states)
                return function(*args, **kwargs)
            finally:
                try:
                    self._states = [generator.get_state() for generator in self._lent]
                    self._set(own)
                except BaseException:  # interrupted on the way out
                    self._set(own)
                    raise

    def state(self) -> dict[str, np.ndarray]:
        """What `load` goes on from: the states of the generators by their position."""
        return {str(i): state.numpy().copy() for i, state in enumerate(self._states)}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned earlier."""
        self._states = [torch.tensor(state[str(i)]) for i in range(len(self._lent))]

    def _set(self, states: list[torch.Tensor]) -> None:
        for generator, state in zip(self._lent, states, strict=True):
            generator.set_state(state)
