"""Functions that ONNX does not have, by those that it has."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# one line for each half of a polynomial
# fmt: off
CENTRE = (
    (3.3871328727963665, 133.14166789178438, 1971.5909503065513, 13731.69376550946,
     45921.95393154987, 67265.7709270087, 33430.57558358813, 2509.0809287301227),
    (1.0, 42.31333070160091, 687.1870074920579, 5394.196021424751,
     21213.794301586597, 39307.89580009271, 28729.085735721943, 5226.495278852854),
)
MIDDLE = (
    (1.4234371107496835, 4.630337846156546, 5.769497221460691, 3.6478483247632045,
     1.2704582524523684, 0.2417807251774506, 0.022723844989269184, 0.0007745450142783414),
    (1.0, 2.053191626637759, 1.6763848301838038, 0.6897673349851,
     0.14810397642748008, 0.015198666563616457, 0.0005475938084995345, 1.0507500716444169e-09),
)
TAIL = (
    (6.657904643501103, 5.463784911164114, 1.7848265399172913, 0.29656057182850487,
     0.026532189526576124, 0.0012426609473880784, 2.7115555687434876e-05, 2.0103343992922881e-07),
    (1.0, 0.599832206555888, 0.1369298809227358, 0.014875361290850615,
     0.0007868691311456133, 1.8463183175100548e-05, 1.421511758316446e-07, 2.0442631033899397e-15),
)
"""Numerators and denominators of PPND16, in ascending powers (Wichura, 1988)."""
# fmt: on

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""Coefficients of Stirling's series, in powers of 1 / x^2."""

SHIFT = 8
"""Steps of the recurrence that lead to it."""

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def ndtri(p: Tensor) -> Tensor:
    """The normal quantile function, to about 1e-15.

    Parameters
    ----------
    p : tensor of float64
        Between 0 and 1, both excluded.

    References
    ----------
    Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37, 1988.
    """
    # in the centre, a rational function of the distance from 1/2
    q = p - 0.5
    centre = q * _ratio(CENTRE, 0.180625 - q * q)

    # outside, one of the logarithm of the smaller tail
    r = torch.sqrt(-torch.log(torch.minimum(p, 1 - p)))
    outside = torch.where(r <= 5, _ratio(MIDDLE, r - 1.6), _ratio(TAIL, r - 5))
    return torch.where(q.abs() <= 0.425, centre, torch.sign(q) * outside)


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor) -> Tensor:
    numerator, denominator = polynomials
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Horner's rule."""
    value = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def searchsorted(
    sorted_sequence: Tensor,
    points: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """`torch.searchsorted` by counting, for few sorted numbers."""
    # numbers that are as large count on the right side only
    behind = points[..., :, None] >= sorted_sequence[..., None, :]
    if not (right or side == "right"):
        behind = points[..., :, None] > sorted_sequence[..., None, :]
    return behind.long().sum(-1)


def lgamma(x: Tensor) -> Tensor:
    """Logarithm of the gamma function, to about 1e-13, for positive numbers.

    Parameters
    ----------
    x : tensor of float64

    References
    ----------
    Abramowitz & Stegun, "Handbook of mathematical functions", 6.1.15 and 6.1.41, 1964.
    """
    # up to where the series is exact
    factor = torch.ones_like(x)
    for k in range(SHIFT):
        factor = factor * (x + k)
    far = x + SHIFT

    # what is left of it there
    inverse = 1 / far
    series = inverse * _polynomial(STIRLING, inverse * inverse)
    return (far - 0.5) * torch.log(far) - far + HALF_LOG_2PI + series - torch.log(factor)


DECOMPOSITIONS = {
    torch.ops.aten.lgamma.default: lgamma,
    torch.ops.aten.special_ndtri.default: ndtri,
    torch.ops.aten.searchsorted.Tensor: searchsorted,
}
"""By operator of torch, what stands for it in a graph."""
