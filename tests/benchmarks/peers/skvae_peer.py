"""skvae: the training loop on the built-in network, or (with the argument ``estimator``) ``VAEEstimator.fit``."""

import sys

import numpy as np
import torch
from worker import serve

from skvae import VAEEstimator
from skvae.engine.training import train
from skvae.model.network import build_vae
from skvae.table.layout import Layout


def prepare_loop(job, x):
    torch.set_num_threads(job["threads"])
    d = job["columns"]
    layout = Layout(kinds=(("normal", d),), rank=tuple(range(d)), gate=(-1,) * d)
    data = torch.from_numpy(x)

    def fit(tick):
        vae = build_vae(
            layout,
            np.zeros(d, dtype=np.float32),
            latent_dim=job["latent"],
            hidden_layer_sizes=job["hidden"],
            activation="relu",
            encoder=None,
            decoder="factorized",
            seed=0,
        )
        train(
            vae,
            data,
            n_epochs=job["epochs"],
            batch_size=job["batch"],
            learning_rate=job["rate"],
            beta=1.0,
            penalty=0.0,
            generator=torch.Generator().manual_seed(0),
            on_epoch=lambda epoch, history: tick(),
        )

    return fit


def prepare_estimator(job, x):
    torch.set_num_threads(job["threads"])
    vae = VAEEstimator(
        latent_dim=job["latent"],
        hidden_layer_sizes=job["hidden"],
        activation="relu",
        likelihood="normal",
        decoder="factorized",
        batch_size=job["batch"],
        learning_rate_init=job["rate"],
        max_iter=job["epochs"],
        early_stopping=False,
        random_state=0,
    )
    return lambda tick: vae.fit(x)


serve(prepare_estimator if "estimator" in sys.argv else prepare_loop, "skvae")
