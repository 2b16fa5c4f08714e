"""A container (array, pandas or polars frame) <-> a matrix of numbers, one column each, NaN where a cell is missing.

Numbers stay what they are, booleans become 0 and 1, times the whole number of ticks since their epoch, and categories the
position of their level among the levels seen at fit.
"""

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import check_array

_MIN_ROWS_IDENTIFIER = 20  # a shorter column may well hold as many texts as rows


class TableReader:
    """The learnt layout of a table: names, dtypes, and the levels of its categories.

    Attributes
    ----------
    template_ : DataFrame of 0 rows or None
        The container to give back; None stands for an array.
    names_ : list
        Column names, or positions for an array.
    levels_ : list of (list or None)
        Levels of each categorical column, in order; None for other columns.
    boolean_ : ndarray of bool of shape (n_features,)
        Columns of a boolean dtype.
    dtype_ : numpy dtype
        Float dtype of arrays given back.
    """

    def fit(self, X, *, categorical_features="from_dtype"):
        """Learn the layout and read the table.

        Parameters
        ----------
        X : ndarray (as `as_table` returns it), pandas or polars DataFrame of shape (n_samples, n_features)
        categorical_features : "from_dtype", None, or array-like of {bool, int, str}
            Which columns hold categories, as in `HistGradientBoostingClassifier`.

        Returns
        -------
        values : ndarray of float of shape (n_samples, n_features)
        """
        frame = as_frame(X)
        self.template_ = None if frame is None else frame.head(0).to_native()
        if frame is None:
            self.names_ = list(range(X.shape[1]))
            self.boolean_ = np.zeros(X.shape[1], dtype=bool)
            categorical = _mask(categorical_features, self.names_, [False] * X.shape[1])
            if X.dtype == object:
                categorical |= np.array([_holds_text(column) for column in X.T], dtype=bool)
            columns = [X[:, j] for j in range(X.shape[1])]
        else:
            self.names_ = frame.columns
            dtypes = list(frame.schema.values())
            self.boolean_ = np.array([dtype == nw.Boolean for dtype in dtypes], dtype=bool)
            categorical = _mask(categorical_features, self.names_, [_is_category(dtype) for dtype in dtypes])
            columns = [frame[:, j] for j in range(len(dtypes))]
        self.levels_ = [
            _levels(column, name) if flag else None
            for column, name, flag in zip(columns, self.labels_, categorical, strict=True)
        ]
        values = self._read_array(X, "error") if frame is None else self._read(columns, "error")
        floats = [X.dtype] if frame is None else [_numpy_float(dtype) for dtype in dtypes]
        self.dtype_ = np.dtype(np.float32 if all(dtype == np.float32 for dtype in floats) else np.float64)
        return values

    @property
    def labels_(self):
        """list of str : what error messages call the columns."""
        return [repr(name) if isinstance(name, str) else str(name) for name in self.names_]

    def read(self, X, handle_unknown="error"):
        """The matrix of a table with the columns of the one fitted; float32 if all of X is.

        Raises
        ------
        ValueError
            If a category holds a level not seen at fit and `handle_unknown` is ``"error"``; ``"ignore"`` reads NaN.
        """
        frame = as_frame(X)
        if frame is None:
            return self._read_array(X, handle_unknown)
        return self._read([frame[:, j] for j in range(len(frame.columns))], handle_unknown)

    def _read(self, columns, handle_unknown):
        return np.stack([self._read_one(column, j, handle_unknown) for j, column in enumerate(columns)], axis=1)

    def _read_array(self, X, handle_unknown):
        if X.dtype != object and all(levels is None for levels in self.levels_):  # finite numbers: nothing to copy
            return X
        return self._read([X[:, j] for j in range(X.shape[1])], handle_unknown)

    def _read_one(self, column, j, handle_unknown):
        """Values of column `j`, shape (n_samples,)."""
        label, levels = self.labels_[j], self.levels_[j]
        values = _numbers(column, label) if levels is None else _codes(column, levels, label, handle_unknown)
        if np.isinf(values).any():
            raise ValueError(
                f"Column {label} contains infinity or a value too large for {values.dtype}. Expected finite numbers; "
                f"replace it, or mark the cell as missing by NaN."
            )
        return values

    def read_cells(self, given):
        """One row, shape (1, n_features), that holds the cells of the dict `given` and NaN elsewhere."""
        row = np.full((1, len(self.names_)), np.nan)
        for name, value in given.items():
            if name not in self.names_:
                raise ValueError(
                    f"given names the column {name!r}, which the table does not have. Its columns are "
                    f"{', '.join(map(repr, self.names_[:8]))}{', ...' if len(self.names_) > 8 else ''}."
                )
            j = self.names_.index(name)
            if self.template_ is None:
                cell = np.array([value], dtype=object if self.levels_[j] is not None else np.float64)
            else:
                library = nw.get_native_namespace(self.template_)
                cell = nw.from_native(library.Series([value]), series_only=True)
                dtype = nw.from_native(self.template_).schema[name]
                if dtype.is_temporal():
                    cell = cell.cast(dtype)
            columns = self._read_one(cell, j, "error")
            if np.isnan(columns[0]):
                raise ValueError(f"given[{name!r}] is missing; expected a value of the column.")
            if self._is_integer(j) and columns[0] != np.rint(columns[0]):
                raise ValueError(f"given[{name!r}]={value!r}, but the column holds integers.")
            row[0, j] = columns[0]
        return row

    def _is_integer(self, j):
        if self.template_ is None or self.levels_[j] is not None:
            return False
        return list(nw.from_native(self.template_).schema.values())[j].is_integer()

    def write(self, values, like=None):
        """A container like the one fitted from `values` of shape (n_samples, n_features), without missing cells.

        Cells of the container `like` that are there are taken from it as they are.
        """
        written = self._write(values)
        if self.template_ is None or like is None:
            return written
        old, new = as_frame(like), nw.from_native(written)
        old = nw.maybe_reset_index(old)
        columns = [
            old[:, j].zip_with(~old[:, j].is_null(), new[:, j]) if old[:, j].dtype == new[:, j].dtype else new[:, j]
            for j in range(len(self.names_))
        ]
        filled = new.with_columns(columns).to_native()
        if hasattr(like, "index"):
            filled.index = like.index
        return filled

    def _write(self, values):
        if self.template_ is None:
            if all(levels is None for levels in self.levels_):
                return values.astype(self.dtype_)
            columns = [self._cells(values[:, j], j) for j in range(values.shape[1])]
            kinds = {np.asarray(column).dtype.kind for column in columns}
            return np.stack(
                [np.asarray(c, dtype=object if kinds - set("fiub") else self.dtype_) for c in columns], axis=1
            )
        columns = [self._cells(values[:, j], j) for j in range(values.shape[1])]
        return _write_frame(columns, self.template_)

    def _cells(self, column, j):
        if self.levels_[j] is None:
            return column
        levels = np.empty(len(self.levels_[j]), dtype=object)
        levels[:] = self.levels_[j]
        if not len(levels):  # no cell at fit: none to give back
            return np.full(len(column), None, dtype=object)
        return levels[np.clip(np.rint(column), 0, len(levels) - 1).astype(int)]


