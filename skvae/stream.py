"""Tables larger than memory: a fit in one pass over Parquet files and other streams, and answers written to Parquet.

A fit takes a set number of gradient steps, whatever the number of rows: 4000 of 128 rows by default. Of a table with more
rows than these, it would see each at most once, so that a uniform sample of as many rows is as good as the table. The pass
draws it, and finds the levels and the extremes of all rows.
"""

from __future__ import annotations

import importlib
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import check_random_state

from skvae.estimator import VAEEstimator
from skvae.files import replacing
from skvae.fitting import DEFAULT_STEPS
from skvae.parameters import check_positive_integer
from skvae.progress import RowReport
from skvae.table.containers import as_frame

ROWS_AT_ONCE = 2**16
"""Rows of a stream that are in memory at a time, beside those that are kept."""

MOST_LEVELS = 10_000
"""Largest number of levels of a column that are all learnt: one with more holds keys or free text, as a rule."""


def fit(estimator: VAEEstimator, source: Any, *, n_rows: int | None = None, random_state: Any = None) -> VAEEstimator:
    """Fit a model to a stream, in one pass over it.

    Of a stream of at most `n_rows` rows the fit is that of `VAEEstimator.fit`, to the bit. Of a longer one it is that of a
    uniform sample of `n_rows` rows, to which the rows with the extremes of each number are added; levels that the sample lacks
    are learnt as levels that no row has (of columns of up to 10,000 levels; of others, those of the sample).

    Parameters
    ----------
    estimator : VAEEstimator
    source : str, path, pyarrow.dataset.Dataset, polars.LazyFrame, callable or iterable
        A Parquet file or a folder of them, a dataset, a lazy frame; or frames of at most some 100,000 rows each, or a callable
        that gives them.
    n_rows : int, default=None
        Rows that are kept in memory, at most. None keeps as many as the default budget has gradient steps for: 4000 times
        `batch_size`, and those that validate.
    random_state : int, RandomState instance or None, default=None
        Seed of the sample.

    Returns
    -------
    estimator : VAEEstimator
        The one given, fitted.

    Raises
    ------
    ValueError
        If the stream has no rows, its frames have different columns, or `VAEEstimator.fit` refuses its rows.
    TypeError
        If the source is none of these.

    Examples
    --------
    >>> import pandas as pd, numpy as np
    >>> from skvae import VAEEstimator, stream
    >>> rng = np.random.default_rng(0)
    >>> parts = (pd.DataFrame(rng.normal(size=(100, 3)), columns=list("abc")) for _ in range(50))
    >>> vae = stream.fit(VAEEstimator(2, max_iter=3, random_state=0), parts, n_rows=1000, random_state=0)
    >>> vae.sample(2).shape
    (2, 3)
    """
    if n_rows is None:
        training = 1 - estimator.validation_fraction if estimator.early_stopping else 1.0
        n_rows = math.ceil(DEFAULT_STEPS * estimator.batch_size / training)
    keeper = _Keeper(check_positive_integer("n_rows", n_rows), check_random_state(random_state))

    report = RowReport("fit", "all", estimator.verbose)
    for frame in _frames(source):
        keeper.add(frame)
        report(len(frame))

    X, weight = keeper.rows()
    return estimator.fit(X, sample_weight=weight)


def transform(estimator: VAEEstimator, source: Any, path: str | os.PathLike) -> None:
    """Write the latent means of a stream's rows to a Parquet file, in the order of the rows.

    Parameters
    ----------
    estimator : VAEEstimator
        A fitted one.
    source : str, path, pyarrow.dataset.Dataset, polars.LazyFrame, callable or iterable
        As for `fit`.
    path : str or path-like
        The file, which appears as a whole or not at all.
    """
    names = estimator.get_feature_names_out().tolist()
    _answer(
        estimator, "transform", source, path, lambda rows: dict(zip(names, estimator.transform(rows).T, strict=True))
    )


