"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
    """A name to write to: the file takes the place of `path` at the end, and is gone after an error.

    Parameters
    ----------
    path : str or path-like
        If it is a link, what it points to is replaced.

    Yields
    ------
    scratch : str
        In the folder of `path`.
    """
    target = os.path.realpath(path)
    scratch = f"{target}.{secrets.token_hex(8)}.part"

    try:
        yield scratch

        # on the disk before it has its name
        with open(scratch, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(scratch, target)
    except BaseException:
        if os.path.exists(scratch):
            os.remove(scratch)
        raise
