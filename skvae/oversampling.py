"""Samplers for imbalanced-learn that draw new rows with a VAE. Imported by name only: it needs imbalanced-learn.

Both models are joint, of the table and its target y: y is one more column of the table that the VAE is fitted to.
"""

from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np
import torch
from imblearn.base import BaseSampler
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy, check_target_type
from sklearn.base import clone
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import _safe_indexing, assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from skvae.columns import as_table
from skvae.columns.tables import as_frame
from skvae.estimator import VAEEstimator
from skvae.generation import generate_in_order
from skvae.inference import ROWS_PER_CHUNK, generate

CANDIDATES = 5
"""Candidates drawn for each new row of a class; those that the model takes for the class most readily are kept."""

DISCRETE = ("categorical", "bernoulli")
"""Kinds whose cells are copied or redrawn, never averaged."""


class VAEOverSampler(BaseOverSampler):
    """Over-sampling of classes by a variational autoencoder.

    One VAE is fitted to all rows, their class being one more column, so that a class of few rows borrows from the rest what
    the table looks like. New rows of a class lie *between* rows of the class, as in SMOTE [1]_, but on the manifold that the
    VAE has learnt: latent points are interpolated, and each row keeps its own noise.

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
    imblearn.over_sampling.SMOTE : Interpolates the rows themselves.

    Notes
    -----
    Let z_i be the mean of q(z | x_i) and D(z, e) the row that the decoder gives at z with noise e. For a row i, a partner j
    among its nearest and w uniform on [0, 1], the new row lies at ``z = (1 - w) z_i + w z_j`` and is

    ``x = (1 - w) (x_i + D(z, e) - D(z_i, e)) + w (x_j + D(z, e) - D(z_j, e))``

    Each row moves as the model's row moves when z changes and its noise stays. Where the decoder is linear this is SMOTE. Flags
    and categories are taken from one of the two, or change where D does. Five times as many candidates as needed are made,
    and resampled by the probability p(class | z) that the decoder gives them.

    A new row has missing cells where row i has: an imputer further down the pipeline treats old and new rows alike, and the
    holes do not tell which rows are new. Cells stay within the range of their column.

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
        return _stack(X, _write(self.vae_, values, table, first)), _stack(y, _take(y, first))

    def _fit_resample(self, X, y):
        """Values of the new rows, shape (n_new, n_features + 1), and the row of X that each stems from."""
        classes, codes = np.unique(y, return_inverse=True)
        rng = check_random_state(self.random_state)
        joint = JointModel(self.vae, X, codes, is_class=True, rng=rng)
        self.vae_ = joint.vae
        drawn = [joint.nothing()]
        for label, n in self.sampling_strategy_.items():
            code = int(np.flatnonzero(classes == label)[0])
            drawn.append(joint.draw(n, np.flatnonzero(codes == code), self.n_neighbors, rng, code))
        return tuple(np.concatenate(parts) for parts in zip(*drawn, strict=True))

    def _check_X_y(self, X, y):
        labels, one_vs_all = check_target_type(_plain(y), indicate_one_vs_all=True)
        return _check_table(self, X, labels), np.asarray(labels), one_vs_all

    def __sklearn_tags__(self):
        return _table_tags(super().__sklearn_tags__())


class VAEAugmenter(BaseSampler):
    """Augmentation by new rows, for classification and for regression.

    One VAE models X and y jointly, y being one more column: a category if it holds classes, a number otherwise. New rows lie
    between neighbouring rows, as `VAEOverSampler` says; for classification both are of one class, whose share stays what it
    was, for regression y moves with the rest of the row.

    Parameters
    ----------
    n_samples : int or float, default=1.0
        Number of rows to add: an int is a count, a float a share of the rows there are.
    vae : VAEEstimator, default=None
        Prototype of the model, as in `VAEOverSampler`.
    target : {"auto", "class", "number"}, default="auto"
        What y holds. ``"auto"`` takes floats that are not all whole for numbers, everything else for classes: say ``"number"``
        for counts and other whole numbers.
    n_neighbors : int, default=5
        A row's partner is one of so many nearest rows, by the distance of their latent means.
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
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, n_samples=1.0, *, vae=None, target="auto", n_neighbors=5, random_state=None):
        self.n_samples = n_samples
        self.vae = vae
        self.target = target
        self.n_neighbors = n_neighbors
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
        values, first = self._fit_resample(table, target)
        new = _take(y, first) if self._is_class(target) else _numbers_like(y, values[:, -1])
        return _stack(X, _write(self.vae_, values, table, first)), _stack(y, new)

    def _fit_resample(self, X, y):
        """Values of the new rows, shape (n_new, n_features + 1), and the row of X that each stems from."""
        is_class = self._is_class(y)
        column = np.unique(y, return_inverse=True)[1] if is_class else _as_numbers(y)
        rng = check_random_state(self.random_state)
        joint = JointModel(self.vae, X, column, is_class=is_class, rng=rng)
        self.vae_ = joint.vae
        n = int(self.n_samples) if isinstance(self.n_samples, Integral) else max(1, round(self.n_samples * len(y)))
        if not is_class:
            return joint.draw(n, np.arange(len(y)), self.n_neighbors, rng)
        counts = np.bincount(column[_spread(np.arange(len(y)), n, rng)], minlength=column.max() + 1)
        drawn = [
            joint.draw(count, np.flatnonzero(column == code), self.n_neighbors, rng, code)
            for code, count in enumerate(counts)
        ]
        return tuple(np.concatenate(parts) for parts in zip(*drawn, strict=True))

    def _is_class(self, y):
        return self.target == "class" or (self.target == "auto" and not type_of_target(y).startswith("continuous"))

    def _check_X_y(self, X, y):
        target = column_or_1d(_plain(y))
        assert_all_finite(target, input_name="y")
        return _check_table(self, X, target), target

    def __sklearn_tags__(self):
        return _table_tags(super().__sklearn_tags__())


