"""From a fitted estimator to a file in the ONNX format, columns by their names and texts as texts."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from sklearn.utils.validation import check_is_fitted

from skvae.estimator import VAEEstimator
from skvae.export.answers import Answer, InverseTransform, Sample, ScoreSamples, Transform
from skvae.export.special import DECOMPOSITIONS
from skvae.files import replacing
from skvae.parameters import check_positive_integer
from skvae.surroundings import undisturbed
from skvae.table import Table
from skvae.threads import on_one_thread

METHODS = ("transform", "inverse_transform", "sample", "score_samples")

OPSET = 18
"""Version of ONNX's operators: what releases of onnxruntime since 2023 run."""

TEXTS = "ai.onnx.ml"
"""The set of operators that has one for texts."""

MISSING = -2
"""What an empty text is read as, beside -1 for a level that was never seen."""


@undisturbed
@on_one_thread
def to_onnx(
    estimator: VAEEstimator,
    path: str | os.PathLike,
    method: str = "transform",
    *,
    n_draws: int = 64,
) -> None:
    """Write one method of a fitted estimator as an ONNX graph, encoding of the columns included.

    Arrays of numbers are one input ``X`` of shape (n_samples, n_features). Frames, and arrays with levels among them, are one
    input per column of shape (n_samples, 1), by the name of the column (or its position): texts as strings, levels that are
    integers as int64, all else as double, times in ticks of their column since 1970. A missing cell is NaN, or the empty text.
    Outputs are rows in the same form, or ``z_mean`` of shape (n_samples, latent_dim), or ``score`` of shape (n_samples,) in
    nats. Columns that are not modelled are neither read nor written.

    Parameters
    ----------
    estimator : VAEEstimator
        A fitted one.
    path : str or path-like
        Where to write.
    method : {"transform", "inverse_transform", "sample", "score_samples"}, default="transform"
        ``"inverse_transform"`` reads ``z`` of shape (n_samples, latent_dim). ``"sample"`` reads ``uniform``, independent
        numbers between 0 and 1 of shape (n_samples, width), whose width stands in the graph: it draws z and then each part of
        a row by its quantile function.
    n_draws : int, default=64
        Draws of z for ``"score_samples"``: its graph gives ``estimator.score_samples(X, n_draws=n_draws)``.

    Raises
    ------
    ImportError
        If ``onnx`` and ``onnxscript`` are not installed.
    NotFittedError
        If the estimator is not fitted.
    ValueError
        If there is no such method, or the graph cannot hold the model: one with constraints or an exposure, one with counts
        for ``"sample"``, or levels that are neither texts nor integers.

    Notes
    -----
    What the estimator refuses by an error, a graph cannot refuse: rows with a level never seen, or a value that is none of its
    column, get NaN (but count as missing under ``handle_unknown="ignore"``). So do scores of rows with missing cells under the
    autoregressive decoder, which are integrals of their own. Numbers agree with those of the estimator to about 1e-6.

    Examples
    --------
    >>> import tempfile, onnxruntime, skvae
    >>> from sklearn.datasets import load_wine
    >>> from skvae.export import to_onnx
    >>> X, _ = load_wine(return_X_y=True)
    >>> vae = skvae.VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_onnx(vae, f"{folder}/transform.onnx")
    ...     session = onnxruntime.InferenceSession(f"{folder}/transform.onnx")
    >>> (z_mean,) = session.run(None, {"X": X})
    >>> bool(abs(z_mean - vae.transform(X)).max() < 1e-6)
    True
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}.")
    check_is_fitted(estimator)
    model = estimator._fitted
    table = model.table
    _check_table(table, method)

    answer: Answer
    if method == "transform":
        answer = Transform(model, estimator.handle_unknown)
        graph = _traced(answer, len(table.columns), "skvae.values", "z_mean")
    elif method == "score_samples":
        answer = ScoreSamples(model, estimator.handle_unknown, check_positive_integer("n_draws", n_draws), seed=0)
        graph = _traced(answer, len(table.columns), "skvae.values", "score")
    elif method == "inverse_transform":
        answer = InverseTransform(model, estimator.handle_unknown)
        graph = _traced(answer, model.network.latent_dim, "z", "skvae.values")
    else:
        answer = Sample(model, estimator.handle_unknown)
        graph = _traced(answer, answer.n_uniform, "uniform", "skvae.values")

    if method in ("transform", "score_samples"):
        _read_columns(graph.graph, table)
    else:
        _write_columns(graph.graph, table)
    _check_names(graph.graph)

    if not any(own.domain == TEXTS for own in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid(TEXTS, 3))

    onnx.checker.check_model(graph)
    with replacing(path) as scratch:
        onnx.save(graph, scratch)


def _check_table(table: Table, method: str) -> None:
    """Raise a ValueError if a graph cannot hold the table."""
    if table.rules.all:
        raise ValueError("A model with constraints cannot be exported: fit it without, or serve it by skvae.load.")
    if table.exposure is not None:
        raise ValueError("A model with an exposure cannot be exported: serve it by skvae.load.")

    for column in table.columns:
        if method == "sample" and column.kind.is_count:
            raise ValueError(
                f"Column {column.label} is modelled as a count, of which a graph cannot draw. Model it as 'quantile_normal', "
                f"or serve the model by skvae.load."
            )
        types = set(map(type, column.levels or ()))
        if types and types not in ({str}, {int}):
            raise ValueError(
                f"Column {column.label} has levels of {sorted(t.__name__ for t in types)}; a graph holds texts or integers. "
                f"Convert the column to text before the fit."
            )


def _check_names(graph: onnx.GraphProto) -> None:
    """Raise a ValueError if a column has the name of something else in the graph."""
    uses: Counter[str] = Counter()
    for own in (*graph.input, *graph.initializer):
        uses[own.name] += 1
    for node in graph.node:
        uses.update(node.output)

    # nothing is made under two names but what is left out
    del uses[""]
    twice = sorted((uses - Counter(uses.keys())).keys())
    if twice:
        raise ValueError(f"The graph has another use for the names {twice}. Rename the columns before the fit.")


def _traced(answer: Answer, width: int, source: str, target: str) -> onnx.ModelProto:
    """The graph of a module that reads a matrix of some width."""
    # a graph is traced on any rows: these are within reach of all kinds
    rows = torch.full((3, width), 0.5, dtype=torch.float64)
    n = torch.export.Dim("n_samples", min=1)
    with torch.no_grad():
        program = torch.export.export(answer, (rows,), dynamic_shapes=({0: n},))
        program = program.run_decompositions(DECOMPOSITIONS)
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[source], output_names=[target], verbose=False
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export gave no graph.")
    return exported.model_proto


# ------------------------------------------------------------------------------------------------------------ named columns


def _is_one_matrix(table: Table) -> bool:
    """Whether rows are one input of numbers."""
    if table.schema.library is not None:
        return False
    return all(column.levels is None and column.aside is None for column in table.columns)


def _read_columns(graph: onnx.GraphProto, table: Table) -> None:
    """Let the graph read columns, or the matrix ``X``, in place of their values."""
    nodes = []
    inputs = []
    parts = []
    n = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if _is_one_matrix(table):
        inputs.append(helper.make_tensor_value_info("X", TensorProto.DOUBLE, [n, len(table.columns)]))
        nodes.append(helper.make_node("Identity", ["X"], ["skvae.values"]))
    else:
        is_modelled = np.flatnonzero(list(map(len, table.places)))
        first = str(table.schema.names[is_modelled[0]])
        for j, column in enumerate(table.columns):
            name = str(table.schema.names[j])
            parts.append(f"skvae.value.{j}")
            if column.aside is not None:
                # shaped like a column that is read
                nodes += [helper.make_node("Shape", [first], [f"skvae.shape.{j}"])]
                nan = helper.make_tensor("value", TensorProto.DOUBLE, [1], [np.nan])
                nodes += [helper.make_node("ConstantOfShape", [f"skvae.shape.{j}"], [parts[-1]], value=nan)]
                continue
            nodes += _read_column(column.levels, name, parts[-1])
            inputs.append(helper.make_tensor_value_info(name, _element_type(column.levels), [n, 1]))
        nodes.append(helper.make_node("Concat", parts, ["skvae.values"], axis=1))

    # nodes stand behind those that they read
    own = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes + own)
    graph.input.extend(inputs)


def _element_type(levels: list | None) -> int:
    if not levels:
        return TensorProto.DOUBLE
    return TensorProto.STRING if isinstance(levels[0], str) else TensorProto.INT64


def _read_column(levels: list | None, name: str, value: str) -> list[onnx.NodeProto]:
    """Nodes from a column of the table to its values, shape (n, 1)."""
    if not levels:
        return [helper.make_node("Identity", [name], [value])]

    # a text that is empty is a missing cell, unless it is a level
    keys = dict(zip(levels, range(len(levels)), strict=True))
    if isinstance(levels[0], str):
        keys.setdefault("", MISSING)
    attributes: dict[str, Any] = {"values_int64s": list(keys.values()), "default_int64": -1}
    attributes["keys_strings" if isinstance(levels[0], str) else "keys_int64s"] = list(keys)

    place, number, missing = f"{value}.place", f"{value}.number", f"{value}.missing"
    return [
        helper.make_node("LabelEncoder", [name], [place], domain=TEXTS, **attributes),
        helper.make_node("Cast", [place], [number], to=TensorProto.DOUBLE),
        _scalar(f"{value}.code", MISSING),
        _scalar(f"{value}.nan", np.nan),
        helper.make_node("Equal", [number, f"{value}.code"], [missing]),
        helper.make_node("Where", [missing, f"{value}.nan", number], [value]),
    ]


def _scalar(name: str, value: float) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.DOUBLE, [], [value]))


def _write_columns(graph: onnx.GraphProto, table: Table) -> None:
    """Let the graph give columns, or the matrix ``X``, in place of their values."""
    n = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    nodes = []
    outputs = []
    if _is_one_matrix(table):
        nodes.append(helper.make_node("Identity", ["skvae.values"], ["X"]))
        outputs.append(helper.make_tensor_value_info("X", TensorProto.DOUBLE, [n, len(table.columns)]))
    else:
        for j, column in enumerate(table.columns):
            if column.aside is not None:
                continue
            name = str(table.schema.names[j])
            place = helper.make_tensor(f"skvae.at.{j}", TensorProto.INT64, [1], [j])
            nodes.append(helper.make_node("Constant", [], [f"skvae.at.{j}"], value=place))
            value = f"skvae.value.{j}" if column.levels else name
            nodes.append(helper.make_node("Gather", ["skvae.values", f"skvae.at.{j}"], [value], axis=1))
            if column.levels:
                nodes += _write_levels(column.levels, value, name)
            outputs.append(helper.make_tensor_value_info(name, _element_type(column.levels), [n, 1]))

    del graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs)


def _write_levels(levels: list, value: str, name: str) -> list[onnx.NodeProto]:
    """Nodes from the positions of levels to the levels."""
    is_text = isinstance(levels[0], str)
    attributes: dict[str, Any] = {"keys_int64s": list(range(len(levels)))}
    attributes["values_strings" if is_text else "values_int64s"] = levels
    place = f"{value}.place"
    return [
        helper.make_node("Cast", [value], [place], to=TensorProto.INT64),
        helper.make_node("LabelEncoder", [place], [name], domain=TEXTS, **attributes),
    ]
