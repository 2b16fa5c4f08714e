"""What to draw z from: latent densities compared by the rows that come of them.

Run ``python tests/benchmarks/bench_latent.py --help``. One model is fitted per table and seed, and one on half of the training
rows; z is then drawn from each density, and rows from p(x | z). One line of JSON per density goes to ``--output``; the
printed table of means over the seeds has

log p(x)
    Mean log-likelihood of 1,000 test rows under the decoder and that density, nats per row.
shape %, trend %, boosted, nearer %
    As in bench_tables.py.
fit s
    Seconds to fit the density, beside the model.

Densities: those of skvae; ``flow``, an autoregressive density of z (mixtures of normals, trained by the same loop); ``moments
of z`` and ``mean of means``, normals with the mean and deviation, unit by unit, of the drawn z, and with the mean of z_mean
and the mean of exp(z_log_sigma); ``prior, mapped``, rows from the prior whose numbers are then mapped, column by column and
rank by rank, to those of the training rows.
"""

import argparse
import dataclasses
import time
import warnings

import numpy as np
import pandas as pd
import quality
import tables
import torch
from bench_tables import coded
from records import mean_text, print_rows, recorder

from skvae import VAEEstimator
from skvae.model.latent import LATENT_DENSITIES, Mixture

warnings.simplefilter("ignore")

# ------------------------------------------------------------------------------------------------------------ candidates


def diagonal(mean, deviation):
    """The normal with these means and deviations, unit by unit, as a `Mixture` of one."""
    return Mixture(np.ones(1), mean[None].astype(np.float64), np.diag(deviation)[None].astype(np.float64))


class MomentsOfDraws:
    """The mean and the deviation of the drawn z."""

    @staticmethod
    def fit(z_mean, z_std, weight=None, seed=0):
        """A `Mixture`."""
        z = z_mean + z_std * np.random.default_rng(seed).standard_normal(z_mean.shape)
        return diagonal(z.mean(0), z.std(0))


class MeanOfMeans:
    """The mean of z_mean and the mean of exp(z_log_sigma)."""

    @staticmethod
    def fit(z_mean, z_std, weight=None, seed=0):
        """A `Mixture`."""
        return diagonal(z_mean.mean(0), z_std.mean(0))


