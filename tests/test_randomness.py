"""Private draws: torch's default generator is lent for a call, and finds itself where it was."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skvae.randomness import PrivateDraws

CPU = torch.device("cpu")


def seeded(seed, n):
    """The first numbers of torch's default generator with that seed, drawn with nobody around."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [torch.rand(()).item() for _ in range(n)]


def draw():
    return torch.rand(()).item()


def test_draws_are_those_of_the_seed_and_go_on_from_call_to_call():
    draws = PrivateDraws(5, CPU)
    assert [draws.run(draw) for _ in range(4)] == seeded(5, 4)


def test_normal_draws_in_pairs_go_on_as_well():
    draws = PrivateDraws(5, CPU)
    parts = [draws.run(torch.randn, 3) for _ in range(3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = [torch.randn(3) for _ in range(3)]
    assert torch.equal(torch.stack(parts), torch.stack(expected))


def test_the_default_generator_goes_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(11)
    draws = PrivateDraws(5, CPU)
    got = []
    for _ in range(3):
        got.append(draw())
        draws.run(draw)
    assert got == seeded(11, 3)


def test_arguments_and_results_pass_through():
    assert PrivateDraws(0, CPU).run(divmod, 7, 2) == (3, 1)
    assert PrivateDraws(0, CPU).run(torch.full, (2,), fill_value=3.0).tolist() == [3, 3]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_default_generator_comes_back_after_an_exception(error):
    draws = PrivateDraws(5, CPU)
    before = torch.get_rng_state()

    def failing():
        draw()
        raise error

    with pytest.raises(error):
        draws.run(failing)
    assert torch.equal(torch.get_rng_state(), before)
    assert draws.run(draw) == seeded(5, 2)[1]


def test_private_draws_within_private_draws():
    outer = PrivateDraws(1, CPU)
    inner = PrivateDraws(2, CPU)
    before = torch.get_rng_state()
    got = outer.run(lambda: [draw(), inner.run(draw), draw(), inner.run(draw)])
    assert [got[0], got[2]] == seeded(1, 2)
    assert [got[1], got[3]] == seeded(2, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_eight_threads_draw_what_they_would_draw_alone():
    before = torch.get_rng_state()
    start = threading.Barrier(8)

    def many(seed):
        draws = PrivateDraws(seed, CPU)
        start.wait(60)
        return [draws.run(draw) for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(many, range(8)))
    assert got == [seeded(seed, 200) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_generator_is_lent_beside_that_of_the_cpu():
    device = torch.device("cuda")
    draws = PrivateDraws(5, device)
    before = torch.cuda.get_rng_state()
    got = [draws.run(torch.rand, 3, device=device) for _ in range(2)]
    with torch.random.fork_rng():
        torch.cuda.manual_seed(5)
        expected = [torch.rand(3, device=device) for _ in range(2)]
    assert torch.equal(torch.cat(got), torch.cat(expected))
    assert torch.equal(torch.cuda.get_rng_state(), before)
