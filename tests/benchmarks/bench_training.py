"""The training step and a whole fit, against other libraries: same network, data, batches and epochs.

    python tests/benchmarks/bench_training.py [--quick] [--clock cpu]

Every contestant is a process of its own that stays alive; each round asks them in turn for one short fit, so that
whatever else the machine does hits all alike. A contestant runs in the virtual environment of its name below the
folder in the environment variable SKVAE_BENCH_VENVS (`make bench-peers` fills `.venv-bench`), or in the present one if
it needs PyTorch only. ``--clock cpu`` counts processor time where there is one thread, which a machine busy with other
work disturbs less. Prints its tables and writes them to docs/benchmarks.md; asserts nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from records import blas_kernel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
VENVS = Path(os.environ.get("SKVAE_BENCH_VENVS", ROOT / ".venv-bench"))


@dataclass
class Contestant:
    """Who takes part, and in what."""

    name: str
    script: str
    arguments: tuple = ()
    venv: str | None = None
    step: bool = True
    wide: bool = False
    fit: bool = True


OURS = "skvae"
CONTESTANTS = [
    Contestant(OURS, "skvae_peer.py", wide=True),
    Contestant("skvae, VAEEstimator.fit", "skvae_peer.py", ("estimator",), step=False),
    Contestant("matrix products alone", "products_peer.py", wide=True, fit=False),
    Contestant("the same by numpy", "products_peer.py", ("numpy",), wide=True, fit=False),
    Contestant("JAX, jit + scan", "jax_peer.py", wide=True, venv="jax"),
    Contestant("PyTorch loop", "loop_peer.py", wide=True),
    Contestant("PyTorch loop, DataLoader", "loop_peer.py", ("dataloader",)),
    Contestant("skorch", "skorch_peer.py", wide=True, venv="skorch"),
    Contestant("pythae", "pythae_peer.py", venv="pythae"),
    Contestant("PyOD VAE", "pyod_peer.py", venv="pyod"),
    Contestant("Keras, torch", "keras_peer.py", ("torch",), venv="keras"),
    Contestant("Keras, jax", "keras_peer.py", ("jax",), venv="keras", wide=True),
    Contestant("CTGAN TVAE", "ctgan_peer.py", venv="ctgan"),
]

SMALL = {"rows": 5120, "columns": 32, "hidden": [64, 32, 8], "latent": 4, "rate": 1e-3, "whole": False}
WIDE = SMALL | {"rows": 1280, "columns": 100, "hidden": [256, 256], "batch": 128, "epochs": 3}
# an epoch of the quickest takes some milliseconds: several of them, so that a process that waited is warm again
STEP_JOBS = {f"batch {batch}": SMALL | {"batch": batch, "epochs": 8} for batch in (32, 128, 512)}
FIT_JOB = SMALL | {"batch": 128, "epochs": 10, "whole": True}

PROSE = """\
One network: {columns} columns, hidden layers of 64, 32 and 8 units with ReLU, {latent} latent units, the mirrored
decoder, a normal likelihood with a learnt noise deviation per column; {rows:,} rows, Adam, float32, one thread each.
All contestants are asked in turn, for several rounds; figures are medians over the rounds, ratios are taken within each
round. {clock}

