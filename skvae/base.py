"""How an estimator fits, and how it reads and writes tables: the kernels behind the public methods."""

import copy
import math
from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from skvae.engine.training import train
from skvae.inference import generate, posterior
from skvae.model.latent import LATENT_DENSITIES, ROWS
from skvae.model.network import build_vae, kl_divergence
from skvae.table import TableEncoder, TableReader, as_table

DEFAULT_STEPS = 6000
"""Gradient steps of a fit with ``max_iter=None``, whatever the number of rows."""

ROWS_FOR_ORDER, PARTS_IN_ORDER = 1000, 256
"""``decoder="auto"`` is autoregressive from so many rows on, and up to so many columns."""

ROWS_PER_PART = 2**16
"""Rows of a table that are encoded at once after the fit: memory stays bounded."""

LINES_OF_REPORT = 20
"""Lines that ``verbose=True`` prints, at most about so many."""


class BaseVAE(CallbackSupportMixin, BaseEstimator):
    """Fitting, reading and writing; what a user calls stands in `VAEEstimator`."""

    @torch.inference_mode(False)
    def _fit(self, X, y, sample_weight, *, reset, n_epochs, schedule):
        """`fit` and `partial_fit`: check, encode, build, split, train, store."""
        self._check_parameters()
        rng = check_random_state(self.random_state)
        self._seed = seed = int(rng.randint(np.iinfo(np.int32).max))
        x, weight = self._encode_training_rows(X, sample_weight, reset=reset, vary=not schedule)
        if reset:
            self.module_, self._adam_state = self._build(x, weight, seed), None
        self.module_.to(self.device)
        # copies, or the whole table would stay in memory beside its two parts
        probe = [None if rows is None else rows.clone() for rows in _evenly(ROWS, x, weight)]
        validation = None
        if schedule and self.early_stopping and len(x) >= 10:
            x, weight, validation = self._split(x, weight, rng)
        n_epochs = n_epochs or math.ceil(DEFAULT_STEPS / math.ceil(len(x) / self.batch_size))
        context = self._init_callback_context(max_subtasks=n_epochs)
        hook_args = {"estimator": self, "X": X, "y": X if y is None else y}
        if sample_weight is not None:
            hook_args["metadata"] = {"sample_weight": sample_weight}
        context.call_on_fit_task_begin(**hook_args)
        try:
            history, adam_state = train(
                self.module_,
                x,
                weight,
                n_epochs=n_epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate_init,
                beta=self.beta,
                penalty=self.alpha / len(x),
                # what went before counts: a seed shall not give every call the same noise and order of rows
                generator=torch.Generator().manual_seed(seed + (0 if reset else self.n_iter_)),
                validation=validation,
                patience=self.n_iter_no_change,
                tol=self.tol,
                schedule=schedule,
                adam_state=None if schedule else self._adam_state,
                on_epoch=self._epoch_hook(context, hook_args, n_epochs, probe),
            )
            self._store(history, probe, goes_on=not reset and not schedule)
        except FloatingPointError as error:
            raise ValueError(self._describe_divergence(x, error)) from error
        self._adam_state = None if schedule else adam_state
        context.call_on_fit_task_end(**hook_args, reconstruction_attributes=dict)
        return self

    def _encode_training_rows(self, X, sample_weight, *, reset, vary):
        """Encoded rows and their weights (mean 1, or None) as tensors; with `reset`, what the columns are is learnt first.

        With `vary`, a column that was constant when the model was built must still be.
        """
        rows, weight = self._read(X, reset=reset), None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
            rows, weight = rows[weight > 0], weight[weight > 0]
        if reset:
            self._table = TableEncoder().fit(
                rows,
                labels=self._reader.labels_,
                names=self._reader.names_,
                levels=self._reader.levels_,
                boolean=self._reader.boolean_,
                likelihood=self.likelihood,
                exposure=self.exposure,
                sample_weight=weight,
            )
        else:
            if vary:
                self._table.check_constant(rows)
            if self.latent_dim != self.module_.latent_dim:
                raise ValueError(
                    f"latent_dim={self.latent_dim}, but the model to go on from has {self.module_.latent_dim} latent units. "
                    f"Set latent_dim back, or fit with warm_start=False."
                )
        self._table.check_exposure(rows, to_score=True)
        self._log_scale = -float(np.average(self._table.log_jacobian(rows), weights=weight))
        x = self._tensor(self._table.encode(rows, np.float32))
        return x, None if weight is None else self._tensor(weight / weight.mean())

    def _check_parameters(self):
        """What `_parameter_constraints` cannot express."""
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object))
        if any(not isinstance(size, Integral) or size < 1 for size in sizes):
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold integers of at least 1, one per hidden layer; "
                f"() makes a linear model."
            )
        try:
            torch.zeros(1, device=self.device).item()
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device={self.device!r} cannot be used here: {str(error).splitlines()[0]} Use device='cpu'."
            ) from error

    def _decoder(self, n_rows):
        """What ``decoder="auto"`` stands for."""
        layout = self._table.layout_
        if not isinstance(self.decoder, str) or self.decoder != "auto":
            return self.decoder
        linear = not np.size(self.hidden_layer_sizes)
        textbook = isinstance(self.likelihood, str) and self.likelihood != "auto"
        fits = n_rows >= ROWS_FOR_ORDER and layout.n_parts <= PARTS_IN_ORDER and layout.width <= 16 * PARTS_IN_ORDER
        return "autoregressive" if fits and not linear and not textbook else "factorized"

    def _build(self, x, weight, seed):
        return build_vae(
            self._table.layout_,
            (x.mean(0) if weight is None else weight @ x / weight.sum()).cpu().numpy(),
            latent_dim=int(self.latent_dim),
            hidden_layer_sizes=[int(size) for size in np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=int))],
            activation=self.activation,
            encoder=self.encoder,
            decoder=self._decoder(len(x)),
            seed=seed,
        )

    def _split(self, x, weight, rng):
        """Training rows, their weights, and the validation pair (rows, weights)."""
        n_held_out = math.ceil(self.validation_fraction * len(x))
        if n_held_out >= len(x):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} sets {n_held_out} of {len(x)} rows aside, which leaves none "
                f"to train on. Lower it, or set early_stopping=False."
            )
        train_rows, held_out = train_test_split(np.arange(len(x)), test_size=n_held_out, random_state=rng)
        if weight is None:
            return x[train_rows], None, (x[held_out], None)
        own = weight[train_rows]
        return x[train_rows], own / own.mean(), (x[held_out], weight[held_out])

    def _epoch_hook(self, context, hook_args, n_epochs, probe):
        """``on_epoch`` of `train`: prints, and calls scikit-learn's callbacks."""
        listening = bool(getattr(self, "_skl_callbacks", None))

        def on_epoch(epoch, history):
            if self.verbose and (epoch + 1) % max(1, n_epochs // LINES_OF_REPORT) == 0:
                self._report(epoch, n_epochs, history)
            if not listening:
                return False
            task = context.subcontext(task_name="epoch")
            task.call_on_fit_task_begin(**hook_args)
            return task.call_on_fit_task_end(
                **hook_args, reconstruction_attributes=lambda: self._snapshot(history, probe)
            )

        return on_epoch

    def _snapshot(self, history, probe):
        """Fitted attributes as they are now, apart from the network that goes on training."""
        now = copy.copy(self)
        now.module_ = copy.deepcopy(self.module_).eval()
        now._store(history, probe, goes_on=False)
        kept = ("_n_features_out", "_posteriors", "_densities")
        return {name: value for name, value in vars(now).items() if name.endswith("_") or name in kept}

    def _report(self, epoch, n_epochs, history):
        line = f"epoch {epoch + 1}/{n_epochs}: loss {history.loss_curve[-1] + self._log_scale:.4f}"
        if history.validation_scores:
            line += f", validation score {history.validation_scores[-1] - self._log_scale:.4f}"
        print(line + " nats per row")

    def _describe_divergence(self, x, error):
        layout = self._table.layout_
        largest = x[:, layout.first_number : layout.first_flag].abs().amax(0)
        cause = f"Lower learning_rate_init={self.learning_rate_init}"
        if len(largest):
            label = self._reader.labels_[self._table.parts_[int(largest.argmax())][1]]
            cause = (
                f"The column furthest out is {label}, whose largest value lies {float(largest.max()):.3g} deviations from "
                f"its mean. {cause}, or clip or transform that column (for instance with PowerTransformer)"
            )
        return f"Training stopped: {error}. {cause}."

    @torch.no_grad()
    def _store(self, history, probe, *, goes_on):
        """Set the fitted attributes, those of the latent units from the encoded rows (and weights) of `probe`."""
        shift = self._log_scale
        losses = [loss + shift for loss in history.loss_curve]
        self.loss_curve_ = [*self.loss_curve_, *losses] if goes_on else losses
        self.n_iter_ = len(self.loss_curve_)
        self.validation_scores_ = [score - shift for score in history.validation_scores] or None
        self.best_validation_score_ = max(self.validation_scores_) if self.validation_scores_ else None
        x, weight = probe
        z_mean, z_logvar = self.module_.encode(x)
        weight = torch.ones_like(z_mean[:, 0]) if weight is None else weight
        latents = [a.cpu().float().numpy() for a in (z_mean, torch.exp(0.5 * z_logvar), weight)]
        if not all(np.isfinite(a).all() for a in latents):
            raise FloatingPointError("the latent means are no longer finite")
        if goes_on:  # a stream's rows so far, thinned out
            latents = _evenly(ROWS, *[np.concatenate(pair) for pair in zip(self._posteriors, latents, strict=True)])
        self._posteriors = latents
        self._densities = {}
        self.kl_per_unit_ = kl_divergence(z_mean, z_logvar).mean(0).double().cpu().numpy()
        self.active_units_ = int((z_mean.var(0, correction=0) > 0.01).sum())
        self.module_.eval()
        self._n_features_out = self.module_.latent_dim

    # -------------------------------------------------------------------------------------------------- tables <-> tensors

    def _read(self, X, *, reset):
        """Values of a table, shape (n_samples, n_features), NaN where a cell is missing."""
        X = as_table(X)
        validate_data(self, X, skip_check_array=True, reset=reset)
        if reset:
            self._reader = TableReader()
            return self._reader.fit(X, categorical_features=self.categorical_features)
        values = self._reader.read(X, self.handle_unknown)
        return self._table.without_unknown(values) if self.handle_unknown == "ignore" else values

    def _density(self, name):
        """The latent density of this name, fitted when it is first asked for."""
        if name == "auto":
            name = "prior" if not np.size(self.hidden_layer_sizes) else "mixture"
        if name not in self._densities:
            self._densities[name] = LATENT_DENSITIES[name].fit(*self._posteriors, seed=self._seed)
        return self._densities[name]

    def _encode(self, X, *, to_score=False):
        """Encoded rows, some at a time: a tensor on the model's device, which of their parts are known, their log-Jacobian."""
        check_is_fitted(self)
        rows = self._read(X, reset=False)
        self._table.check_exposure(rows, to_score=to_score)
        for values in np.array_split(rows, math.ceil(len(rows) / ROWS_PER_PART)):
            x = torch.from_numpy(self._table.encode(values))
            known = torch.from_numpy(self._table.known(values)).to(self.module_.device)
            yield x.to(self.module_.device), known, self._table.log_jacobian(values)

    def _tensor(self, array):
        return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(self.device)

    def _module_for(self, x):
        """The network in the precision of `x`: a row's numbers then do not depend on the rows around it."""
        if x.dtype == torch.float32:
            return self.module_
        return copy.deepcopy(self.module_).to(x.device, x.dtype)

    def _posterior(self, X):
        parts = [posterior(self._module_for(x), x) for x, _, _ in self._encode(X)]
        z_mean, z_logvar = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return z_mean.cpu().numpy(), torch.exp(0.5 * z_logvar).cpu().numpy()

    def _latent_mean(self, row, name):
        """z_mean of one row, ndarray of shape (latent_dim,); `name` is what errors call it."""
        check_is_fitted(self)
        names, cells = self._reader.names_, None
        if hasattr(row, "keys") and np.ndim(row) < 2:  # a dict or a pandas Series
            cells = {column: row[column] for column in row.keys()}  # noqa: SIM118 (a Series iterates over its values)
        elif np.ndim(row) == 1 and len(row) == len(names):
            if self._reader.template_ is None:
                row = np.asarray(row)[None]
            else:
                cells = dict(zip(names, row, strict=True))
        if cells is None:
            if np.ndim(row) != 2 or len(row) != 1:
                raise ValueError(
                    f"{name} must be one row of {len(names)} columns, such as X[:1], but its shape is {np.shape(row)}."
                )
            return self._posterior(row)[0][0]
        values = self._reader.read_cells({column: cell for column, cell in cells.items() if not _is_missing(cell)})
        x = torch.from_numpy(self._table.encode(values)).to(self.module_.device)
        return posterior(self._module_for(x), x)[0][0].cpu().numpy()

    def _decode(self, z, generator):
        """Rows decoded from `z`; drawn from p(x | z) if there is a generator."""
        z = z.to(self.module_.device)
        parts = generate(self._module_for(z), z, generator)
        return self._reader.write(self._table.decode(parts.double().cpu().numpy()))


def _evenly(n_rows, *arrays):
    """At most so many rows of each array (or None), evenly spaced."""
    every = math.ceil(len(arrays[0]) / n_rows)
    return [array if array is None else array[::every] for array in arrays]


def _is_missing(cell):
    same = cell == cell  # not so for NaN, and neither true nor false for NA
    return cell is None or not isinstance(same, bool | np.bool_) or not same
