"""The container of a table — library, names, dtypes — as plain data, and containers made from it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.clocks import DAY, NANOSECONDS, Clock
from skvae.table.containers import as_frame
from skvae.table.plain import from_plain, to_plain

TEMPORAL = ("Date", "Datetime", "Duration", "Time")
"""Types of narwhals whose cells are ticks of a clock."""

LIBRARIES = ("pandas", "polars", "pyarrow", "modin.pandas", "cudf", None)
"""Modules that make frames: no other one is ever imported because a state names it."""

DESCRIPTIONS = ("name", "category", "string", "arrow string")
"""What dtypes of pandas are described as, beside types of narwhals."""

DATES = (-719_162, 2_932_896)
"""Days from 1970-01-01 to the first and the last day that Python knows: 0001-01-01 and 9999-12-31."""


@dataclass(frozen=True)
class Schema:
    """Names and dtypes of a table, and the library that it comes from.

    Attributes
    ----------
    library : str or None
        Name of the module that makes frames, such as ``"pandas"``; None stands for arrays.
    names : list of length n_columns
        Column names, or positions for an array.
    dtypes : list of dict of length n_columns
        Descriptions of the dtypes of a frame's columns, from which `native_dtypes` makes the dtypes.
    types : list of str of length n_columns
        Names of their types in narwhals, such as ``"Int64"`` or ``"Datetime"``.
    axis : dict
        For pandas, dtype and names of the index that holds the column names.
    array_dtype : str
        Dtype of arrays given back, ``"float32"``, ``"float64"`` or ``"object"``.
    """

    library: str | None
    names: list
    dtypes: list[dict]
    types: list[str]
    axis: dict
    array_dtype: str

    @classmethod
    def of(cls, X: Any) -> Schema:
        """The schema of an array (as `as_table` returns it) or a frame."""
        frame = as_frame(X)
        if frame is None:
            array_dtype = "float64"
            if X.dtype in (np.float32, object):
                array_dtype = str(X.dtype)
            return cls(None, list(range(X.shape[1])), [], [], {}, array_dtype)

        # an empty frame: some dtypes of narwhals depend on the cells
        empty = frame.head(0)
        native = empty.to_native()
        library = nw.get_native_namespace(frame).__name__

        dtypes = list(map(_describe, empty.schema.values()))
        types = [description["type"] for description in dtypes]
        array_dtype = "float64"
        if set(types) == {"Float32"}:
            array_dtype = "float32"

        # pandas has more dtypes than narwhals tells apart, and names for the index of columns
        axis = {}
        if library == "pandas":
            dtypes = list(map(_describe_pandas, native.dtypes))
            axis = {"dtype": _describe_pandas(native.columns.dtype), "names": list(native.columns.names)}

        return cls(library, frame.columns, dtypes, types, axis, array_dtype)

    @property
    def labels(self) -> list[str]:
        """list of str : what error messages call the columns."""
        labels = []
        for name in self.names:
            if isinstance(name, str):
                labels.append(repr(name))
            else:
                labels.append(str(name))
        return labels

    @property
    def clocks(self) -> list[Clock | None]:
        """list of (Clock or None) of length n_columns : what the ticks of each column count; None for no times."""
        clocks: list[Clock | None] = [None] * len(self.names)

        # arrays have no types, and hold no times
        for j, name in enumerate(self.types):
            if name in TEMPORAL:
                clocks[j] = Clock.of(self._narwhals_dtype(j))

        return clocks

    def is_integer(self, column: int) -> bool:
        """Whether a column of a frame has an integer dtype."""
        return self.library is not None and "Int" in self.types[column]

    def is_boolean(self, column: int) -> bool:
        """Whether a column of a frame has a boolean dtype."""
        return self.library is not None and self.types[column] == "Boolean"

    def time_dtype(self, column: int) -> np.dtype | None:
        """The dtype of numpy whose ticks those of a column of times are; None for other columns, and times of day."""
        clock = self.clocks[column]
        if clock is None or clock.counts == "times of day":
            return None

        unit = {length: name for name, length in NANOSECONDS.items()}.get(clock.tick, "D")
        return np.dtype(f"{'datetime64' if clock.counts == 'moments' else 'timedelta64'}[{unit}]")

    def holds_numbers(self, column: int) -> bool:
        """Whether the cells of a column are numbers, booleans or times."""
        if self.library is None:
            return self.array_dtype != "object"
        return self.types[column] not in ("Categorical", "Enum", "String", "Object", "Unknown")

    def can_hold(self, column: int, value: float) -> bool:
        """Whether a column of a frame holds a number to the bit: integers and booleans are no fractions."""
        if self.is_boolean(column):
            return value in (0, 1)
        return not self.is_integer(column) or value == np.rint(value)

    def cell(self, column: int, value: Any) -> nw.Series:
        """A value as a frame's column of one cell, in the dtype of the column if that is a time."""
        cell = nw.new_series("", [value], backend=self._backend())
        # the length of a tick depends on the dtype
        if self.types[column] in TEMPORAL:
            return cell.cast(self._narwhals_dtype(column))
        return cell

    def write(self, columns: Sequence[np.ndarray]) -> Any:
        """A frame from columns of shape (n_samples,), of numbers or objects."""
        if self.library == "pandas":
            return self._write_pandas(columns)

        clocks = self.clocks
        schema = {}
        cells = {}
        for j, name in enumerate(self.names):
            schema[name] = self._narwhals_dtype(j)
            cells[name] = _cast(columns[j], self.types[j], clocks[j])

        if self.library == "polars":
            return _write_polars(cells, schema)
        return _write_others(cells, schema, self._backend())

    def _backend(self) -> Any:
        return importlib.import_module(str(self.library))

    def state(self) -> dict:
        """The schema as JSON can hold it.

        Raises
        ------
        ValueError
            If a name or a dtype has no plain form.
        """
        for description in self.dtypes:
            if description["type"] == "native":
                raise ValueError(
                    f"The dtype {description['dtype']!r} has no plain form. Convert the column to another dtype."
                )

        return {
            "library": self.library,
            "names": [to_plain(name) for name in self.names],
            "dtypes": self.dtypes,
            "types": self.types,
            "axis": self.axis,
            "array_dtype": self.array_dtype,
        }

    @classmethod
    def from_state(cls, state: dict) -> Schema:
        """The schema whose `state` is given.

        Raises
        ------
        ValueError
            If it names another library, or no dtype.
        """
        if state["library"] not in LIBRARIES:
            raise ValueError(f"{state['library']!r} is no library of frames")
        for name in (*state["types"], *(description["type"] for description in state["dtypes"])):
            dtype = getattr(nw, name, None)
            if name not in DESCRIPTIONS and not (isinstance(dtype, type) and issubclass(dtype, nw.dtypes.DType)):
                raise ValueError(f"{name!r} is no dtype")

        names = [from_plain(name) for name in state["names"]]
        return cls(**{**state, "names": names})

    # -------------------------------------------------------------------------------------------------------- libraries

    def _narwhals_dtype(self, column: int) -> Any:
        description = self.dtypes[column]
        if self.library != "pandas":
            return _narwhals_dtype(description)

        pandas = importlib.import_module("pandas")
        empty = pandas.Series([], dtype=_pandas_dtype(description))
        return nw.from_native(empty, series_only=True).dtype

    def _write_pandas(self, columns: Sequence[np.ndarray]) -> Any:
        pandas = importlib.import_module("pandas")
        clocks = self.clocks
        series = {}
        for j, column in enumerate(columns):
            cast = _cast(column, self.types[j], clocks[j])
            series[j] = _pandas_series(pandas, cast, _pandas_dtype(self.dtypes[j]))

        frame = pandas.DataFrame(series, index=range(len(columns[0])))
        frame.columns = self._pandas_axis(pandas)
        return frame

    def _pandas_axis(self, pandas: Any) -> Any:
        names = self.axis["names"]
        if len(names) > 1:
            return pandas.MultiIndex.from_tuples(self.names, names=names)
        return pandas.Index(self.names, dtype=_pandas_dtype(self.axis["dtype"]), name=names[0], tupleize_cols=False)


