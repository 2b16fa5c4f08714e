"""Pictures of what a model knows, each in one line: `from_estimator` or `from_tables`, as scikit-learn's displays."""

from skvae.displays.active_units import ActiveUnitsDisplay
from skvae.displays.anomaly import AnomalyDisplay
from skvae.displays.latent_space import LatentSpaceDisplay
from skvae.displays.loss_curve import LossCurveDisplay
from skvae.displays.marginals import MarginalsDisplay
from skvae.displays.pairs import PairsDisplay
from skvae.displays.reconstruction import ReconstructionDisplay
from skvae.displays.traversal import LatentTraversalDisplay

__all__ = [
    "ActiveUnitsDisplay",
    "AnomalyDisplay",
    "LatentSpaceDisplay",
    "LatentTraversalDisplay",
    "LossCurveDisplay",
    "MarginalsDisplay",
    "PairsDisplay",
    "ReconstructionDisplay",
]