class Flow:
    """An autoregressive density of z."""

    def __init__(self, model):
        self.model = model

    @classmethod
    def fit(cls, z_mean, z_std, weight=None, seed=0):
        """Trained on one draw per posterior."""
        z = z_mean + z_std * np.random.default_rng(seed).standard_normal(z_mean.shape).astype(np.float32)
        settings = {"hidden_layer_sizes": (64, 64), "decoder": "autoregressive", "likelihood": "normal"}
        max_iter = max(1, 3000 * 128 // len(z))
        return cls(VAEEstimator(1, **settings, max_iter=max_iter, random_state=seed).fit(z.astype(np.float64)))

    def sample(self, n_samples, generator, dtype=torch.float32):
        """Draws, tensor of shape (n_samples, latent_dim)."""
        return torch.from_numpy(np.asarray(self.model.sample(n_samples, random_state=generator.initial_seed()))).to(
            dtype
        )

    def log_prob(self, z):
        """Log density, shape (...,)."""
        scores = self.model.score_samples(z.flatten(0, -2).double().cpu().numpy(), n_draws=4)
        return torch.from_numpy(scores).to(z).view(z.shape[:-1])


CANDIDATES = {
    **LATENT_DENSITIES,
    "flow": Flow,
    "moments of z": MomentsOfDraws,
    "mean of means": MeanOfMeans,
}
EXTRA = ("prior, mapped",)
ROWS_TO_SCORE = 1000  # an aggregated posterior has 10,000 components for each of 32 draws


# --------------------------------------------------------------------------------------------------------------- figures


def mapped(train, frame, numbers):
    """`frame` with its numbers mapped, rank by rank, to the quantiles of the training rows."""
    frame = frame.copy()
    for column in numbers:
        known = frame[column].notna()
        ranks = frame.loc[known, column].rank(method="first").to_numpy()
        values = np.sort(train[column].dropna().to_numpy())
        places = ((ranks - 0.5) / known.sum() * len(values)).astype(int)
        frame[column] = pd.Series(values[places], index=frame.index[known]).reindex(frame.index)
    return frame


def score(vae, density, X):
    """Mean log-likelihood of rows under the decoder of `vae` and a latent density, nats per row."""
    fitted = dataclasses.replace(vae._fitted, density_name="candidate", densities={"candidate": density})
    return float(fitted.log_likelihood(vae._read(X), n_draws=32, seed=0).mean())


def draw(vae, density, n, seed):
    """Rows from p(x | z), z from the density."""
    generator = torch.Generator().manual_seed(seed)
    return vae._fitted.decode(density.sample(n, generator), generator)


def figures(table, halves, fits, densities, name, seed):
    """Scores of the rows that one latent density makes; `fits` and `densities` for all rows and for the first half."""
    frames = [
        draw(vae, p, n, seed) for vae, p, n in zip(fits, densities, map(len, (table.train, halves[0])), strict=True)
    ]
    if name == "prior, mapped":
        learnt = table.train, halves[0]
        frames = [mapped(rows, frame, table.numbers) for rows, frame in zip(learnt, frames, strict=True)]
    train, _, synthetic = coded(table, frames[0])
    near = quality.code_tables([*halves, frames[1]], table.numbers, table.categories)
    return {
        "log_likelihood": None if name == "prior, mapped" else score(fits[0], densities[0], table.test[:ROWS_TO_SCORE]),
        "shape": quality.shape_error(train, synthetic),
        "trend": quality.trend_error(train, synthetic),
        "detection_boosted": quality.detection(train, synthetic, seed)[1],
        "nearer": quality.nearer_share(*near, seed),
    }


def run(table, names, seed, emit):
    """Emit one record per density."""
    order = np.random.default_rng(seed).permutation(len(table.train))
    halves = [table.train.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2)]
    learnt = table.train, halves[0]
    fits = [VAEEstimator(handle_unknown="ignore", random_state=seed).fit(rows) for rows in learnt]
    for name in names:
        record = {"table": table.name, "density": name, "seed": seed}
        start = time.perf_counter()
        kind = LATENT_DENSITIES["prior"] if name == "prior, mapped" else CANDIDATES[name]
        densities = [kind.fit(*vae._fitted.latents, seed=seed) for vae in fits]
        seconds = (time.perf_counter() - start) / 2
        emit(record | {"fit_seconds": seconds} | figures(table, halves, fits, densities, name, seed))


def print_densities(records):
    """One row per table and density, means over the seeds."""
    columns = {
        "log p(x)": ("log_likelihood", 1, 3),
        "shape %": ("shape", 100, 2),
        "trend %": ("trend", 100, 2),
        "boosted": ("detection_boosted", 1, 3),
        "nearer %": ("nearer", 100, 1),
        "fit s": ("fit_seconds", 1, 1),
    }
    rows = []
    for table, name in dict.fromkeys((r["table"], r["density"]) for r in records):
        chosen = [r for r in records if (r["table"], r["density"]) == (table, name)]
        rows.append([table, name, *[mean_text(chosen, *column) for column in columns.values()]])
    print_rows(["table", "density", *columns], rows)


def main():
    names = [*CANDIDATES, *EXTRA]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=["adult", "default_credit", "online_shoppers", "magic"])
    parser.add_argument("--densities", nargs="*", default=names, choices=names)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--output", default=None, help="file the JSON lines are appended to")
    arguments = parser.parse_args()
    records, emit = recorder(arguments.output)
    for name in arguments.tables:
        table = tables.load_table(name)
        for seed in arguments.seeds:
            run(table, arguments.densities, seed, emit)
    print()
    print_densities(records)


if __name__ == "__main__":
    main()
