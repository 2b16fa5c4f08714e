"""How many threads torch and numpy use, for a while."""

import contextlib
import functools

import torch
from threadpoolctl import ThreadpoolController


@contextlib.contextmanager
def at_most(n_threads):
    """Let torch use no more than `n_threads`; the former count is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(n_threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_blas_thread():
    """A context in which numpy's products use one thread: theirs are small, and must not depend on a setting."""
    return _openblas().limit(limits=1)


@functools.cache
def _openblas():
    return ThreadpoolController().select(internal_api="openblas")  # finding it takes milliseconds
