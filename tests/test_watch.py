"""The held-out rows: their score, the best parameters by it, and when patience ends."""

import math

import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import shaken
from reference import SlowVAE

from skvae.engine import watch as module
from skvae.engine.watch import Watch, copy_state

LAYOUT = LAYOUTS["all"]


def watching(weight=None, **params):
    vae = shaken("all", decoder="factorized")
    x, _ = rows_of(LAYOUT, 9)
    settings = {"beta": 0.7, "tol": 0.0, "patience": 2, "seed": 3, "draws": None}
    return vae, Watch(vae, x, weight, **{**settings, **params})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [4, 100])
def test_score_is_the_weighted_elbo_of_the_twin(weighted, chunk, monkeypatch):
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", chunk)
    weight = torch.arange(1.0, 10.0, dtype=torch.float64) if weighted else None
    vae, watch = watching(weight)
    with torch.no_grad():
        nll, kl = SlowVAE(vae).loss_terms(watch.x, watch.noise)
    elbo = -(nll + 0.7 * kl.sum(1))
    weight = torch.ones(9) if weight is None else weight
    assert watch.look() == pytest.approx((weight * elbo).sum().item() / weight.sum().item(), rel=1e-10)


def test_rows_looked_at_together_have_a_bounded_number_of_outputs(monkeypatch):
    sizes = []
    vae, watch = watching()
    whole = watch.look()
    terms = vae.loss_terms
    monkeypatch.setattr(vae, "loss_terms", lambda x, noise: sizes.append(len(x)) or terms(x, noise))
    for n_outputs, expected in ((4 * vae.likelihood.n_outputs + 1, [4, 4, 1]), (1, [1] * 9)):
        monkeypatch.setattr(module, "OUTPUTS_PER_CHUNK", n_outputs)
        sizes.clear()
        assert watch.look() == pytest.approx(whole, rel=1e-12)
        assert sizes == expected


def test_looks_differ_by_their_parameters_alone():
    _, watch = watching()
    assert watch.look() == watch.look()
    other = watching(seed=4)[1]
    assert other.look() != watch.look()


def scores_of(watch, scores):
    """Looks that come to stated scores, each with parameters of its own."""
    for i, score in enumerate(scores):
        with torch.no_grad():
            for p in watch.vae.parameters():
                p.fill_(i)
        watch._score = lambda score=score: score
        watch.look()


def test_parameters_of_the_best_look_are_restored():
    vae, watch = watching()
    scores_of(watch, [-3.0, math.nan, -1.0, -2.0])
    assert watch.best_score == -1.0
    watch.restore()
    assert all((p == 2).all() for p in vae.parameters())


def test_no_score_that_is_not_a_number_is_the_best():
    vae, watch = watching()
    scores_of(watch, [math.nan, math.nan, math.nan])
    assert watch.best_state is None
    assert not watch.is_tired  # there is nothing to go back to
    watch.restore()
    assert all((p == 2).all() for p in vae.parameters())


@pytest.mark.parametrize(
    ("scores", "tol", "patience", "tired"),
    [
        ([1, 2, 3], 0.0, 2, False),
        ([3, 2, 1], 0.0, 2, True),
        ([3, 2, 4], 0.0, 2, False),
        ([1, 1.5, 2], 1.0, 2, True),  # no gain by more than one over both looks
        ([1, 1.5, 2.5], 1.0, 2, False),
        ([1, 5, 5.25, 5.5], 1.0, 2, True),  # what came earlier does not count
        ([math.nan, 1, 1], 0.0, 2, False),  # the first score that is a number is a gain
        ([3, 2, 1], 0.0, 3, False),
        ([3, 2, 1], 0.0, None, False),
    ],
)
def test_patience_ends_when_as_many_looks_gain_too_little(scores, tol, patience, tired):
    _, watch = watching(tol=tol, patience=patience)
    scores_of(watch, scores)
    assert watch.is_tired == tired


def test_copied_state_does_not_follow_the_module():
    vae, _ = watching()
    state = copy_state(vae)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(1)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_modules_of_a_users_draw_from_what_they_are_lent():
    class Draws:
        n_calls = 0

        def run(self, function):
            self.n_calls += 1
            return function()

    draws = Draws()
    _, watch = watching(draws=draws)
    assert watch.look() == watching()[1].look()
    assert draws.n_calls == 1
