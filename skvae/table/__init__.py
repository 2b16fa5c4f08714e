"""A table <-> the float matrix that the network reads and models.

Imports nothing else of the package: what a column *is* (its kind, its units, its dtype) is settled here, how probable its
cells are in :mod:`skvae.model.likelihoods`.
"""

from skvae.table.containers import as_frame, as_table
from skvae.table.layout import Layout
from skvae.table.table import EncodedRows, Table

__all__ = ["EncodedRows", "Layout", "Table", "as_frame", "as_table"]
