"""Small networks for the layouts of `layouts`, for the tests of what they are made of and of what works on them."""

import torch
from layouts import LAYOUTS, auxiliary_means_of, means_of
from reference import in_float64

from skvae.model.network import build_vae


def make(encoder=None, decoder="factorized", *, seed=0, kinds="both", hidden=(6, 5), activation="tanh", latent_dim=2):
    """A fresh network in float32."""
    layout = LAYOUTS[kinds]
    return build_vae(
        layout,
        means_of(layout, 0.25),
        latent_dim=latent_dim,
        hidden_layer_sizes=hidden,
        activation=activation,
        encoder=encoder,
        decoder=decoder,
        seed=seed,
        auxiliary_mean=auxiliary_means_of(layout, 0.25),
    )


def shaken(kinds, hidden=(12, 9), decoder="autoregressive", latent_dim=2):
    """A network in float64 whose biases are not zero."""
    vae = in_float64(make(decoder=decoder, kinds=kinds, hidden=hidden, latent_dim=latent_dim)).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in vae.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return vae


def behind_gates(layout, parts):
    """The parts, NaN where their gate is not open."""
    parts = parts.clone()
    for i, gate in enumerate(layout.gate):
        if gate >= 0:
            parts[parts[:, gate] != layout.n_levels[gate - layout.n_numbers] - 1, i] = torch.nan
    return parts