def score_samples(estimator: VAEEstimator, source: Any, path: str | os.PathLike) -> None:
    """Write the log-likelihood of a stream's rows, in nats, to the column ``score`` of a Parquet file: see `transform`."""
    _answer(estimator, "score_samples", source, path, lambda rows: {"score": estimator.score_samples(rows)})


def sample(
    estimator: VAEEstimator,
    n_samples: int,
    path: str | os.PathLike,
    *,
    given: dict | None = None,
    latent_density: str | None = None,
    random_state: Any = None,
) -> None:
    """Write new rows to a Parquet file.

    Parameters
    ----------
    estimator : VAEEstimator
        A fitted one.
    n_samples : int
        Number of rows.
    path : str or path-like
        The file, which appears as a whole or not at all.
    given : dict, default=None
        As for `VAEEstimator.sample`.
    latent_density : str, default=None
        Likewise.
    random_state : int, RandomState instance or None, default=None
        Seed.
    """
    n_samples = check_positive_integer("n_samples", n_samples)
    rng = check_random_state(random_state)
    table = estimator._model().table
    names = []
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not column.is_dropped:
            names.append(str(name))

    def parts() -> Iterator[Any]:
        for start in range(0, n_samples, ROWS_AT_ONCE):
            n = min(ROWS_AT_ONCE, n_samples - start)
            rows = estimator.sample(n, given=given, latent_density=latent_density, random_state=rng)
            frame = as_frame(rows)
            if frame is None:
                yield dict(zip(names, rows.T, strict=True))
            else:
                yield frame.to_arrow()

    _write(path, parts(), RowReport("sample", n_samples, estimator.verbose))


# ------------------------------------------------------------------------------------------------------------------ streams


def _frames(source: Any) -> Iterator[nw.DataFrame]:
    """The frames of a stream."""
    if isinstance(source, str | os.PathLike):
        dataset = importlib.import_module("pyarrow.dataset")
        source = dataset.dataset(source, format="parquet")

    # datasets have both, tables do not
    if hasattr(source, "to_batches") and hasattr(source, "count_rows"):
        arrow = importlib.import_module("pyarrow")
        parts = (arrow.Table.from_batches([batch]) for batch in source.to_batches(batch_size=ROWS_AT_ONCE))
    elif hasattr(source, "collect_batches"):
        parts = source.collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True)
    elif callable(source):
        parts = source()
    elif hasattr(source, "columns") or not hasattr(source, "__iter__"):
        raise TypeError(
            f"Expected a path, a dataset of pyarrow, a lazy frame of polars, or frames one after the other; got "
            f"{type(source).__name__}. A table in memory goes to VAEEstimator.fit."
        )
    else:
        parts = source

    for part in parts:
        frame = as_frame(part)
        if frame is None:
            raise TypeError(
                f"A stream holds frames, got {type(part).__name__}. Name its columns: pandas.DataFrame(part)."
            )
        if len(frame):
            yield frame


