"""Names of scikit-learn that are not public: every one that the package needs, so that a new release is met in one file."""

# the decorator that validates parameters before fit, as every estimator of scikit-learn has it
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing

# the declarative constraints of parameters
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

check_sample_weight = _check_sample_weight
fit_context = _fit_context
safe_indexing = _safe_indexing

__all__ = ["HasMethods", "Interval", "StrOptions", "check_sample_weight", "fit_context", "safe_indexing"]
