"""A fitted model: what it shows, what it answers and remembers, and the plain state that it is pickled as."""

import copy
import dataclasses
import pickle
from numbers import Number

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from fits import answers, as_plain, quick, table
from sklearn.datasets import load_iris

import skvae.fitted
from skvae.fitted import FittedModel, Latents, fit_density
from skvae.model.latent import LATENT_DENSITIES, LatentDensity

X = table()


class Halved(torch.nn.Module):
    """A network of one's own, with a buffer, a dropout and a shared layer."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.5))
        self.first = torch.nn.Linear(n_inputs, 5)
        self.last = torch.nn.Linear(5, n_outputs)
        self.dropout = torch.nn.Dropout(0.3)

    def forward(self, x):
        return self.last(self.factor * self.dropout(torch.tanh(self.first(x))))


def counts_and_dates(n=60):
    """A frame with every sort of column that a table may have."""
    rng = np.random.default_rng(3)
    frame = table(n, seed=3)
    frame["visits"] = rng.poisson(2, n)
    frame["claims"] = rng.negative_binomial(2, 0.4, n) * (rng.uniform(size=n) < 0.5)
    frame["years"] = rng.uniform(0.5, 3, n)
    frame["member"] = rng.uniform(size=n) < 0.4
    frame["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    frame["size"] = pd.Categorical(rng.choice(["s", "m"], n), categories=["s", "m", "l"], ordered=True)
    return frame


KINDS = {
    "poisson": ["visits"],
    "zero_inflated_negative_binomial": ["claims"],
    "quantile_normal": ["height"],
}

MODELS = {
    "plain": lambda: quick().fit(X),
    "array": lambda: quick().fit(load_iris().data),
    "float32": lambda: quick().fit(load_iris().data.astype(np.float32)),
    "linear": lambda: quick(hidden_layer_sizes=()).fit(X),
    "autoregressive": lambda: quick(decoder="autoregressive").fit(X),
    "polars": lambda: quick().fit(pl.from_pandas(X)),
    "kinds": lambda: quick(likelihood=KINDS, exposure="years").fit(counts_and_dates()),
    "kinds in order": lambda: quick(likelihood=KINDS, exposure="years", decoder="autoregressive").fit(
        counts_and_dates()
    ),
    "kinds, decoder of one's own": lambda: quick(likelihood=KINDS, exposure="years", decoder=Halved).fit(
        counts_and_dates()
    ),
    "stream": lambda: quick().partial_fit(X).partial_fit(table(seed=1)),
    "weighted": lambda: quick().fit(X, sample_weight=np.arange(60) % 3),
}

TABLES = {"array": load_iris().data, "float32": load_iris().data.astype(np.float32), "polars": pl.from_pandas(X)}


def rows_of(model):
    return TABLES.get(model, counts_and_dates() if "kinds" in model else X)


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """Name and estimator of each fitted model."""
    return request.param, MODELS[request.param]()


# ------------------------------------------------------------------------------------------------------ public attributes


def test_likelihood_names_the_kind_of_every_column():
    assert quick().fit(X).likelihood_ == {
        "height": "normal",
        "weight": "normal",
        "city": "categorical",
        "planet": "constant",
    }
    vae = quick(likelihood=KINDS, exposure="years").fit(counts_and_dates())
    assert vae.likelihood_ == {
        "height": "quantile_normal",
        "weight": "normal",
        "city": "categorical",
        "planet": "constant",
        "visits": "poisson",
        "claims": "zero_inflated_negative_binomial",
        "years": "quantile_normal",
        "member": "bernoulli",
        "since": "normal",
        "size": "categorical",
    }
    assert list(vae.likelihood_) == list(vae.feature_names_in_)


def test_likelihood_of_arrays_is_by_position():
    rng = np.random.default_rng(0)
    array = np.column_stack([rng.normal(size=40), rng.integers(0, 2, 40), np.full(40, 7), rng.integers(0, 4, 40)])
    vae = quick(categorical_features=[3], likelihood={"negative_binomial": []}).fit(array)
    assert vae.likelihood_ == {0: "normal", 1: "bernoulli", 2: "constant", 3: "categorical"}
    assert all(type(position) is int for position in vae.likelihood_)


def test_likelihood_says_what_auto_took_by_the_number_of_rows():
    rng = np.random.default_rng(0)
    for n, kind in ((999, "normal"), (1000, "quantile_normal")):
        vae = quick(max_iter=1, batch_size=500).fit(rng.normal(size=(n, 1)))
        assert vae.likelihood_ == {0: kind}


@pytest.mark.parametrize(
    ("decoder", "n", "shown"),
    [
        ("auto", 999, "factorized"),
        ("auto", 1000, "autoregressive"),
        ("factorized", 1000, "factorized"),
        ("autoregressive", 50, "autoregressive"),
        (Halved, 1000, "factorized"),
        (torch.nn.Linear(2, 2), 50, "factorized"),
    ],
)
def test_decoder_is_shown_as_it_was_fitted(decoder, n, shown):
    vae = quick(decoder=decoder, max_iter=1, batch_size=500, likelihood={"normal": [0, 1]})
    assert vae.fit(np.random.default_rng(0).normal(size=(n, 2))).decoder_ == shown


@pytest.mark.parametrize("stated", ["auto", *LATENT_DENSITIES])
@pytest.mark.parametrize("hidden", [(), (6,)], ids=["linear", "deep"])
def test_latent_density_is_shown_by_its_name(stated, hidden):
    vae = quick(latent_density=stated, hidden_layer_sizes=hidden, max_iter=1).fit(table(150))
    expected = stated
    if stated == "auto":
        expected = "mixture" if hidden else "prior"
    assert vae.latent_density_name_ == expected
    assert vae.latent_density_.name == expected


def test_a_mixture_of_few_rows_is_one_normal():
    vae = quick(latent_density="mixture").fit(X)
    assert vae.latent_density_name_ == "mixture"
    assert vae.latent_density_.name == "gaussian"


def test_attributes_are_those_of_the_history(model):
    _, vae = model
    shown = vae._fitted.attributes({})
    assert all(
        vars(vae)[name] is value or vars(vae)[name] == value for name, value in shown.items() if name != "kl_per_unit_"
    )
    assert vae.n_iter_ == len(vae.loss_curve_)
    assert all(type(loss) is float for loss in vae.loss_curve_)
    if vae.validation_scores_ is None:
        assert vae.best_validation_score_ is None
    else:
        assert vae.best_validation_score_ == max(vae.validation_scores_)


def test_a_fitted_model_cannot_be_changed():
    fitted = quick().fit(X)._fitted
    for name in ("network", "table", "density_name"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(fitted, name, None)


# --------------------------------------------------------------------------------------------------------------- densities


def test_a_density_is_fitted_when_it_is_first_asked_for(monkeypatch):
    fitted = []

    def counted(name, latents, seed):
        fitted.append(name)
        return fit_density(name, latents, seed)

    monkeypatch.setattr(skvae.fitted, "fit_density", counted)
    vae = quick(latent_density="gaussian").fit(X)
    vae.transform(X)
    vae.reconstruct(X)
    vae.inverse_transform(vae.transform(X))
    assert fitted == []

    vae.sample(3)
    vae.score(X)
    vae.impute(X)
    assert vae.latent_density_ is vae.latent_density_ is vae._fitted.density("gaussian")
    assert fitted == ["gaussian"]

    for name in LATENT_DENSITIES:
        assert vae._fitted.density(name) is vae._fitted.density(name)
        assert isinstance(vae._fitted.density(name), LatentDensity)
    assert sorted(fitted) == sorted(LATENT_DENSITIES)

    # the cache is the model's own, and a refit begins without one
    vae.fit(X)
    assert vae._fitted.densities == {}


def test_an_unknown_density_is_refused_and_not_kept():
    fitted = quick().fit(X)._fitted
    with pytest.raises(ValueError, match=r"latent_density must be one of 'auto'.*got 'normal'"):
        fitted.density("normal")
    assert fitted.densities == {}


def test_latents_of_a_stream_are_thinned_out_evenly(monkeypatch):
    def latents(first, n):
        points = np.arange(first, first + n, dtype=np.float32)
        return Latents(points[:, None], -points[:, None], 2 * points)

    monkeypatch.setattr(skvae.fitted, "ROWS", 6)
    few = latents(0, 3).beside(latents(3, 3))
    assert few.weight.tolist() == [0, 2, 4, 6, 8, 10]
    many = latents(0, 6).beside(latents(6, 7))
    assert many.z_mean[:, 0].tolist() == [0, 3, 6, 9, 12]
    assert (many.z_std == -many.z_mean).all()
    assert (many.weight == 2 * many.z_mean[:, 0]).all()


# ----------------------------------------------------------------------------------------------------------------- answers


def test_rows_encoded_some_at_a_time_have_the_answers_of_all_at_once(model, monkeypatch):
    name, vae = model
    rows = rows_of(name)
    whole = [as_plain(answer) for answer in (vae.posterior(rows), vae.score_samples(rows))]
    monkeypatch.setattr(skvae.fitted, "ROWS_AT_ONCE", 7)
    values = vae._read(rows)
    blocks = list(vae._fitted.encoded(values))
    assert len(blocks) == -(-len(values) // 7)
    assert max(len(x) for x, _ in blocks) <= 7
    z_mean, z_std = vae.posterior(rows)
    assert z_mean.shape == z_std.shape == (len(values), 2)
    for now, before in zip((z_mean, z_std), vae._fitted.posterior(values), strict=True):
        np.testing.assert_array_equal(now, before)
    # products of fewer rows may round otherwise
    np.testing.assert_allclose(vae.score_samples(rows), np.frombuffer(whole[1][2], dtype=whole[1][0]), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_latents_have_the_precision_of_the_rows(dtype):
    rows = load_iris().data.astype(dtype)
    vae = quick().fit(rows)
    z_mean, z_std = vae._fitted.posterior(rows)
    assert z_mean.dtype == z_std.dtype == dtype
    # the network itself stays as it was trained
    assert {p.dtype for p in vae.module_.parameters()} == {torch.float32}


def test_whole_numbers_beyond_single_precision_are_filled_exactly():
    rng = np.random.default_rng(0)
    number = 2**30 + rng.integers(0, 2**10, 80)
    frame = pd.DataFrame({"number": number.astype(np.float64), "other": rng.normal(size=80)})
    frame.loc[:9, "other"] = np.nan
    filled = quick().fit(frame).impute(frame)
    np.testing.assert_array_equal(filled["number"], number)


def test_a_warning_of_few_proposals_points_to_the_call():
    vae = quick(max_iter=40, bounds=None).fit(X)
    with pytest.warns(UserWarning, match=r"The 50 rows given .* rest on only about \d+ different proposals") as caught:
        vae.sample(50, given={"height": 100.0, "weight": -5000.0}, random_state=0)
    assert caught[0].filename == __file__


# ------------------------------------------------------------------------------------------------------------- plain state

PLAIN = (str, Number, bool, type(None))


def walk(thing, path="model", seen=None):
    """Every object of a pickled state with the way to it; of the package's classes, what they are pickled as."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield path, thing

    if isinstance(thing, dict):
        for key, value in thing.items():
            yield from walk(key, f"{path}: key", seen)
            yield from walk(value, f"{path}[{key!r}]", seen)
    elif isinstance(thing, list | tuple):
        for i, value in enumerate(thing):
            yield from walk(value, f"{path}[{i}]", seen)
    elif type(thing).__module__.split(".")[0] == "skvae":
        _, arguments, state, *_ = *thing.__reduce_ex__(4), None
        yield from walk(list(arguments[1:]), f"{path}.new", seen)
        yield from walk(state, f"{path}.state", seen)


