"""The training loop. Knows tensors and modules, no scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from skvae.engine.adam import AdamState, flat, nested
from skvae.engine.averages import Average
from skvae.engine.batches import Batches
from skvae.engine.flat_step import FlatStep
from skvae.engine.paths import Arrays, below, put
from skvae.engine.ranks import Alone, Ranks
from skvae.engine.schedule import Schedule
from skvae.engine.steps import AutogradStep, make_step
from skvae.engine.watch import State, Watch, copy_state
from skvae.exceptions import DivergenceError
from skvae.model.network import VAE
from skvae.randomness import PrivateDraws
from skvae.threads import on_callers_threads, on_one_thread

CURVES = ("reconstruction", "kl", "learning_rate", "n_steps", "look")
"""What is kept of a fit beside its losses and scores."""

WORK_PER_THREAD = 20_000_000
"""A step of fewer weights times rows than this runs on one thread: products this small gain nothing from more."""


TrainingState = Arrays
"""Where a loop stands between two epochs, all but the parameters."""

Curves = dict[str, list[float]]
"""Numbers of a fit by name, one per epoch or one per look."""

OnEpoch = Callable[[int, "History", Callable[[], TrainingState]], object]
"""``on_epoch(epoch, history, state) -> bool``: what is called after each epoch; True stops."""


@dataclass
class History:
    """What happened in a fit. Losses and scores are in nats per row of the encoded units.

    Attributes
    ----------
    loss_curve : list of float
        Of each epoch; the last one may end early.
    validation_scores : list of float
        Of each look at the validation rows.
    n_steps : int
        Number of gradient steps.
    curves : dict of str to (list of float)
        By epoch: ``"reconstruction"`` and ``"kl"``, the parts of the loss; ``"learning_rate"`` and ``"n_steps"`` at its end.
        By look: ``"look"``, the number of gradient steps before it.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    n_steps: int = 0
    curves: Curves = field(default_factory=lambda: {name: [] for name in CURVES})


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
    seed: int,
    validation: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    patience: int | None = None,
    tol: float = 0.0,
    schedule: bool = True,
    adam_state: AdamState | None = None,
    resume: TrainingState | None = None,
    on_epoch: OnEpoch | None = None,
    ranks: Alone | Ranks | None = None,
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
        Initial step size of Adam; that of Muon is in proportion.
    beta : float
        Weight of the KL term.
    penalty : float
        L2 penalty on the weights, per row.
    seed : int
        Source of the row order and of the noise.
    validation : tuple (x, weight), default=None
        Rows whose ELBO is watched: that of the averaged parameters, for as long as the learning rate does not fall to 0. The
        parameters of the best look are restored at the end, from a copy.
    patience : int, default=None
        When this many looks have improved the best score by no more than `tol`, let the learning rate fall to 0, and stop;
        None never does.
    tol : float, default=0.0
        In nats per row.
    schedule : bool, default=True
        Phase the KL term in, and let the learning rate fall to 0 towards the end. False does neither, for training without an
        end.
    adam_state : dict, default=None
        Where the optimiser goes on from.
    resume : dict of str to ndarray, default=None
        What ``state()`` of `on_epoch` returned in an earlier call; `vae` has the parameters of then. The loop goes on after
        that epoch and comes to the same end as that call, to the bit, if all else is the same.
    on_epoch : callable, default=None
        ``on_epoch(epoch, history, state) -> bool``, called after each epoch; True stops. ``state()`` is where the loop stands.
    ranks : Alone or Ranks, default=None
        The processes that train together, each on its rows; None is this one alone.

    Returns
    -------
    history : History
    adam_state : dict

    Raises
    ------
    DivergenceError
        If the loss is no longer finite. The parameters are then those of the last finite look, or of the start.
    """
    ranks = ranks or Alone()
    ranks.start_alike(vae)
    generator = ranks.generator(seed)
    batches = ranks.batches(x, weight, batch_size, vae.noise_dim, generator)
    plan = Schedule(learning_rate, beta, n_epochs * len(batches) if schedule else None, first=_n_updates(adam_state))
    draws = _private_draws(vae, generator)
    watch = None
    if validation is not None:
        rows, row_weight = validation
        watch = Watch(
            vae,
            rows,
            row_weight,
            beta=beta,
            tol=tol,
            patience=patience,
            seed=generator.initial_seed(),
            draws=draws,
            ranks=ranks,
        )

    start = copy_state(vae)
    if resume is not None:
        adam_state = nested(below(resume, "adam/"))
    step = make_step(vae, x, penalty, adam_state, ranks)
    loop = _Loop(vae, step, batches, plan, watch, draws, on_epoch, ranks)
    if resume is not None:
        loop.load(resume)

    run = loop.run
    if batches.n_rows * sum(p.numel() for p in vae.parameters()) >= WORK_PER_THREAD:
        run = on_callers_threads(loop.run)

    try:
        # an overflow is found in the loss
        with np.errstate(all="ignore"), torch.set_grad_enabled(step.by_autograd):
            run(n_epochs)
    except DivergenceError:
        _go_back(vae, watch, start)
        raise
    finally:
        # the module's parameters are its own again, whatever happens
        step.release()

    return loop.history, step.adam_state()


class _Loop:
    """Epochs of gradient steps, looks at the validation rows between them, and an end.

    Parameters
    ----------
    vae : VAE
        Trained in place.
    step : AutogradStep or FlatStep
    batches : Batches
    plan : Schedule
    watch : Watch or None
    draws : PrivateDraws or None
        What modules of a user's draw from.
    on_epoch : callable or None
    ranks : Alone or Ranks

    Attributes
    ----------
    history : History
    """

    def __init__(
        self,
        vae: VAE,
        step: AutogradStep | FlatStep,
        batches: Batches,
        plan: Schedule,
        watch: Watch | None,
        draws: PrivateDraws | None,
        on_epoch: OnEpoch | None,
        ranks: Alone | Ranks,
    ) -> None:
        self.vae = vae
        self.step = step
        self.batches = batches
        self.plan = plan
        self.watch = watch
        self.draws = draws
        self.on_epoch = on_epoch
        self.ranks = ranks
        self.history = History()
        self.next_look = plan.next_look(0)
        self.is_seen = False

        # buffers of a user's modules belong to the parameters of their last step
        self.average: Average | None = None
        if watch is not None and not vae.has_custom_networks:
            self.average = Average(vae)

    def run(self, n_epochs: int) -> None:
        """At most `n_epochs` epochs, those before it went on included; the best parameters are kept at the end."""
        for epoch in range(len(self.history.loss_curve), n_epochs):
            # already where another loop has ended, too
            if self.plan.is_over(self.history.n_steps):
                break

            n_rows = self.take_steps()
            self.record_loss(n_rows)

            stop = self.on_epoch is not None and self.on_epoch(epoch, self.history, self.state)
            if self.ranks.any(stop):
                break

        # the last step comes after the last loss
        self.check_weights()
        if self.watch is not None:
            self.keep_the_best(self.watch)

    def state(self) -> TrainingState:
        """What `load` goes on from, in copies."""
        state = {
            "loss_curve": np.array(self.history.loss_curve),
            "validation_scores": np.array(self.history.validation_scores),
            "n_steps": np.array(self.history.n_steps),
            "descent": np.array([self.plan.start, self.plan.end], dtype=np.float64),
            "next_look": np.array(self.next_look),
            "is_seen": np.array(self.is_seen),
            "generator": self.batches.generator.get_state().numpy().copy(),
        }

        for name, curve in self.history.curves.items():
            state[f"curves/{name}"] = np.array(curve, dtype=np.float64)
        put(state, "adam/", flat(self.step.adam_state()))
        if self.average is not None:
            put(state, "average/", self.average.state())
        if self.watch is not None:
            put(state, "watch/", self.watch.state())
        if self.draws is not None:
            put(state, "draws/", self.draws.state())

        return state

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` returned earlier; the moments are the step's to load."""
        self.history.loss_curve = state["loss_curve"].tolist()
        self.history.validation_scores = state["validation_scores"].tolist()
        self.history.n_steps = int(state["n_steps"])
        for name in CURVES:
            self.history.curves[name] = state[f"curves/{name}"].tolist()
        self.plan.start, self.plan.end = state["descent"].tolist()
        self.next_look = int(state["next_look"])
        self.is_seen = bool(state["is_seen"])
        self.batches.generator.set_state(torch.tensor(state["generator"]))
        self.batches.go_on(len(self.history.loss_curve))

        if self.average is not None:
            self.average.load(below(state, "average/"))
        if self.watch is not None:
            self.watch.load(below(state, "watch/"))
        if self.draws is not None:
            self.draws.load(below(state, "draws/"))

    def take_steps(self) -> int:
        """One epoch of gradient steps, and looks between them; the number of rows seen."""
        n_rows = 0

        for rows, weight, noise in self.batches:
            self.take_step(rows, weight, noise)
            n_rows += len(rows)

            if self.watch is not None:
                self.follow(self.watch)
            if self.plan.is_over(self.history.n_steps):
                break

        return n_rows

    def take_step(self, rows: torch.Tensor, weight: torch.Tensor | None, noise: torch.Tensor) -> None:
        """One gradient step."""
        n_steps = self.history.n_steps
        beta = self.plan.beta(n_steps)
        rate = self.plan.rate(n_steps)

        # modules of a user's may act otherwise in training
        if self.step.by_autograd:
            self.vae.train()

        # dropout draws from torch's own generators
        if self.draws is None:
            self.step(rows, weight, noise, beta, rate)
        else:
            self.draws.run(self.step, rows, weight, noise, beta, rate)

        if self.step.by_autograd:
            self.vae.eval()
        self.history.n_steps += 1

    def follow(self, watch: Watch) -> None:
        """Take the parameters into their average, and look at the validation rows where that is due."""
        n_steps = self.history.n_steps
        if self.average is not None:
            self.average.add(n_steps)

        self.is_seen = n_steps >= self.next_look
        if not self.is_seen:
            return

        self.look(watch)
        if watch.is_tired and not self.plan.is_descending(n_steps):
            self.plan.descend(n_steps)
        self.next_look = self.plan.next_look(n_steps)

    def look(self, watch: Watch) -> None:
        """The score of the averaged parameters; of the parameters themselves in a descent, in which they come to rest."""
        if self.average is None or self.plan.is_descending(self.history.n_steps):
            score = watch.look()
        else:
            with self.average.lent():
                score = watch.look()

        self.history.validation_scores.append(score)
        self.history.curves["look"].append(self.history.n_steps)

    def record_loss(self, n_rows: float) -> None:
        """Add the mean loss of the epoch's rows to the history, or raise an error if it is not finite."""
        # the only numbers of an epoch that are read back from the device
        nll, kl, n_rows = self.ranks.sums(*self.step.pop_totals(), n_rows)

        # with the full weight of the KL term, so that epochs can be compared
        loss = nll / n_rows + self.plan.full_beta * (kl / n_rows)
        self.history.loss_curve.append(loss)

        n_steps = self.history.n_steps
        now = (nll / n_rows, kl / n_rows, self.plan.rate(n_steps - 1), n_steps)
        for name, value in zip(CURVES, now, strict=False):
            self.history.curves[name].append(float(value))

        if not math.isfinite(loss):
            raise DivergenceError(f"the loss became {loss} in epoch {len(self.history.loss_curve)}")

    def check_weights(self) -> None:
        """Raise an error if a parameter is not finite."""
        for p in self.vae.parameters():
            if not torch.isfinite(p).all():
                raise DivergenceError("the weights are no longer finite")

    def keep_the_best(self, watch: Watch) -> None:
        """Load the parameters of the best look, or raise an error if no score is finite."""
        # the last steps may have come since
        if not self.is_seen:
            self.look(watch)
        if watch.best_state is None:
            raise DivergenceError("the validation score is not finite")

        watch.restore()


def _n_updates(adam_state: AdamState | None) -> int:
    """Number of steps that an optimiser has taken."""
    for state in (adam_state or {}).values():
        if "step" in state:
            return int(state["step"])

    return 0


def _private_draws(vae: VAE, generator: torch.Generator) -> PrivateDraws | None:
    """What modules of a user's draw from in place of torch's own generators; None if there are no such modules."""
    if not vae.has_custom_networks:
        return None

    return PrivateDraws(generator.initial_seed(), vae.device)


def _go_back(vae: VAE, watch: Watch | None, start: State) -> None:
    """Load the parameters of the best look, or else those of the start."""
    if watch is not None and watch.best_state is not None:
        watch.restore()
    else:
        vae.load_state_dict(start)
