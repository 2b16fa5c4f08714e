"""Warnings that point to the line of the caller."""

from __future__ import annotations

import sys
import warnings

OURS = ("skvae.", "sklearn.", "torch.", "contextlib", "imblearn.")
"""Modules that stand between the caller's line and a warning."""


def warn(message: str) -> None:
    """Warn the caller: the line of the warning is the nearest one outside of the package and those that call it.

    Parameters
    ----------
    message : str
    """
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(OURS):
        frame = frame.f_back
        level += 1

    warnings.warn(message, UserWarning, stacklevel=level + 1)
