"""A network as plain data — numbers, text, arrays — and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from skvae.model.auxiliary import Auxiliary
from skvae.model.decoders import DECODERS, Decoder, FactorizedDecoder
from skvae.model.layers import MLP, arrays, load, mlp_of, portable
from skvae.model.likelihoods import Likelihood
from skvae.model.network import VAE
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
    """The network whose `to_state` is given, for rows of a layout; on the CPU."""
    decoder_class = DECODERS[state["decoder"]]
    likelihood = Likelihood(layout, decoder_class.n_components)
    output_part = likelihood.output_part.tolist()
    latent_dim = state["latent_dim"]

    encoder = state["encoder"]
    if not isinstance(encoder, nn.Module):
        encoder = MLP(encoder["sizes"], encoder["activation"])

    decoder: Decoder
    network = state["decoder.network"]
    if isinstance(network, nn.Module):
        decoder = FactorizedDecoder(network, output_part)
    else:
        # all weights come from the arrays
        hidden = network["sizes"][1:-1]
        decoder = decoder_class.built_in(latent_dim, layout, output_part, hidden, network["activation"], None)

    auxiliary = None
    if layout.auxiliary is not None:
        network = state["auxiliary"]
        hidden = network["sizes"][1:-1]
        auxiliary = Auxiliary.built_in(latent_dim, layout.auxiliary, hidden, network["activation"], None)

    return load(VAE(encoder, decoder, likelihood, latent_dim, auxiliary), state["arrays"], state["training"])
