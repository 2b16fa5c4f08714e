"""Matrix products are what `torch.matmul` says they are, whichever library computes them and however they lie in memory."""

import itertools

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skvae.engine.matmul import LARGE, product
from skvae.threads import on_one_thread

SHAPES = [(1, 1, 1), (1, 7, 4), (6, 1, 3), (5, 8, 1), (13, 33, 40), (130, 129, 128)]


def lying(kind, rows, columns, dtype):
    """A matrix of random numbers whose memory is laid out in a stated way."""
    generator = torch.Generator().manual_seed(rows + columns)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    return {
        "rows": lambda: drawn(rows, columns),
        "columns": lambda: drawn(columns, rows).t(),
        "part": lambda: drawn(rows, columns + 3)[:, 1 : columns + 1],
        "part of columns": lambda: drawn(columns, rows + 3)[:, :rows].t(),
        "first rows": lambda: drawn(rows + 1, columns)[:-1],
    }[kind]()


LAYOUTS = ["rows", "columns", "part", "part of columns", "first rows"]


def test_both_sides_of_the_limit_are_tested():
    assert {m * k * n >= LARGE for m, k, n in SHAPES} == {False, True}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_those_of_torch_and_follow_their_operands(shape, dtype):
    m, k, n = shape
    for a_kind, b_kind, out_kind in itertools.product(LAYOUTS, repeat=3):
        a, b, out = lying(a_kind, m, k, dtype), lying(b_kind, k, n, dtype), lying(out_kind, m, n, dtype)
        multiply = product(a, b, out)
        for _ in range(2):
            multiply()
            torch.testing.assert_close(out, a @ b, msg=lambda text: f"{a_kind}, {b_kind}, {out_kind}: {text}")  # noqa: B023
            a.mul_(-0.5)


def test_nothing_but_the_output_is_written():
    for m, k, n in SHAPES:
        a, b, wide = torch.randn(m, k), torch.randn(k, n), torch.zeros(m, n + 2)
        before = a.clone(), b.clone()
        product(a, b, wide[:, 1:-1])()
        assert torch.equal(a, before[0])
        assert torch.equal(b, before[1])
        assert not wide[:, [0, -1]].any()


def test_threads_of_numpy_are_held_and_put_back():
    def counts():
        return [library["num_threads"] for library in threadpool_info() if library["internal_api"] == "openblas"]

    with threadpool_limits(2, user_api="blas"):
        before = counts()
        assert set(on_one_thread(counts)()) <= {1}
        assert counts() == before
