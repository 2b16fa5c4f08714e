"""A fitted model: all that a fit learns, and its answers to rows of the table."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skvae.conditionals import (
    DRAWS_OF_LEVELS,
    DRAWS_OF_NUMBERS,
    Conditional,
    level_values,
    level_weights,
    number_draws,
)
from skvae.conditioning import SAMPLES_AT_ONCE, sample_given
from skvae.engine.training import AdamState, Curves, TrainingState
from skvae.imputation import fill
from skvae.inference import (
    Report,
    adaptive_log_likelihood,
    generate,
    log_likelihood,
    log_likelihoods_without,
    posterior,
    restore,
    standard_normal_draws,
)
from skvae.marginal import has_holes, marginal_log_likelihood
from skvae.model.latent import LATENT_DENSITIES, ROWS, LatentDensity
from skvae.model.network import VAE
from skvae.model.state import from_state, to_state
from skvae.parameters import check_density_name
from skvae.surroundings import undisturbed
from skvae.table import EncodedRows, Table
from skvae.table.given import read_conditions, read_rows, repeated, write_given
from skvae.table.selection import listed, position
from skvae.table.warning import warn
from skvae.threads import on_one_thread
from skvae.validity import COPIES, valid_copies, valid_rows
from skvae.version import __version__

ROWS_AT_ONCE = 2**16
"""Rows of a table that are encoded at a time: memory stays bounded."""

MIN_SHARE_OF_PROPOSALS = 0.25
"""A warning tells when rows drawn under conditions rest on fewer different proposals per row than this."""

MIN_PROPOSALS = 5
"""It also tells when they rest on fewer than this, however few rows there are."""


class Latents(NamedTuple):
    """Posteriors of training rows, of at most 20,000, evenly spaced.

    Attributes
    ----------
    z_mean, z_std : ndarray of float32 of shape (n, latent_dim)
    weight : ndarray of float32 of shape (n,)
    """

    z_mean: np.ndarray
    z_std: np.ndarray
    weight: np.ndarray

    def beside(self, more: Latents) -> Latents:
        """The latents of a stream's rows so far and of `more` rows, thinned out."""
        arrays = []
        for old, new in zip(self, more, strict=True):
            both = np.concatenate([old, new])
            arrays.append(both[:: math.ceil(len(both) / ROWS)])
        return Latents(*arrays)


