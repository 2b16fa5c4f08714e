"""Several processes that train one model: they take the steps of one process, know all rows, and fail together."""

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from layouts import LAYOUTS, means_of, rows_of
from ranks import Processes, TogetherInOne, environment, free_port
from reference import SlowStep, SlowVAE, in_float64
from sklearn.model_selection import GridSearchCV
from tables import assert_same

import skvae
from skvae import VAEEstimator, distributed
from skvae.callbacks import Checkpoint
from skvae.engine.flat_step import FlatStep
from skvae.engine.ranks import Alone, Group, Ranks
from skvae.engine.steps import AutogradStep
from skvae.engine.training import train
from skvae.engine.watch import Watch
from skvae.exceptions import LostRankError
from skvae.model.network import build_vae
from skvae.on_dask import share_out
from skvae.shards import Shard

SIZES = {2: (40, 20), 4: (20, 10, 20, 30)}
"""Training rows of each rank: in batches of 12 and of 16, which are of equal size."""

BATCH = {2: 12, 4: 16}


@pytest.fixture(scope="module")
def two():
    return Processes(2)


@pytest.fixture(scope="module")
def four():
    return Processes(4)


def table(n=900, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": hidden + 0.1 * rng.normal(size=n),
            "y": hidden**2,
            "k": pd.Categorical(np.where(hidden > 0, "up", "down")),
            "n": rng.poisson(np.exp(hidden)),
            "flag": rng.uniform(size=n) < 0.3,
        }
    )
    frame["x"] = frame["x"].where(rng.uniform(size=n) > 0.1)
    return frame


