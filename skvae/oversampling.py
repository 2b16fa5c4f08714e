"""Samplers for imbalanced-learn: new rows between rows that a VAE finds alike, or drawn from it.

Imported by name only, as it needs imbalanced-learn. The VAE is fitted to the joint table: X, and the target as its last
column.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from imblearn.base import BaseSampler
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy, check_target_type
from sklearn.utils import Tags, assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from skvae._sklearn import Interval, StrOptions
from skvae.estimator import VAEEstimator
from skvae.joint import fit_joint
from skvae.neighbours import RowsBetween
from skvae.table import as_table
from skvae.table.one_cell import is_missing
from skvae.table.rows import (
    Rows,
    Table,
    split,
    stack,
    take,
    target_as_array,
    target_like,
    where,
)


class VAEOverSampler(BaseOverSampler):
    """Over-sampling of classes in the latent space of a variational autoencoder.

    One VAE is fitted to all rows, with their class as one more column. It tells which rows of a class are alike: a class of
    twenty rows borrows the relations between the columns from the rows of all classes. New rows lie between rows that are
    neighbours in its latent space.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        Number of rows that each class is to have, as in every over-sampler of imbalanced-learn. ``"auto"`` makes all classes
        as frequent as the most frequent one.
    vae : VAEEstimator, default=None
        Prototype of the model, which is cloned and gets a seed drawn from `random_state`. None stands for
        ``VAEEstimator(hidden_layer_sizes=(64,), likelihood="normal", decoder="factorized")``.
    n_neighbors : int, default=5
        Number of nearest rows of its class, by the distance of their latent means, among which a row's partner is drawn.
    random_state : int, RandomState instance or None, default=None
        Seed of the fit and of the draws, which differ from class to class.

    Attributes
    ----------
    vae_ : VAEEstimator
        The model of the joint table: the columns of X, then the class as a number from 0.
    sampling_strategy_ : dict
        Number of rows to add, by class.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Their names, if the table had string names.

    See Also
    --------
    VAEAugmenter : Adds rows of all classes, or for regression.
    imblearn.over_sampling.SMOTE : Neighbours by the distance of the rows themselves; numbers only.

    Notes
    -----
    Let z_i be the mean of q(z | x_i, y_i). For a row i of the class, each as often as any other, and a partner j drawn from
    its `n_neighbors` nearest rows of the class by the distance of z_i and z_j, a new row is

    ``x = (1 - w) x_i + w x_j``, w uniform on [0, 1],

    the interpolation of SMOTE [1]_ along another neighbourhood. Categories and two-valued columns are not averaged: such a
    cell is that of row j with probability w, that of row i otherwise. Cells of integer columns are rounded. A class of a
    single row is repeated.

    A new row has missing cells where row i has: an imputer further down a pipeline then treats old and new rows alike, and
    missing cells do not tell which rows are new.

    Rows that the decoder draws at new z were tried first. With tens of rows of a class they spread too far, and they make
    worse training rows; the figures are on the page on choices.

    References
    ----------
    .. [1] Chawla, Bowyer, Hall & Kegelmeyer, "SMOTE: synthetic minority over-sampling technique", JAIR 16, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skvae.oversampling import VAEOverSampler
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> X, y = X[:100], y[:100]
    >>> X_new, y_new = VAEOverSampler(random_state=0).fit_resample(X, y)
    >>> y.value_counts().to_dict(), y_new.value_counts().to_dict()
    ({0: 65, 1: 35}, {0: 65, 1: 65})
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        **BaseOverSampler._parameter_constraints,
        "vae": [VAEEstimator, None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        sampling_strategy: float | str | dict[Any, int] | Callable[[np.ndarray], dict[Any, int]] = "auto",
        vae: VAEEstimator | None = None,
        n_neighbors: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.vae = vae
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def fit_resample(self, X: Rows, y: Rows) -> tuple[Rows, Rows]:
        """Add rows to the classes that lack them.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows; cells may be missing.
        y : array-like of shape (n_samples,)
            Their classes, of any dtype.

        Returns
        -------
        X_resampled : array-like, pandas or polars DataFrame of shape (n_samples_new, n_features)
            The rows of X as they are, then the new ones, in the container and the dtypes of X.
        y_resampled : array-like of shape (n_samples_new,)
            Their classes, in the container and the dtype of y.
        """
        self._validate_params()
        _check_target(target_as_array(y))
        check_classification_targets(y)
        table, labels, _ = self._check_X_y(X, y)
        self.sampling_strategy_ = _check_strategy(self.sampling_strategy, labels, self._sampling_type)

        values, first = self._fit_resample(table, labels)
        new_rows = _write(self.vae_, values, table, first)
        return stack(X, new_rows), stack(y, take(y, first))

    def _fit_resample(self, X: Table, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of the new rows, shape (n_new, n_features + 1), and the position of the row of X that each stems from."""
        classes, codes = np.unique(y, return_inverse=True)
        rng = check_random_state(self.random_state)

        prototype = self.vae
        if prototype is None:
            prototype = default_vae()

        self.vae_, joint = fit_joint(prototype, X, codes, is_class=True, rng=rng)
        joint_rows = _rows_between(self.vae_, joint)

        wanted = []
        for label, n in self.sampling_strategy_.items():
            wanted.append((n, np.flatnonzero(classes[codes] == label)))
        # where no class lacks rows, a draw of no row at all makes empty arrays of the right shape
        if not wanted:
            wanted.append((0, np.arange(len(y))))

        values = []
        first = []
        for n, rows in wanted:
            _warn_of_copies(n, rows, classes[codes])
            values_of_class, first_of_class = joint_rows.draw(n, rows, self.n_neighbors, rng)
            values.append(values_of_class)
            first.append(first_of_class)

        return np.concatenate(values), np.concatenate(first)

    def _check_X_y(self, X: Rows, y: Rows) -> tuple[Table, np.ndarray, bool]:
        labels = target_as_array(y)
        labels, one_vs_all = check_target_type(labels, indicate_one_vs_all=True)
        return _check_table(self, X, labels), np.asarray(labels), one_vs_all

    def __sklearn_tags__(self) -> Tags:
        return _table_tags(super().__sklearn_tags__())


def _warn_of_copies(n: int, rows: np.ndarray, labels: np.ndarray) -> None:
    """Warn if `n` new rows are to lie between the rows of a class, at some positions, that is a single one."""
    if n and len(rows) == 1:
        warnings.warn(
            f"Class {labels[rows[0]]} has a single row, between which and itself nothing lies: its {n} new rows are copies "
            f"of it. Give more rows of this class, or leave it out of sampling_strategy.",
            stacklevel=4,
        )


class VAEAugmenter(BaseSampler):
    """Augmentation by new rows, for classification and for regression.

    One VAE models X and y jointly, with y as one more column: a category if it holds classes, a number otherwise. Rows and
    their y are then drawn from it by `VAEEstimator.sample`. Classes keep their shares, on average; `VAEOverSampler` changes
    them.

    Parameters
    ----------
    n_samples : int or float, default=1.0
        Number of rows to add: an int is a count, a float a multiple of the number of rows of X.
    vae : VAEEstimator, default=None
        Prototype of the model, which is cloned and gets a seed drawn from `random_state`. None stands for
        ``VAEEstimator()``.
    target : {"auto", "class", "number"}, default="auto"
        What y holds. ``"auto"`` takes floats that are not all whole for numbers, everything else for classes; choose
        ``"number"`` for counts and other whole numbers.
    random_state : int, RandomState instance or None, default=None
        Seed of the fit and of the draws.

    Attributes
    ----------
    vae_ : VAEEstimator
        The model of the joint table: the columns of X, then y (a class as a number from 0).
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Their names, if the table had string names.

    See Also
    --------
    VAEOverSampler : Adds rows to the rarer classes.

    Notes
    -----
    New rows have no missing cells. Whether more rows help depends on the learner and the table: see the page on choices.

    Examples
    --------
    >>> from imblearn.pipeline import make_pipeline
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from skvae.oversampling import VAEAugmenter
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> X_new, y_new = VAEAugmenter(n_samples=0.5, random_state=0).fit_resample(X, y)
    >>> X.shape, X_new.shape, y_new.shape
    ((442, 10), (663, 10), (663,))
    >>> model = make_pipeline(VAEAugmenter(random_state=0), KNeighborsRegressor()).fit(X, y)  # adds rows in fit only
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's convention)
        "n_samples": [Interval(Integral, 1, None, closed="left"), Interval(Real, 0, None, closed="neither")],
        "vae": [VAEEstimator, None],
        "target": [StrOptions({"auto", "class", "number"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_samples: float = 1.0,
        *,
        vae: VAEEstimator | None = None,
        target: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_samples = n_samples
        self.vae = vae
        self.target = target
        self.random_state = random_state

    def fit(self, X: Rows, y: Rows) -> VAEAugmenter:
        """Check the table and its target; `fit_resample` does the work.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows; cells may be missing.
        y : array-like of shape (n_samples,)
            Their classes or numbers.

        Returns
        -------
        self : VAEAugmenter
        """
        self._validate_params()
        self._check_X_y(X, y)
        return self

    def fit_resample(self, X: Rows, y: Rows) -> tuple[Rows, Rows]:
        """Add rows.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows; cells may be missing.
        y : array-like of shape (n_samples,)
            Their classes or numbers.

        Returns
        -------
        X_resampled : array-like, pandas or polars DataFrame of shape (n_samples_new, n_features)
            The rows of X as they are, then the new ones, in the container and the dtypes of X.
        y_resampled : array-like of shape (n_samples_new,)
            Likewise for y.
        """
        self._validate_params()
        table, target = self._check_X_y(X, y)
        new_rows, drawn = self._fit_resample(table, target)

        # labels are taken from y itself, numbers take on its container and dtype
        if self._is_class(target):
            return stack(X, new_rows), stack(y, take(y, drawn))
        return stack(X, new_rows), stack(y, target_like(y, drawn))

    def _fit_resample(self, X: Table, y: np.ndarray) -> tuple[Table, np.ndarray]:
        """New rows like X, and for each its number, or the position of a row of its class."""
        rng = check_random_state(self.random_state)

        prototype = self.vae
        if prototype is None:
            prototype = VAEEstimator()

        if not self._is_class(y):
            self.vae_, _ = fit_joint(prototype, X, _as_numbers(y), is_class=False, rng=rng)
            return split(self.vae_.sample(self._n_new(y), random_state=rng))

        # `member` holds the position of one row of each class
        _, member, codes = np.unique(y, return_index=True, return_inverse=True)
        self.vae_, _ = fit_joint(prototype, X, codes, is_class=True, rng=rng)
        rows, drawn = split(self.vae_.sample(self._n_new(y), random_state=rng))
        return rows, member[drawn.astype(int)]

    def _n_new(self, y: np.ndarray) -> int:
        """Number of rows to add."""
        if isinstance(self.n_samples, Integral):
            return int(self.n_samples)

        # a share below half a row still adds a row
        return max(1, round(self.n_samples * len(y)))

    def _is_class(self, y: np.ndarray) -> bool:
        if self.target == "auto":
            return not type_of_target(y).startswith("continuous")

        return self.target == "class"

    def _check_X_y(self, X: Rows, y: Rows) -> tuple[Table, np.ndarray]:
        target = column_or_1d(target_as_array(y))
        _check_target(target)
        assert_all_finite(target, input_name="y")
        return _check_table(self, X, target), target

    def __sklearn_tags__(self) -> Tags:
        return _table_tags(super().__sklearn_tags__())


def default_vae() -> VAEEstimator:
    """The prototype of `VAEOverSampler` for ``vae=None``."""
    return VAEEstimator(hidden_layer_sizes=(64,), likelihood="normal", decoder="factorized")


# ----------------------------------------------------------------------------------------------------- checks of the input


def _check_strategy(strategy: Any, labels: np.ndarray, sampling_type: str) -> dict[Any, int]:
    """Number of rows to add to each class."""
    try:
        wanted = check_sampling_strategy(strategy, labels, sampling_type)
        return {label: operator.index(n) for label, n in wanted.items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"sampling_strategy={strategy!r} tells no whole number of rows by class ({error}). Give a dict of class to number "
            f"of rows, or a callable that returns one."
        ) from error


def _check_target(y: np.ndarray) -> None:
    """Raise a ValueError if a class or number is missing."""
    missing = [i for i, cell in enumerate(np.ravel(y)) if is_missing(cell)]
    if missing:
        raise ValueError(
            f"y is missing in {len(missing)} rows, the first of which is row {missing[0]}. Leave them out."
        )


def _check_table(sampler: BaseSampler, X: Rows, y: np.ndarray) -> Table:
    """X as the VAE reads it; the sampler learns the number and the names of its columns."""
    table = as_table(X)

    # the cells are checked already; this sets n_features_in_ and feature_names_in_
    validate_data(sampler, table, skip_check_array=True)
    check_consistent_length(table, y)

    return table


def _table_tags(tags: Tags) -> Tags:
    """Tags of a sampler that reads the tables that the VAE reads."""
    tags.input_tags.allow_nan = True
    tags.input_tags.string = True
    tags.input_tags.categorical = True
    tags.input_tags.sparse = False

    return tags


def _as_numbers(y: np.ndarray) -> np.ndarray:
    """The target as floats, ndarray of shape (n_samples,)."""
    try:
        return np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"target='number' cannot read y ({error}). Use target='class' for classes.") from error


# -------------------------------------------------------------------------------------------- the inside of a fitted VAE


def _rows_between(vae: VAEEstimator, joint: Table) -> RowsBetween:
    """The rows of a joint table, near each other where their latent means are."""
    kinds = [column.kind for column in vae._model().table.columns]

    return RowsBetween(
        values=vae._read(joint).astype(np.float64),
        points=vae.transform(joint),
        discrete=np.array([kind.is_discrete for kind in kinds]),
        counts=np.array([kind.is_count for kind in kinds]),
    )


def _write(vae: VAEEstimator, values: np.ndarray, table: Table, first: np.ndarray) -> Table:
    """New rows of X from the values of joint rows, each with the missing cells of the row of `table` it stems from."""
    observed = ~np.isnan(values[:, :-1])
    # keys of new rows are their own
    observed[:, vae._model().table.aside] = True

    # a number stands in for each missing cell while the cells become those of the table's dtypes
    fitted = vae._model().table
    joint = fitted.write(fitted.snap(np.where(np.isnan(values), 0.0, values)))
    rows, _ = split(joint)
    return where(observed, rows, take(table, first))
