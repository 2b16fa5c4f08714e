"""The loop: every row once an epoch, schedules, weights, early stopping, going on, and what is reported."""

import contextlib
import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, means_of, rows_of
from reference import SlowStep, SlowVAE, in_float64

import skvae.engine.training
from skvae import VAEEstimator
from skvae.engine.batches import Batches
from skvae.engine.training import train
from skvae.exceptions import DivergenceError
from skvae.model.network import build_vae

RNG = np.random.default_rng(11)
X = RNG.normal(size=(90, 3)) @ RNG.normal(size=(3, 5)) + 0.3 * RNG.normal(size=(90, 5))
ROWS = X  # encoded: numbers only


def quick(**params):
    return VAEEstimator(**{"latent_dim": 2, "hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, **params})


def network(layout=LAYOUTS["normal"], dtype=torch.float64, decoder="factorized"):
    vae = build_vae(
        layout,
        means_of(layout, 0.0),
        latent_dim=2,
        hidden_layer_sizes=(6,),
        activation="tanh",
        encoder=None,
        decoder=decoder,
        seed=0,
    )
    return vae.to(dtype)


def settings(**changed):
    defaults = {"n_epochs": 4, "batch_size": 32, "learning_rate": 1e-2, "beta": 1.0, "penalty": 0.0}
    return {**defaults, "seed": 3, **changed}


@pytest.fixture
def steps(monkeypatch):
    """What the loop asks of its step, in order: rows, weight, noise, beta, learning rate."""
    asked, make_step = [], skvae.engine.training.make_step

    class Recorder:
        def __init__(self, step):
            self.step = step

        def __call__(self, x, weight, noise, beta, rate):
            asked.append(
                (x.clone(), None if weight is None else weight.clone(), noise.clone(), float(beta), float(rate))
            )
            self.step(x, weight, noise, beta, rate)

        def __getattr__(self, name):
            return getattr(self.step, name)

    monkeypatch.setattr(
        skvae.engine.training, "make_step", lambda *args, **kwargs: Recorder(make_step(*args, **kwargs))
    )
    return asked


# ------------------------------------------------------------------------------------------------------------- the loop


def test_every_epoch_visits_every_row_once_in_another_order(steps):
    x = torch.arange(90.0, dtype=torch.float64)[:, None].expand(90, 5).clone() / 90
    train(network(), x, **settings())
    epochs = [steps[i : i + 3] for i in range(0, len(steps), 3)]
    orders = [torch.cat([rows[:, 0] for rows, *_ in epoch]) for epoch in epochs]
    assert len(orders) == 4
    for order in orders:
        assert torch.equal(order.sort().values, x[:, 0])
    assert not any(torch.equal(a, b) for a, b in itertools.combinations([x[:, 0], *orders], 2))


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(90, 32, [30] * 3), (65, 64, [33, 32]), (9, 500, [9]), (1, 8, [1])]
)
def test_batches_are_of_nearly_equal_size(steps, n, batch_size, sizes):
    train(network(), torch.from_numpy(ROWS[:n]), **settings(batch_size=batch_size, n_epochs=1))
    assert [len(rows) for rows, *_ in steps] == sizes


def test_batches_follow_their_generator_alone():
    x = torch.from_numpy(ROWS)
    one, same = (Batches(x, x[:, 0], 32, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert len(one) == len(list(one)) == 3
    next(iter(same))
    torch.manual_seed(5)
    for (rows, weight, noise), (again, _, noise_again) in zip(one, same, strict=True):
        assert rows.shape == (one.n_rows, 5)
        assert noise.shape == (2, one.n_rows)
        assert torch.equal(weight, rows[:, 0])
        assert torch.equal(rows, again)
        assert torch.equal(noise, noise_again)


def test_noise_is_standard_normal_and_fresh(steps):
    train(network(), torch.from_numpy(ROWS), **settings(n_epochs=100))
    noise = torch.cat([noise.flatten() for _, _, noise, *_ in steps])
    assert noise.mean().item() == pytest.approx(0, abs=4 / math.sqrt(len(noise)))
    assert noise.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * len(noise)))
    assert len(noise.unique()) == len(noise)


