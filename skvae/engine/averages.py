"""The average of the parameters over the last steps: what they would come to with smaller steps, at any time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from skvae.model.network import VAE

STEPS_PER_TERM = 5
"""Parameters of one step in so many are averaged: those of neighbours are nearly the same."""

RECENCY = 8
"""The average goes back over about one part in so many of the steps so far (Shamir & Zhang, 2013, section 4)."""


class Average:
    """A running average of the parameters of a VAE that forgets its beginnings.

    ``mean <- mean + (RECENCY + 1) / (t + RECENCY) (parameters - mean)`` for the t-th term: polynomial-decay averaging.

    Parameters
    ----------
    vae : VAE
    """

    def __init__(self, vae: VAE) -> None:
        self._parameters = [p.data for p in vae.parameters()]
        self._means = [p.clone() for p in self._parameters]
        self._n_terms = 0

    def add(self, n_steps: int) -> None:
        """Take in the parameters as they are after `n_steps` steps."""
        if n_steps % STEPS_PER_TERM:
            return

        self._n_terms += 1
        weight = (RECENCY + 1) / (self._n_terms + RECENCY)
        torch._foreach_lerp_(self._means, self._parameters, weight)

    def state(self) -> dict[str, np.ndarray]:
        """What `load` goes on from: the number of terms, and the means by the position of their parameter."""
        state = {"n_terms": np.array(self._n_terms)}
        for i, mean in enumerate(self._means):
            state[str(i)] = mean.cpu().numpy().copy()

        return state

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned earlier."""
        self._n_terms = int(state["n_terms"])
        for i, mean in enumerate(self._means):
            mean.copy_(torch.from_numpy(state[str(i)]))

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Within it, the parameters are their average."""
        own = [p.clone() for p in self._parameters]
        torch._foreach_copy_(self._parameters, self._means)

        try:
            yield
        finally:
            torch._foreach_copy_(self._parameters, own)
