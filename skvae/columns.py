"""A table <-> the float matrix that the network reads and models.

Imports nothing else of the package: what a column *is* (its kind, its units, its dtype) is settled here, what it is
worth (its density) in :mod:`skvae.likelihoods`.
"""

from numbers import Integral

import narwhals.stable.v2 as nw
import numpy as np

KINDS = ("normal", "bernoulli")
"""The kinds of column, in the order in which the encoded matrix groups them."""

_CONSTANT = "constant"
_MIN_ROWS_TWO_VALUES = 10  # with fewer rows, two distinct values say nothing about the kind of a column


class TableEncoder:
    """The learnt map between a table and the matrix the network models.

    Every column is shifted and scaled to a common range: a ``"normal"`` column to mean 0 and deviation 1, a
    ``"bernoulli"`` column to 0 (its lower value) and 1 (its upper value). Columns of the same kind come to stand side by
    side. A constant column is remembered but not modelled: it tells rows nothing apart, and it has no density.

    Attributes
    ----------
    kinds_ : ndarray of str of shape (n_features,)
        The kind of each column of the table, or ``"constant"``.
    location_, scale_ : ndarray of shape (n_features,)
        A cell ``x`` is encoded as ``(x - location) / scale``, in float64.
    order_ : ndarray of int
        The table's columns in the order of the encoded matrix, constant ones left out.
    names_ : list of str
        What error messages call the columns.
    """

    def fit(self, X, container, *, likelihood="auto", sample_weight=None):
        """Learn kinds, locations and scales.

        Parameters
        ----------
        X : ndarray of float of shape (n_samples, n_features)
            The validated, finite values.
        container : object
            What the user passed; its type, column names and dtypes are what `decode` gives back.
        likelihood : {"auto", "normal", "bernoulli"} or dict of str to columns, default="auto"
            The kind of every column, or of the columns named; the rest of a dict is ``"auto"``.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows in the mean and the deviation.

        Returns
        -------
        self : TableEncoder
        """
        frame = nw.from_native(container, eager_only=True, pass_through=True)
        is_frame = isinstance(frame, nw.DataFrame)
        self.template_ = frame.head(0).to_native() if is_frame else None
        self.dtype_ = X.dtype
        names = list(self.template_.columns) if is_frame else range(X.shape[1])
        self.names_ = [repr(name) if isinstance(name, str) else str(name) for name in names]
        boolean = [dtype == nw.Boolean for dtype in frame.schema.values()] if is_frame else [False] * X.shape[1]
        asked = _kinds_asked(likelihood, list(names), X.shape[1])
        self.kinds_ = np.array(
            [_kind(column, kind, flag) for column, kind, flag in zip(X.T, asked, boolean, strict=True)], dtype=object
        )
        ranges = [_range(column, kind, sample_weight) for column, kind in zip(X.T, self.kinds_, strict=True)]
        self.location_, self.scale_ = np.array(ranges, dtype=np.float64).reshape(-1, 2).T
        self.order_ = np.concatenate([np.flatnonzero(self.kinds_ == kind) for kind in KINDS])
        return self

    @property
    def counts_(self):
        """dict of str to int : how many columns of each kind the encoded matrix has, in order; no kind with none."""
        return {kind: int(np.sum(self.kinds_ == kind)) for kind in KINDS if kind in self.kinds_}

    @property
    def log_scale_(self):
        """float : the log-Jacobian of decoding, in nats: ``log p(row) = log p(encoded row) - log_scale_``."""
        return float(np.log(self.scale_[self.kinds_ == "normal"]).sum())

    def encode(self, X):
        """Encode validated values.

        Parameters
        ----------
        X : ndarray of float of shape (n_samples, n_features)

        Returns
        -------
        encoded : ndarray of shape (n_samples, n_modelled), dtype of `X`

        Raises
        ------
        ValueError
            If a ``"bernoulli"`` column holds a value outside the two learnt at fit.
        """
        encoded = np.empty((X.shape[0], len(self.order_)), dtype=X.dtype)
        for target, source in enumerate(self.order_):  # one column at a time: no float64 copy of the whole table
            encoded[:, target] = (X[:, source].astype(np.float64) - self.location_[source]) / self.scale_[source]
            if self.kinds_[source] == "bernoulli":
                self._check_bernoulli(X[:, source], encoded[:, target], source)
        return encoded

    def decode(self, encoded):
        """Take encoded (modelled or drawn) values back to the units and the container of the training table.

        Parameters
        ----------
        encoded : ndarray of shape (n_samples, n_modelled)

        Returns
        -------
        X : ndarray, pandas.DataFrame or polars.DataFrame of shape (n_samples, n_features)
        """
        values = np.tile(self.location_, (encoded.shape[0], 1))
        values[:, self.order_] += encoded * self.scale_[self.order_]
        if self.template_ is None:
            return values.astype(self.dtype_)
        return _to_frame(values, self.template_)

    def check_constant(self, X):
        """Raise if a column that was constant when the model was built no longer is: it has no place in the network."""
        for j in np.flatnonzero(self.kinds_ == _CONSTANT):
            if np.any(X[:, j] != self.location_[j]):
                raise ValueError(
                    f"Column {self.names_[j]} was constant ({self.location_[j]:g}) in the rows the model was built on, "
                    f"so it is not part of it, but now it holds other values. Start from rows in which it varies."
                )

    def _check_bernoulli(self, raw, encoded, j):
        outside = (encoded < -1e-6) | (encoded > 1 + 1e-6)
        if outside.any():
            low, high = self.location_[j], self.location_[j] + self.scale_[j]
            raise ValueError(
                f"Column {self.names_[j]} is modelled as 'bernoulli' with values from {low:g} to {high:g}, as seen at "
                f"fit, but got {raw[outside][0]:g}. Fit on rows with every value, or model it as 'normal' with "
                f"likelihood={{'normal': [{self.names_[j]}]}}."
            )
        np.clip(encoded, 0, 1, out=encoded)