def test_weights_go_with_their_rows(steps):
    x = torch.from_numpy(ROWS)
    train(network(), x, x[:, 0].exp(), **settings())
    for rows, weight, *_ in steps:
        torch.testing.assert_close(weight, rows[:, 0].exp())


def test_schedules_run_over_the_whole_budget(steps):
    train(network(), torch.from_numpy(ROWS), **settings(n_epochs=20, beta=0.5))
    betas, rates = [s[3] for s in steps], [s[4] for s in steps]
    assert len(steps) == 60
    assert rates[0] == 1e-2
    assert all(a > b > 0 for a, b in itertools.pairwise(rates))
    assert rates[-1] < 1e-3
    assert 0 < betas[0] < 0.1
    assert all(a <= b for a, b in itertools.pairwise(betas))
    assert betas[-1] == betas[len(betas) // 2] == 0.5


def test_without_an_end_the_rate_falls_ever_more_slowly_and_goes_on_from_earlier_steps(steps):
    _, state = train(network(), torch.from_numpy(ROWS), **settings(schedule=False, n_epochs=2))
    train(network(), torch.from_numpy(ROWS), **settings(schedule=False, n_epochs=2), adam_state=state)
    assert {s[3] for s in steps} == {1.0}
    expected = [1e-2 / math.sqrt(1 + step / 200) for step in range(12)]
    assert [s[4] for s in steps] == pytest.approx(expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("kinds", "decoder"), [("normal", "factorized"), ("all", "factorized"), ("all", "autoregressive")]
)
def test_training_is_that_of_the_twin(steps, weighted, kinds, decoder):
    vae = in_float64(network(LAYOUTS[kinds], decoder=decoder))
    x = torch.from_numpy(ROWS) if kinds == "normal" else rows_of(LAYOUTS[kinds], 90)[0]
    slow = SlowVAE(vae)
    weight = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1.5, 90)) if weighted else None
    history, _ = train(vae, x, weight, **settings(n_epochs=6, penalty=0.01, batch_size=40, beta=0.8))
    twin, losses = SlowStep(slow, penalty=0.01), []
    for i, (rows, row_weight, noise, beta, rate) in enumerate(steps, start=1):
        twin(rows, row_weight, noise.t(), beta, rate)
        if i % 3 == 0:
            losses.append((twin.totals[0] + 0.8 * twin.totals[1]) / 90)
            twin.totals = [0.0, 0.0]
    np.testing.assert_allclose(history.loss_curve, losses, rtol=1e-10)
    expected = slow.arrays()
    for name, p in vae.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_on_epoch_hears_the_history_and_stops():
    heard = []

    def on_epoch(epoch, history, state):
        heard.append((epoch, len(history.loss_curve), history.n_steps))
        return epoch == 2

    history, _ = train(network(), torch.from_numpy(ROWS), **settings(n_epochs=50), on_epoch=on_epoch)
    assert heard == [(0, 1, 3), (1, 2, 6), (2, 3, 9)]
    assert history.n_steps == 9


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("decoder", ["factorized", torch.nn.Linear(2, 5)], ids=["by hand", "by autograd"])
def test_interrupted_training_leaves_nothing_behind(error, decoder):
    def interrupt(epoch, history, state):
        raise error

    vae = network(dtype=torch.float32, decoder=decoder).eval()
    before = torch.get_num_threads(), torch.is_grad_enabled(), np.geterr(), torch.get_rng_state()
    with pytest.raises(error):
        train(vae, torch.from_numpy(ROWS).float(), **settings(), on_epoch=interrupt)
    after = torch.get_num_threads(), torch.is_grad_enabled(), np.geterr(), torch.get_rng_state()
    assert before[:3] == after[:3]
    assert torch.equal(before[3], after[3])
    # every parameter has memory of its own
    assert all(p.untyped_storage().nbytes() == 4 * p.numel() for p in vae.parameters())
    assert not vae.training


