"""A matrix of column values <-> the matrix the network reads and models: kinds, scales, one-hot levels, missing cells.

A column of the table becomes one *part* of an encoded row, or two: a ``"quantile_normal"`` column has a categorical part
(which spike it is, or none) and a normal one (its score, where it is no spike).
"""

from numbers import Integral

import numpy as np

from skvae.table.exposure import COUNTS, Exposure, check_positive, check_there, exposure_column, order_of_columns
from skvae.table.layout import Layout
from skvae.table.quantiles import QuantileMap, decode_part, in_units

PART_KINDS = ("poisson", "negative_binomial", "normal", "bernoulli", "categorical")
"""The kinds of part, in the order in which an encoded row groups them."""

KINDS = (*PART_KINDS, "quantile_normal")
"""The kinds of column."""

ROWS_FOR_QUANTILES = 1000
"""``likelihood="auto"`` models numbers as ``"quantile_normal"`` from so many rows on, as ``"normal"`` below."""

_ROWS_AT_ONCE = 4096
_CONSTANT = "constant"
_MIN_ROWS_TWO_VALUES = 10  # with fewer rows, two distinct values say nothing about the kind of a column


class TableEncoder:
    """The learnt map between a matrix of values, NaN where missing, and encoded rows.

    Every number is shifted and scaled to a common range: a ``"normal"`` column to mean 0 and deviation 1, a
    ``"bernoulli"`` column to 0 (its lower value) and 1 (its upper value). A constant column is remembered but not modelled:
    it tells rows nothing apart, and it has no density.

    Attributes
    ----------
    kinds_ : ndarray of str of shape (n_features,)
        The kind of each column, or ``"constant"``.
    location_, scale_ : ndarray of shape (n_features,)
        A number ``x`` is encoded as ``(x - location) / scale``, in float64; a count as ``(log(1 + x) - location) / scale``.
    maps_ : list of (QuantileMap or None)
        Of each ``"quantile_normal"`` column.
    parts_ : list of (str, int)
        Kind and column of each part, in the order of an encoded row; constant columns have none.
    layout_ : Layout
        Where what stands in an encoded row.
    """

    def fit(self, values, *, labels, levels, boolean, names, likelihood="auto", exposure=None, sample_weight=None):
        """Learn kinds, locations and scales.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            NaN where a cell is missing.
        labels, names : list of length n_features
            What error messages, and what `likelihood`, call the columns.
        levels : list of (list or None)
            Levels of the categorical columns, whose values are positions among them.
        boolean : ndarray of bool of shape (n_features,)
        likelihood : str or dict of str to columns, default="auto"
            The kind of every column that is not categorical, or of the columns named; the rest of a dict is ``"auto"``.
        exposure : str or int, default=None
            The column that the counts are in proportion to, by name or index.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows in the mean and the deviation.

        Returns
        -------
        self : TableEncoder
        """
        self.labels_ = labels
        if np.isnan(values).all():
            raise ValueError(
                f"All {values.size} cells of X are missing (NaN); expected at least one value to learn from."
            )
        asked = _kinds_asked(likelihood, names, levels)
        j_exposure = exposure_column(exposure, names, levels, asked, likelihood)
        columns = list(zip(values.T, asked, levels, boolean, labels, strict=True))
        self.kinds_ = np.array([_kind(*column) for column in columns], dtype=object)
        weight = np.ones(len(values)) if sample_weight is None else sample_weight
        two_valued = [kind == "auto" for kind in asked]  # fractions between 0 and 1 only where they were announced
        columns = zip(values.T, self.kinds_, two_valued, strict=True)
        ranges = [_range(column, kind, ends, weight) for column, kind, ends in columns]
        self.location_, self.scale_ = np.array(ranges, dtype=np.float64).reshape(-1, 2).T
        self.maps_ = [
            QuantileMap().fit(column[~np.isnan(column)], weight[~np.isnan(column)])
            if kind == "quantile_normal"
            else None
            for column, kind in zip(values.T, self.kinds_, strict=True)
        ]
        parts = [part for j in order_of_columns(self.kinds_, j_exposure) for part in self._parts_of(j)]
        self.parts_ = sorted(
            parts, key=lambda part: PART_KINDS.index(part[0])
        )  # stable: the table's order within a kind
        has_missing = np.isnan(values).any(0)
        kinds = [kind for kind, _ in self.parts_]
        place = {part: i for i, part in enumerate(parts)}
        self.layout_ = Layout(
            kinds=tuple((kind, kinds.count(kind)) for kind in PART_KINDS if kind in kinds),
            n_levels=tuple(
                len(levels[j]) if self.maps_[j] is None else self.maps_[j].n_levels_
                for kind, j in self.parts_
                if kind == "categorical"
            ),
            n_ordered=tuple(
                0 if self.maps_[j] is None else len(self.maps_[j].spikes_)
                for kind, j in self.parts_
                if kind == "categorical"
            ),
            flagged=tuple(
                i
                for i, (kind, j) in enumerate(self.parts_)
                if kind != "categorical" and (has_missing[j] or ("categorical", j) in place)
            ),
            rank=tuple(place[part] for part in self.parts_),
            gate=tuple(
                self.parts_.index(("categorical", j)) if kind == "normal" and ("categorical", j) in place else -1
                for kind, j in self.parts_
            ),
            count_scales=tuple(
                (float(self.location_[j]), float(self.scale_[j])) for kind, j in self.parts_ if kind in COUNTS
            ),
            exposure=None if j_exposure is None else self._learn_exposure(values, j_exposure, weight),
        )
        return self

    @property
    def linear_parts(self):
        """set of int : the number parts whose mean is the mean of the column's values."""
        return {i for i, (kind, j) in enumerate(self.parts_) if kind in ("normal", *COUNTS) and kind == self.kinds_[j]}

    def _parts_of(self, j):
        """Kind and column of the parts of column `j`."""
        if self.kinds_[j] != "quantile_normal":
            return [] if self.kinds_[j] == _CONSTANT else [(self.kinds_[j], j)]
        spikes = [("categorical", j)] if self.maps_[j].n_levels_ else []
        return spikes + ([("normal", j)] if self.maps_[j].has_rest_ else [])

    def _learn_exposure(self, values, j, weight):
        """The `Exposure` in column `j`."""
        column = values[:, j].astype(np.float64)
        check_positive(column, self.labels_[j])
        there = ~np.isnan(column)
        if not there.any():
            raise ValueError(f"Column {self.labels_[j]} is the exposure of the counts, but all its cells are missing.")
        largest = column[there].max()
        return Exposure(
            column=j,
            parts=tuple((i, kind) for i, (kind, owner) in enumerate(self.parts_) if owner == j),
            location=float(self.location_[j]),
            scale=float(self.scale_[j]),
            quantiles=self.maps_[j],
            smallest=float(column[there].min()),
            log_mean=float(np.log(largest) + np.log(np.average(column[there] / largest, weights=weight[there]))),
        )

    def check_exposure(self, values, *, to_score):
        """Raise if an exposure is not positive or, `to_score` rows, is missing where there is a count."""
        exposure = self.layout_.exposure
        if exposure is not None:
            column, label = values[:, exposure.column], self.labels_[exposure.column]
            check_positive(column, label)
            if to_score:
                check_there(column, values[:, [j for kind, j in self.parts_ if kind in COUNTS]], label)

    def offsets(self, values):
        """Offsets of the counts, ndarray of shape (n_samples,), NaN where the exposure is missing; None without exposure."""
        exposure = self.layout_.exposure
        return None if exposure is None else exposure.offsets(values[:, exposure.column].astype(np.float64))

    def log_jacobian(self, values):
        """What decoding adds to a row's log density, ``log p(row) = log p(encoded row) + log_jacobian``, in nats."""
        total = np.zeros(len(values))
        for kind, j in self.parts_:
            if kind == "normal":
                there = self._there(values[:, j], j, kind)
                if self.maps_[j] is None:
                    total[there] -= np.log(self.scale_[j])
                else:
                    total[there] += self.maps_[j].score(values[there, j].astype(np.float64))[1]
        return total

    def known(self, values):
        """Which parts are there, ndarray of bool of shape (n_samples, n_parts)."""
        parts = [self._there(values[:, j], j, kind) for kind, j in self.parts_]
        return np.stack(parts, axis=1) if parts else np.empty((len(values), 0), dtype=bool)

    def _there(self, column, j, kind):
        """Where a part of column `j` is there: not missing, and no spike if the part is the rest beside the spikes."""
        there = ~np.isnan(column)
        if kind == "normal" and self.maps_[j] is not None and len(self.maps_[j].spikes_):
            there &= self.maps_[j].level(column.astype(np.float64)) == len(self.maps_[j].spikes_)
        return there

    def encode(self, values, dtype=None):
        """Encode values.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            NaN where a cell is missing.
        dtype : dtype, default=None
            Of the result; None is that of `values`.

        Returns
        -------
        encoded : ndarray of shape (n_samples, layout_.width)

        Raises
        ------
        ValueError
            If a cell cannot be of its column's kind.
        """
        encoded = np.zeros((len(values), self.layout_.width), dtype=dtype or values.dtype)
        if self.layout_.exposure is not None:
            encoded[:, self.layout_.offset] = np.nan_to_num(self.offsets(values))[:, None]
        for start in range(0, len(values), _ROWS_AT_ONCE):  # what is made on the way stays in the cache
            rows = slice(start, start + _ROWS_AT_ONCE)
            self._encode_into(encoded[rows], values[rows])
        return encoded

    def _encode_into(self, encoded, values):
        """`encode` into zeros."""
        layout = self.layout_
        level = layout.first_level
        for i, (kind, j) in enumerate(self.parts_):
            there = self._there(values[:, j], j, kind)
            column = values[there, j].astype(np.float64)
            if kind == "categorical":
                codes = column if self.maps_[j] is None else self.maps_[j].level(column)
                encoded[np.flatnonzero(there), level + codes.astype(int)] = 1
                level += layout.n_levels[i - layout.n_numbers]
            else:
                if kind in COUNTS:
                    _check_counts(column, self.labels_[j], kind)
                    encoded[there, i] = column
                encoded[there, layout.first_number + i] = self._number(column, j)
            if i in layout.flagged:
                encoded[:, layout.first_flag + layout.flagged.index(i)] = there

    def parts(self, values):
        """The parts of values as `decode` reads them, ndarray of shape (n_samples, n_parts), NaN where one is not there."""
        parts = np.full((len(values), len(self.parts_)), np.nan)
        for i, (kind, j) in enumerate(self.parts_):
            there = self._there(values[:, j], j, kind)
            column = values[there, j].astype(np.float64)
            if kind == "categorical":
                parts[there, i] = column if self.maps_[j] is None else self.maps_[j].level(column)
            else:
                parts[there, i] = column if kind in COUNTS else self._number(column, j)
        return parts

    def _number(self, column, j):
        """Values of column `j` on the network's scale, shape (n,)."""
        if self.maps_[j] is not None:
            return self.maps_[j].score(column)[0]
        raw = np.log1p(column) if self.kinds_[j] in COUNTS else column
        unit, location, scale = in_units(self.location_[j], self.scale_[j])
        scaled = (raw / unit - location) / scale
        return self._check_bernoulli(column, scaled, j) if self.kinds_[j] == "bernoulli" else scaled

    def decode(self, cells):
        """Modelled or drawn parts in the units of the table.

        Parameters
        ----------
        cells : ndarray of shape (n_samples, n_parts)
            Standardised numbers, scores, counts, and positions of levels.

        Returns
        -------
        values : ndarray of float64 of shape (n_samples, n_features)
        """
        values = np.tile(self.location_, (len(cells), 1))
        for i, (kind, j) in enumerate(self.parts_):
            decode_part(values[:, j], cells[:, i], kind, self.location_[j], self.scale_[j], self.maps_[j])
        exposure = self.layout_.exposure
        if exposure is not None:
            np.maximum(values[:, exposure.column], exposure.smallest, out=values[:, exposure.column])
        return values

    def check_constant(self, values):
        """Raise if a column that was constant when the model was built no longer is: it has no place in the network."""
        for j in np.flatnonzero(self.kinds_ == _CONSTANT):
            other = (values[:, j] != self.location_[j]) & ~np.isnan(values[:, j])
            if other.any():
                raise ValueError(
                    f"Column {self.labels_[j]} was constant ({self.location_[j]:g}) in the rows the model was built on, "
                    f"so it is not part of it, but now it holds {values[other][0, j]:g}. Start from rows in which it varies."
                )

    def check_given(self, row):
        """Raise if a row, shape (1, n_features), holds a cell that its column cannot take."""
        self.check_constant(row)
        self.check_exposure(row, to_score=False)
        for j, quantiles in enumerate(self.maps_):
            if quantiles is not None and not np.isnan(row[0, j]) and not quantiles.holds(row[0, j]):
                raise ValueError(
                    f"Column {self.labels_[j]} takes the {len(quantiles.spikes_)} values seen at fit only "
                    f"({', '.join(f'{v:g}' for v in quantiles.spikes_[:5])}"
                    f"{', ...' if len(quantiles.spikes_) > 5 else ''}), but got {row[0, j]:g}."
                )

    def without_unknown(self, values):
        """Values with NaN in place of those outside the range of their ``"bernoulli"`` column."""
        flags = np.flatnonzero(self.kinds_ == "bernoulli")
        low, scale = self.location_[flags], self.scale_[flags]
        with np.errstate(invalid="ignore"):
            outside = np.abs((values[:, flags] - low) / scale - 0.5) > 0.5 + 1e-6
        values = values.copy()  # they may be the caller's
        values[:, flags] = np.where(outside, np.nan, values[:, flags])
        return values

    def _check_bernoulli(self, raw, encoded, j):
        outside = (encoded < -1e-6) | (encoded > 1 + 1e-6)
        if outside.any():
            low, high = self.location_[j], self.location_[j] + self.scale_[j]
            raise ValueError(
                f"Column {self.labels_[j]} is modelled as 'bernoulli' with values from {low:g} to {high:g}, as seen at "
                f"fit, but got {raw[outside][0]:g}. Fit on rows with every value, model it as 'normal' with "
                f"likelihood={{'normal': [{self.labels_[j]}]}}, or set handle_unknown='ignore' to treat it as missing."
            )
        return np.clip(encoded, 0, 1)


