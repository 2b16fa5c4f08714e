"""The weight of the KL term and the learning rate of each gradient step."""

import math

WARM_UP = 0.2
"""Share of the budget over which the KL term is phased in (Bowman et al., 2016)."""


class Schedule:
    """Weight of the KL term and learning rate of each step.

    The KL term is phased in, and the learning rate follows a half cosine down to 0. Without a set end both are constant.

    Parameters
    ----------
    learning_rate : float
        Of the first step.
    beta : float
        Weight of the KL term once it is phased in.
    n_steps : int or None
        Number of steps; None if no end is set.

    Attributes
    ----------
    descending : bool
        Whether `descend` has been called.
    """

    def __init__(self, learning_rate: float, beta: float, n_steps: int | None) -> None:
        self.full_beta = beta
        self.n_steps = n_steps

        # the half cosine: its first step, the rate there, and the number of steps down to 0
        self.first = 0
        self.top_rate = learning_rate
        self.length = n_steps
        self.descending = False

    def beta(self, step: int) -> float:
        """Weight of the KL term in a step; the first one is number 0."""
        if self.n_steps is None:
            return self.full_beta

        return self.full_beta * min(1.0, (step + 1) / (WARM_UP * self.n_steps))

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if self.length is None:
            return self.top_rate

        # share of the way down; a step beyond the end may still be asked for
        share = min(1.0, (step - self.first) / self.length)

        return self.top_rate * 0.5 * (1 + math.cos(math.pi * share))

    def descend(self, step: int, length: int) -> None:
        """Let the rate fall from where it is at `step` to 0, over `length` steps."""
        # first the rate, which depends on the others
        self.top_rate = self.rate(step)
        self.first = step
        self.length = length
        self.descending = True

    def is_over(self, step: int) -> bool:
        """Whether such a descent has ended before `step`."""
        return self.descending and self.length is not None and step >= self.first + self.length
