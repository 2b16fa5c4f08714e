"""The weight of the KL term, the learning rate and the looks, step by step."""

import itertools
import math

import pytest

from skvae.engine.schedule import DESCENT, SLOW_DOWN, STEPS_PER_LOOK, WARM_UP, Schedule


def test_rate_falls_with_the_inverse_root_and_then_to_0():
    plan = Schedule(0.1, 2.0, 1400)
    assert plan.start == pytest.approx(1000)
    assert [plan.rate(s) for s in (0, SLOW_DOWN, 3 * SLOW_DOWN)] == pytest.approx([0.1, 0.1 / 2**0.5, 0.05])
    top = 0.1 / math.sqrt(1 + 1000 / SLOW_DOWN)
    assert [plan.rate(s) for s in (1000, 1100, 1200, 1400)] == pytest.approx([top, 0.75 * top, top / 2, 0])
    assert plan.rate(2000) == 0
    assert [plan.is_descending(s) for s in (999, 1001)] == [False, True]
    assert [plan.is_over(s) for s in (1399, 1400)] == [False, True]


@pytest.mark.parametrize("n_steps", [1, 50, 10_000])
def test_kl_is_phased_in_before_the_descent(n_steps):
    plan = Schedule(1.0, 3.0, n_steps)
    betas = [plan.beta(step) for step in range(n_steps)]
    assert all(a <= b for a, b in itertools.pairwise(betas))
    assert betas[-1] == 3.0
    assert betas.index(3.0) <= min(WARM_UP, DESCENT * n_steps)
    if n_steps > 2 * WARM_UP:
        assert betas[WARM_UP // 2 - 1] == pytest.approx(1.5)


def test_without_an_end_the_rate_goes_on_from_earlier_steps():
    plan = Schedule(0.1, 2.0, None, first=3 * SLOW_DOWN)
    assert plan.rate(0) == pytest.approx(0.05)
    assert plan.rate(12 * SLOW_DOWN) == pytest.approx(0.025)
    assert {plan.beta(step) for step in range(100)} == {2.0}
    assert not plan.is_descending(10**6)
    assert not plan.is_over(10**6)


@pytest.mark.parametrize("n_steps", [1000, None])
def test_early_descent_starts_from_where_the_rate_is_and_is_then_over(n_steps):
    plan = Schedule(0.1, 1.0, n_steps)
    before = plan.rate(400)
    assert not plan.is_descending(400)
    plan.descend(400)
    assert plan.is_descending(400)
    length = int(DESCENT * 400)
    assert plan.rate(400) == pytest.approx(before)
    assert plan.rate(400 + length // 2) == pytest.approx(before / 2)
    assert plan.rate(400 + length) == 0
    assert not plan.is_over(400 + length - 1)
    assert plan.is_over(400 + length)
    assert plan.beta(400) == 1.0


def test_looks_come_ever_further_apart_and_closer_in_the_descent():
    plan = Schedule(1.0, 1.0, 14_000)
    assert plan.next_look(0) == STEPS_PER_LOOK
    assert plan.next_look(100) == 100 + STEPS_PER_LOOK
    assert plan.next_look(5000) == 5750
    assert plan.next_look(10_000) == 10_500
    plan = Schedule(1.0, 1.0, 140)
    assert plan.next_look(100) == 100 + STEPS_PER_LOOK