def as_frame(X):
    """X as a narwhals frame, or None if it is no frame."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def as_table(X):
    """A frame as it is, or a validated 2D array: of floats (float32 stays), or of objects if it holds text."""
    frame = as_frame(X)
    if frame is not None:
        if 0 in frame.shape:
            raise ValueError(f"Found a frame of shape {frame.shape}; expected at least one row and one column.")
        return X
    array = np.asarray(X) if isinstance(X, list | tuple) else X
    if getattr(array, "dtype", None) is not None and array.dtype.kind in "OUS":
        array = check_array(array.astype(object), dtype=None, ensure_all_finite=False)
        if any(_holds_text(column) for column in array.T):
            return array
    return check_array(array, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name="X")


def _holds_text(column):
    return any(isinstance(value, str) for value in column)


def _is_category(dtype):
    return dtype in (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Unknown)


def _mask(categorical_features, names, by_dtype):
    """Which columns hold categories, ndarray of bool of shape (n_features,)."""
    mask = np.array(by_dtype, dtype=bool)
    if categorical_features is None or isinstance(categorical_features, str):
        return mask
    chosen = np.atleast_1d(np.asarray(categorical_features))
    if chosen.dtype == bool:
        if len(chosen) != len(names):
            raise ValueError(
                f"categorical_features is a mask of {len(chosen)} columns, but the table has {len(names)}. Give one flag "
                f"per column, or the names or indices of the categorical ones."
            )
        return mask | chosen
    for column in np.atleast_1d(np.asarray(categorical_features, dtype=object)):
        j = names.index(column) if column in names else column
        if not isinstance(j, int | np.integer) or not -len(names) <= j < len(names):
            raise ValueError(
                f"categorical_features names the column {column!r}, but the table has {len(names)} columns "
                f"({', '.join(map(repr, names[:5]))}{', ...' if len(names) > 5 else ''}). Give names or indices of columns."
            )
        mask[j] = True
    return mask


def _objects(column):
    """The cells of a column as Python objects, None where missing."""
    if isinstance(column, nw.Series):
        missing = column.is_null().to_numpy()
        values = column.to_list()
    else:
        values = column.tolist()
        missing = [value is None for value in values]
    return [
        None if flag or (isinstance(value, float) and value != value) else value
        for value, flag in zip(values, missing, strict=True)
    ]


def _levels(column, label):
    """The levels of a categorical column, ordered as its dtype orders them, else sorted."""
    cells = [value for value in _objects(column) if value is not None]
    seen = set(cells)
    if len(cells) >= _MIN_ROWS_IDENTIFIER and len(seen) > len(cells) / 2 and any(isinstance(v, str) for v in seen):
        raise ValueError(
            f"Column {label} holds {len(seen)} distinct texts in {len(cells)} rows: it looks like an identifier or free "
            f"text, whose levels tell a model of rows nothing. Drop the column, or merge its levels into fewer."
        )
    if isinstance(column, nw.Series) and column.dtype in (nw.Categorical, nw.Enum):
        ordered = [level for level in column.cat.get_categories().to_list() if level in seen]
        if len(ordered) == len(seen):
            return ordered
    return sorted(seen, key=lambda level: (type(level).__name__, level))


def _codes(column, levels, label, handle_unknown):
    """Positions of the cells among `levels`, shape (n_samples,), NaN where missing (or unknown and ignored)."""
    index = {level: float(code) for code, level in enumerate(levels)}
    cells = _objects(column)
    if handle_unknown == "error":
        unknown = [value for value in cells if value is not None and value not in index]
        if unknown:
            raise ValueError(
                f"Column {label} holds {unknown[0]!r}, which is not among the {len(levels)} levels seen at fit "
                f"({', '.join(map(repr, levels[:5]))}{', ...' if len(levels) > 5 else ''}). Fit on rows with every level, "
                f"or set handle_unknown='ignore' to treat it as missing."
            )
    return np.array([index.get(value, np.nan) for value in cells])


def _numbers(column, label):
    """The cells of a column of numbers, booleans or times as floats, shape (n_samples,), NaN where missing."""
    if not isinstance(column, nw.Series):
        return column if column.dtype.kind == "f" else column.astype(np.float64)
    dtype = column.dtype
    if dtype in (nw.Datetime, nw.Date, nw.Duration, nw.Time):
        missing = column.is_null().to_numpy()
        ticks = np.full(len(column), np.nan)
        ticks[~missing] = column.drop_nulls().cast(nw.Int64).to_numpy()
        return ticks
    if dtype == nw.Float32:
        return column.to_numpy()
    try:
        return np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64)
    except Exception as error:
        raise ValueError(
            f"Column {label} of dtype {dtype} cannot be read as numbers ({error}). Expected numbers, booleans, times or "
            f"categories."
        ) from error


def _numpy_float(dtype):
    return np.float32 if dtype == nw.Float32 else np.float64


def _write_frame(columns, template):
    """A frame with the names, order, dtypes and library of `template`."""
    schema = nw.from_native(template).schema
    library = nw.get_native_namespace(template)
    columns = [_cast(column, dtype) for column, dtype in zip(columns, schema.values(), strict=True)]
    if library.__name__ == "pandas":
        series = {
            j: _pandas_series(library, column, dtype)
            for j, (column, dtype) in enumerate(zip(columns, template.dtypes, strict=True))
        }
        frame = library.DataFrame(series, index=range(len(columns[0])))
        frame.columns = template.columns
        return frame
    if library.__name__ == "polars":
        series = [
            library.Series(name, column.tolist() if column.dtype == object else column).cast(dtype)
            for name, column, dtype in zip(template.columns, columns, template.dtypes, strict=True)
        ]
        return library.DataFrame(series)
    return nw.from_dict(dict(zip(schema, columns, strict=True)), schema, backend=library).to_native()


def _pandas_series(library, column, dtype):
    if column.dtype == object and all(value is None for value in column):
        return library.Series([None] * len(column), dtype=dtype)
    if getattr(dtype, "tz", None) is not None:
        return library.Series(column.astype(f"datetime64[{dtype.unit}]")).dt.tz_localize("UTC").dt.tz_convert(dtype.tz)
    return library.Series(column).astype(dtype)


def _cast(column, dtype):
    """Values of shape (n_samples,) as `dtype` wants them: booleans by the nearer value, integers rounded and in range."""
    if column.dtype == object:
        return column
    if np.isnan(column).all() and not dtype.is_float():  # no cell at fit: none to give back
        return np.full(len(column), None, dtype=object)
    if dtype == nw.Boolean:
        return column > 0.5
    if dtype.is_integer():
        info = np.iinfo(str(dtype).lower())
        # float64 cannot hold the largest 64-bit integers: clip below them, then convert
        high = np.nextafter(float(info.max), 0) if info.bits == 64 else info.max
        return np.clip(np.rint(column), float(info.min), high).astype(info.dtype)
    if dtype in (nw.Datetime, nw.Date, nw.Duration, nw.Time):
        return np.rint(column).astype(np.int64)
    return column
