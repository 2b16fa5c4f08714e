"""PyOD: its VAE detector with the benchmark's layers, no dropout (squared error, that is, unit noise)."""

import torch
from pyod.models.vae import VAE
from worker import serve


def prepare(job, x):
    torch.set_num_threads(job["threads"])

    def fit(tick):
        detector = VAE(
            lr=job["rate"],
            epoch_num=job["epochs"],
            batch_size=job["batch"],
            encoder_neuron_list=job["hidden"],
            decoder_neuron_list=job["hidden"][::-1],
            latent_dim=job["latent"],
            dropout_rate=0.0,
            device="cpu",
            verbose=0,
        )
        detector.epoch_update = tick  # its hook after each epoch
        detector.fit(x)

    return fit


serve(prepare, "pyod")
