"""Scores for scikit-learn's searches."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fits import quick
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae import VAEEstimator
from skvae.metrics import reconstruction_score

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "number": [1.0, 2.0, 4.0, np.nan, 7.0],
        "day": pd.to_datetime(["2020-01-01", "2020-01-03", "2020-02-01", "2020-01-01", "2021-01-01"]),
        "wait": pd.to_timedelta([1, 5, 9, 9, 2], unit="h"),
        "flag": [True, False, True, True, True],
        "level": pd.Categorical(["a", "b", "a", "c", None]),
        "same": 3,
    }
)


class Decoding(BaseEstimator):
    """Gives back rows that are stated."""

    def __init__(self, rows):
        self.rows = rows

    def transform(self, X):
        return np.zeros((len(X), 1))

    def inverse_transform(self, Z):
        return self.rows


def test_numbers_count_by_r2_in_arrays_and_behind_a_scaler():
    X = RNG.normal(size=(60, 5)) @ RNG.normal(size=(5, 5)) * [1, 10, 0.1, 5, 1e4]
    pca = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    expected = r2_score(X, pca.inverse_transform(pca.transform(X)))
    assert reconstruction_score(pca, X) == pytest.approx(expected, abs=1e-12)
    assert reconstruction_score(pca, X.tolist()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_every_cell_given_back_is_a_one(library):
    frame = FRAME if library == "pandas" else pl.from_pandas(FRAME)
    assert reconstruction_score(Decoding(frame), frame) == 1


def test_each_column_counts_by_its_kind_and_missing_cells_do_not():
    back = FRAME.assign(
        number=[1.0, 2.0, 4.0, 100.0, 3.0],
        day=pd.to_datetime(["2020-01-01", "2020-01-03", "2020-02-01", "2020-01-01", "2020-12-31"]),
        flag=[True, True, True, True, True],
        level=pd.Categorical(["a", "a", "a", "c", "a"]),
        same=8,
    )
    number = 1 - 16 / np.sum((np.array([1, 2, 4, 7]) - 3.5) ** 2)
    days = (FRAME["day"] - pd.Timestamp("2020-01-01")).dt.days
    day = 1 - 1 / np.sum((days - days.mean()) ** 2)
    # two of four levels that are there are wrong where always "a" is said, one here
    expected = np.mean([number, day, 1.0, 0.0, 0.5])
    assert reconstruction_score(Decoding(back), FRAME) == pytest.approx(expected, rel=1e-9)


def test_means_and_most_frequent_levels_are_worth_nothing():
    X = pd.DataFrame({"x": RNG.normal(size=50), "level": ["a"] * 30 + ["b"] * 20})
    means = X.assign(x=X["x"].mean(), level="a")
    assert reconstruction_score(Decoding(means), X) == pytest.approx(0, abs=1e-12)
    assert reconstruction_score(Decoding(X.assign(x=X["x"] + 9)), X) < 0


def test_nothing_to_give_back_and_other_columns_are_errors():
    with pytest.raises(ValueError, match="All 2 columns of X are constant"):
        reconstruction_score(Decoding(np.ones((4, 2))), np.ones((4, 2)))
    with pytest.raises(ValueError, match="X has 2 columns, but the estimator decodes rows of 3"):
        reconstruction_score(Decoding(np.ones((4, 3))), RNG.normal(size=(4, 2)))


def test_search_finds_the_number_of_factors():
    z = RNG.normal(size=(600, 2))
    X = np.tanh(z @ RNG.normal(size=(2, 8))) + 0.5 * z @ RNG.normal(size=(2, 8)) + 0.05 * RNG.normal(size=(600, 8))
    search = GridSearchCV(
        VAEEstimator(max_iter=150, random_state=0), {"latent_dim": [1, 2, 4]}, scoring=reconstruction_score, cv=2
    ).fit(X)
    one, two, four = search.cv_results_["mean_test_score"]
    assert one < 0.85
    assert two > 0.95
    assert abs(four - two) < 0.02


def test_mixed_rows_with_holes_have_a_score():
    frame = pd.concat([FRAME] * 8, ignore_index=True)
    assert -np.inf < reconstruction_score(quick().fit(frame), frame) <= 1


def test_tables_are_read_as_the_estimator_reads_them():
    days = [datetime.date(2020, 1, 1 + i % 28) for i in range(60)]
    frame = pd.DataFrame({"day": pd.Series(days, dtype=object), "x": RNG.normal(size=60)})
    dated = frame.assign(day=pd.to_datetime(frame["day"]))
    assert reconstruction_score(Decoding(dated), frame) == 1
    # the estimator decodes dates, which are as near to these as to those
    vae = quick().fit(frame)
    assert reconstruction_score(vae, frame) == pytest.approx(reconstruction_score(vae, dated))
