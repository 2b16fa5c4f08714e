"""One model of a table and its target: a clone of a prototype, fitted to both side by side."""

from __future__ import annotations

from collections.abc import Hashable
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from skvae.estimator import VAEEstimator
from skvae.table.rows import Table, join, n_columns

if TYPE_CHECKING:
    import numpy.typing as npt


def fit_joint(
    prototype: VAEEstimator, table: Table, target: np.ndarray, *, is_class: bool, rng: np.random.RandomState
) -> tuple[VAEEstimator, Table]:
    """Fit a clone of a prototype to a table joined with its target.

    Parameters
    ----------
    prototype : VAEEstimator
        It is left as it is.
    table : array (as `as_table` returns it), pandas or polars DataFrame of shape (n_samples, n_features)
    target : ndarray of shape (n_samples,)
        Codes of classes, or numbers.
    is_class : bool
        Whether the target is modelled as a category.
    rng : RandomState
        Source of the clone's seed.

    Returns
    -------
    vae : VAEEstimator
    joint : array or DataFrame of shape (n_samples, n_features + 1)
    """
    joint, column = join(table, target)

    vae = clone(prototype).set_params(random_state=int(rng.randint(np.iinfo(np.int32).max)))
    vae.set_params(**_from_the_start(vae, n_columns(table)))
    if is_class:
        vae.set_params(categorical_features=_with_column(vae.categorical_features, column))

    return vae.fit(joint), joint


def _from_the_start(vae: VAEEstimator, n: int) -> dict[str, Any]:
    """Parameters that name columns by position, counted from the first one: the target is not the last column of X."""

    def position(column: Any) -> Any:
        is_index = isinstance(column, Integral) and not isinstance(column, bool)
        return int(column) % n if is_index and -n <= column < 0 else column

    params: dict[str, Any] = {"exposure": position(vae.exposure)}
    if isinstance(vae.likelihood, dict):
        params["likelihood"] = {}
        for kind, columns in vae.likelihood.items():
            several = columns if not isinstance(columns, str | Integral) else [columns]
            params["likelihood"][kind] = [position(column) for column in several]
    if isinstance(vae.bounds, dict):
        params["bounds"] = {position(column): pair for column, pair in vae.bounds.items()}

    if isinstance(vae.ignore, dict):
        params["ignore"] = {position(column): policy for column, policy in vae.ignore.items()}
    elif vae.ignore is not None and not isinstance(vae.ignore, str):
        names = np.atleast_1d(np.asarray(vae.ignore, dtype=object)).tolist()
        params["ignore"] = dict.fromkeys(map(position, names), "drop")
    # the new rows stand below those of X, and have its columns
    for column, policy in params.get("ignore", {}).items():
        if policy == "drop":
            params["ignore"][column] = "carry"

    chosen = vae.categorical_features
    if chosen is not None and not isinstance(chosen, str):
        flags = np.atleast_1d(np.asarray(chosen, dtype=object)).tolist()
        params["categorical_features"] = [position(column) for column in flags]
        # a mask is longer by one flag
        if flags and all(isinstance(flag, bool | np.bool_) for flag in flags):
            params["categorical_features"] = [*flags, False]
    return params


def _with_column(categorical_features: npt.ArrayLike | None, column: Hashable) -> np.ndarray | list[Any]:
    """`categorical_features` of a table to which a categorical last column was added."""
    if categorical_features is None or isinstance(categorical_features, str):
        return [column]

    chosen = list(np.atleast_1d(np.asarray(categorical_features, dtype=object)))
    # the last flag of a mask, or one more name or index
    if chosen and all(isinstance(flag, bool | np.bool_) for flag in chosen):
        return [*chosen[:-1], True]
    return [*chosen, column]