class _Keeper:
    """A uniform sample of a stream's rows, and the rows with its extremes and levels.

    Every row draws a number, and the rows with the smallest numbers are kept.

    Parameters
    ----------
    n_rows : int
    rng : RandomState
    """

    def __init__(self, n_rows: int, rng: np.random.RandomState) -> None:
        self.n_rows = n_rows
        self.rng = rng
        self.n_seen = 0
        self.columns: list[str] = []

        # kept so far, with their numbers, of which none is above the threshold
        self.frames: list[nw.DataFrame] = []
        self.numbers: list[np.ndarray] = []
        self.threshold = math.inf

        # rows with extremes, by column and end, each beside the extreme
        self.extremes: dict[tuple[str, int], tuple[Any, nw.DataFrame]] = {}
        # by column the levels so far, None where they are too many, and the first row of each
        self.levels: dict[str, set | None] = {}
        self.firsts: dict[str, list[nw.DataFrame]] = {}

    def add(self, frame: nw.DataFrame) -> None:
        """Take in some rows."""
        self.columns = self.columns or frame.columns
        if frame.columns != self.columns:
            raise ValueError(
                f"The frames of a stream have the columns {self.columns} and {frame.columns}. Expected the same."
            )

        for name in self.columns:
            dtype = frame[name].dtype
            if dtype.is_numeric() or dtype.is_temporal():
                self._find_extremes(frame, name)
            else:
                self._find_levels(frame, name)

        numbers = self.rng.uniform(size=len(frame))
        chosen = np.flatnonzero(numbers < self.threshold)
        self.n_seen += len(frame)
        self.frames.append(frame[chosen])
        self.numbers.append(numbers[chosen])
        if sum(map(len, self.numbers)) > 2 * self.n_rows:
            self._shrink()

    def _find_extremes(self, frame: nw.DataFrame, name: str) -> None:
        """Keep the row with the smallest cell of a column of numbers, and that with the largest."""
        column = frame[name]
        present = column.drop_nulls()
        if column.dtype.is_float():
            present = present.filter(~present.is_nan())
        if not len(present):
            return

        for sign, end in ((-1, present.min()), (1, present.max())):
            former = self.extremes.get((name, sign))
            is_further = former is None or (end < former[0] if sign < 0 else end > former[0])
            if is_further:
                self.extremes[name, sign] = (end, frame.filter((column == end).fill_null(False)).head(1))

    def _find_levels(self, frame: nw.DataFrame, name: str) -> None:
        """Keep the first row of each level of a column."""
        seen = self.levels.setdefault(name, set())
        if seen is None:
            return

        new = set(frame[name].drop_nulls().unique().to_list()) - seen
        if len(seen) + len(new) > MOST_LEVELS:
            # keys, or free text
            self.levels[name] = None
            self.firsts.pop(name, None)
            return
        if not new:
            return

        seen |= new
        # read from the end, so that the first one stays
        cells = frame[name].to_list()
        places = dict(zip(reversed(cells), reversed(range(len(cells))), strict=True))
        rows = np.sort(list(map(places.__getitem__, new)))
        self.firsts.setdefault(name, []).append(frame[rows])

    def _shrink(self) -> None:
        """Keep the rows with the smallest numbers alone."""
        numbers = np.concatenate(self.numbers)
        kept = np.sort(np.argpartition(numbers, self.n_rows - 1)[: self.n_rows])
        whole = nw.concat(self.frames)
        self.frames = [whole[kept]]
        self.numbers = [numbers[kept]]
        self.threshold = numbers[kept].max()

    def rows(self) -> tuple[Any, np.ndarray | None]:
        """The rows to fit to, a frame, and their weights, shape (n,), if they differ."""
        if not self.frames:
            raise ValueError("The stream has no rows. Expected at least one.")
        if self.n_seen <= self.n_rows:
            return nw.concat(self.frames).to_native(), None

        self._shrink()
        ends = [row for _, row in self.extremes.values()]
        kept = nw.concat([*self.frames, *ends])
        firsts = list(itertools.chain.from_iterable(self.firsts.values()))
        if not firsts:
            return kept.to_native(), None

        # rows of weight 0 count for their levels alone
        levels = nw.concat(firsts)
        weight = np.repeat([1.0, 0.0], [len(kept), len(levels)])
        return nw.concat([kept, levels]).to_native(), weight


# ------------------------------------------------------------------------------------------------------------------ answers


def _answer(
    estimator: VAEEstimator, what: str, source: Any, path: str | os.PathLike, answer: Callable[[Any], dict[str, Any]]
) -> None:
    """Write what the estimator says of each frame of a stream."""
    parts = (answer(frame.to_native()) for frame in _frames(source))
    _write(path, parts, RowReport(what, "all", estimator.verbose))


def _write(path: str | os.PathLike, parts: Iterator[Any], report: RowReport) -> None:
    """A Parquet file of tables, or of columns by name."""
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")

    with replacing(path) as scratch, ExitStack() as stack:
        writer = None
        for part in parts:
            table = arrow.table(part) if isinstance(part, dict) else part
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(scratch, table.schema))
            writer.write_table(table.cast(writer.schema))
            report(table.num_rows)

        if writer is None:
            raise ValueError("The stream has no rows. Expected at least one.")