# ----------------------------------------------------------------------------------------------- dtypes as plain data


def _describe(dtype: Any) -> dict:
    """A dtype of narwhals as its name and what it is made with."""
    description: dict = {"type": type(dtype).__name__}

    if dtype == nw.Datetime:
        description["time_unit"] = dtype.time_unit
        description["time_zone"] = dtype.time_zone
    elif dtype == nw.Duration:
        description["time_unit"] = dtype.time_unit
    elif dtype == nw.Enum:
        description["categories"] = list(dtype.categories)
    elif dtype == nw.Decimal:
        description["precision"] = dtype.precision
        description["scale"] = dtype.scale
    return description


def _narwhals_dtype(description: dict) -> Any:
    arguments = dict(description)
    name = arguments.pop("type")
    return getattr(nw, name)(**arguments)


def _describe_pandas(dtype: Any) -> dict:
    """A dtype of pandas as its name; categories and strings have more to tell, and some dtypes have no plain form."""
    pandas = importlib.import_module("pandas")
    if isinstance(dtype, pandas.CategoricalDtype):
        if dtype.categories is None:
            return {"type": "name", "name": "category"}
        return {
            "type": "category",
            "categories": [to_plain(level) for level in dtype.categories.tolist()],
            "of": _describe_pandas(dtype.categories.dtype),
            "ordered": bool(dtype.ordered),
        }
    if isinstance(dtype, pandas.StringDtype):
        has_na = dtype.na_value is pandas.NA
        return {"type": "string", "storage": dtype.storage, "has_na": has_na}
    if str(dtype) == "string[pyarrow]":
        # the one dtype of arrow whose name is also that of another dtype
        return {"type": "arrow string"}

    if _has_name(dtype):
        return {"type": "name", "name": str(dtype)}
    return {"type": "native", "dtype": dtype}


