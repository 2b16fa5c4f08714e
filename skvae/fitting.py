"""From a table and parameters to all that a fit learns, in functions: nothing is set before it is whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skvae.engine.ranks import Alone
from skvae.engine.training import AdamState, Curves, History, TrainingState, train
from skvae.exceptions import DivergenceError
from skvae.fitted import FittedModel, Latents
from skvae.model.decoders import DECODERS
from skvae.model.latent import ROWS
from skvae.model.likelihoods import mean_row
from skvae.model.network import VAE, build_vae, kl_divergence
from skvae.parameters import check_device, check_hidden_layer_sizes, resolve_decoder, resolve_density
from skvae.progress import Progress, hook_args
from skvae.resumption import Draws, Origin, interrupted
from skvae.shards import Shard
from skvae.surroundings import undisturbed
from skvae.table import Table, as_table
from skvae.threads import on_one_thread
from skvae.training_rows import (
    MIN_ROWS_TO_HOLD_OUT,
    TrainingRows,
    TrainingSet,
    encode_rows,
    hold_out,
    names_of,
    read_rows,
)

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

DEFAULT_STEPS = 4000
"""Gradient steps of a fit with ``max_iter=None``, whatever the number of rows."""

MIN_VARIANCE_OF_ACTIVE_UNIT = 0.01
"""Of z_mean over the rows (Burda, Grosse & Salakhutdinov, 2016, section 5.1.1)."""

FAR_OUT = 5
"""Deviations from its mean beyond which a cell may be why a fit diverged."""


@undisturbed
@on_one_thread
@torch.inference_mode(False)
def fit_model(
    estimator: VAEEstimator,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    former: FittedModel | None,
    n_epochs: int | None,
    schedule: bool,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """Fit a model with the parameters of an estimator, which is read and never written to.

    Parameters
    ----------
    estimator : VAEEstimator
    X, y, sample_weight
        As for `VAEEstimator.fit`.
    former : FittedModel or None
        The model to go on from; None makes a new one.
    n_epochs : int or None
        Largest number of passes over the rows; None takes what holds `DEFAULT_STEPS`.
    schedule : bool
        Whether training has a set end: rows may be held out, the KL term is phased in and the learning rate falls.
    shard : Shard, default=None
        The rows to train on, where they are those of several processes: X is then a sample of the rows of all.

    Returns
    -------
    attributes : dict of str to object
        All that a fitted estimator has and an unfitted one lacks.
    """
    hidden_layer_sizes = check_hidden_layer_sizes(estimator.hidden_layer_sizes)
    check_device(estimator.device)
    resume = interrupted(former, schedule=schedule)
    draws = draws_of(estimator, former if resume is not None else None, shard)

    # what the table is, and its rows as the network reads them
    table_like = as_table(X)
    names = names_of(estimator, table_like, reset=former is None)
    table, values, weight = read_rows(estimator, table_like, sample_weight, former, may_vary=schedule)
    if former is None:
        decoder, table = choose_decoder(estimator, table, values, weight, hidden_layer_sizes)
    rows, log_scale = encode_rows(table, values, weight, estimator.device)

    # a copy of a fitted network: whatever happens to it, the fitted model answers as before
    if former is None:
        density_name = resolve_density(estimator.latent_density, hidden_layer_sizes)
        network = make_network(estimator, table, rows, decoder, hidden_layer_sizes, draws.seed).to(estimator.device)
    else:
        density_name = resolve_density(estimator.latent_density, hidden_layer_sizes, former.density_name)
        network = network_to_go_on(former, estimator.latent_dim).to(estimator.device)

    # a stream goes on from its rows so far, a warm start begins anew
    trained = split_rows(estimator, rows, log_scale, draws.rng, schedule=schedule)
    if shard is not None:
        trained = shard.split_rows(estimator, table, draws.seed, schedule=schedule)
    facts = Facts(table, draws.seed, density_name, trained.log_scale, rows.evenly(ROWS), None if schedule else former)
    origin = Origin(estimator, draws, loop_seed(draws, former, resume), trained)
    if resume is not None:
        origin.check(resume)

    def snapshot(history: History, state: Callable[[], TrainingState]) -> dict[str, Any]:
        # the network goes on training: a callback gets a copy
        model = learnt(facts, copy.deepcopy(network), history, None)
        if schedule:
            model = replace(model, training={**state(), **origin.state()})
        return model.attributes(names)

    arguments = hook_args(X, y, sample_weight)
    n_epochs = n_epochs or trained.epochs_of(DEFAULT_STEPS, estimator.batch_size)
    progress = Progress(estimator, arguments, n_epochs=n_epochs, log_scale=facts.log_scale, snapshot=snapshot)
    progress.begin()
    try:
        model = train_network(network, facts, origin, former, resume, schedule=schedule, progress=progress)
    except DivergenceError as error:
        message = describe_divergence(table, trained.training.x, error, estimator.learning_rate_init)
        raise DivergenceError(message) from error
    fitted = model.attributes(names)
    progress.end(fitted)

    return fitted


def draws_of(estimator: VAEEstimator, former: FittedModel | None, shard: Shard | None) -> Draws:
    """Where the random numbers of a fit come from; several processes have those of the first one."""
    draws = Draws.of(estimator, former)
    if shard is None:
        return draws
    return shard.group.first(draws)


def loop_seed(draws: Draws, former: FittedModel | None, resume: TrainingState | None) -> int:
    """Seed of the order of the rows and of the noise."""
    if resume is not None:
        return int(resume["fit/seed"])
    if former is not None:
        # what went before counts: no two calls shall have the same noise and order of rows
        return draws.seed + len(former.loss_curve)
    return draws.seed


def split_rows(
    estimator: VAEEstimator, rows: TrainingRows, log_scale: float, rng: np.random.RandomState, *, schedule: bool
) -> TrainingSet:
    """Rows to train on, and rows to validate on if there are to be any."""
    holds_out = schedule and estimator.early_stopping
    if not holds_out or len(rows.x) < MIN_ROWS_TO_HOLD_OUT:
        return TrainingSet(rows, None, log_scale, Alone(), len(rows.x))

    training, validation = hold_out(rows, estimator.validation_fraction, rng)
    if training.weight is not None:
        training = training.with_mean_weight(float(training.weight.mean()))
    return TrainingSet(training, validation, log_scale, Alone(), len(training.x))


def train_network(
    network: VAE,
    facts: Facts,
    origin: Origin,
    former: FittedModel | None,
    resume: TrainingState | None,
    *,
    schedule: bool,
    progress: Progress,
) -> FittedModel:
    """The model with a network that is trained in place; see `skvae.engine.training.train`."""
    estimator, rows = origin.estimator, origin.rows
    adam_state = None
    if former is not None and not schedule:
        adam_state = former.adam_state

    history, adam_state = train(
        network,
        rows.training.x,
        rows.training.weight,
        n_epochs=progress.n_epochs,
        batch_size=estimator.batch_size,
        learning_rate=estimator.learning_rate_init,
        beta=estimator.beta,
        penalty=estimator.alpha / rows.n_rows,
        seed=origin.loop_seed,
        validation=rows.validation,
        patience=estimator.n_iter_no_change,
        tol=estimator.tol * len(facts.table.columns),
        schedule=schedule,
        adam_state=adam_state,
        resume=resume,
        on_epoch=progress,
        ranks=rows.ranks,
    )

    # moments are of use only where training has no end
    return learnt(facts, network, history, None if schedule else adam_state)


# ---------------------------------------------------------------------------------------------------------- the network


def choose_decoder(
    estimator: VAEEstimator,
    table: Table,
    values: np.ndarray,
    weight: np.ndarray | None,
    hidden_layer_sizes: Sequence[int],
) -> tuple[Any, Table]:
    """The decoder that the parameter stands for, and the table, which also encodes for an auxiliary one if it is guided."""
    decoder = resolve_decoder(
        estimator.decoder,
        n_rows=len(values),
        layout=table.layout,
        hidden_layer_sizes=hidden_layer_sizes,
        likelihood=estimator.likelihood,
    )

    # networks of the user's make factorized decoders
    if isinstance(decoder, str) and DECODERS[decoder].is_guided:
        table = table.with_auxiliary(values, weight)
    return decoder, table


def make_network(
    estimator: VAEEstimator,
    table: Table,
    rows: TrainingRows,
    decoder: Any,
    hidden_layer_sizes: Sequence[int],
    seed: int,
) -> VAE:
    """A fresh network for a table, with the parameters of an estimator and a decoder that is resolved."""
    layout = table.layout
    auxiliary_mean = None
    if layout.auxiliary is not None:
        auxiliary_mean = mean_row(layout.auxiliary, rows.x[:, layout.stop :], rows.weight).numpy()

    return build_vae(
        layout,
        mean_row(layout, rows.x, rows.weight).numpy(),
        latent_dim=int(estimator.latent_dim),
        hidden_layer_sizes=hidden_layer_sizes,
        activation=estimator.activation,
        encoder=estimator.encoder,
        decoder=decoder,
        seed=seed,
        auxiliary_mean=auxiliary_mean,
    )


def network_to_go_on(former: FittedModel, latent_dim: int) -> VAE:
    """A copy of a fitted network: whatever happens to it, the fitted model answers as before.

    Raises
    ------
    ValueError
        If the parameter `latent_dim` asks for another number of latent units.
    """
    fitted_dim = former.network.latent_dim
    if latent_dim != fitted_dim:
        raise ValueError(
            f"latent_dim={latent_dim}, but the model to go on from has {fitted_dim} latent units. Set latent_dim back, or "
            f"fit with warm_start=False."
        )
    return copy.deepcopy(former.network)


# --------------------------------------------------------------------------------------------------------- what is learnt


@on_one_thread
@torch.no_grad()
def read_latents(network: VAE, probe: TrainingRows) -> tuple[Latents, np.ndarray, int]:
    """Posteriors of rows and what they say of the latent units.

    Parameters
    ----------
    network : VAE
    probe : TrainingRows

    Returns
    -------
    latents : Latents
    kl_per_unit : ndarray of float64 of shape (latent_dim,)
        In nats.
    active_units : int

    Raises
    ------
    DivergenceError
        If a posterior is not finite.
    """
    z_mean, z_logvar = network.encode(probe.x)
    kl_per_unit = kl_divergence(z_mean, z_logvar).mean(0).double().cpu().numpy()
    active_units = int((z_mean.var(0, correction=0) > MIN_VARIANCE_OF_ACTIVE_UNIT).sum())

    # the latent density is one of what the decoder reads
    z_mean, z_logvar = network.encode_blurred(probe.x)
    # rows of equal weight still weight the latent density
    weight = probe.weight
    if weight is None:
        weight = torch.ones_like(z_mean[:, 0])

    arrays = []
    for tensor in (z_mean, torch.exp(0.5 * z_logvar), weight):
        array = tensor.cpu().float().numpy()
        if not np.isfinite(array).all():
            raise DivergenceError("the latent means are no longer finite")
        arrays.append(array)

    return Latents(*arrays), kl_per_unit, active_units


class Facts(NamedTuple):
    """What is settled before a network is trained.

    Attributes
    ----------
    table : Table
    seed : int
    density_name : str
    log_scale : float
        See `encode_rows`.
    probe : TrainingRows
        Rows whose posteriors are kept.
    before : FittedModel or None
        The model of the rows of a stream so far.
    """

    table: Table
    seed: int
    density_name: str
    log_scale: float
    probe: TrainingRows
    before: FittedModel | None


def learnt(facts: Facts, network: VAE, history: History, adam_state: AdamState | None) -> FittedModel:
    """The fitted model with a trained network; `history` is in the encoded units."""
    latents, kl_per_unit, active_units = read_latents(network, facts.probe)

    # in the units of the table
    losses = [loss + facts.log_scale for loss in history.loss_curve]
    scores = [score - facts.log_scale for score in history.validation_scores]

    curves = copy.deepcopy(history.curves)
    curves["reconstruction"] = [part + facts.log_scale for part in curves["reconstruction"]]
    if facts.before is not None:
        losses = [*facts.before.loss_curve, *losses]
        curves = curves_beside(facts.before.curves, curves)
        latents = facts.before.latents.beside(latents)

    return FittedModel(
        table=facts.table,
        network=network.eval(),
        seed=facts.seed,
        density_name=facts.density_name,
        latents=latents,
        kl_per_unit=kl_per_unit,
        active_units=active_units,
        loss_curve=losses,
        validation_scores=scores or None,
        curves=curves,
        adam_state=adam_state,
    )


def curves_beside(before: Curves, now: Curves) -> Curves:
    """The curves of a stream's rows so far and of more of them."""
    # steps are counted over all calls; scores are those of the last one alone
    n_before = before["n_steps"][-1]
    both = {"look": [n_before + n for n in now["look"]]}

    for name in ("reconstruction", "kl", "learning_rate"):
        both[name] = before[name] + now[name]
    both["n_steps"] = before["n_steps"] + [n_before + n for n in now["n_steps"]]
    return both


def describe_divergence(table: Table, x: Tensor, error: Exception, learning_rate: float) -> str:
    """A message for a fit that diverged on encoded rows `x`, shape (n, layout.width), with the column furthest out."""
    layout = table.layout
    way_out = f"Lower learning_rate_init={learning_rate}"
    if not layout.n_numbers:
        return f"Training stopped: {error}. {way_out}."

    # far cells make large gradients
    largest = x[:, layout.first_number : layout.first_flag].abs().amax(0)
    if largest.max() < FAR_OUT:
        return f"Training stopped: {error}. No number lies far out. {way_out}."

    label = table.columns[table.owners[int(largest.argmax())]].label
    return (
        f"Training stopped: {error}. The column furthest out is {label}, whose largest value lies {float(largest.max()):.3g} "
        f"deviations from its mean. {way_out}, or clip or transform that column (for instance with PowerTransformer)."
    )
