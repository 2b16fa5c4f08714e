"""How near synthetic rows are to real ones: are any copied, and do they cover what real rows cover?

References
----------
.. [1] Zhang et al., "Mixed-type tabular data synthesis with score-based diffusion in latent space", ICLR 2024.
.. [2] Naeem, Oh, Uh, Choi & Yoo, "Reliable fidelity and diversity metrics for generative models", ICML 2020.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from skvae.evaluation.coding import Coded, dense, one_hot

N_NEIGHBORS = 5
"""Neighbours whose distance makes the radius around a real row, as in the paper's experiments [2]_."""


def ranged(reference: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Numbers in units of the range of `reference`; missing cells at its middle, with a column that flags them."""
    low, high = np.nanmin(reference, axis=0), np.nanmax(reference, axis=0)
    width = np.where(high > low, high - low, 1.0)
    scaled = np.where(np.isnan(X), 0.5, (X - low) / width)
    flagged = np.isnan(reference).any(axis=0)
    return np.column_stack([scaled, np.isnan(X[:, flagged])])


def nearest_distance(
    numbers: np.ndarray,
    categories: np.ndarray,
    reference_numbers: np.ndarray,
    reference_categories: np.ndarray,
    chunk: int = 1000,
) -> np.ndarray:
    """L1 distance to the nearest reference row: that of the numbers, plus 2 per differing category (one-hot)."""
    nearest = np.empty(len(numbers))
    n_categories = reference_categories.sum(axis=1)[:1] if reference_categories.shape[1] else 0.0

    for start in range(0, len(numbers), chunk):
        part = slice(start, start + chunk)
        # some rows at a time: the distances of all pairs would not fit into memory
        distance = cdist(numbers[part], reference_numbers, "cityblock") if numbers.shape[1] else 0.0
        if categories.shape[1]:
            distance = distance + 2.0 * (n_categories - categories[part] @ reference_categories.T)
        nearest[part] = np.min(distance, axis=1)
    return nearest


def nearer_share(train: Coded, held_out: Coded, synthetic: Coded, seed: int = 0, max_rows: int = 5000) -> float:
    """Share of synthetic rows nearer to the rows they were learnt from than to as many held-out ones; ties count half.

    0.5 is clean, 1 a copy of the training rows [1]_. At most `max_rows` synthetic rows are measured (standard error 0.007),
    against all the others.
    """
    rng = np.random.default_rng(seed)
    n = min(len(train.numbers), len(held_out.numbers))
    train, held_out = train.at_most(n, rng), held_out.at_most(n, rng)
    synthetic = synthetic.at_most(max_rows, rng)

    points = (ranged(train.numbers, synthetic.numbers), one_hot(synthetic))
    to_train = nearest_distance(*points, ranged(train.numbers, train.numbers), one_hot(train))
    to_held_out = nearest_distance(*points, ranged(train.numbers, held_out.numbers), one_hot(held_out))
    return float((to_train < to_held_out).mean() + 0.5 * (to_train == to_held_out).mean())


def copied_share(train: Coded, rows: Coded) -> float:
    """Share of rows that are equal to a training row in every cell."""
    cells = []
    for table in (train, rows):
        numbers = np.nan_to_num(table.numbers, nan=np.finfo(np.float64).max)
        # 0 and -0 are one number
        cells.append(np.column_stack([numbers + 0.0, table.codes]).astype(np.float64))

    # rows of plain bytes can be looked up
    learnt = set(map(bytes, np.ascontiguousarray(cells[0])))
    is_copy = map(learnt.__contains__, map(bytes, np.ascontiguousarray(cells[1])))
    return sum(is_copy) / len(cells[1])


def density_and_coverage(real: Coded, rows: Coded, seed: int = 0, max_rows: int = 5000) -> tuple[float, float]:
    """Density and coverage of rows [2]_, as many of both as there are of the fewer, at most `max_rows`.

    Every real row has a ball that reaches to its fifth nearest real row. Density: the mean number of balls that a row lies in,
    in fifths; about 1 for real rows, less where rows lie where no real ones do. Coverage: the share of balls that hold a row.
    """
    rng = np.random.default_rng(seed)
    n = min(len(real.numbers), len(rows.numbers), max_rows)
    k = min(N_NEIGHBORS, n - 1)
    if k < 1:
        return 0.0, 0.0
    points, others = dense(real.at_most(n, rng), rows.at_most(n, rng))

    # a row is its own nearest one
    # a ball reaches to the fifth other one
    radii = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]
    inside = np.zeros(n)
    is_covered = np.zeros(n, dtype=bool)
    for start in range(0, n, 1000):
        part = slice(start, start + 1000)
        holds = cdist(points[part], others) <= radii[part, None]
        inside += holds.sum(axis=0)
        is_covered[part] = holds.any(axis=1)
    return float(inside.mean() / k), float(is_covered.mean())
