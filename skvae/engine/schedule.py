"""The weight of the KL term, the learning rate of each gradient step, and when to look at the validation rows."""

import math

WARM_UP = 200
"""Steps over which the KL term is phased in (Bowman et al., 2016)."""

SLOW_DOWN = 200
"""The rate falls with the inverse square root of the number of steps, from this number on."""

DESCENT = 0.4
"""At the end, the rate falls to 0 over this share of the steps before."""

STEPS_PER_LOOK = 50
"""Steps between two looks at the validation rows, at first."""

LOOK_AGAIN = 0.15
"""Later on, the next look comes after this share of the steps so far."""


class Schedule:
    """Weight of the KL term and learning rate of each step, for an end that is not set when training begins.

    The KL term is phased in. The rate is ``top / sqrt(1 + step / SLOW_DOWN)`` until a descent begins, in which it falls to 0
    in proportion to the steps that are left. A descent begins in time for the latest end, if there is one, or earlier by
    `descend`.

    Parameters
    ----------
    learning_rate : float
        Of the first step.
    beta : float
        Weight of the KL term once it is phased in.
    n_steps : int or None
        Number of steps, at most; None has no end, and the KL term is not phased in.
    first : int, default=0
        Number of steps taken earlier.
    """

    def __init__(self, learning_rate: float, beta: float, n_steps: int | None, first: int = 0) -> None:
        self.full_beta = beta
        self.top_rate = learning_rate
        self.n_steps = n_steps
        self.before = first

        # no end in sight
        self.start = math.inf
        self.end = math.inf
        if n_steps is not None:
            self.start = n_steps / (1 + DESCENT)
            self.end = n_steps

    def beta(self, step: int) -> float:
        """Weight of the KL term in a step; the first one is number 0."""
        if self.n_steps is None:
            return self.full_beta

        warm_up = min(WARM_UP, DESCENT * self.n_steps)

        return self.full_beta * min(1.0, (step + 1) / warm_up)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        # no longer on its own way once it descends
        share = 1.0
        if step > self.start:
            share = max(0.0, (self.end - step) / (self.end - self.start))
        own = min(step, self.start) + self.before

        return self.top_rate * share / math.sqrt(1 + own / SLOW_DOWN)

    def is_descending(self, step: int) -> bool:
        """Whether a descent has begun."""
        return step >= self.start

    def descend(self, step: int) -> None:
        """Let the rate fall from where it is at `step` to 0."""
        self.start = step
        self.end = step + max(1, int(DESCENT * step))

    def is_over(self, step: int) -> bool:
        """Whether no step is left."""
        return step >= self.end

    def next_look(self, step: int) -> int:
        """The number of steps at which the next look is due, after one at `step`."""
        if self.is_descending(step):
            return step + max(STEPS_PER_LOOK, math.ceil((self.end - self.start) / 8))

        return step + max(STEPS_PER_LOOK, math.ceil(LOOK_AGAIN * step))