def quick(**params):
    defaults = {"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 4, "batch_size": 60, "random_state": 0}
    return VAEEstimator(**{**defaults, **params})


def network():
    layout = LAYOUTS["all"]
    vae = build_vae(
        layout,
        means_of(layout, 0.4),
        latent_dim=2,
        hidden_layer_sizes=(6, 5),
        activation="tanh",
        encoder=None,
        decoder="autoregressive",
        seed=0,
    )
    return in_float64(vae)


def shards_of(n_ranks):
    """Encoded rows and weights of each rank."""
    rng = np.random.default_rng(5)
    shards = []
    for i, n in enumerate(SIZES[n_ranks]):
        weight = torch.from_numpy(rng.uniform(0.5, 1.5, n))
        shards.append((rows_of(LAYOUTS["all"], n, seed=i)[0], weight))
    return shards


def weights_of(vae):
    return {name: p.detach().numpy().copy() for name, p in vae.named_parameters()}


# ------------------------------------------------------------------------------------------------------------ the engine

SETTINGS = {"n_epochs": 3, "learning_rate": 1e-2, "beta": 0.8, "penalty": 0.01, "seed": 3}


def trained(rank, n_ranks, step_class):
    """Weights and history of a rank."""
    x, weight = shards_of(n_ranks)[rank]
    ranks = Ranks(Group(), SIZES[n_ranks], BATCH[n_ranks])
    vae = network()
    if step_class is AutogradStep:
        # far cells of one rank: all leave the step by hand
        x = x.clone()
        if rank == 1:
            x[:, vae.likelihood.layout.first_number] *= 1e6
    history, state = train(vae, x, weight, batch_size=BATCH[n_ranks], ranks=ranks, **SETTINGS)
    return weights_of(vae), history.loss_curve, state


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_ranks_take_the_steps_of_one_process_on_the_same_batches(request, n_ranks, step_class):
    processes = request.getfixturevalue("two" if n_ranks == 2 else "four")
    results = processes.together(trained, n_ranks, step_class)

    vae = network()
    shards = shards_of(n_ranks)
    if step_class is AutogradStep:
        shards[1][0][:, vae.likelihood.layout.first_number] *= 1e6
    whole = TogetherInOne(shards, BATCH[n_ranks])
    history, _ = train(vae, whole.x, batch_size=BATCH[n_ranks], ranks=whole, **SETTINGS)

    for weights, losses, _ in results:
        np.testing.assert_allclose(losses, history.loss_curve, rtol=1e-9)
        for name, array in weights_of(vae).items():
            np.testing.assert_allclose(weights[name], array, rtol=1e-7, atol=1e-9, err_msg=name)
    # all ranks to the bit: gradients are summed in one place
    for weights, losses, _ in results[1:]:
        assert losses == results[0][1]
        assert all((weights[name] == results[0][0][name]).all() for name in weights)


def test_the_twin_is_the_slow_step():
    # what the ranks are compared with is compared with what everything is
    whole = TogetherInOne(shards_of(2), 12)
    vae = network()
    slow = SlowVAE(vae)
    twin = SlowStep(slow, 0.01)
    step = FlatStep(vae, 0.01)
    batches = whole.batches(whole.x, None, 12, vae.noise_dim, whole.generator(3))
    assert len(batches) == 5
    for x, weight, noise in batches:
        assert len(x) == 12
        step(x, weight, noise, 0.5, 0.01)
        twin(x, weight, noise.t(), 0.5, 0.01)
    step.release()
    for name, array in slow.arrays().items():
        np.testing.assert_allclose(weights_of(vae)[name], array, rtol=1e-8, atol=1e-10)


def score_of_rank(rank):
    x, weight = shards_of(2)[rank]
    ranks = Ranks(Group(), SIZES[2], 12)
    options = {"beta": 1.0, "tol": 0.0, "patience": None, "seed": rank, "draws": None}
    own = Watch(network(), x, weight, **options)
    together = Watch(network(), x, weight, **options, ranks=ranks)
    return own.look(), float(weight.sum()), together.look()


def test_a_look_is_at_the_rows_of_all_ranks(two):
    (a, weight_a, both), (b, weight_b, same) = two.together(score_of_rank)
    assert both == same == pytest.approx((a * weight_a + b * weight_b) / (weight_a + weight_b), rel=1e-12)
    assert a != b


def test_one_process_is_a_group_of_nobody():
    alone = Alone()
    grad = torch.ones(3)
    alone.average(grad)
    assert grad.tolist() == [1, 1, 1]
    assert alone.sums(1.0, 2.0) == [1.0, 2.0]
    assert alone.any(1) is True
    assert alone.any([]) is False


def too_few(rank):
    Ranks(Group(), (30, 2), 8)


def test_a_shard_of_less_than_a_row_a_step_is_refused(two):
    for error in two.together(too_few):
        assert isinstance(error, ValueError)
        assert "Rank 1 has 2 rows to train on, fewer than the 4 steps" in str(error)


# ------------------------------------------------------------------------------------------------------------- whole fits


def fitted(rank, X, params, weight=None, n_ranks=2):
    own = None if weight is None else weight[rank::n_ranks]
    return distributed.fit(quick(**params), X[rank::n_ranks], sample_weight=own)


@pytest.mark.parametrize("joins", [True, False], ids=["in the user's group", "as torchrun says"])
def test_all_ranks_return_the_model_of_all_rows(two, joins):
    X = table()
    a, b = two.together(fitted, X, {}, joins=joins)
    assert_same(a.sample(50, random_state=0), b.sample(50, random_state=0), rtol=0)
    assert a.loss_curve_ == b.loss_curve_
    assert a.n_iter_ == 4

    # the columns are those of one process with the same rows, in the ranks' order
    one = quick().fit(pd.concat([X[0::2], X[1::2]]))
    assert list(a.sample(5).dtypes) == list(X.dtypes)
    assert a.likelihood_ == one.likelihood_
    assert a.decoder_ == one.decoder_
    np.testing.assert_array_equal(a._fitted.table.encode(X).x, one._fitted.table.encode(X).x)
    # and the likelihood is as good
    assert abs(a.score(X) - one.score(X)) < 0.5


@pytest.mark.parametrize("kind", ["array", "objects", "polars"])
def test_shards_of_every_container_are_fitted(two, kind):
    X = table()
    if kind == "array":
        X = X[["x", "y", "n"]].to_numpy(np.float32)
    if kind == "objects":
        X = X.astype({"k": str}).to_numpy(object)
    if kind == "polars":
        X = pl.from_pandas(X)
    a, b = two.together(fitted, X, {})
    new = a.sample(20, random_state=0)
    assert type(new) is type(X)
    assert a.loss_curve_ == b.loss_curve_
    if kind == "array":
        assert new.dtype == np.float32


def test_weights_count_over_all_ranks(two):
    X = table()
    weight = np.where(X["k"] == "up", 3.0, 1e-6)
    # rank 1 has light rows alone, nearly
    order = np.argsort(weight, kind="stable")
    X, weight = X.iloc[np.r_[order[450:], order[:450]]], weight[np.r_[order[450:], order[:450]]]
    # names of rows that repeat and are in no order
    X.index = np.random.default_rng(0).integers(5, size=900)
    shards = [X[:450], X[450:]]
    a, _ = two.together(fitted_by_halves, shards, [weight[:450], weight[450:]])
    assert np.mean(a.sample(300, random_state=0)["k"] == "up") > 0.9


def fitted_by_halves(rank, shards, weights):
    return distributed.fit(quick(max_iter=20), shards[rank], sample_weight=weights[rank])


def sampled(rank, shards, rows_shared, monkey=None):
    skvae.shards.ROWS_SHARED = rows_shared
    try:
        return Shard(Group(), shards[rank]).sample("from_dtype")
    finally:
        skvae.shards.ROWS_SHARED = 100_000


def test_the_sample_is_uniform_and_has_extremes_and_levels_of_all(two):
    n = 9000
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"i": np.arange(n), "x": rng.normal(size=n), "k": "common"})
    X.loc[[7, 8500], "k"] = ["rare", "as rare"]
    (rows, weight), (same, _) = two.together(sampled, [X[:6000], X[6000:]], 600)
    assert_same(rows, same, rtol=0)
    kept = rows[weight > 0]
    assert set(rows[weight == 0]["k"]) | set(kept["k"]) == {"common", "rare", "as rare"}
    for name in ("i", "x"):
        assert kept[name].min() == X[name].min()
        assert kept[name].max() == X[name].max()
    assert 600 <= len(kept) <= 604
    # each rank by its share: 400 of 600, within one
    assert abs((kept["i"] < 6000).sum() - 400) <= 4
    assert abs(kept["i"].mean() - n / 2) < 5 * n / np.sqrt(12 * 600)


