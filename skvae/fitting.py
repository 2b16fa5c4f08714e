"""From a table and parameters to all that a fit learns, in functions: nothing is set before it is whole."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from skvae._sklearn import check_sample_weight
from skvae.engine.training import AdamState, History, train
from skvae.exceptions import DivergenceError
from skvae.fitted import FittedModel, Latents
from skvae.model.latent import ROWS
from skvae.model.likelihoods import mean_row
from skvae.model.network import VAE, build_vae, kl_divergence
from skvae.parameters import check_device, check_hidden_layer_sizes, draw_seed, resolve_decoder, resolve_density
from skvae.progress import Progress, hook_args
from skvae.table import Table, as_table
from skvae.threads import on_one_thread

if TYPE_CHECKING:
    from skvae.estimator import VAEEstimator

DEFAULT_STEPS = 4000
"""Gradient steps of a fit with ``max_iter=None``, whatever the number of rows."""

MIN_ROWS_TO_HOLD_OUT = 10
"""Smaller tables are trained whole."""

MIN_VARIANCE_OF_ACTIVE_UNIT = 0.01
"""Of z_mean over the rows (Burda, Grosse & Salakhutdinov, 2016, section 5.1.1)."""


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

    Returns
    -------
    attributes : dict of str to object
        All that a fitted estimator has and an unfitted one lacks.
    """
    hidden_layer_sizes = check_hidden_layer_sizes(estimator.hidden_layer_sizes)
    check_device(estimator.device)
    rng = check_random_state(estimator.random_state)
    seed = draw_seed(rng)

    # what the table is, and its rows as the network reads them
    table_like = as_table(X)
    names = names_of(estimator, table_like, reset=former is None)
    table, values, weight = read_rows(estimator, table_like, sample_weight, former, may_vary=schedule)
    rows, log_scale = encode_rows(table, values, weight, estimator.device)

    # a copy of a fitted network: whatever happens to it, the fitted model answers as before
    if former is None:
        density_name = resolve_density(estimator.latent_density, hidden_layer_sizes)
        network = make_network(estimator, table, rows, hidden_layer_sizes, seed)
    else:
        density_name = resolve_density(estimator.latent_density, hidden_layer_sizes, former.density_name)
        network = network_to_go_on(former, estimator.latent_dim)
    network.to(estimator.device)

    # a stream goes on from its rows so far, a warm start begins anew
    facts = Facts(table, seed, density_name, log_scale, rows.evenly(ROWS), None if schedule else former)

    def attributes(network: VAE, history: History, adam_state: AdamState | None = None) -> dict[str, Any]:
        fitted = learnt(facts, network, history, adam_state)
        return {"_fitted": fitted, **names, **fitted.attributes()}

    training, validation, n_epochs = plan_epochs(estimator, rows, rng, n_epochs, schedule=schedule)
    progress = Progress(
        estimator,
        hook_args(X, y, sample_weight),
        n_epochs=n_epochs,
        log_scale=log_scale,
        # the network goes on training: a callback gets a copy
        snapshot=lambda history: attributes(copy.deepcopy(network), history),
    )

    progress.begin()
    try:
        history, adam_state = train_network(
            estimator, network, facts, training, validation, former=former, schedule=schedule, progress=progress
        )
        fitted = attributes(network, history, adam_state)
    except DivergenceError as error:
        message = describe_divergence(table, training.x, error, estimator.learning_rate_init)
        raise DivergenceError(message) from error
    progress.end(fitted)

    return fitted


def plan_epochs(
    estimator: VAEEstimator,
    rows: TrainingRows,
    rng: np.random.RandomState,
    n_epochs: int | None,
    *,
    schedule: bool,
) -> tuple[TrainingRows, TrainingRows | None, int]:
    """Rows to train on, rows to validate on (or None), and the largest number of epochs."""
    training = rows
    validation = None
    if schedule and estimator.early_stopping and len(rows.x) >= MIN_ROWS_TO_HOLD_OUT:
        training, validation = hold_out(rows, estimator.validation_fraction, rng)

    if n_epochs is None:
        steps_per_epoch = math.ceil(len(training.x) / estimator.batch_size)
        n_epochs = math.ceil(DEFAULT_STEPS / steps_per_epoch)
    return training, validation, n_epochs


