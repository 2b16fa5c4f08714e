"""Rules between columns, as the table keeps them: differences that are modelled, columns that are computed, rows to refuse."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from skvae.table.cells import cells_of, replace_column
from skvae.table.schema import Schema


@runtime_checkable
class Computes(Protocol):
    """A constraint that computes a column."""

    column: Any

    def compute(self, X: Any) -> Any:
        """Cells of the column, of length n_samples."""


@runtime_checkable
class Orders(Protocol):
    """A constraint that keeps one column below another."""

    low: Any
    high: Any


@runtime_checkable
class SharesOut(Protocol):
    """A constraint that an observed sum tells missing parts of."""

    def share_out(self, X: Any, like: Any, computed: Collection[Any]) -> Any:
        """X with other cells where `like` has missing ones that are not computed, so that its observed sums are kept."""


class Rules:
    """The fitted constraints of a table.

    Parameters
    ----------
    rules : sequence of Constraint
        Fitted: see `skvae.constraints`.
    schema : Schema

    Attributes
    ----------
    differences : dict of int to int
        By position of a column, that of the lower one whose distance from it is modelled.
    scales : dict of int to float
        Units of the higher column per unit of the lower one.
    computed : dict of int to Computes
        Columns that are computed from the others.
    computed_columns : list
        Their names.
    """

    def __init__(self, rules: Sequence[Any], schema: Schema) -> None:
        self.all = list(rules)
        self.differences: dict[int, int] = {}
        self.scales: dict[int, float] = {}
        self.computed: dict[int, Computes] = {}
        self.computed_columns: list[Any] = []
        for rule in rules:
            if isinstance(rule, Computes):
                j = schema.names.index(rule.column)
                if j in self.computed:
                    raise ValueError(f"Two constraints compute the column {rule.column!r}. Keep one of them.")
                self.computed[j] = rule
                self.computed_columns.append(rule.column)
            elif isinstance(rule, Orders):
                self._add_difference(rule, schema)

    def _add_difference(self, rule: Orders, schema: Schema) -> None:
        low, high = schema.names.index(rule.low), schema.names.index(rule.high)
        if low == high:
            raise ValueError(f"{rule!r} compares a column with itself.")
        own, other = schema.clocks[low], schema.clocks[high]
        if (own is None) != (other is None) or (own and other and not own.reads(other)):
            raise ValueError(f"{rule!r} compares columns of two types. Convert them to one.")
        if high in self.differences:
            raise ValueError(
                f"{rule!r} and another constraint bound the column {rule.high!r} from below. Keep the tighter one, and state "
                f"the other by Satisfies."
            )

        # a chain that comes back to its first column has no order
        behind = low
        while behind in self.differences:
            behind = self.differences[behind]
            if behind == high:
                raise ValueError(f"{rule!r} closes a circle of inequalities.")
        self.differences[high] = low
        # ticks of two units
        self.scales[high] = own.tick / other.tick if own and other else 1.0

    def check_bounds(self, limits: Sequence, schema: Schema) -> None:
        """Raise a ValueError if limits are stated for a column whose difference from another is modelled."""
        for high in self.differences:
            if isinstance(limits[high], tuple):
                raise ValueError(
                    f"bounds names the column {schema.names[high]!r}, which a constraint keeps above another one. State its "
                    f"limits by Satisfies."
                )

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Values of shape (n, n_features) with differences in place of the higher columns; NaN where a cell is missing."""
        if not self.differences:
            return values

        modelled = values.copy()
        for high, low in self.differences.items():
            modelled[:, high] = values[:, high] - self.scales[high] * values[:, low]
        return modelled

    def backward(self, modelled: np.ndarray) -> np.ndarray:
        """The inverse of `forward`, for values of shape (..., n_features)."""
        if not self.differences:
            return modelled

        values = modelled.copy()
        for high in self._from_below():
            low = self.differences[high]
            values[..., high] = self.scales[high] * values[..., low] + modelled[..., high]
        return values

    def _from_below(self) -> list[int]:
        """The higher columns, each behind the one below it."""
        order: list[int] = []
        left = dict(self.differences)
        while left:
            for high, low in list(left.items()):
                if low not in left:
                    order.append(high)
                    del left[high]
        return order

    def mend(self, values: np.ndarray, observed: np.ndarray, least: Sequence[float]) -> np.ndarray:
        """Values whose lower columns, where they were filled, are lower than what was observed above them.

        Parameters
        ----------
        values : ndarray of shape (..., n, n_features)
        observed : ndarray of bool of shape (n, n_features)
            Which cells were observed.
        least : sequence of float of length n_features
            The smallest difference of each higher column.
        """
        for high, low in self.differences.items():
            rows = observed[:, high] & ~observed[:, low]
            highest = (values[..., rows, high] - least[high]) / self.scales[high]
            values[..., rows, low] = np.minimum(values[..., rows, low], highest)
        return values

    def complete(self, written: Any, like: Any = None) -> Any:
        """A container with its computed columns, in the dtypes that these have in it.

        Parameters
        ----------
        written : array or DataFrame of shape (n_samples, n_features)
            With any cells in these columns.
        like : array or DataFrame of shape (n_samples, n_features), default=None
            Its cells that are not missing are kept.

        Returns
        -------
        completed : array or DataFrame of shape (n_samples, n_features)
        """
        # a column may be computed from others that are: after as many rounds as there are, all of them are there
        for _ in self.computed:
            for j, rule in self.computed.items():
                if like is not None and isinstance(rule, SharesOut):
                    written = rule.share_out(written, like, self.computed_columns)
                written = self._complete_column(written, j, rule, like)
        return written

    def _complete_column(self, written: Any, j: int, rule: Computes, like: Any) -> Any:
        """`complete`, of one column."""
        cells = np.array(rule.compute(written), dtype=object)
        if like is not None:
            own = cells_of(like, j)
            observed = np.array([cell is not None for cell in own])
            cells[observed] = np.array(own, dtype=object)[observed]
        return replace_column(written, j, cells)

    def check_order(self, X: Any) -> None:
        """Raise a ValueError if columns are computed from one another in a circle, so that what they hold decides.

        Parameters
        ----------
        X : array or DataFrame of shape (n_samples, n_features)
            Rows that keep all rules.
        """
        if len(self.computed) < 2:
            return

        # with the cells of other rows in these columns, they shall come out the same
        turned = X
        for j in self.computed:
            turned = replace_column(turned, j, np.array(cells_of(X, j), dtype=object)[::-1])
        once, again = self.complete(X), self.complete(turned)
        for j in self.computed:
            if list(cells_of(once, j)) != list(cells_of(again, j)):
                raise ValueError(
                    f"Constraints compute the columns {self.computed_columns} from one another in a circle. Leave out the "
                    f"one that the others imply."
                )

    def hold(self, written: Any) -> np.ndarray:
        """Which rows of a container keep all rules, ndarray of bool of shape (n_samples,)."""
        valid = np.ones(written.shape[0], dtype=bool)
        for rule in self.all:
            valid &= rule.is_valid(written)
        return valid
