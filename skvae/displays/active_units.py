"""Which latent units carry information."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skvae.drawing import QUIET, REAL, axes_like, styled


class ActiveUnitsDisplay:
    """The information in each latent unit, the largest first; those that are not in use are grey.

    It is best made by `from_estimator`.

    Parameters
    ----------
    kl_per_unit : ndarray of shape (latent_dim,)
        In nats.
    n_active : int
        Number of units whose latent mean varies.

    Attributes
    ----------
    ax_ : Axes
    figure_ : Figure
    bars_ : BarContainer
    units_ : ndarray of int of shape (latent_dim,)
        The units, in the order drawn.
    """

    def __init__(self, kl_per_unit: np.ndarray, n_active: int) -> None:
        self.kl_per_unit = kl_per_unit
        self.n_active = n_active

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, bar_kwargs: dict[str, Any] | None = None
    ) -> ActiveUnitsDisplay:
        """Draw the latent units of a fitted estimator; `ax` and `bar_kwargs` are those of `plot`."""
        check_is_fitted(estimator)
        return cls(estimator.kl_per_unit_, estimator.active_units_).plot(ax, bar_kwargs=bar_kwargs)

    def plot(self, ax: Any = None, *, bar_kwargs: dict[str, Any] | None = None) -> ActiveUnitsDisplay:
        """Draw the bars.

        Parameters
        ----------
        ax : Axes, default=None
            Where to; None makes a figure.
        bar_kwargs : dict, default=None
            Options of `matplotlib.axes.Axes.bar`.

        Returns
        -------
        display : ActiveUnitsDisplay
        """
        ax = axes_like(ax)
        self.units_ = np.argsort(-self.kl_per_unit, kind="stable")
        n = len(self.units_)
        # units in use have a colour, the others are there and grey
        colours = [REAL] * self.n_active + [QUIET] * (n - self.n_active)

        options = styled({"color": colours}, bar_kwargs)
        self.bars_ = ax.bar(np.arange(n), self.kl_per_unit[self.units_], **options)
        # names of many units would run into one another
        step = -(-n // 20)
        ax.set_xticks(np.arange(0, n, step), list(map(str, self.units_[::step])))
        ax.set(xlabel="latent unit", ylabel="KL, nats", title=f"{self.n_active} of {n} latent units carry information")
        self.ax_, self.figure_ = ax, ax.figure
        return self
