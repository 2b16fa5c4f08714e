"""A table in shards, of which each of several processes has one: what they must know of one another before they train.

All processes learn the columns, the network's first weights and the latent density from the same rows: a uniform sample of
all, to which the rows with extremes and levels are added. Samples merge: each row draws a number, and those with the smallest
are kept. Of a table that is no larger than the sample, these are all rows.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from skvae._sklearn import check_sample_weight
from skvae.engine.ranks import Group, Ranks, mixed
from skvae.kept_rows import Keeper
from skvae.table import Table, as_table
from skvae.table.containers import as_frame
from skvae.table.selection import categorical_mask
from skvae.training_rows import MIN_ROWS_TO_HOLD_OUT, TrainingRows, TrainingSet, encode_rows, hold_out

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

ROWS_SHARED = 100_000
"""Rows of the sample that all processes have."""

ROWS_AT_ONCE = 2**16
"""Rows that the sample is drawn from at a time."""

WEIGHT = "sample_weight of this fit"
"""Name of a column of the sample, for a while."""


class Shard:
    """The rows of one rank.

    Parameters
    ----------
    group : Group
    X : array-like or DataFrame of shape (n_samples, n_features)
    sample_weight : array-like of shape (n_samples,), default=None

    Attributes
    ----------
    n_all : int
        Number of rows over all ranks.
    """

    def __init__(self, group: Group, X: Any, sample_weight: Any = None) -> None:
        def read() -> tuple[Any, np.ndarray | None]:
            table = as_table(X)
            if sample_weight is None:
                return table, None
            return table, check_sample_weight(sample_weight, table, dtype=np.float64, ensure_non_negative=True)

        self.group = group
        self.X, self.weight = group.together(read)
        self.n_all = sum(group.gather(len(self.X)))

        if len(set(group.gather(self.weight is None))) > 1:
            raise ValueError("Some ranks have a sample_weight and others have none. Give one on every rank.")

    def sample(self, categorical_features: Any) -> tuple[Any, np.ndarray | None]:
        """Rows that stand for those of all ranks, in the container of X, and their weights, if they differ.

        Parameters
        ----------
        categorical_features : "from_dtype", None, or array-like of {bool, int, str}
            As for `VAEEstimator`.
        """
        keeper = self.group.together(lambda: self._kept(categorical_features))
        kept = self.group.gather(keeper)

        def merged() -> Keeper:
            whole = Keeper(ROWS_SHARED, np.random.RandomState(0))
            for part in kept:
                whole.merge(part)
            return whole

        rows, weight = self.group.together(lambda: merged().rows())
        frame = nw.from_native(rows, eager_only=True)
        if self.weight is not None:
            own = frame[WEIGHT].to_numpy()
            weight = own if weight is None else own * weight
            frame = frame.drop(WEIGHT)
        if isinstance(self.X, np.ndarray):
            return frame.to_numpy().astype(self.X.dtype), weight
        return frame.to_native(), weight

    def _kept(self, categorical_features: Any) -> Keeper:
        """What this rank gives to the sample."""
        frame = _named(self.X)
        names = frame.columns
        by_name: list[Any] = names
        if isinstance(self.X, np.ndarray):
            by_name = list(range(len(names)))
        mask = categorical_mask(categorical_features, by_name, [False] * len(names))
        if self.weight is not None:
            frame = frame.with_columns(nw.new_series(WEIGHT, self.weight, backend=frame.implementation))

        # every rank gives rows in proportion to those that it has
        n_rows = len(frame)
        if self.n_all > ROWS_SHARED:
            n_rows = math.ceil(len(frame) * ROWS_SHARED / self.n_all)
        rng = np.random.RandomState(mixed(0, self.group.rank))
        # by name: the weights are one column more
        categories = np.array(names)[mask].tolist()
        keeper = Keeper(n_rows, rng, categories or None)
        for start in range(0, len(frame), ROWS_AT_ONCE):
            keeper.add(frame[start : start + ROWS_AT_ONCE])
        keeper.shrink()
        return keeper

    def split_rows(self, estimator: VAEEstimator, table: Table, seed: int, *, schedule: bool) -> TrainingSet:
        """Rows of this rank to train on, and rows to validate on if there are to be any, on all ranks or on none."""

        def read() -> tuple[np.ndarray, np.ndarray | None]:
            values = table.protected(table.read(self.X, estimator.handle_unknown))
            if self.weight is None:
                return values, None
            is_heavy = self.weight > 0
            return values[is_heavy], self.weight[is_heavy]

        def encode() -> tuple[TrainingRows, float]:
            return encode_rows(table, values, weight, estimator.device, mean_weight)

        group = self.group
        values, weight = group.together(read)
        n, total = len(values), float(len(values) if weight is None else weight.sum())
        # weights and the change of units are means over the rows of all ranks
        counts, totals = np.transpose(group.gather((n, total)))
        mean_weight = totals.sum() / counts.sum()
        rows, own_scale = group.together(encode)
        log_scale = sum(group.gather(own_scale * total)) / float(totals.sum())

        training, validation = rows, None
        holds_out = schedule and estimator.early_stopping
        if holds_out and counts.min() >= MIN_ROWS_TO_HOLD_OUT:
            rng = np.random.RandomState(mixed(seed, group.rank))
            training, validation = group.together(lambda: hold_out(rows, estimator.validation_fraction, rng))

        n_rows = group.gather(len(training.x))
        if training.weight is not None:
            training = training.with_mean_weight(sum(group.gather(float(training.weight.sum()))) / sum(n_rows))
        digest = b"".join(group.gather(_digest(training, validation)))
        return TrainingSet(
            training, validation, log_scale, Ranks(group, n_rows, estimator.batch_size), sum(n_rows), digest
        )


def _named(X: Any) -> nw.DataFrame:
    """X as a frame whose columns have names: those of an array are its indices."""
    frame = as_frame(X)
    if frame is not None:
        return frame

    pandas = importlib.import_module("pandas")
    named = pandas.DataFrame(X, columns=list(map(str, range(X.shape[1]))))
    return nw.from_native(named.infer_objects(), eager_only=True)


def _digest(training: TrainingRows, validation: TrainingRows | None) -> bytes:
    """SHA-256 of rows."""
    digest = hashlib.sha256()
    for rows in (training, validation):
        for tensor in rows or ():
            if tensor is not None:
                digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()
