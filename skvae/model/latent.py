"""What z is drawn from when new rows are made: the prior, and densities of the training rows' posteriors."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from skvae.threads import on_one_thread

ROWS = 20_000
"""Posteriors of at most so many training rows are kept and fitted to."""

MAX_COMPONENTS, ROWS_PER_COMPONENT = 40, 50
"""A mixture has at most so many components, and one for each so many rows."""

RIDGE = 1e-4
"""Added to the variances of mixtures and Gaussians; those of the prior are 1."""

CELLS_PER_CHUNK = 2**22


class LatentDensity:
    pass


@dataclass(frozen=True)
class Prior(LatentDensity):
    """The standard normal N(0, I) that the KL term pulls the posteriors towards.

    Parameters
    ----------
    latent_dim : int
    """

    latent_dim: int

    @classmethod
    @on_one_thread
    def fit(cls, z_mean, z_std, weight=None, seed=0):
        """The prior of as many units; nothing is learnt."""
        return cls(z_mean.shape[1])

    @on_one_thread
    def sample(self, n_samples, generator, dtype=torch.float32):
        """Draws of z, tensor of shape (n_samples, latent_dim), on the CPU."""
        return torch.randn(n_samples, self.latent_dim, generator=generator, dtype=dtype)

    @on_one_thread
    def log_prob(self, z):
        """Log density in nats, shape (...,), of z of shape (..., latent_dim)."""
        return -0.5 * (z**2).sum(-1) - 0.5 * self.latent_dim * math.log(2 * math.pi)


@dataclass(frozen=True)
class AggregatedPosterior:
    """The mean of the training rows' posteriors, sum_i w_i q(z | x_i) (Makhzani et al., 2016): as many normals as rows.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Shares of the rows, sum 1.
    means, deviations : ndarray of shape (n, latent_dim)
        z_mean and z_std of each row.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    @on_one_thread
    def fit(cls, z_mean, z_std, weight=None, seed=0):
        """The density of posteriors with means and deviations of shape (n, latent_dim)."""
        return cls(_shares(z_mean, weight).astype(np.float32), z_mean.astype(np.float32), z_std.astype(np.float32))

    @on_one_thread
    def sample(self, n_samples, generator, dtype=torch.float32):
        """Draws of z, tensor of shape (n_samples, latent_dim), on the CPU."""
        rows = torch.multinomial(torch.from_numpy(self.weights), n_samples, replacement=True, generator=generator)
        means, deviations = (torch.from_numpy(a).to(dtype)[rows] for a in (self.means, self.deviations))
        return means + deviations * torch.randn(means.shape, generator=generator, dtype=dtype)

    @on_one_thread
    def log_prob(self, z):
        """Log density in nats, shape (...,), of z of shape (..., latent_dim).

        The squares are multiplied out, so that it takes two matrix products, in float64.
        """
        weights, means, deviations = (
            torch.from_numpy(a).to(z.device, torch.float64) for a in (self.weights, self.means, self.deviations)
        )
        precision = deviations**-2
        constant = torch.log(weights) - torch.log(deviations).sum(1) - 0.5 * (means**2 * precision).sum(1)
        constant -= 0.5 * means.shape[1] * math.log(2 * math.pi)
        chunks = [
            torch.logsumexp(constant + points @ (means * precision).t() - 0.5 * points**2 @ precision.t(), dim=1)
            for points in z.double().flatten(0, -2).split(max(1, CELLS_PER_CHUNK // len(means)))
        ]
        return torch.cat(chunks).view(z.shape[:-1]).to(z.dtype)


@dataclass(frozen=True)
class Mixture:
    """A mixture of normals fitted to the aggregated posterior.

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
        Sum 1.
    means : ndarray of shape (n_components, latent_dim)
    factors : ndarray of shape (n_components, latent_dim, latent_dim)
        Lower triangular Cholesky factors of the covariances.
    """

    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    @classmethod
    @on_one_thread
    def fit(cls, z_mean, z_std, weight=None, seed=0):
        """By expectation maximisation on draws from the posteriors, `GaussianMixture` in scikit-learn.

        Of the largest size that the rows allow, its half, its quarter and 1, the largest is taken whose density, on the
        posteriors of a fifth of the rows, left out, is not lower than the best by more than a standard error: too few
        components lose rare kinds of row, which a mean density hardly shows. Fewer than 100 rows have a `Gaussian`.
        """
        n, rng = len(z_mean), np.random.RandomState(seed)
        largest = min(MAX_COMPONENTS, n // ROWS_PER_COMPONENT)
        if largest < 2:
            return Gaussian.fit(z_mean, z_std, weight)
        order, shares = rng.permutation(n), _shares(z_mean, weight)
        parts = (order[: n // 5], order[n // 5 :])
        left_out, z = (_draws(z_mean[part], z_std[part], shares[part], ROWS * len(part) // n, rng) for part in parts)
        sizes = sorted({1, largest // 4, largest // 2, largest} - {0})
        scores = torch.stack([_normal_mixture(z, k, rng).log_prob(torch.from_numpy(left_out)) for k in sizes])
        behind = scores[scores.mean(1).argmax()] - scores
        error = behind.std(1) / min(len(left_out), len(parts[0])) ** 0.5
        n_components = max(k for k, ties in zip(sizes, behind.mean(1) <= error, strict=True) if ties)
        return _normal_mixture(np.concatenate([z, left_out]), n_components, rng)

    @on_one_thread
    def sample(self, n_samples, generator, dtype=torch.float32):
        """Draws of z, tensor of shape (n_samples, latent_dim), on the CPU."""
        rows = torch.multinomial(torch.from_numpy(self.weights), n_samples, replacement=True, generator=generator)
        noise = torch.randn(n_samples, self.means.shape[1], generator=generator, dtype=dtype)
        means, factors = (torch.from_numpy(a).to(dtype)[rows] for a in (self.means, self.factors))
        return means + torch.einsum("nij,nj->ni", factors, noise)

    @on_one_thread
    def log_prob(self, z):
        """Log density in nats, shape (...,), of z of shape (..., latent_dim)."""
        weights, means, factors = (torch.from_numpy(a).to(z) for a in (self.weights, self.means, self.factors))
        inverses = torch.linalg.inv(factors)
        constant = torch.log(weights) - torch.log(torch.diagonal(factors, dim1=1, dim2=2)).sum(1)
        constant -= 0.5 * z.shape[-1] * math.log(2 * math.pi)
        squares = [((z - mean) @ inverse.t()).square_().sum(-1) for mean, inverse in zip(means, inverses, strict=True)]
        return torch.logsumexp(constant - 0.5 * torch.stack(squares, dim=-1), dim=-1)


class Gaussian(Mixture):
    """The normal density with the aggregated posterior's mean and covariance: a mixture of one."""

    @classmethod
    @on_one_thread
    def fit(cls, z_mean, z_std, weight=None, seed=0):
        """Mean of the means; covariance of the means plus the mean of the variances (law of total variance)."""
        z_mean, z_std, shares = z_mean.astype(np.float64), z_std.astype(np.float64), _shares(z_mean, weight)
        mean = shares @ z_mean
        centred = z_mean - mean
        covariance = (centred * shares[:, None]).T @ centred + np.diag(shares @ z_std**2 + RIDGE)
        return cls(np.ones(1), mean[None], np.linalg.cholesky(covariance)[None])


LATENT_DENSITIES = {
    "prior": Prior,
    "aggregated_posterior": AggregatedPosterior,
    "gaussian": Gaussian,
    "mixture": Mixture,
}
"""By name. Each has ``fit(z_mean, z_std, weight, seed)``, ``sample(n_samples, generator, dtype)`` and ``log_prob(z)``."""


def _shares(z_mean, weight):
    return np.full(len(z_mean), 1 / len(z_mean)) if weight is None else np.asarray(weight, np.float64) / np.sum(weight)


def _draws(z_mean, z_std, shares, n_draws, rng):
    """Draws from posteriors chosen by their shares, evenly: shape (n_draws, latent_dim)."""
    points = (rng.uniform() + np.arange(n_draws)) / n_draws * shares.sum()
    rows = np.searchsorted(np.cumsum(shares), points).clip(max=len(shares) - 1)
    return z_mean[rows] + z_std[rows] * rng.standard_normal((n_draws, z_mean.shape[1]))


class _QuietMixture(GaussianMixture):
    """One that does not warn when it stops at `max_iter`: near its end it is as good.

    A warnings filter would be the whole process's, and two threads that set it and put it back leave it set.
    """

    converged_ = property(lambda self: True, lambda self, value: None)


def _normal_mixture(z, n_components, rng):
    """A `Mixture` of so many components fitted to points of shape (n, latent_dim)."""
    model = _QuietMixture(n_components, max_iter=30, init_params="k-means++", reg_covar=RIDGE, random_state=rng).fit(z)
    return Mixture(model.weights_, model.means_, np.linalg.cholesky(model.covariances_))
