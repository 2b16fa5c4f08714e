"""One table of figures on synthetic rows, each beside what real rows get, and what it means."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvae.drawing import REAL, SYNTHETIC, pyplot, shortened
from skvae.evaluation.coding import Coded, Columns, code_together
from skvae.evaluation.distances import copied_share, density_and_coverage, nearer_share
from skvae.evaluation.fidelity import column_errors, pair_errors, trend_error
from skvae.evaluation.models import detection, utility

FEWEST_ROWS = 10
"""Of fewer rows nothing can be said, and folds would be empty."""

MEANINGS = {
    "shape": "error of single columns: 0 is best",
    "trend": "error of pairs of columns: 0 is best",
    "utility": "of trees trained on them, AUC or R2 on real test rows",
    "detection (logistic)": "AUC of telling them from real rows: .5 is best",
    "detection (boosted)": "the same by boosted trees, the sharpest test",
    "nearer": "share nearer to training than test rows: .5; 1 is a copy",
    "copies": "share equal to a training row: as real rows, or fewer",
    "density": "how far inside the real rows they lie: about 1",
    "coverage": "share of real rows that have one nearby",
}
"""What each figure says, and what good is."""


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes
    ----------
    name : str
    value : float
        Of the synthetic rows.
    real : float
        Of the real test rows in their place; for ``"utility"``, of the training rows.
    meaning : str
        What it says, and what good is.
    """

    name: str
    value: float
    real: float
    meaning: str


