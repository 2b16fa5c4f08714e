"""save and load: the same model to the bit, files of every format, and clear errors for everything else."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.numpy
import torch
from models import MODELS, assert_answers_alike, assert_goes_on_alike, mixed, numbers, quick
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from tables import LETTERS, NUMBERS, N, assert_same

import skvae
from skvae import VAEEstimator
from skvae.callbacks import Checkpoint
from skvae.constraints import AllowedCombinations, FixedSum, Function, Inequality, Satisfies
from skvae.persistence import FORMAT_VERSION, _digest

FILES = Path(__file__).parent / "files"
MUTATIONS = 10_000 if os.environ.get("SKVAE_FUZZ") else 400


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """The path of a small model that was saved."""
    skvae.save(quick().fit(numbers(60)), path)
    return path


def again(vae, path, **own):
    """A model after it was saved and loaded."""
    skvae.save(vae, path)
    return skvae.load(path, **own)


def read(path):
    """Metadata and arrays of a file."""
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def forge(path, *, facts=None, arrays=None, **metadata):
    """Write a file anew, with other facts, arrays and metadata, and the checksum that belongs to them."""
    own, own_arrays = read(path)
    arrays = own_arrays if arrays is None else arrays
    text = own["model"] if facts is None else json.dumps(facts)
    own |= {"model": text, "sha256": _digest(text, arrays)} | metadata
    path.write_bytes(safetensors.numpy.save(arrays, own))


# ------------------------------------------------------------------------------------------------------------- the same model


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_answers_alike_and_goes_on_alike(name, path):
    vae, X = MODELS[name]()
    vae.fit(X)
    loaded = again(vae, path)
    assert type(loaded) is VAEEstimator
    assert str(loaded.get_params()) == str(vae.get_params())
    assert vars(loaded).keys() == vars(vae).keys()
    for attribute in ("likelihood_", "loss_curve_", "validation_scores_", "decoder_", "active_units_"):
        assert getattr(loaded, attribute) == getattr(vae, attribute)
    assert_answers_alike(loaded, vae, X)

    # densities that were fitted come along, and moments
    vae.partial_fit(X)
    assert_answers_alike(again(vae, path), vae, X)
    assert_goes_on_alike(again(vae, path), vae, X)


def test_epochs_before_and_after_a_file_are_as_good_as_epochs_in_one_go(path):
    X = mixed(1100)
    whole, halves = quick(), quick()
    for _ in range(6):
        whole.partial_fit(X)
    for _ in range(3):
        halves.partial_fit(X)
    halves = again(halves, path)
    for _ in range(3):
        halves.partial_fit(X)
    assert halves.loss_curve_ == whole.loss_curve_
    assert_answers_alike(halves, whole, X)


def test_a_warm_start_after_a_file_is_one_without(path):
    X = numbers()
    vae = quick(warm_start=True).fit(X)
    loaded = again(vae, path).fit(X)
    assert loaded.loss_curve_ == vae.fit(X).loss_curve_
    assert_answers_alike(loaded, vae, X)


PARAMETERS = {
    "likelihood": {"normal": ["a", "b"]},
    "categorical_features": np.array([False, False, True]),
    "bounds": {"a": (0, None)},
    "ignore": ["b"],
    "hidden_layer_sizes": np.array([4, 3]),
    "random_state": np.random.RandomState(5),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_any_form_come_back(name, path):
    frame = pd.DataFrame(np.abs(numbers(60)), columns=["a", "b", "c"]).assign(c=np.arange(60) % 3)
    vae = quick(**{name: PARAMETERS[name]}).fit(frame)
    loaded = again(vae, path)
    assert type(loaded.get_params()[name]) is type(vae.get_params()[name])
    if name != "random_state":
        np.testing.assert_equal(loaded.get_params()[name], vae.get_params()[name])
    # a random state goes on where it was
    loaded.fit(frame), vae.fit(frame)
    assert_same(loaded.sample(5, random_state=0), vae.sample(5, random_state=0), rtol=0)


def encoder(n_inputs, n_outputs):
    layers = torch.nn.Linear(n_inputs, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, n_outputs)
    return torch.nn.Sequential(*layers)


def test_networks_of_ones_own_keep_their_weights_and_their_makers_come_again(path):
    X = numbers()
    vae = quick(encoder=encoder, decoder=torch.nn.Linear(2, 3)).fit(X)
    loaded = again(vae, path, encoder=encoder, decoder=torch.nn.Linear(2, 3))
    assert_answers_alike(loaded, vae, X)
    assert loaded.encoder is encoder

    with pytest.raises(
        ValueError, match=r"its encoder is a network of your own: pass what made it, load\(path, encoder="
    ):
        skvae.load(path)
    with pytest.raises(ValueError, match=r"holds no model that can be read: [\s\S]*Unexpected key"):
        skvae.load(path, encoder=lambda n, m: torch.nn.Linear(n, m), decoder=torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match="its decoder is no network of your own"):
        again(quick(encoder=encoder).fit(X), path, encoder=encoder, decoder=torch.nn.Linear(2, 3))


def sums(n=80):
    a = np.arange(n) % 7 + 1.0
    frame = pd.DataFrame({"a": a, "b": a + numbers(n, 1)[:, 0] ** 2})
    return frame.assign(
        all=frame["a"] + frame["b"], town=np.where(a > 3, "Bonn", "Kiel"), land=np.where(a > 3, "NRW", "SH")
    )


def test_constraints_come_along(path):
    X = sums()
    rules = [Inequality("a", "b"), FixedSum(["a", "b"], "all"), AllowedCombinations(["town", "land"])]
    vae = quick(constraints=rules).fit(X)
    loaded = again(vae, path)
    assert str(loaded.constraints) == str(rules)
    assert_answers_alike(loaded, vae, X)
    assert all(rule.fit(X).is_valid(loaded.sample(50, random_state=1)).all() for rule in rules)


def test_constraints_that_hold_functions_are_given_again(path):
    X = sums()
    rules = [Function("all", lambda X: X["a"] + X["b"]), Satisfies(lambda X: X["b"] > 0)]
    vae = quick(constraints=rules).fit(X)
    assert_answers_alike(again(vae, path, constraints=rules), vae, X)
    with pytest.raises(ValueError, match=r"its constraint Function holds a function: pass all of them"):
        skvae.load(path)
    with pytest.raises(ValueError, match="it has 2 constraints, and 1 are given"):
        skvae.load(path, constraints=rules[:1])
    with pytest.raises(ValueError, match="expected a constraint Function, got Satisfies"):
        skvae.load(path, constraints=rules[::-1])


def test_joblib_keeps_models_too(path):
    X = mixed(60)
    vae = quick().fit(X)
    joblib.dump(vae, path)
    assert_answers_alike(joblib.load(path), vae, X)


# --------------------------------------------------------------------------------------------------------------- what is saved


def test_what_cannot_be_saved_is_refused(path):
    with pytest.raises(NotFittedError):
        skvae.save(VAEEstimator(), path)
    with pytest.raises(TypeError, match=r"save writes a VAEEstimator, got KMeans\. Keep pipelines"):
        skvae.save(KMeans(), path)
    vae = quick().fit(numbers())
    with pytest.raises(TypeError, match=r"verbose=<object .* has no plain form"):
        skvae.save(vae.set_params(verbose=object()), path)
    assert not path.exists()


def test_a_file_is_there_as_a_whole_or_not_at_all(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        skvae.save(quick().fit(numbers()), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_link_stays_a_link(saved, tmp_path):
    link = tmp_path / "latest.safetensors"
    link.symlink_to(saved)
    skvae.save(quick().fit(numbers(40)), link)
    assert link.is_symlink()
    assert skvae.load(saved).transform(numbers(40)).shape == (40, 2)


# ------------------------------------------------------------------------------------------------------------- what is refused


def test_files_of_others_are_refused(tmp_path, path):
    with pytest.raises(FileNotFoundError):
        skvae.load(path)
    with pytest.raises(IsADirectoryError):
        skvae.load(tmp_path)
    for data in (b"", b"skvae", pickle.dumps(quick().fit(numbers(40)))):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is not a file of skvae\.save, is cut off or damaged"):
            skvae.load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"was not written by skvae\.save"):
        skvae.load(path)


def test_damage_is_found(saved):
    data = saved.read_bytes()
    saved.write_bytes(data[:-4])
    with pytest.raises(ValueError, match="is cut off or damaged"):
        skvae.load(saved)
    # one bit of a weight
    saved.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="do not have the checksum"):
        skvae.load(saved)


def test_a_newer_format_is_refused_and_another_release_warned_of(saved):
    X = numbers()
    z = skvae.load(saved).transform(X)
    forge(saved, skvae_version="0.0.1")
    with pytest.warns(UserWarning, match=r"A model of skvae 0\.0\.1 is loaded by"):
        loaded = skvae.load(saved)
    np.testing.assert_array_equal(loaded.transform(X), z)

    forge(saved, format_version=str(FORMAT_VERSION + 1), skvae_version="99.1")
    with pytest.raises(
        ValueError, match=r"has format 2, written by skvae 99\.1; this release, .* reads formats up to 1"
    ):
        skvae.load(saved)


ARRAYS = {
    "missing": (lambda a: a.pop("network.encoder.layers.0.weight"), "has shape None"),
    "missing latents": (lambda a: a.pop("latents.z_std"), r"'latents\.z_std' is missing"),
    "extra": (lambda a: a.update(more=np.zeros(1)), r"\['more'\] are not part"),
    "extra scores": (
        lambda a: a.update(validation_scores_more=np.zeros(1)),
        r"\['validation_scores_more'\] are not part",
    ),
    "scores of a shape": (
        lambda a: a.update(validation_scores=np.zeros((2, 2))),
        r"'validation_scores' has shape \(2, 2\)",
    ),
    "extra weights": (lambda a: a.update({"network.more": np.zeros(1)}), "[\\s\\S]*Unexpected key"),
    "shape": (lambda a: a.update(kl_per_unit=np.zeros(3)), r"'kl_per_unit' has shape \(3,\)"),
    "weights": (
        lambda a: a.update({"network.encoder.layers.0.weight": np.zeros((8, 99))}),
        r"shape \(8, 99\); expected",
    ),
    "dtype": (lambda a: a.update(kl_per_unit=np.zeros(2, int)), "dtype int64"),
    "not finite": (lambda a: a["latents.z_mean"].fill(np.nan), r"'latents\.z_mean' is not finite"),
    "weights not finite": (lambda a: a["network.encoder.layers.0.bias"].fill(np.inf), "bias' is not finite"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_another_model_are_refused(name, saved):
    change, message = ARRAYS[name]
    _, arrays = read(saved)
    change(arrays)
    forge(saved, arrays=arrays)
    with pytest.raises(ValueError, match=f"holds no model that can be read: .*{message}"):
        skvae.load(saved)


TRAINING = {
    "average/n_terms": np.zeros(3),
    "average/0": np.zeros((1, 1)),
    "average/99": np.zeros(3),
    "watch/bests": np.zeros((2, 2)),
    "watch/best/encoder.layers.0.bias": np.zeros(99),
    "draws/0": np.zeros(3),
    "generator": np.zeros(7, np.uint8),
    "descent": np.array([1.0, np.nan]),
    "fit/position": np.array(-5),
    "more": np.zeros(1),
}


@pytest.mark.parametrize("name", TRAINING)
def test_states_of_training_of_another_fit_are_refused(name, path):
    """At once, and not when the fit goes on."""
    quick(max_iter=4).set_callbacks(Checkpoint(path, 3)).fit(numbers())
    _, arrays = read(path)
    arrays[f"training/{name}"] = TRAINING[name]
    forge(path, arrays=arrays)
    with pytest.raises(ValueError, match="holds no model that can be read"):
        skvae.load(path)


def test_scores_that_are_no_numbers_are_kept(saved):
    """A look in the middle of a fit may have been none; the fit went on."""
    _, arrays = read(saved)
    arrays["validation_scores"] = np.array([np.nan, -3.0, -np.inf])
    arrays["curves/look"] = np.arange(3.0)
    forge(saved, arrays=arrays)
    np.testing.assert_array_equal(skvae.load(saved).validation_scores_, arrays["validation_scores"])


def set_at(facts, path, value):
    *way, last = path
    for key in way:
        facts = facts[key]
    facts[last] = value


FACTS = {
    "absurd latent_dim": (("network", "latent_dim"), 10**12),
    "absurd layers": (("network", "encoder", "sizes"), [6, 10**9, 4]),
    "absurd levels": (("table", "columns", 0, "kind"), "categorical"),
    "a library to import": (("table", "schema", "library"), "antigravity"),
    "a function of narwhals": (("table", "schema", "types"), ["read_csv"] * 3),
    "an unknown parameter": (("parameters", "colour"), "red"),
    "a parameter out of range": (("parameters", "beta"), -1.0),
    "an array of much memory": (("parameters", "ignore"), {"type": "array", "dtype": "U1000000000", "value": ["a"]}),
    "a random state beyond its keys": (
        ("parameters", "random_state"),
        {"type": "RandomState", "value": ["MT19937", [0] * 624, -5, 0, 0.0]},
    ),
    "no density": (("density_name",), "red"),
    "a scale that is text": (("table", "columns", 0, "state", "scale"), "red"),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_another_model_are_refused(name, saved):
    facts = json.loads(read(saved)[0]["model"])
    set_at(facts, *FACTS[name])
    forge(saved, facts=facts)
    with pytest.raises(ValueError, match="holds no model that can be read"):
        skvae.load(saved)
    assert "antigravity" not in sys.modules


def test_mutated_files_raise_clear_errors_in_bounded_memory_and_time(tmp_path):
    models = {
        "frame": quick().partial_fit(mixed(1100)),
        "array": quick().fit(numbers(60)),
        "rules": quick(constraints=[AllowedCombinations(["town", "land"])], bounds={"a": (0, 9)}).fit(sums()),
    }
    paths = []
    for name, vae in models.items():
        vae.score_samples(vae.sample(2, random_state=0))
        paths.append(str(tmp_path / name))
        skvae.save(vae, paths[-1])
    paths.append(str(tmp_path / "checkpoint"))
    quick(max_iter=4).set_callbacks(Checkpoint(paths[-1], 3)).fit(mixed(1100))
    command = [sys.executable, Path(__file__).parent / "mutations.py", str(MUTATIONS), "0", *paths]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stderr
    # some change nothing that can be told from another model
    assert int(run.stdout) > 0.7 * MUTATIONS


# ----------------------------------------------------------------------------------------------------- formats, other machines


def test_files_of_every_format_are_read():
    """The files were written by the first release of each format; see tests/files/README.md."""
    answers = np.load(FILES / "answers.npz")
    X = np.empty((N, 3), dtype=object)
    X[:, 0], X[:, 1], X[:, 2] = NUMBERS, LETTERS.tolist(), NUMBERS > 3
    for version in range(1, FORMAT_VERSION + 1):
        loaded = skvae.load(FILES / f"format-{version}.safetensors")
        np.testing.assert_allclose(loaded.transform(X), answers["z_mean"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loaded.score_samples(X), answers["score"], rtol=1e-4, atol=1e-4)
        assert list(loaded.sample(3, random_state=0).columns) == ["x", "letter", "flag"]


WITHOUT = """
import sys
for name in ("pandas", "polars", "pyarrow"):
    sys.modules[name] = None
import numpy as np, skvae
vae = skvae.load({path!r})
X = np.empty((2, 3), dtype=object)
X[:] = [[1.5, "a", True], [None, "b", False]]
print(vae.transform(X).shape)
"""


def test_a_file_is_read_where_no_library_of_frames_is():
    code = WITHOUT.format(path=str(FILES / "format-1.safetensors"))
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "(2, 2)\n", run.stderr
