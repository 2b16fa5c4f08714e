"""Adam (Kingma & Ba, 2015): its constants, its state, and one update of a flat tensor."""

from collections.abc import Mapping

import numpy as np
import torch

from skvae.engine.paths import Arrays, put

BETA1 = 0.9
BETA2 = 0.99
EPS = 1e-8

AdamState = dict[str, dict[str, np.ndarray]]
"""By parameter name: ``"step"``, the number of updates, the moments ``"exp_avg"`` and ``"exp_avg_sq"``, unless the whole
parameter is Muon's, and what `skvae.engine.muon.Muon.state` adds."""


def flat(state: AdamState) -> Arrays:
    """The arrays of a state by path: parameter and key, with a slash between them."""
    arrays: Arrays = {}
    for parameter, moments in state.items():
        put(arrays, f"{parameter}/", moments)

    return arrays


def nested(arrays: Mapping[str, np.ndarray]) -> AdamState:
    """The state whose `flat` arrays are given."""
    state: AdamState = {}
    for path, array in arrays.items():
        parameter, key = path.split("/")
        state.setdefault(parameter, {})[key] = array

    return state


def update(
    theta: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    count: torch.Tensor,
    learning_rate: float | torch.Tensor,
) -> None:
    """One update of `theta` and of its moments, in place and in one call.

    Parameters
    ----------
    theta, grad, exp_avg, exp_avg_sq : tensor of shape (n,)
    count : tensor of shape ()
        Number of updates, this one included; float32.
    learning_rate : float or tensor of shape ()
    """
    torch._fused_adam_(
        [theta],
        [grad],
        [exp_avg],
        [exp_avg_sq],
        [],
        [count],
        lr=learning_rate,
        beta1=BETA1,
        beta2=BETA2,
        weight_decay=0.0,
        eps=EPS,
        amsgrad=False,
        maximize=False,
    )
