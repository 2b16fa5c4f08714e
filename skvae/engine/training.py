"""The training loop. Knows tensors and modules, no scikit-learn."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from skvae.engine.adam import AdamState
from skvae.engine.flat_step import FlatStep
from skvae.engine.schedule import Schedule
from skvae.engine.steps import AutogradStep, make_step
from skvae.engine.watch import State, Watch, copy_state
from skvae.exceptions import DivergenceError
from skvae.model.network import VAE
from skvae.randomness import PrivateDraws
from skvae.threads import callers_threads, on_one_thread

WORK_PER_THREAD = 20_000_000
"""A step of fewer weights times rows than this runs on one thread: products this small gain nothing from more."""

DESCENT = 0.25
"""When the validation score no longer rises, the rate falls to 0 over this share of the steps so far, from the best."""

STEPS_PER_LOOK = 50
"""The validation rows are looked at after an epoch, or after this many steps if epochs are shorter."""


@dataclass
class History:
    """What happened in a fit. Losses and scores are in nats per row of the encoded units.

    Attributes
    ----------
    loss_curve : list of float
        Of each epoch.
    validation_scores : list of float
        Of each look at the validation rows.
    n_steps : int
        Number of gradient steps.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    n_steps: int = 0


@on_one_thread
def train(
    vae: VAE,
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    beta: float,
    penalty: float,
    generator: torch.Generator,
    validation: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    patience: int | None = None,
    tol: float = 0.0,
    schedule: bool = True,
    adam_state: AdamState | None = None,
    on_epoch: Callable[[int, History], object] | None = None,
) -> tuple[History, AdamState]:
    """Minimise ``-log p(x | z) + beta KL`` over the parameters of `vae`, in place.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width)
        Encoded training rows.
    weight : tensor of shape (n,), default=None
        Row weights with mean 1.
    n_epochs : int
        Passes over the rows, at most.
    batch_size : int
        Rows per gradient step, at most: every epoch is cut into batches of (nearly) equal size.
    learning_rate : float
        Initial step size of Adam.
    beta : float
        Weight of the KL term.
    penalty : float
        L2 penalty on the weights, per row.
    generator : torch.Generator
        Source of the row order and of the noise, on the CPU.
    validation : tuple (x, weight), default=None
        Rows whose ELBO is watched; the parameters of the best look are restored at the end, from a copy.
    patience : int, default=None
        After this many looks without an improvement by more than `tol`, go back to the best parameters, let the learning rate
        fall to 0 over a quarter of the steps so far, and stop; None never does.
    tol : float, default=0.0
        In nats per row.
    schedule : bool, default=True
        Phase the KL term in over the first fifth of the budget and let the learning rate follow a half cosine down to 0.
        False holds both constant, for training without a known end.
    adam_state : dict, default=None
        Where the optimiser goes on from.
    on_epoch : callable, default=None
        ``on_epoch(epoch, history) -> bool``, called after each epoch; True stops.

    Returns
    -------
    history : History
    adam_state : dict

    Raises
    ------
    DivergenceError
        If the loss is no longer finite. The parameters are then those of the last finite look, or of the start.
    """
    batches = Batches(x, weight, batch_size, vae.latent_dim, generator)
    plan = Schedule(learning_rate, beta, n_epochs * len(batches) if schedule else None)
    draws = _private_draws(vae, generator)
    step = make_step(vae, x, penalty, adam_state)
    start = copy_state(vae)
    history = History()

    watch = None
    if validation is not None:
        rows, row_weight = validation
        seed = generator.initial_seed()
        watch = Watch(vae, rows, row_weight, beta=beta, tol=tol, patience=patience, seed=seed, draws=draws)

    with _surroundings(vae, step, batches.n_rows):
        try:
            for epoch in range(n_epochs):
                _take_steps(vae, step, batches, plan, history, draws)
                _record_loss(step, len(x), beta, history)

                if watch is not None and _is_look_due(epoch, n_epochs, len(batches)):
                    history.validation_scores.append(watch.look())
                    if watch.is_tired and not plan.descending:
                        watch.restore()
                        plan.descend(history.n_steps, max(len(batches), int(DESCENT * history.n_steps)))

                if on_epoch is not None and on_epoch(epoch, history):
                    break
                if plan.is_over(history.n_steps):
                    break

            _keep_the_best(vae, watch, history)
        except DivergenceError:
            _go_back(vae, watch, start)
            raise

    return history, step.adam_state()