def _kinds_asked(likelihood, names, levels):
    """The kind asked for each column, ``"auto"`` included, as a list of length n_features."""
    n = len(names)
    if isinstance(likelihood, str):
        return [likelihood] * n
    asked = ["auto"] * n
    for kind, columns in likelihood.items():
        if kind not in KINDS:
            raise ValueError(f"likelihood has the kind {kind!r}; expected one of {', '.join(map(repr, KINDS))}.")
        for column in [columns] if isinstance(columns, str | Integral) else columns:
            j = names.index(column) if column in names else column
            if not isinstance(j, Integral) or not -n <= j < n:
                raise ValueError(
                    f"likelihood={{{kind!r}: ...}} names the column {column!r}, but the table has {n} columns "
                    f"({', '.join(map(repr, names[:5]))}{', ...' if n > 5 else ''}). Give a column's name or its index."
                )
            if asked[j] != "auto":
                raise ValueError(f"likelihood names the column {column!r} twice, as {asked[j]!r} and as {kind!r}.")
            if (kind == "categorical") != (levels[j] is not None):
                raise ValueError(
                    f"likelihood names the column {column!r} as {kind!r}, but it is "
                    f"{'categorical' if levels[j] is not None else 'a number'}. Say which columns are categories by "
                    f"categorical_features."
                )
            asked[j] = kind
    return asked


