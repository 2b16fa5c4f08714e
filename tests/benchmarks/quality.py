"""How good synthetic rows, latent features and densities are: the figures of the benchmarks, as pure functions.

Shape and trend follow the definitions of SDMetrics, distances to the closest record those of TabSyn [1]_.

References
----------
.. [1] Zhang et al., "Mixed-type tabular data synthesis with score-based diffusion in latent space", ICLR 2024.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_BINS = 10


class Coded(NamedTuple):
    """Rows in plain arrays.

    Attributes
    ----------
    numbers : ndarray of shape (n, n_numbers)
        Floats, NaN where missing.
    codes : ndarray of shape (n, n_categories)
        Integers; a missing cell is a level of its own.
    n_levels : ndarray of shape (n_categories,)
        Number of levels of each category, over all tables coded together.
    """

    numbers: np.ndarray
    codes: np.ndarray
    n_levels: np.ndarray


# ------------------------------------------------------------------------------------------------------------- encoding


def level_name(value):
    """One spelling per level, whatever the type it arrives in: 1, 1.0 and "1" are the same level."""
    if value is None or value is pd.NA or value != value:
        return "<missing>"
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, float, np.number)):
        return f"{value:.12g}"
    return str(value)


def level_names(column):
    """The cells of a column as level names, an array of str objects."""
    codes, uniques = pd.factorize(column.astype(object), use_na_sentinel=False)
    return np.array([level_name(value) for value in uniques], dtype=object)[codes]


def code_tables(frames, numbers, categories):
    """Several tables with the same columns as `Coded` rows that share their levels.

    Parameters
    ----------
    frames : list of DataFrame
    numbers, categories : list of str
        Names of the columns.

    Returns
    -------
    coded : list of Coded
    """
    splits = np.cumsum([len(frame) for frame in frames])[:-1]
    columns = [np.unique(np.concatenate([level_names(f[c]) for f in frames]), return_inverse=True) for c in categories]
    empty = np.empty((sum(map(len, frames)), 0), dtype=int)
    codes = np.column_stack([empty, *[inverse for _, inverse in columns]])
    n_levels = np.array([len(levels) for levels, _ in columns], dtype=int)
    values = [frame[numbers].apply(pd.to_numeric).to_numpy(dtype=float, na_value=np.nan) for frame in frames]
    return [Coded(v, c, n_levels) for v, c in zip(values, np.split(codes, splits), strict=True)]


def one_hot(rows):
    """The categories of `rows` as 0 and 1, float32 of shape (n, sum of n_levels)."""
    encoded = np.zeros((len(rows.codes), int(rows.n_levels.sum())), dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum(rows.n_levels)[:-1]]).astype(int)
    np.put_along_axis(encoded, rows.codes + starts, 1, axis=1)
    return encoded


def standardise(reference, *others):
    """Arrays in units of the means and deviations of `reference`, missing cells at 0 and flagged by further columns."""
    mean, scale = np.nanmean(reference, axis=0), np.nanstd(reference, axis=0)
    scale[scale == 0] = 1.0
    flagged = np.isnan(reference).any(axis=0)
    arrays = [(X - mean) / scale for X in (reference, *others)]
    return [np.column_stack([np.nan_to_num(X), np.isnan(X[:, flagged])]) for X in arrays]


def dense(reference, *others):
    """`Coded` tables as matrices: standardised numbers beside one-hot categories; the scale is that of `reference`."""
    tables = (reference, *others)
    numbers = standardise(*[t.numbers for t in tables])
    return [np.column_stack([x, one_hot(t)]) for x, t in zip(numbers, tables, strict=True)]


# ------------------------------------------------------------------------------------------------------ shape and trend


def ks_statistic(a, b):
    """Largest distance between two empirical distributions, missing cells left out; 1 if one of them is empty."""
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    points = np.concatenate([a, b])
    steps = [np.searchsorted(x, points, side="right") / len(x) for x in (a, b)]
    return float(np.abs(steps[0] - steps[1]).max())


def total_variation(a, b, n_levels):
    """Half the sum of absolute differences between the shares of `n_levels` levels in two columns of codes."""
    shares = [np.bincount(x, minlength=n_levels) / len(x) for x in (a, b)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def column_errors(real, synthetic):
    """1 - KS complement of each number, 1 - total-variation complement of each category; ndarray, numbers first."""
    numbers = [ks_statistic(a, b) for a, b in zip(real.numbers.T, synthetic.numbers.T, strict=True)]
    columns = zip(real.codes.T, synthetic.codes.T, real.n_levels, strict=True)
    return np.array(numbers + [total_variation(a, b, n) for a, b, n in columns])


def shape_error(real, synthetic):
    """Mean over the columns of `column_errors`: 0 is perfect, 1 the worst."""
    return float(column_errors(real, synthetic).mean())


def missing_error(real, synthetic):
    """Mean absolute difference of the shares of missing cells of the numbers (a missing category is one more level)."""
    if not real.numbers.shape[1]:
        return 0.0
    return float(np.abs(np.isnan(real.numbers).mean(0) - np.isnan(synthetic.numbers).mean(0)).mean())


def correlations(X):
    """Pearson correlations over the rows where both cells are known; 0 where a column does not vary."""
    if np.isnan(X).any():
        return pd.DataFrame(X).corr().fillna(0.0).to_numpy()
    centred = X - X.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    norms[norms == 0] = np.inf
    return (centred / norms).T @ (centred / norms)


def bins(reference, X, n_bins=N_BINS):
    """Cells of X as codes of equal-width bins over the range of `reference`, open at both ends; missing is the last."""
    columns = []
    for known, column in zip(reference.T, X.T, strict=True):
        edges = np.histogram_bin_edges(known[~np.isnan(known)], bins=n_bins)
        columns.append(np.where(np.isnan(column), n_bins, np.searchsorted(edges[1:-1], column, side="right")))
    return np.column_stack(columns) if columns else np.empty((len(X), 0), dtype=int)


def pair_errors(real, synthetic):
    """1 - similarity of each pair of columns, a symmetric matrix; numbers first, the diagonal is NaN.

    Two numbers: half the absolute difference of their correlations. Otherwise the total variation between the joint
    distributions, numbers cut into 10 bins by the real rows.
    """
    p, n_columns = real.numbers.shape[1], real.numbers.shape[1] + real.codes.shape[1]
    errors = np.full((n_columns, n_columns), np.nan)
    if p:
        errors[:p, :p] = 0.5 * np.abs(correlations(real.numbers) - correlations(synthetic.numbers))
        np.fill_diagonal(errors, np.nan)
    sizes = np.concatenate([np.full(p, N_BINS + 1, dtype=int), real.n_levels])
    a, b = (np.column_stack([bins(real.numbers, t.numbers), t.codes]) for t in (real, synthetic))
    for i, j in combinations(range(n_columns), 2):
        if j >= p:
            joint = [x[:, i] * sizes[j] + x[:, j] for x in (a, b)]
            errors[i, j] = errors[j, i] = total_variation(*joint, sizes[i] * sizes[j])
    return errors


def trend_error(real, synthetic):
    """Mean over the pairs of columns of `pair_errors`: 0 is perfect, 1 the worst."""
    return float(np.nanmean(pair_errors(real, synthetic)))


# ------------------------------------------------------------------------------------------------------------- utility


def boosted(task, n_numbers, n_categories, seed):
    """A `HistGradientBoosting` model that reads numbers beside codes of categories, with its defaults."""
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    is_code = np.arange(n_numbers + n_categories) >= n_numbers
    return kind(categorical_features=is_code if n_categories else None, random_state=seed)


def compact(rows):
    """Numbers beside codes; codes above 254 are folded into one (the boosted trees' limit)."""
    return np.column_stack([rows.numbers, np.minimum(rows.codes, 254)])


def predictive_score(model, X, y, X_test, y_test, task):
    """AUC (classification into two) or R2 (regression) on the test rows; 0.5 if y has a single class."""
    if task == "regression":
        return float(r2_score(y_test, model.fit(X, y).predict(X_test)))
    if len(np.unique(y)) < 2:
        return 0.5
    return float(roc_auc_score(y_test, model.fit(X, y).predict_proba(X_test)[:, 1]))


def split_target(rows, target_index, task):
    """`rows` without the target, and the target: a category or, for regression, a number (where it is known)."""
    if task == "regression":
        y = rows.numbers[:, target_index]
        kept = ~np.isnan(y)
        return Coded(np.delete(rows.numbers, target_index, 1)[kept], rows.codes[kept], rows.n_levels), y[kept]
    without = np.delete(rows.codes, target_index, 1)
    return Coded(rows.numbers, without, np.delete(rows.n_levels, target_index)), rows.codes[:, target_index]


def utility(rows, test, target_index, task, seed=0):
    """Score on real test rows of boosted trees trained on `rows`, real or synthetic (AUC or R2)."""
    features, y = split_target(rows, target_index, task)
    features_test, y_test = split_target(test, target_index, task)
    model = boosted(task, features.numbers.shape[1], features.codes.shape[1], seed)
    return predictive_score(model, compact(features), y, compact(features_test), y_test, task)


# ------------------------------------------------------------------------------------------------------------ detection


def take(rows, index):
    """Chosen rows."""
    return Coded(rows.numbers[index], rows.codes[index], rows.n_levels)


def subsample(rows, n, rng):
    """At most `n` of the rows, without replacement."""
    size = len(rows.numbers)
    return rows if size <= n else take(rows, rng.choice(size, n, replace=False))


def cross_validated_auc(model, X, y, seed, n_folds=3):
    """Mean AUC over stratified folds."""
    scores = []
    for fit, held_out in StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(X, y):
        probability = clone(model).fit(X[fit], y[fit]).predict_proba(X[held_out])[:, 1]
        scores.append(roc_auc_score(y[held_out], probability))
    return float(np.mean(scores))


def detection(real, synthetic, seed=0, max_rows=20_000):
    """Cross-validated AUC of telling real from synthetic rows: (logistic, boosted); 0.5 is perfect.

    Both sides have the same number of rows, at most `max_rows` each: the AUC of trees rises with it.
    """
    rng = np.random.default_rng(seed)
    n = min(len(real.numbers), len(synthetic.numbers), max_rows)
    real, synthetic = subsample(real, n, rng), subsample(synthetic, n, rng)
    y = np.repeat([0, 1], n)
    logistic = LogisticRegression(C=1.0, max_iter=300)
    linear_rows = np.concatenate(dense(real, synthetic)).astype(np.float32)
    trees = boosted("classification", real.numbers.shape[1], real.codes.shape[1], seed)
    tree_rows = np.concatenate([compact(real), compact(synthetic)])
    return cross_validated_auc(logistic, linear_rows, y, seed), cross_validated_auc(trees, tree_rows, y, seed)


# -------------------------------------------------------------------------------------------------------------- privacy


def ranged(reference, X):
    """Numbers in units of the range of `reference`; missing cells at its middle, with a column that flags them."""
    low, high = np.nanmin(reference, axis=0), np.nanmax(reference, axis=0)
    width = np.where(high > low, high - low, 1.0)
    scaled = np.where(np.isnan(X), 0.5, (X - low) / width)
    flagged = np.isnan(reference).any(axis=0)
    return np.column_stack([scaled, np.isnan(X[:, flagged])])


def nearest_distance(numbers, categories, reference_numbers, reference_categories, chunk=1000):
    """L1 distance to the nearest reference row: that of the numbers, plus 2 per differing category (one-hot)."""
    nearest = np.empty(len(numbers))
    n_categories = reference_categories.sum(axis=1)[:1] if reference_categories.shape[1] else 0.0
    for start in range(0, len(numbers), chunk):
        part = slice(start, start + chunk)
        distance = cdist(numbers[part], reference_numbers, "cityblock") if numbers.shape[1] else 0.0
        if categories.shape[1]:
            distance = distance + 2.0 * (n_categories - categories[part] @ reference_categories.T)
        nearest[part] = distance.min(axis=1)
    return nearest


def nearer_share(train, held_out, synthetic, seed=0, max_rows=5000):
    """Share of synthetic rows nearer to the rows they were learnt from than to as many held-out ones; ties count half.

    0.5 is clean, 1 a copy of the training rows. At most `max_rows` synthetic rows are measured (standard error 0.007),
    against all the others.
    """
    rng = np.random.default_rng(seed)
    n = min(len(train.numbers), len(held_out.numbers))
    train, held_out, synthetic = (
        subsample(train, n, rng),
        subsample(held_out, n, rng),
        subsample(synthetic, max_rows, rng),
    )
    numbers = [ranged(train.numbers, t.numbers) for t in (synthetic, train, held_out)]
    categories = [one_hot(t) for t in (synthetic, train, held_out)]
    to_train = nearest_distance(numbers[0], categories[0], numbers[1], categories[1])
    to_held_out = nearest_distance(numbers[0], categories[0], numbers[2], categories[2])
    return float((to_train < to_held_out).mean() + 0.5 * (to_train == to_held_out).mean())


# ------------------------------------------------------------------------------------------------------- representation


def feature_scores(Z, y, Z_test, y_test, task, seed=0):
    """Scores of a linear and of a boosted model on features Z: AUC or R2 on the test rows."""
    linear = LogisticRegression(max_iter=500) if task == "classification" else LinearRegression()
    models = make_pipeline(StandardScaler(), linear), boosted(task, Z.shape[1], 0, seed)
    return tuple(predictive_score(model, Z, y, Z_test, y_test, task) for model in models)


def determination(numbers, decoded):
    """Mean over the columns of R2 of decoded numbers, arrays of shape (n, d), where they are not missing."""
    residual = np.nansum((numbers - decoded) ** 2, axis=0)
    spread = np.nansum((numbers - np.nanmean(numbers, axis=0)) ** 2, axis=0)
    return float(np.mean(1 - residual[spread > 0] / spread[spread > 0]))


def principal_components(train, test, n_components=8, scaled=False):
    """Leading components of the encoded table (standardised numbers, one-hot categories): training and test rows.

    With `scaled`, the one-hot columns have unit variance, too, and rare levels weigh as much as frequent ones.
    """
    X, X_test = dense(train, test)
    if scaled:
        X, X_test = standardise(X, X_test)
    pca = PCA(n_components=min(n_components, X.shape[1]), random_state=0).fit(X)
    return pca.transform(X), pca.transform(X_test)


# -------------------------------------------------------------------------------------------------------------- density


def best_by_validation(candidates, X, X_valid):
    """The estimator of largest mean log-likelihood on the validation rows; those that cannot be fitted are skipped."""
    best, best_score = None, -np.inf
    for candidate in candidates:
        try:
            score = candidate.fit(X).score_samples(X_valid).mean()
        except ValueError:  # a singular covariance
            continue
        if score > best_score:
            best, best_score = candidate, score
    return clone(best)


def mixture_of_best_size(X, X_valid, seed):
    """A full-covariance `GaussianMixture`: number of components first, then `reg_covar`."""
    sizes = [k for k in (1, 2, 4, 8, 16, 32, 60) if k * 5 <= len(X)]
    regs = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2)
    common = {"random_state": seed, "max_iter": 200}
    size = best_by_validation([GaussianMixture(k, reg_covar=1e-4, **common) for k in sizes], X, X_valid).n_components
    sizes = {max(1, round(size * 0.7)), size, round(size * 1.4)}
    return best_by_validation([GaussianMixture(k, reg_covar=r, **common) for k in sizes for r in regs], X, X_valid)


