"""Rows of small tables by the default and by what larger tables get: `skvae.evaluate`, and what comes back of held-out rows.

    python tests/benchmarks/bench_small.py

Tables of scikit-learn of some hundred rows, three splits each, with the seed of the split.
"""

import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split

import skvae
from skvae.metrics import reconstruction_score

TABLES = {
    "wine": lambda: load_wine(as_frame=True).frame,
    "diabetes": lambda: load_diabetes(as_frame=True, scaled=False).frame,
    "breast cancer": lambda: load_breast_cancer(as_frame=True).frame.iloc[:, [*range(10), 30]],
}
MODELS = {
    "default": {},
    "quantile_normal": {"likelihood": "quantile_normal"},
    "quantile_normal, autoregressive": {"likelihood": "quantile_normal", "decoder": "autoregressive"},
}
FIGURES = ("shape", "trend", "utility", "detection (boosted)", "nearer")


def main():
    """Print a table of means over the splits."""
    warnings.simplefilter("ignore")
    print(f"| | training rows | {' | '.join(FIGURES)} | reconstruction |\n|---|---|{'---|' * (len(FIGURES) + 1)}")

    for table, load in TABLES.items():
        X = load()
        for model, parameters in MODELS.items():
            figures = []
            for seed in range(3):
                train, test = train_test_split(X, random_state=seed)
                vae = skvae.VAEEstimator(random_state=seed, **parameters).fit(train)
                new = vae.sample(len(train), random_state=seed)
                evaluation = skvae.evaluate(train, new, test, target="target")
                figures.append([*(evaluation[name] for name in FIGURES), reconstruction_score(vae, test)])
            cells = " | ".join(f"{figure:.3f}" for figure in np.mean(figures, axis=0))
            print(f"| {table}, {model} | {len(train)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