skvae is its training loop, everything an epoch costs included. "Matrix products alone" is the floor: the products of
the step's forward and backward pass by `torch.mm`, into buffers made once, and nothing else; then by `numpy.dot`. The
PyTorch loop is written as one writes it, and so is the one with a DataLoader; JAX compiles the whole epoch (`jit`
around `scan`), its shuffling and noise drawn by numpy. skorch trains the loop's module. pythae and PyOD train with the
squared error (unit noise), PyOD with its weight decay. TVAE has the same hidden layers but encodes each column by a
Gaussian mixture, so its outer layers are several times as wide; its step leaves that encoding out, its whole fit does
not.
"""

STEP_TITLE = "Microseconds per gradient step, and in brackets how many times skvae's:"
WIDE_TITLE = """\
100 columns, hidden layers of 256 and 256 units, batch 128, with one thread and with two (seconds on the wall).
"""
FIT_TITLE = """\
A whole fit, from the array to the trained model: {rows:,} rows, {epochs} epochs, batch {batch}. The first fit in a
process pays for imports and compilation that happen on use; "later" is the median of the following ones.
"""


# ------------------------------------------------------------------------------------------------------- contestants


@dataclass
class Worker:
    """A contestant's process; `answers` by job, in the order of the rounds."""

    contestant: Contestant
    threads: int
    process: subprocess.Popen | None
    errors: object
    answers: dict = field(default_factory=dict)
    version: str = ""
    problem: str = ""

    def ask(self, label, job):
        """One timed fit."""
        if self.problem:
            return
        self.process.stdin.write(json.dumps(job | {"threads": self.threads}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        self.problem = answer.get("error", "")
        if not self.problem:
            self.version = answer["version"]
            self.answers.setdefault(label, []).append(answer)

    def _last_words(self):
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or ["ended without an answer"])[-1]

    def close(self):
        """End the process."""
        if self.process:
            self.process.stdin.close()
            self.process.wait()


def start(contestant, threads):
    """A worker, with a stated `problem` if the contestant is not there."""
    python = sys.executable if contestant.venv is None else VENVS / contestant.venv / "bin" / "python"
    if not Path(python).exists():
        return Worker(contestant, threads, None, None, problem="not installed")
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the process)
    process = subprocess.Popen(
        [python, HERE / "peers" / contestant.script, *contestant.arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=os.environ | thread_limits(threads),
    )
    return Worker(contestant, threads, process, errors)


def thread_limits(threads):
    """Environment variables that hold BLAS, OpenMP and XLA to a number of threads."""
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC"]
    limits = dict.fromkeys(names, str(threads))
    if threads == 1:
        limits["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return limits | {"PYTHONDONTWRITEBYTECODE": "1"}


def run_rounds(workers, jobs, rounds):
    """Ask every worker for every job, `rounds` times after a first time that does not count."""
    for number in range(rounds + 1):
        for label, job in jobs.items():
            turn = number % len(workers)
            for worker in workers[turn:] + workers[:turn]:
                worker.ask(label, job)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------ tables


def step_seconds(worker, label, job):
    """Seconds per gradient step in each round that counts."""
    steps = job["rows"] // job["batch"]
    return [median(answer["epochs"]) / steps for answer in worker.answers[label][1:]]


def step_cell(worker, ours, label, job):
    """Median in microseconds, and median ratio to skvae."""
    seconds, reference = (step_seconds(each, label, job) for each in (worker, ours))
    ratio = median(a / b for a, b in zip(seconds, reference, strict=True))
    return f"{1e6 * median(seconds):,.0f} ({ratio:.2f})"


def step_rows(workers, jobs):
    """Rows of a table of steps: a contestant and its cells."""
    ours = next(worker for worker in workers if worker.contestant.name == OURS)
    return [
        [who(worker), *(worker.problem or step_cell(worker, ours, label, job) for label, job in jobs.items())]
        for worker in workers
    ]


def fit_rows(workers):
    """Rows of the table of whole fits."""
    ours = next(worker for worker in workers if worker.contestant.name == OURS)
    reference = [answer["fit"] for answer in ours.answers["fit"][1:]]
    rows = []
    for worker in workers:
        if worker.problem:
            rows.append([who(worker), worker.problem, "", ""])
            continue
        first, *later = [answer["fit"] for answer in worker.answers["fit"]]
        ratio = median(a / b for a, b in zip(later, reference, strict=True))
        rows.append([who(worker), f"{first:.2f}", f"{median(later):.3f}", f"{ratio:.2f}"])
    return rows


def who(worker):
    """Name and version."""
    name = worker.contestant.name
    return f"{name} {worker.version}" if worker.contestant.venv and worker.version else name


def markdown(head, rows):
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine():
    """One sentence on where the figures come from."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch {version('torch')}, "
        f"scikit-learn {version('scikit-learn')}, numpy's BLAS on {blas_kernel()} kernels."
    )


def write_section(name, body):
    """Replace a section of docs/benchmarks.md, between its markers, and print it."""
    begin, end = f"<!-- {name}: written by bench_{name}.py -->\n", f"<!-- {name}: end -->\n"
    text = PAGE.read_text() if PAGE.exists() else "# Benchmarks\n"
    section = f"{begin}{body.strip()}\n{end}"
    if begin in text:
        before, rest = text.split(begin)
        text = before + section + rest.split(end)[1]
    else:
        text = f"{text}\n{section}"
    PAGE.write_text(text)
    print(body)


# -------------------------------------------------------------------------------------------------------------- main


def contest(chosen, jobs, rounds, threads=1):
    """Workers that have run all jobs."""
    workers = [start(contestant, threads) for contestant in chosen]
    try:
        run_rounds(workers, jobs, rounds)
    finally:
        for worker in workers:
            worker.close()
    ours = next(worker for worker in workers if worker.contestant.name == OURS)
    if ours.problem:
        raise RuntimeError(f"{OURS} itself failed, and there is nothing to compare with: {ours.problem}")
    return workers


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    rounds = 2 if options.quick else 5
    clock, wall = {"clock": options.clock}, {"clock": "wall"}

    jobs = {label: job | clock for label, job in STEP_JOBS.items()}
    small = contest([c for c in CONTESTANTS if c.step], jobs, rounds)
    wide_jobs = [{"step": WIDE | clock}, {"step": WIDE | wall}]
    wide_contestants = [c for c in CONTESTANTS if c.wide]
    wide = [contest(wide_contestants, job, rounds, threads) for threads, job in enumerate(wide_jobs, 1)]
    fits = contest([c for c in CONTESTANTS if c.fit], {"fit": FIT_JOB | clock}, 1 if options.quick else 3)

    said = {"wall": "Seconds are those on the wall.", "cpu": "Seconds are processor time."}
    columns = [step_rows(workers, job) for workers, job in zip(wide, wide_jobs, strict=True)]
    wide_table = [[one[0], one[1], two[1]] for one, two in zip(*columns, strict=True)]
    body = [
        "## The training step",
        machine(),
        PROSE.format(**SMALL, clock=said[options.clock]).strip(),
        STEP_TITLE,
        markdown(["", *jobs], step_rows(small, jobs)),
        WIDE_TITLE.strip(),
        markdown(["", "1 thread", "2 threads"], wide_table),
        "## A whole fit",
        FIT_TITLE.format(**FIT_JOB).strip(),
        markdown(["", "first, s", "later, s", "times skvae's"], fit_rows(fits)),
    ]
    write_section("training", "\n\n".join(body))


if __name__ == "__main__":
    main()
