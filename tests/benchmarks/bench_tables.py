"""Synthetic tables, latent features and held-out densities on real tables.

Run ``python tests/benchmarks/bench_tables.py --help``. Each table is split once, 80 % training and 20 % test rows
(adult by its own split); the seeds vary the models. For every table, method and seed one line of JSON goes to
``--output``, and at the end one table of means over the seeds is printed:

shape %, trend %
    Column shape error and pair trend error against the training rows (definitions of SDMetrics).
missing %
    Mean difference of the shares of missing cells of the numbers.
utility (real)
    AUC, or R2 for regression, on the test rows of boosted trees trained on synthetic rows (on the training rows).
logistic, boosted
    Cross-validated AUC of telling real from synthetic rows; at most 20,000 of each.
nearer %
    Share of synthetic rows nearer to the rows they were learnt from than to as many others, ties counted half: the
    method is fitted again on one half of the training rows. 50 is clean.
z linear, z boosted, (pca), (scaled)
    Test AUC or R2 of a linear and a boosted model on 8 latent means, the target left out of the table. In brackets the
    same on 8 principal components of the encoded table: standardised numbers and one-hot categories; all of these
    scaled to unit variance.
R2 back, levels back
    `reconstruct` of the test rows, target included: mean R2 of the numbers, and share of right levels of the others.
z fact. linear, z fact. boosted
    The same latent means with ``decoder="factorized", likelihood="normal"``.
fit s, draw s
    Seconds of processor time to fit to all training rows, and to draw as many, on one thread.

Another table holds conditional samples: for each of ten columns the rarest value that at least 500 test rows have is
given to ``sample``, and the shape error over the other columns is measured against those test rows; beside it that of
unconditional samples of the same number against as many test rows at random.

A last table holds the mean log-likelihood of the test rows, nats per row, on tables of continuous columns
(dequantised): skvae, and a Gaussian mixture, kernel density and factor analysis tuned on training rows.

Methods: ``skvae``, ``smote`` (imbalanced-learn: SMOTE or SMOTENC within each class, missing cells filled), ``tvae``
(CTGAN's TVAE), ``mostlyai`` (TabularARGN of mostlyai-engine), each in a virtual environment of its own that `make bench-peers`
fills, and two marks: ``resample`` (training rows drawn with replacement: perfect but for privacy; copies on
both sides of a fold take its detection below .5) and ``shuffle`` (each column on its own). What is not installed is
skipped; what fails is named below the table.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import quality
import tables
from bench_training import HERE, VENVS, thread_limits
from records import attempt, mean_text, print_rows, recorder
from sklearn.exceptions import ConvergenceWarning
from versions import seconds_of

PARTS = ("samples", "privacy", "representation", "conditions", "density")
ROWS_OF_CONDITION = 500
"""A condition is one that at least so many test rows meet."""


# -------------------------------------------------------------------------------------------------------------- methods
# A method is a function fit(table, rows, seed) that returns draw(n, seed), which returns a DataFrame of n new rows.


def fit_skvae(table, rows, seed):
    """`VAEEstimator` with its defaults."""
    from skvae import VAEEstimator

    vae = VAEEstimator(random_state=seed).fit(rows)
    return lambda n, seed: vae.sample(n, random_state=seed)


def fit_resample(table, rows, seed):
    """Rows drawn with replacement."""
    return lambda n, seed: rows.sample(n, replace=True, random_state=seed).reset_index(drop=True)


def fit_shuffle(table, rows, seed):
    """Each column drawn on its own."""

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        return pd.DataFrame({c: rows[c].array.take(rng.integers(len(rows), size=n)) for c in rows})

    return draw


def filled(table, rows):
    """Rows with missing numbers at the median and missing categories as a level of their own, categories as strings."""
    numbers = rows[table.numbers].astype(float)
    numbers = numbers.fillna(numbers.median())
    names = {c: quality.level_names(rows[c]) for c in table.categories}
    return pd.DataFrame({c: numbers[c].to_numpy() if c in table.numbers else names[c] for c in rows})


def restored(table, frame):
    """The inverse of `filled`, but for the numbers that were missing."""
    frame = frame.copy()
    frame[table.integers] = frame[table.integers].round()
    return frame.replace({c: {"<missing>": None} for c in table.categories})


def fit_smote(table, rows, seed):
    """SMOTE within each class; for regression the classes are the lower and the upper half of the target."""
    from imblearn.over_sampling import SMOTE, SMOTENC

    known = filled(table, rows)
    if table.task == "classification":
        X, y = known.drop(columns=table.target), known[table.target]
    else:
        X, y = known, (known[table.target] > known[table.target].median()).rename("half")
    categories = [c for c in table.categories if c in X]

    def draw(n, seed):
        wanted = {label: round(size * (1 + n / len(rows))) + 1 for label, size in y.value_counts().items()}
        sampler = (
            SMOTENC(categories, sampling_strategy=wanted, random_state=seed)
            if categories
            else SMOTE(sampling_strategy=wanted, random_state=seed)
        )
        X_new, y_new = sampler.fit_resample(X, y)
        new = X_new if table.task == "regression" else X_new.assign(**{table.target: y_new})
        new = new.iloc[len(rows) :].sample(n, random_state=seed).reset_index(drop=True)
        return restored(table, new[list(rows)])

    return draw


class PeerModel:
    """A model of another library, fitted in a process of its own virtual environment; drawn from by a call.

    Parameters
    ----------
    venv : str
        Name of the virtual environment below `bench_training.VENVS` (``make bench-peers`` fills it).
    peer : str
        Argument of ``peers/rows_peer.py``.
    rows : DataFrame
    categories : list of str
    seed : int
    after : callable
        What becomes of each drawn DataFrame.

    Attributes
    ----------
    fit_seconds, draw_seconds : float
        Seconds of processor time, of the last draw the latter.
    """

    def __init__(self, venv, peer, rows, categories, seed, after=lambda frame: frame):
        python = VENVS / venv / "bin" / "python"
        if not python.exists():
            raise ImportError(f"{python} is missing: run `make bench-peers`.")
        self._texts = dict.fromkeys(categories, str)
        self._after = after
        self._folder = tempfile.TemporaryDirectory()
        self._errors = open(Path(self._folder.name) / "errors.txt", "w+")  # noqa: SIM115 (it lives as long as the process)
        self._process = subprocess.Popen(
            [python, HERE / "peers" / "rows_peer.py", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | thread_limits(1),
        )
        file = Path(self._folder.name) / "rows.csv"
        rows.to_csv(file, index=False)
        self.fit_seconds = self._ask({"do": "fit", "file": str(file), "categories": categories, "seed": seed})

    def _ask(self, job):
        """The seconds that a job took."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": Path(self._errors.name).read_text()[-500:]}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def __call__(self, n, seed):
        """A DataFrame of n new rows, categories as text."""
        file = Path(self._folder.name) / "new.csv"
        self.draw_seconds = self._ask({"do": "sample", "file": str(file), "n": n, "seed": seed})
        return self._after(pd.read_csv(file, dtype=self._texts, keep_default_na=False, na_values=[""]))


