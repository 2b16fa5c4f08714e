"""Graphs in the ONNX format: the numbers of the estimator, by names and texts, where there is no torch."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import torch
from models import mixed, numbers, policies, quick
from sklearn.exceptions import NotFittedError

from skvae.constraints import Inequality
from skvae.export import to_onnx
from skvae.export.answers import latent_points
from skvae.export.special import lgamma, ndtri, searchsorted
from skvae.model.generation import make_in_order

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="this torch writes other graphs"
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "graph.onnx")


def session(vae, path, method, **options):
    to_onnx(vae, path, method, **options)
    return onnxruntime.InferenceSession(path)


def columns(X):
    """A frame as named columns, as a graph reads them: nothing of skvae takes part."""
    named = {}
    for name, column in X.items():
        if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(column.dtype):
            named[name] = np.array([cell if isinstance(cell, str) else "" for cell in column], dtype=object)[:, None]
        elif column.dtype.kind == "M":
            ticks = column.to_numpy().astype(np.int64).astype(float)
            named[name] = np.where(column.isna(), np.nan, ticks)[:, None]
        else:
            named[name] = column.astype("Float64").to_numpy(float, na_value=np.nan)[:, None]
    return named


@pytest.fixture(scope="module")
def frame():
    """A model of every kind of column under the autoregressive decoder, and its rows."""
    X = mixed(1100)
    vae = quick(max_iter=20, handle_unknown="ignore").fit(X)
    assert vae.decoder_ == "autoregressive"
    return vae, X


def test_latent_means_of_a_frame(frame, path):
    vae, X = frame
    rows = X.head(50).copy()
    (z_mean,) = session(vae, path, "transform").run(None, columns(rows))
    np.testing.assert_allclose(z_mean, vae.transform(rows), rtol=1e-9, atol=1e-9)

    # a town never seen is a missing cell here
    rows["city"] = rows["city"].astype(object).where(np.arange(50) % 5 > 0, "Rome")
    (z_mean,) = onnxruntime.InferenceSession(path).run(None, columns(rows))
    np.testing.assert_allclose(z_mean, vae.transform(rows), rtol=1e-9, atol=1e-9)


def test_rows_of_a_frame_from_latent_points(frame, path):
    vae, X = frame
    z = vae.transform(X)
    graph = session(vae, path, "inverse_transform")
    decoded = dict(zip([out.name for out in graph.get_outputs()], graph.run(None, {"z": z}), strict=True))
    expected = columns(vae.inverse_transform(z))
    assert decoded.keys() == expected.keys()
    for name, cells in expected.items():
        if cells.dtype == object:
            assert decoded[name].tolist() == cells.tolist()
        else:
            np.testing.assert_allclose(decoded[name], cells, rtol=1e-9, atol=1e-9)


def test_scores_of_a_frame(frame, path):
    vae, X = frame
    rows = X.head(200)
    (score,) = session(vae, path, "score_samples", n_draws=16).run(None, columns(rows))
    whole = ~rows.isna().any(axis=1).to_numpy()
    assert 0 < whole.sum() < 200
    np.testing.assert_allclose(score[whole], vae.score_samples(rows[whole], n_draws=16), rtol=1e-5, atol=1e-5)
    # an integral that the graph does not have is no wrong number
    assert np.isnan(score[~whole]).all()


@pytest.mark.parametrize("decoder", ["autoregressive", "factorized"])
def test_new_rows_follow_from_uniform_numbers(decoder, path):
    X = mixed(1100)[["income", "city", "age"]].dropna()
    vae = quick(max_iter=20, decoder=decoder, bounds=None).fit(X)
    graph = session(vae, path, "sample")
    width = graph.get_inputs()[0].shape[1]
    uniform = np.random.default_rng(0).uniform(size=(300, width))
    made = graph.run(None, {"uniform": uniform})

    # the kernel of `sample`, told by the same numbers
    model = vae._fitted
    noise = torch.from_numpy(scipy.special.ndtri(uniform[:, 1:3]))
    u = torch.from_numpy(uniform)
    z = latent_points(model.density("auto"), u[:, 0], noise)
    kernel = make_in_order(model.network.double(), z[:, None], torch.Generator(), uniform=u[:, None, 3:])
    expected = model.table.write(model.table.decode(kernel.parts[:, 0].numpy()))
    for out, cells in zip(graph.get_outputs(), made, strict=True):
        alike = columns(expected)[out.name]
        if cells.dtype == object:
            assert cells.tolist() == alike.tolist()
        else:
            np.testing.assert_allclose(cells, alike, rtol=1e-5, atol=1e-6 * alike.std())


def test_new_rows_within_ranges_are_like_those_of_the_estimator(path):
    """A draw beyond a range is no cell at its end: incomes that are normal here would often be below 0."""
    X = mixed(1100)[["income", "city"]].dropna()[:900]
    vae = quick(max_iter=20, decoder="autoregressive").fit(X)
    graph = session(vae, path, "sample")
    uniform = np.random.default_rng(0).uniform(size=(4000, graph.get_inputs()[0].shape[1]))
    made = graph.run(["income"], {"uniform": uniform})[0][:, 0]
    expected = vae.sample(4000, random_state=0)["income"].to_numpy()
    assert made.min() >= 0
    assert made.max() <= X["income"].max()
    assert scipy.stats.ks_2samp(made, expected).statistic < 0.05


def test_arrays_are_one_input(path):
    X = numbers(200)
    X[::7, 1] = np.nan
    vae = quick(likelihood="normal").fit(X)
    (z_mean,) = session(vae, path, "transform").run(None, {"X": X})
    np.testing.assert_allclose(z_mean, vae.transform(X), rtol=1e-9, atol=1e-9)
    graph = session(vae, path, "score_samples", n_draws=8)
    (score,) = graph.run(None, {"X": X[:1]})
    np.testing.assert_allclose(score, vae.score_samples(X[:1], n_draws=8), rtol=1e-5, atol=1e-5)


def test_counts_are_scored_and_what_is_none_is_no_number(path):
    X = policies()
    vae = quick(likelihood={"negative_binomial": ["claims"]}, max_iter=20).fit(X)
    (score,) = session(vae, path, "score_samples", n_draws=8).run(None, columns(X))
    np.testing.assert_allclose(score, vae.score_samples(X, n_draws=8), rtol=1e-5, atol=1e-5)
    (score,) = onnxruntime.InferenceSession(path).run(None, columns(X.assign(claims=1.5)[:2]))
    assert np.isnan(score).all()


def test_what_the_estimator_refuses_is_no_number(path):
    """Unknown levels and third values count as missing where it says so; what is no count, or infinite, never does."""
    X = policies().assign(two=np.arange(200) % 2)
    vae = quick(likelihood={"poisson": ["claims"]}, handle_unknown="ignore").fit(X)
    graph = session(vae, path, "transform")
    rows = X.head(4).assign(claims=[1.0, 1.5, 1, 1], years=[1.0, 1, np.inf, 1], two=[0.0, 1, 1, 7])
    (z_mean,) = graph.run(None, columns(rows))
    assert np.isnan(z_mean).any(axis=1).tolist() == [False, True, True, False]
    np.testing.assert_allclose(z_mean[[0, 3]], vae.transform(rows.iloc[[0, 3]]), rtol=1e-9, atol=1e-9)


def test_columns_that_are_not_modelled_take_no_part(path):
    X = mixed(1100)[["height", "city"]].assign(key=[f"key {i}" for i in range(1100)])
    with pytest.warns(UserWarning, match="identifiers"):
        vae = quick().fit(X)
    named = columns(X)
    del named["key"]
    (z_mean,) = session(vae, path, "transform").run(None, named)
    np.testing.assert_allclose(z_mean, vae.transform(X), rtol=1e-9, atol=1e-9)
    graph = session(vae, path, "inverse_transform")
    assert [out.name for out in graph.get_outputs()] == ["height", "city"]


def test_names_that_a_graph_has_itself_are_refused(path):
    for name in ("z", "skvae.values"):
        X = pd.DataFrame({"x": numbers(40, 1)[:, 0], name: numbers(40, 2)[:, 1], "k": ["a", "b"] * 20})
        vae = quick().fit(X)
        with pytest.raises(ValueError, match=f"The graph has another use for the names \\[.*'{name}'.*\\]"):
            to_onnx(vae, path, "inverse_transform")


def test_levels_that_are_integers(path):
    X = pd.DataFrame({"x": numbers(80, 1)[:, 0], "k": pd.Categorical(np.arange(80) % 3 * 10)})
    vae = quick().fit(X)
    graph = session(vae, path, "transform")
    named = {"x": X[["x"]].to_numpy(), "k": X[["k"]].to_numpy().astype(np.int64)}
    np.testing.assert_allclose(graph.run(None, named)[0], vae.transform(X), rtol=1e-9, atol=1e-9)
    # no level: the estimator raises, the graph says nothing of the row
    assert np.isnan(graph.run(None, {"x": np.zeros((1, 1)), "k": np.array([[7]])})[0]).all()


def test_what_a_graph_cannot_hold_is_refused(path):
    X = policies()
    with pytest.raises(NotFittedError):
        to_onnx(quick(), path)
    vae = quick(likelihood={"poisson": ["claims"]}).fit(X)
    with pytest.raises(ValueError, match=r"method must be one of 'transform', .*, got 'impute'"):
        to_onnx(vae, path, "impute")
    with pytest.raises(ValueError, match=r"n_draws must be an integer of at least 1, got 0"):
        to_onnx(vae, path, "score_samples", n_draws=0)
    with pytest.raises(ValueError, match="Column 'claims' is modelled as a count, of which a graph cannot draw"):
        to_onnx(vae, path, "sample")
    with pytest.raises(ValueError, match="with an exposure cannot be exported"):
        to_onnx(quick(exposure="years", likelihood={"poisson": ["claims"]}).fit(X), path)
    ordered = pd.DataFrame({"a": [1.0, 2, 3, 4] * 9, "b": [2.0, 3, 5, 9] * 9})
    with pytest.raises(ValueError, match="with constraints cannot be exported"):
        to_onnx(quick(constraints=[Inequality("a", "b")]).fit(ordered), path)
    flags = pd.DataFrame({"x": numbers(40, 1)[:, 0], "f": pd.Categorical(np.arange(40) % 2 == 0)})
    with pytest.raises(ValueError, match=r"Column 'f' has levels of \['bool'\]; a graph holds texts or integers"):
        to_onnx(quick().fit(flags), path)


SERVE = """
import sys
for name in ("torch", "sklearn", "skvae", "pandas"):
    sys.modules[name] = None
