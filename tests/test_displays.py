"""Displays, by what they draw: artists, labels and limits, not pixels."""

import builtins

import numpy as np
import pandas as pd
import polars as pl
import pytest
from fits import quick
from sklearn.datasets import load_digits

from skvae.displays import (
    ActiveUnitsDisplay,
    AnomalyDisplay,
    LatentSpaceDisplay,
    LatentTraversalDisplay,
    LossCurveDisplay,
    MarginalsDisplay,
    PairsDisplay,
    ReconstructionDisplay,
)
from skvae.drawing import shortened
from skvae.evaluation.coding import code_together
from skvae.evaluation.fidelity import associations
from skvae.metrics import reconstruction_by_column, reconstruction_score

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": hidden + 0.1 * rng.normal(size=n),
            "a name of a column that is longer than any axis has room for": hidden**2,
            "k": np.where(hidden > 0, "up", "down"),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 99, n), unit="D"),
            "flag": rng.uniform(size=n) < 0.3,
            "n": rng.poisson(2, n),
        }
    )
    frame["x"] = frame["x"].where(rng.uniform(size=n) > 0.1)
    return frame


X = table()


@pytest.fixture(scope="module")
def vae():
    return quick(latent_dim=3, max_iter=12).fit(X)


@pytest.fixture(scope="module")
def digits():
    images = load_digits().data[:300]
    return quick(latent_dim=3, max_iter=5, likelihood="normal").fit(images), images


@pytest.fixture(autouse=True)
def close_pictures():
    yield
    plt.close("all")


def offsets(points):
    return np.asarray(points.get_offsets())


# --------------------------------------------------------------------------------------------------------------- the fit


def test_the_loss_its_parts_and_what_was_kept(vae):
    display = LossCurveDisplay.from_estimator(vae)
    lines, history = display.lines_, vae.history_
    np.testing.assert_array_equal(lines["loss"].get_ydata(), history["loss"])
    np.testing.assert_array_equal(lines["kl"].get_ydata(), history["kl"])
    np.testing.assert_allclose(lines["validation"].get_ydata(), -np.array(history["validation_score"]))
    np.testing.assert_array_equal(lines["validation"].get_xdata(), history["validation_epoch"])
    kept = history["validation_epoch"][int(np.argmax(history["validation_score"]))]
    assert lines["kept"].get_xdata()[0] == kept
    np.testing.assert_array_equal(lines["learning_rate"].get_ydata(), history["learning_rate"])
    assert display.ax_.get_xlabel() == "epoch"
    low, high = display.ax_.get_ylim()
    assert low < min(history["kl"][1:])
    assert high > history["loss"][-1]

    fewer = LossCurveDisplay.from_estimator(vae, parts=False, learning_rate=False, line_kwargs={"linewidth": 5})
    assert set(fewer.lines_) == {"loss", "validation", "kept"}
    assert fewer.rate_ax_ is None
    assert fewer.lines_["loss"].get_linewidth() == 5

    stream = quick().partial_fit(X)
    assert set(LossCurveDisplay.from_estimator(stream).lines_) == {"loss", "reconstruction", "kl", "learning_rate"}
    _, ax = plt.subplots()
    assert LossCurveDisplay.from_estimator(vae, ax=ax).ax_ is ax


def test_units_are_sorted_by_their_information():
    display = ActiveUnitsDisplay(np.array([0.1, 2.0, 0.0, 1.0]), 2).plot()
    assert display.units_.tolist() == [1, 3, 0, 2]
    assert [bar.get_height() for bar in display.bars_] == [2.0, 1.0, 0.1, 0.0]
    colours = [bar.get_facecolor() for bar in display.bars_]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert display.ax_.get_title() == "2 of 4 latent units carry information"
    many = ActiveUnitsDisplay(np.arange(100.0), 50).plot(bar_kwargs={"color": "red"})
    assert len(many.ax_.get_xticklabels()) <= 20


# ---------------------------------------------------------------------------------------------------------------- latents