def test_modules_of_a_users_are_in_training_mode_during_steps_alone():
    modes = []

    class Recorder(torch.nn.Linear):
        def forward(self, z):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(z)

    vae = network(dtype=torch.float32, decoder=Recorder(2, 5)).eval()
    modes.clear()
    x = torch.from_numpy(ROWS).float()
    train(vae, x, **settings(n_epochs=1), validation=(x[:20], None))
    assert modes == [(True, True)] * 3 + [(False, False)]


def test_diverging_training_stops_with_finite_parameters():
    vae, x = network(dtype=torch.float32), torch.from_numpy(ROWS).float()
    with pytest.raises(DivergenceError, match=r"loss became .* in epoch"):
        train(vae, x, **settings(n_epochs=50, learning_rate=1e15))
    assert all(torch.isfinite(p).all() for p in vae.parameters())


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("rate", [1e15, 1e38])
def test_parameters_are_finite_however_short_the_training(validated, rate):
    vae, x = network(dtype=torch.float32), torch.from_numpy(ROWS).float()
    validation = (x[:20], None) if validated else None
    with contextlib.suppress(DivergenceError):
        train(vae, x, **settings(n_epochs=1, batch_size=100, learning_rate=rate), validation=validation)
    assert all(torch.isfinite(p).all() for p in vae.parameters())


# ------------------------------------------------------------------------------------------------------- early stopping


def overfitting(**params):
    """A model that learns forty rows of noise by heart."""
    noise = np.random.default_rng(2).normal(size=(40, 6))
    return (
        VAEEstimator(
            4,
            **{
                "hidden_layer_sizes": (64, 64),
                "learning_rate_init": 1e-2,
                "max_iter": 1500,
                "validation_fraction": 0.25,
                "n_iter_no_change": 1000,
                "random_state": 0,
                **params,
            },
        ),
        noise,
    )


def test_early_stopping_restores_the_best_parameters_not_the_last():
    vae, noise = overfitting()
    vae.fit(noise)
    assert vae.best_validation_score_ == max(vae.validation_scores_)
    assert vae.validation_scores_[-1] < vae.best_validation_score_ - 1  # it did overfit
    trained_whole = overfitting(early_stopping=False)[0].fit(noise)
    fresh = np.random.default_rng(3).normal(size=(2000, 6))
    assert vae.score(fresh) > trained_whole.score(fresh) + 1


