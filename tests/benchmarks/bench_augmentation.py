"""Resampling of imbalanced tables, compared by mean ranks.

Run ``python tests/benchmarks/bench_augmentation.py --help``. On the imbalanced KEEL sets, 5 times 2 stratified folds
(``--folds 5x2``; ``2x5`` is twice 5 folds): logistic regression, decision tree, k-neighbours and `HistGradientBoosting`
after no resampling, `RandomOverSampler`, `SMOTE`, `BorderlineSMOTE`, `ADASYN` and `VAEOverSampler`; average precision,
balanced accuracy and F1 of the rarer class. Scores are averaged over the folds of a table, then ranked among the
methods (1 is best). Printed are mean ranks over the tables with Friedman's test; ``--figure`` draws critical
differences (Nemenyi's, 5 %; Demsar, 2006). ``--sweep`` adds the scores for 10 to 1,000 minority rows of larger tables.
``--page`` writes the figures into docs/benchmarks.md, ``--read`` takes them from earlier runs' ``--output``.

Numbers are standardised and categories one-hot encoded by the training fold. SMOTE and its kin resample the encoded
rows, `VAEOverSampler` the rows as they are. A sampler that cannot work on a fold (too few neighbours) leaves it as it
is, and is counted. Only training folds are ever resampled.
"""

import argparse
import json
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tables
from bench_tables import print_rows
from bench_training import machine, markdown, write_section
from joblib import Parallel, delayed
from scipy.stats import friedmanchisquare, rankdata, studentized_range
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

METRICS = ("average_precision", "balanced_accuracy", "f1")
CLASSIFIERS = ("logistic", "tree", "neighbours", "boosted")
SWEEP_TABLES = ("adult", "default_credit", "online_shoppers", "magic")
SWEEP_SIZES = (10, 30, 100, 300, 1000)


# -------------------------------------------------------------------------------------------------------------- methods


def classifier(name, seed):
    """A fresh classifier."""
    return {
        "logistic": lambda: LogisticRegression(max_iter=1000),
        "tree": lambda: DecisionTreeClassifier(random_state=seed),
        "neighbours": lambda: KNeighborsClassifier(),
        "boosted": lambda: HistGradientBoostingClassifier(random_state=seed),
    }[name]()


def sampler(method, n_minority, seed):
    """A fresh sampler; the neighbours of SMOTE and its kin are at most the other minority rows."""
    from imblearn import over_sampling

    k = max(1, min(5, n_minority - 1))
    if method == "vae":
        from skvae.oversampling import VAEOverSampler

        return VAEOverSampler(random_state=seed)
    return {
        "random": lambda: over_sampling.RandomOverSampler(random_state=seed),
        "smote": lambda: over_sampling.SMOTE(k_neighbors=k, random_state=seed),
        "borderline": lambda: over_sampling.BorderlineSMOTE(k_neighbors=k, random_state=seed),
        "adasyn": lambda: over_sampling.ADASYN(n_neighbors=k, random_state=seed),
    }[method]()


METHODS = ("none", "random", "smote", "borderline", "adasyn", "vae")
RAW_METHODS = ("vae",)
"""Methods that resample the rows as they are, before they are encoded."""


def available(methods):
    """The methods whose package can be imported."""
    kept = []
    for method in methods:
        try:
            if method != "none":
                sampler(method, 10, 0)
            kept.append(method)
        except ImportError as error:
            print(f"{method}: skipped ({error})")
    return kept


