"""A table <-> the float matrix that the network reads and models.

Imports nothing else of the package: what a column *is* (its kind, its units, its dtype) is settled here, what it is
worth (its density) in :mod:`skvae.likelihoods`.
"""

from skvae.columns.encoder import KINDS, Layout, TableEncoder
from skvae.columns.tables import TableReader, as_table

__all__ = ["KINDS", "Layout", "TableEncoder", "TableReader", "as_table"]
