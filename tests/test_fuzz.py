"""Any table, any sequence of calls: an error that names the cause, or an answer that could be right.

`make test` tries 500 tables, `make fuzz` 20,000: the number is that of ``SKVAE_FUZZ``.
"""

import os
import random
import warnings

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import torch
from hypothesis import HealthCheck, given, settings

from skvae import VAEEstimator
from skvae.table.one_cell import is_missing

EXAMPLES = int(os.environ.get("SKVAE_FUZZ", "500"))

TEXTS = ["a", "b", "", "nan", "None", "α", "x" * 50, "1"]

ALLOWED_WARNINGS = (
    "look like identifiers",
    "rest on only about",
    "feature names",
    "Skipped",
)
"""Warnings that speak to the user."""


@st.composite
def columns(draw, n):
    """A column of some dtype as a list of cells, None where one is missing, and the dtype in pandas and polars."""
    kind = draw(st.sampled_from(["float", "single", "int", "small", "bool", "text", "category", "date", "span"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-200, 1e-10, 1.0, 1e3, 1e15, 1e200]))
    distinct = draw(st.sampled_from([1, 2, 3, n]))
    pool = rng.normal(size=distinct)
    holes = draw(st.sampled_from([0.0, 0.0, 0.3, 0.9, 1.0]))

    if kind == "float":
        cells = np.round(pool, draw(st.integers(0, 6))) * scale
        dtypes = ("float64", pl.Float64)
    elif kind == "single":
        cells = pool.astype(np.float32).astype(float)
        dtypes = ("float32", pl.Float32)
    elif kind == "int":
        cells = np.rint(pool * min(scale, 1e15)).astype(int)
        dtypes = ("Int64", pl.Int64)
    elif kind == "small":
        cells = np.clip(np.rint(pool * 100), -128, 127).astype(int)
        dtypes = ("Int8", pl.Int8)
    elif kind == "bool":
        cells = pool > 0
        dtypes = ("boolean", pl.Boolean)
    elif kind in ("text", "category"):
        cells = rng.choice(TEXTS, distinct)
        dtypes = ("object", pl.String) if kind == "text" else ("category", pl.Categorical)
    elif kind == "date":
        cells = np.datetime64("2020-01-01", "us") + (np.abs(pool) * 1e13).astype("timedelta64[us]")
        dtypes = ("datetime64[us]", pl.Datetime("us"))
    else:
        cells = (pool * 1e9).astype("timedelta64[us]")
        dtypes = ("timedelta64[us]", pl.Duration("us"))

    chosen = cells[rng.integers(0, distinct, n)]
    missing = rng.uniform(size=n) < holes
    return [None if hole else cell for cell, hole in zip(chosen.tolist(), missing, strict=True)], dtypes


@st.composite
def tables(draw):
    """A frame of pandas or polars, or an array of its numbers."""
    n = draw(st.integers(8, 60))
    drawn = [draw(columns(n)) for _ in range(draw(st.integers(1, 5)))]
    library = draw(st.sampled_from(["pandas", "polars", "array"]))
    if library == "polars":
        return pl.DataFrame({f"c{j}": pl.Series(cells, dtype=dtypes[1]) for j, (cells, dtypes) in enumerate(drawn)})

    frame = pd.DataFrame({f"c{j}": pd.Series(cells, dtype=dtypes[0]) for j, (cells, dtypes) in enumerate(drawn)})
    if library == "pandas":
        return frame
    numbers = frame.select_dtypes("number")
    return numbers.to_numpy(dtype=float, na_value=np.nan) if numbers.shape[1] else frame


PARAMETERS = st.fixed_dictionaries(
    {
        "latent_dim": st.integers(1, 3),
        "hidden_layer_sizes": st.sampled_from([(), (4,), (6, 5)]),
        "likelihood": st.sampled_from(["auto", "auto", "normal", "quantile_normal"]),
        "decoder": st.sampled_from(["auto", "factorized", "autoregressive"]),
        "latent_density": st.sampled_from(["auto", "prior", "gaussian", "aggregated_posterior"]),
        "bounds": st.sampled_from(["observed", "observed", None]),
        "protect": st.sampled_from([None, None, 3]),
        "handle_unknown": st.sampled_from(["error", "ignore"]),
        "early_stopping": st.booleans(),
    }
)