def encoder():
    """Standardised numbers beside one-hot categories; missing cells at the mean, or a level of their own."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )


def resampled(method, X, y, seed):
    """Encoded training rows after resampling.

    Returns
    -------
    encode : callable
        From rows as they are to encoded ones.
    X, y : ndarray
    notes : dict
        The processor seconds it took, and under ``"failed"`` why the rows were left as they are, if they were.
    """
    encode = encoder().fit(X).transform
    if method == "none":
        return encode, encode(X), y, {"seconds": 0.0}
    raw = method in RAW_METHODS
    oversampler, known = sampler(method, int(np.bincount(y).min()), seed), X if raw else encode(X)
    start = time.process_time()
    try:
        rows, labels = oversampler.fit_resample(known, y)
    except (ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return encode, encode(X), y, {"seconds": time.process_time() - start, "failed": reason}
    notes = {"seconds": time.process_time() - start}
    return encode, encode(rows) if raw else rows, np.asarray(labels), notes


def fold_records(X, y, X_test, y_test, methods, classifiers, seed):
    """A record of the scores for each method and classifier; 1 is the minority."""
    records = []
    for method in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encode, rows, labels, notes = resampled(method, X, y, seed)
        encoded_test = encode(X_test)
        for name in classifiers:
            fitted = classifier(name, seed).fit(rows, labels)
            predicted = fitted.predict(encoded_test)
            scores = {
                "average_precision": average_precision_score(y_test, fitted.predict_proba(encoded_test)[:, 1]),
                "balanced_accuracy": balanced_accuracy_score(y_test, predicted),
                "f1": f1_score(y_test, predicted, zero_division=0),
            }
            records.append({"method": method, "classifier": name, **scores, **notes})
    return records


def keel_fold(name, X, y, fold, train, test, methods, classifiers):
    """`fold_records` of one fold of a set, labelled."""
    parts = X.iloc[train].reset_index(drop=True), y[train], X.iloc[test].reset_index(drop=True), y[test]
    label = {"part": "keel", "table": name, "fold": fold}
    return [label | record for record in fold_records(*parts, methods, classifiers, fold)]


def keel_jobs(names, folds, methods, classifiers):
    """The delayed folds of the sets."""
    n_repeats, n_splits = folds
    for name, (X, y) in tables.load_keel().items():
        if names is None or name in names:
            splitter = RepeatedStratifiedKFold(n_splits=n_splits, n_repeats=n_repeats, random_state=0)
            for fold, (train, test) in enumerate(splitter.split(X, y)):
                yield delayed(keel_fold)(name, X, y, fold, train, test, methods, classifiers)


# ---------------------------------------------------------------------------------------------------------------- sweep


def sweep_fold(name, n_minority, seed, methods, classifiers, n_majority=3000, n_test=5000):
    """`fold_records` for few minority rows among many others, tested on rows with the table's own shares."""
    table = tables.load_table(name)
    rng = np.random.default_rng(seed)
    rarer = table.train[table.target].value_counts().idxmin()
    y, y_test = (f[table.target].eq(rarer).to_numpy(dtype=int) for f in (table.train, table.test))
    minority, majority = (rng.permutation(np.flatnonzero(y == label)) for label in (1, 0))
    rows = rng.permutation(np.concatenate([minority[:n_minority], majority[:n_majority]]))
    test = rng.permutation(len(y_test))[:n_test]
    X, X_test = (f.drop(columns=table.target) for f in (table.train.iloc[rows], table.test.iloc[test]))
    label = {"part": "sweep", "table": name, "minority_rows": n_minority, "fold": seed}
    parts = X.reset_index(drop=True), y[rows], X_test.reset_index(drop=True), y_test[test]
    return [label | record for record in fold_records(*parts, methods, classifiers, seed)]


# ---------------------------------------------------------------------------------------------------------------- ranks


def score_table(records, metric, classifier):
    """Mean over the folds: a DataFrame of tables by methods."""
    frame = pd.DataFrame(records)
    frame = frame[frame["classifier"] == classifier]
    return frame.pivot_table(index="table", columns="method", values=metric, aggfunc="mean", sort=False)


def ranks(scores):
    """Ranks of the methods within each table, 1 for the highest score; ties share their mean rank."""
    return pd.DataFrame(rankdata(-scores.to_numpy().round(9), axis=1), scores.index, scores.columns)


def friedman_p(scores):
    """p-value of Friedman's test that the methods do not differ; nan for fewer than 3 methods or 2 tables."""
    if scores.shape[0] < 2 or scores.shape[1] < 3 or np.ptp(scores.to_numpy()) == 0:
        return float("nan")
    return float(friedmanchisquare(*scores.to_numpy().round(9).T).pvalue)


def critical_difference(n_methods, n_tables, level=0.05):
    """Difference of mean ranks that Nemenyi's test calls significant (Demsar, 2006, section 3.2.2)."""
    quantile = studentized_range.ppf(1 - level, n_methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(n_methods * (n_methods + 1) / (6 * n_tables)))


def mean_ranks(records, metric, classifier=None):
    """Mean rank of each method and Friedman's p; over all classifiers, the ranks of a table are averaged first.

    Returns
    -------
    ranks : Series
    p : float
    n_tables : int
    """
    chosen = list(dict.fromkeys(r["classifier"] for r in records)) if classifier is None else [classifier]
    per_table = sum(ranks(score_table(records, metric, name)) for name in chosen) / len(chosen)
    return per_table.mean(), friedman_p(-per_table), len(per_table)


# ---------------------------------------------------------------------------------------------------------- the picture


