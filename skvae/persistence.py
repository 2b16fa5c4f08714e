"""A fitted estimator in a file that is safe to load: arrays in the format of safetensors, everything else as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skvae.constraints import Constraint
from skvae.estimator import VAEEstimator
from skvae.files import replacing
from skvae.model.network import NetworkFactory
from skvae.model_state import ROLES, model_of, model_state
from skvae.table.plain import parameter_of, plain_parameter
from skvae.table.warning import warn
from skvae.version import __version__

FORMAT_VERSION = 1
"""What is written. Files of this and of every earlier one are read; it rises when earlier code cannot read new files."""


def save(estimator: VAEEstimator, path: str | os.PathLike) -> None:
    """Write a fitted estimator to one file, in the format of safetensors.

    The file holds numbers and text, and no code: whoever loads it executes nothing of it. It appears as a whole or not at all,
    in place of one that was there.

    Parameters
    ----------
    estimator : VAEEstimator
        A fitted one. Of an `encoder` or `decoder` of your own the weights are written; `load` wants what made them again.
    path : str or path-like
        Where to write; by custom the name ends in ``.safetensors``.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If it is another estimator, or a parameter of it is an object that has no plain form.
    ValueError
        If a level, a name or a dtype of the table has no plain form.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : The way back.

    Notes
    -----
    Format: https://github.com/huggingface/safetensors. The metadata of its header are texts: ``format`` ("skvae"),
    ``format_version``, ``skvae_version``, ``model``, a JSON object of parameters and facts, and ``sha256``, of that and of the
    arrays.

    Examples
    --------
    >>> import tempfile, skvae
    >>> from sklearn.datasets import load_wine
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> vae = skvae.VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skvae.save(vae, f"{folder}/wine.safetensors")
    ...     again = skvae.load(f"{folder}/wine.safetensors")
    >>> bool((again.transform(X) == vae.transform(X)).all())
    True
    """
    if type(estimator) is not VAEEstimator:
        raise TypeError(
            f"save writes a VAEEstimator, got {type(estimator).__name__}. Keep pipelines and other estimators with skops.io "
            f"or joblib."
        )
    check_is_fitted(estimator)
    facts, arrays = model_state(estimator._fitted)
    # safetensors writes the memory as it lies
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}

    parameters = {}
    for name, value in estimator.get_params(deep=False).items():
        # networks of the user's are code, and constraints are part of the table
        is_own = name in ROLES and value is not None and not isinstance(value, str)
        if is_own or name == "constraints":
            continue
        parameters[name] = plain_parameter(name, value)

    names = None
    if hasattr(estimator, "feature_names_in_"):
        names = estimator.feature_names_in_.tolist()

    text = json.dumps(_without_infinities({"parameters": parameters, "names": names, **facts}), allow_nan=False)
    metadata = {
        "format": "skvae",
        "format_version": str(FORMAT_VERSION),
        "skvae_version": __version__,
        "model": text,
        "sha256": _digest(text, arrays),
    }
    with replacing(path) as scratch:
        safetensors.numpy.save_file(arrays, scratch, metadata)


def load(
    path: str | os.PathLike,
    *,
    encoder: NetworkFactory | nn.Module | None = None,
    decoder: NetworkFactory | nn.Module | None = None,
    constraints: Sequence[Constraint] | None = None,
) -> VAEEstimator:
    """Read an estimator that `save` wrote. Nothing in the file is executed, whoever wrote it.

    Parameters
    ----------
    path : str or path-like
    encoder : callable or torch.nn.Module, default=None
        The parameter of this name that the model was fitted with, if it was a network of your own.
    decoder : callable or torch.nn.Module, default=None
        Likewise.
    constraints : list of Constraint, default=None
        The parameter of this name, if one of them holds a function: no file has code.

    Returns
    -------
    estimator : VAEEstimator
        Fitted, on the CPU. Its answers are those of the one that was saved, to the bit on the same machine.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it was not written by `save`, is damaged, or was written by a later version of skvae in a format that this one does
        not know; or if the model had networks of your own that are not given, or given ones do not fit.

    Warns
    -----
    UserWarning
        If another release of skvae wrote the file: its answers may differ.

    See Also
    --------
    save : Writes the file.
    """
    text, arrays, version = _read(path)

    # facts that do not fit may fail anywhere: the error says that it is the file, and what failed
    try:
        state = json.loads(text, object_hook=_with_infinities, parse_constant=_refuse_constant)
        estimator = _estimator(state, arrays, {"encoder": encoder, "decoder": decoder}, constraints)
    except Exception as error:
        raise ValueError(f"{os.fspath(path)!r} holds no model that can be read: {error}.") from error

    if version != __version__:
        warn(f"A model of skvae {version} is loaded by {__version__}: its answers may differ. Fit it again.")
    return estimator


def _estimator(
    state: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    makers: Mapping[str, Any],
    constraints: Sequence[Constraint] | None,
) -> VAEEstimator:
    """The fitted estimator of a state."""
    parameters = {name: parameter_of(value) for name, value in state["parameters"].items()}
    for name, role in ROLES.items():
        is_own = state["network"][role] is None
        if is_own and makers[name] is None:
            raise ValueError(f"its {name} is a network of your own: pass what made it, load(path, {name}=...)")
        if makers[name] is not None and not is_own:
            raise ValueError(f"its {name} is no network of your own: leave out {name}={makers[name]!r}")
        if is_own:
            parameters[name] = makers[name]

    model = model_of(state, arrays, makers, constraints)
    rules = list(map(clone, model.table.rules.all))
    estimator = VAEEstimator(**parameters, constraints=rules or None)
    estimator._validate_params()

    names: dict[str, Any] = {"n_features_in_": len(model.table.columns)}
    if state["names"] is not None:
        names["feature_names_in_"] = np.array(state["names"], dtype=object)
    return estimator._set(model.attributes(names))


# -------------------------------------------------------------------------------------------------------------------- files


def _without_infinities(value: Any) -> Any:
    """Plain data in which numbers that JSON does not have are written as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, dict):
        return {key: _without_infinities(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(own) for own in value]
    return value


def _with_infinities(value: dict[str, Any]) -> Any:
    """A dict of JSON, or the number that it stands for."""
    if value.keys() == {"float"}:
        return float(value["float"])
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the facts and of all arrays: what was damaged on its way does not pass for a model."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: str | os.PathLike) -> tuple[str, dict[str, np.ndarray], str]:
    """The facts as text, the arrays, and the release that wrote them."""
    # the usual errors where there is no file
    with open(path, "rb"):
        pass

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, AttributeError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a file of skvae.save, is cut off or damaged: {error}.") from error

    text = metadata["model"]
    if _digest(text, arrays) != metadata["sha256"]:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged: its contents do not have the checksum that was written with them."
        )
    return text, arrays, metadata["skvae_version"]


def _check_format(path: str | os.PathLike, metadata: Mapping[str, str]) -> None:
    """Raise a ValueError unless the metadata are those of a file that this version reads."""
    needed = {"format", "format_version", "skvae_version", "model", "sha256"}
    if metadata.get("format") != "skvae" or not needed <= metadata.keys():
        raise ValueError(f"{os.fspath(path)!r} was not written by skvae.save.")

    version = metadata["format_version"]
    if not version.isdecimal() or len(version) > 9 or int(version) < 1:
        raise ValueError(f"{os.fspath(path)!r} is damaged: {version[:20]!r} is no version of the format.")
    if int(version) > FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has format {version}, written by skvae {metadata['skvae_version']}; this release, "
            f"{__version__}, reads formats up to {FORMAT_VERSION}. Install that release, or a later one."
        )
