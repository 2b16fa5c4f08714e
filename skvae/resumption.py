"""A fit that goes on from where another one was interrupted: to the same end, if rows and parameters are the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from skvae.engine.training import TrainingState
from skvae.fitted import FittedModel
from skvae.parameters import draw_seed
from skvae.table.plain import to_plain
from skvae.training_rows import TrainingSet

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

PARAMETERS = (
    "batch_size",
    "learning_rate_init",
    "beta",
    "alpha",
    "max_iter",
    "tol",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
)
"""Parameters of the estimator without which a fit would come to another end."""


class Draws(NamedTuple):
    """Where the random numbers of a fit come from.

    Attributes
    ----------
    rng : RandomState
        What splits the rows.
    before : tuple
        Its state at the beginning, as numpy has it.
    seed : int
        Of the model, and of its latent densities.
    """

    rng: np.random.RandomState
    before: tuple
    seed: int

    @classmethod
    def of(cls, estimator: VAEEstimator, former: FittedModel | None) -> Draws:
        """Those of a new fit, or of the one that was interrupted with the model `former`."""
        if former is None or former.training is None:
            rng = check_random_state(estimator.random_state)
            seed = draw_seed(rng)
            return cls(rng, rng.get_state(legacy=True), seed)

        keys, position = former.training["fit/rng"], int(former.training["fit/position"])
        # a permutation takes no normal draws, of which numpy keeps one back
        before = ("MT19937", keys, position, 0, 0.0)
        rng = np.random.RandomState()
        rng.set_state(before)
        return cls(rng, before, former.seed)


def interrupted(former: FittedModel | None, *, schedule: bool) -> TrainingState | None:
    """Where a fit with a set end goes on, if the former model was taken in the middle of one."""
    if former is None or not schedule:
        return None
    return former.training


class Origin(NamedTuple):
    """What a training loop starts from, beside the network.

    Attributes
    ----------
    estimator : VAEEstimator
    draws : Draws
    loop_seed : int
        Of the order of the rows and of the noise.
    rows : TrainingSet
    """

    estimator: VAEEstimator
    draws: Draws
    loop_seed: int
    rows: TrainingSet

    def state(self) -> TrainingState:
        """What the state of a loop lacks to go on in another fit."""
        return {
            "fit/rng": np.asarray(self.draws.before[1]),
            "fit/position": np.array(self.draws.before[2]),
            "fit/seed": np.array(self.loop_seed),
            "fit/fingerprint": self._fingerprint(),
        }

    def check(self, state: TrainingState) -> None:
        """Raise a ValueError unless a state is that of a fit of the same rows and parameters."""
        if (state["fit/fingerprint"] != self._fingerprint()).any():
            raise ValueError(
                f"The fit that was interrupted had other rows, weights or parameters, so that it cannot go on with these. "
                f"Give the same ones ({', '.join(PARAMETERS)} count), or begin anew with warm_start=False."
            )

    def _fingerprint(self) -> np.ndarray:
        """SHA-256 of the rows and parameters, ndarray of uint8 of shape (32,)."""
        digest = hashlib.sha256()
        for name in PARAMETERS:
            # a number of numpy is the same in a file
            digest.update(f"{name}={to_plain(getattr(self.estimator, name))!r};".encode())

        if self.rows.digest is not None:
            digest.update(self.rows.digest)
            return np.frombuffer(digest.digest(), dtype=np.uint8)
        for rows in (self.rows.training, self.rows.validation):
            for tensor in rows or ():
                if tensor is not None:
                    digest.update(tensor.cpu().numpy().tobytes())
        return np.frombuffer(digest.digest(), dtype=np.uint8)
