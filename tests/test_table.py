"""A table becomes a matrix and comes back: parts of every kind with holes and all, in one pass over each column."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import encode
from tables import (
    FLAGS,
    LETTERS,
    NUMBERS,
    N,
    any_table,
    assert_same,
    kinds_of,
    names_of_parts,
    parts_in,
    there_and_back,
)

from skvae.table import Table
from skvae.table.quantiles import QuantileMap

# ----------------------------------------------------------------------------------------------------------------- parts


def test_parts_of_every_kind_come_back_with_holes_and_all():
    table, values = any_table()
    assert kinds_of(table) == [
        "normal", "categorical", "quantile_normal", "poisson", "bernoulli",
        "categorical", "constant", "negative_binomial", "quantile_normal", "zero_inflated_negative_binomial",
    ]  # fmt: skip
    assert names_of_parts(table) == [
        ("poisson", 3), ("negative_binomial", 7), ("zero_inflated_negative_binomial", 9), ("normal", 0), ("normal", 2),
        ("normal", 8), ("bernoulli", 4), ("categorical", 1), ("categorical", 2), ("categorical", 5),
    ]  # fmt: skip
    layout = table.layout
    assert layout.n_levels == (3, 2, len(table.columns[5].levels))
    assert layout.flagged == (0, 1, 2, 4, 5, 6)
    assert layout.gate == (-1, -1, -1, -1, 8, -1, -1, -1, -1, -1)
    assert [column.has_missing for column in table.columns] == [False] + [True] * 9
    # parts in the order of the columns, that of a spike before that of the rest
    assert [table.owners[i] for i in np.argsort(layout.rank)] == [0, 1, 2, 2, 3, 4, 5, 7, 8, 9]
    assert layout.rank[8] < layout.rank[4]
    parts, observed = parts_in(table, values), table.encode_values(values).observed
    np.testing.assert_array_equal(np.isnan(parts), ~observed)
    present = ~np.isnan(values)
    for i, (_, j) in enumerate(names_of_parts(table)):
        rest = present[:, j] & (values[:, j] != 0) if i == 4 else present[:, j]
        np.testing.assert_array_equal(observed[:, i], rest)
    back = table.decode(np.where(observed, parts, 0))
    np.testing.assert_allclose(back[present], values[present], rtol=1e-9, atol=1e-12)
    assert (back[:, 6] == 4).all()


def test_encoded_rows_are_those_made_cell_by_cell():
    table, values = any_table(60)
    by_hand = encode(table.layout, parts_in(table, values))
    np.testing.assert_allclose(table.encode_values(values).x, by_hand, rtol=1e-10, atol=1e-12)
    assert table.encode_values(values).x.shape == (60, table.layout.width)


def test_encoded_rows_have_the_precision_asked_for_or_that_of_the_values():
    table, values = any_table(60)
    assert table.encode_values(values, np.float32).x.dtype == np.float32
    assert table.encode_values(values.astype(np.float32)).x.dtype == np.float32
    assert table.encode_values(values).x.dtype == np.float64
    np.testing.assert_array_equal(
        table.encode_values(values, np.float32).x, table.encode_values(values).x.astype(np.float32)
    )


def test_log_jacobian_is_that_of_the_parts_observed():
    table, values = any_table()
    expected = np.full(len(values), -np.log(table.columns[0].kind.scale))
    for j in (2, 8):
        rest = ~np.isnan(values[:, j]) & ((values[:, j] != 0) | (j == 8))
        expected[rest] += table.columns[j].kind.quantiles.score(values[rest, j])[1]
    np.testing.assert_allclose(table.encode_values(values).log_jacobian, expected, rtol=1e-12)


def test_offset_is_the_logarithm_of_the_exposure_over_its_mean():
    years = np.linspace(0.5, 2, N)
    X = np.column_stack([np.arange(N) % 4, years])
    table, values = Table.fit(X, likelihood={"poisson": [0]}, exposure=1)
    values = values.copy()
    values[3, 1] = np.nan
    encoded = table.encode_values(values)
    expected = np.log(years / years.mean())
    expected[3] = np.nan
    np.testing.assert_allclose(encoded.offset, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(encoded.x[:, table.layout.offset][:, 0], np.nan_to_num(encoded.offset))
    assert any_table(60)[0].encode_values(any_table(60)[1]).offset is None


def test_no_decoded_exposure_is_below_the_smallest_seen():
    X = np.column_stack([np.arange(N) % 4, np.linspace(0.5, 2, N)])
    table, _ = Table.fit(X, likelihood={"poisson": [0], "normal": [1]}, exposure=1, bounds=None)
    parts = np.array([[1.0, -50.0], [1.0, 0.0], [1.0, 50.0]])
    decoded = table.decode(parts)[:, 1]
    assert decoded[0] == 0.5
    assert decoded[1] == pytest.approx(1.25)
    assert decoded[2] > 2


def test_parts_whose_means_are_means_of_columns_are_linear():
    table, _ = any_table()
    assert {names_of_parts(table)[i] for i in table.linear_parts} == {
        ("normal", 0), ("poisson", 3), ("negative_binomial", 7), ("zero_inflated_negative_binomial", 9),
    }  # fmt: skip


def test_a_row_without_any_cell_is_all_zeros_and_no_level():
    table, _ = any_table(60)
    encoded = table.encode_values(np.full((1, 10), np.nan))
    assert not encoded.x[:, : table.layout.first_level].any()
    assert (encoded.x[:, table.layout.first_level :] == -1).all()
    assert not encoded.observed.any()
    assert encoded.log_jacobian == 0


def test_a_table_without_any_cell_is_an_error():
    with pytest.raises(ValueError, match=r"All 80 cells of X are missing"):
        Table.fit(np.full((N, 2), np.nan))
    X = np.column_stack([NUMBERS, NUMBERS])
    X[1:] = np.nan
    with pytest.raises(ValueError, match=r"All 78 cells of X are missing"):
        Table.fit(X, sample_weight=np.eye(N)[0] * -1 + 1)


# -------------------------------------------------------------------------------------------------------------- one pass


def test_each_column_is_encoded_once_and_in_blocks(monkeypatch):
    table, values = any_table()
    whole = table.encode_values(values)
    calls = {}

    def counted(cls, name):
        method = getattr(cls, name)

        def call(self, *args):
            calls[name] = calls.get(name, 0) + 1
            return method(self, *args)

        monkeypatch.setattr(cls, name, call)

    counted(QuantileMap, "level")
    counted(QuantileMap, "score")
    counted(type(table.columns[0].kind), "encode")
    table.encode_values(values)
    # two columns have a score, and one of them levels beside it
    assert calls == {"level": 1, "score": 2, "encode": 1}
    calls.clear()
    monkeypatch.setattr("skvae.table.encoding.ROWS_AT_ONCE", 400)
    in_blocks = table.encode_values(values)
    assert calls == {"level": 4, "score": 8, "encode": 4}
    for one, other in zip(in_blocks, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_encode_is_read_and_encode_values():
    frame = pd.DataFrame({"x": NUMBERS, "letter": LETTERS, "flag": FLAGS})
    table, values = Table.fit(frame)
    other = frame.assign(letter=["z", *LETTERS[1:]], flag=[2, *FLAGS[1:]])
    np.testing.assert_array_equal(table.encode(frame).x, table.encode_values(values).x)
    encoded = table.encode(other, "ignore")
    assert encoded.observed[0].tolist() == [True, False, False]
    assert encoded.observed[1:].all()
    with pytest.raises(ValueError, match="'letter' holds 'z'"):
        table.encode(other)


def test_reading_leaves_the_rows_as_they_are():
    X = np.column_stack([NUMBERS, FLAGS])
    table, values = Table.fit(X)
    wrong = X.copy()
    wrong[1, 1] = 2
    before = wrong.copy()
    assert np.isnan(table.read(wrong, "ignore")[1, 1])
    np.testing.assert_array_equal(wrong, before)
    # an array of numbers is not copied
    assert np.shares_memory(values, X)


# --------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_cells_that_are_there_are_written_as_they_are(library):
    frame = library({"x": [0.1 + 0.2, None, 1 / 3], "letter": ["b", None, "a"]})
    table, values = Table.fit(frame)
    filled = table.write(np.where(np.isnan(values), 1.0, values + 1e-17), like=frame)
    assert list(filled["x"]) == [0.1 + 0.2, 1.0, 1 / 3]
    assert list(filled["letter"]) == ["b", "b", "a"]


def test_written_rows_keep_the_index_of_the_cells_they_complete():
    frame = pd.DataFrame({"x": [1.0, np.nan], "n": [1, 2]}, index=["one", "two"])
    table, values = Table.fit(frame)
    assert list(table.write(np.nan_to_num(values), like=frame).index) == ["one", "two"]
    assert list(table.write(values).index) == [0, 1]


def test_levels_are_the_nearest_positions():
    table, _ = Table.fit(pd.DataFrame({"letter": LETTERS}))
    cells = table.write(np.array([[-3.0], [0.4], [0.6], [1.9], [7.0]]))["letter"]
    assert cells.tolist() == ["a", "a", "b", "c", "c"]


# ---------------------------------------------------------------------------------------------------------------- checks


def test_checks_name_the_column():
    frame = pd.DataFrame(
        {"constant": [4.0] * N, "x": NUMBERS, "years": np.linspace(1, 2, N), "claims": np.arange(N) % 3}
    )
    table, values = Table.fit(frame, likelihood={"poisson": ["claims"]}, exposure="years")
    table.check_constant(values)
    table.check_exposure(values, to_score=True)
    wrong = values.copy()
    wrong[2] = [5.0, 0.0, np.nan, 1.0]
    with pytest.raises(ValueError, match=r"Column 'constant' was constant \(4\).*now it holds 5"):
        table.check_constant(wrong)
    with pytest.raises(ValueError, match=r"Column 'years' is the exposure.*missing in 1 of 40 rows"):
        table.check_exposure(wrong, to_score=True)
    table.check_exposure(wrong, to_score=False)
    wrong[2] = [np.nan, np.nan, -1.0, np.nan]
    with pytest.raises(ValueError, match=r"Column 'years' is the exposure.*must be positive"):
        table.check_exposure(wrong[2:3], to_score=False)


# -------------------------------------------------------------------------------------------------- any frame comes back

FLOATS = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))
CELLS = {
    "int": st.integers(-(2**40), 2**40),
    "float": FLOATS,
    "grain": st.integers(-50, 50).map(lambda n: n / 4),
    "bool": st.booleans(),
    "category": st.sampled_from(["red", "green", "blue", ""]) | st.none(),
    "text": st.text(max_size=3),
    "date": st.datetimes(pd.Timestamp("1700-01-01"), pd.Timestamp("2200-01-01")).map(
        lambda t: t.replace(microsecond=0)
    ),
}
"""Cells of a column of each sort."""

PANDAS = {"category": "category", "text": object, "date": "datetime64[s]"}
POLARS = {"category": pl.Categorical, "text": pl.String, "date": pl.Datetime("ms")}


@st.composite
def frames(draw):
    """A frame of pandas or polars of 1 to 6 columns and 1 to 60 rows, and the kind that its numbers shall have."""
    n = draw(st.integers(1, 60))
    sorts = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=6))
    columns = {}
    for j, sort in enumerate(sorts):
        # fewer distinct cells than rows: levels, spikes and constants come up; and texts are no identifiers
        few = draw(st.lists(CELLS[sort], min_size=1, max_size=8 if sort == "text" else max(8, n)))
        columns[f"{sort} {j}"] = [few[k % len(few)] for k in draw(st.permutations(range(n)))]
    likelihood = draw(st.sampled_from(["auto", "normal", "quantile_normal"]))
    if draw(st.booleans()):
        series = {name: pd.Series(cells, dtype=PANDAS.get(name.split()[0])) for name, cells in columns.items()}
        return pd.DataFrame(series), likelihood
    series = [pl.Series(name, cells, POLARS.get(name.split()[0])) for name, cells in columns.items()]
    return pl.DataFrame(series).with_columns(pl.selectors.float().fill_nan(None)), likelihood


def is_float(frame, name):
    return str(frame[name].dtype) in ("float64", "Float64")


def take(frame, rows):
    return frame.take(rows) if isinstance(frame, pd.DataFrame) else frame[rows]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(frames())
def test_any_frame_comes_back(drawn):
    frame, likelihood = drawn
    if np.all(frame.select(pl.all().is_null()).to_numpy() if isinstance(frame, pl.DataFrame) else frame.isna()):
        with pytest.raises(ValueError, match="cells of X are missing"):
            Table.fit(frame)
        return
    table, values = Table.fit(frame, likelihood=likelihood)
    decoded = there_and_back(table, values)
    observed = ~np.isnan(values)
    size = np.nanmax(np.abs(values), axis=0, initial=0)
    for j, column in enumerate(table.columns):
        rows = observed[:, j]
        if column.kind.is_discrete or column.kind.name == "constant":
            np.testing.assert_array_equal(decoded[rows, j], values[rows, j])
        # a column of large numbers has at most six decimals
        np.testing.assert_allclose(decoded[rows, j], values[rows, j], rtol=1e-9, atol=1e-9 * size[j])
    whole = np.flatnonzero(observed.all(1))
    assert_same(take(table.write(decoded, like=frame), whole), take(frame, whole), rtol=0)
    # all but floats come back to the bit without a look at them
    exact = [name for name in frame.columns if not is_float(frame, name)]
    written = table.write(decoded)
    assert list(written.dtypes) == list(frame.dtypes)
    assert_same(take(written, whole)[exact], take(frame, whole)[exact], rtol=0)