def train_network(
    estimator: VAEEstimator,
    network: VAE,
    facts: Facts,
    training: TrainingRows,
    validation: TrainingRows | None,
    *,
    former: FittedModel | None,
    schedule: bool,
    progress: Progress,
) -> tuple[History, AdamState | None]:
    """Train a network in place, with the parameters of an estimator; see `skvae.engine.training.train`."""
    adam_state = None
    seed = facts.seed
    if former is not None:
        # what went before counts: no two calls shall have the same noise and order of rows
        seed += len(former.loss_curve)
        if not schedule:
            adam_state = former.adam_state

    history, adam_state = train(
        network,
        training.x,
        training.weight,
        n_epochs=progress.n_epochs,
        batch_size=estimator.batch_size,
        learning_rate=estimator.learning_rate_init,
        beta=estimator.beta,
        penalty=estimator.alpha / len(training.x),
        generator=torch.Generator().manual_seed(seed),
        validation=validation,
        patience=estimator.n_iter_no_change,
        tol=estimator.tol * len(facts.table.columns),
        schedule=schedule,
        adam_state=adam_state,
        on_epoch=progress,
    )

    # moments are of use only where training has no end
    if schedule:
        return history, None
    return history, adam_state


# ------------------------------------------------------------------------------------------------------------- the rows


class TrainingRows(NamedTuple):
    """Encoded rows and their weights.

    Attributes
    ----------
    x : tensor of shape (n, layout.width)
    weight : tensor of shape (n,) or None
        Of mean 1; None weights all rows alike.
    """

    x: Tensor
    weight: Tensor | None

    def take(self, rows: np.ndarray) -> TrainingRows:
        """Copies of the rows at some positions: views would keep the whole table in memory."""
        weight = None
        if self.weight is not None:
            weight = self.weight[rows]
        return TrainingRows(self.x[rows], weight)

    def evenly(self, n_rows: int) -> TrainingRows:
        """At most `n_rows` rows, evenly spaced."""
        n = len(self.x)
        return self.take(np.arange(0, n, math.ceil(n / n_rows)))


def names_of(estimator: VAEEstimator, X: Any, *, reset: bool) -> dict[str, Any]:
    """`n_features_in_` and `feature_names_in_` of a table, the latter if it has names.

    With `reset`, they are those of X; else X is checked against those seen at fit.
    """
    # scikit-learn sets them on the estimator that it is given
    face = copy.copy(estimator)
    validate_data(face, X, skip_check_array=True, reset=reset)

    names = {}
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(face, name):
            names[name] = getattr(face, name)
    return names


def read_rows(
    estimator: VAEEstimator, X: Any, sample_weight: Any, former: FittedModel | None, *, may_vary: bool
) -> tuple[Table, np.ndarray, np.ndarray | None]:
    """The table, and the rows of positive weight.

    Parameters
    ----------
    estimator : VAEEstimator
    X : ndarray (as `as_table` returns it) or DataFrame of shape (n_samples, n_features)
    sample_weight : array-like of shape (n_samples,) or None
    former : FittedModel or None
        The model to go on from, with its table.
    may_vary : bool
        Whether a column that was constant when that model was built may vary now.

    Returns
    -------
    table : Table
    values : ndarray of float of shape (n, n_features)
    weight : ndarray of float64 of shape (n,) or None
    """
    weight = None
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)

    if former is not None:
        table = former.table
        values = table.read(X, estimator.handle_unknown)
    else:
        table, values = Table.fit(
            X,
            categorical_features=estimator.categorical_features,
            likelihood=estimator.likelihood,
            exposure=estimator.exposure,
            sample_weight=weight,
        )

    # a row of weight 0 would count in the number of rows
    if weight is not None:
        values = values[weight > 0]
        weight = weight[weight > 0]
    if not may_vary:
        table.check_constant(values)
    return table, values, weight


