"""Where z is drawn from: around means that lie closer to the posterior than the encoder's."""

from __future__ import annotations

from collections.abc import Callable

import torch

STEP = 0.7
"""Length of the step uphill from the encoder's mean, relative to the gradient: the posterior is often narrower than q."""

LONGEST_STEP = 3.0
"""Largest length of that step, in deviations of q(z | x)."""


def steps_uphill(
    log_prob: Callable[..., torch.Tensor], z_mean: torch.Tensor, z_std: torch.Tensor, *tensors: torch.Tensor
) -> torch.Tensor:
    """Steps from the means of q(z | x) uphill on log p(x, z), in units of its deviations.

    If log p(x, z) is that of a posterior with the deviations z_std and another mean, its gradient in these units points to
    that mean and ends there. The encoder answers for all rows at once, and its means are off by half a deviation or more.

    Parameters
    ----------
    log_prob : callable
        ``log_prob(z, *tensors)`` is log p(x | z) of each row, in nats; autograd differentiates it by z.
    z_mean, z_std : tensor of shape (n, latent_dim)
    *tensors : tensor
        What else `log_prob` reads.

    Returns
    -------
    steps : tensor of shape (n, latent_dim)
    """
    # autograd can use no tensor that was made in inference mode
    with torch.inference_mode(False), torch.enable_grad():
        z = z_mean.clone().requires_grad_()
        # a decoder may leave z aside
        total = log_prob(z, *(tensor.clone() for tensor in tensors)).sum() + 0 * z.sum()
        (gradient,) = torch.autograd.grad(total, z)

    # minus z is the gradient of the prior's log density
    steps = STEP * z_std * (gradient - z_mean)

    # far from all training rows, the gradient may be anything
    length = torch.linalg.vector_norm(steps, dim=1, keepdim=True).clamp_min(torch.finfo(steps.dtype).tiny)
    return torch.nan_to_num(steps * (LONGEST_STEP / length).clamp_max(1.0))
