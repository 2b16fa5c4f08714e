"""Records of benchmarks: written line by line as they come, and printed as tables of means."""

import json

import numpy as np


def recorder(path):
    """A list that fills, and the function that fills it: it prints a record as JSON and appends it to `path` (or None)."""
    records = []

    def emit(record):
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
