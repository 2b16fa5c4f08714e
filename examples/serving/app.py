"""Rows in, answers out: a graph of ``skvae.export.to_onnx`` behind FastAPI.

``MODEL`` names the file. A request is a table by columns, such as ``{"alcohol": [13.2, 12.1], "label": ["red", null]}``; cells
that are null, and columns that are left out, are missing.
"""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException

graph = onnxruntime.InferenceSession(os.environ["MODEL"])
app = FastAPI()


def cells(column: list, element_type: str) -> np.ndarray:
    """A column as the graph reads it, shape (n_rows, 1)."""
    if element_type == "tensor(string)":
        return np.array([cell or "" for cell in column], dtype=object)[:, None]
    if element_type == "tensor(int64)":
        return np.array(column, dtype=np.int64)[:, None]
    return np.array(column, dtype=float)[:, None]


@app.post("/rows")
def rows(table: dict[str, list]) -> dict[str, list]:
    """What the graph says of the rows of a table."""
    names = [source.name for source in graph.get_inputs()]
    unknown = sorted(table.keys() - set(names))
    lengths = {len(column) for column in table.values()}
    if unknown or len(lengths) != 1:
        raise HTTPException(422, f"Expected columns of one length among {names}; got {unknown} of lengths {lengths}.")

    (n_rows,) = lengths
    named = {}
    for source in graph.get_inputs():
        named[source.name] = cells(table.get(source.name, [None] * n_rows), source.type)

    answers = graph.run(None, named)
    # JSON has no NaN
    return {
        out.name: np.where(np.isnan(answer), None, answer).tolist()
        for out, answer in zip(graph.get_outputs(), answers, strict=True)
    }
