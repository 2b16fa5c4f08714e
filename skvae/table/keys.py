"""Keys of rows: their pattern, and new ones that follow it."""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DIGITS = re.compile(r"[0-9]+")

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Keys:
    """Keys that go on after those of the training rows.

    Attributes
    ----------
    form : {"integers", "texts", "uuids"}
        Integers; texts that differ in a number; or UUIDs in small letters.
    last, step : int
        The largest number, and the largest step between all numbers. Of UUIDs, a number that no training key has.
    prefix, suffix : str
        What stands around the number of a text.
    width : int
        Digits of the number of a text, zeros in front included; 0 if they are as many as the number takes.
    """

    form: str
    last: int
    step: int = 1
    prefix: str = ""
    suffix: str = ""
    width: int = 0

    @classmethod
    def of_integers(cls, numbers: Sequence[int]) -> Keys:
        """Keys after distinct integers, at least one."""
        last = max(numbers)
        step = math.gcd(*(last - number for number in numbers))
        return cls("integers", last, step or 1)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Keys | None:
        """Keys after distinct texts, at least one; None if they follow no pattern."""
        if all(map(UUID.fullmatch, texts)):
            largest = hashlib.sha256("".join(sorted(texts)).encode()).digest()
            return cls("uuids", int.from_bytes(largest[:8], "big"))

        # what all texts begin and end with, up to the number in which they differ
        prefix = re.sub(r"\d+$", "", _common_prefix(texts))
        rest = [text[len(prefix) :] for text in texts]
        backwards = re.sub(r"\d+$", "", _common_prefix([text[::-1] for text in rest]))
        suffix = backwards[::-1]

        numbers = [text[: len(text) - len(suffix)] for text in rest]
        if not all(map(DIGITS.fullmatch, numbers)):
            return None
        widths = set(map(len, numbers))
        has_zeros = any(map(re.compile("0.").match, numbers))
        if has_zeros and len(widths) > 1:
            return None

        whole = cls.of_integers(list(map(int, numbers)))
        width = widths.pop() if len(widths) == 1 else 0
        return cls("texts", whole.last, whole.step, prefix, suffix, width)

    def new(self, n: int) -> np.ndarray:
        """n keys that no training row has, all different; ndarray of int or object of shape (n,)."""
        if self.form == "integers":
            return self.last + self.step * np.arange(1, n + 1)

        texts = np.empty(n, dtype=object)
        for i in range(n):
            texts[i] = self._text(i)
        return texts

    def _text(self, i: int) -> str:
        if self.form == "uuids":
            return _uuid(self.last, i)

        number = self.last + self.step * (i + 1)
        return f"{self.prefix}{number:0{self.width}d}{self.suffix}"


def _common_prefix(texts: Sequence[str]) -> str:
    # what the first and the last one begin with, all between them begin with
    first, last = min(texts), max(texts)
    for i, letter in enumerate(first):
        if letter != last[i : i + 1]:
            return first[:i]
    return first


def _uuid(seed: int, i: int) -> str:
    """A UUID of version 4 whose bits follow from two numbers."""
    digest = hashlib.sha256(f"{seed} {i}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
