"""p(x | z) of an encoded row: one block per kind of column, and their product over the row."""

from skvae.model.likelihoods.base import BLOCKS, LOGIT_MAX, Block, held
from skvae.model.likelihoods.bernoulli import Bernoulli, bernoulli_log_prob
from skvae.model.likelihoods.categorical import Categorical
from skvae.model.likelihoods.counts import (
    LOG_DISPERSION_MAX,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
    negative_binomial_log_prob,
    poisson_log_prob,
    zero_inflated_log_prob,
)
from skvae.model.likelihoods.normal import LOG_STD_MIN, Normal, NormalMixture, normal_log_prob
from skvae.model.likelihoods.row import Likelihood, Place, mean_row

__all__ = [
    "BLOCKS",
    "LOGIT_MAX",
    "LOG_DISPERSION_MAX",
    "LOG_STD_MIN",
    "Bernoulli",
    "Block",
    "Categorical",
    "Likelihood",
    "NegativeBinomial",
    "Normal",
    "NormalMixture",
    "Place",
    "Poisson",
    "ZeroInflatedNegativeBinomial",
    "bernoulli_log_prob",
    "held",
    "mean_row",
    "negative_binomial_log_prob",
    "normal_log_prob",
    "poisson_log_prob",
    "zero_inflated_log_prob",
]
