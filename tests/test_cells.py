"""Cells of a container as floats: missing ones, levels and their order, what is refused."""

import datetime

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from tables import FRAMES, LETTERS, NUMBERS, STAMPS, N, quick, table_of

from skvae.table import Table
from skvae.table.cells import find_levels, read_levels, read_numbers


def series(cells, **options):
    """A column of pandas as narwhals has it."""
    return nw.from_native(pd.Series(cells, **options), series_only=True)


# -------------------------------------------------------------------------------------------------------------- missing


def test_missing_cells_are_read_as_such_whatever_they_are_called():
    frame = FRAMES["pandas"]()
    holes = frame.astype({"bool": object}).mask(np.tile(np.arange(N)[:, None] == 5, (1, frame.shape[1])))
    holes = holes.astype({c: t for c, t in frame.dtypes.items() if c != "bool"}).drop(columns="bool")
    values = Table.fit(holes)[1]
    assert np.isnan(values[5]).all()
    assert np.isfinite(np.delete(values, 5, axis=0)).all()
    polars = FRAMES["polars"]()
    values = Table.fit(polars.with_columns(pl.when(pl.int_range(N) != 5).then(pl.all())))[1]
    assert np.isnan(values[5]).all()
    assert np.isfinite(np.delete(values, 5, axis=0)).all()


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, np.float32("nan")], ids=repr)
def test_missing_cells_among_texts_have_many_names(nothing):
    cells = pd.DataFrame({"text": pd.Series([*"abba" * 6, nothing], dtype=object), "x": np.arange(25.0)})
    table, values = Table.fit(cells)
    assert np.isnan(values[-1, 0])
    assert table.columns[0].levels == ["a", "b"]
    assert table.columns[0].has_missing
    assert not table.columns[1].has_missing


# -------------------------------------------------------------------------------------------------------------- numbers


