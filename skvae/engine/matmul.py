"""Matrix products into buffers made once, each by the library at hand that is the quickest at its size.

torch's own product (MKL on x86) costs more per call than numpy's, and does not use AVX-512 on every processor that has it;
oneDNN, which torch brings along, does. Which one is used depends on the processor, the build and the size, never on a timing,
so that equal fits stay equal.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch

LARGE = 2**21
"""Products of this many multiplications, or more, are worth oneDNN's cost per call, and torch's threads."""

_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
)

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

    if is_large and _ONEDNN and on_cpu and a.dtype == torch.float32:
        return functools.partial(_by_onednn, a, b, out)
    if not is_large and _OPENBLAS and on_cpu and out.is_contiguous():
        return functools.partial(np.dot, a.numpy(), b.numpy(), out.numpy())

    return functools.partial(torch.mm, a, b, out=out)


def _by_onednn(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b).t(), None, "none", [], ""))


def _dense(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix, or a copy without gaps in memory: with gaps, oneDNN falls back to loops a thousand times as slow."""
    if matrix.is_contiguous() or matrix.t().is_contiguous():
        return matrix

    return matrix.t().contiguous().t()
