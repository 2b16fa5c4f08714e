"""Where rows lie in the latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import gaussian_kde
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import COLOURS, QUIET, axes_like, pyplot, styled

DRAWS = 2000
"""Draws of the latent density that its contours are drawn from."""

POINTS = 60
"""Points of the contours' grid on either side."""

MOST_CLASSES = 8
"""Different values of y up to which they are classes, with a colour each, even if they are numbers."""

DEVIATIONS = 2
"""Half axes of an ellipse, in deviations of the posterior."""


class LatentSpaceDisplay:
    """Latent means of rows on two units, over the contours of the latent density that `sample` draws from.

    It is best made by `from_estimator`. A model of one unit has a histogram in place of the plane.

    Parameters
    ----------
    z_mean, z_std : ndarray of shape (n_samples, n_units)
        Of the one or two units that are drawn.
    y : ndarray of shape (n_samples,) or None
        Colours: classes, or numbers.
    units : sequence of int
        Which units they are.
    draws : ndarray of shape (n, n_units) or None
        Draws of the latent density.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    points_ : list of PathCollection
        One per class, or one; of a single unit, the histograms.
    ellipses_ : EllipseCollection or None
    contours_ : ContourSet or None
    """

    def __init__(
        self,
        z_mean: np.ndarray,
        z_std: np.ndarray,
        y: np.ndarray | None = None,
        *,
        units: Sequence[int] = (0, 1),
        draws: np.ndarray | None = None,
    ) -> None:
        self.z_mean = z_mean
        self.z_std = z_std
        self.y = y
        self.units = units
        self.draws = draws

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        units: Sequence[int] | None = None,
        density: bool = True,
        ellipses: bool = False,
        ax: Any = None,
        scatter_kwargs: dict[str, Any] | None = None,
    ) -> LatentSpaceDisplay:
        """Draw the latent means of rows.

        Parameters
        ----------
        estimator : VAEEstimator
            A fitted one.
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.
        y : array-like of shape (n_samples,), default=None
            Colours: classes, if they are texts or few numbers, else numbers.
        units : (int, int), default=None
            The units to draw; None takes the two with the most information.
        density : bool, default=True
            Whether to draw contours of the latent density.
        ellipses, ax, scatter_kwargs
            As for `plot`.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        check_is_fitted(estimator)
        z_mean, z_std = estimator.posterior(X)
        if units is None:
            units = np.argsort(-estimator.kl_per_unit_, kind="stable")[:2].tolist()
        chosen = list(units)
        if not 1 <= len(chosen) <= 2 or not set(chosen) <= set(range(z_mean.shape[1])):
            raise ValueError(f"units={units!r}; expected one or two of the {z_mean.shape[1]} latent units, from 0.")

        # densities of every kind can be drawn from
        draws = None
        if density:
            generator = torch.Generator().manual_seed(0)
            draws = estimator.latent_density_.sample(DRAWS, generator).numpy()[:, chosen]
        colours = None if y is None else np.asarray(y)
        display = cls(z_mean[:, chosen], z_std[:, chosen], colours, units=chosen, draws=draws)
        return display.plot(ax, ellipses=ellipses, scatter_kwargs=scatter_kwargs)

    def plot(
        self, ax: Any = None, *, ellipses: bool = False, scatter_kwargs: dict[str, Any] | None = None
    ) -> LatentSpaceDisplay:
        """Draw the points.

        Parameters
        ----------
        ax : Axes, default=None
            Where to; None makes a figure.
        ellipses : bool, default=False
            Whether to draw how sure the encoder is of each row: two deviations of q(z | x) to each side.
        scatter_kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : LatentSpaceDisplay
        """
        ax = axes_like(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.contours_ = self.ellipses_ = None
        self.points_: list[Any] = []
        if self.z_mean.shape[1] == 1:
            self._draw_line()
        else:
            self._draw_plane(styled({"s": 14, "alpha": 0.8, "linewidths": 0}, scatter_kwargs), ellipses=ellipses)

        ax.set(xlabel=f"z_mean of unit {self.units[0]}", title="Rows in the latent space")
        return self

    def _draw_line(self) -> None:
        """Histograms of one unit."""
        for label, rows, colour in self._classes() or [("rows", slice(None), COLOURS[0])]:
            _, _, bars = self.ax_.hist(
                self.z_mean[rows, 0], bins=30, density=True, alpha=0.6, color=colour, label=label
            )
            self.points_.append(bars)
        # a curve over the histograms
        if self.draws is not None:
            line = np.linspace(self.draws.min(), self.draws.max(), 200)
            self.ax_.plot(line, gaussian_kde(self.draws.T)(line), color=QUIET, label="latent density")
        self.ax_.legend()

    def _draw_plane(self, options: dict[str, Any], *, ellipses: bool) -> None:
        """Points on two units, over contours."""
        ax = self.ax_
        if self.draws is not None:
            self.contours_ = self._draw_contours(self.draws)
        if ellipses:
            self.ellipses_ = self._draw_ellipses()

        # classes have colours, numbers a scale
        x, y = self.z_mean.T
        classes = self._classes()
        for label, rows, colour in classes or []:
            self.points_.append(ax.scatter(x[rows], y[rows], label=label, **({"color": colour} | options)))
        if classes:
            ax.legend()
        elif self.y is None:
            self.points_.append(ax.scatter(x, y, **({"color": COLOURS[0]} | options)))
        else:
            points = ax.scatter(x, y, c=self.y.astype(float), **options)
            self.figure_.colorbar(points, ax=ax, label="y")
            self.points_.append(points)
        ax.set(ylabel=f"z_mean of unit {self.units[1]}")

    def _classes(self) -> list[tuple[str, Any, str]] | None:
        """Label, rows and colour of each class; None if y is no class."""
        if self.y is None:
            return None
        # numbers of many values are a scale
        texts = self.y.astype(str)
        labels, counts = np.unique(texts, return_counts=True)
        if self.y.dtype.kind in "fiu" and len(labels) > MOST_CLASSES:
            return None

        # the largest classes have colours of their own
        order = labels[np.argsort(-counts, kind="stable")]
        classes = []
        for label, colour in zip(sorted(order[: MOST_CLASSES - 1]), COLOURS, strict=False):
            classes.append((str(label), texts == label, colour))
        others = np.isin(texts, order[MOST_CLASSES - 1 :])
        if others.any():
            classes.append(("others", others, QUIET))
        return classes

    def _draw_contours(self, draws: np.ndarray) -> Any:
        """Contours of the density of draws."""
        # a frame around all that is drawn
        both = np.concatenate([draws, self.z_mean])
        low, high = both.min(0), both.max(0)
        margin = 0.05 * (high - low)
        axes = np.linspace(low - margin, high + margin, POINTS)
        x, y = np.meshgrid(*axes.T)
        heights = gaussian_kde(draws.T)(np.stack([x.ravel(), y.ravel()])).reshape(x.shape)
        return self.ax_.contour(x, y, heights, levels=7, colors=QUIET, linewidths=0.8, alpha=0.7)

    def _draw_ellipses(self) -> Any:
        """An ellipse around each point."""
        pyplot()
        from matplotlib.collections import EllipseCollection

        widths, heights = 2 * DEVIATIONS * self.z_std.T
        ellipses = EllipseCollection(
            widths,
            heights,
            np.zeros(len(widths)),
            units="xy",
            offsets=self.z_mean,
            transOffset=self.ax_.transData,
            facecolors="none",
            edgecolors=QUIET,
            linewidths=0.4,
            alpha=0.5,
        )
        return self.ax_.add_collection(ellipses)