# ------------------------------------------------------------------------------------------------------------ the model


class JointModel:
    """A VAE of a table and its target, and rows drawn between rows.

    Parameters
    ----------
    prototype : VAEEstimator or None
    table : array (as `as_table` returns it), pandas or polars DataFrame of shape (n_samples, n_features)
    target : ndarray of shape (n_samples,)
        Codes of classes, or numbers.
    is_class : bool
    rng : RandomState

    Attributes
    ----------
    vae : VAEEstimator
    values : ndarray of float64 of shape (n_samples, n_features + 1)
        The joint table as numbers, the target last; NaN where a cell is missing.
    z_mean : ndarray of shape (n_samples, latent_dim)
    """

    def __init__(self, prototype, table, target, *, is_class, rng):
        joint, name = _join(table, target)
        self.vae = _default_vae() if prototype is None else clone(prototype)
        self.vae.set_params(random_state=int(rng.randint(np.iinfo(np.int32).max)))
        if is_class:
            categories = _with_column(self.vae.categorical_features, name, joint.shape[1] - 1)
            self.vae.set_params(categorical_features=categories)
        self.vae.fit(joint)
        self.values = self.vae._read(joint, reset=False).astype(np.float64)
        self.z_mean = self.vae.posterior(joint)[0].astype(np.float32)
        kinds = self.vae._table.kinds_
        self.discrete = np.isin(kinds, DISCRETE)
        self.counts = np.isin(kinds, ("poisson", "negative_binomial"))

    def nothing(self):
        """What `draw` returns for no rows."""
        return np.empty((0, self.values.shape[1])), np.empty(0, dtype=int)

    def draw(self, n, rows, n_neighbors, rng, code=None):
        """New rows between some of the table's.

        Parameters
        ----------
        n : int
            How many.
        rows : ndarray of int
            Positions of the rows between which they shall lie.
        n_neighbors : int
        rng : RandomState
        code : int, default=None
            The class that they shall have: candidates are resampled by its probability.

        Returns
        -------
        values : ndarray of shape (n, n_features + 1)
        first : ndarray of int of shape (n,)
            Position of the row that each stems from.
        """
        if not n:
            return self.nothing()
        first = _spread(rows, n if code is None else CANDIDATES * n, rng)
        second = _partners(self.z_mean, rows, first, n_neighbors, rng)
        weight = rng.uniform(size=(len(first), 1)).astype(np.float32)
        z = (1 - weight) * self.z_mean[first] + weight * self.z_mean[second]
        if code is not None:
            kept = _resample(np.exp(self.log_prob_of_class(z, code)), n, rng)
            first, second, weight, z = first[kept], second[kept], weight[kept], z[kept]
        seed = int(rng.randint(np.iinfo(np.int32).max))
        cells = self.cells(z, seed)
        ends = [self._moved(row, cells, seed) for row in (first, second)]
        values = _between(*ends, weight, self.discrete, rng)
        values[:, self.counts] = np.rint(values[:, self.counts])
        lowest, highest = (ufunc.reduce(self.values, axis=0) for ufunc in (np.fmin, np.fmax))  # NaN is passed over
        return np.clip(values, lowest, highest), first

    def cells(self, z, seed):
        """Values drawn from p(x | z), shape (n, n_features + 1); one seed is one noise."""
        z = torch.from_numpy(z).to(self.vae.module_.device)
        parts = generate(self.vae.module_, z, torch.Generator().manual_seed(seed))
        return self.vae._table.decode(parts.double().cpu().numpy())

    def _moved(self, rows, cells, seed):
        """Rows as they would be at the z of `cells`, which were drawn with `seed`, their own noise kept."""
        own, before = self.values[rows], self.cells(self.z_mean[rows], seed)
        return np.where(self.discrete, np.where(cells == before, own, cells), own + (cells - before))

    def log_prob_of_class(self, z, code):
        """Log probability of a class at z, shape (n,), in nats."""
        layout = self.vae._table.layout_
        given = torch.full((len(z), layout.n_columns), torch.nan)
        given[:, self.vae._table.parts_.index(("categorical", self.values.shape[1] - 1))] = code
        given = given.to(self.vae.module_.device)
        z = torch.from_numpy(z).to(given)
        chunks = zip(z.split(ROWS_PER_CHUNK), given.split(ROWS_PER_CHUNK), strict=True)
        log_probs = [generate_in_order(self.vae.module_, *chunk, None, cells)[1] for *chunk, cells in chunks]
        return torch.cat(log_probs).cpu().numpy()


