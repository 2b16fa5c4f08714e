"""The training loop: batches, optimiser, schedules, early stopping. Knows tensors and modules, no scikit-learn."""

import contextlib
import functools
import math
from dataclasses import dataclass, field

import numpy as np
import torch

from skvae.engine.steps import AutogradStep, make_step
from skvae.model.network import has_own_modules
from skvae.randomness import PrivateDraws
from skvae.threads import on_callers_threads, on_one_thread

WARM_UP = 0.2  # share of the budget over which the KL term is phased in (Bowman et al., 2016)

WORK_PER_THREAD = 20_000_000
"""A step of fewer weights times rows than this runs on one thread: products this small gain nothing from more."""

DESCENT = 0.25
"""When the validation score no longer rises, the rate falls to 0 over this share of the steps so far, from the best."""

STEPS_PER_CHECK = 50  # the validation rows are looked at after an epoch, or after this many steps if epochs are shorter


@dataclass
class History:
    """What happened in a fit. Losses and scores are in nats per row of the encoded units."""

    loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    n_steps: int = 0


@on_one_thread
def train(
    vae,
    x,
    weight=None,
    *,
    n_epochs,
    batch_size,
    learning_rate,
    beta,
    penalty,
    generator,
    validation=None,
    patience=None,
    tol=0.0,
    schedule=True,
    adam_state=None,
    on_epoch=None,
):
    """Minimise ``-log p(x | z) + beta KL`` over the parameters of `vae`, in place.

    Parameters
    ----------
    vae : VAE
    x : tensor of shape (n, layout.width + 1)
        Encoded training rows, with a last column of ones.
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
        After so many looks without an improvement by more than `tol`, go back to the best parameters, let the learning rate
        fall to 0 over a quarter of the steps so far, and stop; None never does.
    schedule : bool, default=True
        Phase the KL term in over the first `WARM_UP` of the budget and let the learning rate follow a half cosine down
        to 0. False holds both constant, for training without a known end.
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
    FloatingPointError
        If the loss is no longer finite. The parameters are then those of the last finite look, or of the start.
    """
    n = len(x)
    n_batches = math.ceil(n / batch_size)
    rows_per_batch = math.ceil(n / n_batches)
    plan = _Plan(learning_rate, beta, n_epochs * n_batches if schedule else None)
    epochs_per_check = math.ceil(STEPS_PER_CHECK / n_batches)
    step = make_step(vae, x, penalty, adam_state)
    watch = None if validation is None else _Watch(vae, *validation, beta=beta, tol=tol, seed=generator.initial_seed())
    start = _copy_state(vae)
    history = History()

    take_step = step
    look = None if watch is None else watch.look
    if has_own_modules(vae):
        draws = PrivateDraws(generator.initial_seed(), vae.device)
        take_step = functools.partial(draws.run, step)
        look = None if watch is None else functools.partial(draws.run, watch.look)

    modes = isinstance(step, AutogradStep)  # modules of one's own may behave otherwise in training
    work = rows_per_batch * sum(p.numel() for p in vae.parameters())

    def give_up(reason):
        vae.load_state_dict(start if watch is None or watch.best_state is None else watch.best_state)
        raise FloatingPointError(reason)

    def run():
        with contextlib.ExitStack() as stack:
            stack.callback(step.release)  # the module's parameters are its own again, whatever happens
            stack.enter_context(np.errstate(all="ignore"))  # an overflow is found in the loss
            stack.enter_context(torch.set_grad_enabled(modes))
            for epoch in range(n_epochs):
                if modes:
                    vae.train()
                for rows, noise in _batches(n, rows_per_batch, vae.latent_dim, x, generator):
                    rows_weight = None if weight is None else weight[rows]
                    take_step(
                        x.index_select(0, rows),
                        rows_weight,
                        noise,
                        plan.beta(history.n_steps),
                        plan.rate(history.n_steps),
                    )
                    history.n_steps += 1
                if modes:
                    vae.eval()
                nll, kl = (total / n for total in step.pop_totals())
                history.loss_curve.append(nll + beta * kl)
                if not math.isfinite(history.loss_curve[-1]):
                    give_up(f"the loss became {history.loss_curve[-1]} in epoch {epoch + 1}")
                if watch is not None and ((epoch + 1) % epochs_per_check == 0 or epoch + 1 == n_epochs):
                    history.validation_scores.append(look())
                    tired = patience is not None and watch.n_without_gain >= patience
                    if tired and not plan.descending and watch.best_state is not None:
                        vae.load_state_dict(watch.best_state)
                        plan.descend(history.n_steps, max(n_batches, int(DESCENT * history.n_steps)))
                if (on_epoch is not None and on_epoch(epoch, history)) or plan.is_over(history.n_steps):
                    break
            if not all(torch.isfinite(p).all() for p in vae.parameters()):
                give_up("the weights are no longer finite")
            if watch is not None:
                if watch.best_state is None:  # stopped before the first look
                    history.validation_scores.append(look())
                if watch.best_state is None:
                    give_up("the validation score is not finite")
                vae.load_state_dict(watch.best_state)

    if work >= WORK_PER_THREAD:
        run = on_callers_threads(run)
    run()
    return history, step.adam_state()


