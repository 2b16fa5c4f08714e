"""The container of a table — library, names, dtypes — as plain data, and containers made from it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae.table.containers import as_frame
from skvae.table.plain import from_plain, to_plain


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
        Float dtype of arrays given back, ``"float32"`` or ``"float64"``.
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
            array_dtype = "float32" if X.dtype == np.float32 else "float64"
            return cls(None, list(range(X.shape[1])), [], [], {}, array_dtype)

        # an empty frame: some dtypes of narwhals depend on the cells
        empty = frame.head(0)
        native = empty.to_native()
        library = nw.get_native_namespace(frame).__name__

        axis = {}
        dtypes = [_describe(dtype) for dtype in empty.schema.values()]
        if library == "pandas":
            dtypes = [_describe_pandas(dtype) for dtype in native.dtypes]
            axis = {"dtype": _describe_pandas(native.columns.dtype), "names": list(native.columns.names)}

        types = [type(dtype).__name__ for dtype in empty.schema.values()]
        all_single = all(dtype == nw.Float32 for dtype in frame.schema.values())
        return cls(library, frame.columns, dtypes, types, axis, "float32" if all_single else "float64")

    @property
    def labels(self) -> list[str]:
        """list of str : what error messages call the columns."""
        labels = []
        for name in self.names:
            labels.append(repr(name) if isinstance(name, str) else str(name))
        return labels

    def is_integer(self, column: int) -> bool:
        """Whether a column of a frame has an integer dtype."""
        return self.library is not None and "Int" in self.types[column]

    def cell(self, column: int, value: Any) -> nw.Series:
        """A value as a frame's column of one cell, in the dtype of the column if that is a time."""
        cell = nw.new_series("", [value], backend=self.library)
        dtype = self._narwhals_dtype(column)
        return cell.cast(dtype) if dtype.is_temporal() else cell

    def write(self, columns: Sequence[np.ndarray]) -> Any:
        """A frame from columns of shape (n_samples,), of numbers or objects."""
        if self.library == "pandas":
            return self._write_pandas(columns)

        cast = []
        for j, column in enumerate(columns):
            cast.append(_cast(column, self._narwhals_dtype(j)))
        if self.library == "polars":
            return self._write_polars(cast)

        schema = {name: self._narwhals_dtype(j) for j, name in enumerate(self.names)}
        by_name = dict(zip(self.names, cast, strict=True))
        return nw.from_dict(by_name, schema, backend=self.library).to_native()

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
        """The schema whose `state` is given."""
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
        series = {}
        for j, column in enumerate(columns):
            cast = _cast(column, self._narwhals_dtype(j))
            series[j] = _pandas_series(pandas, cast, _pandas_dtype(self.dtypes[j]))

        frame = pandas.DataFrame(series, index=range(len(columns[0])))
        frame.columns = self._pandas_axis(pandas)
        return frame

    def _pandas_axis(self, pandas: Any) -> Any:
        names = self.axis["names"]
        if len(names) > 1:
            return pandas.MultiIndex.from_tuples(self.names, names=names)
        return pandas.Index(self.names, dtype=_pandas_dtype(self.axis["dtype"]), name=names[0], tupleize_cols=False)

    def _write_polars(self, columns: Sequence[np.ndarray]) -> Any:
        polars = importlib.import_module("polars")
        schema = {name: self._narwhals_dtype(j) for j, name in enumerate(self.names)}
        empty = nw.from_dict({name: [] for name in self.names}, schema, backend=polars).to_native()

        series = []
        for name, column, dtype in zip(self.names, columns, empty.dtypes, strict=True):
            cells = column.tolist() if column.dtype == object else column
            series.append(polars.Series(name, cells).cast(dtype))
        return polars.DataFrame(series)


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
    arguments = {name: value for name, value in description.items() if name != "type"}
    return getattr(nw, description["type"])(**arguments)


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
        missing = "nan" if dtype.na_value is not pandas.NA else "NA"
        return {"type": "string", "storage": dtype.storage, "missing": missing}

    try:
        if pandas.api.types.pandas_dtype(str(dtype)) == dtype:
            return {"type": "name", "name": str(dtype)}
    except (TypeError, ValueError, NotImplementedError):
        pass
    return {"type": "native", "dtype": dtype}


def _pandas_dtype(description: dict) -> Any:
    pandas = importlib.import_module("pandas")
    if description["type"] == "native":
        return description["dtype"]
    if description["type"] == "name":
        return pandas.api.types.pandas_dtype(description["name"])
    if description["type"] == "string":
        missing = np.nan if description["missing"] == "nan" else pandas.NA
        return pandas.StringDtype(description["storage"], na_value=missing)

    levels = [from_plain(level) for level in description["categories"]]
    categories = pandas.Index(levels, dtype=_pandas_dtype(description["of"]))
    return pandas.CategoricalDtype(categories, ordered=description["ordered"])


# ------------------------------------------------------------------------------------------------------ cells of a dtype


def _cast(column: np.ndarray, dtype: Any) -> np.ndarray:
    """Cells of shape (n_samples,) as `dtype` wants them: booleans by the nearer value, integers rounded and in range."""
    if column.dtype == object:
        return column

    # no cell at fit: none to give back
    if np.isnan(column).all() and not dtype.is_float():
        return np.full(len(column), None, dtype=object)

    if dtype == nw.Boolean:
        return column > 0.5
    if dtype.is_integer():
        return _as_integers(column, np.iinfo(str(dtype).lower()))
    if dtype.is_temporal():
        return np.rint(column).astype(np.int64)
    return column


def _as_integers(column: np.ndarray, info: np.iinfo) -> np.ndarray:
    # float64 cannot hold the largest 64-bit integers: clip below them, then convert
    high = float(info.max)
    if info.bits == 64:
        high = np.nextafter(high, 0)
    return np.clip(np.rint(column), float(info.min), high).astype(info.dtype)


def _pandas_series(pandas: Any, column: np.ndarray, dtype: Any) -> Any:
    if column.dtype == object and all(value is None for value in column):
        return pandas.Series([None] * len(column), dtype=dtype)

    if getattr(dtype, "tz", None) is not None:
        naive = pandas.Series(column.astype(f"datetime64[{dtype.unit}]"))
        return naive.dt.tz_localize("UTC").dt.tz_convert(dtype.tz)
    return pandas.Series(column).astype(dtype)