def test_a_level_that_one_rank_has_is_learnt_by_all(two):
    X = table()
    X["k"] = X["k"].astype(str)
    X.loc[X.index[1], "k"] = "only here"
    X["j"] = np.tile([1, 2, 3], 300)
    a, _ = two.together(fitted, X, {"categorical_features": ["k", "j"]})
    assert np.isfinite(a.score_samples(X[:2])).all()


def test_shards_that_do_not_fit_together_are_refused_on_every_rank(two):
    X = table()
    for error in two.together(fitted_by_halves, [X, X.drop(columns="y")], [None, None]):
        assert isinstance(error, ValueError)
        assert "Expected the same" in str(error)
    for error in two.together(fitted_by_halves, [X, X.assign(y="text")], [None, None]):
        assert isinstance(error, TypeError)
        assert "Give it one dtype" in str(error)
    for error in two.together(fitted_by_halves, [X, X[:0]], [None, None]):
        assert isinstance(error, ValueError)
        assert "at least one row" in str(error)
    for error in two.together(fitted_by_halves, [X, X], [None, np.ones(len(X))]):
        assert isinstance(error, ValueError)
        assert "on every rank" in str(error)
    for error in two.together(fitted_by_halves, [X, X], [np.ones(len(X)), np.zeros(len(X))]):
        assert isinstance(error, ValueError)
        assert "at least one non-zero" in str(error)
    for error in two.together(fitted_by_halves, [X.assign(x=np.inf), X], [None, None]):
        assert isinstance(error, ValueError)
        assert "infinit" in str(error)


def with_other_parameters(rank, X):
    return distributed.fit(quick(latent_dim=2 + rank, device="cpu", verbose=rank == 1), X)


def test_ranks_with_other_parameters_are_refused(two):
    for error in two.together(with_other_parameters, table()):
        assert isinstance(error, ValueError)
        assert "different latent_dim." in str(error)


def from_other_models(rank, X, vae):
    return distributed.fit(vae if rank == 0 else quick(warm_start=True), X[rank::2])


def test_ranks_with_other_networks_are_refused(two):
    # one has a model to go on from, and the other has none
    X = table()
    vae = quick(warm_start=True, random_state=5).fit(X)
    for error in two.together(from_other_models, X, vae.set_params(random_state=0)):
        assert isinstance(error, ValueError)
        assert "The ranks start from different networks" in str(error)
        assert "load the same model" in str(error)


def checkpointed(rank, X, path, max_iter, resumes):
    vae = quick(max_iter=6, batch_size=90)
    if resumes:
        vae = skvae.load(path).set_params(warm_start=True)
    elif path is not None:
        # only rank 0 writes, after epoch 3
        vae.set_callbacks(Checkpoint(path, every=4))
    return distributed.fit(vae, X[rank::2])


