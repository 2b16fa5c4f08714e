"""The floor: the matrix products of a training step alone, forward and backward, into buffers made once.

Activations are stored row by row or unit by row: whichever layout is the faster in a trial beforehand.
"""

import time
from itertools import pairwise

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


def seconds(triples, repeats):
    begin = time.perf_counter()
    for _ in range(repeats):
        for a, b, out in triples:
            torch.mm(a, b, out=out)
    return time.perf_counter() - begin


def prepare(job, x):
    torch.set_num_threads(job["threads"])
    encoder, decoder = layer_sizes(job)
    layouts = [
        products(encoder, job["batch"], False, by_unit) + products(decoder, job["batch"], True, by_unit)
        for by_unit in (False, True)
    ]
    n_steps = job["rows"] // job["batch"]
    for triples in layouts:
        seconds(triples, 3)
    trial = [min(seconds(triples, n_steps) for _ in range(5)) for triples in layouts]
    faster = layouts[trial[1] < trial[0]]

    def fit(tick):
        for _ in range(job["epochs"]):
            seconds(faster, n_steps)
            tick()

    return fit


serve(prepare, "torch")
