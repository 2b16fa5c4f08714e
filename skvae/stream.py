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
from skvae.kept_rows import Keeper
from skvae.parameters import check_positive_integer
from skvae.progress import RowReport
from skvae.table.containers import as_frame

ROWS_TO_SETTLE = 100_000
"""Rows that the columns of a stream are learnt from, before `partial_fit` goes through it."""

ROWS_AT_ONCE = 2**16
"""Rows of a stream that are in memory at a time, beside those that are kept."""


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
    rng = check_random_state(random_state)
    keeper = Keeper(check_positive_integer("n_rows", n_rows), rng, estimator.categorical_features)

    report = RowReport("fit", "all", estimator.verbose)
    for frame in _frames(source):
        keeper.add(frame)
        report(len(frame))

    X, weight = keeper.rows()
    return estimator.fit(X, sample_weight=weight)


def partial_fit(
    estimator: VAEEstimator, source: Any, *, n_rows: int = ROWS_TO_SETTLE, random_state: Any = None
) -> VAEEstimator:
    """Go once through a stream in gradient steps, from the present parameters.

    A model that is not fitted yet learns its columns first: from a uniform sample, and the extremes and levels of all rows, if
    the source can be read twice, or else from its first frame. The steps then take the row groups of Parquet files in a random
    order, other frames in theirs, and the rows of each in a random one.

    Parameters
    ----------
    estimator : VAEEstimator
    source : str, path, pyarrow.dataset.Dataset, polars.LazyFrame, callable or iterable
        As for `fit`. All but iterators can be read twice.
    n_rows : int, default=100_000
        Rows of the sample, which the first steps are taken on.
    random_state : int, RandomState instance or None, default=None
        Seed of the sample and of the order.

    Returns
    -------
    estimator : VAEEstimator
        The one given.

    See Also
    --------
    fit : A schedule that comes to rest, and rows that validate: better rows for the same time, as a rule.
    """
    rng = check_random_state(random_state)
    source = _opened(source)
    if not estimator.__sklearn_is_fitted__() and not isinstance(source, Iterator):
        keeper = Keeper(check_positive_integer("n_rows", n_rows), rng, estimator.categorical_features)
        for frame in _frames(source):
            keeper.add(frame)
        X, weight = keeper.rows()
        estimator.partial_fit(X, sample_weight=weight)

    report = RowReport("partial_fit", "all", estimator.verbose)
    for frame in _frames(source, rng):
        estimator.partial_fit(frame.to_native())
        report(len(frame))
    return estimator


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


def _opened(source: Any) -> Any:
    """A dataset in place of its path."""
    if not isinstance(source, str | os.PathLike):
        return source
    return importlib.import_module("pyarrow.dataset").dataset(source, format="parquet")


def _frames(source: Any, rng: np.random.RandomState | None = None) -> Iterator[nw.DataFrame]:
    """The frames of a stream; with a generator, those of files in a random order."""
    source = _opened(source)

    # datasets have both, tables do not
    if hasattr(source, "to_batches") and hasattr(source, "count_rows"):
        parts = _batches(source, rng)
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


def _batches(dataset: Any, rng: np.random.RandomState | None) -> Iterator[Any]:
    """Tables of arrow of a dataset; with a generator, its row groups come in a random order."""
    arrow = importlib.import_module("pyarrow")
    pieces = [dataset]
    if rng is not None:
        pieces = list(itertools.chain.from_iterable(map(_row_groups, dataset.get_fragments())))
        rng.shuffle(pieces)

    for piece in pieces:
        # a fragment may lack columns of its dataset
        options = {} if piece is dataset else {"schema": dataset.schema}
        for batch in piece.to_batches(batch_size=ROWS_AT_ONCE, **options):
            yield arrow.Table.from_batches([batch])


def _row_groups(fragment: Any) -> list[Any]:
    """The row groups of a file of Parquet; a fragment of another kind is one by itself."""
    if hasattr(fragment, "split_by_row_group"):
        return fragment.split_by_row_group()
    return [fragment]


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