def test_the_parameters_kept_have_the_best_validation_score(monkeypatch):
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(40, 5)))
    vae, states = network(), []
    look = skvae.engine.training.Watch.look

    def recorded(watch):
        states.append(copy.deepcopy(vae.state_dict()))
        return look(watch)

    monkeypatch.setattr(skvae.engine.training.Watch, "look", recorded)
    history, _ = train(vae, x[:20], **settings(n_epochs=1000, learning_rate=3e-2), validation=(x[20:], None))
    best = int(np.argmax(history.validation_scores))
    assert len(states) == len(history.validation_scores) > best + 1
    kept = vae.state_dict()
    assert all(torch.equal(kept[name], states[best][name]) for name in kept)
    # and the score is the ELBO of those rows under those parameters, up to the draws of z
    draws = torch.randn(2000, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    slow = SlowVAE(vae)
    with torch.no_grad():
        terms = [slow.loss_terms(x[20:], noise) for noise in draws]
        elbo = torch.stack([-(nll + kl.sum(1)).mean() for nll, kl in terms])
    assert history.validation_scores[best] == pytest.approx(elbo.mean().item(), abs=5 * elbo.std().item())


def test_looks_are_at_averaged_parameters_until_the_descent(monkeypatch):
    x = torch.from_numpy(ROWS)
    vae, seen = network(), []
    look, step_on = skvae.engine.training.Watch.look, skvae.engine.training._Loop.take_step

    def looked(watch):
        own = torch.equal(vae.encoder.layers[0].weight, last[0])
        seen.append(own)
        return look(watch)

    last = [None]

    def stepped(loop, *batch):
        step_on(loop, *batch)
        last[0] = vae.encoder.layers[0].weight.detach().clone()

    monkeypatch.setattr(skvae.engine.training.Watch, "look", looked)
    monkeypatch.setattr(skvae.engine.training._Loop, "take_step", stepped)
    train(vae, x, **settings(n_epochs=100), validation=(x, None))
    # 300 steps: looks at 50, 100, ..., and the descent from 214 on
    assert seen == [False] * 4 + [True] * 2


def test_training_stops_when_the_validation_score_no_longer_rises():
    vae, noise = overfitting(n_iter_no_change=3, max_iter=5000)
    vae.fit(noise)
    assert vae.n_iter_ < 5000
    best = int(np.argmax(vae.validation_scores_))
    assert len(vae.validation_scores_) - 1 - best <= 3 + 8
    patient = overfitting(n_iter_no_change=6, max_iter=5000)[0].fit(noise)
    assert patient.n_iter_ > vae.n_iter_


def test_a_gain_below_tol_is_no_progress():
    vae, noise = overfitting(n_iter_no_change=2, tol=1e6, max_iter=5000)
    vae.fit(noise)
    # three looks at 150 steps, the first of which has nothing to be compared with, and the descent's at 200 and its end
    assert len(vae.validation_scores_) == 5
    assert vae.n_iter_ * 1 == 210 // math.ceil(0.9 * len(noise) / vae.batch_size)


def test_validation_fraction_is_left_out_of_training(steps):
    quick(max_iter=1, batch_size=500, validation_fraction=0.2).fit(X)
    assert len(steps[0][0]) == 72
    quick(max_iter=1, batch_size=500, early_stopping=False).fit(X)
    assert len(steps[1][0]) == 90
    quick(max_iter=1, batch_size=500).fit(X[:9])  # too few to set some aside
    assert len(steps[2][0]) == 9


def test_without_early_stopping_there_is_no_validation():
    vae = quick(early_stopping=False).fit(X)
    assert vae.validation_scores_ is None
    assert vae.best_validation_score_ is None
    assert vae.n_iter_ == 5


# -------------------------------------------------------------------------------------------- budget and fitted numbers


def test_max_iter_counts_epochs_and_n_iter_says_how_many():
    vae = quick(max_iter=7, batch_size=10, early_stopping=False).fit(X)
    assert vae.n_iter_ == len(vae.loss_curve_) == 7


def test_default_budget_is_in_steps_and_not_in_epochs(steps, monkeypatch):
    monkeypatch.setattr("skvae.fitting.DEFAULT_STEPS", 30)
    quick(max_iter=None, early_stopping=False, batch_size=90).fit(X)
    assert len(steps) == 30
    steps.clear()
    quick(max_iter=None, early_stopping=False, batch_size=1).fit(X)
    assert len(steps) == 90  # at least one epoch


def test_loss_curve_and_validation_scores_are_in_the_units_of_the_score():
    model = {"hidden_layer_sizes": (), "likelihood": "normal", "batch_size": 30, "learning_rate_init": 2e-2}
    scaled = 100 * X + 7
    vae = quick(**model, max_iter=400, early_stopping=False).fit(scaled)
    # minus the last loss is the ELBO of the training rows: a little below their log-likelihood
    gap = vae.score(scaled) + np.mean(vae.loss_curve_[-50:])
    assert -0.05 < gap < 0.5
    other = quick(**model, max_iter=400, validation_fraction=0.5).fit(scaled)
    assert abs(other.best_validation_score_ - other.score(scaled)) < 2


def test_loss_falls():
    losses = quick(max_iter=200, batch_size=30, early_stopping=False).fit(X).loss_curve_
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 1


def test_kl_and_active_units_are_those_of_the_posteriors():
    vae = quick(early_stopping=False, max_iter=200, latent_dim=6).fit(X)
    z_mean, z_std = vae.posterior(X)
    kl = 0.5 * (z_mean**2 + z_std**2 - 1 - 2 * np.log(z_std)).mean(0)
    np.testing.assert_allclose(vae.kl_per_unit_, kl, rtol=1e-3, atol=1e-5)
    assert vae.active_units_ == np.sum(z_mean.var(0) > 0.01)
    assert quick(early_stopping=False, max_iter=300, beta=1e4, learning_rate_init=1e-2).fit(X).active_units_ == 0


def test_beta_weighs_the_divergence():
    kl = [quick(early_stopping=False, max_iter=150, beta=beta).fit(X).kl_per_unit_.sum() for beta in (0.1, 1.0, 5.0)]
    assert kl[0] > kl[1] > kl[2]


def test_alpha_shrinks_the_weights():
    def size(alpha):
        vae = quick(early_stopping=False, max_iter=150, alpha=alpha).fit(X)
        return sum((p**2).sum().item() for p in vae.module_.parameters() if p.ndim == 2)

    assert size(0.0) > 1.2 * size(100.0) > 0


def test_verbose_prints_epochs_losses_and_scores(capsys):
    quick(max_iter=3).fit(X)
    assert capsys.readouterr().out == ""
    vae = quick(max_iter=3, verbose=True).fit(X)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "nats per row" in out
    assert f"{vae.loss_curve_[-1]:.4f}" in out
    assert len(vae.validation_scores_) == 1


# ------------------------------------------------------------------------------------------------------- sample weights


def test_rows_of_weight_zero_have_no_influence_to_the_bit():
    weight = np.random.default_rng(0).uniform(0.5, 2, 90)
    weight[::3] = 0
    absurd = X.copy()
    absurd[::3] = 1e6
    kept = weight > 0
    one, two, three = (
        quick().fit(X, sample_weight=weight),
        quick().fit(absurd, sample_weight=weight),
        quick().fit(X[kept], sample_weight=weight[kept]),
    )
    for other in (two, three):
        np.testing.assert_array_equal(one.transform(X), other.transform(X))
        assert one.loss_curve_ == other.loss_curve_
        assert one.best_validation_score_ == other.best_validation_score_


@pytest.mark.parametrize("factor", [4.0, 1e-3])
def test_scaling_all_weights_changes_nothing_beyond_rounding(factor):
    weight = np.random.default_rng(0).uniform(0.5, 2, 90)
    one, two = quick().fit(X, sample_weight=weight), quick().fit(X, sample_weight=factor * weight)
    np.testing.assert_allclose(one.transform(X), two.transform(X), atol=1e-5)
    np.testing.assert_allclose(one.loss_curve_, two.loss_curve_, rtol=1e-5)


def test_equal_weights_are_no_weights():
    one, two = quick().fit(X), quick().fit(X, sample_weight=np.full(90, 3.0))
    np.testing.assert_allclose(one.transform(X), two.transform(X), atol=1e-4)


def test_integer_weights_are_repeated_rows_within_statistical_error():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(150, 4))
    weight = np.where(rows[:, 0] > 0, 5, 1)
    repeated = np.repeat(rows, weight, axis=0)

    def fit(X, sample_weight, seed):
        # as many steps of as many rows each, so that both see as much noise
        vae = quick(random_state=seed, early_stopping=False, batch_size=50, max_iter=1200 // math.ceil(len(X) / 50))
        vae.set_params(hidden_layer_sizes=(), likelihood="normal", learning_rate_init=2e-2).fit(X, None, sample_weight)
        draws = vae.sample(20_000, random_state=seed)
        return np.array([vae.score(repeated), *draws.mean(0), *draws.std(0)])

    weighted, as_repeated, unweighted = (
        np.array([fit(*data, seed) for seed in range(4)]) for data in ((rows, weight), (repeated, None), (rows, None))
    )
    error = np.sqrt((weighted.var(0, ddof=1) + as_repeated.var(0, ddof=1)) / 4) + 0.01
    difference = np.abs(weighted.mean(0) - as_repeated.mean(0))
    assert (difference < 4 * error).all()
    # and the weights matter: without them the model is another
    assert (np.abs(unweighted.mean(0) - as_repeated.mean(0)) > 4 * error).any()
    assert unweighted.mean(0)[0] < as_repeated.mean(0)[0] - 0.1


def test_all_weights_zero_is_an_error():
    with pytest.raises(ValueError, match=r"(?i)sample.?weight"):
        quick().fit(X, sample_weight=np.zeros(90))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("weight", [-np.ones(90), np.full(90, np.nan), np.ones(89)], ids=["negative", "nan", "short"])
def test_weights_that_cannot_be_are_errors(method, weight):
    with pytest.raises(ValueError, match=r"(?i)negative|nan|shape"):
        getattr(quick(), method)(X, sample_weight=weight)


# ------------------------------------------------------------------------------------------------------------- going on


def test_warm_start_goes_on_from_the_last_fit():
    cold = quick(max_iter=30, early_stopping=False).fit(X)
    warm = quick(max_iter=30, early_stopping=False, warm_start=True).fit(X)
    assert warm.loss_curve_ == cold.loss_curve_
    warm.fit(X)
    assert np.mean(warm.loss_curve_[-5:]) < np.mean(cold.loss_curve_[-5:])
    assert warm.score(X) > cold.score(X)
    assert warm.n_iter_ == 30


def test_without_warm_start_every_fit_starts_anew():
    vae = quick().fit(X)
    first = vae.transform(X)
    np.testing.assert_array_equal(vae.fit(X).transform(X), first)


def test_warm_start_keeps_the_columns_as_they_were():
    vae = quick(max_iter=1, warm_start=True, learning_rate_init=1e-12, early_stopping=False).fit(X)
    before = vae.transform(X)
    np.testing.assert_allclose(vae.fit(10 * X + 3).transform(X), before, atol=1e-6)


def test_warm_start_with_another_latent_dim_is_an_error():
    vae = quick(warm_start=True).fit(X)
    with pytest.raises(ValueError, match=r"latent_dim=3.* 2 latent units.*warm_start=False"):
        vae.set_params(latent_dim=3).fit(X)


def test_warm_start_with_other_columns_is_an_error():
    vae = quick(warm_start=True).fit(X)
    with pytest.raises(ValueError, match=r"4 features.*5 features"):
        vae.fit(X[:, :4])


def test_partial_fit_takes_streams(steps):
    vae = quick(batch_size=16)
    for rows in np.array_split(X, 3):
        vae.partial_fit(rows)
    assert len(vae.loss_curve_) == vae.n_iter_ == 3
    assert sum(len(rows) for rows, *_ in steps) == 90
    assert {s[3] for s in steps} == {vae.beta}
    assert steps[0][4] == vae.learning_rate_init > steps[-1][4]
    assert np.isfinite(vae.score(X))


def test_partial_fit_learns():
    vae = quick(batch_size=30, learning_rate_init=5e-3)
    first = vae.partial_fit(X).score(X)
    for _ in range(150):
        vae.partial_fit(X)
    assert vae.score(X) > first + 1


def test_partial_fit_keeps_the_moments_of_the_optimiser(steps):
    vae = quick(batch_size=30)
    for rows in (X[:30], X[30:60], X[60:]):
        vae.partial_fit(rows)
    # the same three steps by one optimiser from the same start, which a step of no length leaves as it was
    start = quick(batch_size=30, learning_rate_init=1e-30).partial_fit(X[:30])
    slow = SlowVAE(start.module_)
    twin = SlowStep(slow)
    for rows, _, noise, beta, rate in steps[:3]:
        twin(rows.double(), None, noise.t().double(), beta, rate)
    expected = slow.arrays()
    for name, p in vae.module_.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    "through", [copy.deepcopy, lambda vae: pickle.loads(pickle.dumps(vae))], ids=["deepcopy", "pickle"]
)
def test_partial_fit_after_copying_goes_on_to_the_same_bits(through):
    vae = quick().partial_fit(X).partial_fit(X)
    other = through(vae)
    for _ in range(3):
        vae.partial_fit(X)
        other.partial_fit(X)
    np.testing.assert_array_equal(vae.transform(X), other.transform(X))
    assert vae.loss_curve_ == other.loss_curve_


