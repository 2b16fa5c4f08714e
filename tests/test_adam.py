"""The update of a flat tensor is that of `torch.optim.Adam`."""

import torch

from skvae.engine import adam


def test_updates_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(50, dtype=torch.float64, generator=generator)
    expected = torch.nn.Parameter(theta.clone())
    optimizer = torch.optim.Adam([expected], betas=(adam.BETA1, adam.BETA2), foreach=False, fused=False)
    moments = torch.zeros_like(theta), torch.zeros_like(theta)
    count = torch.zeros(())
    for i in range(20):
        grad = torch.randn(50, dtype=torch.float64, generator=generator)
        expected.grad = grad.clone()
        optimizer.param_groups[0]["lr"] = 2.0**-i
        optimizer.step()
        count += 1
        adam.update(theta, grad, *moments, count, 2.0**-i)
    torch.testing.assert_close(theta, expected.detach(), rtol=1e-10, atol=1e-12)
    state = optimizer.state[expected]
    torch.testing.assert_close(moments, (state["exp_avg"], state["exp_avg_sq"]), rtol=1e-10, atol=1e-14)