def _default_vae():
    return VAEEstimator(hidden_layer_sizes=(64,), likelihood="normal", decoder="factorized")


def _spread(rows, n, rng):
    """`n` of the rows, each as often as any other, plus or minus one; ndarray of int of shape (n,)."""
    return np.concatenate([np.tile(rows, n // len(rows)), rng.choice(rows, n % len(rows), replace=False)])


def _partners(points, rows, first, n_neighbors, rng):
    """For each of the rows `first` one of its nearest among `rows`; itself if there is no other."""
    k = min(n_neighbors, len(rows) - 1)
    if not k:
        return first
    nearest = NearestNeighbors(n_neighbors=k).fit(points[rows]).kneighbors(return_distance=False)
    place = np.searchsorted(rows, first)  # rows are in order
    return rows[nearest[place, rng.randint(k, size=len(first))]]


def _resample(weights, n, rng):
    """Positions drawn by `weights` systematically (Kitagawa, 1996), ndarray of int of shape (n,)."""
    total = np.cumsum(weights, dtype=np.float64)
    return np.searchsorted(total, (rng.uniform() + np.arange(n)) / n * total[-1]).clip(max=len(weights) - 1)


def _between(a, b, weight, discrete, rng):
    """Cells at the share `weight`, shape (n, 1), of the way from `a` to `b`: averaged, or taken from one of the two.

    A cell that `a` lacks stays missing; one that only `b` lacks is a's.
    """
    b = np.where(np.isnan(b), a, b)
    chosen = np.where(rng.uniform(size=a.shape) < weight, b, a)
    return np.where(discrete, chosen, (1 - weight) * a + weight * b)


# ----------------------------------------------------------------------------------------------------------- containers


def _plain(y):
    """A list or a frame's column as an array."""
    return np.asarray(y) if hasattr(y, "to_numpy") or isinstance(y, list) else y


def _check_table(sampler, X, y):
    """X as the VAE reads it; the sampler learns the names of its columns."""
    table = as_table(_dense(X))
    validate_data(sampler, table, skip_check_array=True)
    check_consistent_length(table, y)
    return table


def _table_tags(tags):
    tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
    tags.input_tags.sparse = False
    return tags


def _dense(X):
    """A pandas frame with its sparse columns made dense; anything else as it is."""
    sparse = {name: dtype.subtype for name, dtype in _dtypes(X) if type(dtype).__name__ == "SparseDtype"}
    return X.astype(sparse) if sparse else X


def _dtypes(X):
    return X.dtypes.items() if hasattr(X, "dtypes") and hasattr(X, "iloc") else ()


def _join(table, target):
    """The table with the target as its last column, and that column's name (or index)."""
    frame = as_frame(table)
    if frame is None:
        return np.column_stack([table, target]), table.shape[1]
    name = "target" if all(isinstance(c, str) for c in frame.columns) else len(frame.columns)
    while name in frame.columns:
        name += "_" if isinstance(name, str) else 1
    frame = nw.maybe_reset_index(frame)
    column = nw.new_series(name, np.asarray(target), backend=nw.get_native_namespace(frame))
    return frame.with_columns(column).to_native(), name


def _with_column(categorical_features, name, index):
    """`categorical_features` of a table to which a categorical last column was added."""
    if categorical_features is None or isinstance(categorical_features, str):
        return [name]
    chosen = np.atleast_1d(np.asarray(categorical_features))
    return np.append(chosen, True) if chosen.dtype == bool else [*chosen.tolist(), name]


def _write(vae, values, table, first):
    """New rows of X from the values of joint rows, with the holes of the rows `first`."""
    known = ~np.isnan(values[:, :-1])
    written = vae._reader.write(np.where(np.isnan(values), 0.0, values))
    if as_frame(table) is None:
        return np.where(known, written[:, :-1], table[first])
    new, old = as_frame(written), nw.maybe_reset_index(as_frame(_take(table, first)))
    columns = [
        new[:, j] if known[:, j].all() else new[:, j].zip_with(_flags(known[:, j], new), old[:, j])
        for j in range(known.shape[1])
    ]
    return new[:, : len(columns)].with_columns(columns).to_native()


def _flags(mask, like):
    return nw.new_series("known", mask, nw.Boolean, backend=nw.get_native_namespace(like))


def _take(container, rows):
    return [container[i] for i in rows] if isinstance(container, list) else _safe_indexing(container, rows)


def _stack(old, new):
    """Rows of `new` below those of `old`, in the container and the dtypes of `old`."""
    if isinstance(old, list):
        return old + (new if isinstance(new, list) else new.tolist())
    native = nw.from_native(old, allow_series=True, pass_through=True)
    if native is old:
        old = np.asarray(old)
        new = np.asarray(new)
        return np.concatenate(
            [old, (np.rint(new) if old.dtype.kind in "iub" and new.dtype.kind == "f" else new).astype(old.dtype)]
        )
    library = nw.get_native_namespace(native)
    if hasattr(old, "iloc"):
        dtypes = old.dtypes if isinstance(native, nw.Series) else dict(old.dtypes)
        return library.concat([old, new.astype(dtypes)], ignore_index=True)
    return library.concat([old, new])


def _as_numbers(y):
    """The target as floats, shape (n_samples,)."""
    try:
        return np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"target='number' cannot read y ({error}). Use target='class' for classes.") from error


def _numbers_like(y, values):
    """Numbers as a list, an array or a frame's column like y."""
    native = nw.from_native(y, allow_series=True, pass_through=True)
    if native is y:
        return values.tolist() if isinstance(y, list) else values.reshape(-1, *np.shape(y)[1:])
    column = native[:, 0] if isinstance(native, nw.DataFrame) else native
    values = np.rint(values) if column.dtype.is_integer() else values
    column = nw.new_series(column.name, values, backend=nw.get_native_namespace(native)).cast(column.dtype)
    return (column.to_frame() if isinstance(native, nw.DataFrame) else column).to_native()