def is_plain(thing):
    if isinstance(thing, np.ndarray):
        return thing.dtype != object
    if isinstance(thing, np.generic):
        return False
    if type(thing) in (dict, list, tuple) or isinstance(thing, PLAIN):
        return True
    return type(thing).__module__.split(".")[0] == "skvae" and not isinstance(thing, torch.nn.Module)


def test_state_is_plain(model):
    _, vae = model
    for name in LATENT_DENSITIES:
        vae._fitted.density(name)
    odd = {path: type(thing) for path, thing in walk(vae._fitted) if not is_plain(thing)}
    # a network of one's own is kept as it is
    assert set(odd.values()) <= {Halved}
    assert len(odd) == (vae.decoder is Halved)


def test_the_walk_finds_what_is_not_plain():
    hidden = {"a": [("b", {"c": torch.zeros(1)})], "d": np.array([None]), "e": np.float64(1)}
    assert [path for path, thing in walk(hidden) if not is_plain(thing)] == [
        "model['a'][0][1]['c']",
        "model['d']",
        "model['e']",
    ]


@pytest.mark.parametrize(
    "how",
    [copy.copy, copy.deepcopy, lambda fitted: pickle.loads(pickle.dumps(fitted))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_model_made_of_the_state_says_the_same_to_the_last_bit(model, how):
    name, vae = model
    rows = rows_of(name)
    other = copy.copy(vae)
    other._fitted = how(vae._fitted)
    assert other._fitted is not vae._fitted
    assert isinstance(other._fitted, FittedModel)
    assert answers(other, rows) == answers(vae, rows)
    assert other._fitted.densities.keys() == vae._fitted.densities.keys()

    # nothing is shared with the original
    with torch.no_grad():
        for p in other.module_.parameters():
            p.zero_()
    assert answers(vae, rows) != answers(other, rows)


@pytest.mark.parametrize("model_name", ["plain", "stream", "kinds"])
def test_an_unpickled_model_goes_on_as_the_original_does(model_name):
    vae = MODELS[model_name]()
    other = pickle.loads(pickle.dumps(vae))
    rows = rows_of(model_name)
    assert answers(other.partial_fit(rows), rows) == answers(vae.partial_fit(rows), rows)
    for one in (vae, other):
        one.set_params(warm_start=True).fit(rows)
    assert answers(other, rows) == answers(vae, rows)


@pytest.mark.parametrize(
    "networks",
    [{"encoder": Halved}, {"decoder": Halved}, {"encoder": Halved, "decoder": Halved}, {"encoder": torch.nn.Linear}],
    ids=lambda networks: ", ".join(networks),
)
def test_networks_of_ones_own_survive(networks):
    vae = quick(**networks).fit(X)
    for other in (pickle.loads(pickle.dumps(vae)), copy.deepcopy(vae)):
        assert answers(other, X) == answers(vae, X)
        assert not any(module.training for module in other.module_.modules())
        assert answers(other.partial_fit(X), X) == answers(copy.deepcopy(vae).partial_fit(X), X)

    for role in networks:
        own = getattr(vae.module_, role)
        assert type(own if role == "encoder" else own.network) is networks[role]