def _batches(n, rows_per_batch, latent_dim, x, generator):
    """The batches of an epoch: row numbers, shape (rows,), and noise, shape (latent_dim, rows)."""
    order = torch.randperm(n, generator=generator).to(x.device)
    noise = torch.randn(latent_dim, n, generator=generator, dtype=x.dtype).to(x.device)
    return zip(order.split(rows_per_batch), noise.split(rows_per_batch, dim=1), strict=True)


class _Plan:
    """KL weight and learning rate of each step: constant without a known end, else phased in and a half cosine down."""

    def __init__(self, learning_rate, beta, n_steps):
        self.top, self.full, self.n_steps = learning_rate, beta, n_steps
        self.first, self.length, self.descending = 0, n_steps, False

    def beta(self, step):
        return self.full if self.n_steps is None else self.full * min(1.0, (step + 1) / (WARM_UP * self.n_steps))

    def rate(self, step):
        if self.length is None:
            return self.top
        return self.top * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.first) / self.length)))

    def descend(self, step, length):
        """Let the rate fall to 0 over `length` more steps from where it is."""
        self.top, self.first, self.length, self.descending = self.rate(step), step, length, True

    def is_over(self, step):
        return self.descending and step >= self.first + self.length


class _Watch:
    """The held-out ELBO, with the same noise at every look, and a copy of the parameters that had the best."""

    def __init__(self, vae, x, weight, *, beta, tol, seed):
        self.vae, self.x, self.beta, self.tol = vae, x, beta, tol
        self.weight = torch.ones(len(x), dtype=x.dtype, device=x.device) if weight is None else weight
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(len(x), vae.latent_dim, generator=generator, dtype=x.dtype).to(x.device)
        self.best_score, self.best_state, self.n_without_gain = -math.inf, None, 0
        self._reference = -math.inf  # the score that the next gain is measured from

    @torch.no_grad()
    def look(self):
        total = 0.0
        for x, noise, weight in zip(*(t.split(8192) for t in (self.x, self.noise, self.weight)), strict=True):
            nll, kl = self.vae.elbo_terms(x, noise)
            total -= float(((nll + self.beta * kl) * weight).sum())
        score = total / float(self.weight.sum())
        if score > self.best_score:  # never one that is not a number
            self.best_score, self.best_state = score, _copy_state(self.vae)
        gained = score > self._reference + self.tol
        self.n_without_gain = 0 if gained else self.n_without_gain + 1
        self._reference = score if gained else self._reference
        return score


def _copy_state(vae):
    """A copy of every parameter and buffer: `state_dict` alone only refers to them."""
    return {name: tensor.detach().clone() for name, tensor in vae.state_dict().items()}