def _has_name(dtype: Any) -> bool:
    """Whether the text of a dtype of pandas stands for all of it, as it does for most."""
    pandas = importlib.import_module("pandas")
    try:
        return pandas.api.types.pandas_dtype(str(dtype)) == dtype
    except (TypeError, ValueError, NotImplementedError):
        # pandas reads no dtype from this text
        return False


def _pandas_dtype(description: dict) -> Any:
    pandas = importlib.import_module("pandas")
    if description["type"] == "native":
        return description["dtype"]
    if description["type"] == "name":
        return pandas.api.types.pandas_dtype(description["name"])
    if description["type"] == "string":
        # a storage of that name says so itself, in releases of pandas that take no missing value here
        if description["has_na"] or description["storage"] == "pyarrow_numpy":
            return pandas.StringDtype(description["storage"])
        return pandas.StringDtype(description["storage"], na_value=np.nan)
    if description["type"] == "arrow string":
        return pandas.ArrowDtype(importlib.import_module("pyarrow").string())

    levels = [from_plain(level) for level in description["categories"]]
    # levels may be tuples, which are no names of a MultiIndex
    categories = pandas.Index(levels, dtype=_pandas_dtype(description["of"]), tupleize_cols=False)
    return pandas.CategoricalDtype(categories, ordered=description["ordered"])


# ------------------------------------------------------------------------------------------------------ cells of a dtype


