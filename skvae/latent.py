"""What z is drawn from when new rows are made."""

import torch


class Prior:
    """The standard normal N(0, I) that the KL term pulls the posteriors towards.

    Parameters
    ----------
    latent_dim : int
    """

    def __init__(self, latent_dim):
        self.latent_dim = latent_dim

    def sample(self, n_samples, generator, dtype):
        """Draws of z, tensor of shape (n_samples, latent_dim), on the CPU."""
        return torch.randn(n_samples, self.latent_dim, generator=generator, dtype=dtype)


LATENT_DENSITIES = {"prior": Prior}
