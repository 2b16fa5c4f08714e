"""Mutated model files, loaded in a process of little memory: run by tests/test_persistence.py."""

import copy
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

import skvae
from skvae.persistence import _digest

MEMORY = 2**30
"""Bytes that a load may take beyond what the process has."""

SECONDS = 5.0
"""A load that takes longer counts as one that hangs."""

ODD = [None, True, 0, -1, 2, 10**9, 10**30, 0.5, -1e300, "", "x", "pandas", "os", [], [1], {}, {"type": "dict"}, [[[]]]]


def read(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return metadata, arrays


def damaged(data, rng):
    """The bytes of a file, some of which are changed, lost or doubled."""
    data = bytearray(data)
    kind = rng.integers(4)
    at = int(rng.integers(len(data)))
    # the header is what a reader trusts
    if rng.random() < 0.5:
        at = int(rng.integers(min(len(data), 400)))

    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + int(rng.integers(1, 50))]
    else:
        data[at:at] = rng.bytes(int(rng.integers(1, 50)))
    return bytes(data)


def places(value, path=()):
    """Paths to all values in plain data."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from places(value[i], (*path, i))


def forged(metadata, arrays, rng):
    """A file with a right checksum whose facts or arrays are others."""
    facts = json.loads(metadata["model"])
    arrays = dict(arrays)

    if rng.random() < 0.6:
        paths = list(places(facts))[1:]
        *path, last = paths[rng.integers(len(paths))]
        value = facts
        for key in path:
            value = value[key]
        if rng.random() < 0.2:
            del value[last]
        else:
            value[last] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    else:
        name = list(arrays)[rng.integers(len(arrays))]
        array = arrays[name]
        changes = [
            lambda: arrays.pop(name),
            lambda: arrays.__setitem__(name, array[None]),
            lambda: arrays.__setitem__(name, np.zeros((*array.shape, 0), array.dtype)),
            lambda: arrays.__setitem__(name, np.full_like(array, np.nan if array.dtype.kind == "f" else 99)),
            lambda: arrays.__setitem__(name, np.concatenate([array.ravel(), array.ravel()])),
            lambda: arrays.__setitem__(name, array.astype(np.int8)),
            lambda: arrays.__setitem__(f"{name}.more", array),
        ]
        changes[rng.integers(len(changes))]()

    text = json.dumps(facts)
    metadata = {**metadata, "model": text, "sha256": _digest(text, arrays)}
    return safetensors.numpy.save(arrays, metadata)


def main(paths, n, seed):
    rng = np.random.default_rng(seed)
    warnings.simplefilter("ignore")
    files = []
    for path in paths:
        skvae.load(path)
        files.append((Path(path).read_bytes(), *read(path)))

    # pandas and all else is loaded by now
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    refused = 0
    target = Path(tempfile.mkdtemp()) / "mutated.safetensors"
    for i in range(n):
        data, metadata, arrays = files[i % len(files)]
        data = damaged(data, rng) if rng.random() < 0.5 else forged(metadata, arrays, rng)
        target.write_bytes(data)

        start = time.monotonic()
        try:
            skvae.load(target)
        except ValueError as error:
            refused += 1
            if str(target) not in str(error):
                raise AssertionError(f"file {i} of seed {seed}") from error
        except Exception as error:
            raise AssertionError(f"file {i} of seed {seed}") from error
        assert time.monotonic() - start < SECONDS, f"file {i} of seed {seed} took {time.monotonic() - start} s"
    print(refused)


if __name__ == "__main__":
    main(sys.argv[3:], int(sys.argv[1]), int(sys.argv[2]))
