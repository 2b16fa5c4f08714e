"""Samplers for imbalanced-learn: new rows between rows that a VAE finds alike.

Imported by name only, as it needs imbalanced-learn. The VAE is fitted to the joint table: X, and the target as one more
column.
"""

from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np
from imblearn.base import BaseSampler
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy, check_target_type
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from skvae.estimator import VAEEstimator
from skvae.table import as_table
from skvae.table.containers import as_frame
from skvae.table.joint import dense, join, numbers_like, plain, split, stack, take

DISCRETE = ("categorical", "bernoulli")
"""Kinds of column whose cells are taken from one row or another, never averaged."""

COUNTS = ("poisson", "negative_binomial")


class VAEOverSampler(BaseOverSampler):
    """Over-sampling of classes in the latent space of a variational autoencoder.

    One VAE is fitted to all rows, their class being one more column. It says which rows of a class are alike: a class of
    twenty rows borrows from all others what the table's columns have to do with each other. New rows lie between rows that
    are neighbours there.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default="auto"
        How many rows each class shall have: as in every over-sampler of imbalanced-learn. ``"auto"`` makes all classes as
        frequent as the most frequent one.
    vae : VAEEstimator, default=None
        Prototype of the model; it is cloned, and gets a seed drawn from `random_state`. None is
        ``VAEEstimator(hidden_layer_sizes=(64,), likelihood="normal", decoder="factorized")``.
    n_neighbors : int, default=5
        A row's partner is one of so many nearest rows of its class, by the distance of their latent means.
    random_state : int, RandomState instance or None, default=None
        Seed of the fit and of the draws; each class has draws of its own.

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
    holes do not tell which rows are new.

    The rows that the decoder draws at new z were tried first. With tens of rows of a class they spread too far, and they are
    the worse training rows; the figures are on the page on choices.

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

    def __init__(self, *, sampling_strategy="auto", vae=None, n_neighbors=5, random_state=None):
        super().__init__(sampling_strategy=sampling_strategy)
        self.vae = vae
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def fit_resample(self, X, y):
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
        check_classification_targets(y)
        table, labels, _ = self._check_X_y(X, y)
        self.sampling_strategy_ = check_sampling_strategy(self.sampling_strategy, labels, self._sampling_type)
        values, first = self._fit_resample(table, labels)
        return stack(X, _write(self.vae_, values, table, first)), stack(y, take(y, first))

    def _fit_resample(self, X, y):
        """Values of the new rows, shape (n_new, n_features + 1), and the row of X that each stems from."""
        classes, codes = np.unique(y, return_inverse=True)
        rng = check_random_state(self.random_state)
        self.vae_, table = fit_joint(self.vae or default_vae(), X, codes, is_class=True, rng=rng)
        joint = RowsBetween(self.vae_, table)
        wanted = [(n, np.flatnonzero(classes[codes] == label)) for label, n in self.sampling_strategy_.items()]
        drawn = [joint.draw(n, rows, self.n_neighbors, rng) for n, rows in wanted]
        drawn = drawn or [joint.draw(0, np.arange(len(y)), self.n_neighbors, rng)]
        return tuple(np.concatenate(parts) for parts in zip(*drawn, strict=True))

    def _check_X_y(self, X, y):
        labels, one_vs_all = check_target_type(plain(y), indicate_one_vs_all=True)
        return _check_table(self, X, labels), np.asarray(labels), one_vs_all

    def __sklearn_tags__(self):
        return _table_tags(super().__sklearn_tags__())


class VAEAugmenter(BaseSampler):
    """Augmentation by new rows, for classification and for regression.

    One VAE models X and y jointly, y being one more column: a category if it holds classes, a number otherwise. Rows and
    their y are then drawn from it, as by `VAEEstimator.sample`. Classes keep their shares, on average; `VAEOverSampler`
    changes them.

    Parameters
    ----------
    n_samples : int or float, default=1.0
        Number of rows to add: an int is a count, a float a share of the rows there are.
    vae : VAEEstimator, default=None
        Prototype of the model; it is cloned, and gets a seed drawn from `random_state`. None is ``VAEEstimator()``.
    target : {"auto", "class", "number"}, default="auto"
        What y holds. ``"auto"`` takes floats that are not all whole for numbers, everything else for classes: say ``"number"``
        for counts and other whole numbers.
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

    def __init__(self, n_samples=1.0, *, vae=None, target="auto", random_state=None):
        self.n_samples = n_samples
        self.vae = vae
        self.target = target
        self.random_state = random_state

    def fit(self, X, y):
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

    def fit_resample(self, X, y):
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
        rows, new = self._fit_resample(table, target)
        new = take(y, new) if self._is_class(target) else numbers_like(y, new)
        return stack(X, rows), stack(y, new)

    def _fit_resample(self, X, y):
        """New rows like X, and their y: numbers, or the positions of rows of their class."""
        is_class, rng = self._is_class(y), check_random_state(self.random_state)
        n = int(self.n_samples) if isinstance(self.n_samples, Integral) else max(1, round(self.n_samples * len(y)))
        if is_class:
            _, member, column = np.unique(y, return_index=True, return_inverse=True)
        else:
            column = _as_numbers(y)
        self.vae_, _ = fit_joint(
            VAEEstimator() if self.vae is None else self.vae, X, column, is_class=is_class, rng=rng
        )
        rows, drawn = split(self.vae_.sample(n, random_state=rng))
        return rows, member[drawn.astype(int)] if is_class else drawn

    def _is_class(self, y):
        return self.target == "class" or (self.target == "auto" and not type_of_target(y).startswith("continuous"))

    def _check_X_y(self, X, y):
        target = column_or_1d(plain(y))
        assert_all_finite(target, input_name="y")
        return _check_table(self, X, target), target

    def __sklearn_tags__(self):
        return _table_tags(super().__sklearn_tags__())


