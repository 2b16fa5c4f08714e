"""Imputation of missing cells, and test log-likelihood of binary tables.

Run ``python tests/benchmarks/bench_missing.py --help``. Three parts, one line of JSON per run to ``--output``, and one
printed table each of means and standard errors:

miwae
    ``load_breast_cancer``, standardised, half of the cells removed completely at random; mean squared error over the
    removed cells. The protocol of the notebook of Mattei & Frellsen, whose model reaches 0.287.
hivae
    The masks of Nazabal et al. (2020), their errors: root mean squared error over the range for numbers, share of wrong
    levels for categories, distance in levels over their number for ordinals; averaged over the columns.
binary
    Nats per test row after training on the training rows only. Rivals: independent columns, and a mixture of products
    of independent columns with as many components as the validation rows prefer. Beside them a published figure.

`KNNImputer` takes its neighbours from at most 2,000 rows, and `IterativeImputer` learns from at most 5,000.
"""

import argparse
import time
import warnings
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import quality
import tables
from records import attempt, print_rows, recorder
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

PUBLISHED = {
    "nltcs": ("LearnSPN", -6.11),
    "plants": ("LearnSPN", -12.98),
    "dna": ("LearnSPN", -82.52),
    "mushrooms": ("NADE", -9.81),
}
"""Test log-likelihoods in nats: LearnSPN (Gens & Domingos, 2013), NADE (Larochelle & Murray, 2011)."""

MAX_DONORS, MAX_ITERATIVE_ROWS = 2000, 5000


# ------------------------------------------------------------------------------------------------------------- imputers
# An imputer is a function (rows with NaN, seed) -> rows without, arrays of floats of shape (n, d).


def impute_simple(X, seed):
    """The mean of each column."""
    return SimpleImputer(keep_empty_features=True).fit_transform(X)


def impute_neighbours(X, seed):
    """`KNNImputer` with its defaults."""
    rows = np.random.default_rng(seed).permutation(len(X))[:MAX_DONORS]
    return KNNImputer(keep_empty_features=True).fit(X[rows]).transform(X)


def impute_iterative(X, seed):
    """`IterativeImputer` with its defaults."""
    rows = np.random.default_rng(seed).permutation(len(X))[:MAX_ITERATIVE_ROWS]
    return IterativeImputer(random_state=seed, keep_empty_features=True).fit(X[rows]).transform(X)


def impute_skvae(X, seed):
    """`VAEEstimator.impute`, with the defaults."""
    from skvae import VAEEstimator

    return np.asarray(VAEEstimator(random_state=seed).fit(X).impute(X, random_state=seed))


IMPUTERS = {
    "skvae": impute_skvae,
    "simple": impute_simple,
    "neighbours": impute_neighbours,
    "iterative": impute_iterative,
}


# ------------------------------------------------------------------------------------------------------- MIWAE protocol