def test_calls_of_partial_fit_draw_fresh_noise_and_orders(steps):
    vae = quick(random_state=0)
    vae.partial_fit(X).partial_fit(X)
    assert not torch.equal(steps[0][2], steps[1][2])
    assert not torch.equal(steps[0][0], steps[1][0])


def test_partial_fit_goes_on_from_a_fit():
    vae = quick(max_iter=100, early_stopping=False, batch_size=30).fit(X)
    score = vae.score(X)
    vae.partial_fit(X)
    assert vae.score(X) > score - 1
    assert vae.n_iter_ == 101


def test_partial_fit_with_other_columns_is_an_error():
    with pytest.raises(ValueError, match=r"4 features.*5 features"):
        quick().partial_fit(X).partial_fit(X[:, :4])


# ----------------------------------------------------------------------------------------------------------- divergence


def test_divergence_is_a_value_error_of_its_own():
    assert issubclass(DivergenceError, ValueError)
    with pytest.raises(DivergenceError, match="Training stopped"):
        quick(learning_rate_init=1e15, max_iter=100, early_stopping=False).fit(X)


def test_divergence_names_the_column_that_is_to_blame():
    import pandas as pd

    rows = X.copy()
    rows[3, 2] = 1e6
    with pytest.raises(
        ValueError, match=r"Training stopped.*column furthest out is 2.*9\.\d+ deviations.*learning_rate_init=10+"
    ) as e:
        quick(learning_rate_init=1e15, max_iter=100, early_stopping=False).fit(rows)
    assert "nan" in str(e.value) or "inf" in str(e.value)
    frame = pd.DataFrame(rows, columns=["a", "b", "income", "d", "e"])
    with pytest.raises(ValueError, match="'income'"):
        quick(learning_rate_init=1e15, max_iter=100, early_stopping=False).fit(frame)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("rate", [1e3, 1e10, 1e20, 1e38, 1e300])
