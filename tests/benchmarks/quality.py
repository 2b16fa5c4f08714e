"""How good synthetic rows, latent features and densities are: the figures of the benchmarks, as pure functions.

Those of synthetic rows are those of `skvae.evaluate`.
"""

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skvae.evaluation.coding import Coded, dense, standardise
from skvae.evaluation.distances import nearer_share as nearer_share
from skvae.evaluation.fidelity import missing_error as missing_error
from skvae.evaluation.fidelity import shape_error as shape_error
from skvae.evaluation.fidelity import trend_error as trend_error
from skvae.evaluation.models import boosted, predictive_score
from skvae.evaluation.models import detection as detection
from skvae.evaluation.models import split_target as split_target
from skvae.evaluation.models import utility as utility

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
