"""Kinds of column: from the values of one column to the parts of an encoded row, and back.

One class per kind. The class of the same name in `skvae.model.likelihoods` says how probable a part is. A new kind is a class
here and one there: what it is called, parameters and error messages learn from the registry.
"""

from skvae.table.kinds.base import KINDS, SECTIONS, EncodedPart, Kind, Part, order_of_parts
from skvae.table.kinds.choice import LIKELIHOODS, choose_kind
from skvae.table.kinds.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from skvae.table.kinds.levels import Categorical, Constant
from skvae.table.kinds.numbers import Bernoulli, Normal
from skvae.table.kinds.quantile_normal import QuantileNormal

__all__ = [
    "KINDS",
    "LIKELIHOODS",
    "SECTIONS",
    "Bernoulli",
    "Categorical",
    "Constant",
    "EncodedPart",
    "Kind",
    "NegativeBinomial",
    "Normal",
    "Part",
    "Poisson",
    "QuantileNormal",
    "ZeroInflatedNegativeBinomial",
    "choose_kind",
    "order_of_parts",
]
