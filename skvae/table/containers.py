"""Containers that a table may come in: arrays, and the frames that narwhals reads (pandas, polars, pyarrow, ...)."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import check_array


def as_frame(X: Any) -> nw.DataFrame | None:
    """X as a frame of narwhals; None if it is no frame."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame
    return None


def as_table(X: Any) -> Any:
    """A frame as it is, anything else as an array of two dimensions.

    Parameters
    ----------
    X : array-like or DataFrame of shape (n_samples, n_features)

    Returns
    -------
    table : DataFrame, or ndarray of shape (n_samples, n_features)
        An array holds floats (float32 stays float32), or objects if X holds text.

    Raises
    ------
    ValueError
        If X has no rows or no columns, or cannot be read.
    """
    frame = as_frame(X)
    if frame is not None:
        if 0 in frame.shape:
            raise ValueError(f"Found a frame of shape {frame.shape}; expected at least one row and one column.")
        return X

    array = X
    if isinstance(X, np.ma.MaskedArray):
        array = _unmasked(X)
    if isinstance(X, list | tuple):
        array = np.asarray(X)

    # text stays, numbers among objects become floats below
    if getattr(array, "dtype", None) is not None and array.dtype.kind in "OUS":
        array = check_array(array.astype(object), dtype=None, ensure_all_finite=False)
        if holds_text(array.ravel()):
            return array
    return check_array(array, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", input_name="X")


def _unmasked(X: np.ma.MaskedArray) -> np.ndarray:
    """An array with NaN, or None among objects, where X is masked."""
    if X.dtype.kind in "OUS":
        return np.ma.filled(X.astype(object), None)
    if X.dtype.kind == "f":
        return np.ma.filled(X, np.nan)

    return np.ma.filled(X.astype(np.float64), np.nan)


def holds_text(column: np.ndarray) -> bool:
    """Whether an array of objects, shape (n,), holds text."""
    return any(isinstance(value, str) for value in column)
