"""A network as plain data — numbers, text, arrays — and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from skvae.model.auxiliary import Auxiliary
from skvae.model.decoders import DECODERS, Decoder, FactorizedDecoder
from skvae.model.layers import MLP, arrays, load, mlp_of, portable
from skvae.model.likelihoods import Likelihood
from skvae.model.network import VAE, NetworkFactory, custom_network
from skvae.randomness import PrivateDraws
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.table.layout import Layout


@on_one_thread
def to_state(vae: VAE) -> dict[str, Any]:
    """What `from_state` makes an equal network from.

    Networks of the user's own are kept as they are, on the CPU: they are the only entries that are not plain.
    """
    state: dict[str, Any] = {"latent_dim": vae.latent_dim, "decoder": vae.decoder.name, "training": vae.training}

    own = []
    for role, network in (("encoder", vae.encoder), ("decoder.network", vae.decoder.network)):
        built_in = mlp_of(network)
        if built_in is None:
            state[role] = portable(network)
            own.append(role + ".")
        else:
            state[role] = {"sizes": list(built_in.sizes), "activation": built_in.activation}

    if vae.auxiliary is not None:
        state["auxiliary"] = {
            "sizes": list(vae.auxiliary.network.sizes),
            "activation": vae.auxiliary.network.activation,
        }

    state["arrays"] = {}
    for name, array in arrays(vae).items():
        # the user's network brings its own
        if not name.startswith(tuple(own)):
            state["arrays"][name] = array
    return state


@on_one_thread
def from_state(layout: Layout, state: dict[str, Any]) -> VAE:
    """The network whose `to_state` is given, for rows of a layout; on the CPU.

    Raises
    ------
    ValueError
        If the weights are not those of such a network.
    """
    decoder_class = DECODERS[state["decoder"]]
    likelihood = Likelihood(layout, decoder_class.n_components)
    output_part = likelihood.output_part.tolist()
    latent_dim = state["latent_dim"]
    weights = state["arrays"]

    encoder = state["encoder"]
    if not isinstance(encoder, nn.Module):
        sizes = (layout.n_encoder_inputs, *encoder["sizes"][1:-1], 2 * latent_dim)
        _check_sizes("encoder", sizes, weights)
        encoder = MLP(sizes, encoder["activation"])

    decoder: Decoder
    network = state["decoder.network"]
    if isinstance(network, nn.Module):
        decoder = FactorizedDecoder(network, output_part)
    else:
        # all weights come from the arrays
        hidden = network["sizes"][1:-1]
        n_inputs = latent_dim
        if not decoder_class.independent:
            n_inputs += layout.n_inputs
        _check_sizes("decoder.network", (n_inputs, *hidden, len(output_part)), weights)
        decoder = decoder_class.built_in(latent_dim, layout, output_part, hidden, network["activation"], None)

    auxiliary = None
    if layout.auxiliary is not None:
        network = state["auxiliary"]
        hidden = network["sizes"][1:-1]
        n_outputs = Likelihood(layout.auxiliary).n_outputs
        _check_sizes("auxiliary.decoder.network", (latent_dim, *hidden, n_outputs), weights)
        auxiliary = Auxiliary.built_in(latent_dim, layout.auxiliary, hidden, network["activation"], None)

    return load(VAE(encoder, decoder, likelihood, latent_dim, auxiliary), weights, state["training"])


def custom_networks(
    layout: Layout, latent_dim: int, makers: Mapping[str, NetworkFactory | nn.Module]
) -> dict[str, nn.Module]:
    """Networks of the user's for rows of a layout, by their role in a state, whose weights are yet to be loaded.

    Parameters
    ----------
    layout : Layout
    latent_dim : int
    makers : mapping of {"encoder", "decoder.network"} to callable or module
        As the estimator's parameters `encoder` and `decoder` are.
    """
    n_outputs = Likelihood(layout, FactorizedDecoder.n_components).n_outputs
    sizes = {"encoder": (layout.n_encoder_inputs, 2 * latent_dim), "decoder.network": (latent_dim, n_outputs)}

    # whatever they draw is replaced by the weights that are loaded
    draws = PrivateDraws(0, torch.device("cpu"))
    networks = {}
    for role, maker in makers.items():
        networks[role] = draws.run(custom_network, role.split(".")[0], maker, *sizes[role])
    return networks


def _check_sizes(role: str, sizes: Sequence[int], weights: Mapping[str, np.ndarray]) -> None:
    """Raise a ValueError unless the weights are those of a perceptron of these sizes: it is then no larger than they are."""
    for i in range(len(sizes) - 1):
        for name, shape in (("weight", (sizes[i + 1], sizes[i])), ("bias", (sizes[i + 1],))):
            own = weights.get(f"{role}.layers.{i}.{name}")
            if own is None or own.shape != shape:
                raise ValueError(
                    f"The {name} of layer {i} of the {role} has shape {None if own is None else own.shape}; expected {shape}."
                )