# ------------------------------------------------------------------------------------------------------------ the model


def fit_joint(prototype, table, target, *, is_class, rng):
    """A clone of the prototype fitted to a table and its target, side by side, and that joint table.

    Parameters
    ----------
    prototype : VAEEstimator
    table : array (as `as_table` returns it), pandas or polars DataFrame of shape (n_samples, n_features)
    target : ndarray of shape (n_samples,)
        Codes of classes, or numbers.
    is_class : bool
    rng : RandomState

    Returns
    -------
    vae : VAEEstimator
    joint : array or DataFrame of shape (n_samples, n_features + 1)
    """
    joint, name = join(table, target)
    vae = clone(prototype).set_params(random_state=int(rng.randint(np.iinfo(np.int32).max)))
    if is_class:
        vae.set_params(categorical_features=_with_column(vae.categorical_features, name))
    return vae.fit(joint), joint


class RowsBetween:
    """Rows drawn between rows of a joint table.

    Parameters
    ----------
    vae : VAEEstimator
        Fitted to it.
    joint : array or DataFrame of shape (n_samples, n_features + 1)
    """

    def __init__(self, vae, joint):
        self.values = vae._read(joint).astype(np.float64)
        self.z_mean = vae.transform(joint)
        self._discrete = np.array([c.kind.is_discrete for c in vae._fitted.table.columns])
        self._counts = np.array([c.kind.is_count for c in vae._fitted.table.columns])

    def draw(self, n, rows, n_neighbors, rng):
        """New rows between some of the table's.

        Parameters
        ----------
        n : int
            How many.
        rows : ndarray of int
            Positions, in order, of the rows between which they shall lie.
        n_neighbors : int
        rng : RandomState

        Returns
        -------
        values : ndarray of shape (n, n_features + 1)
        first : ndarray of int of shape (n,)
            Position of the row that each stems from.
        """
        first = spread(rows, n, rng)
        second = partners(self.z_mean, rows, first, n_neighbors, rng)
        values = between(self.values[first], self.values[second], self._discrete, rng)
        values[:, self._counts] = np.rint(values[:, self._counts])
        return values, first


def default_vae():
    """The prototype that stands for ``vae=None``."""
    return VAEEstimator(hidden_layer_sizes=(64,), likelihood="normal", decoder="factorized")


def spread(rows, n, rng):
    """`n` of the rows, each as often as any other, plus or minus one; ndarray of int of shape (n,)."""
    return np.concatenate([np.tile(rows, n // len(rows)), rng.choice(rows, n % len(rows), replace=False)])


def partners(points, rows, first, n_neighbors, rng):
    """For each of the rows `first` one of its nearest among `rows`; itself if there is no other."""
    k = min(n_neighbors, len(rows) - 1)
    if not k:
        return first
    nearest = NearestNeighbors(n_neighbors=k).fit(points[rows]).kneighbors(return_distance=False)
    place = np.searchsorted(rows, first)  # rows are in order
    return rows[nearest[place, rng.randint(k, size=len(first))]]


def between(a, b, discrete, rng):
    """Rows somewhere between those of `a` and those of `b`.

    Parameters
    ----------
    a, b : ndarray of shape (n, n_columns)
        NaN where a cell is missing.
    discrete : ndarray of bool of shape (n_columns,)
        The columns whose cells are taken from one of the two rather than averaged.
    rng : RandomState

    Returns
    -------
    values : ndarray of shape (n, n_columns)
        ``(1 - w) a + w b`` with one w uniform on [0, 1] for each row; discrete cells are b's with probability w. What `a`
        lacks stays missing, what only `b` lacks is a's.
    """
    b = np.where(np.isnan(b), a, b)
    weight = rng.uniform(size=(len(a), 1))
    chosen = np.where((rng.uniform(size=a.shape) < weight) & ~np.isnan(a), b, a)
    return np.where(discrete, chosen, a + weight * (b - a))


# ------------------------------------------------------------------------------------------------------- checks, writing


def _check_table(sampler, X, y):
    """X as the VAE reads it; the sampler learns the names of its columns."""
    table = as_table(dense(X))
    validate_data(sampler, table, skip_check_array=True)
    check_consistent_length(table, y)
    return table


def _table_tags(tags):
    tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
    tags.input_tags.sparse = False
    return tags


def _with_column(categorical_features, name):
    """`categorical_features` of a table to which a categorical last column was added."""
    if categorical_features is None or isinstance(categorical_features, str):
        return [name]
    chosen = np.atleast_1d(np.asarray(categorical_features))
    return np.append(chosen, True) if chosen.dtype == bool else [*chosen.tolist(), name]


def _as_numbers(y):
    """The target as floats, shape (n_samples,)."""
    try:
        return np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"target='number' cannot read y ({error}). Use target='class' for classes.") from error


def _write(vae, values, table, first):
    """New rows of X from the values of joint rows, with the holes of the rows `first`."""
    known = ~np.isnan(values[:, :-1])
    written = vae._fitted.table.write(np.where(np.isnan(values), 0.0, values))
    if as_frame(table) is None:
        return np.where(known, written[:, :-1], table[first])
    new, old = as_frame(written), nw.maybe_reset_index(as_frame(take(table, first)))
    columns = [
        new[:, j] if known[:, j].all() else new[:, j].zip_with(_flags(known[:, j], new), old[:, j])
        for j in range(known.shape[1])
    ]
    return new[:, : len(columns)].with_columns(columns).to_native()


def _flags(mask, like):
    return nw.new_series("known", mask, nw.Boolean, backend=nw.get_native_namespace(like))
