"""Numbers by their empirical distribution, with levels where values repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from skvae.table.kinds.base import EncodedPart, Kind, Part
from skvae.table.kinds.levels import Categorical
from skvae.table.kinds.numbers import Normal
from skvae.table.quantiles import QuantileMap


@dataclass(frozen=True)
class QuantileNormal(Kind):
    """A number made standard normal by its empirical distribution; values that many rows share are levels.

    It has a categorical part, which says which level a value is or that it is none, and a normal part, its score, which is
    only observed where it is none.

    Attributes
    ----------
    quantiles : QuantileMap
    """

    quantiles: QuantileMap

    name: ClassVar[str] = "quantile_normal"

    @classmethod
    def fit(
        cls, values: np.ndarray, weight: np.ndarray, *, n_levels: int = 0, fractions: bool = False
    ) -> QuantileNormal:
        """See `Kind`."""
        return cls(QuantileMap.fit(values, weight))

    @property
    def parts(self) -> tuple[Part, ...]:
        """See `Kind`."""
        levels = Part(Categorical.name, self.quantiles.n_levels, len(self.quantiles.spikes))

        if not self.quantiles.has_rest:
            return (levels,)

        score = Part(Normal.name)
        if not self.quantiles.n_levels:
            return (score,)
        return (levels, score._replace(gated=True))

    def encode(self, values: np.ndarray, label: str) -> list[EncodedPart]:
        """See `Kind`."""
        encoded = []
        observed = None

        # the last level says that a value is none of the spikes
        if self.quantiles.n_levels:
            level = self.quantiles.level(values)
            log_chance: np.ndarray | float = 0.0
            if not self.quantiles.has_rest:
                log_chance = self.quantiles.log_chance(values)
            encoded.append(EncodedPart(level, level, log_jacobian=log_chance))
            observed = level == len(self.quantiles.spikes)

        if self.quantiles.has_rest:
            score, log_slope = self.quantiles.score(values)
            encoded.append(EncodedPart(score, score, observed, log_slope))

        return encoded

    def decode(self, cells: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
        """See `Kind`."""
        values = np.zeros(n_rows)
        if self.quantiles.has_rest:
            values = self.quantiles.value(cells[-1])

        # a level decides, whatever score was drawn beside it
        if self.quantiles.n_levels:
            level = np.rint(cells[0]).astype(int)
            is_spike = level < len(self.quantiles.spikes)
            values[is_spike] = self.quantiles.spikes[level[is_spike]]

        return values

    def ranges(self, low: float, high: float) -> list[tuple[float, float]]:
        """See `Kind`."""
        ranges = [(-np.inf, np.inf)] * len(self.parts)
        if self.quantiles.has_rest:
            ranges[-1] = self.quantiles.range_of_scores(low, high)
        return ranges

    def check_given(self, value: float, label: str) -> None:
        """See `Kind`."""
        if self.quantiles.holds(value):
            return

        spikes = self.quantiles.spikes
        seen = ", ".join(f"{spike:g}" for spike in spikes[:5])
        if len(spikes) > 5:
            seen += ", ..."
        raise ValueError(
            f"Column {label} takes the {len(spikes)} values seen at fit only ({seen}), but got {value:g}. Give one of them."
        )

    def state(self) -> dict[str, Any]:
        """See `Kind`."""
        return dict(vars(self.quantiles))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> QuantileNormal:
        """See `Kind`."""
        quantiles = QuantileMap(**state)
        quantiles.check()
        return cls(quantiles)