class Evaluation:
    """Figures on synthetic rows: what `evaluate` returns. It prints as a table and shows as one in a notebook.

    Attributes
    ----------
    measures : list of Measure
    column_errors : dict of str or int to float
        Shape error of each column: 0 is perfect, 1 the worst.
    pair_errors : ndarray of shape (n_columns, n_columns)
        Trend error of each pair, in the order of `column_errors`; NaN on the diagonal.
    left_out : list
        Names of identifiers and of empty columns, which are not compared.
    """

    def __init__(self, measures: list[Measure], columns: Columns, errors: np.ndarray, pairs: np.ndarray) -> None:
        self.measures = measures
        names = [*columns.numbers, *columns.categories]
        self.column_errors = dict(zip(names, errors.tolist(), strict=True))
        self.pair_errors = pairs
        self.left_out = columns.left_out

    def __getitem__(self, name: str) -> float:
        """The figure of this name, of the synthetic rows."""
        return self.to_dict()[name]

    def to_dict(self) -> dict[str, float]:
        """The figures of the synthetic rows by name."""
        return dict(zip(self._column("name"), self._column("value"), strict=True))

    def _column(self, name: str) -> list:
        """One attribute of all measures."""
        return [getattr(measure, name) for measure in self.measures]

    def __repr__(self) -> str:
        lines = [f"{'':22}{'synthetic':>10}{'real':>8}"]
        for measure in self.measures:
            lines.append(f"{measure.name:22}{measure.value:10.3f}{measure.real:8.3f}   {measure.meaning}")

        worst = ", ".join(f"{name} {error:.3f}" for name, error in self._worst(3))
        lines.append(f"worst columns: {worst}")
        if self.left_out:
            lines.append(f"not compared (identifiers, or empty): {', '.join(map(str, self.left_out))}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = ["<tr><th></th><th>synthetic</th><th>real</th><th style='text-align:left'>what it says</th></tr>"]
        for measure in self.measures:
            rows.append(
                f"<tr><th style='text-align:left'>{html.escape(measure.name)}</th><td>{measure.value:.3f}</td>"
                f"<td>{measure.real:.3f}</td><td style='text-align:left'>{html.escape(measure.meaning)}</td></tr>"
            )
        return f"<table>{''.join(rows)}</table>"

    def _worst(self, n: int) -> list[tuple[Any, float]]:
        """The columns with the largest shape errors, and these."""
        return sorted(self.column_errors.items(), key=lambda item: -item[1])[:n]

    def plot(self, axes: Any = None) -> Any:
        """Draw the figures beside those of real rows, and the shape errors of the worst columns.

        Parameters
        ----------
        axes : sequence of two Axes, default=None
            Where to; None makes a figure.

        Returns
        -------
        axes : ndarray of two Axes
        """
        if axes is None:
            _, axes = pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained")
        figures, columns = axes

        # one line per figure, the first one at the top
        places = np.arange(len(self.measures))[::-1]
        for place, measure in zip(places, self.measures, strict=True):
            figures.plot([measure.real, measure.value], [place, place], color="0.6", zorder=1)
        figures.scatter(self._column("real"), places, color=REAL, label="real rows", zorder=2)
        figures.scatter(self._column("value"), places, color=SYNTHETIC, label="synthetic rows", zorder=3)
        figures.set_yticks(places, self._column("name"))
        figures.set(title="Synthetic rows beside real ones")
        figures.legend()

        # bars grow upwards: the worst one is drawn last
        names, errors = zip(*self._worst(12)[::-1], strict=True)
        columns.barh(list(map(shortened, names)), errors, color=SYNTHETIC)
        columns.set(title="Columns that differ most", xlabel="shape error")
        return np.array([figures, columns])


def evaluate(
    real_train: Any,
    synthetic: Any,
    real_test: Any,
    target: Any = None,
    *,
    categorical_features: Any = "from_dtype",
    random_state: int = 0,
) -> Evaluation:
    """Compare synthetic rows with the real ones that they were learnt from, and with others that they were not.

    Every figure stands beside what real rows get: the test rows in place of the synthetic ones, which is as good as it gets.

    Parameters
    ----------
    real_train : array-like or DataFrame of shape (n_train, n_features)
        The rows that the generator was fitted to.
    synthetic : array-like or DataFrame of shape (n_synthetic, n_features)
        Rows that it made.
    real_test : array-like or DataFrame of shape (n_test, n_features)
        Real rows that it has not seen.
    target : str or int, default=None
        The column that models are to predict from the others, for ``"utility"``: a category or a number. None leaves that out.
    categorical_features : "from_dtype", None, or array-like of {bool, int, str}
        As for `VAEEstimator`. Columns of a boolean dtype are categories, too; identifiers are left out.
    random_state : int, default=0
        Seed of subsamples, folds and models.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        If the tables have different columns or fewer than 10 rows, or there is no column `target`.

    Notes
    -----
    Shape and trend follow the definitions of SDMetrics, ``nearer`` the distance to the closest record of [1]_, density and
    coverage [2]_. For detection, at most 20,000 rows of each are told apart, and for distances at most 5,000 are measured.

    References
    ----------
    .. [1] Zhang et al., "Mixed-type tabular data synthesis with score-based diffusion in latent space", ICLR 2024.
    .. [2] Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.model_selection import train_test_split
    >>> import skvae
    >>> X = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, 30]]
    >>> train, test = train_test_split(X, random_state=0)
    >>> vae = skvae.VAEEstimator(latent_dim=2, max_iter=30, random_state=0).fit(train)
    >>> skvae.evaluate(train, vae.sample(len(train), random_state=0), test)["copies"]
    0.0
    """
    # what real rows get says what there is to be had
    columns, (train, new, test) = code_together([real_train, synthetic, real_test], categorical_features)
    n_fewest = min(len(train.numbers), len(new.numbers), len(test.numbers))
    if n_fewest < FEWEST_ROWS:
        raise ValueError(f"One of the tables has {n_fewest} rows; expected at least {FEWEST_ROWS} of each.")

    errors = column_errors(train, new)
    pairs = pair_errors(train, new)
    values = _figures(train, new, test, random_state)
    real = _figures(train, test, test, random_state)
    # a test row is its own nearest one
    real["nearer"] = 0.5

    if target is not None:
        task, j = _task(target, columns)
        values["utility"] = utility(new, test, j, task, random_state)
        real["utility"] = utility(train, test, j, task, random_state)

    measures = []
    for name, meaning in MEANINGS.items():
        if name in values:
            measures.append(Measure(name, values[name], real[name], meaning))
    return Evaluation(measures, columns, errors, pairs)


def _figures(train: Coded, rows: Coded, test: Coded, seed: int) -> dict[str, float]:
    """All figures that need no target, by name."""
    logistic, trees = detection(train, rows, seed)
    density, coverage = density_and_coverage(train, rows, seed)
    return {
        "shape": float(column_errors(train, rows).mean()),
        "trend": trend_error(train, rows),
        "detection (logistic)": logistic,
        "detection (boosted)": trees,
        "nearer": nearer_share(train, test, rows, seed),
        "copies": copied_share(train, rows),
        "density": density,
        "coverage": coverage,
    }


def _task(target: Any, columns: Columns) -> tuple[str, int]:
    """What is to be done with a target, and its position among the categories or the numbers."""
    if target in columns.categories:
        return "classification", columns.categories.index(target)
    if target in columns.numbers:
        return "regression", columns.numbers.index(target)
    raise ValueError(
        f"There is no column {target!r} to predict. Name one of {[*columns.numbers, *columns.categories]}."
    )
