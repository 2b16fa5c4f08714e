"""Rows that are unlike the others, and the cells that make them so."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from skvae._sklearn import HasMethods, Interval, fit_context
from skvae.estimator import VAEEstimator
from skvae.parameters import draw_seed
from skvae.table import as_table
from skvae.table.rows import Table, n_rows


class VAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Detection of outliers by the density of several small variational autoencoders.

    Each VAE is fitted to a small subsample of the rows, as the trees of an isolation forest are [1]_: most have met none of
    the outliers, and few outliers are a cluster that a density would learn. A row's score is the mean of its log densities, so
    that one VAE that has met it does not speak for all. Numbers have normal noise, whose density falls off wherever no row
    is: a density by ranks, or levels where values repeat, would give a rare number beside a common one no low score.

    Parameters
    ----------
    vae : VAEEstimator, default=None
        Prototype of the VAEs. None stands for ``VAEEstimator(2, hidden_layer_sizes=(32,), likelihood="normal",
        decoder="factorized")``.
    n_estimators : int, default=20
        Number of VAEs.
    max_samples : int, default=64
        Rows that each is fitted to; all of them, if there are fewer.
    contamination : float, default=0.1
        Share of the training rows that `predict` calls outliers, between 0 and 0.5. It sets `offset_`, and no score.
    random_state : int, RandomState instance or None, default=None
        Seed of the subsamples and of the VAEs.

    Attributes
    ----------
    estimators_ : list of VAEEstimator
        The fitted VAEs.
    offset_ : float
        `decision_function` is `score_samples` minus it.
    n_features_in_ : int
        Number of columns seen at fit.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Their names, if the table had string names.

    See Also
    --------
    sklearn.ensemble.IsolationForest : By how few splits isolate a row.
    sklearn.neighbors.LocalOutlierFactor : By the density among neighbours.

    References
    ----------
    .. [1] Liu, Ting & Zhou, "Isolation forest", ICDM 2008, section 3, on subsamples against swamping and masking.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.outliers import VAEOutlierDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 3))
    >>> X[7, 1] = 9.0
    >>> detector = VAEOutlierDetector(contamination=0.01, random_state=0).fit(X)
    >>> int(detector.score_samples(X).argmin()), int(detector.score_cells(X[[7]]).argmax())
    (7, 1)
    """

    _parameter_constraints: ClassVar[dict] = {
        "vae": [HasMethods(["score_samples", "score_cells"]), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        vae: VAEEstimator | None = None,
        *,
        n_estimators: int = 20,
        max_samples: int = 64,
        contamination: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.vae = vae
        self.n_estimators = n_estimators
        self.max_samples = max_samples
        self.contamination = contamination
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> VAEOutlierDetector:
        """Fit the VAEs, and the offset to the scores of X.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Training rows, outliers among them; cells may be missing.
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : VAEOutlierDetector
        """
        table = as_table(X)
        validate_data(self, table, skip_check_array=True)
        prototype = default_vae() if self.vae is None else self.vae
        rng = check_random_state(self.random_state)
        n = n_rows(table)

        estimators: list[VAEEstimator] = []
        for _ in range(self.n_estimators):
            # the other rows tell which levels there are
            weight = np.zeros(n)
            weight[rng.permutation(n)[: self.max_samples]] = 1
            vae = clone(prototype).set_params(random_state=draw_seed(rng))
            estimators.append(_fit_quietly(vae, table, weight, is_first=not estimators))

        self.estimators_ = estimators
        self.offset_ = float(np.percentile(self.score_samples(X), 100 * self.contamination))
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of rows: the lower, the more of an outlier.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Mean of the log densities of the VAEs, in nats and in the units of X.
        """
        check_is_fitted(self)
        return np.mean([vae.score_samples(X) for vae in self._ready(X)], axis=0)

    def decision_function(self, X: Any) -> np.ndarray:
        """`score_samples` minus `offset_`: negative for outliers.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)

        Returns
        -------
        decision : ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers, 1 for the others.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of int of shape (n_samples,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score_cells(self, X: Any) -> np.ndarray:
        """Surprise of each cell given the others of its row: why a row is an outlier.

        The mean over the VAEs of ``-log p(x_j | other cells)``: see `VAEEstimator.score_cells`.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.

        Returns
        -------
        surprise : ndarray of shape (n_samples, n_features)
            In nats, numbers counted in deviations of their column; 0 where the cell is missing. The largest of a row is the
            least expected cell.
        """
        check_is_fitted(self)
        surprise = [vae.score_cells(X) for vae in self._ready(X)]
        return np.mean(surprise, axis=0)

    def _ready(self, X: Any) -> list[VAEEstimator]:
        """The VAEs, once X has the columns of the training table."""
        validate_data(self, as_table(X), skip_check_array=True, reset=False)
        return self.estimators_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def default_vae() -> VAEEstimator:
    """The prototype for ``vae=None``."""
    return VAEEstimator(2, hidden_layer_sizes=(32,), likelihood="normal", decoder="factorized", handle_unknown="ignore")


def _fit_quietly(vae: VAEEstimator, table: Table, weight: np.ndarray, *, is_first: bool) -> VAEEstimator:
    """Fit, with the warnings of the first fit only."""
    with warnings.catch_warnings():
        if not is_first:
            warnings.simplefilter("ignore", UserWarning)
        return vae.fit(table, sample_weight=weight)
