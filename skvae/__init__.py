"""A variational autoencoder that behaves like any other scikit-learn estimator."""

from skvae.estimator import VAEEstimator
from skvae.pipelines import sample_pipeline

__version__ = "0.1.0.dev0"

__all__ = ["VAEEstimator", "sample_pipeline"]
