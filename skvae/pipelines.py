"""New rows from a pipeline that ends with a `VAEEstimator`, in the units of the pipeline's input."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skvae.estimator import VAEEstimator
from skvae.table.containers import as_frame
from skvae.table.rows import Table, concatenate, count_holes, library_of, take, to_frame

ROUNDS = 20
"""Largest number of times that rows without an inverse are drawn again."""

SHARE_TO_WARN_OF = 0.01
"""Share of the rows drawn above which a warning tells that they had no inverse."""

SPARE = 4
"""Number of rows drawn again for each that is missing, as some steps lose most rows."""

Steps: TypeAlias = list[tuple[str, BaseEstimator]]
"""Names and fitted steps of a pipeline, from the first to the last."""


def sample_pipeline(
    pipeline: Pipeline,
    n_samples: int,
    *,
    latent_density: str | None = None,
    noise: bool = True,
    random_state: int | np.random.RandomState | None = None,
) -> Table:
    """Draw new rows from a fitted pipeline whose last step is a `VAEEstimator`.

    Rows are drawn by ``VAEEstimator.sample`` and taken back through the ``inverse_transform`` of every step before it, from
    the last to the first.

    Parameters
    ----------
    pipeline : Pipeline of scikit-learn or imbalanced-learn
        A fitted pipeline. Its steps may be pipelines themselves, ``"passthrough"`` and None; samplers, which act in `fit`
        only, are passed over. An imputer with an indicator empties the cells that the indicator marks as missing.
    n_samples : int
        Number of rows.
    latent_density : str, default=None
        Density that z is drawn from: see `VAEEstimator`. None takes its parameter of that name.
    noise : bool, default=True
        Whether x is drawn from p(x | z). False decodes z to the mean of p(x | z), in the units that the VAE was fitted on.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. None gives fresh rows at each call.

    Returns
    -------
    X : ndarray, pandas or polars DataFrame of shape (n_samples, n_features)
        New rows in the units of the pipeline's input. An array, as from scikit-learn's `inverse_transform`, unless the VAE was
        fitted on a frame, as under ``set_output(transform="pandas")``: then a frame of that library, with the names of
        the pipeline's input. Dtypes are those that the inverse transforms give.

    Raises
    ------
    ValueError
        If the last step is not a `VAEEstimator`, a step has no inverse, or an inverse gives no finite values for too many
        rows.
    TypeError
        If `pipeline` is not a `Pipeline`.
    NotFittedError
        If the pipeline is not fitted.

    Warns
    -----
    UserWarning
        If more than 1 % of the rows drawn could not be taken back and were drawn again.

    Notes
    -----
    An inverse may be undefined for some of the rows: a `PowerTransformer` maps a skewed column to a bounded range, which the
    model's normal tails leave, and the inverse of a value outside it is NaN. Such rows are drawn again, up to 20 times: the
    rows returned follow the model given that their inverse exists. Just inside that range the inverse is finite but may be
    very far from any training value. `QuantileTransformer` has no such range, nor has ``likelihood="quantile_normal"``, which
    needs no transformer in front.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skvae import VAEEstimator, sample_pipeline
    >>> X = load_diabetes(as_frame=True, scaled=False).data
    >>> pipeline = make_pipeline(StandardScaler(), VAEEstimator(latent_dim=2, max_iter=20, random_state=0))
    >>> pipeline = pipeline.set_output(transform="pandas").fit(X)
    >>> rows = sample_pipeline(pipeline, 100, random_state=0)
    >>> rows.shape, list(rows.columns) == list(X.columns)
    ((100, 10), True)
    """
    steps, vae = _steps_and_vae(pipeline)
    rng = check_random_state(random_state)

    def draw(n_rows: int) -> _Draw:
        rows = vae.sample(n_rows, latent_density=latent_density, noise=noise, random_state=rng)
        return _take_back(steps, rows)

    first = draw(n_samples)
    if len(first.kept) == n_samples:
        return first.rows

    # for each row of the result its position among the rows kept in all draws, -1 while it is missing
    source = np.full(n_samples, -1)
    source[first.kept] = np.arange(len(first.kept))
    draws = [first, *_draw_again(draw, source)]

    _report_losses(draws, n_missing=int((source < 0).sum()), steps=dict(steps))
    return take(concatenate([one.rows for one in draws]), source)


# ---------------------------------------------------------------------------------------------------------------- drawing


class _Draw(NamedTuple):
    """Rows drawn and taken back to the units of the pipeline's input.

    Attributes
    ----------
    rows : ndarray or DataFrame of shape (n_kept, n_features)
        The rows that have an inverse.
    kept : ndarray of int of shape (n_kept,)
        Their positions among the rows drawn.
    lost : Counter
        Number of the other rows, by the name of the step that has no inverse for them.
    n_drawn : int
        Number of rows drawn.
    """

    rows: Table
    kept: np.ndarray
    lost: Counter[str]
    n_drawn: int


def _draw_again(draw: Callable[[int], _Draw], source: np.ndarray) -> list[_Draw]:
    """Draw until no row is missing, in at most `ROUNDS` draws.

    Parameters
    ----------
    draw : callable
        ``draw(n)`` draws n rows and takes them back.
    source : ndarray of int of shape (n_samples,)
        For each row of the result its position among the rows kept so far, -1 where it is missing. Filled in place.

    Returns
    -------
    draws : list of _Draw
    """
    draws: list[_Draw] = []
    n_kept = np.count_nonzero(source >= 0)
    for _ in range(ROUNDS):
        missing = np.flatnonzero(source < 0)
        if not len(missing):
            break

        more = draw(min(len(source), SPARE * len(missing)))
        draws.append(more)

        filled = missing[: len(more.kept)]
        source[filled] = n_kept + np.arange(len(filled))
        n_kept += len(more.kept)

    return draws


def _report_losses(draws: list[_Draw], *, n_missing: int, steps: dict[str, BaseEstimator]) -> None:
    """Raise an error if rows are missing, warn if many were drawn again."""
    lost: Counter[str] = Counter()
    n_drawn = 0
    for draw in draws:
        lost += draw.lost
        n_drawn += draw.n_drawn

    name, n_lost = lost.most_common(1)[0]
    losses = (
        f"The inverse_transform of step {name!r} ({type(steps[name]).__name__}) gave no finite values for {n_lost} of "
        f"{n_drawn} rows drawn"
    )
    way_out = (
        "Use a transformer that is defined everywhere, such as QuantileTransformer, or none: "
        "VAEEstimator(likelihood='quantile_normal') makes columns normal itself."
    )

    if n_missing:
        raise ValueError(f"{losses}; {n_missing} rows are missing after {ROUNDS} rounds of drawing again. {way_out}")
    if lost.total() > SHARE_TO_WARN_OF * n_drawn:
        # the third level is the line that calls `sample_pipeline`
        warnings.warn(f"{losses}. They were drawn again, so the tails are cut there. {way_out}", stacklevel=3)


# --------------------------------------------------------------------------------------------------- the pipeline's steps


def _steps_and_vae(pipeline: Pipeline) -> tuple[Steps, VAEEstimator]:
    """The steps that act on new rows, those of nested pipelines in line, and the fitted VAE behind them."""
    _check_is_pipeline(pipeline)
    steps = _acting_steps(pipeline)
    vae = _last_step(steps)
    check_is_fitted(vae, msg="This pipeline is not fitted yet: its %(name)s has learnt nothing. Call fit first.")

    steps = steps[:-1]
    for name, step in steps:
        _check_has_inverse(name, step)
    return steps, vae


def _check_is_pipeline(pipeline: Pipeline) -> None:
    if isinstance(pipeline, Pipeline):
        return

    way_out = "Make one with sklearn.pipeline.make_pipeline(..., VAEEstimator())"
    if hasattr(pipeline, "best_estimator_"):
        way_out = "Pass its best_estimator_"
    if isinstance(pipeline, VAEEstimator):
        way_out = "Call its own method sample"
    raise TypeError(f"Expected a fitted Pipeline, got {type(pipeline).__name__}. {way_out}.")


def _acting_steps(pipeline: Pipeline, prefix: str = "") -> Steps:
    """The steps that act on new rows; names of nested ones are joined by two underscores, as in scikit-learn."""
    steps = []
    for name, step in pipeline.steps:
        if step is None or isinstance(step, str):
            continue
        # a sampler of imbalanced-learn acts in fit only
        if hasattr(step, "fit_resample"):
            continue

        if isinstance(step, Pipeline):
            steps += _acting_steps(step, f"{prefix}{name}__")
        else:
            steps.append((prefix + name, step))

    return steps


def _last_step(steps: Steps) -> VAEEstimator:
    """The `VAEEstimator` at the end of the steps; a ValueError if there is none."""
    last = "missing"
    if steps:
        name, step = steps[-1]
        if isinstance(step, VAEEstimator):
            return step
        last = f"{name!r} ({type(step).__name__})"

    raise ValueError(
        f"Expected a pipeline whose last step is a VAEEstimator; the last step is {last}. If the VAE stands before "
        f"other steps, pass the part up to it: pipeline[:2] is the first two steps."
    )


def _check_has_inverse(name: str, step: BaseEstimator) -> None:
    has_inverse = hasattr(step, "inverse_transform")
    # without inverse_func, a FunctionTransformer returns rows as they are: right only if it has no func either
    if isinstance(step, FunctionTransformer):
        has_inverse = step.func is None or step.inverse_func is not None
    # an imputer without an indicator has the method, but cannot tell which cells were missing
    if getattr(step, "add_indicator", None) is False:
        has_inverse = False

    if not has_inverse:
        raise ValueError(
            f"Step {name!r} ({type(step).__name__}) has no inverse_transform, so its rows cannot be taken back to the "
            f"units of the pipeline's input. Leave the step out where the VAE does without it: it reads numbers of any "
            f"scale, categories and missing cells as they are, in one table. A FunctionTransformer takes an inverse_func."
        )


# -------------------------------------------------------------------------------------------------- from step to step back


def _take_back(steps: Steps, rows: Table) -> _Draw:
    """Take rows through the inverses of the steps, from the last to the first.

    Rows with a cell that became missing or infinite at a step are lost there: the steps before may refuse such cells.
    """
    library = library_of(rows)
    kept = np.arange(len(rows))
    lost: Counter[str] = Counter()
    n_drawn = len(rows)

    for name, step in reversed(steps):
        if not len(kept):
            break
        n_holes = count_holes(rows)
        rows = _with_names(_invert(name, step, rows), step, library)

        # an imputer with an indicator makes missing cells on purpose
        if _has_indicator(step):
            continue
        whole = np.flatnonzero(count_holes(rows) <= n_holes)
        if len(whole) < len(kept):
            lost[name] = len(kept) - len(whole)
            rows = take(rows, whole)
            kept = kept[whole]

    return _Draw(rows, kept, lost, n_drawn)


def _invert(name: str, step: BaseEstimator, rows: Table) -> Table:
    """Take rows back through one step."""
    if _has_indicator(step):
        rows = _with_whole_flags(step, rows)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # PowerTransformer warns of the rows that are drawn again
        warnings.filterwarnings("ignore", message="Some values in column .* are NaN")
        try:
            inverse = step.inverse_transform(rows)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Step {name!r} ({type(step).__name__}) cannot take rows back: {error}") from error

    if as_frame(inverse) is None:
        return np.asarray(inverse)
    return inverse


def _has_indicator(step: BaseEstimator) -> bool:
    """Whether the step is an imputer with an indicator, whose inverse makes missing cells."""
    return getattr(step, "indicator_", None) is not None


def _with_whole_flags(step: BaseEstimator, rows: Table) -> np.ndarray:
    """The rows with flags of 0 and 1 in the columns of the step's indicator, which are the last ones."""
    values = np.array(rows)
    n_flags = len(step.indicator_.features_)

    # decoded to the mean, a flag is a probability
    values[:, -n_flags:] = values[:, -n_flags:] > 0.5
    return values


def _with_names(rows: Table, step: BaseEstimator, library: ModuleType | None) -> Table:
    """The rows as a frame of `library` (unless it is None), with the names that the step was fitted on, if it has any."""
    if library is None or not isinstance(rows, np.ndarray):
        return rows

    names = getattr(step, "feature_names_in_", ())
    if len(set(names)) != rows.shape[1]:
        return rows
    return to_frame(rows, names, library)
