"""Are columns, and pairs of columns, distributed as in real rows? The definitions of SDMetrics.

Names of the similarities there: KSComplement and TVComplement of a column, CorrelationSimilarity and ContingencySimilarity of
a pair. An error here is one minus the similarity: 0 is perfect, 1 the worst.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from skvae.evaluation.coding import Coded

N_BINS = 10
"""Intervals of equal width that a number is cut into beside a category."""


def ks_statistic(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance between two empirical distributions, missing cells left out; 1 if one of them is empty."""
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return float(len(a) != len(b))

    # the distance is largest where one of the two steps up
    points = np.concatenate([a, b])
    below_a = np.searchsorted(a, points, side="right") / len(a)
    below_b = np.searchsorted(b, points, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


def total_variation(a: np.ndarray, b: np.ndarray, n_levels: int) -> float:
    """Half the sum of absolute differences between the shares of `n_levels` levels in two columns of codes."""
    shares_a = np.bincount(a, minlength=n_levels) / len(a)
    shares_b = np.bincount(b, minlength=n_levels) / len(b)
    return float(0.5 * np.abs(shares_a - shares_b).sum())


def column_errors(real: Coded, synthetic: Coded) -> np.ndarray:
    """Kolmogorov-Smirnov statistic of each number, total variation of each category; ndarray, numbers first."""
    errors = []
    for a, b in zip(real.numbers.T, synthetic.numbers.T, strict=True):
        errors.append(ks_statistic(a, b))
    for a, b, n in zip(real.codes.T, synthetic.codes.T, real.n_levels, strict=True):
        errors.append(total_variation(a, b, n))
    return np.array(errors)


def shape_error(real: Coded, synthetic: Coded) -> float:
    """Mean over the columns of `column_errors`."""
    return float(column_errors(real, synthetic).mean())


def missing_error(real: Coded, synthetic: Coded) -> float:
    """Mean absolute difference of the shares of missing cells of the numbers (a missing category is one more level)."""
    if not real.numbers.shape[1]:
        return 0.0
    return float(np.abs(np.isnan(real.numbers).mean(0) - np.isnan(synthetic.numbers).mean(0)).mean())


def correlations(X: np.ndarray) -> np.ndarray:
    """Pearson correlations over the rows where both cells are there; 0 where a column does not vary."""
    there = ~np.isnan(X)
    mean = np.where(there.any(0), np.nanmean(np.where(there.any(0), X, 0.0), axis=0), 0.0)
    cells = np.where(there, X - mean, 0.0)
    mask = there.astype(np.float64)

    # sums over the rows in which both cells are there
    n = mask.T @ mask
    sums = cells.T @ mask
    squares = (cells**2).T @ mask
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = cells.T @ cells - sums * sums.T / n
        variance = squares - sums**2 / n
        r = covariance / np.sqrt(variance * variance.T)

    # what is left of a constant is rounding
    tiny = 1e-12 * squares
    varies = (variance > tiny) & (variance.T > tiny.T)
    return np.where(varies, np.clip(r, -1, 1), 0.0)


def bins(reference: np.ndarray, X: np.ndarray, n_bins: int = N_BINS) -> np.ndarray:
    """Cells of X as codes of equal-width bins over the range of `reference`, open at both ends; missing is the last."""
    codes = np.empty(X.shape, dtype=int)
    for j, (cells, column) in enumerate(zip(reference.T, X.T, strict=True)):
        # the synthetic rows are counted in the bins of the real ones
        edges = np.histogram_bin_edges(cells[~np.isnan(cells)], bins=n_bins)
        codes[:, j] = np.where(np.isnan(column), n_bins, np.searchsorted(edges[1:-1], column, side="right"))
    return codes


def pair_errors(real: Coded, synthetic: Coded) -> np.ndarray:
    """One minus the similarity of each pair of columns, a symmetric matrix; numbers first, the diagonal is NaN.

    Two numbers: half the absolute difference of their correlations. Otherwise the total variation between the joint
    distributions, numbers cut into 10 bins by the real rows.
    """
    p = real.numbers.shape[1]
    n_columns = p + real.codes.shape[1]
    errors = np.full((n_columns, n_columns), np.nan)
    if p:
        errors[:p, :p] = 0.5 * np.abs(correlations(real.numbers) - correlations(synthetic.numbers))
        np.fill_diagonal(errors, np.nan)

    sizes = np.concatenate([np.full(p, N_BINS + 1, dtype=int), real.n_levels])
    a = np.column_stack([bins(real.numbers, real.numbers), real.codes])
    b = np.column_stack([bins(real.numbers, synthetic.numbers), synthetic.codes])
    for i, j in combinations(range(n_columns), 2):
        if j >= p:
            # one code for each pair of levels
            joint_a = a[:, i] * sizes[j] + a[:, j]
            joint_b = b[:, i] * sizes[j] + b[:, j]
            errors[i, j] = errors[j, i] = total_variation(joint_a, joint_b, sizes[i] * sizes[j])
    return errors


def trend_error(real: Coded, synthetic: Coded) -> float:
    """Mean over the pairs of columns of `pair_errors`; 0 if there is a single column."""
    errors = pair_errors(real, synthetic)
    if len(errors) < 2:
        return 0.0
    return float(np.nanmean(errors))


def associations(rows: Coded) -> np.ndarray:
    """How strongly each pair of columns hangs together, a symmetric matrix from 0 to 1; numbers first.

    Two numbers: the absolute value of their correlation. A number and a category: the correlation ratio. Two categories:
    Cramer's V.

    References
    ----------
    Cramer, "Mathematical methods of statistics", 1946, section 21.9 (V) and section 21.8 (the correlation ratio).
    """
    p, q = rows.numbers.shape[1], rows.codes.shape[1]
    strength = np.eye(p + q)
    strength[:p, :p] = np.abs(correlations(rows.numbers)) if p else 0.0
    for i in range(p):
        for j in range(q):
            ratio = _correlation_ratio(rows.numbers[:, i], rows.codes[:, j])
            strength[i, p + j] = strength[p + j, i] = ratio
    for i, j in combinations(range(q), 2):
        v = _cramers_v(rows.codes[:, i], rows.codes[:, j])
        strength[p + i, p + j] = strength[p + j, p + i] = v
    np.fill_diagonal(strength, 1.0)
    return strength


def _correlation_ratio(numbers: np.ndarray, codes: np.ndarray) -> float:
    """Deviation of the means of the levels, in deviations of the numbers."""
    there = ~np.isnan(numbers)
    numbers, codes = numbers[there], codes[there]
    if not len(numbers) or numbers.var() == 0:
        return 0.0

    # the sum of squares between the means of the levels
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=numbers - numbers.mean())
    between = (sums[counts > 0] ** 2 / counts[counts > 0]).sum()
    return float(np.sqrt(between / len(numbers) / numbers.var()))


def _cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramer's V of two columns of codes."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    smaller = min(a.max(), b.max())
    if smaller == 0:
        return 0.0

    # Pearson's statistic of independence, in units of the largest that it can be
    observed = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(observed, (a, b), 1)
    expected = observed.sum(1, keepdims=True) * observed.sum(0) / len(a)
    chi2 = ((observed - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / len(a) / smaller))
