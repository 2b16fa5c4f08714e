"""New rows, and missing cells filled: what a fitted model makes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from skvae.fitted import FittedModel
from skvae.parameters import check_positive_integer, make_generator
from skvae.progress import RowReport
from skvae.table.given import check_conditions


class _Generator(Protocol):
    """What the methods need of an estimator."""

    verbose: bool | int

    def _model(self) -> FittedModel: ...

    def _read(self, X: Any) -> np.ndarray: ...


class SamplingMixin:
    """The methods `sample` and `impute` of an estimator that holds a `FittedModel`."""

    def sample(
        self: _Generator,
        n_samples: int = 1,
        *,
        given: Any = None,
        latent_density: str | None = None,
        noise: bool = True,
        random_state: Any = None,
    ) -> Any:
        """Draw new rows: z from the latent density, then x from p(x | z).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows; with a table of conditions, number of rows for each of them.
        given : dict, DataFrame or array, default=None
            Conditions that the rows are to meet. z and the other cells are then drawn given them, by importance resampling.
            A dict has, by column (name, or index for arrays), a cell; a pair (low, high) for the range of a number or time,
            None where there is no limit; or a list or set of cells to choose from. All rows meet all of them, and a warning
            tells when too few of the proposals do. A frame of some columns (or an array of all) has one condition per row,
            a cell that is missing being none: each of its rows is completed `n_samples` times, in its order. Given cells are
            in the new rows to the bit.
        latent_density : {"auto", "prior", "aggregated_posterior", "gaussian", "mixture"}, default=None
            What z is drawn from. None and ``"auto"`` take the latent density that was chosen at fit.
        noise : bool, default=True
            Whether x is drawn from p(x | z). False decodes z only, to the mean: such rows vary less than real ones.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None gives fresh rows at each call.

        Returns
        -------
        X : ndarray, pandas or polars DataFrame of shape (n_samples, n_features)
            New rows in the units and the container of the training table.

        Raises
        ------
        ValueError
            If no row of the model can meet the conditions.
        """
        model = self._model()
        n = check_positive_integer("n_samples", n_samples)
        density = model.density("auto" if latent_density is None else latent_density)
        generator = make_generator(random_state)
        if given is None or (isinstance(given, dict) and not given):
            report = RowReport("sample", n, self.verbose)
            return model.sample(n, generator, density, noise=noise, report=report)
        if isinstance(given, dict):
            return model.sample_given(given, n, generator, density, noise=noise)

        table = check_conditions(given)
        report = RowReport("sample", len(table), self.verbose)
        return model.complete(table, n, generator, density, noise=noise, report=report)

    def impute(self: _Generator, X: Any, *, n_draws: int | None = None, random_state: Any = None) -> Any:
        """Fill missing cells given the observed cells of their row.

        The draws of z and of the missing cells are weighted by importance (Mattei & Frellsen, 2019, equations 11 and 12).

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table; NaN (or null) where a cell is missing.
        n_draws : int, default=None
            None fills a number by its conditional mean and a category by its most probable level. An integer asks for
            that many completed copies, drawn from the conditional distribution (multiple imputation).
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None is a fixed one without `n_draws`, and gives fresh copies with it.

        Returns
        -------
        X_filled : ndarray, pandas or polars DataFrame of shape (n_samples, n_features), or list of n_draws of them
            Observed cells as they were.
        """
        model = self._model()
        if n_draws is not None:
            n_draws = check_positive_integer("n_draws", n_draws, or_else="None or ")
        # means are the same at each call, draws are fresh ones
        if n_draws is None and random_state is None:
            random_state = 0

        values = self._read(X)
        report = RowReport("impute", len(values), self.verbose)
        copies = model.impute(values, n_draws, make_generator(random_state), report)
        filled = [model.table.write(copy, like=X) for copy in copies]
        if n_draws is None:
            return filled[0]
        return filled