def _kind(column, asked, levels, boolean, label):
    """The kind of one column, shape (n_samples,): as asked, or by what it holds."""
    present = column[~np.isnan(column)]
    if not len(present):
        return _CONSTANT
    low, high = present.min(), present.max()
    if levels is not None:
        return "categorical" if low != high else _CONSTANT
    if asked == "bernoulli" or (asked == "auto" and boolean):
        return "bernoulli"
    # Rounding noise of a constant is not variation.
    largest = max(abs(low), abs(high))
    if high / 2 - low / 2 <= 4 * np.finfo(column.dtype).eps * largest:
        return _CONSTANT
    if asked in COUNTS:
        _check_counts(present, label, asked)
    if asked != "auto":
        return asked
    two_valued = len(present) >= _MIN_ROWS_TWO_VALUES and np.all((present == low) | (present == high))
    if two_valued:
        return "bernoulli"
    return "quantile_normal" if len(present) >= ROWS_FOR_QUANTILES else "normal"


def _check_counts(column, label, kind):
    bad = (column < 0) | (column != np.floor(column))
    bad &= ~np.isnan(column)
    if bad.any():
        raise ValueError(
            f"Column {label} is modelled as {kind!r}, whose values are counts 0, 1, 2, ..., but got {column[bad][0]:g}. "
            f"Round it, or model it as 'normal'."
        )


def _range(column, kind, two_valued, sample_weight):
    """Location and scale of one column of shape (n_samples,), safe from overflow at any magnitude."""
    present = ~np.isnan(column)
    column, weight = column[present].astype(np.float64), sample_weight[present]
    if kind in ("categorical", "quantile_normal"):
        return 0.0, 1.0
    if kind == _CONSTANT:
        return (column[0] if len(column) else np.nan), 1.0
    low, high = column.min(), column.max()
    if kind == "bernoulli":
        fractions = low >= 0 and high <= 1 and not (two_valued and low < high)
        return (0.0, 1.0) if fractions else (low, (high - low) or 1.0)
    if kind in COUNTS:
        column = np.log1p(column)
    unit = np.abs(column).max()
    mean = np.average(column / unit, weights=weight)
    deviation = np.sqrt(np.average((column / unit - mean) ** 2, weights=weight))
    return mean * unit, max(deviation * unit, np.finfo(np.float64).tiny)