def tuned_densities(X, seed=0, max_rows=10_000):
    """Rivals with their parameters chosen on a fifth of the training rows, not yet fitted: a dict by name.

    They expect standardised columns. At most `max_rows` rows are used for the choice.
    """
    rng = np.random.default_rng(seed)
    rows = X if len(X) <= max_rows else X[rng.choice(len(X), max_rows, replace=False)]
    fit, valid = train_test_split(rows, test_size=0.2, random_state=seed)
    widths = np.geomspace(0.03, 1.0, 12)
    factors = range(1, min(X.shape[1], 12))
    return {
        "gaussian_mixture": mixture_of_best_size(fit, valid, seed),
        "kernel_density": best_by_validation([KernelDensity(bandwidth=w, rtol=1e-4) for w in widths], fit, valid),
        "factor_analysis": best_by_validation([FactorAnalysis(k, max_iter=2000) for k in factors], fit, valid),
    }


def density_scores(X, X_test, seed=0):
    """Mean log-likelihood of the test rows, in nats per row and in the units of X, of each tuned rival: a dict."""
    scaler = StandardScaler().fit(X)
    scaled, scaled_test = scaler.transform(X), scaler.transform(X_test)
    log_scale = np.log(scaler.scale_).sum()
    rivals = tuned_densities(scaled, seed)
    return {name: float(m.fit(scaled).score_samples(scaled_test).mean() - log_scale) for name, m in rivals.items()}


