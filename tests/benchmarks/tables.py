"""Real tables for the benchmarks: loaded, typed and split.

The folder is named by the environment variable ``SKVAE_DATA``; each table is ``<folder>/<name>/<name>.csv.gz``. Without
it, the tables that OpenML holds in the same form are fetched by `sklearn.datasets.fetch_openml`.
"""

import io
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

PAY_STATUS = ["PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]

TABLES = {
    # name: target, task, columns of codes that are categories although they are integers, columns to drop
    "adult": ("income", "classification", [], []),
    "default_credit": ("default", "classification", ["SEX", "EDUCATION", "MARRIAGE", *PAY_STATUS, "default"], ["ID"]),
    "online_shoppers": (
        "Revenue",
        "classification",
        ["OperatingSystems", "Browser", "Region", "TrafficType"],
        [],
    ),
    "magic": ("class", "classification", [], []),
    "california_housing": ("medianHouseValue", "regression", [], []),
    "beijing_pm25": ("pm2.5", "regression", [], ["No"]),
    "wine_quality": ("quality", "regression", [], []),
    "abalone": ("Rings", "regression", [], []),
    "protein_casp": ("RMSD", "regression", [], []),
    "penguins": ("body_mass_g", "regression", [], []),
}
"""The tables whose types and target are known here."""

BENCHMARK_TABLES = [name for name in TABLES if name not in {"abalone", "protein_casp", "penguins"}]

# What OpenML holds in the same form: data id, and the names of the columns in our order where they differ.
_OPENML = {
    "adult": (1590, lambda name: {"class": "income"}.get(name, name.replace("-", "_"))),
    "default_credit": (
        42477,
        dict(
            zip(
                [f"x{i}" for i in range(1, 24)] + ["y"],
                ["LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", *PAY_STATUS]
                + [f"BILL_AMT{i}" for i in range(1, 7)]
                + [f"PAY_AMT{i}" for i in range(1, 7)]
                + ["default"],
                strict=True,
            )
        ),
    ),
    "magic": (1120, lambda name: name.strip(":")),
    "california_housing": (
        537,
        {
            "median_house_value": "medianHouseValue",
            "median_income": "medianIncome",
            "housing_median_age": "housingMedianAge",
            "total_rooms": "totalRooms",
            "total_bedrooms": "totalBedrooms",
        },
    ),
}


class Table(NamedTuple):
    """A table split into training and test rows.

    Attributes
    ----------
    name : str
    train, test : DataFrame
        Columns of codes are of dtype ``category``; the levels are those of the whole table.
    target : str
    task : {"classification", "regression"}
    numbers, categories : list of str
        How the metrics type the columns; together, all of them.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    target: str
    task: str
    numbers: list
    categories: list

    @property
    def integers(self):
        """Number columns that hold whole numbers only."""
        return [c for c in self.numbers if (self.train[c].dropna() % 1 == 0).all()]


def data_folder():
    """The folder named by ``SKVAE_DATA``, or None."""
    folder = os.environ.get("SKVAE_DATA")
    return Path(folder) if folder else None


def require_folder():
    """The folder named by ``SKVAE_DATA``; an error that says what to set if there is none."""
    if data_folder() is None:
        raise FileNotFoundError("This benchmark reads files: set the environment variable SKVAE_DATA to their folder.")
    return data_folder()


def read_frame(name):
    """The raw table `name` as a DataFrame, from the folder or from OpenML."""
    folder = data_folder()
    if folder is not None:
        return pd.read_csv(folder / name / f"{name}.csv.gz")
    if name not in _OPENML:
        raise FileNotFoundError(
            f"{name} is not fetched from OpenML: set SKVAE_DATA to a folder with {name}/{name}.csv.gz."
        )
    data_id, names = _OPENML[name]
    return datasets.fetch_openml(data_id=data_id, as_frame=True, parser="auto").frame.rename(columns=names)


def typed(frame, codes):
    """The frame with the columns `codes` cast to ``category``, as a user would say it.

    A missing category becomes the level "?": so the raw file of adult has it, and so published figures count it. Rows that
    a model completes would else differ from the real ones by their holes alone.
    """
    frame = frame.astype(dict.fromkeys(codes, "category"))
    texts = [c for c in frame if frame[c].dtype in ("object", "string") or str(frame[c].dtype) in ("str", "string")]
    return frame.assign(**{c: frame[c].fillna("?") for c in texts})


def column_types(frame):
    """Names of the number columns and of the category columns (object, string, category, boolean)."""
    numbers = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c]) and not pd.api.types.is_bool_dtype(frame[c])]
    return numbers, [c for c in frame if c not in numbers]


def load_table(name, max_rows=None):
    """A `Table`: 80 % training and 20 % test rows by a fixed split; adult by its own column ``split``.

    Parameters
    ----------
    name : str
        Key of `TABLES`.
    max_rows : int or None, default=None
        Keep at most so many training rows (for a quick look).
    """
    target, task, codes, dropped = TABLES[name]
    frame = typed(read_frame(name).drop(columns=dropped, errors="ignore"), codes)
    if "split" in frame:
        is_train = frame["split"].eq("train")
        frame = frame.drop(columns="split")
        train, test = frame[is_train], frame[~is_train]
    else:
        labels = frame[target] if task == "classification" else None
        train, test = train_test_split(frame, test_size=0.2, stratify=labels, random_state=0)
    if max_rows is not None and len(train) > max_rows:
        train = train.sample(max_rows, random_state=0)
    numbers, categories = column_types(frame)
    return Table(name, train.reset_index(drop=True), test.reset_index(drop=True), target, task, numbers, categories)


# ------------------------------------------------------------------------------------------------------ numeric tables


def resolution(column):
    """The step a column of numbers is recorded in: its smallest gap, as a power of ten."""
    gaps = np.diff(np.unique(column))
    gaps = gaps[gaps > 1e-9 * max(np.abs(column).max(), 1e-300)]
    return 10.0 ** np.floor(np.log10(gaps.min()) + 1e-6) if len(gaps) else 1.0


def dequantised(X, seed=0):
    """X plus uniform noise of one recording step per column.

    A density of recorded numbers is unbounded where they repeat. With the noise it is well defined, and its mean log
    is a lower bound on the log-probability of the recorded cells, up to a constant (Theis et al., 2016).
    """
    steps = np.array([resolution(column) for column in X.T])
    return X + steps * (np.random.default_rng(seed).uniform(size=X.shape) - 0.5)


def load_numeric(name):
    """Training and test rows of the continuous columns of a table, dequantised; arrays of shape (n, n_columns).

    ``magic``, ``california_housing``, ``wine_quality`` and ``abalone`` come from the folder (the target is kept where
    it is continuous), ``iris``, ``wine``, ``breast_cancer`` and ``diabetes`` ship with scikit-learn.
    """
    if name in {"iris", "wine", "breast_cancer"}:
        X = getattr(datasets, f"load_{name}")().data
    elif name == "diabetes":
        X = datasets.load_diabetes(scaled=False).data
        X = X[:, np.arange(10) != 1]  # sex
    else:
        frame = read_frame(name).select_dtypes("number")
        frame = frame.drop(columns=["quality", "rings", "Rings"], errors="ignore")
        X = frame.to_numpy(dtype=float)
    return train_test_split(dequantised(X), test_size=0.2, random_state=0)


NUMERIC_TABLES = [
    "magic",
    "california_housing",
    "wine_quality",
    "abalone",
    "breast_cancer",
    "diabetes",
    "wine",
    "iris",
]


# -------------------------------------------------------------------------------------------------- other collections


def load_keel():
    """The imbalanced sets, a dict from name to (X, y): X a DataFrame, y an array with 1 for the rarer class.

    Ordered as in ``index.csv``.
    """
    folder = require_folder() / "keel_imbalanced"
    names = pd.read_csv(folder / "index.csv")["name"]
    sets = {}
    with zipfile.ZipFile(folder / "keel_imbalanced.zip") as archive:
        for name in names:
            frame = pd.read_csv(io.BytesIO(archive.read(f"{name}.csv")))
            label = frame.pop("Class")
            sets[name] = frame, label.eq(label.value_counts().idxmin()).to_numpy(dtype=int)
    return sets


def load_hivae(name):
    """A set of the HI-VAE benchmark: data (n, d) with NaN, types of the columns, and masks of hidden cells by name."""
    folder = require_folder() / "hivae_imputation"
    data = pd.read_csv(folder / f"{name}_data.csv.gz", header=None)
    kinds = pd.read_csv(folder / f"{name}_types.csv")
    with np.load(folder / f"{name}_masks.npz") as stored:
        n, d = stored["shape"]
        masks = {
            key: np.unpackbits(stored[key], count=n * d).reshape(n, d).astype(bool)
            for key in stored
            if key not in {"shape", "MissingTrue"}
        }
    return data, kinds, masks


def load_binary(name):
    """Training, validation and test rows of a binary set, arrays of 0 and 1 of shape (n, n_variables)."""
    with np.load(require_folder() / "binary_density" / f"{name}.npz") as stored:
        n_variables = int(stored["n_variables"])
        return tuple(np.unpackbits(stored[part], axis=1, count=n_variables) for part in ("train", "valid", "test"))
