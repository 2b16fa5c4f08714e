"""The weight of the KL term and the learning rate, step by step."""

import itertools

import pytest

from skvae.engine.schedule import WARM_UP, Schedule


def test_kl_is_phased_in_and_the_rate_falls_in_a_half_cosine():
    plan = Schedule(0.1, 2.0, 1000)
    assert plan.beta(0) == pytest.approx(2 / 200)
    assert plan.beta(199) == plan.beta(999) == 2
    assert [plan.rate(s) for s in (0, 250, 500, 1000)] == pytest.approx([0.1, 0.1 * (2 + 2**0.5) / 4, 0.05, 0.0])
    assert plan.rate(1001) == plan.rate(2000) == 0
    assert not plan.is_over(5000)


def test_warm_up_takes_its_share_of_the_budget():
    plan = Schedule(1.0, 1.0, 50)
    betas = [plan.beta(step) for step in range(50)]
    assert betas.index(1.0) == WARM_UP * 50 - 1
    assert all(a <= b for a, b in itertools.pairwise(betas))


def test_without_an_end_in_sight_both_are_constant():
    plan = Schedule(0.1, 2.0, None)
    assert {plan.beta(step) for step in range(100)} == {2.0}
    assert {plan.rate(step) for step in range(100)} == {0.1}
    assert not plan.is_over(10**6)


@pytest.mark.parametrize("n_steps", [1000, None])
def test_descent_starts_from_where_the_rate_is_and_is_then_over(n_steps):
    plan = Schedule(0.1, 1.0, n_steps)
    before = plan.rate(400)
    assert not plan.descending
    plan.descend(400, 100)
    assert plan.descending
    assert plan.rate(400) == pytest.approx(before)
    assert plan.rate(450) == pytest.approx(before / 2)
    assert plan.rate(500) == 0
    assert not plan.is_over(499)
    assert plan.is_over(500)
    assert plan.beta(400) == 1.0
