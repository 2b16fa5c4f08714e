"""What a fitted model is: its columns, its size, its noise, and what its latent points tell."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from skvae.information import information_of_columns
from skvae.model.network import VAE
from skvae.table import as_table

if TYPE_CHECKING:
    from skvae.fitted import FittedModel


class _Fitted(Protocol):
    """What the properties and methods need of an estimator."""

    n_parameters_: int

    def _model(self) -> FittedModel: ...

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float: ...


class ColumnFacts:
    """A table of facts, one row per column of the training table, that prints as text and, in a notebook, as HTML.

    Parameters
    ----------
    rows : list of dict
        Facts by name; all rows have the same names.

    Attributes
    ----------
    rows : list of dict
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: Any) -> dict[str, Any]:
        """The facts of the column of this name."""
        for row in self.rows:
            if row["column"] == column:
                return row
        raise KeyError(column)

    def __repr__(self) -> str:
        texts = self._texts()
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        lines = []
        for row in texts:
            lines.append("  ".join(map(str.ljust, row, widths)).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        lines = []
        for i, row in enumerate(self._texts()):
            tag = "td" if i else "th"
            cells = "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in row)
            lines.append(f"<tr>{cells}</tr>")
        return f"<table>{''.join(lines)}</table>"

    def to_pandas(self) -> Any:
        """The same as a frame of pandas."""
        import pandas

        return pandas.DataFrame(self.rows)

    def _texts(self) -> list[list[str]]:
        """Headings and cells as texts."""
        texts = [list(self.rows[0])]
        for row in self.rows:
            texts.append([_short(fact) for fact in row.values()])
        return texts


def _short(fact: Any) -> str:
    """A fact in few letters."""
    if fact is None:
        return ""
    if isinstance(fact, float):
        return f"{fact:.4g}"

    text = str(fact)
    return text if len(text) <= 40 else text[:37] + "..."


def column_facts(model: FittedModel) -> ColumnFacts:
    """Kind, values and missing cells of each column."""
    rows = []
    for j, column in enumerate(model.table.columns):
        low = high = None
        step: float | str | None = None
        if column.grid is not None:
            dtype = model.table.schema.time_dtype(j)
            # of some columns, the distance from a lower one is modelled
            if dtype is not None and j in model.table.rules.differences:
                dtype = np.dtype(dtype.str.replace("M8", "m8"))
            low, high = _as_cells([column.grid.low, column.grid.high], dtype)
            step = column.grid.step_size
            if step is not None and dtype is not None:
                step = _as_span(step, dtype)
        levels = None
        if column.levels is not None:
            levels = ", ".join(map(str, column.levels))
        rows.append(
            {
                "column": model.table.schema.names[j],
                "kind": column.kind_name,
                "missing": column.share_missing,
                "low": low,
                "high": high,
                "step": step,
                "levels": levels,
                "policy": None if column.aside is None else column.aside.policy,
            }
        )
    return ColumnFacts(rows)


class FactsMixin:
    """Facts about an estimator that holds a `FittedModel`."""

    @property
    def columns_(self: _Fitted) -> ColumnFacts:
        """ColumnFacts : kind, share of missing cells, range, step, levels and policy of each column, as a table."""
        return column_facts(self._model())

    @property
    def n_parameters_(self: _Fitted) -> int:
        """int : number of free parameters of p(x | z): weights of the decoder, without masked ones, and of the likelihood."""
        return _n_parameters(self._model().network)

    @property
    def noise_std_(self: _Fitted) -> dict[Any, float]:
        """dict : for each ``"normal"`` column of a factorized decoder, its standard deviation given z, in its own units."""
        model = self._model()
        deviations = _noise_deviations(model.network)

        found = {}
        for j, column in enumerate(model.table.columns):
            places = model.table.places[j]
            if len(places) == 1 and places[0] in deviations and column.kind.is_linear:
                parts = np.zeros((2, model.table.layout.n_parts))
                parts[1, places[0]] = deviations[places[0]]
                low, high = model.table.decode_column(j, parts)
                found[model.table.schema.names[j]] = float(high - low)
        return found

    @property
    def information_per_column_(self: _Fitted) -> dict[Any, float]:
        """dict : mutual information of z and each column in nats: what z alone tells of it (see `skvae.information`)."""
        model = self._model()
        found = information_of_columns(model.network, model.table, model.density("auto"), model.seed)
        return dict(zip(model.table.schema.names, found.tolist(), strict=True))

    def bic(self: _Fitted, X: Any) -> float:
        """Bayesian information criterion, ``-2 sum log p(x) + n_parameters_ log n`` (Schwarz, 1978): the lower the better.

        As `GaussianMixture.bic`. The weights of the decoder are no maximum of the likelihood where a fit was stopped early,
        and a penalty for each of them is then too large: a score on held-out rows compares models more safely.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows that the model was fitted to.

        Returns
        -------
        bic : float
            In nats.
        """
        n = _n_rows(X)
        return -2 * n * self.score(X) + self.n_parameters_ * float(np.log(n))

    def aic(self: _Fitted, X: Any) -> float:
        """Akaike information criterion, ``-2 sum log p(x) + 2 n_parameters_`` (Akaike, 1974): see `bic`.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows that the model was fitted to.

        Returns
        -------
        aic : float
            In nats.
        """
        return -2 * _n_rows(X) * self.score(X) + 2 * self.n_parameters_


def _as_cells(values: list[float], dtype: np.dtype | None) -> list:
    """Numbers as they are, and ticks as texts."""
    if dtype is None or not np.isfinite(values).all():
        return values
    times = np.array(values).astype(np.int64).astype(dtype)
    if dtype.kind == "M":
        return np.datetime_as_string(times, unit="auto").tolist()
    return [_as_span(float(value), dtype) for value in values]


def _as_span(ticks: float, dtype: np.dtype) -> str:
    """A number of ticks in the longest unit that tells it exactly."""
    span = np.array(int(ticks)).astype(dtype.str.replace("M8", "m8"))
    for unit in ("D", "h", "m", "s", "ms", "us"):
        longer = span.astype(f"m8[{unit}]")
        if longer == span:
            return str(longer)
    return str(span)


def _n_parameters(vae: VAE) -> int:
    """Free parameters of p(x | z)."""
    n = 0
    for parameter in [*vae.decoder.parameters(), *vae.likelihood.parameters()]:
        n += parameter.numel()

    # masked weights are always 0
    for mask in vae.decoder.weight_masks():
        if mask is not None:
            n -= int((mask == 0).sum())
    return n


def _noise_deviations(vae: VAE) -> dict[int, float]:
    """By part, deviations of the normal noise that does not depend on z, in encoded units."""
    deviations: dict[int, float] = {}
    for place in vae.likelihood.places:
        log_std = getattr(place.block, "log_std", None)
        if log_std is not None:
            own = np.exp(log_std.detach().double().cpu().numpy())
            deviations.update(zip(range(place.parts.start, place.parts.stop), own.tolist(), strict=True))
    return deviations


def _n_rows(X: Any) -> int:
    return int(as_table(X).shape[0])
