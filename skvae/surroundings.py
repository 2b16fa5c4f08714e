"""What the caller has told torch about all of its work, and where memory ends: neither makes a model another one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch's errors say when memory ends."""


def undisturbed(call: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that torch's default device and autocast do not reach into it.

    Parameters
    ----------
    call : callable
        If memory ends in it, a MemoryError says what takes less.

    Returns
    -------
    alone : callable
    """

    @functools.wraps(call)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            # both cost time at every call of torch
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))

            try:
                return call(*args, **kwargs)
            except RuntimeError as error:
                if not any(words in str(error) for words in NO_MEMORY):
                    raise
                raise MemoryError(
                    f"There is not enough memory for this ({str(error).splitlines()[0]}). Work through fewer rows at a time, "
                    f"or take narrower hidden layers."
                ) from error

    return alone
