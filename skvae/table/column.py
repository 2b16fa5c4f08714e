"""One column of a table: its label, its levels, its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.aside import Aside
from skvae.table.cells import read_cells
from skvae.table.grids import Grid, Limits, check_within
from skvae.table.kinds import KINDS, Categorical, Constant, Kind, Part, choose_kind
from skvae.table.plain import from_plain, to_plain


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    label : str
        What errors call it.
    levels : list or None
        Levels of a category, in order.
    kind : Kind
        How its values are encoded and decoded.
    share_missing : float
        Share of the cells that were missing at fit.
    grid : Grid or None
        The numbers that it can hold; None for categories, and where any number can be.
    aside : Aside or None
        What becomes of it if it is not modelled; its values are then NaN.
    """

    label: str
    levels: list | None
    kind: Kind
    share_missing: float
    grid: Grid | None
    aside: Aside | None = None

    @classmethod
    def fit(
        cls,
        values: np.ndarray,
        weight: np.ndarray,
        asked: str,
        *,
        label: str,
        levels: list | None,
        boolean: bool,
        limits: Limits = "observed",
    ) -> Column:
        """Learn a column.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples,)
            NaN where a cell is missing.
        weight : ndarray of shape (n_samples,)
            Weights of the rows.
        asked : str
            The kind asked for, or ``"auto"``.
        label : str
        levels : list or None
        boolean : bool
            Whether its dtype is boolean.
        limits : tuple of (float, float), "observed" or None, default="observed"
            Of its range; None leaves numbers as they are drawn.

        Returns
        -------
        column : Column
        """
        present = ~np.isnan(values)
        kind = choose_kind(values[present], asked, label=label, levels=levels, boolean=boolean)
        cells = values[present].astype(np.float64)
        check_within(cells, limits, label)

        # fractions between two values only where they were announced
        fractions = asked != "auto"
        fitted = kind.fit(cells, weight[present], n_levels=len(levels or ()), fractions=fractions)
        grid = None
        if levels is None and len(cells) and limits is not None:
            grid = Grid.fit(cells, limits)
            if fitted.is_discrete and fractions:
                grid = grid.without_steps()
        return cls(label, levels, fitted, float(1 - present.mean()), grid)

    @classmethod
    def not_modelled(cls, label: str, aside: Aside) -> Column:
        """A column whose values are no part of the model."""
        return cls(label, None, Constant(np.nan), 0.0, None, aside)

    @property
    def has_missing(self) -> bool:
        """bool : whether a cell was missing at fit."""
        return self.share_missing > 0

    @property
    def is_dropped(self) -> bool:
        """bool : whether it is in no output."""
        return self.aside is not None and self.aside.policy == "drop"

    @property
    def kind_name(self) -> str:
        """str : name of its kind, or ``"ignored"``."""
        return self.kind.name if self.aside is None else "ignored"

    @property
    def parts(self) -> tuple[Part, ...]:
        """tuple of Part : the parts of its kind, within its range."""
        if self.grid is None:
            return self.kind.parts

        ranges = self.kind.ranges(self.grid.low, self.grid.high)
        parts = []
        for part, own in zip(self.kind.parts, ranges, strict=True):
            parts.append(part._replace(range=own))
        return tuple(parts)

    def snap(self, values: np.ndarray) -> np.ndarray:
        """What the column can hold that is nearest to values of shape (n_samples,)."""
        if self.grid is None:
            return values
        return self.grid.snap(values)

    def read(self, cells: nw.Series | np.ndarray, handle_unknown: str = "error") -> np.ndarray:
        """Values of a container's column, ndarray of float of shape (n_samples,), NaN where a cell is missing."""
        return read_cells(cells, self.levels, self.label, handle_unknown)

    def write(self, values: np.ndarray) -> np.ndarray:
        """Cells for values of shape (n_samples,): numbers as they are, levels for their positions."""
        if self.aside is not None:
            return self.aside.cells(len(values))
        if self.levels is None:
            return values
        # no cell at fit: none to give back
        if not self.levels:
            return np.full(len(values), None, dtype=object)

        # levels may be tuples, which numpy would take apart
        by_position = np.empty(len(self.levels), dtype=object)
        by_position[:] = self.levels
        return by_position[np.clip(np.rint(values), 0, len(self.levels) - 1).astype(int)]

    def state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What `from_state` makes an equal column from: what JSON can hold, and arrays by name."""
        kind = {}
        arrays = {}
        for name, value in self.kind.state().items():
            if isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                kind[name] = value

        levels = None
        if self.levels is not None:
            levels = [to_plain(level) for level in self.levels]
        facts = {
            "kind": self.kind.name,
            "levels": levels,
            "share_missing": self.share_missing,
            "grid": None if self.grid is None else self.grid.state(),
            "aside": None if self.aside is None else self.aside.state(),
            "state": kind,
        }
        return facts, arrays

    @classmethod
    def from_state(cls, label: str, facts: dict, arrays: dict[str, np.ndarray]) -> Column:
        """The column whose `state` is given, be it from JSON."""
        state: dict[str, Any] = dict(arrays)
        for name, value in facts["state"].items():
            # JSON makes lists of tuples
            state[name] = tuple(value) if isinstance(value, list) else value
        kind = KINDS[facts["kind"]].from_state(state)

        levels = None
        if facts["levels"] is not None:
            levels = [from_plain(level) for level in facts["levels"]]
        if isinstance(kind, Categorical) and kind.n_levels != len(levels or ()):
            raise ValueError(f"column {label} has {len(levels or ())} levels and {kind.n_levels} outputs")
        grid = None
        if facts["grid"] is not None:
            grid = Grid.from_state(facts["grid"])
        aside = None
        if facts["aside"] is not None:
            aside = Aside.from_state(facts["aside"])
        return cls(label, levels, kind, facts["share_missing"], grid, aside)

    # ------------------------------------------------------------------------------------------------------------ pickling

    def __getstate__(self) -> dict[str, Any]:
        """Levels in their plain form, where they have one: a pickle then names no class of another library."""
        state = dict(vars(self))
        if self.levels is not None:
            state["levels"] = [_plain_or_itself(level) for level in self.levels]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        levels = state["levels"]
        if levels is not None:
            # no level is a dict: those without a plain form come as they are
            levels = [from_plain(level) for level in levels]
        vars(self).update(state, levels=levels)


def _plain_or_itself(level: Any) -> Any:
    try:
        return to_plain(level)
    except ValueError:
        return level