def test_rows_lie_at_their_latent_means(vae):
    display = LatentSpaceDisplay.from_estimator(vae, X, X["k"], ellipses=True)
    z_mean, z_std = vae.posterior(X)
    units = np.argsort(-vae.kl_per_unit_)[:2]
    np.testing.assert_allclose(offsets(display.points_[0]), z_mean[X["k"] == "down"][:, units], rtol=1e-6)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["down", "up"]
    np.testing.assert_allclose(display.ellipses_.get_widths(), 4 * z_std[:, units[0]], rtol=1e-5)
    assert display.contours_ is not None
    assert display.ax_.get_xlabel() == f"z_mean of unit {units[0]}"

    plain = LatentSpaceDisplay.from_estimator(vae, X, units=(2, 0), density=False, scatter_kwargs={"s": 50})
    np.testing.assert_allclose(offsets(plain.points_[0]), z_mean[:, [2, 0]], rtol=1e-6)
    assert plain.contours_ is None
    assert plain.points_[0].get_sizes()[0] == 50

    # numbers are a scale, and many classes share a colour
    scale = LatentSpaceDisplay.from_estimator(vae, X, X["x"].fillna(0))
    np.testing.assert_array_equal(scale.points_[0].get_array(), X["x"].fillna(0))
    many = LatentSpaceDisplay.from_estimator(vae, X, np.arange(300).astype(str))
    assert [p.get_label() for p in many.points_][-1] == "others"
    assert sum(len(offsets(p)) for p in many.points_) == 300
    with pytest.raises(ValueError, match=r"units=\(0, 3\); expected one or two of the 3"):
        LatentSpaceDisplay.from_estimator(vae, X, units=(0, 3))


def test_one_unit_is_a_histogram():
    one = quick(latent_dim=1, max_iter=3).fit(X)
    display = LatentSpaceDisplay.from_estimator(one, X, X["flag"])
    assert len(display.points_) == 2
    assert display.ax_.get_xlabel() == "z_mean of unit 0"
    assert len(LatentSpaceDisplay.from_estimator(one, X).points_) == 1


def test_columns_change_along_a_unit(vae):
    display = LatentTraversalDisplay.from_estimator(vae, X[:1], units=[2, 0], n_steps=7)
    path = vae.traverse(2, X=X[:1], n_steps=7)
    line = next(line for line in display.axes_[0].get_lines() if line.get_label() == "x")
    new = vae.sample(500, random_state=0)["x"]
    np.testing.assert_allclose(line.get_ydata(), (path["x"] - new.mean()) / new.std(ddof=0), rtol=1e-6)
    np.testing.assert_allclose(line.get_xdata(), np.linspace(-3, 3, 7))
    assert [ax.get_title() for ax in display.axes_] == ["unit 2", "unit 0"]
    for ax in display.axes_:
        for line in ax.get_lines():
            assert np.ptp(line.get_ydata()) > 0
            assert (line.get_linestyle() == "--") == (line.get_label() in ("k", "flag"))
    assert len(LatentTraversalDisplay.from_estimator(vae).axes_) == min(4, vae.active_units_)


def test_images_along_units_and_back(digits):
    vae, images = digits
    display = LatentTraversalDisplay.from_estimator(vae, units=[0, 1], image_shape=(8, 8), n_steps=5)
    assert display.axes_.shape == (2, 5)
    expected = vae.traverse(1, n_steps=5)[4].reshape(8, 8)
    np.testing.assert_allclose(display.axes_[1, 4].get_images()[0].get_array(), expected)

    back = ReconstructionDisplay.from_estimator(vae, images, image_shape=(8, 8), kwargs={"cmap": "viridis"})
    assert back.axes_.shape == (2, 10)
    np.testing.assert_allclose(back.axes_[0, 3].get_images()[0].get_array(), images[3].reshape(8, 8))
    decoded = vae.reconstruct(images[:10])[3].reshape(8, 8)
    np.testing.assert_allclose(back.axes_[1, 3].get_images()[0].get_array(), decoded, rtol=1e-5)
    assert back.axes_[0, 0].get_images()[0].get_cmap().name == "viridis"


def test_what_comes_back_by_column(vae):
    scores = reconstruction_by_column(vae, X)
    assert np.mean(list(scores.values())) == reconstruction_score(vae, X)
    assert list(scores) == list(X)
    display = ReconstructionDisplay.from_estimator(vae, X)
    assert [bar.get_width() for bar in display.bars_] == sorted(scores.values())
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[-1] == shortened(max(scores, key=scores.get))
    assert display.ax_.get_xlim()[1] == 1


# --------------------------------------------------------------------------------------------------- real and synthetic


