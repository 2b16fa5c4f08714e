"""Keras, with the backend named by the argument: two Sequential networks, the loss by ``add_loss``, trained by ``fit``.

For the step, the model is compiled once beforehand; a whole fit includes it.
"""

import math
import os
import sys

os.environ["KERAS_BACKEND"] = sys.argv[1]

import keras
from keras import ops
from worker import layer_sizes, serve


def mlp(sizes):
    """Dense layers with ReLU between them."""
    hidden = [keras.layers.Dense(width, activation="relu") for width in sizes[1:-1]]
    return keras.Sequential([keras.Input((sizes[0],)), *hidden, keras.layers.Dense(sizes[-1])])


class VAE(keras.Model):
    """Encoder, decoder and a learnt noise deviation per column."""

    def __init__(self, job):
        super().__init__()
        encoder_sizes, decoder_sizes = layer_sizes(job)
        self.encoder, self.decoder = mlp(encoder_sizes), mlp(decoder_sizes)
        self.log_std = self.add_weight(shape=(job["columns"],), initializer="zeros", name="log_std")
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        z_mean, z_logvar = ops.split(self.encoder(x), 2, axis=1)
        z = z_mean + ops.exp(0.5 * z_logvar) * keras.random.normal(ops.shape(z_mean), seed=self.seed)
        mean = self.decoder(z)
        residual = (x - mean) * ops.exp(-self.log_std)
        nll = ops.sum(0.5 * residual**2 + self.log_std + 0.5 * math.log(2 * math.pi), axis=1)
        kl = 0.5 * ops.sum(z_mean**2 + ops.exp(z_logvar) - 1 - z_logvar, axis=1)
        self.add_loss(ops.mean(nll + kl))
        return mean


def prepare(job, x):
    if sys.argv[1] == "torch":
        import torch

        torch.set_num_threads(job["threads"])

    def compiled():
        vae = VAE(job)
        vae.compile(optimizer=keras.optimizers.Adam(job["rate"]))
        return vae

    ready = None if job["whole"] else compiled()

    def fit(tick):
        vae = ready or compiled()
        end = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: tick())
        vae.fit(x, batch_size=job["batch"], epochs=job["epochs"], verbose=0, callbacks=[end])

    return fit


serve(prepare, "keras")
