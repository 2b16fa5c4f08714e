"""One column predicted from the others by `VAEEstimator.conditional`, beside boosted trees that are trained for it alone.

Run ``python tests/benchmarks/bench_prediction.py --help``. Each table is split as in bench_tables.py; the seeds vary the
models. Of a target of classes the page has the AUC and the Brier score on the test rows, of a number R2 and the share of
test rows within the central intervals of 50 and 90 %.
"""

import argparse
import time

import numpy as np
import pandas as pd
import tables
from records import mean_text, print_rows, recorder
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import brier_score_loss, r2_score, roc_auc_score

from skvae import VAEEstimator

TABLES = ["adult", "online_shoppers", "default_credit", "magic", "california_housing"]


def coded(frame):
    """Categories for the trees, which read no text."""
    frame = frame.copy()
    for name in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].astype("category")
    return frame


def of_trees(table, seed):
    """What boosted trees tell of the test rows: probabilities of the second class, or numbers."""
    both = coded(pd.concat([table.train, table.test]).drop(columns=table.target))
    train, test = both.iloc[: len(table.train)], both.iloc[len(table.train) :]
    settings = {"categorical_features": "from_dtype", "random_state": seed}
    if table.task == "classification":
        model = HistGradientBoostingClassifier(**settings).fit(train, table.train[table.target].astype(str))
        return model.predict_proba(test)[:, 1]
    return HistGradientBoostingRegressor(**settings).fit(train, table.train[table.target]).predict(test)


def of_model(table, seed):
    """The conditional distribution of the target in the test rows, and seconds of the fit and of the prediction."""
    start = time.process_time()
    vae = VAEEstimator(random_state=seed, handle_unknown="ignore").fit(table.train)
    fitted = time.process_time()
    conditional = vae.conditional(table.test, table.target)
    return conditional, fitted - start, time.process_time() - fitted


def figures(table, seed):
    """The figures of one table and seed."""
    trees = of_trees(table, seed)
    conditional, fit, predict = of_model(table, seed)
    y = table.test[table.target]
    seconds = {"fit s": fit, "predict s": predict}
    if table.task == "classification":
        positive = sorted(y.astype(str).unique())[1]
        labels = y.astype(str) == positive
        own = conditional.probabilities[:, [str(level) for level in conditional.values].index(positive)]
        return {
            "AUC": roc_auc_score(labels, own),
            "AUC trees": roc_auc_score(labels, trees),
            "Brier": brier_score_loss(labels, own),
            "Brier trees": brier_score_loss(labels, trees),
            **seconds,
        }

    found = {"R2": r2_score(y, conditional.mean()), "R2 trees": r2_score(y, trees)}
    for share in (0.5, 0.9):
        low, high = conditional.quantile([0.5 - share / 2, 0.5 + share / 2]).T
        found[f"within {share:.0%}"] = float(np.mean((y >= low) & (y <= high)))
    return {**found, **seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="prediction.jsonl")
    arguments = parser.parse_args()

    records, emit = recorder(arguments.output)
    for name in arguments.tables:
        table = tables.load_table(name)
        for seed in range(arguments.seeds):
            emit({"table": name, "seed": seed, **figures(table, seed)})

    names = list(dict.fromkeys(name for record in records for name in record if name not in ("table", "seed", "blas")))
    rows = []
    for name in arguments.tables:
        own = [record for record in records if record["table"] == name]
        rows.append([name, *(mean_text(own, figure, 1, 3) for figure in names)])
    print_rows(["table", *names], rows)


if __name__ == "__main__":
    main()