def fit_tvae(table, rows, seed):
    """CTGAN's TVAE with its defaults."""
    return PeerModel("ctgan", "tvae", filled(table, rows), table.categories, seed, partial(restored, table))


def fit_mostlyai(table, rows, seed):
    """TabularARGN of mostlyai-engine with its defaults."""
    names = {c: quality.level_names(rows[c]) for c in table.categories}
    return PeerModel("mostlyai", "mostlyai", rows.assign(**names), table.categories, seed)


METHODS = {
    "skvae": fit_skvae,
    "smote": fit_smote,
    "tvae": fit_tvae,
    "mostlyai": fit_mostlyai,
    "resample": fit_resample,
    "shuffle": fit_shuffle,
}
LATENT_METHODS = ("skvae",)
"""Methods with latent features and a density."""


# -------------------------------------------------------------------------------------------------------------- figures


def coded(table, *frames):
    """Training rows, test rows and further frames as `quality.Coded`."""
    return quality.code_tables([table.train, table.test, *frames], table.numbers, table.categories)


def target_index(table):
    """Position of the target among the numbers or the categories."""
    return (table.numbers if table.task == "regression" else table.categories).index(table.target)


def sample_figures(table, fit, seed):
    """Quality of as many synthetic rows as there are training rows, and the seconds it took to fit and to draw."""
    draw, fit_seconds, _ = seconds_of(lambda: fit(table, table.train, seed))
    frame, draw_seconds, _ = seconds_of(lambda: draw(len(table.train), seed))
    if isinstance(draw, PeerModel):
        fit_seconds, draw_seconds = draw.fit_seconds, draw.draw_seconds
    train, test, synthetic = coded(table, frame)
    logistic, boosted = quality.detection(train, synthetic, seed)
    return {
        "fit_seconds": fit_seconds,
        "sample_seconds": draw_seconds,
        "shape": quality.shape_error(train, synthetic),
        "trend": quality.trend_error(train, synthetic),
        "missing": quality.missing_error(train, synthetic),
        "utility": quality.utility(synthetic, test, target_index(table), table.task, seed),
        "detection_logistic": logistic,
        "detection_boosted": boosted,
    }