def test_columns_side_by_side(vae):
    new = vae.sample(200, random_state=0)
    display = MarginalsDisplay.from_tables(X, new)
    titles = [ax.get_title() for ax in display.axes_]
    assert [title.split("  (")[0] for title in titles] == [
        *map(shortened, ["x", X.columns[1], "day", "n", "k", "flag"])
    ]
    numbers, _, days, counts, levels, _ = display.axes_

    # areas of 1, whatever the number of rows
    for patch in numbers.patches:
        heights, edges, _ = patch.get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)
    assert numbers.get_xlabel() == f"missing: {X['x'].isna().mean():.1%} real, {new['x'].isna().mean():.1%} synthetic"
    assert numbers.get_legend() is not None
    # a bar for each whole number
    assert (np.diff(counts.patches[0].get_data()[1]) == 1).all()
    assert days.xaxis.get_major_formatter().__class__.__name__.startswith("Auto")
    assert matplotlib.dates.num2date(days.get_xlim()[0]).year in (2019, 2020)
    shares = [bar.get_height() for bar in levels.patches]
    assert shares[:2] == pytest.approx(
        sorted([(X["k"] == "up").mean(), (X["k"] == "down").mean()], reverse=True), abs=0.2
    )
    assert sum(shares) == pytest.approx(2)
    assert {label.get_text() for label in levels.get_xticklabels()} == {"up", "down"}


def test_fifty_columns_arrays_and_polars(vae):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(100, 50))
    holed = wide[:50].copy()
    holed[:, 7] = np.nan
    display = MarginalsDisplay.from_tables(wide, holed, n_columns=5)
    assert len(display.axes_) == 50
    assert len(display.axes_[7].patches) == 1
    assert display.axes_[7].get_xlabel() == "missing: 0.0% real, 100.0% synthetic"
    pairs = PairsDisplay.from_tables(wide, wide[:50])
    assert len(pairs.axes_[0].get_yticklabels()) == 50
    assert len(MarginalsDisplay.from_estimator(quick(max_iter=1).fit(pl.from_pandas(X)), pl.from_pandas(X)).axes_) == 6


def test_associations_of_both_and_their_difference(vae):
    new = vae.sample(300, random_state=0)
    display = PairsDisplay.from_estimator(vae, X)
    _, (real, synthetic) = code_together([X, new])
    a, b = associations(real), associations(synthetic)
    for image, matrix in zip(display.images_, (a, b, b - a), strict=True):
        np.testing.assert_allclose(image.get_array(), matrix)
    assert display.images_[2].get_clim() == (-1, 1)
    assert display.axes_[2].get_title() == f"synthetic - real (at most {np.abs(b - a).max():.2f})"
    _, axes = plt.subplots(1, 3)
    assert PairsDisplay.from_estimator(vae, X, axes=axes, image_kwargs={"cmap": "gray"}).axes_[0] is axes[0]


def test_why_rows_are_unlike_the_others(vae):
    display = AnomalyDisplay.from_estimator(vae, X, n_rows=4)
    rows = np.argsort(vae.score_samples(X))[:4]
    assert display.rows == rows.tolist()
    np.testing.assert_allclose(display.image_.get_array(), vae.score_cells(X.iloc[rows]))
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [str(row) for row in rows]
    assert len(display.texts_) == 4 * 6
    assert display.texts_[2].get_text() == X["k"].iloc[rows[0]]
    chosen = AnomalyDisplay.from_estimator(vae, X, rows=[5, 3], image_kwargs={"vmax": 9})
    assert chosen.rows == [5, 3]
    assert chosen.image_.get_clim()[1] == 9

    # fifty columns: the most surprising ones, without texts
    wide = np.random.default_rng(0).normal(size=(60, 50))
    display = AnomalyDisplay.from_estimator(quick(max_iter=1).fit(wide), wide)
    assert display.image_.get_array().shape == (10, 30)
    assert display.texts_ == []


# ------------------------------------------------------------------------------------------------------------ what is shared


def test_without_matplotlib_an_error_says_how_to_get_it(vae, monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'skvae\[plot\]'"):
        LossCurveDisplay.from_estimator(vae)


def test_on_dark_ground_nothing_is_drawn_in_the_colour_of_the_ground(vae):
    with plt.style.context("dark_background"):
        for ax in (
            LossCurveDisplay.from_estimator(vae).ax_,
            LatentSpaceDisplay.from_estimator(vae, X, X["k"]).ax_,
            ActiveUnitsDisplay.from_estimator(vae).ax_,
            *MarginalsDisplay.from_estimator(vae, X).axes_,
        ):
            ground = matplotlib.colors.to_rgb(ax.get_facecolor())
            artists = [*ax.get_lines(), ax.title, ax.xaxis.label]
            assert all(matplotlib.colors.to_rgb(artist.get_color()) != ground for artist in artists)


def test_long_names_are_cut():
    assert shortened("short") == "short"
    assert shortened("x" * 100) == "x" * 23 + "…"
    assert len(shortened(12345, 3)) == 3
