"""What all displays share: axes, colours that colour-blind people tell apart, on light and dark grounds, and short names."""

from __future__ import annotations

from typing import Any

import numpy as np

REAL = "#56B4E9"
SYNTHETIC = "#E66100"
QUIET = "#999999"
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#999999")
"""Of Okabe & Ito, "Color universal design", 2008, in an order in which neighbours differ most."""

LONGEST_NAME = 24
"""Letters of a name that is written on an axis."""


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Displays need matplotlib: pip install 'skvae[plot]'.") from error
    return plt


def axes_like(ax: Any, figsize: tuple[float, float] = (6.4, 4.4)) -> Any:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    _, ax = pyplot().subplots(figsize=figsize, layout="constrained")
    return ax


def grid(n: int, n_columns: int, cell: tuple[float, float], **options: Any) -> tuple[Any, np.ndarray]:
    """A figure with `n` axes, of which each row holds `n_columns`, and these, shape (n,)."""
    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    size = (cell[0] * n_columns, cell[1] * n_rows)
    figure, axes = pyplot().subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options)
    # the last row may not be full
    for ax in axes.ravel()[n:]:
        ax.set_visible(False)
    return figure, axes.ravel()[:n]


def shortened(name: Any, longest: int = LONGEST_NAME) -> str:
    """A name of `longest` letters, or fewer."""
    text = str(name)
    if len(text) <= longest:
        return text
    return text[: longest - 1] + "…"


def styled(defaults: dict[str, Any], kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Options of matplotlib: the defaults, and what the caller wants instead."""
    return defaults | (kwargs or {})


def text_on(value: float, low: float, high: float) -> str:
    """Black or white: what is read on a cell of a map from dark to bright."""
    return "white" if value < low + 0.55 * (high - low) else "black"