@pytest.mark.parametrize("max_iter", [1, 2, 30])
def test_weights_are_finite_or_fit_says_so(early_stopping, rate, max_iter):
    vae = quick(learning_rate_init=rate, early_stopping=early_stopping, max_iter=max_iter)
    try:
        vae.fit(X)
    except ValueError as error:
        assert "learning_rate_init" in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert all(torch.isfinite(p).all() for p in vae.module_.parameters())
    assert np.isfinite(vae.transform(X)).all()


@pytest.mark.parametrize("rate", [1e20, 1e38, 1e300])
def test_weights_are_finite_or_partial_fit_says_so(rate):
    vae = quick(learning_rate_init=rate)
    try:
        for _ in range(3):
            vae.partial_fit(X)
            assert all(torch.isfinite(p).all() for p in vae.module_.parameters())
    except ValueError as error:
        assert "learning_rate_init" in str(error)  # noqa: PT017 (either outcome is right)


def test_training_that_no_longer_gains_ends_with_small_steps_from_the_best_parameters(steps):
    vae = quick(early_stopping=True, n_iter_no_change=2, max_iter=5000, learning_rate_init=1e-2).fit(
        np.random.default_rng(0).normal(size=(60, 4))
    )
    rates = [rate for *_, rate in steps]
    assert rates[-1] < 1e-2 * rates[0]
    assert vae.n_iter_ < 5000


