"""A second decoder beside an autoregressive one, which reads z alone and so keeps z telling.

A decoder that reads the cells before each cell can do without z, and then z tells little of the row. A factorized decoder has
nothing else to go by. Both are trained on one z (Lucas & Verbeek, 2018): the autoregressive one draws and scores, the
auxiliary one gives rows back.

The autoregressive decoder reads z *blurred*: KEPT z + BLUR e, with e ~ N(0, I). The fine details of z, by which the auxiliary
decoder tells rows apart, are of no use to a decoder that reads the cells, and no fitted density of z could follow them. What
is left is smooth, and still N(0, I) if z is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from skvae.model.decoders import FactorizedDecoder
from skvae.model.layers import MLP
from skvae.model.likelihoods import Likelihood, Normal
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.table.layout import Layout

WEIGHT = 1.5
"""Weight of the auxiliary decoder's -log p(x | z) in the loss, beside the decoder's."""

SMALLEST_DEVIATION = 0.3
"""Smallest deviation of a standardised number from what z tells of it: nats that told it closer would be lost to others."""

BLUR = 0.35**0.5
"""Share of noise in the z that the autoregressive decoder reads."""

KEPT = (1 - BLUR**2) ** 0.5
"""Share of z in it: the variance stays 1."""


class Auxiliary(nn.Module):
    """A factorized decoder of rows as an auxiliary decoder reads them, and their likelihood.

    Parameters
    ----------
    decoder : FactorizedDecoder
    likelihood : Likelihood
        Of the layout for it, each number with a deviation of its own.
    """

    def __init__(self, decoder: FactorizedDecoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = likelihood
        for place in likelihood.places:
            if isinstance(place.block, Normal):
                place.block.limits = {"log_std": (math.log(SMALLEST_DEVIATION), None)}

    @classmethod
    def built_in(
        cls,
        latent_dim: int,
        layout: Layout,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator | None,
    ) -> Auxiliary:
        """One of perceptron layers, for rows as `layout` lays them out: see `Decoder.built_in`."""
        likelihood = Likelihood(layout)
        output_part = likelihood.output_part.tolist()
        decoder = FactorizedDecoder.built_in(latent_dim, layout, output_part, hidden, activation, generator)

        return cls(decoder, likelihood)

    @property
    def network(self) -> MLP:
        """MLP : the decoder's network."""
        return cast(MLP, self.decoder.network)

    def decode(self, z: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """Parameters of p(row | z).

        Parameters
        ----------
        z : tensor of shape (..., n, latent_dim)
        x : tensor of shape (n, layout.width), default=None
            Encoded rows, whose offsets raise the counts.

        Returns
        -------
        outputs : tensor of shape (..., n, n_outputs)
        """
        outputs = self.decoder(z)
        if x is None:
            return outputs

        return self.likelihood.raise_by(outputs, x)

    def nll(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(row | z) in nats, shape (n,), of rows as it reads them, (n, layout.width), given z, (n, latent_dim)."""
        return -self.likelihood.log_prob(x, self.decode(z, x)).sum(-1)

    def __reduce__(self) -> tuple:
        return _rebuild, ((self.decoder, self.likelihood), self.training)


@on_one_thread
def _rebuild(args: tuple, training: bool) -> Auxiliary:
    return Auxiliary(*args).train(training)
