"""The average of the parameters over the last steps."""

import pytest
import torch
from networks import shaken

from skvae.engine.averages import RECENCY, STEPS_PER_TERM, Average


def fill(vae, value):
    with torch.no_grad():
        for p in vae.parameters():
            p.fill_(value)


def test_average_is_that_of_the_recurrence_and_forgets_the_start():
    vae = shaken("all", decoder="factorized")
    average = Average(vae)
    expected = None
    for k in range(1, 41):
        fill(vae, float(k))
        average.add(k * STEPS_PER_TERM)
        average.add(k * STEPS_PER_TERM + 1)  # not one of those that count
        weight = (RECENCY + 1) / (k + RECENCY)
        expected = k if expected is None else (1 - weight) * expected + weight * k
    with average.lent():
        for p in vae.parameters():
            torch.testing.assert_close(p.detach(), torch.full_like(p, expected))
    assert 40 * (1 - 2 / RECENCY) < expected < 40
    assert all((p == 40).all() for p in vae.parameters())


def test_own_parameters_come_back_whatever_happens():
    vae = shaken("normal", decoder="factorized")
    average = Average(vae)
    average.add(STEPS_PER_TERM)
    fill(vae, 2.0)

    def fail():
        with average.lent():
            assert not any((p == 2).any() for p in vae.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all((p == 2).all() for p in vae.parameters())
