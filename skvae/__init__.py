"""A variational autoencoder that behaves like any other scikit-learn estimator."""

from skvae.estimator import VAEEstimator
from skvae.evaluation import evaluate
from skvae.persistence import load, save
from skvae.pipelines import sample_pipeline
from skvae.version import __version__ as __version__

__all__ = ["VAEEstimator", "evaluate", "load", "sample_pipeline", "save"]
