"""Plain forms of names and levels: through JSON and back to an equal value of the same type."""

import datetime
import decimal
import json
import zoneinfo

import numpy as np
import pandas as pd
import pytest

from skvae.table.plain import from_plain, to_plain

MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 1, 500)
VALUES = [
    None,
    True,
    False,
    0,
    -(2**70),
    0.1,
    float("inf"),
    "",
    "ü\n",
    b"\x00\xff",
    (),
    (1, "a"),
    ((1, 2), (None, 0.5)),
    datetime.date(2024, 2, 29),
    MOMENT,
    MOMENT.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    datetime.time(12, 30, 1, 500),
    datetime.timedelta(days=-3, microseconds=7),
    decimal.Decimal("1.10"),
    pd.Timestamp("2024-02-29 12:30:00.123456789"),
    pd.Timestamp("2024-02-29").as_unit("s"),
    pd.Timestamp("1600-01-01").as_unit("s"),
    pd.Timestamp("2024-02-29 12:30", tz="Europe/Berlin"),
    pd.Timestamp("2024-10-27 02:30", tz="UTC").tz_convert("Europe/Berlin"),
    pd.Timestamp("2024-02-29 12:30", tz="+02:00"),
    pd.Timestamp(MOMENT, tz=zoneinfo.ZoneInfo("Asia/Tokyo")),
    pd.Timedelta(123456789, unit="ns"),
    pd.Timedelta(days=3).as_unit("s"),
    pd.Timedelta(np.timedelta64(200_000 * 86_400, "s")),
    pd.Interval(0.5, 1.0, closed="left"),
    pd.Interval(pd.Timestamp("2024-01-01"), pd.Timestamp("2025-01-01")),
    pd.Period("2024-02", freq="M"),
    pd.Period("2024-02-29 12:00", freq="h"),
    pd.Period("2024-02-29", freq="W-WED"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {value}")
def test_values_come_back_from_json_as_they_were(value):
    back = from_plain(json.loads(json.dumps(to_plain(value))))
    assert back == value
    assert type(back) is type(value)
    if hasattr(value, "unit"):
        assert back.unit == value.unit
    if getattr(value, "tzinfo", None) is not None:
        assert back.utcoffset() == value.utcoffset()
    if isinstance(value, pd.Timestamp):
        # the way it is written tells the zone
        assert repr(back) == repr(value)
    if isinstance(value, pd.Interval):
        assert (back.closed, type(back.left)) == (value.closed, type(value.left))


@pytest.mark.parametrize("value", [np.int8(3), np.float64(0.1), np.str_("a"), np.bool_(True)], ids=repr)
def test_numbers_of_numpy_become_those_of_python(value):
    assert to_plain(value) == value
    assert type(to_plain(value)) in (int, float, str, bool)


def test_not_a_number_stays_none():
    assert repr(from_plain(json.loads(json.dumps(to_plain(float("nan")))))) == "nan"


@pytest.mark.parametrize(
    "value", [{1}, frozenset({1}), [1], {"a": 1}, object(), 1j, (1, {2})], ids=lambda v: str(v)[:20]
)
def test_what_has_no_plain_form_is_an_error_that_says_what_to_do(value):
    with pytest.raises(ValueError, match=r"has no plain form. Expected text, numbers, .*convert the column"):
        to_plain(value)
