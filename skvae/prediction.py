"""Any column predicted from the others."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

from skvae.conditionals import Conditional
from skvae.fitted import FittedModel
from skvae.parameters import check_positive_integer, draw_seed
from skvae.progress import RowReport
from skvae.table import as_table
from skvae.table.given import read_some


class _Joint(Protocol):
    """What the method needs of an estimator."""

    handle_unknown: str
    verbose: bool | int

    def _model(self) -> FittedModel: ...


class PredictionMixin:
    """The method `conditional` of an estimator that holds a `FittedModel`."""

    def conditional(
        self: _Joint, X: Any, column: Any, *, n_draws: int | None = None, random_state: Any = None
    ) -> Conditional:
        """The distribution of one column given the other cells of each row, from the joint model.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows. A frame may lack columns: their cells, and all others that are missing, are integrated out. The cells of
            `column` are not read.
        column : str or int
            The column, by name or index.
        n_draws : int, default=None
            Draws of z per row. None takes 64 for the probabilities of levels, and 256 for a number, which is drawn with each.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None is a fixed one, so that the same call gives the same distribution.

        Returns
        -------
        conditional : Conditional
            ``values`` and ``probabilities`` of the levels of a category, boolean, or number of few values; ``mean()``,
            ``std()`` and ``quantile(q)`` of a number; ``mode()`` of either.

        Raises
        ------
        ValueError
            If the model does not predict the column.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skvae import VAEEstimator
        >>> iris = load_iris(as_frame=True).frame.astype({"target": "category"})
        >>> vae = VAEEstimator(2, max_iter=60, random_state=0).fit(iris)
        >>> rows = iris.iloc[[0, 60, 120]]
        >>> vae.conditional(rows, "target").probabilities.shape
        (3, 3)
        """
        model = self._model()
        if n_draws is not None:
            n_draws = check_positive_integer("n_draws", n_draws, or_else="None or ")
        # predictions are compared: the same call gives the same numbers
        seed = 0
        if random_state is not None:
            seed = draw_seed(check_random_state(random_state))

        values, _ = read_some(model.table, as_table(X), self.handle_unknown)
        report = RowReport("conditional", len(values), self.verbose)
        return model.conditional(np.asarray(values), column, n_draws, seed, report)