def encode_rows(table: Table, values: np.ndarray, weight: np.ndarray | None, device: str) -> tuple[TrainingRows, float]:
    """Training rows as tensors.

    Parameters
    ----------
    table : Table
    values : ndarray of float of shape (n, n_features)
        NaN where a cell is missing.
    weight : ndarray of shape (n,) or None
        All positive.
    device : str

    Returns
    -------
    rows : TrainingRows
    log_scale : float
        What is added to a loss of encoded rows to have it in the units of the table, in nats per row.
    """
    table.check_exposure(values, to_score=True)
    encoded = table.encode_values(values, np.float32)

    # the change of variables is the same whatever the network: its mean is all that losses need
    log_scale = -float(np.average(encoded.log_jacobian, weights=weight))

    x = torch.from_numpy(encoded.x).to(device)
    if weight is None:
        return TrainingRows(x, None), log_scale
    shares = np.asarray(weight / weight.mean(), dtype=np.float32)
    return TrainingRows(x, torch.from_numpy(shares).to(device)), log_scale


def hold_out(rows: TrainingRows, fraction: float, rng: np.random.RandomState) -> tuple[TrainingRows, TrainingRows]:
    """Split rows at random into those to train on and those to validate on.

    Parameters
    ----------
    rows : TrainingRows
    fraction : float
        Share of the rows to validate on.
    rng : RandomState

    Returns
    -------
    training, validation : TrainingRows
        The weights of the training rows have mean 1 again.

    Raises
    ------
    ValueError
        If no row is left to train on.
    """
    n = len(rows.x)
    n_held_out = math.ceil(fraction * n)
    if n_held_out >= n:
        raise ValueError(
            f"validation_fraction={fraction} sets {n_held_out} of {n} rows aside, which leaves none to train on. Lower it, "
            f"or set early_stopping=False."
        )

    # at random: rows may come sorted
    train_rows, held_out = train_test_split(np.arange(n), test_size=n_held_out, random_state=rng)
    training = rows.take(train_rows)
    if training.weight is not None:
        training = TrainingRows(training.x, training.weight / training.weight.mean())
    return training, rows.take(held_out)


# ---------------------------------------------------------------------------------------------------------- the network


def make_network(
    estimator: VAEEstimator, table: Table, rows: TrainingRows, hidden_layer_sizes: Sequence[int], seed: int
) -> VAE:
    """A fresh network for a table, with the parameters of an estimator."""
    decoder = resolve_decoder(
        estimator.decoder,
        n_rows=len(rows.x),
        layout=table.layout,
        hidden_layer_sizes=hidden_layer_sizes,
        likelihood=estimator.likelihood,
    )
    return build_vae(
        table.layout,
        mean_row(table.layout, rows.x, rows.weight).numpy(),
        latent_dim=int(estimator.latent_dim),
        hidden_layer_sizes=hidden_layer_sizes,
        activation=estimator.activation,
        encoder=estimator.encoder,
        decoder=decoder,
        seed=seed,
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

    kl_per_unit = kl_divergence(z_mean, z_logvar).mean(0).double().cpu().numpy()
    active_units = int((z_mean.var(0, correction=0) > MIN_VARIANCE_OF_ACTIVE_UNIT).sum())
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

    if facts.before is not None:
        losses = [*facts.before.loss_curve, *losses]
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
        adam_state=adam_state,
    )


def describe_divergence(table: Table, x: Tensor, error: Exception, learning_rate: float) -> str:
    """A message for a fit that diverged on encoded rows `x`, shape (n, layout.width), with the column furthest out."""
    layout = table.layout
    way_out = f"Lower learning_rate_init={learning_rate}"
    if not layout.n_numbers:
        return f"Training stopped: {error}. {way_out}."

    # far cells make large gradients
    largest = x[:, layout.first_number : layout.first_flag].abs().amax(0)
    label = table.columns[table.owners[int(largest.argmax())]].label
    return (
        f"Training stopped: {error}. The column furthest out is {label}, whose largest value lies {float(largest.max()):.3g} "
        f"deviations from its mean. {way_out}, or clip or transform that column (for instance with PowerTransformer)."
    )
