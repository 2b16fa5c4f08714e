"""Parameters of the estimator: their ranges, and what "auto" stands for."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array, check_random_state

from skvae._sklearn import HasMethods, Interval, StrOptions
from skvae.model.decoders import DECODERS
from skvae.model.latent import LATENT_DENSITIES
from skvae.model.layers import ACTIVATIONS
from skvae.table import Layout
from skvae.table.kinds import LIKELIHOODS, Categorical

ROWS_FOR_ORDER = 1000
"""``decoder="auto"`` is autoregressive from this number of rows on."""

PARTS_IN_ORDER = 256
"""Largest number of parts of a row that ``decoder="auto"`` reads one after the other."""

LEVELS_IN_ORDER = 4096
"""Largest number of the network's inputs, levels one-hot, for which it does so."""

LARGEST = 1e30
"""Numbers that training works with in single precision are no larger."""

CONSTRAINTS: dict = {
    "latent_dim": [Interval(Integral, 1, None, closed="left")],
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [StrOptions(set(ACTIVATIONS))],
    "likelihood": [StrOptions({"auto", *LIKELIHOODS} - {Categorical.name}), dict],
    "categorical_features": ["array-like", StrOptions({"from_dtype"}), None],
    "exposure": [str, Integral, None],
    "bounds": [StrOptions({"observed"}), dict, None],
    "constraints": ["array-like", None],
    "ignore": [StrOptions({"auto"}), "array-like", dict, None],
    "protect": [Interval(Integral, 2, None, closed="left"), None],
    "handle_unknown": [StrOptions({"error", "ignore"})],
    "latent_density": [StrOptions({"auto", *LATENT_DENSITIES})],
    "beta": [Interval(Real, 0, LARGEST, closed="both")],
    "alpha": [Interval(Real, 0, LARGEST, closed="both")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate_init": [Interval(Real, 0, LARGEST, closed="right")],
    "max_iter": [Interval(Integral, 1, None, closed="left"), None],
    "tol": [Interval(Real, 0, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "encoder": [callable, HasMethods("forward"), None],
    "decoder": [StrOptions({"auto", *DECODERS}), callable, HasMethods("forward")],
    "device": [str],
    "verbose": ["verbose"],
    "random_state": ["random_state"],
}
"""Types and ranges, as scikit-learn checks them before each fit."""


def check_hidden_layer_sizes(sizes: Any) -> tuple[int, ...]:
    """Widths of the hidden layers as a tuple.

    Raises
    ------
    ValueError
        If they are not integers of at least 1.
    """
    # as objects: an array of floats would pass for whole numbers
    widths = np.atleast_1d(np.asarray(sizes, dtype=object))
    for width in widths:
        if not isinstance(width, Integral) or width < 1:
            raise ValueError(
                f"hidden_layer_sizes={sizes!r} must hold integers of at least 1, one per hidden layer; () makes a linear "
                f"model."
            )
    return tuple(int(width) for width in widths)


def check_device(device: str) -> None:
    """Raise a ValueError if torch cannot use a device here."""
    # some devices are only found to be missing when they are used
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {reason} Use device='cpu'.") from error


def check_positive_integer(name: str, value: Any, or_else: str = "") -> int:
    """The value as an int.

    Raises
    ------
    ValueError
        If it is no integer of at least 1; `or_else` says what else the parameter called `name` may be.
    """
    # True is an integer to Python
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be {or_else}an integer of at least 1, got {value!r}.")
    return int(value)


def check_density_name(name: str) -> None:
    """Raise a ValueError if `name` is no latent density."""
    if name not in ("auto", *LATENT_DENSITIES):
        expected = ", ".join(map(repr, ("auto", *LATENT_DENSITIES)))
        raise ValueError(f"latent_density must be one of {expected}, got {name!r}.")


def check_latent_points(X: Any, latent_dim: int) -> np.ndarray:
    """Latent points as an array of the caller's own, float32 or float64, of shape (n_samples, latent_dim).

    Raises
    ------
    ValueError
        If they are not points of as many units.
    """
    points = check_array(X, dtype=[np.float64, np.float32], input_name="X")
    if points.shape[1] != latent_dim:
        raise ValueError(
            f"X has {points.shape[1]} columns, but the model has latent_dim={latent_dim} latent units. "
            f"Pass latent points such as transform(X) returns, or sample(n) for new rows."
        )
    return np.array(points)


def resolve_decoder(
    decoder: Any, *, n_rows: int, layout: Layout, hidden_layer_sizes: Sequence[int], likelihood: str | dict
) -> Any:
    """The decoder that ``"auto"`` stands for; any other value as it is.

    Parameters
    ----------
    decoder : str, callable or torch.nn.Module
    n_rows : int
        Number of training rows.
    layout : Layout
    hidden_layer_sizes : sequence of int
    likelihood : str or dict
        The parameter: one kind for all columns asks for the textbook model.
    """
    if not isinstance(decoder, str) or decoder != "auto":
        return decoder

    # who asks for a linear network or for one kind everywhere asks for the textbook model
    is_linear = not hidden_layer_sizes
    is_textbook = isinstance(likelihood, str) and likelihood != "auto"
    if is_linear or is_textbook:
        return "factorized"

    # drawing takes a pass per part, and training on few rows overfits
    fits = n_rows >= ROWS_FOR_ORDER and layout.n_parts <= PARTS_IN_ORDER and layout.n_inputs <= LEVELS_IN_ORDER
    if fits:
        return "autoregressive"
    return "factorized"


def resolve_density(name: str, hidden_layer_sizes: Sequence[int], former: str | None = None) -> str:
    """The latent density that ``"auto"`` stands for; any other name as it is.

    Parameters
    ----------
    name : str
    hidden_layer_sizes : sequence of int
    former : str, default=None
        The latent density of the model to go on from, which ``"auto"`` then stands for.
    """
    if name != "auto":
        return name
    if former is not None:
        return former

    # exact for linear networks
    if not hidden_layer_sizes:
        return "prior"
    return "mixture"


def draw_seed(rng: np.random.RandomState) -> int:
    """A seed for generators that are not numpy's."""
    return int(rng.randint(np.iinfo(np.int32).max))


def make_generator(random_state: Any) -> torch.Generator:
    """A torch generator whose seed is drawn from scikit-learn's notion of a random state."""
    return torch.Generator().manual_seed(draw_seed(check_random_state(random_state)))