# --------------------------------------------------------------------------------------------------------------- history


def test_the_history_has_one_axis_and_the_parts_of_the_loss():
    vae = quick(max_iter=6, batch_size=20, beta=0.5).fit(X)
    history = vae.history_
    assert history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert history["loss"] == vae.loss_curve_
    np.testing.assert_allclose(
        np.add(history["reconstruction"], 0.5 * np.array(history["kl"])), vae.loss_curve_, rtol=1e-6
    )
    assert history["validation_score"] == vae.validation_scores_
    looks = history["validation_epoch"]
    assert len(looks) == len(vae.validation_scores_)
    assert all(0 < a < b for a, b in itertools.pairwise([1e-9, *looks]))
    assert looks[-1] == 6
    # it falls to 0 at the end
    assert history["learning_rate"][0] == pytest.approx(vae.learning_rate_init, rel=0.1)
    assert 0 <= history["learning_rate"][-1] < 0.2 * vae.learning_rate_init

    # a stream's calls stand one behind the other
    vae = quick(batch_size=20)
    for _ in range(3):
        vae.partial_fit(X)
    assert vae.history_["epoch"] == [1, 2, 3]
    assert len(vae.history_["kl"]) == 3
    np.testing.assert_allclose(vae.history_["learning_rate"], vae.learning_rate_init, rtol=0.05)
    assert vae.history_["validation_epoch"] == []
    assert vae._fitted.curves["n_steps"] == [5, 10, 15]
