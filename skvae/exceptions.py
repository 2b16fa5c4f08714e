"""Errors of the package's own."""


class LostRankError(RuntimeError):
    """One of the processes that train a model together has ended, or cannot be reached."""


class DivergenceError(ValueError):
    """Training came to numbers that are not finite.

    `VAEEstimator.fit` and `VAEEstimator.partial_fit` raise it with the name of the column that lies furthest out, which is
    often the cause. A smaller ``learning_rate_init``, or a transform of that column, helps.
    """
