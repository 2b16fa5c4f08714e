"""Held-out log-likelihood against the processor time of a fit, by table: versions of the package, or training budgets.

    python tests/benchmarks/bench_budget.py ../before . '.:{"max_iter": 300}' --seeds 0 1 2 --output budget.jsonl
    python tests/benchmarks/bench_budget.py

The first form compares source folders, with other parameters of the estimator where they stand after a colon (``"steps"``
among them: as many epochs as hold that number of gradient steps). For every table and seed, each version in turn fits the
training rows and scores the test rows, on one thread in a process of its own. One line of JSON goes to ``--output`` for
each fit. At the end one line per table has, for each version, the mean over the seeds of the test rows' mean
log-likelihood in nats per row, in brackets its worst seed, and the median seconds of processor time; then what the last
version has over the first one: mean and worst difference in nats over the seeds, and how many times as fast it is
(median of the ratios).

The second form fits the tables of `SETTINGS_TABLES` with each of `SETTINGS`, and writes its table to docs/benchmarks.md.

Tables are those of `tables.TABLES`, below the folder in the environment variable SKVAE_DATA (else the ones OpenML has),
those that ship with scikit-learn, and ``simulated``, rows from a curved latent model. The split is fixed, the seeds vary
the models. Scoring counts 4,000 test rows at most, and takes levels that the training rows lack for missing cells. Asserts
nothing.
"""

import argparse
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import tables
from bench_training import ROOT, machine, markdown, write_section
from records import print_rows, recorder
from sklearn import datasets
from sklearn.model_selection import train_test_split
from versions import Version, in_turn, seconds_of, serve

COMPARED_TABLES = [
    "adult",
    "default_credit",
    "online_shoppers",
    "magic",
    "california_housing",
    "beijing_pm25",
    "protein_casp",
    "simulated",
    "wine_quality",
    "penguins",
    "breast_cancer",
    "digits",
]
BUNDLED_TABLES = ["breast_cancer", "diabetes", "digits", "iris", "wine"]
SETTINGS_TABLES = ["wine", "digits", "magic", "simulated"]

SETTINGS = [
    # the first one is what the defaults do
    {},
    {"steps": 1500},
    {"steps": 3000},
    {"steps": 12000},
    {"batch_size": 32},
    {"steps": 3000, "batch_size": 256},
    {"steps": 1500, "batch_size": 512},
    {"learning_rate_init": 1e-3},
    {"learning_rate_init": 1e-2},
]
DRAWS = 32
"""Draws per row of the log-likelihood, the same for all versions."""


# --------------------------------------------------------------------------------------------------------------- tables