def half_removed(X, seed):
    """Standardised rows, and the same with half of the cells removed completely at random."""
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    hidden = np.zeros(X.size, dtype=bool)
    hidden[np.random.default_rng(seed).choice(X.size, X.size // 2, replace=False)] = True
    hidden = hidden.reshape(X.shape)
    return X, np.where(hidden, np.nan, X), hidden


def miwae_figures(method, X, seed):
    """Mean squared error over the removed cells."""
    truth, known, hidden = half_removed(X, seed)
    start = time.perf_counter()
    difference = IMPUTERS[method](known, seed) - truth
    return {"error": float(np.mean(difference[hidden] ** 2)), "seconds": time.perf_counter() - start}


def run_miwae(methods, seeds, emit):
    """Emit the mean squared error over the removed cells, per method and seed."""
    X = load_breast_cancer().data
    for seed in seeds:
        for method in methods:
            figures = attempt(partial(miwae_figures, method, X, seed))
            emit({"part": "miwae", "set": "breast_cancer", "method": method, "seed": seed, **figures})


# --------------------------------------------------------------------------------------------------------- HI-VAE masks


def mixed_encoding(data, kinds, drop_first):
    """Numbers and ordinals standardised, categories one-hot with NaN in every column of a missing cell.

    With `drop_first` a category's first level has no column: a regression of one column on the others cannot then learn
    that they sum to one, which is of no use where all are missing.

    Returns
    -------
    X : ndarray of shape (n, n_encoded)
    blocks : list of (start, stop, levels or None, mean, scale)
        Where each column of the data lies.
    """
    parts, blocks, start = [], [], 0
    for j, kind in enumerate(kinds):
        column = data[:, j]
        known = ~np.isnan(column)
        if kind == "cat":
            levels = np.unique(column[known])
            part = np.where(known[:, None], column[:, None] == levels[drop_first:], np.nan)
            blocks.append((start, start + part.shape[1], levels, 0.0, 1.0))
        else:
            mean, scale = column[known].mean(), column[known].std() or 1.0
            part = ((column - mean) / scale)[:, None]
            blocks.append((start, start + 1, None, mean, scale))
        start = blocks[-1][1]
        parts.append(part)
    return np.hstack(parts), blocks


def mixed_decoding(X, blocks):
    """The way back: the largest of a category's columns, numbers in their units."""
    columns = []
    for start, stop, levels, mean, scale in blocks:
        if levels is None:
            columns.append(X[:, start] * scale + mean)
            continue
        shares = X[:, start:stop]
        if stop - start < len(levels):
            shares = np.column_stack([1 - shares.sum(axis=1), shares])
        columns.append(levels[shares.argmax(axis=1)])
    return np.column_stack(columns)


def rounded_ordinals(imputed, data, kinds):
    """Ordinal columns at the nearest whole level within the range of the known ones."""
    imputed = imputed.copy()
    for j in np.flatnonzero(np.asarray(kinds) == "ordinal"):
        imputed[:, j] = np.clip(np.rint(imputed[:, j]), np.nanmin(data[:, j]), np.nanmax(data[:, j]))
    return imputed


def typed_frame(data, kinds):
    """The rows as a user would hand them in: categories and ordered categories with their dtypes, numbers as floats."""
    frame = pd.DataFrame(data, columns=[f"x{j}" for j in range(data.shape[1])])
    for name, kind in zip(frame, kinds, strict=True):
        if kind in {"cat", "ordinal"}:
            levels = np.unique(frame[name].dropna())
            frame[name] = pd.Categorical(frame[name], categories=levels, ordered=kind == "ordinal")
    return frame


def impute_mixed(method, data, kinds, seed):
    """Mixed rows with NaN imputed by one of `IMPUTERS`; arrays of shape (n, d)."""
    if method == "skvae":
        from skvae import VAEEstimator

        frame = typed_frame(data, kinds)
        imputed = VAEEstimator(random_state=seed).fit(frame).impute(frame, random_state=seed)
        return imputed.apply(lambda column: column.astype(float)).to_numpy()
    X, blocks = mixed_encoding(data, kinds, drop_first=method == "iterative")
    return rounded_ordinals(mixed_decoding(IMPUTERS[method](X, seed), blocks), data, kinds)


def hivae_figures(method, data, hidden, kinds, n_levels, seed):
    """Errors over the hidden cells: the mean over all columns, and over the numbers and the others."""
    start = time.perf_counter()
    imputed = impute_mixed(method, np.where(hidden, np.nan, data), kinds, seed)
    seconds = time.perf_counter() - start
    errors = quality.imputation_errors(data, imputed, hidden, kinds, n_levels)
    nominal = np.isin(kinds, ["cat", "ordinal"])
    groups = {"error": errors, "numbers": errors[~nominal], "categories": errors[nominal]}
    means = {name: float(np.nanmean(part)) if len(part) else None for name, part in groups.items()}
    return means | {"seconds": seconds}


def run_hivae(sets, levels, n_masks, methods, emit):
    """Emit the errors for each set, share of hidden cells, mask and method; the number of the mask is the seed."""
    for name in sets:
        data, types, masks = tables.load_hivae(name)
        data, kinds, n_levels = data.to_numpy(dtype=float), types["type"].to_numpy(), types["dim"].to_numpy(dtype=float)
        for level, k, method in product(levels, range(1, n_masks + 1), methods):
            hidden = masks[f"Missing{level}_{k}"]
            figures = attempt(partial(hivae_figures, method, data, hidden, kinds, n_levels, k))
            emit({"part": "hivae", "set": f"{name} {level} %", "method": method, "seed": k, **figures})


# -------------------------------------------------------------------------------------------------------------- binary


def log_bernoulli(X, shares):
    """Log-probability of rows of 0 and 1 under each of several products of Bernoullis; (n, k) for shares (k, d)."""
    return X @ np.log(shares).T + (1 - X) @ np.log1p(-shares).T


def fit_bernoulli_mixture(X, n_components, seed, n_iter=100, pseudo_count=0.5, tol=1e-3):
    """Weights and shares of ones of a mixture of products of Bernoullis, by expectation-maximisation.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    pseudo_count : float
        Rows of each kind (0 and 1) added to every component.
    tol : float
        Gain in nats per row that counts as progress.

    Returns
    -------
    weights : ndarray of shape (n_components,)
    shares : ndarray of shape (n_components, d)
    """
    rng = np.random.default_rng(seed)
    weights = np.full(n_components, 1 / n_components)
    shares = 0.5 * X.mean(axis=0) + 0.25 + 0.1 * rng.uniform(-1, 1, (n_components, X.shape[1]))
    shares = shares if n_components > 1 else X.mean(axis=0, keepdims=True) * 0.98 + 0.01
    last = -np.inf
    for _ in range(n_iter):
        joint = log_bernoulli(X, shares) + np.log(weights)
        total = logsumexp(joint, axis=1)
        responsibility = np.exp(joint - total[:, None])
        counts = responsibility.sum(axis=0)
        weights = (counts + pseudo_count) / (counts + pseudo_count).sum()
        shares = (responsibility.T @ X + pseudo_count) / (counts[:, None] + 2 * pseudo_count)
        if total.mean() - last < tol:
            break
        last = total.mean()
    return weights, shares


def mixture_score(X, weights, shares):
    """Mean log-probability of rows, nats."""
    return float(logsumexp(log_bernoulli(X, shares) + np.log(weights), axis=1).mean())


def binary_figures(method, train, valid, test, seed):
    """Mean log-probability of the test rows."""
    start = time.perf_counter()
    if method == "skvae":
        from skvae import VAEEstimator

        score = VAEEstimator(random_state=seed).fit(train).score(test)
    elif method == "independent":
        score = mixture_score(test, *fit_bernoulli_mixture(train, 1, seed))
    else:
        fits = [fit_bernoulli_mixture(train, k, seed) for k in (5, 10, 20, 40, 80)]
        score = mixture_score(test, *max(fits, key=lambda fit: mixture_score(valid, *fit)))
    return {"nats": float(score), "seconds": time.perf_counter() - start}


def run_binary(sets, methods, seeds, emit):
    """Emit test log-likelihoods."""
    for name in sets:
        rows = [part.astype(float) for part in tables.load_binary(name)]
        for method in methods:
            for seed in seeds if method != "independent" else seeds[:1]:
                figures = attempt(partial(binary_figures, method, *rows, seed))
                emit({"part": "binary", "set": name, "method": method, "seed": seed, **figures})
        published, nats = PUBLISHED[name]
        emit({"part": "binary", "set": name, "method": f"published {published}", "seed": None, "nats": nats})


# ------------------------------------------------------------------------------------------------------------- printing


def mean_and_error(records, figure):
    """Mean and standard error of a figure, as text."""
    values = np.array([r[figure] for r in records if r.get(figure) is not None])
    if len(values) < 2:
        return f"{values[0]:.4f}" if len(values) else "-"
    return f"{values.mean():.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"


def print_part(records, figures):
    """One row per set and method."""
    rows = []
    for group in dict.fromkeys((r["set"], r["method"]) for r in records):
        chosen = [r for r in records if (r["set"], r["method"]) == group]
        problems = sorted({r[key] for r in chosen for key in ("failed", "skipped") if key in r})
        rows.append([*group, *[mean_and_error(chosen, figure) for figure in figures], "; ".join(problems)])
    if rows:
        print_rows(["set", "method", *figures, ""], rows)
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="*", default=["miwae", "hivae", "binary"], choices=["miwae", "hivae", "binary"]
    )
    parser.add_argument("--methods", nargs="*", default=list(IMPUTERS), choices=list(IMPUTERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--hivae-sets", nargs="*", default=["Adult", "Wine", "Breast"])
    parser.add_argument("--levels", nargs="*", type=int, default=[10, 20, 30, 40, 50], help="per cent of hidden cells")
    parser.add_argument("--masks", type=int, default=3, help="masks per level, of 10")
    parser.add_argument("--binary-sets", nargs="*", default=list(PUBLISHED))
    parser.add_argument("--binary-methods", nargs="*", default=["skvae", "independent", "mixture"])
    parser.add_argument("--output", default=None, help="file the JSON lines are appended to")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    records, emit = recorder(arguments.output)
    if "miwae" in arguments.parts:
        run_miwae(arguments.methods, arguments.seeds, emit)
    if "hivae" in arguments.parts:
        run_hivae(arguments.hivae_sets, arguments.levels, arguments.masks, arguments.methods, emit)
    if "binary" in arguments.parts:
        run_binary(arguments.binary_sets, arguments.binary_methods, arguments.seeds, emit)
    print()
    print_part([r for r in records if r["part"] == "miwae"], ["error", "seconds"])
    print_part([r for r in records if r["part"] == "hivae"], ["error", "numbers", "categories", "seconds"])
    print_part([r for r in records if r["part"] == "binary"], ["nats", "seconds"])


if __name__ == "__main__":
    main()