def _kinds_asked(likelihood, names, n_features):
    """The kind asked for each column, ``"auto"`` included, as a list of length n_features."""
    if isinstance(likelihood, str):
        return [likelihood] * n_features
    asked = ["auto"] * n_features
    for kind, columns in likelihood.items():
        if kind not in KINDS:
            raise ValueError(f"likelihood has the kind {kind!r}; expected one of {', '.join(map(repr, KINDS))}.")
        for column in [columns] if isinstance(columns, str | Integral) else columns:
            j = names.index(column) if column in names else column
            if not isinstance(j, Integral) or not -n_features <= j < n_features:
                raise ValueError(
                    f"likelihood={{{kind!r}: ...}} names the column {column!r}, but the table has {n_features} columns "
                    f"({', '.join(map(repr, names[:5]))}{', ...' if n_features > 5 else ''}). Give a column's name or "
                    f"its index."
                )
            if asked[j] != "auto":
                raise ValueError(f"likelihood names the column {column!r} twice, as {asked[j]!r} and as {kind!r}.")
            asked[j] = kind
    return asked


def _kind(column, asked, boolean):
    """The kind of one column, shape (n_samples,): as asked, or by what it holds."""
    low, high = column.min(), column.max()
    if asked == "bernoulli" or (asked == "auto" and boolean):
        return "bernoulli"
    # Rounding noise of a constant is not variation.
    if high - low <= 8 * np.finfo(column.dtype).eps * max(abs(low), abs(high)):
        return _CONSTANT
    if asked != "auto":
        return asked
    two_valued = len(column) >= _MIN_ROWS_TWO_VALUES and np.all((column == low) | (column == high))
    return "bernoulli" if two_valued else "normal"


def _range(column, kind, sample_weight):
    """Location and scale of one column of shape (n_samples,), safe from overflow at any magnitude."""
    low, high = float(column.min()), float(column.max())
    if kind == _CONSTANT:
        return low, 1.0
    if kind == "bernoulli":
        return (0.0, 1.0) if low >= 0 and high <= 1 else (low, (high - low) or 1.0)
    unit = max(abs(low), abs(high))
    scaled = column.astype(np.float64) / unit
    mean = np.average(scaled, weights=sample_weight)
    deviation = np.sqrt(np.average((scaled - mean) ** 2, weights=sample_weight))
    return mean * unit, max(deviation * unit, np.finfo(np.float64).tiny)


def _to_frame(values, template):
    """A frame like `template` (names, order, dtypes, library) with float `values`, integers rounded."""
    schema = nw.from_native(template).schema
    library = nw.get_native_namespace(template)
    columns = [_cast(values[:, j], dtype) for j, dtype in enumerate(schema.values())]
    if nw.get_native_namespace(template).__name__ == "pandas":
        series = {
            j: library.Series(column).astype(dtype)
            for j, (column, dtype) in enumerate(zip(columns, template.dtypes, strict=True))
        }
        frame = library.DataFrame(series, index=range(len(values)))
        frame.columns = template.columns
        return frame
    if library.__name__ == "polars":
        return library.DataFrame(dict(zip(template.columns, columns, strict=True)), schema=template.schema)
    return nw.from_dict(dict(zip(schema, columns, strict=True)), schema, backend=library).to_native()


def _cast(column, dtype):
    """Values of shape (n_samples,) as `dtype` wants them: booleans by the nearer value, integers rounded and in range."""
    if dtype == nw.Boolean:
        return column > 0.5
    if dtype.is_integer():
        info = np.iinfo(str(dtype).lower())
        rounded = np.rint(column)
        # float64 cannot hold the largest 64-bit integers: clip below them, then convert
        return np.clip(rounded, float(info.min), np.nextafter(float(info.max), 0)).astype(info.dtype)
    return column
