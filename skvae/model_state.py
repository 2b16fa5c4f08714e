"""A fitted model as facts that JSON can hold and arrays by name, and back: nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from skvae.constraints import Constraint, constraint_of
from skvae.engine.adam import AdamState
from skvae.engine.training import TrainingState
from skvae.fitted import FittedModel, Latents
from skvae.model.latent import LATENT_DENSITIES, LatentDensity, Mixture
from skvae.model.layers import arrays as arrays_of
from skvae.model.network import VAE, NetworkFactory
from skvae.model.state import custom_networks, from_state, to_state
from skvae.surroundings import undisturbed
from skvae.table import Table
from skvae.table.plain import KEYS
from skvae.threads import on_one_thread

ROLES = {"encoder": "encoder", "decoder": "decoder.network"}
"""Networks that may be the user's: by the estimator's parameter, what a state calls them."""


SHAPES_OF_TRAINING: dict[str, tuple[tuple[int | None, ...], str]] = {
    "loss_curve": ((None,), "f"),
    "validation_scores": ((None,), "f"),
    "n_steps": ((), "iu"),
    "next_look": ((), "iu"),
    "is_seen": ((), "b"),
    "generator": ((None,), "u"),
    "fit/rng": ((KEYS,), "u"),
    "fit/position": ((), "iu"),
    "fit/seed": ((), "iu"),
    "fit/fingerprint": ((32,), "u"),
}
"""Shapes and kinds of the arrays in the state of a training loop, beside those of its parameters and of its descent."""


class Arrays:
    """Arrays by name, each of which is taken once, and checked.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._left = dict(arrays)

    def take(self, name: str, shape: tuple[int | None, ...], kinds: str = "f") -> np.ndarray:
        """The array of a name.

        Parameters
        ----------
        name : str
        shape : tuple of (int or None)
            The shape that is expected; None stands for any length.
        kinds : str, default="f"
            Codes of the dtypes that are expected, as in ``numpy.dtype.kind``.

        Raises
        ------
        ValueError
            If there is none, or it is of another shape or dtype, or not finite.
        """
        if name not in self._left:
            raise ValueError(f"the array {name!r} is missing")

        array = self._left.pop(name)
        fits = len(array.shape) == len(shape)
        for own, expected in zip(array.shape, shape, strict=False):
            fits = fits and expected in (None, own)
        if not fits or array.dtype.kind not in kinds:
            raise ValueError(
                f"the array {name!r} has shape {array.shape} and dtype {array.dtype}; expected {shape} of kind {kinds!r}, "
                f"where None is any length"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the array {name!r} is not finite")
        return array

    def below(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays whose names begin with a prefix, by the rest of their names."""
        found = {}
        for name in list(self._left):
            if name.startswith(prefix):
                found[name.removeprefix(prefix)] = self._left.pop(name)
        return found

    def check_empty(self) -> None:
        """Raise a ValueError if an array was not taken."""
        if self._left:
            raise ValueError(f"the arrays {sorted(self._left)[:5]} are not part of the model")


# ------------------------------------------------------------------------------------------------------------ model -> state


def model_state(model: FittedModel) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `model_of` makes an equal model from.

    Returns
    -------
    facts : dict
        What JSON can hold.
    arrays : dict of str to ndarray

    Raises
    ------
    ValueError
        If a level, a name, a dtype or a constraint of the table has no plain form.
    """
    table, table_arrays = model.table.state()
    network = to_state(model.network)
    arrays: dict[str, np.ndarray] = {}
    _add(arrays, "table.", table_arrays)
    _add(arrays, "network.", network.pop("arrays"))

    # of the user's networks the weights are kept, and not the code
    for role in ROLES.values():
        if isinstance(network[role], nn.Module):
            _add(arrays, f"network.{role}.", arrays_of(network[role]))
            network[role] = None

    _add(arrays, "latents.", model.latents._asdict())
    arrays["kl_per_unit"] = model.kl_per_unit
    arrays["loss_curve"] = np.array(model.loss_curve)
    if model.validation_scores is not None:
        arrays["validation_scores"] = np.array(model.validation_scores)

    for parameter, state in (model.adam_state or {}).items():
        _add(arrays, f"adam/{parameter}/", state)
    _add(arrays, "training/", model.training or {})

    # those that took time to fit
    densities = []
    for name, density in model.densities.items():
        if isinstance(density, Mixture):
            densities.append([name, density.name])
            _add(arrays, f"densities.{name}.", vars(density))

    facts = {
        "table": table,
        "network": network,
        "seed": model.seed,
        "density_name": model.density_name,
        "active_units": model.active_units,
        "densities": densities,
    }
    return facts, arrays


def _add(arrays: dict[str, np.ndarray], prefix: str, more: Mapping[str, np.ndarray]) -> None:
    for name, array in more.items():
        arrays[prefix + name] = np.asarray(array)


# ------------------------------------------------------------------------------------------------------------ state -> model


@undisturbed
@on_one_thread
def model_of(
    facts: dict[str, Any],
    arrays: Mapping[str, np.ndarray],
    makers: Mapping[str, NetworkFactory | nn.Module],
    constraints: Sequence[Constraint] | None = None,
) -> FittedModel:
    """The model whose `model_state` is given, on the CPU.

    Parameters
    ----------
    facts : dict
    arrays : mapping of str to ndarray
    makers : mapping of {"encoder", "decoder"} to callable or module
        What makes the networks that were the user's.
    constraints : sequence of Constraint, default=None
        Those of the model, if they hold code.

    Returns
    -------
    model : FittedModel

    Raises
    ------
    ValueError
        If the arrays are not those of the facts.
    """
    left = Arrays(arrays)
    rules = _rules(facts["table"]["constraints"], constraints)
    table = Table.from_state(facts["table"], _finite(left.below("table.")), rules)
    network = _network(facts["network"], table, left, makers)

    latent_dim = network.latent_dim
    z_mean = left.take("latents.z_mean", (None, latent_dim))
    if not len(z_mean):
        raise ValueError("there are no latent means")
    z_std = left.take("latents.z_std", z_mean.shape)
    latents = Latents(z_mean, z_std, left.take("latents.weight", z_mean.shape[:1]))

    densities = {}
    for name, kind in facts["densities"]:
        densities[name] = _mixture(name, kind, latent_dim, left)

    kl_per_unit = left.take("kl_per_unit", (latent_dim,))
    loss_curve = left.take("loss_curve", (None,)).tolist()
    scores = left.below("validation_scores").get("")
    adam_state = _adam_state(left, network)
    training = _training_state(left, network)
    left.check_empty()

    density_name = str(facts["density_name"])
    if density_name not in LATENT_DENSITIES:
        raise ValueError(f"there is no latent density {density_name!r}")
    model = FittedModel(
        table=table,
        network=network,
        seed=int(facts["seed"]),
        density_name=density_name,
        latents=latents,
        kl_per_unit=kl_per_unit,
        active_units=int(facts["active_units"]),
        loss_curve=loss_curve,
        validation_scores=None if scores is None else scores.tolist(),
        adam_state=adam_state,
        densities=densities,
        training=training,
    )

    # facts that do not fit one another show where a row is decoded and read
    row = table.decode(np.zeros((1, table.layout.n_parts)))
    model.posterior(row)
    return model


def _rules(states: list[dict[str, Any]], given: Sequence[Constraint] | None) -> list[Constraint]:
    if given is None:
        return [constraint_of(state) for state in states]
    if len(given) != len(states):
        raise ValueError(f"it has {len(states)} constraints, and {len(given)} are given")
    return [constraint_of(*pair) for pair in zip(states, given, strict=True)]


def _finite(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a table, once they are seen to be vectors of finite numbers."""
    left = Arrays(arrays)
    return {name: left.take(name, (None,)) for name in arrays}


def _network(
    facts: dict[str, Any], table: Table, left: Arrays, makers: Mapping[str, NetworkFactory | nn.Module]
) -> VAE:
    """The network, whose own arrays are finite and of the shapes that its parameters have."""
    weights = left.below("network.")
    latent_dim = facts["latent_dim"]
    if type(latent_dim) is not int or not 1 <= latent_dim <= sum(array.size for array in weights.values()):
        raise ValueError(f"latent_dim={latent_dim!r} is not that of the weights")

    own = {}
    for parameter, role in ROLES.items():
        if facts[role] is None:
            own[role] = makers[parameter]
    networks = custom_networks(table.layout, latent_dim, own)

    # buffers of a user's may hold anything, such as the minus infinity of a mask
    for name, array in weights.items():
        if not name.startswith(tuple(own)) and not np.isfinite(array).all():
            raise ValueError(f"the array 'network.{name}' is not finite")
    network = from_state(table.layout, {**facts, **networks, "arrays": weights})
    if network.state_dict().keys() != weights.keys():
        names = sorted(network.state_dict().keys() ^ weights.keys())
        raise ValueError(f"the arrays of the network are not those expected; they differ in {names[:5]}")
    return network


def _mixture(name: str, kind: str, latent_dim: int, left: Arrays) -> LatentDensity:
    density = LATENT_DENSITIES[kind]
    if not issubclass(density, Mixture):
        raise ValueError(f"the latent density {kind!r} is no mixture")

    prefix = f"densities.{name}."
    weights = left.take(prefix + "weights", (None,))
    means = left.take(prefix + "means", (len(weights), latent_dim))
    factors = left.take(prefix + "factors", (len(weights), latent_dim, latent_dim))
    return density(weights, means, factors)


def _adam_state(left: Arrays, network: VAE) -> AdamState | None:
    """Moments of the parameters of a network; None if there are none."""
    found = left.below("adam/")
    if not found:
        return None

    shapes = {name: p.shape for name, p in network.named_parameters()}
    state: AdamState = {}
    moments = Arrays(found)
    for name in found:
        parameter, key = name.split("/")
        shape: tuple[int | None, ...] = tuple(shapes[parameter])
        kinds = "f"
        if key == "step":
            shape = ()
        elif key == "since_step":
            shape, kinds = (2,), "iu"
        elif key == "momentum":
            # of the first columns alone
            shape = (shape[0], None)
        elif key not in ("exp_avg", "exp_avg_sq"):
            raise ValueError(f"{key!r} is no moment")
        state.setdefault(parameter, {})[key] = moments.take(name, shape, kinds)
    return state


def _training_state(left: Arrays, network: VAE) -> TrainingState | None:
    """Where a fit of a network stood; None if it has ended."""
    found = left.below("training/")
    if not found:
        return None

    # seen to be what the loop will read; all of it goes on as it is
    state = Arrays(found)
    _adam_state(state, network)
    for name, (shape, kinds) in SHAPES_OF_TRAINING.items():
        state.take(name, shape, kinds)
    descent = found["descent"]
    if not 0 <= found["fit/position"] <= KEYS or descent.shape != (2,) or np.isnan(descent).any():
        raise ValueError("the state of the training is not one of a fit")

    average = state.below("average/")
    for name in average:
        if name == "n_terms":
            continue
        p = list(network.parameters())[int(name)]
        if average[name].shape != p.shape:
            raise ValueError(
                f"the average has the shape {average[name].shape} for a parameter of shape {tuple(p.shape)}"
            )
    best = state.below("watch/")
    for name, array in best.items():
        if name != "bests" and array.shape != network.state_dict()[name.removeprefix("best/")].shape:
            raise ValueError(f"the best parameter {name!r} has the shape {array.shape}")
    # infinite before the descent begins
    state.below("descent")
    state.below("draws/")
    state.check_empty()
    return found
