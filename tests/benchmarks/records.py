"""Records of benchmarks: written line by line as they come, and printed as tables of means."""

import json
import os

import numpy as np
from threadpoolctl import threadpool_info


def blas_kernel():
    """The kernels that numpy's OpenBLAS has chosen in this process, and what in the environment has a say in it."""
    found = {library["architecture"] for library in threadpool_info() if library["internal_api"] == "openblas"}
    told = [f"({name} is set)" for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if name in os.environ]
    return " ".join([*sorted(found), *told]) or "unknown"


def recorder(path):
    """A list that fills, and the function that fills it: it prints a record as JSON and appends it to `path` (or None).

    Every record says which kernels of BLAS were used: those of this process, unless it has its own entry.
    """
    records = []
    kernel = blas_kernel()

    def emit(record):
        record = {**record, "blas": record.get("blas", kernel)}
        records.append(record)
        line = json.dumps(record)
        print(line, flush=True)
        if path:
            with open(path, "a") as file:
                file.write(line + "\n")

    return records, emit


def attempt(figures):
    """The figures, or what went wrong, so that one failure does not end the run; a missing package is named."""
    try:
        return figures()
    except ImportError as error:
        return {"skipped": str(error)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def print_rows(heading, rows):
    """Print rows of strings under a heading, aligned to the right."""
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(len(heading))]
    for row in [heading, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def mean_text(records, figure, factor, decimals):
    """Mean of a figure over the records that have it, as text."""
    values = [r[figure] for r in records if r.get(figure) is not None]
    return f"{factor * np.mean(values):.{decimals}f}" if values else "-"
