"""Held-out log-likelihood against wall time: how many gradient steps, in batches of what size, at which rate.

    python tests/benchmarks/bench_budget.py [--quick] [--seeds N]

Tables of about 150, 1,500, 15,000 and 150,000 rows: wine and digits from scikit-learn, magic below the folder in the
environment variable SKVAE_DATA (else diabetes), and rows simulated from a curved latent model. Their values are dequantised
by one recording step and standardised. A fifth of the rows is held out. Prints its table and writes it to
docs/benchmarks.md; asserts nothing.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from bench_training import machine, markdown, write_section
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.model_selection import train_test_split
from tables import dequantised

from skvae import VAEEstimator

# steps, batch size, learning rate; the first line is what the defaults do
SETTINGS = [
    (6000, 128, 5e-3),
    (1500, 128, 5e-3),
    (3000, 128, 5e-3),
    (12000, 128, 5e-3),
    (6000, 32, 5e-3),
    (3000, 256, 5e-3),
    (1500, 512, 5e-3),
    (6000, 128, 1e-3),
    (6000, 128, 1e-2),
]


def simulated(n_rows, seed=0):
    """Rows of 12 numbers on a curved sheet of 3 dimensions, with noise that depends on the place."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, 3))
    features = np.column_stack([z, z**2, np.sin(2 * z), z[:, :1] * z[:, 1:]])
    noise = np.exp(-1.5 + 0.5 * z[:, :1])
    return features @ rng.normal(size=(features.shape[1], 12)) + noise * rng.normal(size=(n_rows, 12))


def magic():
    """Numbers of the magic table, or of diabetes where SKVAE_DATA is not set."""
    if "SKVAE_DATA" not in os.environ:
        return load_diabetes().data
    import pandas as pd

    return pd.read_csv(Path(os.environ["SKVAE_DATA"]) / "magic" / "magic.csv.gz").select_dtypes("number").to_numpy()


def tables():
    """The tables by name, arrays of shape (n_samples, n_features), standardised."""
    digits = load_digits().data
    raw = {
        "wine": load_wine().data,
        "digits": digits[:, digits.std(axis=0) > 0.3],
        "magic": magic(),
        "simulated": simulated(150_000),
    }
    spread = {name: dequantised(X) for name, X in raw.items()}
    return {name: (X - X.mean(axis=0)) / X.std(axis=0) for name, X in spread.items()}


def run(X, setting, seed):
    """Held-out nats per row, and the seconds of the fit."""
    steps, batch_size, rate = setting
    train, test = train_test_split(X, test_size=0.2, random_state=seed)
    epochs = math.ceil(steps / math.ceil(0.9 * len(train) / batch_size))
    vae = VAEEstimator(batch_size=batch_size, learning_rate_init=rate, max_iter=epochs, random_state=seed)
    start = time.perf_counter()
    vae.fit(train)
    return vae.score(test[:2000]), time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first three settings only")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = tables()
    rows = []
    for setting in SETTINGS[:3] if options.quick else SETTINGS:
        cells = []
        for X in data.values():
            scores, seconds = np.transpose([run(X, setting, seed) for seed in range(options.seeds)])
            cells.append(f"{np.mean(scores):.2f} ({np.median(seconds):.1f} s)")
        rows.append([f"{setting[0]:,}", str(setting[1]), f"{setting[2]:g}", *cells])
        print(rows[-1], flush=True)
    head = ["steps", "batch", "learning rate", *(f"{name}, {len(X):,} rows" for name, X in data.items())]
    write_section(
        "budget",
        "## Budget\n\n"
        f"{machine()} One thread. Held-out nats per row (seconds of the fit), mean over {options.seeds} seeds, on "
        "standardised and dequantised numbers; early stopping as by default. The first line is the default.\n\n"
        + markdown(head, rows),
    )


if __name__ == "__main__":
    main()
