"""Arrays by paths such as ``"watch/best/encoder.layers.0.weight"``: what several objects state, in one dict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]
"""Arrays by path."""


def put(arrays: Arrays, prefix: str, more: Mapping[str, np.ndarray]) -> None:
    """Add arrays under a prefix of their paths."""
    for name, array in more.items():
        arrays[prefix + name] = np.asarray(array)


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays that `put` added under a prefix."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
