"""Exposure: the column that the counts of a row are in proportion to (days observed, policy years, the row's total)."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from skvae.table.quantiles import QuantileMap, decode_part

COUNTS = ("poisson", "negative_binomial")


@dataclass(frozen=True)
class Exposure:
    """How the offset of a row's counts follows from its exposure.

    A count has the mean ``exp(output + offset)``, with the decoder's output and ``offset = log(exposure / mean exposure)``
    (McCullagh & Nelder, 1989, section 6.3): the output is the log mean at the mean exposure of the training rows, so that the
    unit of the exposure does not matter.

    Attributes
    ----------
    column : int
        Its position in the table.
    parts : tuple of (int, str)
        Position and kind of its parts; none if it was constant at fit.
    location, scale : float
        As in `TableEncoder`.
    quantiles : QuantileMap or None
    smallest, log_mean : float
        Smallest exposure seen at fit, below which none is decoded or drawn, and the logarithm of the mean one.
    """

    column: int
    parts: tuple
    location: float
    scale: float
    quantiles: QuantileMap | None
    smallest: float
    log_mean: float

    def offsets(self, exposures):
        """Offsets of the counts for exposures of shape (n,), both in float64; NaN where missing."""
        return np.log(exposures) - self.log_mean

    def offsets_of_parts(self, cells):
        """Offsets of the counts, shape (n,), for decoded or drawn parts, shape (n, n_parts)."""
        values = np.full(len(cells), self.location)
        for i, kind in self.parts:
            decode_part(values, cells[:, i], kind, self.location, self.scale, self.quantiles)
        return self.offsets(np.maximum(values, self.smallest))


def exposure_column(exposure, names, levels, asked, likelihood):
    """The position of the column `exposure`, or None. Its kind among those `asked` becomes one that draws positive numbers."""
    if exposure is None:
        return None
    n = len(names)
    j = names.index(exposure) if exposure in names else exposure
    if not isinstance(j, Integral) or not -n <= j < n:
        raise ValueError(
            f"exposure={exposure!r} names no column: the table has {n} columns "
            f"({', '.join(map(repr, names[:5]))}{', ...' if n > 5 else ''}). Give a column's name or its index."
        )
    j = int(j) % n
    if levels[j] is not None:
        raise ValueError(
            f"exposure={exposure!r} names a categorical column; expected one of positive numbers, such as the time observed."
        )
    if isinstance(likelihood, dict) and asked[j] not in ("auto", "normal", "quantile_normal"):
        raise ValueError(
            f"exposure={exposure!r} names a column that likelihood models as {asked[j]!r}. Leave it out of likelihood, or "
            f"name it under 'normal' or 'quantile_normal'."
        )
    if not any(kind in COUNTS for i, kind in enumerate(asked) if i != j):
        raise ValueError(
            f"exposure={exposure!r}, but no other column is a count. Say which are by likelihood={{'poisson': [...]}} or "
            f"{{'negative_binomial': [...]}}, or leave exposure out."
        )
    if asked[j] not in ("normal", "quantile_normal"):
        asked[j] = "quantile_normal"
    return j


def order_of_columns(kinds, exposure):
    """The columns in the order in which they are drawn: that of the table, but the exposure before the first count."""
    order = list(range(len(kinds)))
    counts = [j for j in order if kinds[j] in COUNTS]
    if exposure is not None and counts and exposure > counts[0]:
        order.insert(counts[0], order.pop(exposure))
    return order


def check_positive(exposures, label):
    """Raise if an exposure, of shape (n,), is there but not positive."""
    wrong = np.flatnonzero(exposures <= 0)
    if len(wrong):
        raise ValueError(
            f"Column {label} is the exposure of the counts, which must be positive, but {len(wrong)} of {len(exposures)} rows "
            f"hold {exposures[wrong[0]]:g} or the like (the first is row {wrong[0]}). Drop these rows: without exposure a "
            f"count says nothing."
        )


def check_there(exposures, counts, label):
    """Raise if an exposure, of shape (n,), is missing in a row that holds one of the `counts`, shape (n, n_counts)."""
    missing = np.flatnonzero(np.isnan(exposures) & ~np.isnan(counts).all(1))
    if len(missing):
        raise ValueError(
            f"Column {label} is the exposure of the counts, but it is missing in {len(missing)} of {len(exposures)} rows that "
            f"hold a count (the first is row {missing[0]}). Fill it in, drop these rows, or mark their counts as missing, "
            f"too; a fitted model's impute fills it in."
        )
