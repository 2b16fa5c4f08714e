"""The floor: the matrix products of a training step alone, forward and backward, into buffers made once.

By `torch.mm`, or, with the argument ``numpy``, by `numpy.dot`. Activations are stored row by row or unit by unit: whichever
layout is the faster in a trial beforehand.
"""

import sys
import time
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from worker import layer_sizes, serve


def products(sizes, n, input_needs_gradient, by_unit):
    """Triples (a, b, out) of the products of one network for `n` rows."""
    shapes = [(width, n) if by_unit else (n, width) for width in sizes]
    acts, grads = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    triples = []
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        weight, weight_grad = torch.randn(n_out, n_in), torch.empty(n_out, n_in)
        below, above, grad_below, grad = acts[k], acts[k + 1], grads[k], grads[k + 1]
        triples.append((weight, below, above) if by_unit else (below, weight.t(), above))
        triples.append((grad, below.t(), weight_grad) if by_unit else (grad.t(), below, weight_grad))
        if k > 0 or input_needs_gradient:
            triples.append((weight.t(), grad, grad_below) if by_unit else (grad, weight, grad_below))
    return triples


def call(a, b, out):
    if "numpy" in sys.argv:
        return partial(np.dot, a.numpy(), b.numpy(), out.numpy())
    return partial(torch.mm, a, b, out=out)


def seconds(calls, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        for multiply in calls:
            multiply()
    return time.perf_counter() - begin


def prepare(job, x):
    torch.set_num_threads(job["threads"])
    encoder, decoder = layer_sizes(job)
    layouts = [
        [
            call(*triple)
            for triple in products(encoder, job["batch"], False, by_unit)
            + products(decoder, job["batch"], True, by_unit)
        ]
        for by_unit in (False, True)
    ]
    n_steps = job["rows"] // job["batch"]
    for calls in layouts:
        seconds(calls, 3)
    trial = [min(seconds(calls, n_steps) for _ in range(5)) for calls in layouts]
    faster = layouts[trial[1] < trial[0]]

    def fit(tick):
        for _ in range(job["epochs"]):
            seconds(faster, n_steps)
            tick()

    return fit


serve(prepare, "torch")
