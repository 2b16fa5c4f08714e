"""The rows that are held out of training, and the best parameters by them."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from skvae.engine.ranks import Alone, Ranks
from skvae.model.network import VAE
from skvae.randomness import PrivateDraws

ROWS_PER_CHUNK = 8192
"""Rows that are looked at together, at most: memory stays bounded."""

OUTPUTS_PER_CHUNK = 2**22
"""Outputs of the decoder for them, at most."""

State = dict[str, torch.Tensor]
"""Parameters and buffers of a module by name."""


def copy_state(vae: VAE) -> State:
    """A copy of every parameter and buffer: `state_dict` alone only refers to them."""
    return {name: tensor.detach().clone() for name, tensor in vae.state_dict().items()}


class Watch:
    """The held-out ELBO, with the same noise at every look, and a copy of the parameters that had the best.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded rows that are held out.
    weight : tensor of shape (n,) or None
    beta : float
        Weight of the KL term.
    tol : float
        The least gain over `patience` looks that is worth going on, in nats per row.
    patience : int or None
        None is without end.
    seed : int
        Source of the noise.
    draws : PrivateDraws or None
        What modules of a user's draw from; None if there are none.
    ranks : Alone or Ranks, default=None
        The processes that look together, each at its rows.

    Attributes
    ----------
    best_score : float
        In nats per row of the encoded units.
    best_state : dict or None
        None before the first score that is a number.
    bests : list of float
        The best score so far at each look.
    """

    def __init__(
        self,
        vae: VAE,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        *,
        beta: float,
        tol: float,
        patience: int | None,
        seed: int,
        draws: PrivateDraws | None,
        ranks: Alone | Ranks | None = None,
    ) -> None:
        if weight is None:
            weight = torch.ones(len(x), dtype=x.dtype, device=x.device)

        self.vae = vae
        self.x = x
        self.weight = weight
        self.beta = beta
        self.tol = tol
        self.patience = patience
        self.draws = draws
        self.ranks = ranks or Alone()

        # the same at every look, so that looks differ by their parameters alone
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(len(x), vae.noise_dim, generator=generator, dtype=x.dtype).to(x.device)

        self.best_score = -math.inf
        self.best_state: State | None = None
        self.bests: list[float] = []

    def look(self) -> float:
        """The score of the parameters as they are now, in nats per row."""
        score = self._score() if self.draws is None else self.draws.run(self._score)

        # never one that is not a number
        if score > self.best_score:
            self.best_score = score
            self.best_state = copy_state(self.vae)

        self.bests.append(self.best_score)

        return score

    @property
    def is_tired(self) -> bool:
        """bool : whether `patience` looks have brought too little, and there is something to go back to."""
        if self.patience is None or self.best_state is None:
            return False
        if len(self.bests) <= self.patience:
            return False

        return not self.best_score > self.bests[-1 - self.patience] + self.tol

    def state(self) -> dict[str, np.ndarray]:
        """What `load` goes on from: the best scores, and the best parameters by name."""
        state = {"bests": np.array(self.bests)}
        for name, tensor in (self.best_state or {}).items():
            state[f"best/{name}"] = tensor.cpu().numpy()

        return state

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned earlier."""
        self.bests = state["bests"].tolist()
        best = {}
        for name, array in state.items():
            if name.startswith("best/"):
                best[name.removeprefix("best/")] = torch.tensor(array, device=self.x.device)

        if best:
            self.best_state = best
            self.best_score = self.bests[-1]

    def restore(self) -> None:
        """Go back to the parameters of the best look."""
        if self.best_state is not None:
            self.vae.load_state_dict(self.best_state)

    @torch.no_grad()
    def _score(self) -> float:
        total = 0.0
        n_rows = min(ROWS_PER_CHUNK, OUTPUTS_PER_CHUNK // max(1, self.vae.likelihood.n_outputs))
        n_rows = max(1, n_rows)

        for start in range(0, len(self.x), n_rows):
            rows = slice(start, start + n_rows)
            nll, kl = self.vae.loss_terms(self.x[rows], self.noise[rows])
            total -= float(((nll + self.beta * kl.sum(1)) * self.weight[rows]).sum())

        total, weight = self.ranks.sums(total, float(self.weight.sum()))

        return total / weight
