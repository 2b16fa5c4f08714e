"""How many threads torch uses, for a while."""

import contextlib

import torch


@contextlib.contextmanager
def at_most(n_threads):
    """Let torch use no more than `n_threads`; the former count is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(n_threads, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
