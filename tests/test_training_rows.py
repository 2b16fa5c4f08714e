"""Training rows: read, encoded, weighted, thinned out and split."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from fits import quick, table

from skvae.fitting import split_rows
from skvae.table import Table
from skvae.training_rows import TrainingRows, encode_rows, hold_out, names_of, read_rows

X = table()


def test_rows_taken_are_copies():
    rows = TrainingRows(torch.arange(12.0).view(6, 2), torch.arange(6.0))
    some = rows.take(np.array([4, 1]))
    assert some.x.tolist() == [[8, 9], [2, 3]]
    assert some.weight.tolist() == [4, 1]
    assert TrainingRows(rows.x, None).take(np.array([0])).weight is None

    some = rows.take(np.arange(6))
    rows.x.zero_()
    assert some.x[5].tolist() == [10, 11]


@pytest.mark.parametrize(
    ("n", "at_most", "kept"), [(10, 4, [0, 3, 6, 9]), (10, 10, list(range(10))), (3, 5, [0, 1, 2])]
)
def test_rows_are_thinned_out_evenly(n, at_most, kept):
    rows = TrainingRows(torch.arange(float(n))[:, None], None)
    assert rows.evenly(at_most).x[:, 0].tolist() == kept


def test_losses_of_encoded_rows_differ_by_the_mean_jacobian_from_those_of_the_table():
    values = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 10.0, 0.01]
    weight = np.random.default_rng(1).uniform(0.5, 2, 40)
    for own_weight in (None, weight):
        learnt, read = Table.fit(values, likelihood="normal", sample_weight=own_weight)
        rows, log_scale = encode_rows(learnt, read, own_weight, "cpu")
        mean = np.average(values, axis=0, weights=own_weight)
        deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=own_weight))

        # log p(x) = log p(standardised x) - sum of log deviations
        assert log_scale == pytest.approx(np.log(deviation).sum(), rel=1e-6)
        assert rows.x.dtype == torch.float32
        assert rows.x.shape == (40, learnt.layout.width)
        if own_weight is None:
            assert rows.weight is None
        else:
            np.testing.assert_allclose(rows.weight.numpy(), weight / weight.mean(), rtol=1e-6)


@pytest.mark.parametrize("n_levels", [3, 60])
def test_rows_to_train_on_have_one_cell_a_category_whatever_its_levels(n_levels):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{j}": pd.Categorical(rng.integers(0, n_levels, 600)) for j in range(8)})
    learnt, read = Table.fit(frame)
    rows, _ = encode_rows(learnt, read, None, "cpu")
    assert learnt.layout.n_all_levels == 8 * n_levels
    assert rows.x.dtype == torch.float32
    assert rows.x.shape == (600, 8)
    assert rows.x.untyped_storage().nbytes() == 600 * 8 * 4
    np.testing.assert_array_equal(rows.x.numpy(), frame.astype(float))


def test_rows_of_weight_zero_are_not_read():
    weight = np.ones(60)
    weight[::3] = 0
    _, values, kept = read_rows(quick(), X, weight, None, may_vary=True)
    assert len(values) == len(kept) == 40
    np.testing.assert_array_equal(values[:, 1], X["weight"][weight > 0])


@pytest.mark.parametrize(("fraction", "n_held_out"), [(0.1, 6), (0.11, 7), (0.9, 54)])
def test_rows_held_out_are_a_random_part_of_them(fraction, n_held_out):
    weight = torch.linspace(0.5, 1.5, 60)
    rows = TrainingRows(torch.arange(60.0)[:, None], weight)
    training, validation = hold_out(rows, fraction, np.random.RandomState(0))
    assert len(validation.x) == n_held_out
    assert sorted(torch.cat([training.x, validation.x])[:, 0].tolist()) == list(range(60))
    assert validation.x[:, 0].tolist() != sorted(validation.x[:, 0].tolist())

    # the weights went with their rows
    np.testing.assert_allclose(validation.weight, weight[validation.x[:, 0].long()])
    np.testing.assert_allclose(training.weight, weight[training.x[:, 0].long()])

    # and those to train on have mean 1 again
    trained = split_rows(quick(validation_fraction=fraction), rows, 0.5, np.random.RandomState(0), schedule=True)
    np.testing.assert_allclose(trained.training.weight, training.weight / training.weight.mean(), rtol=1e-6)
    assert float(trained.training.weight.mean()) == pytest.approx(1)
    assert trained.n_rows == 60 - n_held_out
    assert trained.epochs_of(10, 10) == math.ceil(10 / math.ceil(trained.n_rows / 10))


def test_holding_out_all_rows_is_refused_with_their_numbers():
    rows = TrainingRows(torch.zeros(12, 1), None)
    with pytest.raises(ValueError, match=r"validation_fraction=0\.95 sets 12 of 12 rows aside.*early_stopping=False"):
        hold_out(rows, 0.95, np.random.RandomState(0))


def test_names_are_checked_on_a_copy_of_the_estimator():
    vae = quick()
    names = names_of(vae, X, reset=True)
    assert names["n_features_in_"] == 4
    assert list(names["feature_names_in_"]) == list(X.columns)
    assert names_of(vae, X.to_numpy(), reset=True) == {"n_features_in_": 4}
    assert vars(vae) == vars(quick())
