"""What several test files share."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

# Test processes side by side already use every core; tests about threads set their own number.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")


@pytest.fixture(scope="session")
def mixed():
    """200 rows: two related numbers, two related flags of {0, 1}, and one number on a far larger scale. Read-only."""
    rng = np.random.default_rng(7)
    hidden = rng.normal(size=200)
    X = np.column_stack(
        [
            hidden + 0.3 * rng.normal(size=200),
            hidden**2 + 0.3 * rng.normal(size=200),
            hidden > 0,
            hidden + rng.normal(size=200) > 0.5,
            500 + 40 * rng.normal(size=200),
        ]
    )
    X.setflags(write=False)
    return X


@pytest.fixture
def two_threads():
    """torch and OpenBLAS have two threads; their former numbers are put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    if torch.get_num_threads() != 2:
        pytest.skip("torch was built without OpenMP: its number of threads stays")
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)
