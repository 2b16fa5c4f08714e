"""Outliers found in the tables of ADBench: skvae's detector beside those of scikit-learn and, where it is installed, PyOD.

Run ``python tests/benchmarks/bench_outliers.py --help``. As ADBench does, every detector is trained on all rows, without their
labels, and ranks the same rows; tables of more rows than ``--max-rows`` are cut to a random part. For every table the page has
AUC and average precision, and below them the mean ranks over the tables, 1 being the best.

Detectors: ``skvae`` (VAEOutlierDetector), ``one VAE`` (a VAEEstimator with normal noise, fitted to all rows), ``default`` (a
VAEEstimator with defaults), ``IsolationForest``, ``LOF``, ``ECOD`` and ``PyOD VAE``, the last two by PyOD in this environment.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from records import attempt, print_rows, recorder
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from tables import data_folder

from skvae import VAEEstimator
from skvae.outliers import VAEOutlierDetector


def of_skvae(X, seed):
    return -VAEOutlierDetector(random_state=seed).fit(X).score_samples(X)


def of_one_vae(X, seed):
    return -VAEEstimator(likelihood="normal", decoder="factorized", random_state=seed).fit(X).score_samples(X)


def of_defaults(X, seed):
    return -VAEEstimator(random_state=seed).fit(X).score_samples(X)


def of_forest(X, seed):
    return -IsolationForest(random_state=seed).fit(X).score_samples(X)


def of_neighbours(X, seed):
    return -LocalOutlierFactor().fit(X).negative_outlier_factor_


def of_ecod(X, seed):
    from pyod.models.ecod import ECOD

    return ECOD().fit(X).decision_scores_


def of_pyod_vae(X, seed):
    from pyod.models.vae import VAE

    return VAE(random_state=seed, verbose=0).fit(X).decision_scores_


DETECTORS = {
    "skvae": of_skvae,
    "one VAE": of_one_vae,
    "default": of_defaults,
    "IsolationForest": of_forest,
    "LOF": of_neighbours,
    "ECOD": of_ecod,
    "PyOD VAE": of_pyod_vae,
}


def figures(detector, X, y, seed):
    """AUC, average precision and seconds of a detector on a table."""
    start = time.process_time()
    scores = DETECTORS[detector](X, seed)
    seconds = time.process_time() - start
    return {"AUC": roc_auc_score(y, scores), "AP": average_precision_score(y, scores), "seconds": seconds}


def page(records, detectors):
    """Figures by table and, below, means and mean ranks, for the detectors that answered everywhere."""
    for figure in ("AUC", "AP"):
        by_table = {}
        for record in records:
            by_table.setdefault(record["table"], {}).setdefault(record["detector"], []).append(
                record.get(figure, np.nan)
            )
        means = {name: {d: float(np.mean(v)) for d, v in row.items()} for name, row in by_table.items()}
        complete = [d for d in detectors if all(np.isfinite(row.get(d, np.nan)) for row in means.values())]

        values = np.array([[row[d] for d in complete] for row in means.values()])
        ranks = np.array([rankdata(-row) for row in values])
        rows = []
        for name, row in zip(means, values, strict=True):
            rows.append([name, *(f"{value:.3f}" for value in row)])
        rows.append(["mean", *(f"{value:.3f}" for value in values.mean(0))])
        rows.append(["mean rank", *(f"{value:.2f}" for value in ranks.mean(0))])
        print_rows([figure, *complete], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-rows", type=int, default=12_000)
    parser.add_argument("--output", default="outliers.jsonl")
    arguments = parser.parse_args()

    records, emit = recorder(arguments.output)
    warnings.simplefilter("ignore")
    for path in sorted(Path(data_folder(), "adbench").glob("*.npz"), key=lambda path: path.stat().st_size):
        table = np.load(path)
        rows = np.random.default_rng(0).permutation(len(table["y"]))[: arguments.max_rows]
        X, y = table["X"][rows].astype(float), table["y"][rows]
        for detector in arguments.detectors:
            for seed in range(arguments.seeds):
                found = attempt(lambda detector=detector, X=X, y=y, seed=seed: figures(detector, X, y, seed))
                emit({"table": path.stem, "detector": detector, "seed": seed, **found})
    page(records, arguments.detectors)


if __name__ == "__main__":
    main()
