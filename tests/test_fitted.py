"""A fitted model is kept as plain data: by pickle where its library of frames is missing, by skops, and by copies."""

import copy
import io
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from models import MODELS, assert_answers_alike, assert_goes_on_alike, numbers, quick
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import LETTERS, NUMBERS, N

from skvae import VAEEstimator
from skvae.fitted import FittedModel


@pytest.fixture(scope="module", params=MODELS)
def fitted(request):
    """A fitted model and its rows."""
    vae, X = MODELS[request.param]()
    return vae.fit(X), X


# ---------------------------------------------------------------------------------------------------------------- skops


def through_skops(model):
    """A model written and read, with trust in types of this package only."""
    written = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=written)
    assert [name for name in untrusted if not name.startswith("skvae.")] == []
    return skops.io.loads(written, trusted=untrusted)


def test_skops_needs_trust_in_types_of_this_package_only(fitted):
    vae, X = fitted
    again = through_skops(vae)
    assert type(again) is VAEEstimator
    assert again.get_params() == vae.get_params()
    assert again.likelihood_ == vae.likelihood_
    assert again.loss_curve_ == vae.loss_curve_
    assert_answers_alike(again, vae, X)
    # densities that were asked for come along
    assert_answers_alike(through_skops(vae), vae, X)
    assert_goes_on_alike(again, copy.deepcopy(vae), X)


def test_skops_keeps_a_stream():
    X = numbers()
    vae = quick().partial_fit(X[:50]).partial_fit(X[50:])
    again = through_skops(vae)
    assert_answers_alike(again, vae, X)
    assert_goes_on_alike(again, vae, X)


def test_skops_keeps_a_model_in_a_pipeline():
    X = numbers()
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    again = through_skops(pipeline)
    np.testing.assert_array_equal(again.transform(X), pipeline.transform(X))
    assert again.score(X) == pipeline.score(X)


# --------------------------------------------------------------------------------------------------------------- pickles


def test_pickles_and_copies_answer_alike(fitted):
    vae, X = fitted
    for again in (pickle.loads(pickle.dumps(vae)), copy.deepcopy(vae)):
        assert_answers_alike(again, vae, X)
        assert_goes_on_alike(again, copy.deepcopy(vae), X)


def test_pickles_hold_no_class_of_another_library(fitted):
    names = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            names.add(module.split(".")[0])
            return super().find_class(module, name)

    Reader(io.BytesIO(pickle.dumps(fitted[0]))).load()
    assert names <= {"skvae", "numpy", "builtins", "collections"}


WITHOUT = """
import importlib.abc, pickle, sys, warnings
import numpy as np

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
warnings.simplefilter("ignore")
with open({model!r}, "rb") as file:
    vae = pickle.load(file)
X = np.load({rows!r}, allow_pickle=True)
Z, score = vae.transform(X), vae.score_samples(X)
assert not {missing!r} & {{name.split(".")[0] for name in sys.modules}}
np.savez({answers!r}, Z=Z, score=score)
try:
    vae.sample(3)
except ModuleNotFoundError as error:
    print("sample:", error)
"""


@pytest.mark.parametrize(
    ("library", "missing"), [("pandas", {"pandas", "pyarrow"}), ("polars", {"polars", "pandas", "pyarrow"})]
)
def test_a_model_of_frames_reads_arrays_where_the_library_is_missing(library, missing, tmp_path):
    columns = {"x": NUMBERS, "letter": LETTERS.tolist(), "flag": NUMBERS > 3}
    frame = pd.DataFrame(columns) if library == "pandas" else pl.DataFrame(columns)
    vae = quick().fit(frame)
    X = np.empty((N, 3), dtype=object)
    X[:, 0], X[:, 1], X[:, 2] = columns.values()
    model, rows, answers = (str(tmp_path / name) for name in ("model.pkl", "rows.npy", "answers.npz"))
    with open(model, "wb") as file:
        pickle.dump(vae, file)
    np.save(rows, X)
    code = WITHOUT.format(missing=missing, model=model, rows=rows, answers=answers)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"sample: No module named '{library}'" in run.stdout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(np.load(answers)["Z"], vae.transform(X))
        np.testing.assert_array_equal(np.load(answers)["score"], vae.score_samples(X))
    np.testing.assert_array_equal(np.load(answers)["Z"], vae.transform(frame))


# --------------------------------------------------------------------------------------------------------- what is fitted


def test_a_fitted_model_is_made_as_a_whole_and_shown():
    vae = quick().fit(numbers())
    model = vae._fitted
    assert isinstance(model, FittedModel)
    with pytest.raises(AttributeError, match="cannot assign"):
        model.seed = 3
    for name, value in model.attributes({}).items():
        assert getattr(vae, name) is value or getattr(vae, name) == value
    assert vae.module_ is model.network
    assert vae.likelihood_ == {0: "normal", 1: "normal", 2: "normal"}


def test_rows_encoded_in_parts_have_the_numbers_of_all_at_once(monkeypatch):
    X = numbers(300)
    vae = quick(max_iter=20).fit(X)
    whole = vae.transform(X), vae.score_samples(X)
    monkeypatch.setattr("skvae.fitted.ROWS_AT_ONCE", 64)
    np.testing.assert_allclose(vae.transform(X), whole[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(vae.score_samples(X), whole[1], rtol=1e-9)


# ------------------------------------------------------------------------------------------------------------- other releases


def test_a_model_of_another_release_is_read_with_a_warning(monkeypatch):
    X = np.random.default_rng(0).normal(size=(40, 2))
    vae = VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1, random_state=0).fit(X)
    monkeypatch.setattr("skvae.fitted.__version__", "0.0.1")
    text = pickle.dumps(vae)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"model of skvae 0\.0\.1 is unpickled by"):
        again = pickle.loads(text)
    np.testing.assert_array_equal(again.transform(X), vae.transform(X))


def test_a_model_that_cannot_be_read_any_more_names_its_release():
    X = np.random.default_rng(0).normal(size=(40, 2))
    fitted = VAEEstimator(2, hidden_layer_sizes=(4,), max_iter=1, random_state=0).fit(X)._fitted
    state = fitted.__getstate__()
    del state["network"], state["version"]
    with (
        pytest.warns(UserWarning, match="earlier version"),
        pytest.raises(ValueError, match="earlier version cannot be unpickled"),
    ):
        object.__new__(type(fitted)).__setstate__(state)
