"""Processor time of a fit and of the calls after it, and of a gradient step on levels and on numbers; also by version.

    python tests/benchmarks/bench_calls.py [--rounds N] [--page]
    python tests/benchmarks/bench_calls.py ../before . --rounds 5

Without folders this source tree is measured; with several, each version in turn, in processes of their own on one thread,
and the last one is compared with the first. A folder may be followed by parameters of the estimator, as in
``'.:{"max_iter": 10}'``. ``--tables`` chooses from

mixed
    20,000 rows of 20 columns (numbers, counts, categories) with 10 % holes: default fit, `transform`, the first `sample` of a
    process and the next one (20,000 rows), `score_samples` and `impute` of all rows.
adult
    The training rows are fitted, the test rows scored, and completed after 10 % of their cells were taken out.
levels, numbers
    80,000 rows of 40 categories with 50 levels, and of 40 numbers: a gradient step in batches of 128 (a fit of two epochs
    less one of one epoch, by the number of steps), and the memory that a fit needed at its peak beyond what the process held.

Beside the seconds stand the mean of `score_samples` in nats per row, and the mean error of imputed cells: root mean square in
standard deviations for numbers, share of wrong cells for categories. ``--output`` takes lines of JSON; ``--page`` writes the
table to docs/benchmarks.md. Asserts nothing.
"""

import argparse
import math
import sys
import warnings

import numpy as np
import pandas as pd
import tables
from bench_scaling import MIB, peak_memory
from bench_training import ROOT, machine, markdown, write_section
from records import recorder
from versions import Version, in_turn, seconds_of, serve

BATCH = 128


# --------------------------------------------------------------------------------------------------------------- tables


def mixed_rows(n_rows, seed=0):
    """20 columns that depend on four hidden numbers: 10 numbers, 4 counts, 6 categories."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, 4))
    hidden = np.tanh(z @ rng.normal(size=(4, 20))) + 0.4 * rng.normal(size=(n_rows, 20))

    columns = {}
    for j in range(20):
        h = hidden[:, j]
        if j < 6:
            columns[f"number {j}"] = h.round(4)
        elif j < 8:
            columns[f"amount {j}"] = np.exp(2 * h).round(2)
        elif j < 10:
            columns[f"spiked {j}"] = np.where(h > 0, h, 0.0).round(3)
        elif j < 14:
            columns[f"count {j}"] = rng.poisson(np.exp(1 + h))
        else:
            n_levels = 2 + 3 * (j - 14)
            places = np.searchsorted(np.quantile(h, np.linspace(0, 1, n_levels + 1)[1:-1]), h)
            columns[f"level {j}"] = np.array([f"v{k}" for k in range(n_levels)])[places]
    return pd.DataFrame(columns)


def with_holes(frame, share=0.1, seed=0):
    """The frame without a share of its cells, and the mask of those taken out, of shape (n_rows, n_columns)."""
    mask = np.random.default_rng(seed).uniform(size=frame.shape) < share
    return frame.mask(mask), mask


def level_rows(n_rows, n_columns=40, n_levels=50, seed=0):
    """Categories that depend on a hidden one, made column by column, so that no large intermediate counts as memory."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(n_levels, size=n_rows)
    names = [f"v{k}" for k in range(n_levels)]
    columns = {}
    for j in range(n_columns):
        own = rng.integers(n_levels, size=n_rows)
        codes = np.where(rng.uniform(size=n_rows) < 0.5, hidden, own).astype(np.int8)
        columns[f"c{j}"] = pd.Categorical.from_codes(codes, names)
    return pd.DataFrame(columns)