def privacy_figures(table, fit, seed):
    """Share of rows nearer to the half of the training rows they were learnt from than to the other half."""
    order = np.random.default_rng(seed).permutation(len(table.train))
    halves = [table.train.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2)]
    synthetic = fit(table, halves[0], seed)(len(halves[0]), seed)
    learnt, others, synthetic = quality.code_tables([*halves, synthetic], table.numbers, table.categories)
    return {"nearer": quality.nearer_share(learnt, others, synthetic, seed)}


def without_target(table):
    """Training and test features, their targets, and the same coded; rows without a target left out."""
    frames = [f[f[table.target].notna()].reset_index(drop=True) for f in (table.train, table.test)]
    rows = quality.code_tables(frames, table.numbers, table.categories)
    features, targets = zip(*[quality.split_target(r, target_index(table), table.task) for r in rows], strict=True)
    return [f.drop(columns=table.target) for f in frames], targets, features


def representation_figures(table, seed):
    """Linear and boosted models on 8 latent means, the target left out of the table."""
    from skvae import VAEEstimator

    (X, X_test), (y, y_test), _ = without_target(table)
    figures = {}
    for name, params in (("z", {}), ("z_factorized", {"decoder": "factorized", "likelihood": "normal"})):
        vae = VAEEstimator(latent_dim=8, handle_unknown="ignore", random_state=seed, **params).fit(X)
        Z, Z_test = np.asarray(vae.transform(X)), np.asarray(vae.transform(X_test))
        scores = quality.feature_scores(Z, y, Z_test, y_test, table.task, seed)
        figures[f"{name}_linear"], figures[f"{name}_boosted"] = scores
    return figures | reconstruction_figures(table, seed)


def reconstruction_figures(table, seed):
    """How much of the test rows, with the target, comes back from 8 latent means."""
    from skvae import VAEEstimator

    vae = VAEEstimator(latent_dim=8, handle_unknown="ignore", random_state=seed).fit(table.train)
    rows, back = quality.code_tables([table.test, vae.reconstruct(table.test)], table.numbers, table.categories)
    observed = table.test[table.categories].notna().to_numpy()
    return {
        "r2_back": quality.determination(rows.numbers, back.numbers),
        "levels_back": float((rows.codes == back.codes)[observed].mean()) if observed.size else np.nan,
    }


def conditions(table, n_conditions=10):
    """(column, value): the rarest value of each of the first ten columns that enough test rows meet."""
    chosen = []
    for column in table.test:
        counts = table.test[column].value_counts()
        counts = counts[counts >= ROWS_OF_CONDITION]
        if len(counts) and counts.iloc[-1] < 0.9 * len(table.test):
            chosen.append((column, counts.index[-1]))
    return chosen[:n_conditions]


