"""Callbacks of scikit-learn's protocol, for `VAEEstimator.set_callbacks`."""

from __future__ import annotations

import os
from typing import Any

from skvae.parameters import check_positive_integer
from skvae.persistence import save


class Checkpoint:
    """Writes the fit as it stands to a file, every so many epochs: a fit that was killed goes on from there.

    The file is one of `skvae.save`. The model in it answers as any other one does, and `fit` goes on with it under
    ``warm_start=True``: with the same rows and parameters it comes to the end of the fit that was not killed, to the bit. The
    file stays after a fit that has ended.

    Parameters
    ----------
    path : str or path-like
        Where to write; each time the file before is replaced.
    every : int, default=10
        Epochs from one file to the next. Each file costs a copy of the network and an encoding of (at most 20,000) rows.

    See Also
    --------
    skvae.save : What is written, and what cannot be.

    Examples
    --------
    >>> import os, tempfile, skvae
    >>> from sklearn.datasets import load_wine
    >>> from skvae.callbacks import Checkpoint
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "fit.safetensors")
    ...     vae = skvae.VAEEstimator(2, max_iter=30, random_state=0).set_callbacks(Checkpoint(path)).fit(X)
    ...     same = skvae.load(path).set_params(warm_start=True).fit(X)
    >>> bool((same.transform(X) == vae.transform(X)).all())
    True
    """

    def __init__(self, path: str | os.PathLike, every: int = 10) -> None:
        self.path = path
        self.every = every

    def setup(self, estimator: Any, context: Any) -> None:
        """Check the parameters when a fit begins."""
        self._every = check_positive_integer("every", self.every)
        self._n_epochs = 0

    def teardown(self, estimator: Any, context: Any) -> None:
        """Nothing is left to do when a fit has ended."""

    def is_due(self) -> bool:
        """Whether a file is to be written after the epoch that is ending."""
        return (self._n_epochs + 1) % self._every == 0

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Nothing is done before an epoch."""

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any = None) -> None:
        """Write the file if it is due after this epoch."""
        # the fit itself is a task, too
        if context.task_name != "epoch":
            return

        if self.is_due():
            save(fitted_estimator, self.path)
        self._n_epochs += 1