def number_rows(n_rows, n_columns=40, seed=0):
    """Numbers that share a hidden one."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n_rows)
    return pd.DataFrame({f"x{j}": shared + rng.normal(size=n_rows) for j in range(n_columns)})


# ----------------------------------------------------------------------------------------- measures, one process for each


def measure(table, n_rows, parameters):
    """Figures of one table: seconds of processor time, and what else is worth a look."""
    warnings.simplefilter("ignore")
    if table in {"levels", "numbers"}:
        return step_figures(level_rows(n_rows) if table == "levels" else number_rows(n_rows), parameters)

    if table == "adult":
        adult = tables.load_table("adult", n_rows)
        return call_figures(adult.train, adult.test[:n_rows], adult.test[:n_rows], parameters)

    frame = mixed_rows(n_rows)
    holed, _ = with_holes(frame)
    return call_figures(holed, holed, frame, parameters)


def warm_up(frame):
    """Load what is loaded once."""
    from skvae import VAEEstimator

    VAEEstimator(max_iter=1, random_state=0).fit(frame[:200])


def call_figures(rows, scored, whole, parameters):
    """A fit of `rows` and the calls after it; `scored` are scored, `whole` are imputed after cells were taken out."""
    from skvae import VAEEstimator

    warm_up(rows)
    vae = VAEEstimator(**{"random_state": 0, "handle_unknown": "ignore", **parameters})
    holed, mask = with_holes(whole)
    n = len(rows)
    calls = {
        "fit": lambda: vae.fit(rows),
        "transform": lambda: vae.transform(scored),
        "sample, first": lambda: vae.sample(n, random_state=0),
        "sample": lambda: vae.sample(n, random_state=1),
        "score_samples": lambda: vae.score_samples(scored),
        "impute": lambda: vae.impute(holed),
    }
    seconds = {}
    for name, call in calls.items():
        answer, seconds[name], _ = seconds_of(call)
        if name == "score_samples":
            nats = float(np.mean(answer))

    return {"seconds": seconds, "nats": nats, "imputation_error": imputation_error(whole, answer, mask)}


def imputation_error(whole, completed, mask):
    """Mean over the columns of the error of the cells in the mask, missing cells of `whole` left out."""
    errors = []
    for j, name in enumerate(whole):
        cells = mask[:, j] & whole[name].notna().to_numpy()
        truth, guess = whole[name][cells], completed[name][cells]
        if pd.api.types.is_numeric_dtype(truth):
            errors.append(float(np.sqrt(np.mean((truth - guess) ** 2)) / whole[name].std()))
        else:
            errors.append(float(np.mean(truth.astype(str).to_numpy() != guess.astype(str).to_numpy())))
    return float(np.mean(errors))


def step_figures(frame, parameters):
    """Seconds of a gradient step, and bytes that a fit needed at its peak."""
    from skvae import VAEEstimator

    warm_up(frame)
    settings = {"random_state": 0, "batch_size": BATCH, "early_stopping": False, **parameters}
    before = peak_memory()
    _, one, _ = seconds_of(lambda: VAEEstimator(**settings | {"max_iter": 1}).fit(frame))
    memory = peak_memory() - before
    _, two, _ = seconds_of(lambda: VAEEstimator(**settings | {"max_iter": 2}).fit(frame))

    steps = math.ceil(len(frame) / settings["batch_size"])
    return {
        "seconds": {"step": (two - one) / steps, "encoding and one epoch": one},
        "memory": memory,
        "frame_memory": int(frame.memory_usage(deep=True).sum()),
    }


# ------------------------------------------------------------------------------------------------------------- versions

ROWS = {"mixed": 20_000, "adult": None, "levels": 80_000, "numbers": 80_000}


def run_rounds(texts, options, emit):
    """Emit one record for each round, table and version; a process for each, so that its peak of memory is its own."""
    for number in range(options.rounds):
        for table in options.tables:
            for text in in_turn(texts, number):
                version = Version(text, __file__)
                n_rows = min(filter(None, [ROWS[table], options.max_rows]), default=None)
                emit({"round": number, **version.ask(table=table, n_rows=n_rows)})
                version.close()


def cells_by_version(records, table, call):
    """Seconds by version, in the order of the rounds."""
    seconds = {}
    for record in records:
        if record["table"] == table and call in record.get("seconds", {}):
            seconds.setdefault(record["version"], []).append(record["seconds"][call])
    return seconds


def seconds_text(seconds):
    """Median of seconds, in a unit that suits it."""
    middle = float(np.median(seconds))
    return f"{1e6 * middle:,.0f} µs" if middle < 0.1 else f"{middle:.2f} s"


def summary(records, names):
    """Rows of the table: a call, its median seconds by version, and the ratio of the last version to the first."""
    rows = []
    for table in dict.fromkeys(r["table"] for r in records):
        calls = dict.fromkeys(call for r in records if r["table"] == table for call in r.get("seconds", {}))
        for call in calls:
            seconds = cells_by_version(records, table, call)
            row = [
                f"{table}: {call}",
                *(seconds_text(seconds[name]) if name in seconds else "failed" for name in names),
            ]
            if len(names) > 1:
                row.append(ratio_text(seconds, names[0], names[-1]))
            rows.append(row)
        rows += other_rows([r for r in records if r["table"] == table], table, names)
    return rows


def ratio_text(seconds, first, last):
    """Ratio of medians, and the range of the ratios by round."""
    if first not in seconds or last not in seconds:
        return ""
    ratios = [b / a for a, b in zip(seconds[first], seconds[last], strict=False)]
    return f"{np.median(seconds[last]) / np.median(seconds[first]):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def other_rows(records, table, names):
    """Rows of the table for nats, errors and memory."""
    figures = {
        "score_samples, nats": ("nats", 1, "{:.2f}"),
        "impute, error": ("imputation_error", 1, "{:.3f}"),
        "memory of a fit": ("memory", MIB, "{:,.0f} MiB"),
        "the frame": ("frame_memory", MIB, "{:,.0f} MiB"),
    }
    rows = []
    for heading, (figure, unit, form) in figures.items():
        if not any(figure in r for r in records):
            continue
        row = [f"{table}: {heading}"]
        for name in names:
            values = [r[figure] / unit for r in records if r["version"] == name and figure in r]
            row.append(form.format(np.median(values)) if values else "failed")
        rows.append([*row, ""] if len(names) > 1 else row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=[str(ROOT)], help='[NAME=]FOLDER[:{"parameter": value}]')
    parser.add_argument("--tables", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-rows", type=int, default=None, help="at most so many rows (a quick look)")
    parser.add_argument("--output", default=None, help="file that the JSON lines are appended to")
    parser.add_argument("--page", action="store_true", help="write the table to docs/benchmarks.md")
    options = parser.parse_args()

    records, emit = recorder(options.output)
    run_rounds(options.versions, options, emit)
    names = list(dict.fromkeys(r["version"] for r in records))

    heading = ["", *names, f"{names[-1]} / {names[0]}"] if len(names) > 1 else ["", "median"]
    table = markdown(heading, summary(records, names))
    problems = dict.fromkeys(f"{r['table']}, {r['version']}: {r['failed']}" for r in records if "failed" in r)
    print("\n".join(["", table, *problems]))
    if options.page:
        blas = ", ".join(sorted({r["blas"] for r in records if "blas" in r}))
        body = [
            "## A fit and the calls after it",
            f"{machine()} One thread, numpy's products by OpenBLAS for {blas}. Medians of processor time over "
            f"{options.rounds} rounds. What each line measures is said at the head of `tests/benchmarks/bench_calls.py`.",
            table,
        ]
        write_section("calls", "\n\n".join(body))


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(measure)
    else:
        main()
