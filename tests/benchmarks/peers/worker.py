"""The side of the training benchmark that runs in a contestant's own interpreter: reads jobs, answers with seconds.

A job is one line of JSON on the standard input::

    {"rows": 5120, "columns": 32, "batch": 128, "epochs": 3, "hidden": [64, 32, 8], "latent": 4, "rate": 0.001,
     "threads": 1, "whole": false, "clock": "wall"}

and its answer one line on the standard output: the seconds of the fit, those of each epoch but the first, how many
cores were busy on average, and the contestant's version. Imports numpy only, so that any interpreter can run it.
"""

import json
import os
import sys
import time
from importlib.metadata import version

import numpy as np

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def make_data(rows, columns, seed=0):
    """Standardised rows of a bent five-dimensional sheet with noise, float32 of shape (rows, columns)."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, 5))
    x = np.tanh(z @ rng.standard_normal((5, columns))) + 0.3 * rng.standard_normal((rows, columns))
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def layer_sizes(job):
    """Widths of the encoder (ending in means and log-variances) and of the decoder, both from input to output."""
    hidden = job["hidden"]
    return [job["columns"], *hidden, 2 * job["latent"]], [job["latent"], *hidden[::-1], job["columns"]]


def serve(prepare, package):
    """Answer jobs until the input ends.

    Parameters
    ----------
    prepare : callable
        ``prepare(job, x)`` does what no fit is charged for, and returns ``fit(tick)``, which trains a network on `x`
        and calls ``tick()`` after each epoch.
    package : str
        The distribution whose version is reported.
    """
    answers = os.fdopen(os.dup(1), "w")  # the contestant may print what it likes: that goes to the standard error
    os.dup2(2, 1)
    fits = {}
    for line in sys.stdin:
        try:
            job = json.loads(line)
            if line not in fits:
                fits[line] = prepare(job, make_data(job["rows"], job["columns"]))
            answer = timed(fits[line], CLOCKS[job["clock"]]) | {"version": version(package)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def timed(fit, clock):
    """Seconds of a call of `fit`, of each of its epochs but the first, and the mean number of busy cores."""
    ticks = []
    begin, wall, cpu = clock(), time.perf_counter(), time.process_time()
    fit(lambda: ticks.append(clock()))
    end, wall, cpu = clock(), time.perf_counter() - wall, time.process_time() - cpu
    return {"fit": end - begin, "epochs": np.diff(ticks).tolist(), "cores": cpu / wall}
