"""
One model, fitted by several processes
======================================

Run it alone::

    python examples/distributed_fit.py

and by two processes, each of which has half of the rows::

    OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node 2 examples/distributed_fit.py

Both print the same held-out score, up to the noise of a seed: the processes take the gradient steps of one, each on its part
of every batch. On several machines the same line has ``--nnodes`` and ``--rdzv-endpoint``.
"""

import os

import numpy as np
import pandas as pd

from skvae import VAEEstimator, distributed


def rides(n, seed):
    """A table of taxi rides."""
    rng = np.random.default_rng(seed)
    km = rng.gamma(2.0, 2.5, n)
    night = rng.uniform(size=n) < 0.25
    minutes = km * rng.normal(2.4, 0.3, n) * np.where(night, 0.7, 1.0) + 4
    by_card = rng.uniform(size=n) < 0.5 + 0.4 * (km > 5)
    fare = 3.0 + 1.9 * km + 0.35 * minutes + 2.5 * night + rng.normal(0, 0.5, n)
    tip = fare * np.where(by_card, rng.beta(3, 20, n), 0.0)
    return pd.DataFrame(
        {
            "km": km,
            "minutes": minutes,
            "night": night,
            "paid by": np.where(by_card, "card", "cash"),
            "fare": fare,
            "tip": tip,
        }
    )


# torchrun says which of how many processes this one is
rank = int(os.environ.get("RANK", 0))
n_ranks = int(os.environ.get("WORLD_SIZE", 1))

# its shard: here every other row, elsewhere the files that it reads
shard = rides(40_000, seed=0)[rank::n_ranks]

vae = VAEEstimator(latent_dim=4, random_state=0)
distributed.fit(vae, shard)

# every process has the same model now
if rank == 0:
    held_out = rides(10_000, seed=1)
    print(f"{n_ranks} process(es), {vae.n_iter_} epochs: held-out score {vae.score(held_out):.3f} nats per row")
