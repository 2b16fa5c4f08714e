"""Time and peak memory of a fit against rows, columns and batch size; time per row of what a fitted model does.

    python tests/benchmarks/bench_scaling.py [--quick]

Every point is a process of its own, on one thread, so that its peak memory is its own. The default fit is on the
numeric columns of Adult, below the folder in the environment variable SKVAE_DATA, or on a table of scikit-learn's
without one. Prints its tables and writes them to docs/benchmarks.md; asserts nothing.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bench_training import machine, markdown, thread_limits, write_section

ROWS = [1_000, 10_000, 100_000, 1_000_000]
COLUMNS = [8, 32, 128, 512, 2_000]
BATCHES = [32, 128, 512, 4_096]
EPOCHS = 3
MIB = 2**20


# --------------------------------------------------------------------------------------------- one point, one process


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def sheet(rows, columns, dtype="float32"):
    """Rows near a two-dimensional plane, made without large intermediates."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns), dtype=dtype)
    x += rng.standard_normal((rows, 1), dtype=dtype)
    return x


def measure_fit(rows, columns, batch_size=128, epochs=EPOCHS, dtype="float32"):
    """Seconds of a fit, the best of two where that is quick, and bytes at its peak beyond what was there before."""
    from skvae import VAEEstimator

    vae = VAEEstimator(batch_size=batch_size, max_iter=epochs, likelihood="normal", random_state=0)
    vae.fit(sheet(200, columns, dtype))  # what is loaded or made once does not count
    x = sheet(rows, columns, dtype)
    before = peak_memory()
    seconds = timed(lambda: vae.fit(x))
    memory = peak_memory() - before
    if seconds < 5:
        seconds = min(seconds, timed(lambda: vae.fit(x)))
    return {"seconds": seconds, "memory": memory}


def measure_methods(rows, columns, score_rows):
    """Seconds and peak memory of transform, sample and score_samples of a fitted model."""
    from skvae import VAEEstimator

    x = sheet(rows, columns)
    vae = VAEEstimator(max_iter=1, early_stopping=False, likelihood="normal", random_state=0).fit(x[:1000])
    calls = {"transform": lambda: vae.transform(x), "sample": lambda: vae.sample(rows, random_state=0)}
    if rows <= score_rows:
        calls["score_samples"] = lambda: vae.score_samples(x)
    vae.score_samples(x[:100])
    results = {}
    for name, call in calls.items():
        before = peak_memory()
        seconds = timed(call)
        memory = peak_memory() - before
        results[name] = {"seconds": min([seconds, *(timed(call) for _ in range(2 if seconds < 1 else 0))])}
        results[name]["memory"] = memory
    return results


def measure_default():
    """Seconds of a default fit of a real table, and its held-out score, in nats per row."""
    from skvae import VAEEstimator

    train, test = real_table()
    vae = VAEEstimator(random_state=0)
    seconds = timed(lambda: vae.fit(train))
    return {"seconds": seconds, "score": vae.score(test), "epochs": vae.n_iter_, "shape": train.shape}


def real_table():
    """Numeric columns of Adult, its training and its test rows; of breast_cancer if there is no SKVAE_DATA."""
    import pandas as pd
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    if "SKVAE_DATA" not in os.environ:
        return train_test_split(load_breast_cancer().data, random_state=0)
    table = pd.read_csv(Path(os.environ["SKVAE_DATA"]) / "adult" / "adult.csv.gz")
    numbers = table.select_dtypes("number").to_numpy(dtype=float)
    training = (table["split"] == "train").to_numpy()
    return numbers[training], numbers[~training]


def timed(call):
    """Seconds of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


MEASURES = {"fit": measure_fit, "methods": measure_methods, "default": measure_default}


# ------------------------------------------------------------------------------------------------------------ tables


def point(measure, **arguments):
    """A measure taken in a process of its own."""
    print(measure, arguments, file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--point", json.dumps([measure, arguments])]
    done = subprocess.run(command, env=os.environ | thread_limits(1), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{measure} {arguments}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def fit_row(label, rows, columns, **arguments):
    """A row of the table of fits."""
    answer = point("fit", rows=rows, columns=columns, **arguments)
    batch = arguments.get("batch_size", 128)
    steps = EPOCHS * -(-int(0.9 * rows) // batch)
    return [
        label,
        f"{answer['seconds']:.2f}",
        f"{1e6 * answer['seconds'] / (EPOCHS * rows):.2f}",
        f"{1e6 * answer['seconds'] / steps:.0f}",
        f"{answer['memory'] / MIB:.0f}",
        f"{answer['memory'] / (4 * rows * columns):.2f}",
    ]


def fit_table(quick):
    """Fits against rows, columns and batch size."""
    rows, columns, batches = (sizes[:-1] if quick else sizes for sizes in (ROWS, COLUMNS, BATCHES))
    lines = [fit_row(f"{n:,} rows x 32", n, 32) for n in rows]
    lines += [fit_row("100,000 rows x 32, float64", 100_000, 32, dtype="float64")]
    lines += [fit_row(f"10,000 rows x {d:,}", 10_000, d) for d in columns]
    lines += [fit_row(f"100,000 rows x 32, batch {b:,}", 100_000, 32, batch_size=b) for b in batches]
    head = ["", "s", "µs per row and epoch", "µs per step", "MiB", "times the float32 matrix"]
    return markdown(head, lines)


def methods_table(quick):
    """Microseconds per row, and memory, of what a fitted model does."""
    lines = []
    for rows in ROWS[:-1] if quick else ROWS:
        answer = point("methods", rows=rows, columns=32, score_rows=10_000 if quick else 100_000)
        cells = (answer.get(name) for name in ("transform", "sample", "score_samples"))
        lines.append([f"{rows:,} rows x 32", *(method_cell(cell, rows) for cell in cells)])
    return markdown(["", "transform", "sample", "score_samples"], lines)


def method_cell(answer, rows):
    """Microseconds per row and MiB."""
    if answer is None:
        return ""
    return f"{1e6 * answer['seconds'] / rows:.2f} ({answer['memory'] / MIB:.0f} MiB)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the largest sizes out")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        name, arguments = json.loads(options.point)
        print(json.dumps(MEASURES[name](**arguments)))
        return
    default = point("default")
    n, d = default["shape"]
    table = "Adult's numeric columns" if "SKVAE_DATA" in os.environ else "breast_cancer"
    body = [
        "## Time and memory against the size of the table",
        machine() + " One thread, and a process for every line.",
        f"The default `VAEEstimator().fit` on {table}, {n:,} rows x {d} columns: {default['seconds']:.1f} s, "
        f"{default['epochs']} epochs, {default['score']:.2f} nats per held-out row.",
        f"`fit` for {EPOCHS} epochs, defaults otherwise (a tenth of the rows is held out and looked at). Memory is "
        "what the process needed at its peak beyond what it held with the data in it.",
        fit_table(options.quick),
        "A fitted model, microseconds per row and peak memory beyond the data, what is returned included; "
        "`score_samples` with 16 to 256 draws per row:",
        methods_table(options.quick),
    ]
    write_section("scaling", "\n\n".join(body))


if __name__ == "__main__":
    main()
