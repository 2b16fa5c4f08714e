"""Columns that are not modelled: found or named, new keys, and cells that are carried along."""

import uuid
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from skvae import VAEEstimator
from skvae.metrics import reconstruction_score
from skvae.oversampling import VAEAugmenter, VAEOverSampler
from skvae.table.keys import Keys

N = 200


def passengers(n=N):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": rng.permutation(np.arange(1, n + 1)),
            "ticket": [f"PC {i:05d}/a" for i in rng.permutation(np.arange(7, n + 7))],
            "name": [
                f"{a}. {b}" for a, b in zip(rng.choice(list("ABCD"), n), map(hash, rng.normal(size=n)), strict=True)
            ],
            "age": rng.integers(1, 80, n).astype(float),
            "town": rng.choice(["Bonn", "Kiel"], n),
        }
    )


def quick(**params):
    return VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=2, random_state=0, **params)


@pytest.fixture(scope="module")
def found():
    X = passengers()
    with pytest.warns(UserWarning, match=r"'id' \(sequence\), 'ticket' \(sequence\), 'name' \(carry\)") as caught:
        vae = quick().fit(X)
    # all of them at once, at the line of the call
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return vae, X


def test_identifiers_are_found_and_the_others_are_modelled(found):
    vae, X = found
    assert vae.likelihood_ == {
        "id": "ignored",
        "ticket": "ignored",
        "name": "ignored",
        "age": "normal",
        "town": "categorical",
    }
    without = quick().fit(X[["age", "town"]])
    np.testing.assert_array_equal(vae.transform(X), without.transform(X[["age", "town"]]))
    np.testing.assert_array_equal(vae.score_samples(X), without.score_samples(X[["age", "town"]]))


def test_new_rows_have_new_keys_and_missing_texts(found):
    vae, X = found
    made = vae.sample(300, random_state=0)
    assert list(made.columns) == list(X.columns)
    assert made["id"].tolist() == list(range(N + 1, N + 301))
    assert made["id"].dtype == X["id"].dtype
    assert made["ticket"].tolist()[:2] == ["PC 00207/a", "PC 00208/a"]
    assert made["ticket"].is_unique
    assert made["name"].isna().all()
    assert not made[["age", "town"]].isna().to_numpy().any()
    given = vae.sample(3, given={"town": "Kiel"}, random_state=0)
    assert given["id"].tolist() == [N + 1, N + 2, N + 3]


def test_rows_keep_their_own_keys(found):
    vae, X = found
    own = ["id", "ticket", "name"]
    pd.testing.assert_frame_equal(vae.reconstruct(X)[own], X[own])
    holes = X.assign(age=np.nan)[::-1]
    pd.testing.assert_frame_equal(vae.impute(holes)[own], holes[own])
    for copy in vae.impute(holes, n_draws=2, random_state=0):
        pd.testing.assert_frame_equal(copy[own], holes[own])
    conditions = X[["id", "town"]][:5]
    rows = vae.sample(given=conditions, random_state=0)
    pd.testing.assert_frame_equal(rows[["id", "town"]], conditions)


def test_conditions_on_a_column_that_is_not_modelled_are_refused(found):
    with pytest.raises(ValueError, match="'id', which is not modelled"):
        found[0].sample(3, given={"id": 3})


@pytest.mark.parametrize("library", [pl.from_pandas, pa.Table.from_pandas], ids=["polars", "pyarrow"])
def test_other_frames(library):
    X = library(passengers())
    with pytest.warns(UserWarning, match="look like identifiers"):
        vae = quick().fit(X)
    made = vae.sample(4, random_state=0)
    assert type(made) is type(X)
    assert np.asarray(made["id"]).tolist() == [201, 202, 203, 204]
    back = vae.impute(X)
    for name in ("id", "ticket", "name"):
        assert list(back[name]) == list(X[name])


def test_arrays_carry_and_drop():
    X = passengers()[["name", "age", "town"]].to_numpy(dtype=object)
    vae = quick(ignore={0: "carry"}).fit(X)
    assert vae.reconstruct(X)[:, 0].tolist() == X[:, 0].tolist()
    assert vae.sample(3, random_state=0)[:, 0].tolist() == [None] * 3
    numbers = np.column_stack([np.arange(N) * 10.0, np.random.default_rng(0).normal(size=(N, 2))])
    assert quick(ignore={0: "sequence"}).fit(numbers).sample(2, random_state=0)[:, 0].tolist() == [2000, 2010]
    assert quick(ignore=[0]).fit(numbers).sample(2, random_state=0).shape == (2, 2)
    assert np.isnan(quick(ignore={0: "carry"}).fit(numbers).sample(2, random_state=0)[:, 0]).all()


