"""How columns hang together, in real and in synthetic rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import pyplot, shortened, styled
from skvae.evaluation.coding import code_together
from skvae.evaluation.fidelity import associations


class PairsDisplay:
    """Association matrices of real rows, of synthetic rows, and their difference.

    It is best made by `from_tables` or `from_estimator`. Two numbers: the absolute value of their correlation; a number and a
    category: the correlation ratio; two categories: Cramer's V.

    Parameters
    ----------
    names : list
    real, synthetic : ndarray of shape (n_columns, n_columns)
        From 0 to 1.

    Attributes
    ----------
    axes_ : ndarray of three Axes
    figure_ : Figure
    images_ : list of AxesImage
    """

    def __init__(self, names: list, real: np.ndarray, synthetic: np.ndarray) -> None:
        self.names = names
        self.real = real
        self.synthetic = synthetic

    @classmethod
    def from_tables(
        cls,
        real: Any,
        synthetic: Any,
        *,
        categorical_features: Any = "from_dtype",
        axes: Any = None,
        image_kwargs: dict[str, Any] | None = None,
    ) -> PairsDisplay:
        """Draw the associations in two tables.

        Parameters
        ----------
        real, synthetic : array-like or DataFrame of shape (n, n_features)
        categorical_features : "from_dtype", None, or array-like of {bool, int, str}
            As for `VAEEstimator`.
        axes, image_kwargs
            As for `plot`.

        Returns
        -------
        display : PairsDisplay
        """
        columns, (a, b) = code_together([real, synthetic], categorical_features)
        display = cls([*columns.numbers, *columns.categories], associations(a), associations(b))
        return display.plot(axes, image_kwargs=image_kwargs)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, *, random_state: Any = 0, **options: Any) -> PairsDisplay:
        """Draw rows beside as many new ones of a fitted estimator; the options are those of `from_tables`."""
        check_is_fitted(estimator)
        new = estimator.sample(len(X), random_state=random_state)
        return cls.from_tables(X, new, categorical_features=estimator.categorical_features, **options)

    def plot(self, axes: Any = None, *, image_kwargs: dict[str, Any] | None = None) -> PairsDisplay:
        """Draw the three matrices.

        Parameters
        ----------
        axes : sequence of three Axes, default=None
            Where to; None makes a figure.
        image_kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : PairsDisplay
        """
        n = len(self.names)
        if axes is None:
            side = np.clip(2.0 + 0.14 * n, 3.2, 8.0)
            _, axes = pyplot().subplots(1, 3, figsize=(3 * side + 1.4, side + 1.5), layout="constrained")
        self.axes_ = np.asarray(axes)
        self.figure_ = self.axes_[0].figure

        # the third map is white where both are alike
        largest = np.abs(self.synthetic - self.real).max()
        shown = (
            ("real", self.real, {"cmap": "cividis", "vmin": 0, "vmax": 1}),
            ("synthetic", self.synthetic, {"cmap": "cividis", "vmin": 0, "vmax": 1}),
            (
                f"synthetic - real (at most {largest:.2f})",
                self.synthetic - self.real,
                {"cmap": "PuOr", "vmin": -1, "vmax": 1},
            ),
        )
        self.images_ = []
        labels = list(map(shortened, self.names))
        # fifty names need small letters
        size = float(np.clip(160 / max(n, 1), 4, 9))
        for ax, (title, matrix, options) in zip(self.axes_, shown, strict=True):
            self.images_.append(ax.imshow(matrix, **styled(options, image_kwargs)))
            ax.set_xticks(np.arange(n), labels, rotation=90, fontsize=size)
            ax.set_yticks(np.arange(n), labels if ax is self.axes_[0] else [""] * n, fontsize=size)
            ax.set_title(title)
        self.figure_.colorbar(self.images_[1], ax=self.axes_[1], shrink=0.7)
        self.figure_.colorbar(self.images_[2], ax=self.axes_[2], shrink=0.7)
        return self
