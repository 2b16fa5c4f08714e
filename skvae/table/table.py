"""A table <-> the float matrix that the network reads and models.

A column of the table becomes one or two *parts* of an encoded row: see `skvae.table.kinds`. On the way, it is a column of
*values*: floats in the units of the table, NaN where a cell is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone

from skvae.table.arrangement import Arrangement
from skvae.table.aside import Aside, find_aside
from skvae.table.cells import find_categories, read_all
from skvae.table.column import Column
from skvae.table.encoding import encode_columns
from skvae.table.exposure import Exposure, check_complete, check_positive, exposure_column, learn_exposure
from skvae.table.grids import read_bounds
from skvae.table.kinds import Normal, QuantileNormal
from skvae.table.layout import EncodedRows
from skvae.table.protection import protected
from skvae.table.rules import Rules
from skvae.table.schema import Schema
from skvae.table.selection import kinds_asked, named_columns
from skvae.table.writing import write_table


class Table:
    """A fitted table: its container, its columns, and the layout of an encoded row.

    Made by `fit`, or by `from_state` from the state of another one; it never changes.

    Parameters
    ----------
    schema : Schema
    columns : list of Column
    exposure : (int, float, float) or None
        Position of the exposure among the columns, its smallest value and the logarithm of its mean.
    standardised : list of (Normal or None), default=None
        Of each column, how an auxiliary decoder reads it, None where it reads it as others do. If the list itself is None,
        there is no such decoder.
    protects : bool, default=False
        Whether rare levels were left out: such levels are read as missing cells.
    rules : Rules, default=None
        What rows keep.

    Attributes
    ----------
    schema : Schema
        Names, dtypes and container.
    columns : list of Column
    exposure : Exposure or None
        What the counts are in proportion to.
    arrangement : Arrangement
        The parts of all columns.
    layout : Layout
        Positions of the cells in an encoded row.
    owners : list of int of length n_parts
        The column that each part belongs to.
    auxiliary : Table or None
        The table as an auxiliary decoder reads it: its numbers are standardised, and no values of theirs are levels.
    """

    def __init__(
        self,
        schema: Schema,
        columns: list[Column],
        exposure: tuple[int, float, float] | None = None,
        standardised: Sequence[Normal | None] | None = None,
        *,
        protects: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.schema = schema
        self.columns = columns
        self.protects = protects
        self.rules = rules or Rules((), schema)

        # the exposure is drawn before the counts, wherever it stands in the table
        first = None if exposure is None else exposure[0]
        self.arrangement = Arrangement.of(columns, first)
        self.owners = self.arrangement.owners

        self.exposure = None
        if exposure is not None:
            j, smallest, log_mean = exposure
            own = tuple(self.places[j])
            self.exposure = Exposure(j, columns[j].kind, own, smallest, log_mean)
        self.layout = self.arrangement.layout(columns, self.exposure)

        self.standardised = standardised
        self.auxiliary: Table | None = None
        if standardised is not None:
            read = []
            for column, normal in zip(columns, standardised, strict=True):
                read.append(column if normal is None else replace(column, kind=normal))
            self.auxiliary = Table(schema, read, exposure, protects=protects)
            self.layout = replace(self.layout, auxiliary=self.auxiliary.layout)

    # ------------------------------------------------------------------------------------------------------------ fitting

    @classmethod
    def fit(
        cls,
        X: Any,
        *,
        categorical_features: Any = "from_dtype",
        likelihood: str | dict = "auto",
        exposure: str | int | None = None,
        bounds: str | dict | None = "observed",
        protect: int | None = None,
        ignore: Any = "auto",
        constraints: Sequence[Any] | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> tuple[Table, np.ndarray]:
        """Learn a table, and read it.

        Parameters
        ----------
        X : ndarray (as `as_table` returns it) or DataFrame of shape (n_samples, n_features)
        categorical_features : "from_dtype", None, or array-like of {bool, int, str}
            Which columns hold categories, as in `HistGradientBoostingClassifier`.
        likelihood : str or dict of str to columns, default="auto"
            The kind of every column that is not categorical, or of the columns named; the rest of a dict is ``"auto"``.
        exposure : str or int, default=None
            The column that the counts are in proportion to, by name or index.
        bounds : "observed", None or dict of column to (low, high), default="observed"
            Ranges of numbers and dates that are made.
        protect : int, default=None
            Levels and extremes that fewer rows share are not learnt: see `skvae.table.protection`.
        ignore : "auto", None, array-like of columns, or dict of column to policy, default="auto"
            Columns that are not modelled: see `skvae.table.aside`.
        constraints : sequence of Constraint, default=None
            Rules that rows keep: see `skvae.constraints`.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows. Rows of weight 0 count for the levels of categories only.

        Returns
        -------
        table : Table
        values : ndarray of float of shape (n_samples, n_features)
            What `read` gives for X.

        Raises
        ------
        ValueError
            If X cannot be read or a parameter does not suit it.
        """
        schema = Schema.of(X)
        named = named_columns(schema.names, categorical_features, likelihood, exposure, bounds)
        rules = Rules([clone(rule).fit(X) for rule in constraints or ()], schema)
        rules.check_order(X)
        aside = find_aside(X, schema, ignore, {*named, *rules.differences, *rules.computed})
        for j in rules.computed:
            aside[j] = Aside("compute" if schema.holds_numbers(j) else "carry")
        levels, boolean = find_categories(X, schema, categorical_features, aside)
        values = read_all(X, levels, schema.labels, aside=aside)

        weight = np.ones(len(values))
        if sample_weight is not None:
            weight = sample_weight
        modelled = rules.forward(values)
        if protect is not None:
            modelled, levels = protected(modelled, levels, weight > 0, protect)
            values = rules.backward(modelled)

        rows = modelled[weight > 0]
        weight = weight[weight > 0]
        if np.isnan(rows).all():
            raise ValueError(
                f"All {rows.size} cells of X are missing (NaN); expected at least one value to learn from."
            )

        asked = kinds_asked(likelihood, schema.names, levels)
        j_exposure = exposure_column(exposure, schema.names, levels, asked, likelihood)
        if j_exposure is not None and asked[j_exposure] not in (Normal.name, QuantileNormal.name):
            # of these kinds, the exposures drawn are positive
            asked[j_exposure] = QuantileNormal.name

        limits = read_bounds(bounds, schema, levels)
        rules.check_bounds(limits, schema)
        columns = []
        for j, label in enumerate(schema.labels):
            if j in aside:
                columns.append(Column.not_modelled(label, aside[j]))
                continue
            column = Column.fit(
                rows[:, j], weight, asked[j], label=label, levels=levels[j], boolean=boolean[j], limits=limits[j]
            )
            columns.append(column)

        learnt = None
        if j_exposure is not None:
            label = columns[j_exposure].label
            learnt = (j_exposure, *learn_exposure(rows[:, j_exposure].astype(np.float64), weight, label))
        return cls(schema, columns, learnt, protects=protect is not None, rules=rules), values

    def with_auxiliary(self, values: np.ndarray, sample_weight: np.ndarray | None = None) -> Table:
        """This table, which an auxiliary decoder reads, too.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            What the table was fitted to; NaN where a cell is missing.
        sample_weight : ndarray of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        table : Table
        """
        if sample_weight is None:
            sample_weight = np.ones(len(values))

        standardised: list[Normal | None] = []
        for column, cells in zip(self.columns, self.rules.forward(values).T, strict=True):
            normal = None
            if isinstance(column.kind, QuantileNormal):
                present = ~np.isnan(cells)
                normal = Normal.fit(cells[present].astype(np.float64), sample_weight[present])
            standardised.append(normal)

        return Table(
            self.schema, self.columns, self._learnt_exposure(), standardised, protects=self.protects, rules=self.rules
        )

    def _learnt_exposure(self) -> tuple[int, float, float] | None:
        """What this table was made with."""
        if self.exposure is None:
            return None

        return self.exposure.column, self.exposure.smallest, self.exposure.log_mean

    # ------------------------------------------------------------------------------------------------ container -> encoded

    @property
    def places(self) -> list[list[int]]:
        """list of (list of int) of length n_columns : positions of the parts of each column, in the order of drawing."""
        return self.arrangement.places

    @property
    def aside(self) -> list[int]:
        """list of int : the columns that are not modelled."""
        return [j for j, column in enumerate(self.columns) if column.aside is not None]

    @property
    def linear_parts(self) -> set[int]:
        """set of int : the parts whose mean, decoded, is the mean of the column."""
        linear = set()
        for i, owner in enumerate(self.owners):
            if self.columns[owner].kind.is_linear:
                linear.add(i)
        return linear

    def read(self, X: Any, handle_unknown: str = "error") -> np.ndarray:
        """Values of a table with the columns of the one fitted.

        Parameters
        ----------
        X : ndarray (as `as_table` returns it) or DataFrame of shape (n_samples, n_features)
        handle_unknown : {"error", "ignore"}, default="error"
            ``"ignore"`` treats levels, and values of two-valued columns, that were not seen at fit as missing.

        Returns
        -------
        values : ndarray of float of shape (n_samples, n_features)
            float32 if all of X is, else float64; NaN where a cell is missing.

        Raises
        ------
        ValueError
            If a cell cannot be read, or holds an unknown level under ``"error"``.
        """
        # a level that was left out has no name any more
        unknown_levels = "ignore" if self.protects else handle_unknown
        values = read_all(X, self._levels(), self.schema.labels, unknown_levels, self.schema.clocks, self.aside)
        if handle_unknown == "error":
            return values

        # they may be the caller's
        values = values.copy()
        for j, column in enumerate(self.columns):
            values[:, j] = column.kind.without_unknown(values[:, j])
        return values

    def protected(self, values: np.ndarray) -> np.ndarray:
        """Values to go on training with: if the table protects, no number is beyond those of its first fit.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            NaN where a cell is missing.
        """
        if not self.protects:
            return values

        modelled = self.rules.forward(values).copy()
        for j, column in enumerate(self.columns):
            if column.grid is not None:
                modelled[:, j] = np.clip(modelled[:, j], column.grid.low, column.grid.high)
        return self.rules.backward(modelled)

    def _levels(self) -> list[list | None]:
        """Levels of each column; None where it is no category."""
        return [column.levels for column in self.columns]

    def encode(self, X: Any, handle_unknown: str = "error") -> EncodedRows:
        """Encode a table: `read`, then `encode_values`."""
        return self.encode_values(self.read(X, handle_unknown))

    def encode_values(self, values: np.ndarray, dtype: Any = None) -> EncodedRows:
        """Encode values, in one pass over each column.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            NaN where a cell is missing.
        dtype : dtype, default=None
            Of the encoded rows; None is that of `values`.

        Returns
        -------
        encoded : EncodedRows

        Raises
        ------
        ValueError
            If a cell is not of the kind of its column.
        """
        modelled = self.rules.forward(values)
        x, observed, log_jacobian = encode_columns(self.columns, self.arrangement, self.layout, modelled, dtype)

        offset = None
        if self.exposure is not None:
            offset = self.exposure.offsets(values[:, self.exposure.column].astype(np.float64))
            x[:, self.layout.offset] = np.nan_to_num(offset)[:, None]

        if self.auxiliary is None:
            return EncodedRows(x, observed, log_jacobian, offset)
        auxiliary = self.auxiliary.encode_values(modelled, x.dtype)
        x[:, self.layout.stop :] = auxiliary.x
        return EncodedRows(x, observed, log_jacobian, offset, auxiliary.log_jacobian)

    # ------------------------------------------------------------------------------------------------ decoded -> container

    def decode(self, parts: np.ndarray) -> np.ndarray:
        """Decoded or drawn parts in the units of the table.

        Parameters
        ----------
        parts : ndarray of float64 of shape (n_samples, n_parts)
            Standardised numbers, scores, counts, and positions of levels.

        Returns
        -------
        values : ndarray of float64 of shape (n_samples, n_features)
            Within the ranges of the columns, and with their decimals.
        """
        modelled = []
        for j, column in enumerate(self.columns):
            modelled.append(column.snap(self.decode_column(j, parts)))
        return self.rules.backward(np.stack(modelled, axis=1))

    def snap(self, values: np.ndarray) -> np.ndarray:
        """What the columns can hold that is nearest to values of shape (n_samples, n_features)."""
        modelled = self.rules.forward(values)
        snapped = [column.snap(own) for column, own in zip(self.columns, modelled.T, strict=True)]
        return self.rules.backward(np.stack(snapped, axis=1))

    def decode_column(self, j: int, parts: np.ndarray) -> np.ndarray:
        """Column `j` as it is modelled, before `Column.snap`: ndarray of float64 of shape (n_samples,)."""
        own = [parts[:, i] for i in self.places[j]]
        values = self.columns[j].kind.decode(own, len(parts))

        # a normal one may come out below what was ever seen, even below 0
        if self.exposure is not None and j == self.exposure.column:
            values = np.maximum(values, self.exposure.smallest)
        return values

    def write(
        self, values: np.ndarray, like: Any = None, exact: Mapping[int, int] | None = None, beside: Any = None
    ) -> Any:
        """A container like the one fitted.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            Without missing cells.
        like : DataFrame of shape (n_samples, n_features), default=None
            Its cells that are not missing are taken as they are.
        exact : mapping of int to int, default=None
            By column, an integer or ticks that all its cells are, which floats may round.
        beside : array or DataFrame of shape (n_samples, n_features), default=None
            Rows whose columns that are not modelled are taken as they are; None is `like`.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_features)
        """
        return write_table(self, values, like=like, exact=exact, beside=beside)

    # ------------------------------------------------------------------------------------------------------------- checks

    def check_constant(self, values: np.ndarray) -> None:
        """Raise a ValueError if a column that was constant at fit, and so has no place in the network, no longer is.

        Parameters
        ----------
        values : ndarray of shape (n_samples, n_features)
        """
        for column, cells in zip(self.columns, values.T, strict=True):
            column.kind.check_constant(cells, column.label)

    def check_exposure(self, values: np.ndarray, *, to_score: bool) -> None:
        """Raise a ValueError if an exposure is not positive or, in rows `to_score`, is missing beside a count.

        Parameters
        ----------
        values : ndarray of shape (n_samples, n_features)
        to_score : bool
        """
        if self.exposure is None:
            return

        exposures = values[:, self.exposure.column]
        label = self.columns[self.exposure.column].label
        check_positive(exposures, label)
        if to_score:
            is_count = [column.kind.is_count for column in self.columns]
            check_complete(exposures, values[:, is_count], label)

    # -------------------------------------------------------------------------------------------------------- plain state

    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What `from_state` makes an equal table from.

        Returns
        -------
        facts : dict
            What JSON can hold.
        arrays : dict of str to ndarray
            Everything longer.

        Raises
        ------
        ValueError
            If a level, a name or a dtype has no plain form.
        """
        columns = []
        arrays = {}
        for j, column in enumerate(self.columns):
            facts, own = column.state()
            columns.append(facts)
            for name, array in own.items():
                arrays[f"columns.{j}.{name}"] = array

        standardised = None
        if self.standardised is not None:
            standardised = [None if normal is None else normal.state() for normal in self.standardised]
        facts = {
            "schema": self.schema.state(),
            "columns": columns,
            "exposure": self._learnt_exposure(),
            "standardised": standardised,
            "protects": self.protects,
            "constraints": [rule.state() for rule in self.rules.all],
        }
        return facts, arrays

    @classmethod
    def from_state(cls, facts: dict, arrays: dict[str, np.ndarray], constraints: Sequence[Any] = ()) -> Table:
        """The table whose `state` is given, be it from JSON, with its fitted constraints."""
        schema = Schema.from_state(facts["schema"])

        own_arrays: list[dict] = [{} for _ in facts["columns"]]
        for name, array in arrays.items():
            _, j, field = name.split(".")
            own_arrays[int(j)][field] = array

        columns = []
        for label, column, own in zip(schema.labels, facts["columns"], own_arrays, strict=True):
            columns.append(Column.from_state(label, column, own))

        exposure = facts["exposure"]
        if exposure is not None:
            exposure = tuple(exposure)

        standardised = facts["standardised"]
        if standardised is not None:
            standardised = [None if normal is None else Normal.from_state(normal) for normal in standardised]
        rules = Rules(constraints, schema)
        return cls(schema, columns, exposure, standardised, protects=facts["protects"], rules=rules)
