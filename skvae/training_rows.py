"""Training rows: a table read, encoded, and split into rows to train on and rows to validate on."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import validate_data
from torch import Tensor

from skvae._sklearn import check_sample_weight
from skvae.engine.ranks import Alone, Ranks
from skvae.fitted import FittedModel
from skvae.model.auxiliary import WEIGHT
from skvae.table import Table

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

MIN_ROWS_TO_HOLD_OUT = 10
"""Smaller tables are trained whole."""


class TrainingRows(NamedTuple):
    """Encoded rows and their weights.

    Attributes
    ----------
    x : tensor of shape (n, layout.width)
    weight : tensor of shape (n,) or None
        Of mean 1; None weights all rows alike.
    """

    x: Tensor
    weight: Tensor | None

    def take(self, rows: np.ndarray) -> TrainingRows:
        """Copies of the rows at some positions: views would keep the whole table in memory."""
        weight = None
        if self.weight is not None:
            weight = self.weight[rows]
        return TrainingRows(self.x[rows], weight)

    def with_mean_weight(self, mean: float) -> TrainingRows:
        """The same rows, with their weights divided by their `mean`."""
        if self.weight is None:
            return self
        return TrainingRows(self.x, self.weight / mean)

    def evenly(self, n_rows: int) -> TrainingRows:
        """At most `n_rows` rows, evenly spaced."""
        n = len(self.x)
        return self.take(np.arange(0, n, math.ceil(n / n_rows)))


class TrainingSet(NamedTuple):
    """What a fit trains on.

    Attributes
    ----------
    training : TrainingRows
        Rows to train on.
    validation : TrainingRows or None
        Rows to validate on.
    log_scale : float
        See `encode_rows`.
    ranks : Alone or Ranks
        The processes that train together: the rows are those of this one.
    n_rows : int
        Number of rows to train on, of all processes.
    digest : bytes or None
        What tells the rows of several processes from others; None where there is one process.
    """

    training: TrainingRows
    validation: TrainingRows | None
    log_scale: float
    ranks: Alone | Ranks
    n_rows: int
    digest: bytes | None = None

    def epochs_of(self, n_steps: int, batch_size: int) -> int:
        """Number of epochs that hold so many gradient steps."""
        return math.ceil(n_steps / math.ceil(self.n_rows / batch_size))


def names_of(estimator: VAEEstimator, X: Any, *, reset: bool) -> dict[str, Any]:
    """`n_features_in_` and `feature_names_in_` of a table, the latter if it has names.

    With `reset`, they are those of X; else X is checked against those seen at fit.
    """
    # scikit-learn sets them on the estimator that it is given
    face = copy.copy(estimator)
    validate_data(face, X, skip_check_array=True, reset=reset)

    names = {}
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(face, name):
            names[name] = getattr(face, name)
    return names


def read_rows(
    estimator: VAEEstimator, X: Any, sample_weight: Any, former: FittedModel | None, *, may_vary: bool
) -> tuple[Table, np.ndarray, np.ndarray | None]:
    """The table, and the rows of positive weight.

    Parameters
    ----------
    estimator : VAEEstimator
    X : ndarray (as `as_table` returns it) or DataFrame of shape (n_samples, n_features)
    sample_weight : array-like of shape (n_samples,) or None
    former : FittedModel or None
        The model to go on from, with its table.
    may_vary : bool
        Whether a column that was constant when that model was built may vary now.

    Returns
    -------
    table : Table
    values : ndarray of float of shape (n, n_features)
    weight : ndarray of float64 of shape (n,) or None
    """
    weight = None
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    if former is not None:
        table = former.table
        values = table.protected(table.read(X, estimator.handle_unknown))
    else:
        table, values = Table.fit(
            X,
            categorical_features=estimator.categorical_features,
            likelihood=estimator.likelihood,
            exposure=estimator.exposure,
            bounds=estimator.bounds,
            protect=estimator.protect,
            ignore=estimator.ignore,
            constraints=estimator.constraints,
            sample_weight=weight,
        )

    # a row of weight 0 would count in the number of rows
    if weight is not None:
        values = values[weight > 0]
        weight = weight[weight > 0]
    if not may_vary:
        table.check_constant(values)
    return table, values, weight


def encode_rows(
    table: Table, values: np.ndarray, weight: np.ndarray | None, device: str, mean_weight: float | None = None
) -> tuple[TrainingRows, float]:
    """Training rows as tensors.

    Parameters
    ----------
    table : Table
    values : ndarray of float of shape (n, n_features)
        NaN where a cell is missing.
    weight : ndarray of shape (n,) or None
        All positive.
    device : str
    mean_weight : float, default=None
        What weights are divided by; None is their mean.

    Returns
    -------
    rows : TrainingRows
    log_scale : float
        What is added to a loss of encoded rows to have it in the units of the table, in nats per row.
    """
    table.check_exposure(values, to_score=True)
    encoded = table.encode_values(values, np.float32)

    # the change of variables is the same whatever the network: its mean is all that losses need
    log_scale = -float(np.average(encoded.log_jacobian, weights=weight))
    if encoded.auxiliary_log_jacobian is not None:
        log_scale -= WEIGHT * float(np.average(encoded.auxiliary_log_jacobian, weights=weight))

    x = torch.from_numpy(encoded.x).to(device)
    if weight is None:
        return TrainingRows(x, None), log_scale
    shares = np.asarray(weight / (mean_weight or weight.mean()), dtype=np.float32)
    return TrainingRows(x, torch.from_numpy(shares).to(device)), log_scale


def hold_out(rows: TrainingRows, fraction: float, rng: np.random.RandomState) -> tuple[TrainingRows, TrainingRows]:
    """Split rows at random into those to train on and those to validate on.

    Parameters
    ----------
    rows : TrainingRows
    fraction : float
        Share of the rows to validate on.
    rng : RandomState

    Returns
    -------
    training, validation : TrainingRows

    Raises
    ------
    ValueError
        If no row is left to train on.
    """
    n = len(rows.x)
    n_held_out = math.ceil(fraction * n)
    if n_held_out >= n:
        raise ValueError(
            f"validation_fraction={fraction} sets {n_held_out} of {n} rows aside, which leaves none to train on. Lower it, "
            f"or set early_stopping=False."
        )

    # at random: rows may come sorted
    train_rows, held_out = train_test_split(np.arange(n), test_size=n_held_out, random_state=rng)
    return rows.take(train_rows), rows.take(held_out)
