"""Many fits at once: grid search over latent_dim with one worker and with two, and by successive halving.

    python tests/benchmarks/bench_search.py [--quick] [--rounds N]

In each round the search runs with one worker, with two new processes (which load torch and scikit-learn first), and with the
same two again, on one thread each; figures are medians over the rounds. Two workers are at most as much faster as the lengths
of the fits let them be, taken in their order; fits that slow each other down (memory, caches, cores that are halves of one)
take longer side by side than alone. Both are in the table, so that a figure below two has its reason beside it.

The tables are breast_cancer, and California housing and magic below the folder in the environment variable SKVAE_DATA;
wine and diabetes, which ship with scikit-learn, without one. Prints its table and writes it to docs/benchmarks.md;
asserts nothing.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bench_training import machine, markdown, write_section
from joblib.externals.loky import get_reusable_executor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

from skvae import VAEEstimator

GRID = {"latent_dim": [1, 2, 4, 8, 16]}
STEPS = 3_000
FOLDS = 3
MAX_ROWS = 6_000


def tables(max_rows):
    """Three tables by name, arrays of numbers of shape (n_samples, n_features)."""
    bundled = {"breast_cancer": load_breast_cancer().data}
    if "SKVAE_DATA" not in os.environ:
        return bundled | {"wine": load_wine().data, "diabetes": load_diabetes().data}
    return bundled | {name: read(name)[:max_rows] for name in ("california_housing", "magic")}


def read(name):
    """Numeric columns of a table below SKVAE_DATA, its rows in random order."""
    import pandas as pd

    table = pd.read_csv(Path(os.environ["SKVAE_DATA"]) / name / f"{name}.csv.gz")
    numbers = table.select_dtypes("number").to_numpy(dtype=float)
    return np.random.default_rng(0).permutation(numbers)


def timed(search, X):
    """The fitted search and its seconds."""
    begin = time.perf_counter()
    search.fit(X)
    return search, time.perf_counter() - begin


def task_seconds(search):
    """Mean seconds of fitting and scoring one fold, array of shape (n_candidates,)."""
    return search.cv_results_["mean_fit_time"] + search.cv_results_["mean_score_time"]


def times_faster_at_best(seconds, n_workers=2):
    """How many times faster workers are that lose nothing but the wait for the last fold; `seconds` as of `task_seconds`."""
    ends = np.zeros(n_workers)
    for task in np.repeat(seconds, FOLDS):
        ends[ends.argmin()] += task
    return ends.sum() / ends.max()


def one_and_two_workers(vae, X, rounds):
    """The search by one worker, and the figures of both, a dict of lists by round."""
    figures = {"one": [], "new": [], "standing": [], "at best": [], "side by side": []}
    for _ in range(rounds):
        one, seconds = timed(GridSearchCV(vae, GRID, cv=FOLDS, n_jobs=1, refit=False), X)

        get_reusable_executor().shutdown(wait=True)
        _, new = timed(GridSearchCV(vae, GRID, cv=FOLDS, n_jobs=2, refit=False), X)
        two, standing = timed(GridSearchCV(vae, GRID, cv=FOLDS, n_jobs=2, refit=False), X)

        figures["one"].append(seconds)
        figures["new"].append(seconds / new)
        figures["standing"].append(seconds / standing)
        figures["at best"].append(times_faster_at_best(task_seconds(one)))
        figures["side by side"].append(task_seconds(two).sum() / task_seconds(one).sum())
        print({name: round(values[-1], 2) for name, values in figures.items()}, file=sys.stderr, flush=True)
    return one, {name: np.median(values) for name, values in figures.items()}


def epochs_for(n_rows, steps, batch_size=128):
    """Epochs that hold so many gradient steps, on the training rows of a fold."""
    rows = 0.9 * n_rows * (FOLDS - 1) / FOLDS
    return max(9, math.ceil(steps / math.ceil(rows / batch_size)))


def compare(name, X, steps, rounds):
    """A row of the table."""
    epochs = epochs_for(len(X), steps)
    vae = VAEEstimator(decoder="factorized", random_state=0, max_iter=epochs)
    print(name, file=sys.stderr, flush=True)
    full, figures = one_and_two_workers(vae, X, rounds)
    halving = HalvingGridSearchCV(
        VAEEstimator(decoder="factorized", random_state=0),
        GRID,
        resource="max_iter",
        min_resources=max(1, epochs // 9),
        max_resources=epochs,
        factor=3,
        cv=FOLDS,
        n_jobs=1,
        refit=False,
        return_train_score=False,  # as GridSearchCV has it by default
        random_state=0,
    )
    halving, third = timed(halving, X)
    scores = full.cv_results_["mean_test_score"]
    chosen = halving.best_params_["latent_dim"]
    behind = scores.max() - scores[GRID["latent_dim"].index(chosen)]
    return [
        f"{name}, {X.shape[0]:,} x {X.shape[1]}",
        f"{figures['one']:.1f}",
        f"{figures['standing']:.2f}",
        f"{figures['new']:.2f}",
        f"{figures['at best']:.2f}",
        f"{figures['side by side']:.2f}",
        f"{full.best_params_['latent_dim']}",
        f"{chosen} ({behind:.2f})",
        f"{third / figures['one']:.2f}",
        " ".join(f"{score:.2f}" for score in np.round(scores, 2)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the gradient steps, a sixth of the rows")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    steps, max_rows = (STEPS // 10, MAX_ROWS // 6) if options.quick else (STEPS, MAX_ROWS)
    torch.set_num_threads(1)  # as joblib sets it for each of two workers on two cores
    rows = [compare(name, X, steps, options.rounds) for name, X in tables(max_rows).items()]
    head = [
        "",
        "full search, s",
        "n_jobs=2: times faster",
        "with new processes",
        "at best",
        "a fit beside another: times its seconds",
        "full: latent_dim",
        "halving: latent_dim (nats behind)",
        "halving: share of the time",
        "full: scores",
    ]
    body = [
        "## Searching over latent_dim",
        machine(),
        f"`GridSearchCV` over latent_dim in {GRID['latent_dim']}, {FOLDS} folds, {steps:,} gradient steps at most, "
        "scored by held-out log-likelihood in nats per row; with one worker and with two, on one thread each: with standing "
        "processes, as joblib keeps them from search to search, and with new ones, which load torch and scikit-learn "
        "first. At best: as the lengths of the fits in their order let two workers be. Medians of "
        f"{options.rounds} rounds. And `HalvingGridSearchCV` with `max_iter` as its resource, from a ninth of the epochs to "
        "all of them by factors of three. In brackets: by how much the full search's score of the dimension that halving "
        "chose lies below the best. The decoder is the factorized one, under which the latent units carry all that columns "
        "have in common; an autoregressive one needs few of them.",
        markdown(head, rows),
    ]
    write_section("search", "\n\n".join(body))


if __name__ == "__main__":
    main()
