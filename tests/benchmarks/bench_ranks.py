"""Gradient steps per second by the number of ranks on this machine, for small and large batches and networks.

    python tests/benchmarks/bench_ranks.py

Each rank is a process of one thread with its part of the same table. What is told is the time of an epoch, of several that
are taken one after the other, with all settings by turns, and the bytes that each rank gives in a step.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from ranks import Processes

from skvae import VAEEstimator, distributed

N_ROWS = 20_000
N_COLUMNS = 20
N_TURNS = 3
SETTINGS = [(128, (128, 128)), (1024, (128, 128)), (4096, (512, 512))]


class Clock:
    """A callback that keeps the time of each epoch."""

    def setup(self, estimator, context):
        self.times = [time.perf_counter()]

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.times.append(time.perf_counter())


def rows():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(N_ROWS, 4))
    return hidden @ rng.normal(size=(4, N_COLUMNS)) + 0.3 * rng.normal(size=(N_ROWS, N_COLUMNS))


def seconds(rank, n_ranks, batch_size, widths):
    """Seconds of an epoch, and the number of parameters."""
    clock = Clock()
    vae = VAEEstimator(
        8, hidden_layer_sizes=widths, batch_size=batch_size, max_iter=4, early_stopping=False, random_state=0
    )
    if rank == 0:
        vae.set_callbacks(clock)
    distributed.fit(vae, rows()[rank::n_ranks])
    if rank > 0:
        return None
    # the first epoch makes buffers
    return statistics.median(np.diff(clock.times[1:5])), sum(p.numel() for p in vae.module_.parameters())


def main():
    pools = {n: Processes(n) for n in (1, 2, 4)}
    times, sizes = {}, {}
    for _ in range(N_TURNS):
        for setting in SETTINGS:
            for n, pool in pools.items():
                taken, sizes[setting] = pool.together(seconds, n, *setting, joins=n > 1)[0]
                times.setdefault((setting, n), []).append(taken)

    for pool in pools.values():
        pool.pool.shutdown()

    print("| batch | layers | MB a step | ranks | steps/s | rows/s | to one rank |\n|---|---|---|---|---|---|---|")
    for (setting, n), taken in times.items():
        batch_size, widths = setting
        steps = -(-N_ROWS // batch_size)
        median = statistics.median(taken)
        ratio = statistics.median(times[setting, 1]) / median
        print(
            f"| {batch_size} | {widths} | {4e-6 * sizes[setting]:.2f} | {n} | {steps / median:.0f} | "
            f"{N_ROWS / median:.0f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