@dataclass(frozen=True)
class FittedModel:
    """All that a fit learns. It is set as a whole, and later fits make another one.

    Attributes
    ----------
    table : Table
    network : VAE
    seed : int
        Drawn from the estimator's `random_state`; latent densities are fitted with it.
    density_name : str
        The latent density that the parameter `latent_density` stood for at fit.
    latents : Latents
    kl_per_unit : ndarray of float64 of shape (latent_dim,)
        In nats.
    active_units : int
    loss_curve : list of float
        Of each epoch, in nats per row and in the units of the table.
    validation_scores : list of float or None
        Of each look, likewise.
    adam_state : dict or None
        Where `partial_fit` goes on.
    curves : dict of str to (list of float)
        See `skvae.engine.training.History`; the reconstruction is in the units of the table.
    densities : dict of str to LatentDensity
        Those asked for so far.
    training : dict of str to ndarray or None
        Where a fit stood when a callback was handed this model: another one goes on from there. None of a fit that has ended.
    """

    table: Table
    network: VAE
    seed: int
    density_name: str
    latents: Latents
    kl_per_unit: np.ndarray
    active_units: int
    loss_curve: list[float]
    validation_scores: list[float] | None
    adam_state: AdamState | None
    curves: Curves
    densities: dict[str, LatentDensity] = field(default_factory=dict)
    training: TrainingState | None = None

    @undisturbed
    def density(self, name: str) -> LatentDensity:
        """The latent density of this name, fitted when it is first asked for; ``"auto"`` is that of the fit.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        check_density_name(name)
        # not the estimator's parameter, which may have been set since
        if name == "auto":
            name = self.density_name
        if name not in self.densities:
            self.densities[name] = fit_density(name, self.latents, self.seed)
        return self.densities[name]

    def attributes(self, names: dict[str, Any]) -> dict[str, Any]:
        """All that a fitted estimator has and an unfitted one lacks: this model, `names` of its columns, and public facts."""
        scores = self.validation_scores
        best = None
        if scores is not None:
            best = max(scores)

        kinds = {}
        for name, column in zip(self.table.schema.names, self.table.columns, strict=True):
            kinds[name] = column.kind_name

        return {
            "_fitted": self,
            **names,
            "n_iter_": len(self.loss_curve),
            "loss_curve_": self.loss_curve,
            "validation_scores_": scores,
            "history_": self.history(),
            "best_validation_score_": best,
            "kl_per_unit_": self.kl_per_unit,
            "active_units_": self.active_units,
            "likelihood_": kinds,
            "decoder_": self.network.decoder.name,
            "latent_density_name_": self.density_name,
            "_n_features_out": self.network.latent_dim,
        }

    def history(self) -> dict[str, list[float]]:
        """What happened in the fit, by name, all on one axis of epochs: see `VAEEstimator.history_`."""
        n_steps = [0.0, *self.curves["n_steps"]]
        looks = np.interp(self.curves["look"], n_steps, np.arange(len(n_steps)))
        return {
            "epoch": np.arange(1.0, len(n_steps)).tolist(),
            "loss": self.loss_curve,
            "reconstruction": self.curves["reconstruction"],
            "kl": self.curves["kl"],
            "learning_rate": self.curves["learning_rate"],
            "validation_epoch": looks.tolist(),
            "validation_score": self.validation_scores or [],
        }

    # ----------------------------------------------------------------------------------------------------- rows <-> latents

    def encoded(self, values: np.ndarray) -> Iterator[tuple[Tensor, EncodedRows]]:
        """Encoded rows, some at a time: as a tensor on the network's device, and as they are.

        Parameters
        ----------
        values : ndarray of float of shape (n_samples, n_features)
            NaN where a cell is missing.
        """
        for block in np.array_split(values, math.ceil(len(values) / ROWS_AT_ONCE)):
            rows = self.table.encode_values(block)
            yield torch.from_numpy(rows.x).to(self.network.device), rows

    @undisturbed
    @on_one_thread
    def posterior(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z_mean and z_std of rows, two arrays of shape (n_samples, latent_dim), in the dtype of the values."""
        self.table.check_exposure(values, to_score=False)

        means = []
        deviations = []
        for x, _ in self.encoded(values):
            z_mean, z_std = posterior(self._network_like(x), x)
            means.append(z_mean.cpu().numpy())
            deviations.append(z_std.cpu().numpy())
        return np.concatenate(means), np.concatenate(deviations)

    @undisturbed
    @on_one_thread
    def sample(
        self,
        n_samples: int,
        generator: torch.Generator,
        density: LatentDensity,
        *,
        noise: bool,
        report: Report | None = None,
    ) -> Any:
        """New rows, in the container of the table; without `noise`, means of p(x | z)."""

        def draw(n: int) -> np.ndarray:
            z = density.sample(n, generator)
            return self._decoded(z, generator if noise else None, report)

        return self.table.write(valid_rows(self.table, draw, n_samples))

    @undisturbed
    @on_one_thread
    def decode(self, z: Tensor, report: Report | None = None, beside: Any = None) -> Any:
        """Rows, in the container of the table, decoded from points of shape (n_samples, latent_dim).

        Columns that are not modelled are those of `beside`, if given.
        """
        return self.table.write(self._decoded(z, None, report), beside=beside)

    def _decoded(self, z: Tensor, generator: torch.Generator | None, report: Report | None) -> np.ndarray:
        """Values decoded from points, or drawn from p(x | z) if there is a generator."""
        z = z.to(self.network.device)
        network = self._network_like(z)

        # what z alone tells of each cell
        if generator is None and network.auxiliary is not None and self.table.auxiliary is not None:
            parts = restore(network.auxiliary, z, report).double().cpu().numpy()
            return self.table.rules.backward(self.table.auxiliary.decode(parts))

        return self.table.decode(generate(network, z, generator, report).double().cpu().numpy())

    def _network_like(self, x: Tensor) -> VAE:
        """The network in the precision of `x`: a row's numbers then do not depend on the rows around it."""
        if x.dtype == torch.float32:
            return self.network
        # autograd can use no network that was made in inference mode
        with torch.inference_mode(False):
            return copy.deepcopy(self.network).to(x.device, x.dtype)

    # ------------------------------------------------------------------------------------------- densities, missing cells

    @undisturbed
    @on_one_thread
    def log_likelihood(
        self, values: np.ndarray, n_draws: int | None, seed: int, report: Report | None = None
    ) -> np.ndarray:
        """Log-likelihood of rows, ndarray of shape (n_samples,).

        See `skvae.inference.log_likelihood`, and without a number of draws `skvae.inference.adaptive_log_likelihood`.
        """
        self.table.check_exposure(values, to_score=True)
        density = self.density("auto")

        scores = []
        for x, rows in self.encoded(values):
            score = self._bounds(x, rows, n_draws, density, seed, report).cpu().numpy()
            scores.append(score + rows.log_jacobian.astype(score.dtype))
        return np.concatenate(scores)

    @undisturbed
    @on_one_thread
    def surprise(self, values: np.ndarray, seed: int, report: Report | None = None) -> np.ndarray:
        """Minus the log density of each cell given the others of its row, ndarray of shape (n_samples, n_features).

        In nats, of cells as they are encoded; 0 where a cell is missing, and for columns that do not count.
        """
        self.table.check_exposure(values, to_score=True)
        if not self.network.decoder.independent:
            return self._surprise_in_order(values, seed, report)

        density = self.density("auto")
        surprises = []
        for x, rows in self.encoded(values):
            network = self._network_like(x)
            observed = torch.from_numpy(rows.observed).to(x.device)
            whole, without = log_likelihoods_without(network, x, observed, self.table.places, density, seed, report)
            surprises.append((without - whole[:, None]).cpu().numpy())
        return np.where(np.isnan(values), 0.0, np.concatenate(surprises))

    def _surprise_in_order(self, values: np.ndarray, seed: int, report: Report | None) -> np.ndarray:
        """`surprise`, where cells depend on those before them: each column is integrated out by itself."""
        whole = self.log_likelihood(values, None, seed, report)
        surprise = np.zeros(values.shape)

        for j, places in enumerate(self.table.places):
            rows = np.flatnonzero(~np.isnan(values[:, j]))
            # the offset of the counts is no cell of theirs
            is_exposure = self.table.exposure is not None and j == self.table.exposure.column
            if not len(rows) or not places or is_exposure:
                continue

            without = values[rows].copy()
            without[:, j] = np.nan
            # what the Jacobians of both differ by is that of the cell
            log_jacobian = self.table.encode_values(values[rows]).log_jacobian
            log_jacobian -= self.table.encode_values(without).log_jacobian
            surprise[rows, j] = self.log_likelihood(without, None, seed) - whole[rows] + log_jacobian
        return surprise

    def _bounds(
        self,
        x: Tensor,
        rows: EncodedRows,
        n_draws: int | None,
        density: LatentDensity,
        seed: int,
        report: Report | None,
    ) -> Tensor:
        """Bounds on the log density of encoded rows, tensor of shape (n,), in nats of the encoded units."""
        network = self._network_like(x)
        observed = torch.from_numpy(rows.observed).to(x.device)
        bounds = x.new_empty(len(x))

        holed = has_holes(network, x, observed)
        if n_draws is not None and network.decoder.independent:
            holed = torch.zeros_like(holed)
        if holed.any() and network.decoder.independent:
            # an encoder that met no missing cell in training may be far off
            bounds[holed], _ = log_likelihoods_without(network, x[holed], observed[holed], [], density, seed, report)
        elif holed.any():
            offset = None
            if rows.offset is not None:
                offset = torch.from_numpy(rows.offset).to(x)[holed]
            bounds[holed] = marginal_log_likelihood(
                network, x[holed], observed[holed], offset, density, seed, n_draws, report
            )

        whole = ~holed
        if whole.any() and n_draws is None:
            bounds[whole] = adaptive_log_likelihood(network, x[whole], observed[whole], density, seed, report)
        elif whole.any():
            draws = standard_normal_draws(n_draws or 1, network.latent_dim, seed).to(x)
            bounds[whole] = log_likelihood(network, x[whole], observed[whole], draws, density, report)
        return bounds

    @undisturbed
    @on_one_thread
    def conditional(
        self, values: np.ndarray, name: Any, n_draws: int | None, seed: int, report: Report | None = None
    ) -> Conditional:
        """The distribution of a column given the other cells of rows: see `skvae.conditionals`."""
        table = self.table
        j = position(name, table.schema.names)
        if j is None or not table.places[j]:
            raise ValueError(
                f"column={name!r} is none that the model predicts. Name one of {listed(table.schema.names)} that is modelled "
                f"and varies."
            )
        table.check_exposure(values, to_score=False)
        low = table.rules.differences.get(j)
        if j in table.rules.differences.values() or (low is not None and np.isnan(values[:, low]).any()):
            raise ValueError(
                f"column={name!r} cannot be predicted: a constraint relates it to another column, of which the model has the "
                f"difference. Predict the higher column, for rows in which the lower one is observed."
            )

        density = self.density("auto")
        levels = level_values(table, j)
        if levels is None:
            k = n_draws or DRAWS_OF_NUMBERS
            draws, weights = number_draws(self.network, table, values, j, density, seed, k, report)
            return Conditional(draws, weights, table.schema.time_dtype(j))

        k = n_draws or DRAWS_OF_LEVELS
        weights = level_weights(self.network, table, values, j, levels, density, seed, k, report)
        cells = table.columns[j].write(levels)
        if table.schema.is_boolean(j):
            cells = cells > 0.5
        return Conditional(cells, weights, table.schema.time_dtype(j))

    @undisturbed
    def sample_given(
        self, given: dict, n_samples: int, generator: torch.Generator, density: LatentDensity, *, noise: bool
    ) -> Any:
        """Rows that meet conditions, in the container of the table: see `skvae.conditioning.sample_given`.

        A warning tells when they rest on few different proposals.
        """
        conditions = read_conditions(self.table, given)
        values, n_effective = sample_given(
            self.network, self.table, conditions, n_samples, generator, density, noise=noise
        )

        # rows alike are no error, but nothing to learn from
        if n_effective < max(MIN_SHARE_OF_PROPOSALS * min(n_samples, SAMPLES_AT_ONCE), MIN_PROPOSALS):
            warn(
                f"The {n_samples} rows given {given} rest on only about {n_effective:.0f} different proposals, so that "
                f"many are alike, or unlike what the model would have: few of its rows meet these conditions. Give fewer "
                f"cells, or train with more rows like these.",
            )
        return self.table.write(values, exact=conditions.exact)

    @undisturbed
    @on_one_thread
    def complete(
        self,
        given: Any,
        n_samples: int,
        generator: torch.Generator,
        density: LatentDensity,
        *,
        noise: bool,
        report: Report | None = None,
    ) -> Any:
        """For each row of a table of conditions, `n_samples` rows that have its cells, one after the other."""
        values, positions = read_rows(self.table, given)
        copies = fill(self.network, self.table, values, n_samples, generator, density, report, noise=noise)
        copies = self._valid_copies(copies, values, generator, density)

        # (n_samples, n, n_features): the rows of one condition stand beside each other
        rows = copies.swapaxes(0, 1).reshape(-1, copies.shape[-1])
        return write_given(self.table, rows, repeated(given, n_samples), positions)

    @undisturbed
    @on_one_thread
    def impute(
        self, values: np.ndarray, n_draws: int | None, generator: torch.Generator, report: Report | None = None
    ) -> np.ndarray:
        """Completed values, ndarray of shape (n_draws or 1, n_samples, n_features): see `skvae.imputation.fill`."""
        # single precision does not tell large whole numbers apart
        values = values.astype(np.float64)
        self.table.check_exposure(values, to_score=False)
        density = self.density("auto")
        copies = fill(self.network, self.table, values, n_draws, generator, density, report)
        return self._valid_copies(copies, values, generator, density)

    def _valid_copies(
        self, copies: np.ndarray, values: np.ndarray, generator: torch.Generator, density: LatentDensity
    ) -> np.ndarray:
        """Completed values, of which those that break a constraint are drawn again: see `skvae.validity.valid_copies`."""

        def redraw(rows: np.ndarray) -> np.ndarray:
            return fill(self.network, self.table, values[rows], COPIES, generator, density)

        return valid_copies(self.table, copies, redraw)

    # ------------------------------------------------------------------------------------------------------------ pickling

    def __getstate__(self) -> dict[str, Any]:
        """Plain objects and arrays: no tensor, and no class that is not of this package."""
        state = {**vars(self), "version": __version__}
        state["network"] = to_state(self.network)
        state["latents"] = tuple(self.latents)
        return state

    @undisturbed
    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("version", "an earlier version")
        if version != __version__:
            warn(
                f"A model of skvae {version} is unpickled by {__version__}: its answers may differ. Fit it again.",
            )

        try:
            network = from_state(state["table"].layout, state["network"])
            latents = Latents(*state["latents"])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"A model of skvae {version} cannot be unpickled by {__version__} ({error!r}). Install skvae {version}, or "
                f"fit it again."
            ) from error
        # past the guard of a frozen dataclass
        vars(self).update(state, network=network, latents=latents)


@on_one_thread
def fit_density(name: str, latents: Latents, seed: int) -> LatentDensity:
    """The latent density called `name` of posteriors."""
    return LATENT_DENSITIES[name].fit(*latents, seed=seed)
