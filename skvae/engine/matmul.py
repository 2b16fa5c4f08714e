"""Matrix products into buffers made once, each by the library at hand that is the quickest at its size.

numpy's product (OpenBLAS) costs half of torch's (MKL on x86) per call, and computes as fast. torch's may use several
threads. Which one is used depends on the build and the size, never on a timing, so that equal fits stay equal.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch

Calls = list[Callable[[], object]]
"""Calls without arguments, to be made one after the other."""

LARGE = 2**21
"""Products of this many multiplications, or more, gain from torch's threads, and lose nothing to its calls without them."""

# as in wheels from PyPI
_OPENBLAS = "openblas" in np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]


def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    """A function without arguments that overwrites `out` by the matrix product of `a` and `b`, wherever they are.

    Parameters
    ----------
    a : tensor of shape (m, k)
    b : tensor of shape (k, n)
    out : tensor of shape (m, n)
        None of the three may move in memory afterwards.

    Returns
    -------
    multiply : callable
        To be called within a function that is `skvae.threads.on_one_thread`, and `numpy.errstate` if an overflow is no matter
        for a warning.
    """
    # numpy writes to rows that lie one after the other
    if not out.is_contiguous() and out.t().is_contiguous():
        return product(b.t(), a.t(), out.t())

    on_cpu = a.device.type == "cpu"
    is_large = a.shape[0] * a.shape[1] * b.shape[1] >= LARGE

    if on_cpu and _OPENBLAS and not is_large and out.is_contiguous():
        return functools.partial(np.dot, a.numpy(), b.numpy(), out.numpy())

    return functools.partial(torch.mm, a, b, out=out)