def shape_error_without(table, column, real, synthetic):
    """Shape error of `synthetic` against `real` over the columns other than `column`."""
    numbers, categories = ([c for c in names if c != column] for names in (table.numbers, table.categories))
    return quality.shape_error(*quality.code_tables([real, synthetic], numbers, categories))


def condition_figures(table, seed):
    """Shape errors of rows drawn around one given cell, and of rows drawn around none, both against test rows."""
    from skvae import VAEEstimator

    vae = VAEEstimator(random_state=seed).fit(table.train)
    for column, value in conditions(table):
        real = table.test[table.test[column] == value]
        others = table.test.sample(len(real), random_state=seed)
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            given = vae.sample(2000, given={column: value}, random_state=seed)
        seconds = time.perf_counter() - start
        free = vae.sample(2000, random_state=seed)
        yield {
            "condition": f"{column}={value}",
            "test_rows": len(real),
            "conditional": shape_error_without(table, column, real, given),
            "unconditional": shape_error_without(table, column, others, free),
            "warned": len(caught),
            "seconds": seconds,
        }


def reference_figures(table, parts):
    """What does not depend on the method: models on real rows and on principal components."""
    train, test = coded(table)
    figures = {"utility_real": quality.utility(train, test, target_index(table), table.task)}
    if "representation" in parts:
        _, (y, y_test), (features, features_test) = without_target(table)
        for name, scaled in (("pca", False), ("pca_scaled", True)):
            Z, Z_test = quality.principal_components(features, features_test, scaled=scaled)
            scores = quality.feature_scores(Z, y, Z_test, y_test, table.task)
            figures[f"{name}_linear"], figures[f"{name}_boosted"] = scores
    return figures


def density_figures(name, seeds, max_rows=None):
    """Mean log-likelihood of the test rows of a numeric table: the tuned rivals, and skvae for each seed."""
    from skvae import VAEEstimator

    X, X_test = tables.load_numeric(name)
    X = X[:max_rows]
    yield {"rows": len(X), "columns": X.shape[1], **quality.density_scores(X, X_test)}
    for seed in seeds:
        start = time.perf_counter()
        vae = VAEEstimator(random_state=seed).fit(X)
        seconds = time.perf_counter() - start
        yield {"seed": seed, "skvae": vae.score(X_test), "fit_seconds": seconds}


# ------------------------------------------------------------------------------------------------------------- the runs


def run_table(table, methods, seeds, parts, emit):
    """Emit one record per method and seed."""
    reference = reference_figures(table, parts)
    for method in methods:
        for seed in seeds:
            start = time.perf_counter()
            record = {"kind": "table", "table": table.name, "method": method, "seed": seed, **reference}
            if "samples" in parts:
                record |= attempt(partial(sample_figures, table, METHODS[method], seed))
            if "privacy" in parts and "skipped" not in record:
                record |= attempt(partial(privacy_figures, table, METHODS[method], seed))
            if "representation" in parts and method in LATENT_METHODS:
                record |= attempt(partial(representation_figures, table, seed))
            emit(record | {"total_seconds": time.perf_counter() - start})


def run_conditions(table, seeds, emit):
    """Emit one record per seed and condition."""
    for seed in seeds:
        for figures in condition_figures(table, seed):
            emit({"kind": "condition", "table": table.name, "seed": seed, **figures})


def run_density(names, seeds, max_rows, emit):
    """Emit one record per numeric table for the rivals and one per seed for skvae."""
    for name in names:
        for figures in density_figures(name, seeds, max_rows):
            emit({"kind": "density", "table": name, **figures})


# ------------------------------------------------------------------------------------------------------------- printing