def test_dropped_columns_are_in_no_output():
    X = passengers()
    vae = quick(ignore=["id", "ticket", "name"]).fit(X)
    for rows in (
        vae.sample(3, random_state=0),
        vae.reconstruct(X),
        vae.impute(X),
        vae.inverse_transform(np.zeros((2, 2))),
    ):
        assert list(rows.columns) == ["age", "town"]


def test_a_carried_integer_is_missing_in_new_rows():
    vae = quick(ignore={"id": "carry"}).fit(passengers()[["id", "age"]])
    assert vae.sample(3, random_state=0)["id"].isna().all()
    assert vae.reconstruct(passengers()[["id", "age"]])["id"].dtype == passengers()["id"].dtype


@pytest.mark.parametrize(
    "column",
    [
        np.random.default_rng(0).permutation(10**7)[:N],  # prices, say: hardly any would repeat by chance
        np.random.default_rng(0).integers(0, 300, N),
        np.arange(N, dtype=float),
    ],
    ids=["far apart", "repeated", "floats"],
)
def test_numbers_are_no_identifiers_without_doubt(column):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = quick().fit(passengers()[["age"]].assign(n=column))
    assert vae.likelihood_["n"] != "ignored"


def test_columns_that_are_named_elsewhere_are_modelled():
    X = passengers()[["id", "age"]]
    for params in ({"likelihood": {"normal": ["id"]}}, {"bounds": {"id": (0, None)}}, {"ignore": None}):
        assert quick(**params).fit(X).likelihood_["id"] == "normal"


def test_numbers_as_text_are_refused():
    X = pd.DataFrame({"a": [f"{v:.3f}" for v in np.random.default_rng(0).normal(size=60)], "x": np.arange(60.0)})
    with pytest.raises(ValueError, match=r"'a' holds numbers as text\. Convert"):
        quick().fit(X)


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        ({"weight": "drop"}, "'weight'"),
        ({"id": "forget"}, "'drop', 'sequence', 'carry'"),
        ({"name": "sequence"}, "no pattern of keys"),
        ({"town": "sequence"}, "no pattern of keys"),
        (["id", "ticket", "name", "age", "town"], "all 5 columns"),
    ],
    ids=str,
)
def test_what_cannot_be_ignored_is_named(ignore, words):
    with pytest.raises(ValueError, match=words):
        quick(ignore=ignore).fit(passengers())


@pytest.mark.filterwarnings("ignore:Columns that look like")
@pytest.mark.parametrize("ignore", ["auto", ["id", "ticket", "name"]], ids=["auto", "drop"])
@pytest.mark.parametrize("sampler", [VAEOverSampler, VAEAugmenter])
def test_rows_that_are_added_have_keys_of_their_own(sampler, ignore):
    X = passengers()
    y = np.array([0] * 150 + [1] * 50)
    rows, _ = sampler(vae=quick(ignore=ignore), random_state=0).fit_resample(X, y)
    assert list(rows.columns) == list(X.columns)
    assert len(rows) > N
    pd.testing.assert_frame_equal(rows[:N], X, check_dtype=False)
    assert rows["name"][N:].isna().all()
    if ignore == "auto":
        assert rows["id"].is_unique
        assert rows["ticket"].is_unique


@pytest.mark.parametrize("policy", ["sequence", "drop"])
def test_keys_do_not_count_in_the_score_of_reconstruction(policy):
    X = passengers()[["id", "age", "town"]]
    vae = quick(ignore={"id": policy}).fit(X)
    assert reconstruction_score(vae, X) == reconstruction_score(quick().fit(X[["age", "town"]]), X[["age", "town"]])


# ------------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["A1", "A2", "A3"], ["A4", "A5"]),
        (["A01", "A02", "A10"], ["A11", "A12"]),
        (["008", "010", "012"], ["014", "016"]),
        (["x9y", "x10y", "x11y"], ["x12y", "x13y"]),
        (["2021-0001", "2021-0002"], ["2021-0003", "2021-0004"]),
        (["7"], ["8", "9"]),
    ],
    ids=str,
)
def test_texts_that_differ_in_a_number_go_on(texts, expected):
    assert Keys.of_texts(texts).new(2).tolist() == expected


@pytest.mark.parametrize("texts", [["a", "b"], ["A1", "B2"], ["A01", "A2"], ["A-1", "A+2"], ["", "1"]], ids=str)
def test_other_texts_follow_no_pattern(texts):
    assert Keys.of_texts(texts) is None


def test_uuids_are_new():
    old = [str(uuid.UUID(int=i, version=4)) for i in range(1, 99)]
    new = Keys.of_texts(old).new(50).tolist()
    assert len({*old, *new}) == 98 + 50
    assert all(uuid.UUID(text).version == 4 for text in new)
    assert Keys.of_texts(old).new(50).tolist() == new