class Batches:
    """The rows in batches of nearly equal size, each time in another order and with fresh noise.

    Parameters
    ----------
    x : tensor of shape (n, layout.width)
    weight : tensor of shape (n,) or None
    batch_size : int
        Rows of a batch, at most.
    latent_dim : int
    generator : torch.Generator
        Source of orders and noise, on the CPU.

    Attributes
    ----------
    n_rows : int
        Rows of each batch but the last.
    """

    def __init__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        batch_size: int,
        latent_dim: int,
        generator: torch.Generator,
    ) -> None:
        self.x = x
        self.weight = weight
        self.latent_dim = latent_dim
        self.generator = generator

        # no last batch of a few rows
        self._n_batches = math.ceil(len(x) / batch_size)
        self.n_rows = math.ceil(len(x) / self._n_batches)

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]:
        """Rows, shape (n_rows, layout.width), their weights, shape (n_rows,), and noise, shape (latent_dim, n_rows)."""
        n = len(self.x)

        # drawn on the CPU, so that a seed means the same on every device
        order = torch.randperm(n, generator=self.generator).to(self.x.device)
        noise = torch.randn(self.latent_dim, n, generator=self.generator, dtype=self.x.dtype).to(self.x.device)

        for rows, own_noise in zip(order.split(self.n_rows), noise.split(self.n_rows, dim=1), strict=True):
            own_weight = None if self.weight is None else self.weight[rows]
            yield self.x.index_select(0, rows), own_weight, own_noise


def _private_draws(vae: VAE, generator: torch.Generator) -> PrivateDraws | None:
    """What modules of a user's draw from (dropout) in place of torch's own generators; None if there are none."""
    if not vae.has_custom_networks:
        return None

    return PrivateDraws(generator.initial_seed(), vae.device)


@contextlib.contextmanager
def _surroundings(vae: VAE, step: AutogradStep | FlatStep, n_rows: int) -> Iterator[None]:
    """What the loop needs around it: threads where they pay, and the module's own parameters back, whatever happens."""
    work = n_rows * sum(p.numel() for p in vae.parameters())

    with contextlib.ExitStack() as stack:
        stack.callback(step.release)
        if work >= WORK_PER_THREAD:
            stack.enter_context(callers_threads())

        # an overflow is found in the loss
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(torch.set_grad_enabled(step.by_autograd))

        yield


def _take_steps(
    vae: VAE,
    step: AutogradStep | FlatStep,
    batches: Batches,
    plan: Schedule,
    history: History,
    draws: PrivateDraws | None,
) -> None:
    """One epoch of gradient steps."""
    # modules of a user's may act otherwise in training
    if step.by_autograd:
        vae.train()

    for rows, weight, noise in batches:
        beta = plan.beta(history.n_steps)
        rate = plan.rate(history.n_steps)
        if draws is None:
            step(rows, weight, noise, beta, rate)
        else:
            draws.run(step, rows, weight, noise, beta, rate)
        history.n_steps += 1

    if step.by_autograd:
        vae.eval()


def _record_loss(step: AutogradStep | FlatStep, n: int, beta: float, history: History) -> None:
    """Add the mean loss of the epoch's `n` rows to the history, or raise an error if it is not finite."""
    # the only number of an epoch that is read back from the device
    nll, kl = step.pop_totals()
    loss = nll / n + beta * (kl / n)
    history.loss_curve.append(loss)

    if not math.isfinite(loss):
        raise DivergenceError(f"the loss became {loss} in epoch {len(history.loss_curve)}")


def _is_look_due(epoch: int, n_epochs: int, n_batches: int) -> bool:
    """Whether the validation rows are looked at after an epoch; the first one is number 0."""
    epochs_per_look = math.ceil(STEPS_PER_LOOK / n_batches)

    return (epoch + 1) % epochs_per_look == 0 or epoch + 1 == n_epochs


def _keep_the_best(vae: VAE, watch: Watch | None, history: History) -> None:
    """Load the parameters of the best look, if there is one, or raise an error if parameters are not finite."""
    # the last step may have spoilt them after the loss was computed
    for p in vae.parameters():
        if not torch.isfinite(p).all():
            raise DivergenceError("the weights are no longer finite")
    if watch is None:
        return

    # stopped before the first look
    if watch.best_state is None:
        history.validation_scores.append(watch.look())
    if watch.best_state is None:
        raise DivergenceError("the validation score is not finite")

    watch.restore()


def _go_back(vae: VAE, watch: Watch | None, start: State) -> None:
    """Load the parameters of the best look, or else those of the start."""
    if watch is not None and watch.best_state is not None:
        watch.restore()
    else:
        vae.load_state_dict(start)