COLUMNS = {
    # heading: figure, factor, decimals
    "shape %": ("shape", 100, 2),
    "trend %": ("trend", 100, 2),
    "missing %": ("missing", 100, 2),
    "utility": ("utility", 1, 3),
    "(real)": ("utility_real", 1, 3),
    "logistic": ("detection_logistic", 1, 3),
    "boosted": ("detection_boosted", 1, 3),
    "nearer %": ("nearer", 100, 1),
    "z linear": ("z_linear", 1, 3),
    "z fact. linear": ("z_factorized_linear", 1, 3),
    "(pca)": ("pca_linear", 1, 3),
    "(scaled)": ("pca_scaled_linear", 1, 3),
    "z boosted": ("z_boosted", 1, 3),
    "z fact. boosted": ("z_factorized_boosted", 1, 3),
    "(pca) ": ("pca_boosted", 1, 3),
    "(scaled) ": ("pca_scaled_boosted", 1, 3),
    "R2 back": ("r2_back", 1, 3),
    "levels back": ("levels_back", 1, 3),
    "fit s": ("fit_seconds", 1, 1),
    "draw s": ("sample_seconds", 1, 2),
}


def print_tables(records):
    """One row per table and method, means over the seeds; then what failed."""
    rows, notes = [], []
    for table, method in dict.fromkeys((r["table"], r["method"]) for r in records):
        chosen = [r for r in records if (r["table"], r["method"]) == (table, method)]
        rows.append([table, method, *[mean_text(chosen, *column) for column in COLUMNS.values()]])
        problems = {f"{key}: {r[key]}" for r in chosen for key in ("skipped", "failed") if key in r}
        notes += [f"{table}, {method}: {problem}" for problem in sorted(problems)]
    if rows:
        print_rows(["table", "method", *COLUMNS], rows)
    print("\n".join(notes))


def print_conditions(records):
    """One row per condition: shape errors, and their ratio."""
    rows = []
    for table, condition in dict.fromkeys((r["table"], r["condition"]) for r in records):
        chosen = [r for r in records if (r["table"], r["condition"]) == (table, condition)]
        given, free = (np.mean([r[key] for r in chosen]) for key in ("conditional", "unconditional"))
        errors = f"{100 * given:.2f}", f"{100 * free:.2f}", f"{given / free:.2f}"
        rows.append([table, condition, str(chosen[0]["test_rows"]), *errors, mean_text(chosen, "seconds", 1, 2)])
    if rows:
        print_rows(["table", "given", "test rows", "shape %", "unconditional %", "ratio", "draw s"], rows)


def print_densities(records):
    """One row per numeric table: mean log-likelihood of the test rows, nats."""
    figures = ["skvae", "gaussian_mixture", "kernel_density", "factor_analysis"]
    rows = []
    for table in dict.fromkeys(r["table"] for r in records):
        chosen = [r for r in records if r["table"] == table]
        sizes = [f"{chosen[0].get(key, '-')}" for key in ("rows", "columns")]
        nats = [mean_text(chosen, figure, 1, 3) for figure in figures]
        rows.append([table, *sizes, *nats, mean_text(chosen, "fit_seconds", 1, 1)])
    if rows:
        print_rows(["held-out nats", "rows", "columns", *figures, "fit s"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=tables.BENCHMARK_TABLES, choices=list(tables.TABLES))
    parser.add_argument("--numeric", nargs="*", default=tables.NUMERIC_TABLES, choices=tables.NUMERIC_TABLES)
    parser.add_argument("--methods", nargs="*", default=["skvae", "smote", "tvae", "mostlyai"], choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--max-rows", type=int, default=None, help="keep at most so many training rows (a quick look)")
    parser.add_argument("--output", default=None, help="file the JSON lines are appended to")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    records, emit = recorder(arguments.output)
    for name in arguments.tables:
        table = tables.load_table(name, arguments.max_rows)
        if set(arguments.parts) - {"density", "conditions"}:
            run_table(table, arguments.methods, arguments.seeds, arguments.parts, emit)
        if "conditions" in arguments.parts and name == "adult":
            run_conditions(table, arguments.seeds, emit)
    if "density" in arguments.parts:
        run_density(arguments.numeric, arguments.seeds, arguments.max_rows, emit)
    print()
    print_tables([r for r in records if r["kind"] == "table"])
    print_conditions([r for r in records if r["kind"] == "condition"])
    print_densities([r for r in records if r["kind"] == "density"])


if __name__ == "__main__":
    main()
