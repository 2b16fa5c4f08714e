"""Versions of skvae side by side: each from its own source folder, in a process of its own, asked in turn.

A version is named on the command line by its folder, with parameters of the estimator after a colon where they are not
the defaults::

    . ../before '.:{"max_iter": 300}' 'quick=.:{"batch_size": 256}'

`Version` is the side that asks, `serve` the side that answers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_training import thread_limits
from records import blas_kernel


class Version:
    """A version of the package, and the process that runs it.

    Parameters
    ----------
    text : str
        ``[NAME=]FOLDER[:{"parameter": value, ...}]``.
    script : path
        Script that calls `serve` when it is given the argument ``--serve``.
    """

    def __init__(self, text: str, script: str) -> None:
        place, brace, parameters = text.partition(":{")
        name, equals, folder = place.rpartition("=")
        self.folder = Path(folder).resolve()
        self.parameters = json.loads("{" + parameters) if brace else {}
        self.name = name
        if not equals:
            self.name = " ".join([self.folder.name, *(f"{key}={value}" for key, value in self.parameters.items())])

        if not (self.folder / "skvae" / "__init__.py").exists():
            raise FileNotFoundError(f"Expected a folder that contains skvae/__init__.py, got {self.folder}.")

        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, script, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | thread_limits(1) | {"PYTHONPATH": str(self.folder)},
        )

    def ask(self, **job: object) -> dict:
        """The answer to a job: a record, in which ``failed`` says what went wrong."""
        job = {"folder": str(self.folder), "parameters": self.parameters, **job}
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return {"version": self.name, **job, **(json.loads(line) if line else {"failed": self._last_words()})}

    def _last_words(self) -> str:
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["ended without an answer"])[-1]

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def in_turn(versions: list[Version], turn: int) -> list[Version]:
    """The versions, a different one first at each turn, so that none always runs on the heels of the same other."""
    start = turn % len(versions)
    return versions[start:] + versions[:start]


def serve(measure) -> None:
    """Answer jobs until the input ends: ``measure(**job)`` returns the figures of a record."""
    answers = os.fdopen(os.dup(1), "w")  # what a version prints goes to the standard error
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            check_source(job.pop("folder"))
            answer = measure(**job) | {"blas": blas_kernel()}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


def check_source(folder: str) -> None:
    """Make sure that skvae is the one in the folder."""
    import skvae

    if not Path(skvae.__file__).is_relative_to(folder):
        raise ImportError(f"Expected skvae from {folder}, got {skvae.__file__}.")


def seconds_of(call):
    """What a call returns, its seconds of processor time, and its seconds on the wall."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.process_time() - cpu, time.perf_counter() - wall
