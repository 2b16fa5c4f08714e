"""Parameters of the estimator: their ranges, and what "auto" stands for."""

import inspect
from numbers import Integral

import numpy as np
import pandas as pd
import pytest
import torch
from layouts import LAYOUTS
from sklearn.utils import check_random_state

from skvae import VAEEstimator
from skvae.model.latent import LATENT_DENSITIES
from skvae.parameters import (
    CONSTRAINTS,
    LEVELS_IN_ORDER,
    PARTS_IN_ORDER,
    ROWS_FOR_ORDER,
    check_density_name,
    check_device,
    check_hidden_layer_sizes,
    check_latent_points,
    check_positive_integer,
    draw_seed,
    make_generator,
    resolve_decoder,
    resolve_density,
)
from skvae.table.kinds import LIKELIHOODS
from skvae.table.layout import Layout

# ------------------------------------------------------------------------------------------------------------------ ranges


def test_every_parameter_has_a_range_that_its_default_lies_in():
    assert CONSTRAINTS.keys() == inspect.signature(VAEEstimator).parameters.keys()
    VAEEstimator()._validate_params()


def test_every_kind_but_the_categorical_is_a_likelihood():
    for kind in LIKELIHOODS:
        vae = VAEEstimator(likelihood=kind)
        if kind == "categorical":
            with pytest.raises(ValueError, match="'likelihood' parameter of VAEEstimator"):
                vae._validate_params()
        else:
            vae._validate_params()
    assert "zero_inflated_negative_binomial" in LIKELIHOODS


@pytest.mark.parametrize(
    ("sizes", "widths"),
    [
        ((), ()),
        ([], ()),
        (np.array([]), ()),
        (7, (7,)),
        (np.int64(7), (7,)),
        ((8, 4), (8, 4)),
        ([8, 4], (8, 4)),
        (np.array([8, 4]), (8, 4)),
        (pd.Series([8, 4]), (8, 4)),
    ],
)
def test_hidden_layer_sizes_become_a_tuple_of_plain_integers(sizes, widths):
    checked = check_hidden_layer_sizes(sizes)
    assert checked == widths
    assert isinstance(checked, tuple)
    assert all(type(width) is int for width in checked)


@pytest.mark.parametrize("sizes", [(8, 0), (8, -1), (8.0,), ("8",), (None,), [[8, 4]], (8, np.nan)])
def test_hidden_layer_sizes_that_are_none_are_shown(sizes):
    with pytest.raises(ValueError, match=r"must hold integers of at least 1, .* \(\) makes a linear model") as caught:
        check_hidden_layer_sizes(sizes)
    assert f"hidden_layer_sizes={sizes!r}" in str(caught.value)


def test_a_device_that_torch_has_is_taken_and_another_one_is_named():
    check_device("cpu")
    for device in ("nowhere", "cuda:99", ""):
        with pytest.raises(ValueError, match=f"device='{device}' cannot be used here: .+ Use device='cpu'"):
            check_device(device)


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_positive_integers_become_plain_ones(value):
    checked = check_positive_integer("n_samples", value)
    assert checked == value
    assert type(checked) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, np.nan])
def test_what_is_no_positive_integer_is_shown(value):
    with pytest.raises(ValueError, match=r"n_draws must be None or an integer of at least 1, got ") as caught:
        check_positive_integer("n_draws", value, or_else="None or ")
    assert str(caught.value).endswith(f"got {value!r}.")


def test_names_of_latent_densities():
    for name in ("auto", *LATENT_DENSITIES):
        check_density_name(name)
    for name in ("Prior", "", 3):
        with pytest.raises(ValueError, match=r"must be one of 'auto', 'prior', .*, got ") as caught:
            check_density_name(name)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_latent_points_keep_their_float_dtype_and_are_a_copy(dtype):
    points = np.zeros((3, 2), dtype)
    checked = check_latent_points(points, 2)
    assert checked.dtype == dtype
    checked[0, 0] = 1
    assert points[0, 0] == 0
    assert check_latent_points([[1, 2]], 2).dtype == np.float64