def test_a_checkpoint_of_ranks_goes_on_to_the_bit(two, tmp_path):
    X = table()
    path = tmp_path / "fit.safetensors"
    whole, _ = two.together(checkpointed, X, path, 6, False)
    again, _ = two.together(checkpointed, X, path, 6, True)
    assert whole.loss_curve_ == again.loss_curve_
    for p, q in zip(whole.module_.parameters(), again.module_.parameters(), strict=True):
        assert torch.equal(p, q)

    # and not with other rows, on any rank
    X.loc[X.index[1], "y"] = 0.0
    for error in two.together(checkpointed, X, path, 6, True):
        assert isinstance(error, ValueError)
        assert "other rows" in str(error)


def test_alone_it_is_the_fit_of_the_estimator():
    X = table(200)
    assert distributed.fit(quick(), X).loss_curve_ == quick().fit(X).loss_curve_


# ------------------------------------------------------------------------------------------------------------ lost ranks

SCRIPT = """
    import os, signal, sys
    import numpy as np
    import skvae
    from skvae import VAEEstimator, distributed
    from skvae.callbacks import Checkpoint

    folder, is_restarted = sys.argv[1], "TORCHELASTIC_RESTART_COUNT" in os.environ
    path = os.path.join(folder, "fit.safetensors")
    rank = int(os.environ["RANK"])
    X = np.random.default_rng(rank).normal(size=(300, 3))

    class Killer:
        def setup(self, estimator, context): pass
        def teardown(self, estimator, context): pass
        def on_fit_task_begin(self, estimator, context): pass
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "epoch" and context.task_id == 6:
                os.kill(os.getpid() if is_restarted else int(open(os.path.join(folder, "pid")).read()), signal.SIGKILL)

    vae = VAEEstimator(2, hidden_layer_sizes=(8,), max_iter=12, random_state=0, early_stopping=False)
    goes_on = os.path.exists(path)
    if goes_on:
        vae = skvae.load(path).set_params(warm_start=True)
    else:
        vae.set_callbacks(Checkpoint(path, every=5), Killer())
    if rank == 1:
        with open(os.path.join(folder, "pid"), "w") as file:
            file.write(str(os.getpid()))
    distributed.fit(vae, X)
    with open(os.path.join(folder, f"end of {rank}"), "w") as file:
        file.write(f"epochs {vae.n_iter_} goes on {goes_on}")
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def test_a_killed_rank_ends_the_fit_with_a_clear_error_and_a_checkpoint(script, tmp_path):
    port = free_port()
    ranks = []
    for rank in range(2):
        variables = {**os.environ, **environment(rank, 2, port)}
        variables.pop("TORCHELASTIC_RESTART_COUNT", None)
        ranks.append(
            subprocess.Popen(
                [sys.executable, script, tmp_path],
                env=variables,
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    # rank 0 kills rank 1 after epoch 7
    assert ranks[1].wait(timeout=60) == -9
    killed = time.monotonic()
    _, errors = ranks[0].communicate(timeout=60)
    assert time.monotonic() - killed < 20
    assert ranks[0].returncode == 1
    assert "LostRankError: Rank 0 of 2 waited for the others in vain" in errors

    vae = skvae.load(tmp_path / "fit.safetensors")
    assert vae.n_iter_ == 5
    assert vae.sample(3).shape == (3, 3)


def test_under_torchrun_a_killed_fit_goes_on_from_its_checkpoint(script, tmp_path):
    # rank 0 kills itself, and both begin anew with the checkpoint
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in range(2):
        assert (tmp_path / f"end of {rank}").read_text() == "epochs 12 goes on True"


def asking_a_group_that_is_gone(rank):
    group = Group()
    return None if rank == 1 else group.gather(1)


def test_an_error_says_what_to_do(two):
    error, _ = two.together(asking_a_group_that_is_gone)
    assert isinstance(error, LostRankError)
    assert "The last checkpoint" in str(error)
    assert isinstance(pickle.loads(pickle.dumps(error)), LostRankError)


def test_the_example_prints_the_same_score_alone_and_on_two_ranks(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "distributed_fit.py"
    text = example.read_text()
    smaller = text.replace("40_000", "4_000").replace("10_000", "3_000")
    assert smaller.count("000") == text.count("000")
    path = tmp_path / "example.py"
    path.write_text(smaller.replace("latent_dim=4,", "latent_dim=4, max_iter=10,"))

    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    scores = []
    for options in ([], torchrun):
        done = subprocess.run([sys.executable, *options, path], capture_output=True, text=True, timeout=120, check=True)
        said = re.fullmatch(r"(\d) process\(es\), (\d+) epochs: held-out score (-?[\d.]+) nats per row\n", done.stdout)
        scores.append(float(said[3]))
    assert abs(scores[0] - scores[1]) < 0.05


# ------------------------------------------------------------------------------------------------------------------- Dask


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process of one thread."""
    dask = pytest.importorskip("distributed")
    pytest.importorskip("dask.dataframe")
    with dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with cluster.get_client() as client:
        yield client


