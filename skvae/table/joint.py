"""A table and its target: side by side, taken apart, and new rows below old ones, in whatever container they come."""

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.utils import _safe_indexing

from skvae.table.containers import as_frame


def plain(y):
    """A list or a frame's column as an array."""
    return np.asarray(y) if hasattr(y, "to_numpy") or isinstance(y, list) else y


def dense(X):
    """A pandas frame with its sparse columns made dense; anything else as it is."""
    dtypes = X.dtypes.items() if hasattr(X, "iloc") else ()
    sparse = {name: dtype.subtype for name, dtype in dtypes if type(dtype).__name__ == "SparseDtype"}
    return X.astype(sparse) if sparse else X


def join(table, target):
    """The table with the target as its last column, and that column's name (or index)."""
    frame = as_frame(table)
    if frame is None:
        return np.column_stack([table, target]), table.shape[1]
    name = "target" if all(isinstance(c, str) for c in frame.columns) else len(frame.columns)
    while name in frame.columns:
        name += "_" if isinstance(name, str) else 1
    frame = nw.maybe_reset_index(frame)
    column = nw.new_series(name, np.asarray(target), backend=nw.get_native_namespace(frame))
    return frame.with_columns(column).to_native(), name


def split(joint):
    """The rows of a joint table without their target, and the target as an array."""
    frame = as_frame(joint)
    if frame is None:
        return joint[:, :-1], joint[:, -1]
    return frame[:, : frame.shape[1] - 1].to_native(), frame[:, -1].to_numpy()


def take(container, rows):
    """Some rows of a container, by position."""
    return [container[i] for i in rows] if isinstance(container, list) else _safe_indexing(container, rows)


def stack(old, new):
    """Rows of `new` below those of `old`, in the container and the dtypes of `old`."""
    if isinstance(old, list):
        return old + (new if isinstance(new, list) else new.tolist())
    native = nw.from_native(old, allow_series=True, pass_through=True)
    if native is old:
        old, new = np.asarray(old), np.asarray(new)
        rounded = np.rint(new) if old.dtype.kind in "iub" and new.dtype.kind == "f" else new
        return np.concatenate([old, rounded.astype(old.dtype)])
    library = nw.get_native_namespace(native)
    if hasattr(old, "iloc"):
        dtypes = old.dtypes if isinstance(native, nw.Series) else dict(old.dtypes)
        return library.concat([old, new.astype(dtypes)], ignore_index=True)
    return library.concat([old, new])


def numbers_like(y, values):
    """Numbers as a list, an array or a frame's column like y."""
    native = nw.from_native(y, allow_series=True, pass_through=True)
    if native is y:
        return values.tolist() if isinstance(y, list) else values.reshape(-1, *np.shape(y)[1:])
    column = native[:, 0] if isinstance(native, nw.DataFrame) else native
    values = np.rint(values) if column.dtype.is_integer() else values
    column = nw.new_series(column.name, values, backend=nw.get_native_namespace(native)).cast(column.dtype)
    return (column.to_frame() if isinstance(native, nw.DataFrame) else column).to_native()
