"""Log-likelihoods as scores: what model selection compares."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

from skvae._sklearn import check_sample_weight
from skvae.fitted import FittedModel
from skvae.parameters import check_positive_integer, draw_seed
from skvae.progress import RowReport


class _Density(Protocol):
    """What the methods need of an estimator."""

    verbose: bool | int

    def _model(self) -> FittedModel: ...

    def _read(self, X: Any) -> np.ndarray: ...

    def score_samples(self, X: Any, *, n_draws: int | str = "auto", random_state: Any = None) -> np.ndarray: ...


class ScoringMixin:
    """The methods `score_samples` and `score` of an estimator that holds a `FittedModel`."""

    def score_samples(self: _Density, X: Any, *, n_draws: int | str = "auto", random_state: Any = None) -> np.ndarray:
        """Log-likelihood of rows.

        The importance-weighted bound (Burda et al., 2016) on log p(x), from quasi-random draws of z. They follow from the seed
        and the cells of the row, so that a row's number does not depend on the rows around it.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.
        n_draws : int or "auto", default="auto"
            Draws per row. ``"auto"`` moves q(z | x) towards the posterior by a gradient step and takes 16 to 256 draws around
            its new mean, the more the longer the step: a power of two near 16 times its square, in deviations of q. An integer
            takes as many draws from q(z | x) itself; the bound rises with it towards log p(x), in expectation.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None is a fixed one, so that the same call gives the same numbers.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            In nats and in the units of X: log densities of numbers plus log masses of levels, flags and counts. A value of a
            ``"quantile_normal"`` column that many training rows share has a mass, too, and a value never seen in a column of
            levels only has little of it. Missing cells are integrated out: under the autoregressive decoder by draws of them,
            64 to 256 for ``"auto"``. Constant columns, and those that are not modelled, do not count.
        """
        model = self._model()
        n = None
        if not isinstance(n_draws, str) or n_draws != "auto":
            n = check_positive_integer("n_draws", n_draws, or_else="'auto' or ")

        # scores are compared: the same call gives the same numbers
        seed = 0
        if random_state is not None:
            seed = draw_seed(check_random_state(random_state))

        values = self._read(X)
        report = RowReport("score_samples", len(values), self.verbose)
        return model.log_likelihood(values, n, seed, report)

    def score_cells(self: _Density, X: Any, *, random_state: Any = None) -> np.ndarray:
        """Surprise of each cell given the others of its row.

        ``-log p(x_j | other cells) = log p(other cells) - log p(x)``, from the scores of the row without and with the cell.
        The cells of a row are comparable: numbers count in deviations of their column, or in normal scores.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None is a fixed one.

        Returns
        -------
        surprise : ndarray of shape (n_samples, n_features)
            In nats, of which levels that are sure have 0. 0 also for cells that are missing, columns that are constant or not
            modelled, and the exposure.
        """
        model = self._model()
        seed = 0
        if random_state is not None:
            seed = draw_seed(check_random_state(random_state))

        values = self._read(X)
        report = RowReport("score_cells", len(values), self.verbose)
        return model.surprise(values, seed, report)

    def score(self: _Density, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood of rows, in nats per row: see `score_samples`.

        Comparable, on the same X, with ``GaussianMixture.score``, ``FactorAnalysis.score`` and the mean of
        ``KernelDensity.score_samples`` where every column has a density: with ``likelihood="normal"``, or where no value of
        a column is shared by many rows.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.
        y : Ignored
            Not used, present by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Mean log-likelihood.
        """
        scores = self.score_samples(X)

        weight = None
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, scores, dtype=np.float64)
        return float(np.average(scores, weights=weight))
