"""New rows from a pipeline that ends with a `VAEEstimator`, in the units of the pipeline's input."""

import warnings
from collections import Counter

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skvae.estimator import VAEEstimator
from skvae.table.containers import as_frame

ROUNDS = 20
"""How often rows that a step cannot take back are drawn again, at most."""

SHARE_TO_WARN_OF = 0.01
"""A warning tells when more than this share of the rows drawn could not be taken back."""


def sample_pipeline(pipeline, n_samples, *, latent_density=None, noise=True, random_state=None):
    """Draw new rows from a fitted pipeline whose last step is a `VAEEstimator`.

    Rows are drawn by ``VAEEstimator.sample`` and taken back through the ``inverse_transform`` of every step before it, from
    the last to the first.

    Parameters
    ----------
    pipeline : Pipeline of scikit-learn or imbalanced-learn
        A fitted one. Its steps may be pipelines themselves, ``"passthrough"`` and None; samplers, which act in `fit` only,
        are passed over. An imputer that adds an indicator brings missing cells back where it says that there were any.
    n_samples : int
        Number of rows.
    latent_density : str, default=None
        What z is drawn from: see `VAEEstimator`. None takes its parameter of that name.
    noise : bool, default=True
        Whether x is drawn from p(x | z). False decodes z only, to the mean (of the values that the VAE saw).
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
        If the last step is no `VAEEstimator`, a step has no way back, or it gives no finite values for too many rows.
    NotFittedError
        If the pipeline is not fitted.

    Warns
    -----
    UserWarning
        If more than 1 % of the rows drawn could not be taken back and were drawn again.

    Notes
    -----
    An inverse may be undefined for some of the rows: a `PowerTransformer` maps a skewed column to a bounded range, which the
    model's normal tails leave, and the way back from there is NaN. Such rows are drawn again, up to 20 times: what comes out
    follows the model given that the way back exists. Just inside that range the inverse is finite but may be very
    far from any training value. `QuantileTransformer` has no such range, nor has ``likelihood="quantile_normal"``, which
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

    def draw(n):
        return _take_back(steps, vae.sample(n, latent_density=latent_density, noise=noise, random_state=rng))

    rows, kept, lost = draw(n_samples)
    if len(kept) == n_samples:
        return rows
    pieces, n_drawn, n_kept = [rows], n_samples, len(kept)
    source = np.full(n_samples, -1)  # which of the rows drawn each row of the result is
    source[kept] = np.arange(n_kept)
    for _ in range(ROUNDS):
        empty = np.flatnonzero(source < 0)
        if not len(empty):
            break
        n_more = min(n_samples, 4 * len(empty))  # some to spare, for steps that lose most rows
        rows, kept, again = draw(n_more)
        fill = empty[: len(kept)]
        source[fill] = n_kept + np.arange(len(fill))
        n_drawn, n_kept, lost = n_drawn + n_more, n_kept + len(kept), lost + again
        pieces.append(rows)
    _report_losses(lost, n_drawn, n_left=int((source < 0).sum()), steps=dict(steps))
    return _take(_concatenate(pieces), source)


def _steps_and_vae(pipeline):
    """(name, step) of every step that acts on new rows, nested ones in line, and the fitted VAE behind them."""
    if not isinstance(pipeline, Pipeline):
        way_out = (
            "Call its own method sample"
            if isinstance(pipeline, VAEEstimator)
            else "Pass its best_estimator_"
            if hasattr(pipeline, "best_estimator_")
            else "Make one with sklearn.pipeline.make_pipeline(..., VAEEstimator())"
        )
        raise TypeError(f"Expected a fitted Pipeline, got {type(pipeline).__name__}. {way_out}.")
    steps = _acting_steps(pipeline)
    if not steps or not isinstance(steps[-1][1], VAEEstimator):
        last = f"{steps[-1][0]!r} ({type(steps[-1][1]).__name__})" if steps else "missing"
        raise ValueError(
            f"Expected a pipeline whose last step is a VAEEstimator; the last step is {last}. If the VAE stands before "
            f"other steps, pass the part up to it: pipeline[:2] is the first two steps."
        )
    *steps, (_, vae) = steps
    check_is_fitted(vae, msg="This pipeline is not fitted yet: its %(name)s has learnt nothing. Call fit first.")
    for name, step in steps:
        if not _has_way_back(step):
            raise ValueError(
                f"Step {name!r} ({type(step).__name__}) has no inverse_transform, so its rows cannot be taken back to the "
                f"units of the pipeline's input. Leave the step out where the VAE does without it: it reads numbers of any "
                f"scale, categories and missing cells as they are, in one table. A FunctionTransformer takes an inverse_func."
            )
    return steps, vae


def _acting_steps(pipeline, prefix=""):
    steps = []
    for name, step in pipeline.steps:
        if step is None or isinstance(step, str) or hasattr(step, "fit_resample"):
            continue
        nested = isinstance(step, Pipeline)
        steps += _acting_steps(step, f"{prefix}{name}__") if nested else [(prefix + name, step)]
    return steps


def _has_way_back(step):
    if isinstance(step, FunctionTransformer):  # without inverse_func it gives back what it is given
        return step.func is None or step.inverse_func is not None
    if getattr(step, "add_indicator", None) is False:  # an imputer that does not tell which cells were missing
        return False
    return hasattr(step, "inverse_transform")


def _take_back(steps, rows):
    """Rows through the inverses of `steps`, from the last to the first.

    Returns
    -------
    rows : ndarray or DataFrame of shape (n_kept, n_features)
    kept : ndarray of int of shape (n_kept,)
        Which rows they are: those without a cell that became missing or infinite on the way.
    lost : Counter
        The number of others, by the name of the step at which they were lost.
    """
    frame, kept, lost = as_frame(rows), np.arange(len(rows)), Counter()
    library = None if frame is None else nw.get_native_namespace(frame)
    for name, step in reversed(steps):
        if not len(kept):
            break
        n_holes = _count_holes(rows)
        rows = _named(_invert(name, step, rows), step, library)
        if not _flags_missing_cells(step):
            whole = np.flatnonzero(_count_holes(rows) <= n_holes)
            if len(whole) < len(kept):
                lost[name] = len(kept) - len(whole)
                rows, kept = _take(rows, whole), kept[whole]
    return rows, kept, lost


def _invert(name, step, rows):
    if _flags_missing_cells(step):
        rows, n_flags = np.array(rows), len(step.indicator_.features_)
        rows[:, -n_flags:] = rows[:, -n_flags:] > 0.5  # decoded to the mean, a flag is a probability
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # PowerTransformer says so of rows that are drawn again
        warnings.filterwarnings("ignore", message="Some values in column .* are NaN")
        try:
            return step.inverse_transform(rows)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Step {name!r} ({type(step).__name__}) cannot take rows back: {error}") from error


def _flags_missing_cells(step):
    """Whether the step is an imputer with an indicator, whose way back brings missing cells."""
    return getattr(step, "indicator_", None) is not None


def _named(rows, step, library):
    """The rows as a frame of `library` (if not None) with the names that `step` was fitted on (if it knows any)."""
    names = getattr(step, "feature_names_in_", ())
    if library is None or not isinstance(rows, np.ndarray) or len(set(names)) != rows.shape[1]:
        return rows
    columns = [column.tolist() if column.dtype == object else column for column in rows.T]
    return nw.from_dict(dict(zip(names, columns, strict=True)), backend=library).to_native()


def _report_losses(lost, n_drawn, *, n_left, steps):
    """An error if rows are left without a way back, a warning if many were drawn again."""
    name, _ = lost.most_common(1)[0]
    said = (
        f"The inverse_transform of step {name!r} ({type(steps[name]).__name__}) gave no finite values for {lost[name]} of "
        f"{n_drawn} rows drawn"
    )
    way_out = (
        "Use a transformer that is defined everywhere, such as QuantileTransformer, or none: "
        "VAEEstimator(likelihood='quantile_normal') makes columns normal itself."
    )
    if n_left:
        raise ValueError(f"{said}; {n_left} rows are missing after {ROUNDS} rounds of drawing again. {way_out}")
    if lost.total() > SHARE_TO_WARN_OF * n_drawn:
        warnings.warn(f"{said}. They were drawn again, so the tails are cut there. {way_out}", stacklevel=3)


# ------------------------------------------------------------------------------------------------- arrays and frames alike


def _count_holes(rows):
    """Missing and infinite cells of each row, ndarray of int of shape (n,)."""
    frame = as_frame(rows)
    columns = np.asarray(rows).T if frame is None else [frame[:, j] for j in range(frame.shape[1])]
    return np.sum([_holes(column) for column in columns], axis=0)


def _holes(column):
    if isinstance(column, nw.Series):
        missing = column.is_null().to_numpy()
        if column.dtype.is_float():
            missing = missing | ~np.isfinite(np.asarray(column.cast(nw.Float64).to_numpy(), dtype=np.float64))
        return missing
    if column.dtype.kind == "O":
        return np.array([value is None or value != value or value in (np.inf, -np.inf) for value in column], dtype=bool)
    return ~np.isfinite(column) if column.dtype.kind in "fmM" else np.zeros(len(column), dtype=bool)


def _take(rows, positions):
    frame = as_frame(rows)
    if frame is None:
        return rows[positions]
    return nw.maybe_reset_index(frame[positions.tolist()]).to_native()


def _concatenate(pieces):
    pieces = [piece for piece in pieces if len(piece)]
    if as_frame(pieces[0]) is None:
        return np.concatenate(pieces)
    return nw.concat([as_frame(piece) for piece in pieces]).to_native()
