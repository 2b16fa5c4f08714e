"""Names of scikit-learn that are not public, imported here only: when one of them changes, one file is mended."""

# the decorator of every scikit-learn `fit`: it checks parameters against their ranges, once for nested estimators
from sklearn.base import _fit_context as fit_context

# takes rows by position from an array, a sparse matrix, a pandas or a polars frame; there is no public equivalent
from sklearn.utils import _safe_indexing as safe_indexing

# ranges of parameters as data, with the error messages that users of scikit-learn know
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

# one weight per row: shape, dtype and sign are checked as in every other estimator
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = ["HasMethods", "Interval", "StrOptions", "check_sample_weight", "fit_context", "safe_indexing"]