# ----------------------------------------------------------------------------------------------------------- imputation


def imputation_errors(truth, imputed, hidden, kinds, n_levels):
    """Error of each column over its hidden cells, as in HI-VAE (Nazabal et al., 2020); NaN where none is hidden.

    Parameters
    ----------
    truth, imputed : ndarray of shape (n, d)
        Numbers; categories as integers.
    hidden : ndarray of bool of shape (n, d)
        The cells to be imputed.
    kinds : sequence of {"cat", "ordinal", other}
        ``"cat"``: share of wrong levels. ``"ordinal"``: mean distance in levels over their number. Else the root mean
        squared error over the range of the column.
    n_levels : sequence of float
        Number of levels of the ``"ordinal"`` columns.
    """
    errors = np.full(len(kinds), np.nan)
    for j, kind in enumerate(kinds):
        cells = hidden[:, j] & ~np.isnan(truth[:, j])
        difference = imputed[cells, j] - truth[cells, j]
        if not cells.any():
            continue
        if kind == "cat":
            errors[j] = np.mean(difference != 0)
        elif kind == "ordinal":
            errors[j] = np.mean(np.abs(difference)) / n_levels[j]
        else:
            errors[j] = np.sqrt(np.mean(difference**2)) / np.ptp(truth[~np.isnan(truth[:, j]), j])
    return errors
