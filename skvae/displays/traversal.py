"""What each latent unit means: rows decoded along it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import COLOURS, grid, shortened, styled
from skvae.evaluation.coding import code_together

DRAWS = 500
"""New rows whose deviations are the unit in which columns are drawn."""

MOST_LINES = 6
"""Columns that are drawn for a unit: those that change most."""


class LatentTraversalDisplay:
    """Rows decoded along latent units: lines of the columns that change most, or images.

    It is best made by `from_estimator`.

    Parameters
    ----------
    units : sequence of int
    z : ndarray of shape (n_steps,)
        Points on each unit.
    curves : list of (dict of str to ndarray)
        For each unit, the columns that change most: numbers from their mean, in deviations of new rows; codes of levels, as a
        share of the last one.
    images : ndarray of shape (n_units, n_steps, height, width), default=None
        What is drawn in place of the curves.
    categories : sequence of str, default=()
        Names of the columns that are no numbers.

    Attributes
    ----------
    axes_ : ndarray of Axes
        One per unit, or one per image, shape (n_units, n_steps).
    figure_ : Figure
    """

    def __init__(
        self,
        units: Sequence[int],
        z: np.ndarray,
        curves: list[dict[str, np.ndarray]],
        images: np.ndarray | None = None,
        categories: Sequence[str] = (),
    ) -> None:
        self.units = units
        self.z = z
        self.curves = curves
        self.images = images
        self.categories = categories

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        units: Sequence[int] | None = None,
        image_shape: tuple[int, int] | None = None,
        n_steps: int | None = None,
        extent: float = 3.0,
        kwargs: dict[str, Any] | None = None,
    ) -> LatentTraversalDisplay:
        """Decode along the units of an estimator, and draw what comes.

        Parameters
        ----------
        estimator : VAEEstimator
            A fitted one.
        X : array-like, DataFrame, Series or dict, default=None
            One row, at whose latent mean the other units stay; None leaves them at 0.
        units : sequence of int, default=None
            The units; None takes the (up to) four with the most information.
        image_shape : (int, int), default=None
            Height and width, if a row is an image.
        n_steps : int, default=None
            Points along a unit; None is 9 of images, and 41 of columns.
        extent : float, default=3.0
            How far from 0 on either side, in deviations of the prior.
        kwargs : dict, default=None
            As for `plot`.

        Returns
        -------
        display : LatentTraversalDisplay
        """
        check_is_fitted(estimator)
        n_steps = n_steps or (41 if image_shape is None else 9)
        # units out of use decode to the same row everywhere
        if units is None:
            order = np.argsort(-estimator.kl_per_unit_, kind="stable")
            units = order[: min(4, max(1, estimator.active_units_))].tolist()
        paths = [estimator.traverse(unit, X=X, n_steps=n_steps, extent=extent) for unit in units]
        z = np.linspace(-extent, extent, n_steps)

        if image_shape is not None:
            images = np.array(list(map(np.asarray, paths)), dtype=float)
            return cls(units, z, [], images.reshape(len(units), n_steps, *image_shape)).plot(kwargs=kwargs)
        curves, categories = _curves(estimator, paths)
        return cls(units, z, curves, categories=categories).plot(kwargs=kwargs)

    def plot(self, *, kwargs: dict[str, Any] | None = None) -> LatentTraversalDisplay:
        """Draw one picture per unit, or one row of images.

        Parameters
        ----------
        kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.plot`, or of `imshow` for images.

        Returns
        -------
        display : LatentTraversalDisplay
        """
        if self.images is not None:
            return self._plot_images(styled({"cmap": "gray"}, kwargs))

        self.figure_, self.axes_ = grid(len(self.units), 2, (4.6, 3.2), sharex=True)
        for ax, unit, curves in zip(self.axes_, self.units, self.curves, strict=True):
            for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
                # what jumps are levels
                style = "--" if name in self.categories else "-"
                ax.plot(self.z, curve, **styled({"color": colour, "label": shortened(name), "ls": style}, kwargs))
            ax.set(title=f"unit {unit}", xlabel=f"z of unit {unit}", ylabel="deviations (dashed: levels)")
            if curves:
                ax.legend(fontsize="small")
        return self

    def _plot_images(self, options: dict[str, Any]) -> LatentTraversalDisplay:
        images = self.images if self.images is not None else np.empty((0, 0, 0, 0))
        n_units, n_steps = images.shape[:2]
        self.figure_, axes = grid(n_units * n_steps, n_steps, (0.8, 0.9))
        self.axes_ = axes.reshape(n_units, n_steps)
        for own_axes, own, unit in zip(self.axes_, images, self.units, strict=True):
            for ax, image in zip(own_axes, own, strict=True):
                ax.imshow(image, **options)
                ax.set(xticks=[], yticks=[])
            own_axes[0].set_ylabel(f"unit {unit}")
        for ax, z in zip(self.axes_[0], self.z, strict=True):
            ax.set_title(f"z = {z:.1f}", fontsize="small")
        return self


def _curves(estimator: Any, paths: list[Any]) -> tuple[list[dict[str, np.ndarray]], list[str]]:
    """For each path, the columns that change most along it; and the names of those that are no numbers."""
    # the unit of a column is its spread in new rows
    draws = estimator.sample(DRAWS, random_state=0)
    columns, (new, *decoded) = code_together([draws, *paths], estimator.categorical_features)
    mean, deviation = np.nanmean(new.numbers, axis=0), np.nanstd(new.numbers, axis=0)
    deviation[deviation == 0] = 1.0

    curves = []
    for rows in decoded:
        cells = (rows.numbers - mean) / deviation
        # a last code is that of missing cells
        levels = rows.codes / np.maximum(1, rows.n_levels - 2)
        both = np.column_stack([cells, levels])
        change = np.nanmax(both, axis=0) - np.nanmin(both, axis=0)
        names = [*columns.numbers, *columns.categories]
        most = np.argsort(-change, kind="stable")[:MOST_LINES]
        # what does not change says nothing
        own = {}
        for j in most[change[most] > 0]:
            own[str(names[j])] = both[:, j]
        curves.append(own)
    return curves, list(map(str, columns.categories))