def rows_of(X, rows):
    """Some rows of a table."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def cells_of(X):
    """Cells of a table, column by column: None where missing."""
    if isinstance(X, np.ndarray):
        X = pd.DataFrame(X)
    columns = [X[name] for name in X.columns]
    found = []
    for column in columns:
        cells = column.to_list()
        found.append([None if is_missing(cell) else cell for cell in cells])
    return found


def assert_like(made, X, n):
    """A table of n rows, with the columns and dtypes of another one."""
    assert type(made) is type(X)
    assert made.shape == (n, X.shape[1])
    if isinstance(X, np.ndarray):
        assert made.dtype == X.dtype
        return
    assert list(made.columns) == list(X.columns)
    assert list(made.dtypes) == list(X.dtypes)


def assert_could_be(made, X, *, bounded, protected):
    """No cell is missing where the column has one, none is infinite, and none out of the observed range."""
    for new, old in zip(cells_of(made), cells_of(X), strict=True):
        seen = [cell for cell in old if cell is not None]
        # what few rows share may be protected away
        if not seen or (protected and new == [None] * len(new)):
            assert new == [None] * len(new)
            continue
        assert None not in new
        if isinstance(seen[0], str):
            assert set(new) <= set(seen)
            continue
        if isinstance(seen[0], float):
            assert np.isfinite(new).all()
        if bounded:
            assert min(seen) <= min(new)
            assert max(new) <= max(seen)


def state_of_the_world():
    return (
        np.random.mtrand._rand.get_state()[1].tobytes(),
        random.getstate(),
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        np.geterr(),
    )


def check_all(X, parameters, seed):
    """Fit, and every call after it."""
    vae = VAEEstimator(max_iter=1, random_state=seed, **parameters).fit(X)
    n = X.shape[0]
    bounded = parameters["bounds"] == "observed"
    protected = parameters["protect"] is not None
    kinds = list(vae.likelihood_.values())
    modelled = [j for j, kind in enumerate(kinds) if kind != "ignored"]
    names = list(range(X.shape[1])) if isinstance(X, np.ndarray) else list(X.columns)

    z = vae.transform(X)
    assert z.shape == (n, parameters["latent_dim"])
    assert np.isfinite(z).all()
    np.testing.assert_allclose(
        vae.transform(rows_of(X, slice(2, 3))), z[2:3], rtol=1e-3, atol=1e-3 * (1 + np.abs(z).max())
    )
    scores = vae.score_samples(X)
    assert not np.isnan(scores).any()
    np.testing.assert_array_equal(scores, vae.score_samples(X))

    if len(modelled) < len(kinds):
        return
    made = vae.sample(9, random_state=seed)
    assert_like(made, X, 9)
    assert_could_be(made, X, bounded=bounded, protected=protected)
    assert cells_of(made) == cells_of(vae.sample(9, random_state=seed))
    assert_could_be(vae.inverse_transform(z), X, bounded=bounded, protected=protected)

    for filled in (vae.impute(X), vae.impute(X, n_draws=1, random_state=seed)[0]):
        assert type(filled) is type(X)
        for new, old in zip(cells_of(filled), cells_of(X), strict=True):
            seen = [cell for cell in old if cell is not None]
            for after, before in zip(new, old, strict=True):
                assert after is not None or not seen or protected
                assert before is None or after == before

    j = seed % X.shape[1]
    cells = [cell for cell in cells_of(X)[j] if cell is not None]
    if cells and parameters["protect"] is None:
        given = {names[j]: cells[0]}
        rows = vae.sample(3, given=given, random_state=seed)
        assert cells_of(rows)[j] == [cells[0]] * 3
        if kinds[j] != "constant":
            conditional = vae.conditional(X, names[j])
            assert np.isfinite(conditional.weights).all()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 500)
@given(X=tables(), parameters=PARAMETERS, seed=st.integers(0, 1000))
def test_any_table_and_any_call(X, parameters, seed):
    before = state_of_the_world()
    message = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_all(X, parameters, seed)
        except ValueError as error:
            message = str(error)
        # an error names what is wrong
        assert not message or any(word in message for word in ("olumn", "cells", "rows", "loss", "given")), message
    assert state_of_the_world() == before
    for warning in caught:
        assert any(words in str(warning.message) for words in ALLOWED_WARNINGS), str(warning)
