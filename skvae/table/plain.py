"""Plain forms of names, levels and parameters: what JSON can hold, and the way back."""

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

COLLECTIONS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set}
"""Collections that a parameter may be, by the name of their type."""

KEYS = 624
"""Length of the state of numpy's Mersenne Twister."""

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


def plain_parameter(name: str, value: Any) -> Any:
    """A parameter of an estimator as JSON can hold it.

    Parameters
    ----------
    name : str
        What errors call it.
    value : object
        A number, text, a date, None, a random state, or a list, tuple, dict or array of these.

    Raises
    ------
    TypeError
        If there is no plain form of it.
    """
    if isinstance(value, np.random.RandomState):
        name_of_kind, *others = value.get_state(legacy=True)
        return {"type": "RandomState", "value": [name_of_kind, np.asarray(others[0]).tolist(), *others[1:]]}
    if isinstance(value, dict):
        items = [[plain_parameter(name, key), plain_parameter(name, own)] for key, own in value.items()]
        return {"type": "dict", "value": items}
    if isinstance(value, np.ndarray):
        dtype = "str" if value.dtype.kind == "U" else str(value.dtype)
        return {"type": "array", "dtype": dtype, "value": plain_parameter(name, value.tolist())}
    for kind, collection in COLLECTIONS.items():
        if isinstance(value, collection):
            return {"type": kind, "value": [plain_parameter(name, cell) for cell in value]}

    try:
        return to_plain(value)
    except ValueError:
        raise TypeError(
            f"{name}={value!r} has no plain form, so that no file can hold it. Expected numbers, text, dates, lists, dicts or "
            f"arrays; use pickle, joblib or skops.io for this model."
        ) from None


def parameter_of(plain: Any) -> Any:
    """The parameter whose `plain_parameter` is given."""
    kind = plain.get("type") if isinstance(plain, dict) else None
    if kind == "RandomState":
        return _random_state(*plain["value"])
    if kind == "dict":
        return {parameter_of(key): parameter_of(value) for key, value in plain["value"]}
    if kind == "array":
        # a dtype of texts may ask for any amount of memory
        if plain["dtype"] != "str" and np.dtype(plain["dtype"]).kind not in "biufO":
            raise ValueError(f"{plain['dtype']!r} is no dtype of a parameter")
        return np.array(parameter_of(plain["value"]), dtype=plain["dtype"])
    if kind in COLLECTIONS:
        return COLLECTIONS[kind](parameter_of(cell) for cell in plain["value"])
    return from_plain(plain)


def _random_state(name: str, keys: list[int], position: int, has_gauss: int, cached: float) -> np.random.RandomState:
    """A random state from what numpy says of it, which numpy itself does not check."""
    if len(keys) != KEYS or not 0 <= position <= KEYS:
        raise ValueError("these are no numbers of a RandomState")

    random_state = np.random.RandomState()
    random_state.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    return random_state


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