def simulated(n_rows, seed=0):
    """Rows of 12 numbers on a curved sheet of 3 dimensions, with noise that depends on the place."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, 3))
    features = np.column_stack([z, z**2, np.sin(2 * z), z[:, :1] * z[:, 1:]])
    noise = np.exp(-1.5 + 0.5 * z[:, :1])
    return features @ rng.normal(size=(features.shape[1], 12)) + noise * rng.normal(size=(n_rows, 12))


def load_rows(name, max_rows):
    """Training and test rows of a table, at most `max_rows` (or all, with None) and 4,000 of them."""
    if name in tables.TABLES:
        table = tables.load_table(name)
        train, test = table.train, table.test
    else:
        X = simulated(40_000) if name == "simulated" else getattr(datasets, f"load_{name}")().data
        train, test = train_test_split(X, test_size=0.2, random_state=0)

    order = np.random.default_rng(0).permutation(len(test))[:4000]
    test = test.iloc[order] if hasattr(test, "iloc") else test[order]
    return train[:max_rows], test


# ---------------------------------------------------------------------------------------------------- one fit, measured


def measure(table, seed, parameters, max_rows):
    """Figures of one fit: held-out nats per row, and seconds of processor time."""
    from skvae import VAEEstimator

    warnings.simplefilter("ignore")
    train, test = load_rows(table, max_rows)
    parameters = dict(parameters)
    if "steps" in parameters:
        steps_per_epoch = math.ceil(0.9 * len(train) / parameters.get("batch_size", 128))
        parameters["max_iter"] = math.ceil(parameters.pop("steps") / steps_per_epoch)

    VAEEstimator(max_iter=1, random_state=0).fit(train[:200])  # what is loaded or made once does not count

    vae = VAEEstimator(**{"random_state": seed, "handle_unknown": "ignore", **parameters})
    _, seconds, wall = seconds_of(lambda: vae.fit(train))
    nats, score_seconds, _ = seconds_of(lambda: np.asarray(vae.score_samples(test, n_draws=DRAWS)))
    return {
        "rows": len(train),
        "columns": train.shape[1],
        "nats": float(nats.mean()),
        "median_nats": float(np.median(nats)),
        "fit_seconds": seconds,
        "fit_wall": wall,
        "epochs": vae.n_iter_,
        "score_seconds": score_seconds,
    }


# ------------------------------------------------------------------------------------------------------------- versions


def compare(versions, options, emit):
    """Emit one record for each table, seed and version."""
    turn = 0
    for table in options.tables:
        for seed in options.seeds:
            for version in in_turn(versions, turn):
                emit(version.ask(table=table, seed=seed, max_rows=options.max_rows))
            turn += 1


def figures(records, table, version, figure):
    """A figure of a version on a table, by seed."""
    chosen = [r for r in records if (r["table"], r["version"]) == (table, version) and figure in r]
    return {r["seed"]: r[figure] for r in chosen}


def version_cells(records, table, version):
    """Mean and worst nats, and median seconds."""
    nats = list(figures(records, table, version, "nats").values())
    if not nats:
        return ["failed", ""]
    seconds = list(figures(records, table, version, "fit_seconds").values())
    return [f"{np.mean(nats):.2f} ({min(nats):.2f})", f"{np.median(seconds):.1f}"]


def difference_cells(records, table, first, last):
    """What the last version has over the first one, by the seeds that both have."""
    nats, other_nats = (figures(records, table, version, "nats") for version in (first, last))
    seconds, other_seconds = (figures(records, table, version, "fit_seconds") for version in (first, last))
    seeds = sorted(set(nats) & set(other_nats))
    if not seeds:
        return ["", ""]
    gains = [other_nats[seed] - nats[seed] for seed in seeds]
    ratios = [seconds[seed] / other_seconds[seed] for seed in seeds]
    return [f"{np.mean(gains):+.2f} ({min(gains):+.2f})", f"{np.median(ratios):.2f}"]


def print_comparison(records, names):
    """One line per table."""
    rows = []
    for table in dict.fromkeys(r["table"] for r in records):
        row = [table]
        for name in names:
            row += version_cells(records, table, name)
        rows.append([*row, *difference_cells(records, table, names[0], names[-1])])

    heading = ["nats, mean (worst)"]
    for name in names:
        heading += [name, "s"]
    print_rows([*heading, "last - first", "times as fast"], rows)

    problems = [f"{r['table']}, {r['version']}: {r['failed']}" for r in records if "failed" in r]
    print("\n".join(dict.fromkeys(problems)))


# ------------------------------------------------------------------------------------------------------------- settings


def setting_text(setting):
    """A setting in words."""
    names = {"steps": "steps", "batch_size": "batch", "learning_rate_init": "learning rate"}
    return ", ".join(f"{names[key]} {value:,}" for key, value in setting.items()) or "default"


def write_settings(version, options, emit):
    """The table of settings on docs/benchmarks.md."""
    rows = []
    shapes = {}
    for setting in SETTINGS[:3] if options.quick else SETTINGS:
        row = [setting_text(setting)]
        for table in SETTINGS_TABLES:
            answers = []
            for seed in options.seeds:
                answers.append(version.ask(table=table, seed=seed, max_rows=options.max_rows, parameters=setting))
                emit(answers[-1])
            whole = [answer for answer in answers if "failed" not in answer]
            nats = np.mean([answer["nats"] for answer in whole])
            seconds = np.median([answer["fit_seconds"] for answer in whole])
            row.append(f"{nats:.2f} ({seconds:.1f} s)")
            shapes[table] = f"{table}, {whole[0]['rows']:,} rows x {whole[0]['columns']}"
        rows.append(row)

    write_section(
        "budget",
        "## Budget\n\n"
        f"{machine()} One thread. Held-out nats per row (processor seconds of the fit), mean over the seeds "
        f"{', '.join(map(str, options.seeds))}; everything else by default, early stopping included.\n\n"
        + markdown(["", *shapes.values()], rows),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", help='[NAME=]FOLDER[:{"parameter": value}]; none: the settings')
    parser.add_argument(
        "--tables", nargs="*", default=COMPARED_TABLES, choices=[*tables.TABLES, *BUNDLED_TABLES, "simulated"]
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--max-rows", type=int, default=None, help="keep at most so many training rows (a quick look)")
    parser.add_argument("--quick", action="store_true", help="the first three settings only")
    parser.add_argument("--output", type=Path, default=None, help="file that the JSON lines are appended to")
    options = parser.parse_args()

    records, emit = recorder(options.output)
    versions = [Version(text, __file__) for text in options.versions or [str(ROOT)]]
    try:
        if options.versions:
            compare(versions, options, emit)
        else:
            write_settings(versions[0], options, emit)
    finally:
        for version in versions:
            version.close()
    if options.versions:
        print()
        print_comparison(records, [version.name for version in versions])


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(measure)
    else:
        main()
