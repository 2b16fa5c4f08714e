"""Dates and times as ticks: of which clock, and how those of another one are read."""

from __future__ import annotations

from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Length of a tick, by the unit's name."""

DAY = 24 * 3600 * 10**9


class Clock(NamedTuple):
    """What the ticks of a column count.

    Attributes
    ----------
    counts : {"moments", "durations", "times of day"}
        Dates and datetimes are moments, ticks since 1970-01-01 in UTC.
    has_zone : bool or None
        Whether a datetime has a time zone; None for dates, durations and times of day.
    tick : int
        Length of a tick in nanoseconds.
    """

    counts: str
    has_zone: bool | None
    tick: int

    @classmethod
    def of(cls, dtype: Any) -> Clock | None:
        """The clock of a dtype of narwhals; None if its cells are no times."""
        if dtype == nw.Date:
            return cls("moments", None, DAY)
        if dtype == nw.Datetime:
            return cls("moments", dtype.time_zone is not None, NANOSECONDS[dtype.time_unit])
        if dtype == nw.Duration:
            return cls("durations", None, NANOSECONDS[dtype.time_unit])
        if dtype == nw.Time:
            return cls("times of day", None, 1)
        return None

    def reads(self, other: Clock) -> bool:
        """Whether ticks of another clock mean something on this one."""
        # a date is neither in a zone nor in none
        zones = {self.has_zone, other.has_zone} - {None}

        return self.counts == other.counts and len(zones) < 2


def convert(ticks: np.ndarray, own: Clock | None, fitted: Clock | None, label: str, dtype: Any) -> np.ndarray:
    """Ticks of the clock that a column was fitted with.

    Parameters
    ----------
    ticks : ndarray of float64 of shape (n_samples,)
        NaN where a cell is missing.
    own, fitted : Clock or None
        Of the column as it is, and as it was at fit; None if it holds no times.
    label : str
        What errors call the column.
    dtype : narwhals dtype
        Of the column as it is.

    Returns
    -------
    ticks : ndarray of float64 of shape (n_samples,)

    Raises
    ------
    ValueError
        If one column holds times and the other does not, or times of another sort.
    """
    # nothing but missing cells has no unit
    if own == fitted or np.isnan(ticks).all():
        return ticks

    if own is None or fitted is None or not fitted.reads(own):
        raise ValueError(
            f"Column {label} is of dtype {dtype}, but it held {_described(fitted)} at fit. Convert it to the dtype that it "
            f"had then."
        )

    # whole multiples are exact where the product is
    if own.tick >= fitted.tick:
        return ticks * (own.tick // fitted.tick)
    return ticks / (fitted.tick // own.tick)


def _described(clock: Clock | None) -> str:
    """What the cells of a column are, in words."""
    if clock is None:
        return "numbers"
    if clock.has_zone is None:
        return "dates" if clock.counts == "moments" else clock.counts
    return "datetimes with a time zone" if clock.has_zone else "datetimes without a time zone"
