"""Log-likelihoods as scores: seeds, draws and weights of the public methods."""

import numpy as np
import pytest
from fits import quick, table
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import check_random_state

from skvae.parameters import draw_seed
from skvae.scoring import ScoringMixin

X = table()


class Asked(ScoringMixin):
    """An estimator whose model keeps what it is asked, and scores rows by their positions."""

    def __init__(self):
        self.asked = []
        self.verbose = False

    def _model(self):
        return self

    def _read(self, X):
        return np.asarray(X, dtype=np.float64)

    def log_likelihood(self, values, n_draws, seed, report):
        self.asked.append((values.shape, n_draws, seed))
        return np.arange(float(len(values)))


@pytest.fixture(scope="module")
def vae():
    return quick(max_iter=20).fit(X)


# ------------------------------------------------------------------------------------------------------- what is asked


def test_draws_and_seed_are_handed_on():
    rows = np.zeros((4, 2))
    asked = Asked()
    asked.score_samples(rows)
    asked.score_samples(rows, n_draws=np.int64(5), random_state=7)
    asked.score_samples(rows, random_state=np.random.RandomState(7))
    asked.score(rows)
    seed = draw_seed(check_random_state(7))
    assert asked.asked == [((4, 2), None, 0), ((4, 2), 5, seed), ((4, 2), None, seed), ((4, 2), None, 0)]


def test_a_random_state_gives_other_draws_at_each_call():
    asked = Asked()
    state = np.random.RandomState(7)
    for _ in range(2):
        asked.score_samples(np.zeros((1, 2)), random_state=state)
    first, second = (seed for _, _, seed in asked.asked)
    assert first != second


@pytest.mark.parametrize("n_draws", [0, -3, 2.0, True, None, "many"])
def test_numbers_of_draws_that_are_none_are_refused_before_anything_is_read(n_draws):
    with pytest.raises(ValueError, match="n_draws must be 'auto' or an integer of at least 1, got"):
        Asked().score_samples("no table", n_draws=n_draws)


def test_without_a_seed_numpys_generator_is_left_alone(vae):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    vae.score(X)
    vae.score_samples(X)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ------------------------------------------------------------------------------------------------------------- the mean


def test_score_is_the_mean_and_ignores_y():
    rows = np.zeros((5, 2))
    score = Asked().score(rows)
    assert type(score) is float
    assert score == 2.0
    assert Asked().score(rows, ["a"] * 5) == score


@pytest.mark.parametrize("weight", [[1, 1, 1, 1, 6], np.array([0, 0, 0, 0.5, 1]), np.ones(5, dtype=np.float32)])
def test_score_is_weighted(weight):
    expected = sum(w * i for i, w in enumerate(weight)) / sum(weight)
    assert Asked().score(np.zeros((5, 2)), sample_weight=weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight", [[1, 2], [[1], [2], [3], [4], [5]], [1, 1, 1, 1, np.nan]])
def test_weights_of_other_rows_are_refused(weight):
    with pytest.raises(ValueError, match=r"[Ss]ample.weight"):
        Asked().score(np.zeros((5, 2)), sample_weight=weight)


# ------------------------------------------------------------------------------------------------------------ the scores


def test_a_row_alone_has_the_score_that_it_has_among_others(vae):
    together = vae.score_samples(X)
    assert together.shape == (60,)
    assert together.dtype == np.float64
    alone = np.concatenate([vae.score_samples(X[i : i + 1]) for i in range(60)])
    np.testing.assert_allclose(alone, together, rtol=1e-12)
    np.testing.assert_allclose(vae.score_samples(X[::-1]), together[::-1], rtol=1e-12)


def test_a_missing_cell_is_integrated_out(vae):
    """A number that is missing has no density: what is left are the other columns, whatever its value was."""
    complete = X.dropna()
    without = vae.score_samples(complete.assign(height=np.nan))
    moved = vae.score_samples(complete.assign(height=complete["height"] + 1000).assign(height=np.nan))
    np.testing.assert_array_equal(without, moved)
    # masses of two levels and densities of two numbers, of which one is gone
    assert (np.abs(without - vae.score_samples(complete)) > 1e-6).all()


def test_scores_can_be_cross_validated():
    scores = cross_val_score(quick(), X, cv=3)
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def test_an_unfitted_estimator_has_no_scores():
    for method in ("score", "score_samples"):
        with pytest.raises(NotFittedError):
            getattr(quick(), method)(X)
