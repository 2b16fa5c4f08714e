"""Plain forms of names and levels: what JSON can hold, and the way back."""

from __future__ import annotations

import datetime
import decimal
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

PARSERS: dict[str, Callable[[str], Any]] = {
    "bytes": bytes.fromhex,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "decimal": decimal.Decimal,
    "time": datetime.time.fromisoformat,
}
"""Readers of values that JSON does not have, by the name of their type; each writes itself as text."""

PANDAS_TYPES = ("Timestamp", "Timedelta", "Interval", "Period")
"""Types of pandas that a level may have; pandas is loaded where one occurs."""


def to_plain(value: Any) -> Any:
    """A name, a level or a tuple of them as JSON can hold it: itself, or a dict with its type.

    Raises
    ------
    ValueError
        If there is no plain form of its type.

    Examples
    --------
    >>> to_plain("red"), to_plain(datetime.date(2024, 2, 29))
    ('red', {'type': 'date', 'value': '2024-02-29'})
    """
    # numpy's scalars are Python's in other clothes
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value

    name = type(value).__name__
    # before dates and times: a Timestamp is a datetime, too
    if name in PANDAS_TYPES and type(value).__module__.startswith("pandas"):
        return {"type": name, "value": _plain_of_pandas(value)}
    if isinstance(value, tuple):
        return {"type": "tuple", "value": [to_plain(part) for part in value]}
    if isinstance(value, datetime.timedelta):
        return {"type": "timedelta", "value": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, bytes):
        return {"type": "bytes", "value": value.hex()}
    if isinstance(value, datetime.date | datetime.time):
        return {"type": name, "value": value.isoformat()}
    if isinstance(value, decimal.Decimal):
        return {"type": "decimal", "value": str(value)}

    raise ValueError(
        f"The level or name {value!r} of type {name} has no plain form. Expected text, numbers, dates, times, or tuples and "
        f"intervals of them; convert the column, say to text."
    )


def from_plain(plain: Any) -> Any:
    """The value whose plain form is `plain`: the inverse of `to_plain`.

    Examples
    --------
    >>> from_plain(to_plain((1, "red")))
    (1, 'red')
    """
    if not isinstance(plain, dict):
        return plain

    name = plain["type"]
    value = plain["value"]
    if name in PANDAS_TYPES:
        return _pandas_value(name, value)
    if name == "tuple":
        return tuple(from_plain(part) for part in value)
    if name == "timedelta":
        return datetime.timedelta(*value)
    return PARSERS[name](value)


def _plain_of_pandas(value: Any) -> Any:
    """Arguments that `_pandas_value` makes the value from."""
    name = type(value).__name__
    if name == "Interval":
        return [to_plain(value.left), to_plain(value.right), value.closed]
    if name == "Period":
        return [str(value), value.freqstr]
    # ticks of its own unit: in nanoseconds, times far from today overflow
    ticks = int(value.asm8.astype(np.int64))
    if name == "Timedelta":
        return [ticks, value.unit]

    zone = None
    if value.tz is not None:
        zone = str(value.tz)
    return [ticks, value.unit, zone]


def _pandas_value(name: str, arguments: list) -> Any:
    pandas = importlib.import_module("pandas")
    if name == "Interval":
        left, right, closed = arguments
        return pandas.Interval(from_plain(left), from_plain(right), closed)
    if name == "Period":
        text, frequency = arguments
        return pandas.Period(text, freq=frequency)
    if name == "Timedelta":
        ticks, unit = arguments
        return pandas.Timedelta(np.timedelta64(ticks, unit))

    ticks, unit, zone = arguments
    moment = pandas.Timestamp(np.datetime64(ticks, unit))
    if zone is None:
        return moment
    return moment.tz_localize("UTC").tz_convert(zone)
