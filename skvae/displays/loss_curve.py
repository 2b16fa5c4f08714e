"""What happened in a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import COLOURS, QUIET, axes_like, styled

STEEP = 0.1
"""Share of the first epochs whose losses may lie above the picture: they fall from afar."""


class LossCurveDisplay:
    """The loss of each epoch, its parts, the validation rows' and the learning rate.

    It is best made by `from_estimator`.

    Parameters
    ----------
    history : dict of str to (list of float)
        `VAEEstimator.history_`.

    Attributes
    ----------
    ax_ : Axes
        Losses, in nats per row.
    rate_ax_ : Axes or None
        Learning rates, on the right.
    figure_ : Figure
    lines_ : dict of str to Line2D
        ``"loss"``, ``"reconstruction"``, ``"kl"``, ``"validation"``, ``"kept"`` and ``"learning_rate"``: those drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAEEstimator
    >>> from skvae.displays import LossCurveDisplay
    >>> X, _ = load_wine(return_X_y=True)
    >>> vae = VAEEstimator(latent_dim=2, max_iter=20, random_state=0).fit(X)
    >>> display = LossCurveDisplay.from_estimator(vae)
    """

    def __init__(self, history: Mapping[str, Sequence[float]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Any = None,
        parts: bool = True,
        learning_rate: bool = True,
        line_kwargs: dict[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the fit of an estimator.

        Parameters
        ----------
        estimator : VAEEstimator
            A fitted one.
        ax, parts, learning_rate, line_kwargs
            As for `plot`.

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(ax, parts=parts, learning_rate=learning_rate, line_kwargs=line_kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        parts: bool = True,
        learning_rate: bool = True,
        line_kwargs: dict[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, default=None
            Where to; None makes a figure.
        parts : bool, default=True
            Whether to draw the parts of the loss: -log p(x | z), and KL(q(z | x) || N(0, I)).
        learning_rate : bool, default=True
            Whether to draw the learning rate, on an axis at the right.
        line_kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.plot` for the curves.

        Returns
        -------
        display : LossCurveDisplay
        """
        ax = axes_like(ax)
        history = self.history
        options = styled({"linewidth": 1.8}, line_kwargs)
        self.lines_: dict[str, Any] = {}

        def draw(name: str, x: Sequence[float], y: Any, label: str, **own: Any) -> None:
            (self.lines_[name],) = ax.plot(x, y, label=label, **(options | own))

        draw("loss", history["epoch"], history["loss"], "training loss", color=COLOURS[0])
        if parts:
            draw(
                "reconstruction",
                history["epoch"],
                history["reconstruction"],
                "-log p(x | z)",
                color=COLOURS[1],
                ls="--",
            )
            draw("kl", history["epoch"], history["kl"], "KL", color=COLOURS[2], ls="--")

        # scores are minus losses
        scores = np.array(history["validation_score"])
        if len(scores):
            draw("validation", history["validation_epoch"], -scores, "validation loss", color=COLOURS[3], marker=".")
            kept = history["validation_epoch"][int(np.nanargmax(scores))]
            self.lines_["kept"] = ax.axvline(kept, color=QUIET, ls=":", label="parameters kept")

        # another unit has another axis
        self.rate_ax_ = None
        if learning_rate:
            self.rate_ax_ = ax.twinx()
            rates = history["learning_rate"]
            (self.lines_["learning_rate"],) = self.rate_ax_.plot(history["epoch"], rates, color=QUIET, lw=1, zorder=0)
            self.rate_ax_.set(ylabel="learning rate", ylim=(0, None))

        ax.set(xlabel="epoch", ylabel="nats per row", title="Loss of the fit", ylim=self._limits(parts=parts))
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _limits(self, *, parts: bool) -> tuple[float, float]:
        """Ends of the axis of losses: without the first epochs, which fall from afar."""
        shown = [np.array(self.history["loss"]), -np.array(self.history["validation_score"])]
        if parts:
            shown += [np.array(self.history["reconstruction"]), np.array(self.history["kl"])]

        # the KL term starts from 0
        values = [np.array([0.0])] if parts else []
        for curve in shown:
            values.append(curve[int(STEEP * len(curve)) :])
        together = np.concatenate(values)
        low, high = np.nanmin(together), np.nanmax(together)
        margin = 0.05 * (high - low) or 1.0
        return float(low - margin), float(high + margin)