def test_latent_points_of_another_width_are_refused_with_both_widths():
    with pytest.raises(ValueError, match=r"X has 3 columns, but the model has latent_dim=2.*sample\(n\)"):
        check_latent_points(np.zeros((1, 3)), 2)


# -------------------------------------------------------------------------------------------------------------- decisions


def decoder(decoder="auto", n_rows=ROWS_FOR_ORDER, layout=LAYOUTS["both"], hidden=(8,), likelihood="auto"):
    return resolve_decoder(decoder, n_rows=n_rows, layout=layout, hidden_layer_sizes=hidden, likelihood=likelihood)


def wide(n_parts, n_levels):
    """A layout of numbers and of one category."""
    return Layout(
        kinds=(("normal", n_parts - 1), ("categorical", 1)),
        n_levels=(n_levels,),
        rank=tuple(range(n_parts)),
        gate=(-1,) * n_parts,
    )


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "autoregressive"),
        ({"n_rows": ROWS_FOR_ORDER - 1}, "factorized"),
        ({"hidden": ()}, "factorized"),
        ({"likelihood": "normal"}, "factorized"),
        ({"likelihood": {"normal": [0]}}, "autoregressive"),
        ({"layout": wide(PARTS_IN_ORDER, 3)}, "autoregressive"),
        ({"layout": wide(PARTS_IN_ORDER + 1, 3)}, "factorized"),
        ({"layout": wide(2, LEVELS_IN_ORDER - 1)}, "autoregressive"),
        ({"layout": wide(2, LEVELS_IN_ORDER)}, "factorized"),
    ],
    ids=str,
)
def test_auto_is_the_autoregressive_decoder_where_there_are_rows_for_it(params, expected):
    assert decoder(**params) == expected


def test_a_decoder_that_is_stated_is_taken():
    for stated in ("factorized", "autoregressive", torch.nn.Linear, torch.nn.Linear(2, 3)):
        for params in ({}, {"n_rows": 5}, {"hidden": ()}, {"likelihood": "normal"}):
            assert decoder(stated, **params) is stated


@pytest.mark.parametrize("stated", LATENT_DENSITIES)
def test_a_latent_density_that_is_stated_is_taken(stated):
    for hidden in ((), (8,)):
        for former in (None, *LATENT_DENSITIES):
            assert resolve_density(stated, hidden, former) == stated


def test_auto_is_the_prior_for_linear_networks_and_what_it_was_for_a_model_gone_on_from():
    assert resolve_density("auto", ()) == "prior"
    assert resolve_density("auto", (8,)) == "mixture"
    for hidden in ((), (8,)):
        for former in LATENT_DENSITIES:
            assert resolve_density("auto", hidden, former) == former


# ------------------------------------------------------------------------------------------------------------------ seeds


def test_seeds_are_plain_integers_that_follow_the_random_state():
    first = draw_seed(np.random.RandomState(0))
    assert isinstance(first, int)
    assert 0 <= first < 2**31
    assert first == draw_seed(check_random_state(0))
    assert first != draw_seed(np.random.RandomState(1))


@pytest.mark.parametrize(
    "random_state", [0, np.int64(0), np.random.RandomState(0)], ids=["int", "numpy int", "generator"]
)
def test_generators_follow_the_random_state(random_state):
    assert isinstance(random_state, Integral | np.random.RandomState)
    drawn = torch.rand(3, generator=make_generator(random_state))
    torch.testing.assert_close(drawn, torch.rand(3, generator=make_generator(0)), rtol=0, atol=0)


def test_a_random_state_moves_on_from_generator_to_generator():
    state = np.random.RandomState(0)
    assert make_generator(state).initial_seed() != make_generator(state).initial_seed()