def _cast(column: np.ndarray, type_name: str, clock: Clock | None) -> np.ndarray:
    """Cells of shape (n_samples,) as a type of narwhals wants them: booleans by the nearer value, the others in range."""
    if column.dtype == object:
        return column

    # no cell at fit: none to give back
    if column.dtype.kind == "f" and not type_name.startswith("Float") and np.isnan(column).any():
        present = ~np.isnan(column)
        cells = np.full(len(column), None, dtype=object)
        cells[present] = _cast(column[present], type_name, clock).astype(object)
        return cells

    if type_name == "Boolean":
        return column > 0.5
    # whole numbers that floats might round come as they are
    if column.dtype.kind in "iu":
        return column
    if "Int" in type_name:
        # numpy has no integers of 128 bits
        return _as_integers(column, np.iinfo(type_name.lower().replace("128", "64")))
    if type_name in TEMPORAL:
        return _as_ticks(column, clock)
    if type_name == "Float32":
        largest = float(np.finfo(np.float32).max)
        return np.clip(column, -largest, largest)
    return column


def _as_ticks(column: np.ndarray, clock: Clock | None) -> np.ndarray:
    low, high = -np.inf, np.inf
    if clock is not None and clock.counts == "times of day":
        low, high = 0, DAY - 1
    elif clock is not None and clock.counts == "moments":
        per_day = DAY // clock.tick
        low, high = DATES[0] * per_day, DATES[1] * per_day

    ticks = _as_integers(np.clip(column, low, high), np.iinfo(np.int64))
    # the smallest number stands for a missing cell
    ticks = np.maximum(ticks, -np.iinfo(np.int64).max)
    if clock is not None and clock.tick == DAY:
        return ticks.astype(np.int32)
    return ticks


def _as_integers(column: np.ndarray, info: np.iinfo) -> np.ndarray:
    # float64 cannot hold the largest 64-bit integers: clip below them, then convert
    high = float(info.max)
    if info.bits == 64:
        high = np.nextafter(high, 0)
    return np.clip(np.rint(column), float(info.min), high).astype(info.dtype)


def _write_polars(columns: dict[str, np.ndarray], schema: dict) -> Any:
    """A frame of polars from columns of cells and dtypes of narwhals."""
    polars = importlib.import_module("polars")
    empty = nw.from_dict(dict.fromkeys(schema, ()), schema, backend=polars).to_native()

    series = []
    for name, column in columns.items():
        # polars infers the type of a list, and keeps objects of an array as they are
        cells: Any = column
        if column.dtype == object:
            cells = column.tolist()
        own = polars.Series(name, cells)

        # nothing can be cast to the dtype of any object
        dtype = empty.schema[name]
        if dtype == polars.Object:
            own = polars.Series(name, cells, dtype=dtype)
        series.append(own.cast(dtype))

    return polars.DataFrame(series)


def _write_others(columns: dict[str, np.ndarray], schema: dict, backend: Any) -> Any:
    """A frame of another library from columns of cells and dtypes of narwhals."""
    series = []
    for name, column in columns.items():
        own = nw.new_series(name, column, backend=backend)
        # what narwhals does not know has the type of its cells
        if schema[name] != nw.Unknown:
            own = own.cast(schema[name])
        series.append(own)

    # a frame made of a dict of series may infer their types again
    return series[0].to_frame().with_columns(series[1:]).to_native()


def _pandas_series(pandas: Any, column: np.ndarray, dtype: Any) -> Any:
    if column.dtype == object and set(column) <= {None}:
        # integers and booleans of numpy have no missing cells
        if isinstance(dtype, np.dtype) and dtype.kind in "iub":
            dtype = "object" if dtype.kind == "b" else "float64"
        # a list, for pandas would make the text "None" of an array of them in some dtypes
        return pandas.Series([None] * len(column), dtype=dtype)

    # ticks count from the epoch in UTC
    if getattr(dtype, "tz", None) is not None:
        naive = pandas.Series(column.astype(f"datetime64[{dtype.unit}]"))
        return naive.dt.tz_localize("UTC").dt.tz_convert(dtype.tz)
    return pandas.Series(column).astype(dtype)
