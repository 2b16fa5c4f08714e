"""A fitted model as facts that JSON can hold and arrays by name, and back: nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from skvae.constraints import Constraint, constraint_of
from skvae.engine.adam import AdamState, flat, nested
from skvae.engine.paths import put
from skvae.engine.training import CURVES, Curves, TrainingState
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

SHAPES_OF_TRAINING: dict[str, tuple[tuple[int | None, ...], str, bool]] = {
    "loss_curve": ((None,), "f", True),
    "validation_scores": ((None,), "f", False),
    "n_steps": ((), "iu", True),
    "descent": ((2,), "f", False),
    "next_look": ((), "iu", True),
    "is_seen": ((), "b", True),
    "curves/reconstruction": ((None,), "f", True),
    "curves/kl": ((None,), "f", True),
    "curves/learning_rate": ((None,), "f", True),
    "curves/n_steps": ((None,), "f", True),
    "curves/look": ((None,), "f", True),
    "generator": ((None,), "u", True),
    "fit/rng": ((KEYS,), "u", True),
    "fit/position": ((), "iu", True),
    "fit/seed": ((), "iu", True),
    "fit/fingerprint": ((32,), "u", True),
}
"""Shape, kind and finiteness of the arrays in the state of every training loop, beside those of the parameters."""


class Checked:
    """Arrays by name, each of which is taken once, and checked.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._left = dict(arrays)

    def has(self, name: str) -> bool:
        """Whether there is an array of a name."""
        return name in self._left

    def take(self, name: str, shape: tuple[int | None, ...], kinds: str = "f", *, finite: bool = True) -> np.ndarray:
        """The array of a name.

        Parameters
        ----------
        name : str
        shape : tuple of (int or None)
            The shape that is expected; None stands for any length.
        kinds : str, default="f"
            Codes of the dtypes that are expected, as in ``numpy.dtype.kind``.
        finite : bool, default=True
            Whether all numbers must be.

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
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
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
    put(arrays, "table.", table_arrays)
    put(arrays, "network.", network.pop("arrays"))

    # of the user's networks the weights are kept, and not the code
    for role in ROLES.values():
        if isinstance(network[role], nn.Module):
            put(arrays, f"network.{role}.", arrays_of(network[role]))
            network[role] = None

    put(arrays, "latents.", model.latents._asdict())
    arrays["kl_per_unit"] = model.kl_per_unit
    arrays["loss_curve"] = np.array(model.loss_curve)
    for name, curve in model.curves.items():
        arrays[f"curves/{name}"] = np.array(curve, dtype=np.float64)
    if model.validation_scores is not None:
        arrays["validation_scores"] = np.array(model.validation_scores)

    put(arrays, "adam/", flat(model.adam_state or {}))
    put(arrays, "training/", model.training or {})

    # those that took time to fit
    densities = []
    for name, density in model.densities.items():
        if isinstance(density, Mixture):
            densities.append([name, density.name])
            put(arrays, f"densities.{name}.", vars(density))

    facts = {
        "table": table,
        "network": network,
        "seed": model.seed,
        "density_name": model.density_name,
        "active_units": model.active_units,
        "densities": densities,
    }
    return facts, arrays


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
    left = Checked(arrays)
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
    scores = None
    if left.has("validation_scores"):
        # a look in the middle of a fit may have been no number
        scores = left.take("validation_scores", (None,), finite=False).tolist()
    curves = _curves(left, len(loss_curve), len(scores or ()))
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
        validation_scores=scores,
        curves=curves,
        adam_state=adam_state,
        densities=densities,
        training=training,
    )

    # facts that do not fit one another show where a row is decoded and read
    row = table.decode(np.zeros((1, table.layout.n_parts)))
    model.posterior(row)
    return model


def _rules(states: list[dict[str, Any]], given: Sequence[Constraint] | None) -> list[Constraint]:
    """The fitted constraints of a table, which are given if they hold code."""
    if given is None:
        return list(map(constraint_of, states))
    if len(given) != len(states):
        raise ValueError(f"it has {len(states)} constraints, and {len(given)} are given")
    return list(map(constraint_of, states, given))


def _finite(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a table, once they are seen to be vectors of finite numbers."""
    left = Checked(arrays)
    return {name: left.take(name, (None,)) for name in arrays}


def _network(
    facts: dict[str, Any], table: Table, left: Checked, makers: Mapping[str, NetworkFactory | nn.Module]
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


def _mixture(name: str, kind: str, latent_dim: int, left: Checked) -> LatentDensity:
    density = LATENT_DENSITIES[kind]
    if not issubclass(density, Mixture):
        raise ValueError(f"the latent density {kind!r} is no mixture")

    prefix = f"densities.{name}."
    weights = left.take(prefix + "weights", (None,))
    means = left.take(prefix + "means", (len(weights), latent_dim))
    factors = left.take(prefix + "factors", (len(weights), latent_dim, latent_dim))
    return density(weights, means, factors)


def _adam_state(left: Checked, network: VAE) -> AdamState | None:
    """Moments of the parameters of a network; None if there are none."""
    found = left.below("adam/")
    if not found:
        return None

    shapes = {name: p.shape for name, p in network.named_parameters()}
    moments = Checked(found)
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
        moments.take(name, shape, kinds)
    return nested(found)


def _curves(left: Checked, n_epochs: int, n_looks: int) -> Curves:
    """What was kept of a fit beside its losses and scores: not a number in files from before it was."""
    found = Checked(left.below("curves/"))
    curves = {}
    for name in CURVES:
        n = n_looks if name == "look" else n_epochs
        curve = np.full(n, np.nan)
        if found.has(name):
            curve = found.take(name, (n,), finite=False)
        curves[name] = curve.tolist()

    found.check_empty()
    return curves


def _training_state(left: Checked, network: VAE) -> TrainingState | None:
    """Where a fit of a network stood, as it is, once it is seen to be what the loop reads; None if the fit has ended."""
    found = left.below("training/")
    if not found:
        return None

    state = Checked(found)
    _adam_state(state, network)
    for name, (shape, kinds, finite) in SHAPES_OF_TRAINING.items():
        state.take(name, shape, kinds, finite=finite)
    if not 0 <= found["fit/position"] <= KEYS or np.isnan(found["descent"]).any():
        raise ValueError("the state of the training is not one of a fit")

    # of a fit that holds rows out
    if state.has("average/n_terms"):
        state.take("average/n_terms", (), "iu")
        for i, p in enumerate(network.parameters()):
            state.take(f"average/{i}", tuple(p.shape))
    if state.has("watch/bests"):
        state.take("watch/bests", (None,), finite=False)
    for name, tensor in network.state_dict().items():
        if state.has(f"watch/best/{name}"):
            state.take(f"watch/best/{name}", tuple(tensor.shape), "fiub", finite=False)

    # generators know their own states: the first ones are those of the processor
    for name in ("generator", "draws/0"):
        if name in found:
            torch.Generator().set_state(torch.tensor(found[name]))
    for name in state.below("draws/"):
        Checked(found).take(f"draws/{name}", (None,), "u")

    state.check_empty()
    return found