def test_a_dask_dataframe_is_fitted_on_the_workers(client):
    frames = pytest.importorskip("dask.dataframe")
    X = table()
    frame = frames.from_pandas(X, npartitions=5)
    vae = quick()
    assert distributed.fit(vae, frame, client) is vae
    assert vae.n_iter_ == 4
    assert list(vae.sample(5).columns) == list(X.columns)
    one = quick().fit(X)
    assert vae.likelihood_ == one.likelihood_
    assert abs(vae.score(X) - one.score(X)) < 0.5

    # answers, partition by partition
    z = distributed.transform(vae, frame).compute()
    np.testing.assert_allclose(z, vae.transform(X), rtol=1e-6, atol=1e-6)
    assert list(z.columns) == list(vae.get_feature_names_out())
    assert z.index.equals(X.index)
    scores = distributed.score_samples(vae, frame[frame["x"] > 100]).compute()
    assert len(scores) == 0
    assert distributed.score_samples(vae, frame).mean().compute() == pytest.approx(vae.score(X), abs=0.05)
    new = distributed.sample(vae, 70_000, random_state=0)
    assert new.npartitions == 2
    assert len(new) == 70_000
    assert_same(
        new.partitions[0].head(3, npartitions=1), distributed.sample(vae, 70_000, random_state=0).head(3), rtol=0
    )


def test_errors_on_workers_reach_the_client(client):
    frames = pytest.importorskip("dask.dataframe")
    X = table()
    with pytest.raises(ValueError, match="infinit"):
        distributed.fit(quick(), frames.from_pandas(X.assign(x=np.inf), npartitions=2), client)
    with pytest.raises(ValueError, match="no rows"):
        distributed.fit(quick(), frames.from_pandas(X, npartitions=2).query("y > 1e9"), client)
    with pytest.raises(ValueError, match="sample_weight is for rows of this process"):
        distributed.fit(quick(), frames.from_pandas(X, npartitions=2), client, sample_weight=np.ones(len(X)))
    with pytest.raises(TypeError, match="X is a Dask DataFrame; got DataFrame"):
        distributed.fit(quick(), X, client)


def test_a_search_runs_on_the_same_cluster(client):
    X = table(120)
    search = GridSearchCV(quick(), {"latent_dim": [1, 2]}, cv=2)
    with joblib.parallel_config("dask"):
        search.fit(X)
    alone = GridSearchCV(quick(), {"latent_dim": [1, 2]}, cv=2).fit(X)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=1e-5)


def test_partitions_stay_where_they_are_unless_one_worker_has_most():
    assert share_out([["a"], ["b"], ["a"], ["b"]], [5, 5, 5, 5], ["a", "b"]) == {"a": [0, 2], "b": [1, 3]}
    # all on one worker; empty ones are left out
    shares = share_out([["a"]] * 5, [6, 6, 6, 6, 0], ["a", "b"])
    assert sorted(map(len, shares.values())) == [2, 2]
    # fewer partitions than workers, and a holder that has gone
    assert share_out([["gone"]], [3], ["a", "b"]) in ({"a": [0]}, {"b": [0]})
    assert share_out([["a"]], [0], ["a"]) == {}


class KillsTheOther:
    """A callback that ends the other worker after some epochs, as kill -9 does."""

    def __init__(self, pids):
        self.pids = pids

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == 3:
            for pid in self.pids:
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)


def test_a_killed_worker_ends_the_fit(client):
    # the last test on this cluster
    frames = pytest.importorskip("dask.dataframe")
    pids = list(client.run(os.getpid).values())
    vae = quick(max_iter=500, early_stopping=False).set_callbacks(KillsTheOther(pids))
    start = time.monotonic()
    with pytest.raises(LostRankError, match="waited for the others in vain"):
        distributed.fit(vae, frames.from_pandas(table(), npartitions=2), client)
    assert time.monotonic() - start < 30


def test_workers_that_are_threads_are_refused():
    dask = pytest.importorskip("distributed")
    frames = pytest.importorskip("dask.dataframe")
    with (
        dask.LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        cluster.get_client() as client,
        pytest.raises(ValueError, match="Workers share a process"),
    ):
        distributed.fit(quick(), frames.from_pandas(table(100), npartitions=2), client)
