"""Rules that rows of a table keep, for `VAEEstimator(constraints=[...])` or as transformers by themselves.

A rule is kept by construction where that is possible: `Inequality` models a difference, `Function` and `FixedSum` compute a
column from the others. `AllowedCombinations` and `Satisfies` are kept by drawing again what breaks them.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from skvae.table import as_table
from skvae.table.by_name import as_floats, column_of, is_whole, missing_cells, position, rows_of, with_column
from skvae.table.cells import replace_column
from skvae.table.containers import as_frame
from skvae.table.plain import parameter_of, plain_parameter
from skvae.table.sharing import shared


class Constraint(TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """What every rule answers. Columns are given by name, or by position for arrays."""

    @property
    @abstractmethod
    def columns_used(self) -> list:
        """list : the columns that the rule speaks of."""

    @abstractmethod
    def is_valid(self, X: Any) -> np.ndarray:
        """Which rows keep the rule.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)

        Returns
        -------
        valid : ndarray of bool of shape (n_samples,)
            Rows in which a cell that the rule needs is missing count as valid.
        """

    def fit(self, X: Any, y: Any = None) -> Constraint:
        """Check that all rows keep the rule, and learn what it needs.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
        y : Ignored
            Not used, present by convention.

        Returns
        -------
        self : Constraint

        Raises
        ------
        ValueError
            If the table lacks a column, or a row breaks the rule.
        """
        X = as_table(X)
        self.n_features_in_ = int(X.shape[1])
        for column in self.columns_used:
            position(X, column)
        self._learn(X)

        broken = np.flatnonzero(~self.is_valid(X))
        if len(broken):
            raise ValueError(
                f"{self!r} is broken by {len(broken)} of {X.shape[0]} rows, the first of which is row {broken[0]}. Mend these "
                f"rows, leave them out, or drop the constraint."
            )
        return self

    def transform(self, X: Any) -> Any:
        """The table in the form that is modelled: as it is, where the rule changes no column.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)

        Returns
        -------
        X_transformed : ndarray or DataFrame
        """
        check_is_fitted(self, "n_features_in_")
        return as_table(X)

    def inverse_transform(self, X: Any) -> Any:
        """The table in its own form: see `transform`."""
        check_is_fitted(self, "n_features_in_")
        return as_table(X)

    def log_abs_det_jacobian(self, X: Any) -> np.ndarray:
        """What `transform` adds to the log density of rows, ndarray of shape (n_samples,), in nats: nothing."""
        return np.zeros(as_table(X).shape[0])

    def _learn(self, X: Any) -> None:
        """Learn from a table that has the columns."""

    def state(self) -> dict[str, Any]:
        """What `constraint_of` makes an equal fitted one from, as JSON can hold it; no parameters if they hold code."""
        parameters = {}
        for name, value in self.get_params(deep=False).items():
            if callable(value):
                return {"class": type(self).__name__, "parameters": None, "fitted": self._fitted_state()}
            parameters[name] = plain_parameter(name, value)
        return {"class": type(self).__name__, "parameters": parameters, "fitted": self._fitted_state()}

    def _fitted_state(self) -> dict[str, Any]:
        """What rows are checked with, in plain form by name."""
        return {"n_features_in_": self.n_features_in_}


def constraint_of(state: dict[str, Any], given: Constraint | None = None) -> Constraint:
    """The fitted constraint of a `Constraint.state`, for the rows of a model.

    Parameters
    ----------
    state : dict
    given : Constraint, default=None
        The constraint itself, if it holds code.

    Returns
    -------
    constraint : Constraint

    Raises
    ------
    ValueError
        If it holds code and is not given, or another one is.
    """
    name = state["class"]
    if given is not None:
        if type(given).__name__ != name:
            raise ValueError(f"expected a constraint {name}, got {given!r}")
        constraint = clone(given)
    elif state["parameters"] is None:
        raise ValueError(
            f"its constraint {name} holds a function: pass all of them again, load(path, constraints=[...])"
        )
    else:
        parameters = {key: parameter_of(value) for key, value in state["parameters"].items()}
        constraint = CONSTRAINTS[name](**parameters)

    for key, value in state["fitted"].items():
        if key not in ("n_features_in_", "combinations_"):
            raise ValueError(f"{key!r} is nothing that a constraint learns")
        setattr(constraint, key, parameter_of(value))
    return constraint


class Inequality(Constraint):
    """One column is at most another: ``low <= high``, for numbers and for dates.

    The model has the difference ``high - low`` in place of `high`. New differences stay within the range of those of the
    training rows, so that the rule is kept by construction. The change of variables leaves densities as they are.

    Parameters
    ----------
    low, high : str or int
        Columns, by name or position.
    strict : bool, default=False
        Whether equal cells break the rule.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.constraints import Inequality
    >>> stays = pd.DataFrame({"from": [3, 5], "until": [4, 9]})
    >>> rule = Inequality("from", "until").fit(stays)
    >>> rule.transform(stays)["until"].tolist()
    [1, 4]
    >>> rule.inverse_transform(rule.transform(stays)).equals(stays)
    True
    """

    def __init__(self, low: Any, high: Any, *, strict: bool = False) -> None:
        self.low = low
        self.high = high
        self.strict = strict

    @property
    def columns_used(self) -> list:
        """See `Constraint`."""
        return [self.low, self.high]

    def is_valid(self, X: Any) -> np.ndarray:
        """See `Constraint`."""
        low, high = column_of(X, self.low), column_of(X, self.high)
        missing = missing_cells(low) | missing_cells(high)
        if isinstance(low, nw.Series):
            met = (low < high) if self.strict else (low <= high)
            return missing | met.fill_null(True).to_numpy().astype(bool)

        with np.errstate(invalid="ignore"):
            met = (low < high) if self.strict else (low <= high)
        return missing | met.astype(bool)

    def transform(self, X: Any) -> Any:
        """See `Constraint`: the difference stands in place of `high`."""
        X = super().transform(X)
        return with_column(X, self.high, column_of(X, self.high) - column_of(X, self.low))

    def inverse_transform(self, X: Any) -> Any:
        """See `Constraint`."""
        X = super().inverse_transform(X)
        return with_column(X, self.high, column_of(X, self.low) + column_of(X, self.high))


class Function(Constraint):
    """One column is computed from the others: it is not modelled, and computed for each row that is made.

    Parameters
    ----------
    column : str or int
        The column, by name or position.
    function : callable
        ``function(X)`` gives its cells for a table of shape (n_samples, n_features), whose own cells of `column` are not to be
        read.
    tolerance : float, default=1e-6
        Difference, relative to the larger one, up to which numbers count as equal.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.constraints import Function
    >>> rows = pd.DataFrame({"net": [1.0, 2.0], "gross": [1.2, 2.4]})
    >>> rule = Function("gross", lambda X: 1.2 * X["net"]).fit(rows)
    >>> list(rule.transform(rows).columns)
    ['net']
    >>> bool(rule.is_valid(rows.assign(gross=2)).any())
    False
    """

    def __init__(self, column: Any, function: Callable[[Any], Any], *, tolerance: float = 1e-6) -> None:
        self.column = column
        self.function = function
        self.tolerance = tolerance

    @property
    def columns_used(self) -> list:
        """See `Constraint`."""
        return [self.column]

    def is_valid(self, X: Any) -> np.ndarray:
        """See `Constraint`."""
        X = as_table(X)
        cells = np.asarray(column_of(X, self.column))
        computed = np.asarray(self.compute(X))
        missing = missing_cells(column_of(X, self.column)) | missing_cells(computed)
        if cells.dtype.kind in "iuf" and computed.dtype.kind in "iufb":
            near = self.tolerance * np.maximum(self._size(X), np.maximum(np.abs(cells), np.abs(computed)))
            return missing | (np.abs(cells - computed) <= near)
        return missing | (cells == computed)

    def _size(self, X: Any) -> np.ndarray | float:
        """What rounding errors are in proportion to, beside the cells themselves."""
        return 0.0

    def compute(self, X: Any) -> Any:
        """Cells of the column, of length n_samples."""
        computed = self.function(X)
        if np.shape(computed)[:1] != (X.shape[0],):
            raise ValueError(
                f"The function of {self!r} gave an answer of shape {np.shape(computed)} for {X.shape[0]} rows. Expected one "
                f"cell per row."
            )
        return computed

    def transform(self, X: Any) -> Any:
        """See `Constraint`: the column is left out."""
        X = super().transform(X)
        frame = as_frame(X)
        if frame is not None:
            return frame.drop(self.column).to_native()
        return np.delete(X, self.column, axis=1)

    def inverse_transform(self, X: Any) -> Any:
        """See `Constraint`: the column is computed, and stands where it stood."""
        X = super().inverse_transform(X)
        frame = as_frame(X)
        if frame is None:
            room = np.insert(X, self.column % self.n_features_in_, np.zeros(len(X)), axis=1)
            return with_column(room, self.column, np.asarray(self.compute(room)))

        cells = np.asarray(self.compute(X)).tolist()
        computed = nw.new_series(str(self.column), cells, backend=frame.implementation)
        if self._dtype is not None:
            computed = computed.cast(self._dtype)
        names = [*self._names[: self._at], self.column, *self._names[self._at + 1 :]]
        return frame.with_columns(computed.alias(self.column)).select(names).to_native()

    def _learn(self, X: Any) -> None:
        frame = as_frame(X)
        self._names = [] if frame is None else list(frame.columns)
        self._dtype = None if frame is None else frame[self.column].dtype
        self._at = position(X, self.column)


class FixedSum(Function):
    """Columns add up to another one, or to a number: the sum is computed from its parts, or the last part from the others.

    Where `VAEEstimator.impute` meets a sum that is observed, missing parts share what the others leave of it, in proportion to
    what the model has for them; a single one is what is left.

    Parameters
    ----------
    columns : sequence of (str or int)
        The parts.
    total : str, int or float, default=1.0
        The column of the sum, by name; or the number that all rows add up to.
    tolerance : float, default=1e-6
        Difference, relative to the largest term, up to which sums count as equal.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.constraints import FixedSum
    >>> rows = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "all": [4.0, 6.0]})
    >>> FixedSum(["a", "b"], "all").fit(rows).transform(rows).columns.tolist()
    ['a', 'b']
    """

    def __init__(self, columns: Sequence, total: Any = 1.0, *, tolerance: float = 1e-6) -> None:
        self.columns = columns
        self.total = total
        self.tolerance = tolerance

    @property
    def column(self) -> Any:
        """str or int : the column that is computed."""
        return self.total if isinstance(self.total, str) else list(self.columns)[-1]

    @property
    def columns_used(self) -> list:
        """See `Constraint`."""
        return [*self.columns, *([self.total] if isinstance(self.total, str) else [])]

    def function(self, X: Any) -> np.ndarray:
        """Cells of the column that is computed."""
        total = np.zeros(X.shape[0])
        for name in self.columns:
            if name != self.column:
                total = total + np.asarray(column_of(X, name), dtype=np.float64)
        return total if isinstance(self.total, str) else self.total - total

    def share_out(self, X: Any, like: Any, computed: Collection[Any] = ()) -> Any:
        """Rows whose missing parts share what is left of an observed sum.

        Parameters
        ----------
        X : ndarray or DataFrame of shape (n_samples, n_features)
            Filled rows.
        like : ndarray or DataFrame of shape (n_samples, n_features)
            The same rows with their missing cells.
        computed : collection of (str or int), default=()
            Columns that constraints compute: they have their cells, and share nothing.

        Returns
        -------
        shared : ndarray or DataFrame of shape (n_samples, n_features)
        """
        X = as_table(X)
        like = as_table(like)
        parts = self._parts(X)
        missing = np.stack(list(map(missing_cells, self._columns(like))), axis=1)
        for k, name in enumerate(self.columns):
            if name in computed and name != self.column:
                missing[:, k] = False

        # a computed column that is missing takes what is left
        rows = np.flatnonzero(missing.any(axis=1) & ~missing_cells(column_of(like, self.column)))
        if not len(rows):
            return X
        total = np.full(len(parts), self.total, dtype=object)
        if isinstance(self.total, str):
            total = as_floats(column_of(like, self.total))

        whole = all(map(is_whole, self._columns(X)))
        parts[rows] = shared(parts[rows], missing[rows], total[rows].astype(np.float64), whole=whole)
        for name, cells, holes in zip(self.columns, parts.T, missing.T, strict=True):
            if holes.any():
                X = replace_column(X, position(X, name), cells)
        return X

    def _columns(self, X: Any) -> list:
        """The columns of the parts."""
        return [column_of(X, name) for name in self.columns]

    def _parts(self, X: Any) -> np.ndarray:
        """The parts as floats, ndarray of shape (n_samples, n_parts)."""
        return np.stack(list(map(as_floats, self._columns(X))), axis=1)

    def _size(self, X: Any) -> np.ndarray | float:
        """See `Function`."""
        return np.abs(self._parts(as_table(X))).max(axis=1)


class AllowedCombinations(Constraint):
    """Only combinations of cells that do occur: those of the training rows, or those that are given.

    Parameters
    ----------
    columns : sequence of (str or int)
        Columns of categories, by name or position.
    combinations : iterable of tuple, default=None
        The combinations that are allowed. None takes those of the rows that it is fitted to.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.constraints import AllowedCombinations
    >>> rows = pd.DataFrame({"town": ["Bonn", "Kiel"], "state": ["NRW", "SH"]})
    >>> rule = AllowedCombinations(["town", "state"]).fit(rows)
    >>> rule.is_valid(rows.assign(state="SH")).tolist()
    [False, True]
    """

    def __init__(self, columns: Sequence, combinations: Any = None) -> None:
        self.columns = columns
        self.combinations = combinations

    @property
    def columns_used(self) -> list:
        """See `Constraint`."""
        return list(self.columns)

    def is_valid(self, X: Any) -> np.ndarray:
        """See `Constraint`."""
        check_is_fitted(self, "combinations_")
        valid = []
        for cells in rows_of(X, self.columns):
            valid.append(None in cells or cells in self.combinations_)
        return np.array(valid, dtype=bool)

    def _learn(self, X: Any) -> None:
        rows = rows_of(X, self.columns) if self.combinations is None else map(tuple, self.combinations)
        self.combinations_ = {cells for cells in rows if None not in cells}

    def _fitted_state(self) -> dict[str, Any]:
        return {**super()._fitted_state(), "combinations_": plain_parameter("combinations", self.combinations_)}


class Satisfies(Constraint):
    """Rows satisfy a condition of one's own. New rows that do not are drawn again.

    Parameters
    ----------
    function : callable
        ``function(X)`` gives, for a table of shape (n_samples, n_features), n_samples booleans. It tells what a missing cell
        means.

    Examples
    --------
    >>> import pandas as pd
    >>> from skvae.constraints import Satisfies
    >>> rows = pd.DataFrame({"age": [40, 17], "drives": [True, False]})
    >>> Satisfies(lambda X: ~X["drives"] | (X["age"] >= 17)).fit(rows).is_valid(rows).tolist()
    [True, True]
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    @property
    def columns_used(self) -> list:
        """See `Constraint`."""
        return []

    def is_valid(self, X: Any) -> np.ndarray:
        """See `Constraint`."""
        X = as_table(X)
        valid = np.asarray(self.function(X))
        if valid.shape != (X.shape[0],):
            raise ValueError(
                f"The function of {self!r} gave an answer of shape {valid.shape} for {X.shape[0]} rows. Expected one boolean "
                f"per row."
            )
        return valid.astype(bool)


CONSTRAINTS: dict[str, type[Constraint]] = {
    constraint.__name__: constraint for constraint in (Inequality, Function, FixedSum, AllowedCombinations, Satisfies)
}
"""The classes by their names."""
