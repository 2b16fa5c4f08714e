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