def test_times_are_ticks_of_their_unit():
    for unit, per_second in (("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        ticks = read_numbers(series(STAMPS.as_unit(unit)), "'t'")
        np.testing.assert_array_equal(ticks, STAMPS.as_unit("s").astype(np.int64) * per_second)
    days = read_numbers(nw.from_native(pl.Series(list(STAMPS)).cast(pl.Date), series_only=True), "'t'")
    np.testing.assert_array_equal(days, STAMPS.as_unit("s").astype(np.int64) // 86_400)


def test_single_precision_stays_where_all_of_the_table_has_it():
    single = pd.DataFrame({"a": NUMBERS, "b": NUMBERS}).astype(np.float32)
    assert Table.fit(single)[1].dtype == np.float32
    assert Table.fit(single.assign(b=NUMBERS))[1].dtype == np.float64
    assert Table.fit(single.to_numpy())[1].dtype == np.float32


def test_infinity_is_an_error_that_names_the_column():
    frame = pd.DataFrame({"x": NUMBERS, "income": np.where(np.arange(N) == 3, np.inf, NUMBERS)})
    with pytest.raises(ValueError, match="'income' contains infinity"):
        Table.fit(frame)


def test_what_is_no_number_is_an_error_that_names_the_column():
    frame = pl.DataFrame({"x": NUMBERS, "lists": [[1, 2]] * N})
    with pytest.raises(ValueError, match=r"'lists' of dtype List.* holds a list or a record in each cell"):
        Table.fit(frame)


def test_decimals_are_numbers():
    cells = pl.Series(np.arange(N) / 4).cast(pl.Decimal(10, 2))
    np.testing.assert_array_equal(Table.fit(pl.DataFrame({"price": cells}))[1][:, 0], np.arange(N) / 4)
    np.testing.assert_array_equal(Table.fit(pa.table({"price": cells.to_arrow()}))[1][:, 0], np.arange(N) / 4)


def test_times_of_arrow_are_ticks_too():
    days = [datetime.date(2024, 2, 28) + datetime.timedelta(days=i) for i in range(N)]
    times = [datetime.time(i % 24, i) for i in range(N)]
    expected = np.column_stack(
        [
            [day.toordinal() - datetime.date(1970, 1, 1).toordinal() for day in days],
            [t.hour * 60 + t.minute for t in times],
        ]
    )
    for unit in (pa.time32("s"), pa.time64("us"), pa.time64("ns")):
        frame = pa.table({"day": pa.array(days, pa.date32()), "time": pa.array(times, unit)})
        table, values = Table.fit(frame)
        np.testing.assert_array_equal(values, expected * [1, 60e9])
        assert table.write(values).to_pydict() == frame.to_pydict()


# --------------------------------------------------------------------------------------------------------------- levels


def test_levels_are_ordered_as_the_dtype_orders_them_else_sorted():
    table = table_of(FRAMES["pandas"]())
    levels = {name: column.levels for name, column in zip(table.schema.names, table.columns, strict=True)}
    assert levels["text"] == levels["object"] == levels["string"] == ["a", "b", "c"]
    assert levels["category"] == ["c", "a", "b"]
    assert levels["ordered"] == ["c", "b", "a"]
    assert levels["number levels"] == [0, 10, 20, 30]
    assert all(levels[name] is None for name in ("float", "bool", "Int64", "nanoseconds", "timedelta"))
    table = table_of(FRAMES["polars"]())
    levels = {name: column.levels for name, column in zip(table.schema.names, table.columns, strict=True)}
    assert levels["enum"] == ["c", "b", "a"]
    assert sorted(levels["categorical"]) == levels["string"] == ["a", "b", "c"]


TEXTS = ["b", None, "a", "b", None, "c"]
COLUMNS_OF_TEXTS = {
    "ndarray": lambda: np.array(TEXTS, dtype=object),
    "pandas object": lambda: series(TEXTS, dtype=object),
    "pandas string": lambda: series(TEXTS, dtype="string"),
    "pandas category": lambda: series(TEXTS, dtype=pd.CategoricalDtype(["a", "b", "c", "unused"])),
    "polars string": lambda: nw.from_native(pl.Series(TEXTS), series_only=True),
    "polars categorical": lambda: nw.from_native(pl.Series(TEXTS, dtype=pl.Categorical), series_only=True),
    "polars enum": lambda: nw.from_native(pl.Series(TEXTS, dtype=pl.Enum(["a", "b", "c", "unused"])), series_only=True),
    "arrow": lambda: nw.from_native(pa.chunked_array([TEXTS]), series_only=True),
}


@pytest.mark.parametrize("kind", COLUMNS_OF_TEXTS)
def test_texts_are_the_same_levels_in_every_container(kind):
    column = COLUMNS_OF_TEXTS[kind]()
    levels = find_levels(column, "'x'")
    assert sorted(levels) == ["a", "b", "c"]
    positions = read_levels(column, levels, "'x'")
    np.testing.assert_array_equal(np.isnan(positions), [text is None for text in TEXTS])
    assert [levels[int(k)] for k in positions[~np.isnan(positions)]] == ["b", "a", "b", "c"]


@pytest.mark.parametrize("library", [pd, pl], ids=lambda module: module.__name__)
def test_numbers_as_levels_have_no_level_that_is_not_a_number(library):
    column = nw.from_native(library.Series([2.5, float("nan"), 1.0]), series_only=True)
    assert find_levels(column, "'x'") == [1.0, 2.5]
    np.testing.assert_array_equal(read_levels(column, [1.0, 2.5], "'x'"), [1, np.nan, 0])


def test_columns_of_booleans_are_flags_whatever_they_hold():
    frame = pd.DataFrame({"flag": [True] * 12, "maybe": pd.array([True, None] * 6, dtype="boolean")})
    assert [column.kind.name for column in table_of(frame).columns] == ["bernoulli"] * 2


def test_levels_of_several_types_are_sorted_by_type():
    assert find_levels(series([3, "b", 1, "a", None], dtype=object), "'x'") == [1, 3, "a", "b"]


@pytest.mark.parametrize("cell", [[1, 2], {}, 1j], ids=str)
def test_cells_without_an_order_are_an_error_that_says_what_to_do(cell):
    frame = pd.DataFrame(
        {"x": NUMBERS, "odd": pd.Series([cell] * (N - 1) + [2 * cell if cell else cell], dtype=object)}
    )
    with pytest.raises(ValueError, match=r"'odd' holds cells that cannot be levels.*Convert them to numbers or text"):
        Table.fit(frame)


def test_numbers_may_all_differ():
    X = np.column_stack([NUMBERS, np.arange(N)])
    assert table_of(X, categorical_features=[1]).layout.n_levels == (N,)


@pytest.mark.parametrize("library", [pd, pl], ids=lambda module: module.__name__)
def test_unknown_levels_are_errors_or_missing(library):
    frame = library.DataFrame({"x": NUMBERS, "letter": LETTERS})
    other = library.DataFrame({"x": NUMBERS[:2], "letter": ["z", "a"]})
    table = table_of(frame)
    with pytest.raises(ValueError, match=r"'letter' holds 'z'.*3 levels seen at fit \('a', 'b', 'c'\).*handle_unknown"):
        table.read(other)
    codes = table.read(other, "ignore")[:, 1]
    assert np.isnan(codes[0])
    assert codes[1] == 0
    with pytest.raises(ValueError, match="handle_unknown"):
        quick().fit(frame).transform(other)
    assert np.isfinite(quick(handle_unknown="ignore").fit(frame).transform(other)).all()


def test_the_first_of_several_unknown_levels_is_named():
    with pytest.raises(ValueError, match="'x' holds 'q', "):
        read_levels(series(["a", "q", "y", "q"]), ["a", "b"], "'x'")


def test_level_that_only_the_dtype_names_is_unknown_as_to_histogram_boosting():
    dtype = pd.CategoricalDtype(["z", "a", "b", "c"])
    frame = pd.DataFrame({"x": NUMBERS, "letter": pd.Series(list(LETTERS), dtype=dtype)})
    never, missing = (frame[:1].assign(letter=pd.Series([level], dtype=dtype)) for level in ("z", None))
    vae = quick().fit(frame)
    with pytest.raises(ValueError, match=r"'letter' holds 'z'.*3 levels seen at fit"):
        vae.transform(never)
    vae.set_params(handle_unknown="ignore")
    np.testing.assert_array_equal(vae.transform(never), vae.transform(missing))
    boosted = HistGradientBoostingClassifier(max_iter=3).fit(frame, np.array(LETTERS) == "a")
    np.testing.assert_array_equal(boosted.predict_proba(never), boosted.predict_proba(missing))


def test_columns_of_one_name_are_an_error_that_says_which():
    with pytest.raises(ValueError, match="'a'"):
        Table.fit(pd.DataFrame(np.column_stack([NUMBERS, -NUMBERS]), columns=["a", "a"]))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_cells_that_are_there_are_kept_whatever_the_dtype_of_their_column(library):
    rng = np.random.default_rng(0)
    n = 60
    whole = pd.DataFrame(
        {"i": rng.integers(0, 9, n), "small": rng.integers(0, 9, n).astype("int32"), "x": rng.normal(size=n)}
    )
    vae = quick().fit(whole if library == "pandas" else pl.from_pandas(whole))
    some = whole.astype({"i": float, "small": "int64"})
    some.loc[0, "i"] = 1.5
    some.loc[1, "small"] = 2**53 + 1
    some.loc[2, "i"] = np.nan
    some.loc[3, "x"] = np.nan
    full = vae.impute(some if library == "pandas" else pl.from_pandas(some))
    full = full if library == "pandas" else full.to_pandas()
    assert full["i"][0] == 1.5
    assert full["small"][1] == 2**53 + 1
    np.testing.assert_array_equal(full["i"][3:], some["i"][3:])
    np.testing.assert_array_equal(full["small"], some["small"])
    assert full.notna().all().all()

    # what fits the dtype at fit has it
    some = some[4:].astype({"x": "float32"})
    full = vae.impute(some if library == "pandas" else pl.from_pandas(some))
    full = full if library == "pandas" else full.to_pandas()
    assert [str(dtype) for dtype in full.dtypes] == ["int64", "int32", "float64"]


@pytest.mark.parametrize("library", ["polars", "pyarrow", "arrow dtypes"])
def test_nan_that_is_no_null_is_filled(library):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    holes = frame.with_columns(a=pl.Series([float("nan"), None, *frame["a"].to_list()[2:]], dtype=pl.Float64))

    def as_library(table):
        if library == "polars":
            return table
        if library == "pyarrow":
            return table.to_arrow()
        return table.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)

    full = quick().fit(as_library(frame)).impute(as_library(holes))
    cells = np.array([float(cell) for cell in nw.from_native(full, eager_only=True)["a"].to_list()])
    assert np.isfinite(cells).all()
    np.testing.assert_array_equal(cells[2:], frame["a"].to_numpy()[2:])
