"""What the caller told torch does not reach a model; where memory ends, the error says so."""

import numpy as np
import pytest
import torch

from skvae import VAEEstimator
from skvae.surroundings import undisturbed

X = np.random.default_rng(0).normal(size=(60, 3))
HOLES = np.where(np.random.default_rng(1).uniform(size=X.shape) < 0.2, np.nan, X)


def quick():
    return VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=3, random_state=0)


def answers(vae):
    return [
        vae.transform(X),
        vae.score_samples(X),
        vae.sample(5, random_state=0),
        vae.sample(5, given={0: X[0, 0]}, random_state=0),
        vae.inverse_transform(np.zeros((2, 2))),
        vae.impute(HOLES),
    ]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_default_device_changes_nothing():
    expected = answers(quick().fit(X))
    torch.set_default_device("meta")
    try:
        got = answers(quick().fit(X))
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert_equal(got, expected)


def test_autocast_changes_nothing():
    expected = answers(quick().fit(X))
    with torch.autocast("cpu"):
        got = answers(quick().fit(X))
        assert torch.is_autocast_enabled("cpu")
    assert_equal(got, expected)


def test_errors_of_numpy_change_nothing():
    expected = answers(quick().fit(X))
    with np.errstate(all="raise"):
        got = answers(quick().fit(X))
    assert_equal(got, expected)


def test_where_memory_ends_the_error_says_what_takes_less():
    with pytest.raises(MemoryError, match="fewer rows"):
        quick().fit(X).sample(10**13)
    with pytest.raises(MemoryError, match="narrower"):
        VAEEstimator(2, hidden_layer_sizes=(10**6, 10**6)).fit(X)


def test_other_errors_are_what_they_are():
    @undisturbed
    def fails():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        fails()