import numpy, onnxruntime
graph = onnxruntime.InferenceSession({path!r})
print(graph.run(None, {{"x": numpy.zeros((2, 1)), "town": numpy.array([["Ulm"], [""]], dtype=object)}})[0].tolist())
"""


def test_a_graph_runs_where_there_is_no_torch(path):
    X = pd.DataFrame({"x": numbers(80, 1)[:, 0], "town": np.where(np.arange(80) % 3 > 0, "Ulm", "Bonn").astype(object)})
    X.loc[::9, "town"] = None
    vae = quick().fit(X)
    to_onnx(vae, path)
    run = subprocess.run([sys.executable, "-c", SERVE.format(path=path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    expected = vae.transform(pd.DataFrame({"x": [0.0, 0.0], "town": ["Ulm", None]}))
    np.testing.assert_allclose(json.loads(run.stdout), expected, rtol=1e-9, atol=1e-9)


def test_special_functions_agree_with_scipy():
    p = np.concatenate([np.logspace(-300, -0.31, 500), np.linspace(0.01, 1 - 1e-12, 500)])
    np.testing.assert_allclose(ndtri(torch.from_numpy(p)).numpy(), scipy.special.ndtri(p), rtol=1e-12, atol=1e-14)
    x = np.logspace(-6, 6, 500)
    np.testing.assert_allclose(lgamma(torch.from_numpy(x)).numpy(), scipy.special.gammaln(x), rtol=1e-12, atol=1e-12)
    ends = torch.tensor([[0.2, 0.2, 1.0]])
    for right in (False, True):
        points = torch.tensor([[0.1, 0.2, 0.5, 1.0]])
        found = searchsorted(ends, points, right=right)
        assert torch.equal(found, torch.searchsorted(ends, points, right=right))
