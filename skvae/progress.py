"""What is told of long work: a line is printed, and around the epochs of a fit scikit-learn's callbacks are called."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skvae.engine.training import History, TrainingState

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

LINES_OF_REPORT = 20
"""Number of lines, about, that ``verbose=True`` prints."""

SECONDS_BETWEEN_LINES = 2.0
"""Seconds between two lines on rows that are done, and before the first of them."""


class Progress:
    """A callable for the training loop: after an epoch, it prints and calls back.

    Parameters
    ----------
    estimator : VAEEstimator
        Whose callbacks are called, and whose `verbose` says whether to print.
    arguments : dict
        What the hooks are told beside the estimator: see `hook_args`.
    n_epochs : int
        Largest number of epochs.
    log_scale : float
        What is added to losses to have them in the units of the table, in nats per row.
    snapshot : callable
        ``snapshot(history, state) -> dict`` gives the fitted attributes as they are now; ``state()`` is where training stands.
    """

    def __init__(
        self,
        estimator: VAEEstimator,
        arguments: dict[str, Any],
        *,
        n_epochs: int,
        log_scale: float,
        snapshot: Callable[[History, Callable[[], TrainingState]], dict[str, Any]],
    ) -> None:
        self.verbose = estimator.verbose
        self.callbacks = list(getattr(estimator, "_skl_callbacks", None) or ())
        self.context = estimator._init_callback_context(max_subtasks=n_epochs)
        self.arguments = {"estimator": estimator, **arguments}
        self.n_epochs = n_epochs
        self.log_scale = log_scale
        self.snapshot = snapshot

    def begin(self) -> None:
        """Say that the fit begins."""
        self.context.call_on_fit_task_begin(**self.arguments)

    def end(self, attributes: dict[str, Any]) -> None:
        """Say that the fit has ended with these fitted attributes."""
        self.context.call_on_fit_task_end(**self.arguments, reconstruction_attributes=self._all_of(attributes))

    def __call__(self, epoch: int, history: History, state: Callable[[], TrainingState]) -> bool:
        """Report `epoch`, counted from 0; True asks the loop to stop."""
        if self.verbose and (epoch + 1) % max(1, self.n_epochs // LINES_OF_REPORT) == 0:
            print(self.line(epoch, history))
        if not self.callbacks:
            return False

        # the task tree of scikit-learn: one task per epoch below that of the fit
        task = self.context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(**self.arguments)

        # a copy of the model takes time: callbacks that do not look at it do without
        def attributes() -> dict[str, Any]:
            if not any(map(_is_due, self.callbacks)):
                return {}
            return self._all_of(self.snapshot(history, state))

        return task.call_on_fit_task_end(**self.arguments, reconstruction_attributes=attributes)

    def _all_of(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Fitted attributes, and None for those that the estimator has from a former fit and not from this one."""
        stale: dict[str, None] = {}
        for name in vars(self.arguments["estimator"]):
            # scikit-learn sets attributes on a copy of the estimator, such as names of columns, and removes none
            if name.endswith("_") and name not in attributes:
                stale[name] = None
        return attributes | stale

    def line(self, epoch: int, history: History) -> str:
        """The loss and the validation score of an epoch, in nats per row."""
        text = f"epoch {epoch + 1}/{self.n_epochs}: loss {history.loss_curve[-1] + self.log_scale:.4f}"
        if history.validation_scores:
            text += f", validation score {history.validation_scores[-1] - self.log_scale:.4f}"
        return text + " nats per row"


def _is_due(callback: Any) -> bool:
    """Whether a callback looks at the model after this epoch: it may say so by a method `is_due`."""
    return not hasattr(callback, "is_due") or callback.is_due()


class RowReport:
    """A callable for work on many rows, which prints how many of them are done every few seconds.

    Parameters
    ----------
    what : str
        The work: the name of the method that was called.
    n_rows : int or str
        Number of all rows, or what to call them where nobody has counted them.
    verbose : bool or int
        Whether to print.
    """

    def __init__(self, what: str, n_rows: int | str, verbose: bool | int) -> None:
        self.what = what
        self.n_rows = n_rows
        self.verbose = verbose
        self.n_done = 0
        self._last = time.monotonic()

    def __call__(self, n: int) -> None:
        """Count `n` more rows as done."""
        self.n_done += n
        now = time.monotonic()

        # work of a moment says nothing
        if self.verbose and now - self._last >= SECONDS_BETWEEN_LINES:
            print(f"{self.what}: {self.n_done}/{self.n_rows} rows")
            self._last = now


def hook_args(X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
    """What scikit-learn's hooks are told of the data of a fit."""
    # scorers of callbacks want a target, if only one to ignore
    arguments = {"X": X, "y": y}
    if y is None:
        arguments["y"] = X
    if sample_weight is not None:
        arguments["metadata"] = {"sample_weight": sample_weight}
    return arguments
