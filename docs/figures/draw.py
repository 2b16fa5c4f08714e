"""Draw the figures of `rows.csv`, which are those of the page on benchmarks: nothing is measured here."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"skvae": "#E66100", "mostlyai-engine": "#56B4E9", "SMOTE": "#009E73", "TVAE": "#CC79A7"}
FIGURES = {
    "shape": "shape error, %: less is better",
    "trend": "trend error, %: less is better",
    "utility": "utility, AUC: more is better",
    "detection": "detection, AUC: .5 is best",
}


def draw(rows):
    """One picture per figure: a group of bars per table, a bar per generator."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    tables = rows["table"].unique()

    for ax, (name, title) in zip(axes, FIGURES.items(), strict=True):
        for k, (generator, colour) in enumerate(COLOURS.items()):
            own = rows[rows["generator"] == generator].set_index("table")[name]
            places = np.arange(len(tables)) + 0.2 * k - 0.3
            # bars start from 0, and scores need not
            if name in ("shape", "trend"):
                ax.bar(places, own[tables], 0.2, color=colour, label=generator)
            else:
                ax.plot(places, own[tables], "o", color=colour, label=generator)
        ax.set_xticks(np.arange(len(tables)), tables)
        ax.set_title(title)
    axes[0].legend()
    return figure


def main():
    """Write `rows.svg` beside the table."""
    with mpl.rc_context({"svg.hashsalt": "skvae"}):
        draw(pd.read_csv(HERE / "rows.csv")).savefig(HERE / "rows.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
