"""Fits to streams: memory and time of millions of rows, and the quality of a sample beside that of the table.

``--rows 20_000_000`` writes a Parquet table of 20 columns to a temporary folder, chunk by chunk, and fits it in a process of
its own, whose largest resident memory is told. Then samples of a simulated table are compared with all of it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skvae import VAEEstimator, stream

CHUNK = 500_000

FIT = """
import resource, sys, time
from skvae import VAEEstimator, stream
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
start = time.perf_counter()
vae = stream.fit(VAEEstimator(random_state=0), sys.argv[1], random_state=0)
took = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"fit: {took:.0f} s, largest resident memory {peak:.2f} GiB ({before:.2f} GiB after the imports), {vae.n_iter_} epochs")
start = time.perf_counter()
stream.sample(vae, 1_000_000, sys.argv[1] + "/../new.parquet", random_state=0)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"sample of 1,000,000 rows: {time.perf_counter() - start:.0f} s, {peak:.2f} GiB")
"""


def rows(n, seed):
    """A table of 20 columns with four hidden causes: ten numbers, four counts, six categories."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 4)).astype(np.float32)
    mixing = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    signal = hidden @ mixing + 0.5 * rng.normal(size=(n, 20)).astype(np.float32)
    columns = {}
    for j in range(10):
        columns[f"number {j}"] = np.exp(signal[:, j] / 2) if j % 2 else signal[:, j]
    for j in range(10, 14):
        columns[f"count {j}"] = rng.poisson(np.exp(np.clip(signal[:, j] / 2, -3, 3)))
    for j in range(14, 20):
        levels = np.array([f"level {k}" for k in range(3 + j)])
        columns[f"kind {j}"] = levels[np.clip((signal[:, j] + 3) * (3 + j) / 6, 0, 2 + j).astype(int)]
    return pa.table(columns)


def main():
    """Write the table, fit it, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows"
        table.mkdir()
        for i, start in enumerate(range(0, arguments.rows, CHUNK)):
            pq.write_table(rows(min(CHUNK, arguments.rows - start), i), table / f"part-{i:03}.parquet")
        size = sum(path.stat().st_size for path in table.iterdir()) / 2**30
        print(f"{arguments.rows:,} rows, {size:.2f} GiB of Parquet", flush=True)
        subprocess.run([sys.executable, "-c", FIT, str(table)], check=True)

    # the same number of steps, on all of a table and on samples of it
    whole, held_out = rows(200_000, 1), rows(20_000, 2)
    for seed in range(3):
        scores = []
        times = []
        for n_rows in (200_000, 50_000):
            start = time.perf_counter()
            vae = VAEEstimator(random_state=seed)
            stream.fit(vae, _tables(whole), n_rows=n_rows, random_state=seed)
            times.append(time.perf_counter() - start)
            scores.append(vae.score(held_out.slice(0, 5000)))
        print(
            f"seed {seed}: all rows {scores[0]:.3f} nats in {times[0]:.0f} s, a quarter {scores[1]:.3f} in {times[1]:.0f} s"
        )


def _tables(table):
    for start in range(0, table.num_rows, 65_536):
        yield table.slice(start, 65_536)


if __name__ == "__main__":
    main()