def cliques(values, width):
    """Runs of sorted values no wider than `width` that lie in no longer run; a list of (first, last) positions."""
    runs = []
    for first in range(len(values)):
        last = max(j for j in range(first, len(values)) if values[j] - values[first] <= width)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def draw_ranks(ax, mean, width, title):
    """A critical-difference picture: the methods on an axis of mean ranks, bars over those that do not differ."""
    mean = mean.sort_values()
    values, n = mean.to_numpy(), len(mean)
    low, high = 1, n
    bars = cliques(values, width)
    top = 0.35 + 0.18 * len(bars)
    ax.hlines(0, low, high, color="black", linewidth=1)
    for tick in range(low, high + 1):
        ax.vlines(tick, -0.06, 0.06, color="black", linewidth=1)
        ax.text(tick, 0.12, str(tick), ha="center", va="bottom", fontsize=8)
    for i, (first, last) in enumerate(bars):
        height = -0.15 - 0.12 * i
        ax.hlines(height, values[first] - 0.04, values[last] + 0.04, color="tab:blue", linewidth=3)
    for i, (name, value) in enumerate(mean.items()):
        on_left = i < (n + 1) // 2
        height = -top - 0.28 * (i if on_left else n - 1 - i)
        edge = low - 0.15 if on_left else high + 0.15
        ax.plot([value, value, edge], [0, height, height], color="0.4", linewidth=0.8)
        ax.text(edge, height, f" {name} {value:.2f} ", ha="right" if on_left else "left", va="center", fontsize=8)
    ax.hlines(0.55, low, min(low + width, high), color="black", linewidth=2)
    ax.text(low, 0.62, f"critical difference {width:.2f}", fontsize=8, va="bottom")
    ax.set_title(title, fontsize=9)
    ax.set_xlim(low - 2, high + 2)
    ax.set_ylim(-top - 0.28 * ((n + 1) // 2), 1.1)
    ax.axis("off")


def draw_critical_differences(records, path):
    """One picture per metric and classifier, and over all classifiers, in a file."""
    import matplotlib.pyplot as plt

    rows = [None, *dict.fromkeys(r["classifier"] for r in records)]
    figure, axes = plt.subplots(len(rows), len(METRICS), figsize=(5 * len(METRICS), 2.2 * len(rows)), squeeze=False)
    for (i, classifier), (j, metric) in product(enumerate(rows), enumerate(METRICS)):
        mean, _, n_tables = mean_ranks(records, metric, classifier)
        width = critical_difference(len(mean), n_tables)
        draw_ranks(axes[i, j], mean, width, f"{metric.replace('_', ' ')}, {classifier or 'all classifiers'}")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


# ------------------------------------------------------------------------------------------------------------- printing


def print_ranks(records):
    """Mean ranks by metric and classifier, mean scores over all, and the samplers' seconds."""
    methods = list(dict.fromkeys(r["method"] for r in records))
    names = list(dict.fromkeys(r["classifier"] for r in records))
    rows = []
    for metric, classifier in product(METRICS, [*names, None]):
        mean, p, n_tables = mean_ranks(records, metric, classifier)
        width = critical_difference(len(methods), n_tables)
        cells = [*[f"{mean[m]:.2f}" for m in methods], f"{p:.1e}", f"{width:.2f}"]
        rows.append([metric, classifier or "all", *cells])
    print_rows(["mean rank", "classifier", *methods, "Friedman p", "crit. diff."], rows)
    print()
    frame = pd.DataFrame(records)
    print(frame.groupby("method", sort=False)[list(METRICS)].mean().round(4).to_string(), end="\n\n")
    once = frame[frame["classifier"] == names[0]]
    seconds = once.groupby("method", sort=False)["seconds"].agg(["mean", "max"]).round(3)
    seconds["left as they are"] = once.get("failed", pd.Series(index=once.index)).notna().groupby(once["method"]).sum()
    print("processor seconds per resampling and folds left as they are\n" + seconds.to_string(), end="\n\n")


def print_sweep(records):
    """Mean scores by the number of minority rows, over tables, classifiers and seeds."""
    frame = pd.DataFrame(records)
    for metric in METRICS:
        print(metric)
        by_size = frame.pivot_table(index="minority_rows", columns="method", values=metric, sort=False).sort_index()
        print(by_size.round(4).to_string(), end="\n\n")


def page(keel, sweep):
    """The section of docs/benchmarks.md."""
    methods = list(dict.fromkeys(r["method"] for r in keel))
    names = list(dict.fromkeys(r["classifier"] for r in keel))
    n_folds, n_tables = (len({r[key] for r in keel}) for key in ("fold", "table"))
    rows = []
    for metric, name in product(METRICS, [*names, None]):
        ranks_, p, _ = mean_ranks(keel, metric, name)
        label = metric.replace("_", " ") if name == names[0] else ""
        best = min(f"{ranks_[m]:.2f}" for m in methods)
        cells = [f"{ranks_[m]:.2f}" for m in methods]
        rows.append([label, name or "all", *[f"**{c}**" if c == best else c for c in cells], f"{p:.0e}"])
    frame = pd.DataFrame(keel)
    means = frame.groupby("method", sort=False)[list(METRICS)].mean()
    scores = [[metric.replace("_", " "), *[f"{means.loc[m, metric]:.3f}" for m in methods]] for metric in METRICS]
    seconds = frame[frame["classifier"] == names[0]].groupby("method")["seconds"]
    width = critical_difference(len(methods), n_tables)
    text = (
        f"## Augmentation\n\n{machine()} One thread.\n\n"
        f"Resampling of {n_tables} imbalanced KEEL sets, {n_folds} stratified folds each (twofold, repeated), scores averaged "
        f"over the folds of a set and ranked among the methods (1 is best); mean ranks over the sets, and Friedman's p. Two "
        f"methods whose ranks differ by less than {width:.2f} do not differ at 5 % by Nemenyi's test. `vae` is "
        f"`VAEOverSampler(random_state=...)`; one call took it {seconds.mean()['vae']:.1f} s of processor "
        f"time on average, {seconds.max()['vae']:.1f} s at most.\n\n"
        + markdown(["mean rank", "classifier", *methods, "p"], rows)
        + "\n\nMean scores over all of them:\n\n"
        + markdown(["", *methods], scores)
    )
    if sweep:
        text += "\n\n" + sweep_text(sweep)
    return text


def sweep_text(sweep):
    """Mean scores by the number of minority rows, in Markdown."""
    frame, names = pd.DataFrame(sweep), list(dict.fromkeys(r["table"] for r in sweep))
    n_seeds = frame["fold"].nunique()
    methods = list(dict.fromkeys(frame["method"]))
    rows = []
    for metric in METRICS:
        means = frame.pivot_table(index="minority_rows", columns="method", values=metric).sort_index()
        for i, (size, line) in enumerate(means.iterrows()):
            rows.append(["" if i else metric.replace("_", " "), f"{size:,}", *[f"{line[m]:.3f}" for m in methods]])
    return (
        f"The number of minority rows, beside 3,000 of the other class, from {' and '.join(names)}; tested on 5,000 rows "
        f"with the table's own shares; mean over the tables, the classifiers and {n_seeds} seeds.\n\n"
        + markdown(["mean score", "minority rows", *methods], rows)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=None, help="KEEL sets (default: all of index.csv)")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--classifiers", nargs="*", default=CLASSIFIERS, choices=CLASSIFIERS)
    parser.add_argument("--folds", default="5x2", help="repeats x folds")
    parser.add_argument("--skip-keel", action="store_true")
    parser.add_argument("--sweep", action="store_true", help="also vary the number of minority rows")
    parser.add_argument("--sweep-tables", nargs="*", default=SWEEP_TABLES, choices=SWEEP_TABLES)
    parser.add_argument("--sweep-sizes", nargs="*", type=int, default=SWEEP_SIZES)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4], help="of the sweep")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--figure", default=None, help="file for the critical-difference picture")
    parser.add_argument("--output", default=None, help="file the JSON lines are appended to")
    parser.add_argument("--read", nargs="*", default=[], help="files of JSON lines to add to what is run")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/benchmarks.md")
    arguments = parser.parse_args()
    methods = available(arguments.methods)
    folds = tuple(int(part) for part in arguments.folds.split("x"))
    contest = methods, arguments.classifiers
    jobs = [] if arguments.skip_keel else list(keel_jobs(arguments.tables, folds, *contest))
    if arguments.sweep:
        settings = product(arguments.sweep_tables, arguments.sweep_sizes, arguments.seeds)
        jobs += [delayed(sweep_fold)(*setting, *contest) for setting in settings]
    records = [json.loads(line) for path in arguments.read for line in Path(path).read_text().splitlines()]
    for i, fold in enumerate(Parallel(n_jobs=arguments.jobs, return_as="generator")(jobs)):
        records += fold
        print(f"{i + 1}/{len(jobs)} {fold[0]['table']}", flush=True)
        if arguments.output:
            with open(arguments.output, "a") as file:
                file.writelines(json.dumps(record) + "\n" for record in fold)
    keel, sweep = ([r for r in records if r["part"] == part] for part in ("keel", "sweep"))
    if keel:
        print_ranks(keel)
        if arguments.figure:
            draw_critical_differences(keel, arguments.figure)
    if sweep:
        print_sweep(sweep)
    if arguments.page:
        write_section("augmentation", page(keel, sweep))


if __name__ == "__main__":
    main()
