"""A table <-> the float matrix that the network reads and models.

Imports nothing else of the package: what a column *is* (its kind, its units, its dtype) is settled here, what it is
worth (its density) in :mod:`skvae.model.likelihoods`.
"""

from skvae.table.containers import TableReader, as_table
from skvae.table.layout import Layout
from skvae.table.table import KINDS, TableEncoder

__all__ = ["KINDS", "Layout", "TableEncoder", "TableReader", "as_table"]
