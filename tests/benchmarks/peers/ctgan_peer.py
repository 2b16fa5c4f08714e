"""CTGAN's TVAE with the benchmark's hidden layers and latent units, on its own wider encoding of the columns.

For the step, the encoding (a Gaussian mixture per column) is done once beforehand; a whole fit includes it.
"""

import pandas as pd
import torch
from ctgan.synthesizers import tvae
from worker import serve


def ticking(tick):
    """A stand-in for the progress bar around the epochs, which reports the end of each."""

    def bar(epochs, **kwargs):
        for epoch in epochs:
            yield epoch
            tick()

    return bar


class Ready:
    """A fitted encoding that does not fit again, and hands out what it encoded."""

    def __init__(self, table):
        self.own = tvae_transformer()
        self.own.fit(table)
        self.encoded = self.own.transform(table)
        self.output_dimensions, self.output_info_list = self.own.output_dimensions, self.own.output_info_list

    def fit(self, table, discrete_columns):
        """Done already."""

    def transform(self, table):
        return self.encoded


tvae_transformer = tvae.DataTransformer


def prepare(job, x):
    torch.set_num_threads(job["threads"])
    table = pd.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])])
    ready = None if job["whole"] else Ready(table)

    def fit(tick):
        tvae.tqdm = ticking(tick)
        tvae.DataTransformer = tvae_transformer if ready is None else lambda: ready
        tvae.TVAE(
            embedding_dim=job["latent"],
            compress_dims=job["hidden"],
            decompress_dims=job["hidden"][::-1],
            batch_size=job["batch"],
            epochs=job["epochs"],
            enable_gpu=False,
        ).fit(table)

    return fit


serve(prepare, "ctgan")
