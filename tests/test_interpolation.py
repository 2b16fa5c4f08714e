"""Paths between latent points, and the rows decoded along them."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.spatial import geometric_slerp
from sklearn.base import BaseEstimator
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError

from skvae import VAEEstimator
from skvae.interpolation import InterpolationMixin, fractions, lerp, line_along, slerp


def mixed_wine():
    """Numbers, nullable integers, ordered categories, text, booleans and dates."""
    wine = load_wine(as_frame=True)
    table = wine.data[["alcohol", "malic_acid", "color_intensity", "hue", "proline"]].astype({"proline": "Int64"})
    table["strength"] = pd.cut(table["alcohol"], 3, labels=["light", "medium", "strong"])
    table["cultivar"] = wine.target.map({0: "barolo", 1: "grignolino", 2: "barbera"})
    table["dark"] = table["color_intensity"] > 5
    table["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(table)), unit="D")
    return table


TABLE = mixed_wine()
ARRAY = TABLE[["alcohol", "malic_acid", "hue"]].to_numpy()


def quick(**params):
    return VAEEstimator(**{"latent_dim": 3, "hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, **params})


@pytest.fixture(scope="module")
def vae():
    return quick().fit(TABLE)


# --------------------------------------------------------------------------------------------------------------- formulas

POINTS = np.random.default_rng(0).normal(size=(20, 2, 5))


@pytest.mark.parametrize("path", [slerp, lerp])
def test_paths_start_and_end_at_their_ends_to_the_last_bit(path):
    for a, b in [*POINTS, *POINTS.astype(np.float32), (POINTS[0, 0], 2 * POINTS[0, 0]), (POINTS[0, 0], np.zeros(5))]:
        for n_steps in (2, 7, 10):
            z = path(a, b, fractions(n_steps))
            assert z.shape == (n_steps, 5)
            np.testing.assert_array_equal(z[0], a)
            np.testing.assert_array_equal(z[-1], b)


def test_slerp_is_that_of_scipy_between_points_of_length_one():
    for a, b in POINTS / np.linalg.norm(POINTS, axis=2, keepdims=True):
        np.testing.assert_allclose(slerp(a, b, fractions(9)), geometric_slerp(a, b, fractions(9)), rtol=1e-10)


def test_slerp_keeps_its_distance_from_zero_and_its_pace():
    for a, b in POINTS:
        b = b * np.linalg.norm(a) / np.linalg.norm(b)
        z = slerp(a, b, fractions(11))
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.linalg.norm(a), rtol=1e-12)
        steps = np.linalg.norm(np.diff(z, axis=0), axis=1)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-10)
        assert np.linalg.norm(lerp(a, b, [0.5])) < np.linalg.norm(a)


def test_slerp_is_straight_where_there_is_no_arc():
    a, t = POINTS[0, 0], fractions(5)
    for b in (a, 3 * a, -a, -2 * a, np.zeros(5), a * (1 + 1e-9)):
        np.testing.assert_array_equal(slerp(a, b, t), lerp(a, b, t))
        np.testing.assert_array_equal(slerp(b, a, t), lerp(b, a, t))
    np.testing.assert_array_equal(slerp(np.array([2.0]), np.array([-1.0]), t)[:, 0], [2, 1.25, 0.5, -0.25, -1])


def test_slerp_does_not_jump_where_it_becomes_straight():
    a, other = POINTS[0] / np.linalg.norm(POINTS[0], axis=1, keepdims=True)
    for size in (1e-2, 1e-3, 2e-4):
        b = a + size * other
        np.testing.assert_allclose(slerp(a, b, fractions(5)), lerp(a, b, fractions(5)), atol=size**2)


def test_line_along_moves_one_coordinate():
    z = line_along(np.array([1.0, 2.0, 3.0]), 1, -4, 5, 4)
    np.testing.assert_array_equal(z, [[1, -4, 3], [1, -1, 3], [1, 2, 3], [1, 5, 3]])


def test_the_methods_need_two_hooks_only():
    class Doubler(InterpolationMixin, BaseEstimator):
        """A row is its own latent mean, and is decoded to twice that."""

        module_ = SimpleNamespace(latent_dim=2)

        def _latent_mean(self, row, name):
            return np.asarray(row)

        def inverse_transform(self, X):
            return 2 * X

        def __sklearn_is_fitted__(self):
            return True

        def fit(self, X):
            return self

    model = Doubler()
    np.testing.assert_array_equal(
        model.interpolate([0.0, 2.0], [4.0, 0.0], 3, method="linear"), [[0, 4], [4, 2], [8, 0]]
    )
    np.testing.assert_array_equal(model.traverse(1, X=[3.0, 5.0], n_steps=3, extent=1), [[6, -2], [6, 0], [6, 2]])


@pytest.mark.parametrize("n_steps", [1, 0, -3, 2.0, True, None, "5"])
def test_paths_have_two_points_at_least(vae, n_steps):
    for call in (lambda: vae.interpolate(TABLE[:1], TABLE[1:2], n_steps), lambda: vae.traverse(0, n_steps=n_steps)):
        with pytest.raises(ValueError, match="n_steps must be an integer of at least 2"):
            call()


# -------------------------------------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("method", ["spherical", "linear"])
def test_ends_are_the_reconstructions(vae, method):
    rows = vae.interpolate(TABLE[:1], TABLE[100:101], 6, method=method)
    assert len(rows) == 6
    assert rows.dtypes.equals(TABLE.dtypes)
    pd.testing.assert_frame_equal(rows.iloc[[0, 5]].reset_index(drop=True), vae.reconstruct(TABLE.iloc[[0, 100]]))


def test_points_between_are_those_of_the_formulas(vae):
    a, b = vae.transform(TABLE.iloc[[0, 100]])
    for method, path in (("spherical", slerp), ("linear", lerp)):
        rows = vae.interpolate(TABLE[:1], TABLE[100:101], 6, method=method)
        pd.testing.assert_frame_equal(rows, vae.inverse_transform(path(a, b, np.linspace(0, 1, 6))))


def test_default_is_spherical_with_ten_points(vae):
    expected = vae.interpolate(TABLE[:1], TABLE[100:101], 10, method="spherical")
    pd.testing.assert_frame_equal(vae.interpolate(TABLE[:1], TABLE[100:101]), expected)


def test_a_row_is_a_table_its_cells_a_series_or_a_dict(vae):
    expected = vae.interpolate(TABLE[:1], TABLE[100:101], 3)
    for read in (
        lambda i: TABLE.iloc[i],
        lambda i: dict(TABLE.iloc[i]),
        lambda i: TABLE.iloc[i].tolist(),
        lambda i: tuple(TABLE.iloc[i]),
        lambda i: TABLE.iloc[i].to_numpy(),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pd.testing.assert_frame_equal(vae.interpolate(read(0), read(100), 3), expected)


def test_missing_cells_of_a_row_are_missing(vae):
    holes = TABLE[:1].copy()
    holes.loc[0, ["alcohol", "proline", "cultivar", "day"]] = [np.nan, pd.NA, None, pd.NaT]
    expected = vae.interpolate(holes, TABLE[:1], 3)
    assert not expected.equals(vae.interpolate(TABLE[:1], TABLE[:1], 3))
    cells = dict(holes.iloc[0])
    pd.testing.assert_frame_equal(vae.interpolate(cells, TABLE[:1], 3), expected)
    known = {name: cells[name] for name in cells if name not in ("alcohol", "proline", "cultivar", "day")}
    pd.testing.assert_frame_equal(vae.interpolate(known, TABLE[:1], 3), expected)


def test_polars_rows():
    table = pl.from_pandas(TABLE)
    vae = quick().fit(table)
    rows = vae.interpolate(table[:1], table[100:101], 4)
    assert rows.schema == table.schema
    for other in (
        vae.interpolate(table.row(0, named=True), table.row(100), 4),
        vae.interpolate(table[0], table[100], 4),
    ):
        assert other.equals(rows)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("params", [{}, {"decoder": "autoregressive", "likelihood": "quantile_normal"}], ids=str)
def test_arrays(dtype, params):
    data = ARRAY.astype(dtype)
    vae = quick(**params).fit(data)
    rows = vae.interpolate(data[0], data[100:101], 5)
    assert rows.shape == (5, 3)
    assert rows.dtype == dtype
    np.testing.assert_allclose(rows[[0, 4]], vae.reconstruct(data[[0, 100]]), rtol=1e-5)
    np.testing.assert_array_equal(vae.interpolate(data[0].tolist(), list(data[100]), 5).shape, (5, 3))


def test_one_latent_unit_has_one_way():
    vae = quick(latent_dim=1).fit(ARRAY)
    ways = [vae.interpolate(ARRAY[0], ARRAY[100], 5, method=method) for method in ("spherical", "linear")]
    np.testing.assert_array_equal(*ways)


def test_linear_decoder_goes_straight():
    vae = quick(hidden_layer_sizes=(), likelihood="normal", bounds=None).fit(ARRAY)
    rows = vae.interpolate(ARRAY[0], ARRAY[100], 5, method="linear")
    steps = np.diff(rows, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), rtol=1e-3, atol=1e-5)


def test_what_is_no_row_is_refused(vae):
    for row, shape in ((TABLE[:2], r"\(2, 9\)"), ([1.0, 2.0], r"\(2,\)"), (None, r"\(\)"), (3.0, r"\(\)")):
        with pytest.raises(ValueError, match=f"x_b must be one row of 9 columns, such as .*shape is {shape}"):
            vae.interpolate(TABLE[:1], row)
    with pytest.raises(ValueError, match="method must be one of 'spherical', 'linear', got 'round'"):
        vae.interpolate(TABLE[:1], TABLE[:1], method="round")
    with pytest.raises(ValueError, match="'colour', which the table does not have"):
        vae.interpolate({"colour": 1.0}, TABLE[:1])
    with pytest.raises(ValueError, match="not among the 3 levels"):
        vae.interpolate({"cultivar": "merlot"}, TABLE[:1])
    with pytest.raises(NotFittedError):
        quick().interpolate(ARRAY[0], ARRAY[1])


# ------------------------------------------------------------------------------------------------------------ traversal


def test_traversal_decodes_a_line_along_one_unit(vae):
    z = np.zeros((5, 3))
    z[:, 1] = [-3, -1.5, 0, 1.5, 3]
    pd.testing.assert_frame_equal(vae.traverse(1, n_steps=5), vae.inverse_transform(z))
    z[:, 1] = [0, 0.5, 1, 1.5, 2]
    pd.testing.assert_frame_equal(vae.traverse(1, n_steps=5, extent=(0, 2)), vae.inverse_transform(z))
    z = np.repeat(vae.transform(TABLE[7:8]), 3, axis=0)
    z[:, 2] = [-2, 0, 2]
    for row in (TABLE[7:8], TABLE.iloc[7]):
        rows = vae.traverse(2, X=row, n_steps=3, extent=2)
        pd.testing.assert_frame_equal(rows, vae.inverse_transform(z))
    assert rows.dtypes.equals(TABLE.dtypes)
    assert len(vae.traverse(0)) == 10


def test_what_is_no_unit_or_extent_is_refused(vae):
    for unit in (3, -1, 1.0, None, True, "0"):
        with pytest.raises(ValueError, match="unit must be an integer from 0 to 2"):
            vae.traverse(unit)
    for extent in (0, np.nan, np.inf, (1, 1), (1, 2, 3), "3", None):
        with pytest.raises(ValueError, match="extent must be a number other than 0"):
            vae.traverse(0, extent=extent)
    with pytest.raises(ValueError, match="X must be one row of 9 columns"):
        vae.traverse(0, X=TABLE)
    with pytest.raises(NotFittedError):
        quick().traverse(0)
