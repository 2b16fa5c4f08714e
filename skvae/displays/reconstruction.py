"""How much of rows comes back from their latent points."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import REAL, axes_like, grid, shortened, styled
from skvae.metrics import reconstruction_by_column

MOST_IMAGES = 10
"""Images that are drawn beside what comes back of them."""


class ReconstructionDisplay:
    """The score of each column, the best at the top, or images above what comes back of them.

    It is best made by `from_estimator`.

    Parameters
    ----------
    scores : dict of str to float
        By column, at most 1: see `skvae.metrics.reconstruction_score`.
    images, decoded : ndarray of shape (n, height, width), default=None
        What is drawn in place of the scores.

    Attributes
    ----------
    ax_ : Axes
        Of the bars; of images, the first one.
    axes_ : ndarray of Axes
        Of the images, shape (2, n).
    figure_ : Figure
    bars_ : BarContainer
    """

    def __init__(
        self, scores: dict[str, float], images: np.ndarray | None = None, decoded: np.ndarray | None = None
    ) -> None:
        self.scores = scores
        self.images = images
        self.decoded = decoded

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        image_shape: tuple[int, int] | None = None,
        ax: Any = None,
        kwargs: dict[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Encode rows, decode them, and draw what came back.

        Parameters
        ----------
        estimator : VAEEstimator
            A fitted one, or anything that has `transform` and `inverse_transform`.
        X : array-like or DataFrame of shape (n_samples, n_features)
            Rows, best such as were not trained on.
        image_shape : (int, int), default=None
            Height and width, if a row is an image; the first ten are drawn.
        ax, kwargs
            As for `plot`.

        Returns
        -------
        display : ReconstructionDisplay
        """
        check_is_fitted(estimator)
        if image_shape is None:
            return cls(reconstruction_by_column(estimator, X)).plot(ax, kwargs=kwargs)

        rows = X[:MOST_IMAGES]
        decoded = estimator.inverse_transform(estimator.transform(rows))
        pictures = np.stack([np.asarray(rows, dtype=float), np.asarray(decoded, dtype=float)])
        return cls({}, *pictures.reshape(2, -1, *image_shape)).plot(kwargs=kwargs)

    def plot(self, ax: Any = None, *, kwargs: dict[str, Any] | None = None) -> ReconstructionDisplay:
        """Draw the scores, or the images.

        Parameters
        ----------
        ax : Axes, default=None
            Where to; None makes a figure. Images always have one of their own.
        kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.barh`, or of `imshow` for images.

        Returns
        -------
        display : ReconstructionDisplay
        """
        if self.images is not None and self.decoded is not None:
            return self._plot_images(self.images, self.decoded, styled({"cmap": "gray"}, kwargs))

        # bars grow upwards: the best one is drawn last
        scores = np.array(list(self.scores.values()))
        order = np.argsort(scores, kind="stable")
        names = np.array(list(map(shortened, self.scores)), dtype=object)[order]
        places = np.arange(len(order))

        ax = axes_like(ax, (6.4, 1.4 + 0.22 * len(order)))
        self.bars_ = ax.barh(places, scores[order], **styled({"color": REAL}, kwargs))
        ax.set_yticks(places, names.tolist())
        ax.set(xlabel="R2, or the like for levels", title=f"What comes back: {scores.mean():.2f}")
        ax.set_xlim(min(0.0, scores.min()), 1)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_images(self, images: np.ndarray, decoded: np.ndarray, options: dict[str, Any]) -> ReconstructionDisplay:
        n = len(images)
        self.figure_, axes = grid(2 * n, n, (0.9, 1.0))
        self.axes_ = axes.reshape(2, n)
        for own_axes, own in zip(self.axes_, (images, decoded), strict=True):
            for ax, image in zip(own_axes, own, strict=True):
                ax.imshow(image, **options)
                ax.set(xticks=[], yticks=[])
        self.ax_ = self.axes_[0, 0]
        self.axes_[0, 0].set_ylabel("rows")
        self.axes_[1, 0].set_ylabel("decoded")
        return self
