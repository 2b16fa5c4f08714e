"""Fits in one pass over streams, and answers written to Parquet."""

import os

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from models import quick
from tables import assert_same

from skvae import stream
from skvae.kept_rows import Keeper
from skvae.stream import _frames


def table(n=6000, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "x": hidden + 0.1 * rng.normal(size=n),
            "y": hidden**2,
            "k": np.where(hidden > 0, "up", "down"),
            "n": rng.poisson(np.exp(hidden)),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 999, n), unit="D"),
            "flag": rng.uniform(size=n) < 0.3,
        }
    )
    frame["x"] = frame["x"].where(rng.uniform(size=n) > 0.1)
    return frame


def parts(X, size=500):
    for start in range(0, len(X), size):
        yield X[start : start + size].reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Parquet files in a folder, and the table in them."""
    folder = tmp_path_factory.mktemp("rows")
    X = table()
    for i, part in enumerate(parts(X, 2000)):
        part.to_parquet(folder / f"part-{i}.parquet", row_group_size=700)
    return folder, X


def test_a_stream_that_fits_into_memory_has_the_fit_of_its_table(folder):
    _, X = folder
    streamed = stream.fit(quick(), parts(X), n_rows=6000)
    whole = quick().fit(X)
    assert streamed.loss_curve_ == whole.loss_curve_
    assert_same(streamed.sample(20, random_state=0), whole.sample(20, random_state=0), rtol=0)


def test_sources_of_all_sorts_are_read_alike(folder):
    path, X = folder
    files = pyarrow.dataset.dataset(path, format="parquet")
    lazy = pl.scan_parquet(path / "*.parquet")
    scores = []
    whole = pyarrow.dataset.dataset(pa.Table.from_pandas(X))
    for source in (path, str(path), files, whole, lazy, lambda: parts(X), list(parts(X))):
        vae = stream.fit(quick(), source, n_rows=6000)
        scores.append(vae.loss_curve_)
        assert stream.fit(quick(), lambda source=source: _frames(source), n_rows=6000).loss_curve_ == scores[-1]
    assert all(score == pytest.approx(scores[0], rel=1e-6) for score in scores)


def test_a_sample_is_uniform_whatever_the_order():
    n = 20_000
    means = []
    for seed in range(30):
        keeper = Keeper(400, np.random.RandomState(seed))
        for frame in _frames(parts(pd.DataFrame({"i": np.arange(n)}), 777)):
            keeper.add(frame)
            assert sum(map(len, keeper.numbers)) <= 2 * 400
        X, weight = keeper.rows()
        assert len(X) == 402
        assert weight is None
        chosen = X["i"][:400].to_numpy()
        assert len(set(chosen)) == 400
        means.append(chosen.mean())
    # the mean of 30 means of 400 of them, beside its deviation
    deviation = n / 12**0.5 / (30 * 400) ** 0.5
    assert abs(np.mean(means) - (n - 1) / 2) < 4 * deviation


def test_levels_and_extremes_of_rows_that_are_not_kept_are_learnt():
    X = table(20_000)
    X.loc[13_333, ["k", "y"]] = ["never else", 77.0]
    X.loc[15_555, ["n", "day"]] = [999, pd.Timestamp("1999-09-09")]
    vae = stream.fit(quick(max_iter=5), parts(X), n_rows=1500, random_state=0)
    columns = dict(zip(vae.feature_names_in_, vae._fitted.table.columns, strict=True))
    assert columns["k"].levels == ["down", "never else", "up"]
    assert columns["y"].grid.high == 77.0
    assert columns["n"].grid.high == 999
    # and rows with them are read
    assert np.isfinite(vae.score_samples(X.iloc[[13_333, 15_555]])).all()
    made = vae.sample(3000, random_state=0)
    assert made["day"].min() >= pd.Timestamp("1999-09-09")


def test_a_sample_is_as_good_as_the_table():
    """Of the same steps: the scores differ by no more than those of two seeds do."""
    X, held_out = table(12_000), table(1000, seed=1)
    params = {"hidden_layer_sizes": (16,), "latent_dim": 2, "early_stopping": False}
    whole = []
    for seed in range(3):
        vae = quick_of(params, seed).set_params(max_iter=4).fit(X)
        whole.append(vae.score(held_out))
    sampled = []
    for seed in range(3):
        # as many steps
        vae = quick_of(params, seed).set_params(max_iter=12)
        sampled.append(stream.fit(vae, parts(X, 2000), n_rows=4000, random_state=seed).score(held_out))
    spread = max(np.ptp(whole), np.ptp(sampled))
    assert abs(np.mean(sampled) - np.mean(whole)) < spread + 0.05


def quick_of(params, seed):
    vae = quick(random_state=seed)
    return vae.set_params(**params)


def test_answers_are_written(folder, tmp_path):
    path, X = folder
    vae = stream.fit(quick(), path)
    stream.transform(vae, path, tmp_path / "z.parquet")
    written = pd.read_parquet(tmp_path / "z.parquet")
    arrow = pa.Table.from_pandas(X)
    np.testing.assert_allclose(written.to_numpy(), vae.transform(arrow), rtol=1e-9, atol=1e-12)
    assert list(written.columns) == vae.get_feature_names_out().tolist()

    stream.score_samples(vae, path, tmp_path / "score.parquet")
    scores = pd.read_parquet(tmp_path / "score.parquet")["score"]
    np.testing.assert_allclose(scores, vae.score_samples(arrow), rtol=1e-6, atol=1e-6)

    stream.sample(vae, 70_000, tmp_path / "new.parquet", random_state=0)
    rows = pyarrow.parquet.read_table(tmp_path / "new.parquet")
    assert rows.num_rows == 70_000
    assert rows.column_names == list(X.columns)
    assert rows["day"].type == arrow["day"].type
    stream.sample(vae, 70_000, tmp_path / "again.parquet", random_state=0)
    assert pyarrow.parquet.read_table(tmp_path / "again.parquet").equals(rows)
    stream.sample(vae, 10, tmp_path / "given.parquet", given={"k": "up"})
    assert set(pd.read_parquet(tmp_path / "given.parquet")["k"]) == {"up"}


def test_a_file_is_there_as_a_whole_or_not_at_all(folder, tmp_path):
    _, X = folder
    vae = quick().fit(X)

    def broken():
        yield X[:100]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        stream.transform(vae, broken, tmp_path / "z.parquet")
    assert os.listdir(tmp_path) == []


def test_what_is_no_stream_is_refused(folder):
    _, X = folder
    with pytest.raises(TypeError, match=r"got DataFrame\. A table in memory goes to VAEEstimator\.fit"):
        stream.fit(quick(), X)
    with pytest.raises(TypeError, match="got int"):
        stream.fit(quick(), 3)
    with pytest.raises(TypeError, match="A stream holds frames, got ndarray"):
        stream.fit(quick(), [np.zeros((3, 2))])
    with pytest.raises(ValueError, match="The stream has no rows"):
        stream.fit(quick(), iter([]))
    with pytest.raises(ValueError, match=r"have the columns \['a'\] and \['b'\]"):
        stream.fit(quick(), [pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})])
    with pytest.raises(ValueError, match="n_rows must be an integer of at least 1, got 0"):
        stream.fit(quick(), [X], n_rows=0)
    with pytest.raises(FileNotFoundError):
        stream.fit(quick(), "no such folder.parquet")


def test_a_column_of_keys_is_no_column_of_levels():
    """Texts that are all distinct are not looked for one by one, and what was kept for them goes."""
    n = 60_000
    X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=n), "key": [f"key {i}" for i in range(n)]})
    keeper = Keeper(1000, np.random.RandomState(0))
    for frame in _frames([X[: n // 2], X[n // 2 :]]):
        keeper.add(frame)
    rows, weight = keeper.rows()
    assert len(rows) == 1002
    assert weight is None


def test_a_sample_that_ends_with_its_last_frame_is_whole():
    keeper = Keeper(100, np.random.RandomState(0))
    for frame in _frames([pd.DataFrame({"x": np.arange(150.0)}), pd.DataFrame({"x": np.arange(150.0)})]):
        keeper.add(frame)
    # the last frame was the one after which rows were thrown away
    assert list(map(len, keeper.numbers)) == [100]
    assert len(keeper.rows()[0]) == 102


def test_new_rows_of_arrays_are_written_without_what_is_dropped(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 3))
    vae = quick(ignore=[1]).fit(X)
    stream.sample(vae, 10, tmp_path / "new.parquet", random_state=0)
    written = pd.read_parquet(tmp_path / "new.parquet")
    assert list(written.columns) == ["0", "2"]
    np.testing.assert_array_equal(written.to_numpy(), vae.sample(10, random_state=np.random.RandomState(0)))


def test_a_stream_is_gone_through_in_steps(folder):
    path, X = folder
    vae = stream.partial_fit(quick(), path, n_rows=500, random_state=0)
    # once for the sample, once for each row group
    assert vae.n_iter_ == 1 + 9
    # ranges and levels are those of all rows, not of the sample
    assert vae._fitted.table.columns[1].grid.high == X["y"].max()
    before = vae.score(pa.Table.from_pandas(X))
    again = stream.partial_fit(vae, path, random_state=1)
    assert again is vae
    assert vae.n_iter_ == 1 + 9 + 9
    assert vae.score(pa.Table.from_pandas(X)) > before

    # an iterator can be read once: its first frame settles the columns
    once = stream.partial_fit(quick(), iter(list(parts(X))))
    assert once.n_iter_ == 12
    assert once._fitted.table.columns[1].grid.high == X["y"][:500].max()
    with pytest.raises(TypeError, match="A table in memory goes to"):
        stream.partial_fit(quick(), X)


def test_row_groups_come_in_a_random_order(tmp_path):
    X = pd.DataFrame({"i": np.arange(100)})
    X.to_parquet(tmp_path / "rows.parquet", row_group_size=10)
    firsts = [frame["i"][0] for frame in _frames(tmp_path / "rows.parquet", np.random.RandomState(0))]
    assert sorted(firsts) == list(range(0, 100, 10))
    assert firsts != sorted(firsts)
    assert firsts == [frame["i"][0] for frame in _frames(tmp_path / "rows.parquet", np.random.RandomState(0))]
    assert [frame["i"][0] for frame in _frames(tmp_path / "rows.parquet")] == sorted(firsts)


def test_parts_of_other_dtypes_are_one_column():
    a = pd.DataFrame({"k": pd.Categorical(["a", "b"] * 50), "n": [1, 2] * 50})
    b = pd.DataFrame({"k": pd.Categorical(["b", "z"] * 50), "n": [1.5, None] * 50})
    vae = stream.fit(quick(max_iter=1), [a, b])
    new = vae.sample(200, random_state=0)
    assert new["k"].dtype == "category"
    assert set(new["k"]) <= {"a", "b", "z"}
    lazily = stream.fit(quick(max_iter=1), [pl.from_pandas(a), pl.from_pandas(b)])
    assert lazily.sample(3)["n"].dtype == pl.Float64
    with pytest.raises(TypeError, match=r"Column 'n' is of dtype .* in different parts"):
        stream.fit(quick(), [pl.DataFrame({"n": [1, 2]}), pl.DataFrame({"n": ["x", "y"]})])


def test_numbers_that_are_categories_have_the_levels_of_all_rows():
    X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=2000), "code": np.tile([1, 2], 1000)})
    X.loc[1777, "code"] = 9
    X.loc[1778, "code"] = 5  # between the extremes
    vae = stream.fit(quick(categorical_features=["code"]), parts(X), n_rows=100, random_state=0)
    assert vae._fitted.table.columns[1].levels == [1, 2, 5, 9]
    assert np.isfinite(vae.score_samples(X[1770:1780])).all()
