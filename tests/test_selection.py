"""Columns that a parameter names: by name, by index or by a mask; and the kinds asked for them."""

import numpy as np
import pandas as pd
import pytest
from tables import FLAGS, LETTERS, NUMBERS, N, assert_same, kinds_of, quick, table_of

from skvae.table import Table
from skvae.table.kinds import LIKELIHOODS
from skvae.table.selection import listed, position


@pytest.mark.parametrize(
    ("column", "expected"),
    [("b", 1), (0, 0), (2, 2), (-1, 2), (-3, 0), (np.int64(1), 1), (3, None), (-4, None), ("d", None), (True, None)],
    ids=str,
)
def test_a_column_is_found_by_name_or_index(column, expected):
    assert position(column, ["a", "b", "c"]) == expected


def test_names_go_before_indices():
    assert position(2, [2, 0, 1]) == 0
    assert position(-1, [2, 0, 1]) == 2


def test_lists_of_names_are_cut():
    assert listed(["a", 2]) == "'a', 2"
    assert listed(list("abcdef")) == "'a', 'b', 'c', 'd', 'e', ..."


# ----------------------------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize(
    ("likelihood", "kinds"),
    [
        ("auto", ["normal", "bernoulli"]),
        ("normal", ["normal", "normal"]),
        ({"normal": [1]}, ["normal", "normal"]),
        ({"normal": 1}, ["normal", "normal"]),
        ({"normal": -1}, ["normal", "normal"]),
        ({"normal": "flag", "bernoulli": []}, ["normal", "normal"]),
        ({"bernoulli": ["number"], "normal": np.array([1])}, ["bernoulli", "normal"]),
        ({}, ["normal", "bernoulli"]),
    ],
    ids=str,
)
def test_kinds_asked_for_win(likelihood, kinds):
    frame = pd.DataFrame({"number": NUMBERS, "flag": FLAGS})
    assert kinds_of(table_of(frame, likelihood=likelihood)) == kinds


@pytest.mark.parametrize(
    ("likelihood", "words"),
    [
        ({"poison": [0]}, ["'poison'", *map(repr, LIKELIHOODS)]),
        ({"constant": [0]}, ["'constant'", *map(repr, LIKELIHOODS)]),
        ({"normal": [2]}, ["2", "2 columns"]),
        ({"normal": [-3]}, ["-3", "2 columns"]),
        ({"normal": ["height"]}, ["'height'", "'number'", "'flag'"]),
        ({"normal": [0], "bernoulli": ["number"]}, ["'number'", "twice", "'normal'", "'bernoulli'"]),
        ({"normal": [0, 0]}, ["twice"]),
        ({"normal": [0.5]}, ["0.5"]),
        ({"categorical": ["flag"]}, ["'flag'", "a number", "categorical_features"]),
    ],
    ids=str,
)
def test_kinds_that_cannot_be_are_named(likelihood, words):
    frame = pd.DataFrame({"number": NUMBERS, "flag": FLAGS})
    with pytest.raises(ValueError, match="likelihood") as caught:
        quick(likelihood=likelihood).fit(frame)
    assert all(word in str(caught.value) for word in words)


def test_a_category_is_asked_for_as_such_only():
    frame = pd.DataFrame({"number": NUMBERS, "letter": LETTERS})
    assert kinds_of(table_of(frame, likelihood={"categorical": ["letter"]})) == ["normal", "categorical"]
    with pytest.raises(ValueError, match=r"'letter' as 'normal', but it is categorical.*categorical_features"):
        table_of(frame, likelihood={"normal": ["letter"]})


def test_one_kind_for_all_leaves_categories_as_they_are():
    frame = pd.DataFrame({"number": NUMBERS, "letter": LETTERS})
    assert kinds_of(table_of(frame, likelihood="quantile_normal")) == ["quantile_normal", "categorical"]


# ----------------------------------------------------------------------------------------------------------- categories


@pytest.mark.parametrize(
    "chosen", [["b"], [1], [-2], [False, True, False], np.array([1]), np.array([False, True, False]), "b"], ids=str
)
def test_categories_can_be_named_numbered_or_flagged(chosen):
    frame = pd.DataFrame({"a": NUMBERS, "b": np.arange(N) % 3, "c": LETTERS})
    if isinstance(chosen, str):
        chosen = pd.Index([chosen])
    table, values = Table.fit(frame, categorical_features=chosen)
    assert [column.levels for column in table.columns] == [None, [0, 1, 2], ["a", "b", "c"]]
    assert_same(table.write(values), frame)


def test_categories_of_an_array():
    X = np.column_stack([NUMBERS, np.arange(N) % 3 + 0.5])
    assert Table.fit(X)[1][:, 1].tolist() == X[:, 1].tolist()
    table, values = Table.fit(X, categorical_features=[1])
    np.testing.assert_array_equal(values[:, 1], np.arange(N) % 3)
    np.testing.assert_array_equal(table.write(table.read(X)), X)


@pytest.mark.parametrize("by_dtype", ["from_dtype", None])
def test_categories_are_told_by_the_dtype(by_dtype):
    frame = pd.DataFrame({"a": NUMBERS, "b": np.arange(N) % 3, "c": pd.Categorical(LETTERS)})
    table = table_of(frame, categorical_features=by_dtype)
    assert [column.levels for column in table.columns] == [None, None, ["a", "b", "c"]]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [(["height"], ["'height'", "2 columns", "'a'"]), ([5], ["5", "2 columns"]), ([True], ["mask of 1", "2"])],
    ids=str,
)
def test_categories_that_cannot_be_are_named(chosen, words):
    with pytest.raises(ValueError, match="categorical_features") as caught:
        quick(categorical_features=chosen).fit(pd.DataFrame({"a": NUMBERS, "b": FLAGS}))
    assert all(word in str(caught.value) for word in words)
