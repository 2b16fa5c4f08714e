"""One thread inside, and every number of threads as it was outside, whoever comes in and leaves meanwhile."""

import random
import signal
import traceback

import pytest
import torch
from side_by_side import Guest, changed, in_new_thread, openblas, shared_state

from skvae import threads
from skvae.randomness import PrivateDraws
from skvae.threads import on_callers_threads, on_one_thread


@pytest.fixture(params=["of the libraries", "of torch"])
def way(request, monkeypatch, two_threads):
    """Both ways to set the numbers: that of this machine and the one for machines where the libraries hide theirs."""
    if request.param == "of torch":
        monkeypatch.setattr(threads, "_own_numbers", lambda: threads._TorchNumber)
    elif threads._own_numbers() is not threads._OwnNumbers:
        pytest.skip("this torch does not show the functions of its OpenMP")


# ------------------------------------------------------------------------------------------------------------ one thread


def test_one_thread_inside_and_the_former_numbers_after(way):
    before = shared_state()
    assert set(openblas()) == {2}
    inside = on_one_thread(lambda: (torch.get_num_threads(), set(openblas())))()
    assert inside == (1, {1})
    assert changed(before) == []


def test_products_of_mkl_are_on_one_thread_too(two_threads):
    if threads._own_numbers() is not threads._OwnNumbers or not torch.backends.mkl.is_available():
        pytest.skip("torch multiplies by something else than MKL here")
    number = threads._torch_library().MKL_Get_Max_Threads
    assert number() == 2
    assert on_one_thread(number)() == 1
    assert number() == 2


def test_arguments_and_results_pass_through():
    @on_one_thread
    def divided(a, *, by):
        """Quotient."""
        return a / by

    assert divided(6, by=3) == 2
    assert divided.__name__ == "divided"
    assert divided.__doc__ == "Quotient."


def test_calls_may_be_nested(way):
    before = shared_state()

    @on_one_thread
    def outer():
        inner = on_one_thread(torch.get_num_threads)()
        return inner, torch.get_num_threads(), set(openblas())

    assert outer() == (1, 1, {1})
    assert changed(before) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_numbers_come_back_after_an_exception(error, way):
    before = shared_state()

    @on_one_thread
    def failing():
        on_one_thread(torch.get_num_threads)()
        raise error

    with pytest.raises(error):
        on_one_thread(failing)()
    assert changed(before) == []


def test_other_threads_keep_their_number_and_new_ones_have_theirs(way):
    guest = Guest()
    assert torch.get_num_threads() == 2
    assert in_new_thread(torch.get_num_threads) == 2
    assert set(openblas()) == {1}
    assert guest.leave() == {"before": 2, "inside": (1, [1] * len(openblas())), "after": 2}
    assert set(openblas()) == {2}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_whoever_leaves_first_those_inside_stay_at_one(order, way):
    before = shared_state()
    guests = [Guest(), Guest(), Guest()]
    ones = [1] * len(openblas())
    for i in order:
        assert openblas() == ones
        assert guests[i].leave() == {"before": 2, "inside": (1, ones), "after": 2}
    assert changed(before) == []


def test_every_thread_gets_its_own_number_back(way):
    own = [Guest(own=3), Guest(own=1), Guest(own=2)]
    before = in_new_thread(torch.get_num_threads)
    late = Guest()
    after = [guest.leave()["after"] for guest in (*own, late)]
    assert after == [3, 1, 2, before]
    assert in_new_thread(torch.get_num_threads) == before


def test_a_generator_function_is_refused():
    def rows():
        yield 1

    with pytest.raises(TypeError, match=r"rows is a generator function.*Decorate the function that iterates"):
        on_one_thread(rows)


def test_torch_without_openmp_is_left_alone(monkeypatch, two_threads):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    threads._own_numbers.cache_clear()
    try:
        assert on_one_thread(lambda: (torch.get_num_threads(), set(openblas())))() == (2, {1})
    finally:
        threads._own_numbers.cache_clear()
    assert torch.get_num_threads() == 2


# ----------------------------------------------------------------------------------------------------- several threads


def test_the_callers_threads_come_back_within_one_thread(way):
    before = shared_state()
    several = on_callers_threads(lambda: (torch.get_num_threads(), on_one_thread(torch.get_num_threads)()))

    @on_one_thread
    def outer():
        return torch.get_num_threads(), several(), torch.get_num_threads(), set(openblas())

    assert outer() == (1, (2, 1), 1, {1})
    assert changed(before) == []
    assert several() == (2, 1)  # outside of all, nothing changes


def test_the_callers_threads_go_after_an_exception(way):
    before = shared_state()

    @on_callers_threads
    def failing():
        raise KeyboardInterrupt

    @on_one_thread
    def outer():
        with pytest.raises(KeyboardInterrupt):
            failing()
        return torch.get_num_threads()

    assert outer() == 1
    assert changed(before) == []


# --------------------------------------------------------------------------------------------------------- interruption


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that interrupts")
@pytest.mark.parametrize("lifted", [False, True])
def test_an_interruption_at_any_moment_leaves_nothing_behind(lifted, two_threads):
    home = torch.get_rng_state()
    draws = PrivateDraws(0, torch.device("cpu"))
    number = on_one_thread(torch.get_num_threads)
    several = on_callers_threads(number) if lifted else number
    call = on_one_thread(lambda: draws.run(several))
    fired = hit = 0

    def interrupt(*_):
        nonlocal fired
        fired += 1
        raise KeyboardInterrupt

    call()
    delays = random.Random(7)
    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(500):
            n_fired = fired
            try:
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-6, 1e-4))
                call()
                while fired == n_fired:
                    pass
            except KeyboardInterrupt as error:
                files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
                hit += threads.__file__ in files
            assert torch.get_num_threads() == 2
            assert not threads._process.inside
            assert torch.equal(torch.get_rng_state(), home)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert hit > 20
    assert set(openblas()) == {2}
    assert (threads._here.outside, threads._here.inside) == (None, None)
    assert in_new_thread(call) == 1  # no lock is held
