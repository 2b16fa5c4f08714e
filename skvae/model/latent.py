"""Latent densities p(z), from which z is drawn to make new rows: the prior, and densities of the training rows' posteriors.

Fitted densities are plain: their attributes are numpy arrays and integers. They become tensors where they are used.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus

from skvae.model.likelihoods.base import softmax_
from skvae.threads import on_one_thread

ROWS = 20_000
"""Largest number of training rows whose posteriors are kept, and of points that a mixture is fitted to."""

MAX_COMPONENTS = 40
"""Largest number of components of a mixture."""

ROWS_PER_COMPONENT = 50
"""Smallest number of training rows for each component of a mixture."""

RIDGE = 1e-4
"""Added to the variances of mixtures and Gaussians; those of the prior are 1."""

CELLS_PER_CHUNK = 2**22
"""Largest number of pairs of a point and a posterior whose log densities are held in memory at once."""

MAX_STEPS = 30
"""Largest number of steps of expectation maximisation: they end close to the optimum; the last ones hardly change the
density."""

SMALLEST_GAIN = 1e-3
"""Gain of a step in mean log density, in nats, below which it is the last one."""

POINTS_PER_STEP = 2048
"""Points whose features are held at a time: they stay in the processor's cache."""

POINTS_PER_CHUNK = 2**14
"""Largest number of pairs of a point and a component of a mixture in one product: its results stay in the cache."""


class LatentDensity(ABC):
    """A density of z. A new one states its `name` and these three methods, and is added to `LATENT_DENSITIES`."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(
        cls, z_mean: np.ndarray, z_std: np.ndarray, weight: np.ndarray | None = None, seed: int = 0
    ) -> "LatentDensity":
        """Fit the density to the posteriors of the training rows.

        Parameters
        ----------
        z_mean, z_std : ndarray of shape (n, latent_dim)
            Mean and standard deviation of each row's posterior.
        weight : ndarray of shape (n,), default=None
            Weights of the rows. None weights all rows alike.
        seed : int, default=0
            Seed of the fit, for densities that need random numbers.

        Returns
        -------
        density : LatentDensity
        """

    @abstractmethod
    def sample(self, n_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draw latent points.

        Parameters
        ----------
        n_samples : int
            Number of points.
        generator : torch.Generator
            Source of the random numbers.
        dtype : torch.dtype, default=torch.float32
            Dtype of the points.

        Returns
        -------
        z : tensor of shape (n_samples, latent_dim)
            Points on the CPU.
        """

    @abstractmethod
    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log density of latent points.

        Parameters
        ----------
        z : tensor of shape (..., latent_dim)
            Points.

        Returns
        -------
        log_prob : tensor of shape (...,)
            Log density of each point, in nats.
        """


@dataclass(frozen=True)
class Prior(LatentDensity):
    """The standard normal N(0, I), towards which the KL term pulls the posteriors.

    Parameters
    ----------
    latent_dim : int
        Number of latent units.
    """

    name: ClassVar[str] = "prior"
    latent_dim: int

    @classmethod
    @on_one_thread
    def fit(cls, z_mean: np.ndarray, z_std: np.ndarray, weight: np.ndarray | None = None, seed: int = 0) -> "Prior":
        """Make the prior of as many units as the posteriors have; nothing is learnt."""
        return cls(z_mean.shape[1])

    @on_one_thread
    def sample(self, n_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draw latent points: see `LatentDensity.sample`."""
        return torch.randn(n_samples, self.latent_dim, generator=generator, dtype=dtype)

    @on_one_thread
    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log density of latent points: see `LatentDensity.log_prob`."""
        return -0.5 * (z**2).sum(-1) - 0.5 * self.latent_dim * math.log(2 * math.pi)


@dataclass(frozen=True)
class AggregatedPosterior(LatentDensity):
    """The mean of the training rows' posteriors, sum_i w_i q(z | x_i) (Makhzani et al., 2016): a mixture of n normals.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Shares of the rows; their sum is 1.
    means : ndarray of shape (n, latent_dim)
        Mean of each row's posterior.
    deviations : ndarray of shape (n, latent_dim)
        Standard deviation of each row's posterior.

    References
    ----------
    Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial autoencoders", ICLR workshop, 2016.
    """

    name: ClassVar[str] = "aggregated_posterior"
    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    @on_one_thread
    def fit(
        cls, z_mean: np.ndarray, z_std: np.ndarray, weight: np.ndarray | None = None, seed: int = 0
    ) -> "AggregatedPosterior":
        """Keep the posteriors and the shares of their rows, in float32."""
        weights = _shares(z_mean, weight)

        # float32 takes half the memory, and is what the networks compute in
        return cls(weights.astype(np.float32), z_mean.astype(np.float32), z_std.astype(np.float32))

    @on_one_thread
    def sample(self, n_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draw latent points: a row by its share, then a point from its posterior."""
        weights = torch.from_numpy(self.weights)
        rows = torch.multinomial(weights, n_samples, replacement=True, generator=generator)

        means = torch.from_numpy(self.means).to(dtype)[rows]
        deviations = torch.from_numpy(self.deviations).to(dtype)[rows]

        return means + deviations * torch.randn(means.shape, generator=generator, dtype=dtype)

    @on_one_thread
    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log density of latent points: see `LatentDensity.log_prob`.

        The squares (z - m)^2 / s^2 are multiplied out, so that two matrix products give them for all pairs of a point and a
        posterior. They are computed in float64, as such products cancel.
        """
        weights = torch.from_numpy(self.weights).to(z.device, torch.float64)
        means = torch.from_numpy(self.means).to(z.device, torch.float64)
        deviations = torch.from_numpy(self.deviations).to(z.device, torch.float64)

        # the terms that do not depend on z, shape (n,)
        precision = deviations**-2
        constant = torch.log(weights) - torch.log(deviations).sum(1) - 0.5 * (means**2 * precision).sum(1)
        constant -= 0.5 * means.shape[1] * math.log(2 * math.pi)

        # a table of all points by all posteriors might not fit into memory
        points_per_chunk = max(1, CELLS_PER_CHUNK // len(means))
        log_prob = []
        for points in z.double().flatten(0, -2).split(points_per_chunk):
            exponent = constant + points @ (means * precision).t() - 0.5 * points**2 @ precision.t()
            log_prob.append(torch.logsumexp(exponent, dim=1))

        return torch.cat(log_prob).view(z.shape[:-1]).to(z.dtype)


@dataclass(frozen=True)
class Mixture(LatentDensity):
    """A mixture of normals fitted to the aggregated posterior.

    Parameters
    ----------
    weights : ndarray of shape (n_components,)
        Shares of the components; their sum is 1.
    means : ndarray of shape (n_components, latent_dim)
        Mean of each component.
    factors : ndarray of shape (n_components, latent_dim, latent_dim)
        Lower triangular Cholesky factor of each component's covariance.
    """

    name: ClassVar[str] = "mixture"
    weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray

    @classmethod
    @on_one_thread
    def fit(cls, z_mean: np.ndarray, z_std: np.ndarray, weight: np.ndarray | None = None, seed: int = 0) -> "Mixture":
        """Fit by expectation maximisation to draws from the posteriors.

        The number of components is chosen among the largest that the rows allow, its half, its quarter and 1, by the
        posteriors of a fifth of the rows, which are left out: see `_choose`. The chosen mixture then learns from all rows.
        Fewer than 100 rows get a `Gaussian`.
        """
        n_rows = len(z_mean)
        largest = min(MAX_COMPONENTS, n_rows // ROWS_PER_COMPONENT)
        if largest < 2:
            return Gaussian.fit(z_mean, z_std, weight)

        rng = np.random.RandomState(seed)
        order = rng.permutation(n_rows)
        shares = _shares(z_mean, weight)

        # rows are split, not points: points of one posterior on both sides would flatter many components;
        # both sets together are `ROWS` points, however many rows there are
        held_out = order[: n_rows // 5]
        kept = order[n_rows // 5 :]
        z_held_out = _draws(z_mean[held_out], z_std[held_out], shares[held_out], ROWS * len(held_out) // n_rows, rng)
        z_kept = _draws(z_mean[kept], z_std[kept], shares[kept], ROWS * len(kept) // n_rows, rng)

        chosen = _choose(z_kept, z_held_out, largest, n_independent=len(held_out), rng=rng)
        return _normal_mixture(np.concatenate([z_kept, z_held_out]), len(chosen.weights), rng, start=chosen)

    @on_one_thread
    def sample(self, n_samples: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draw latent points: a component by its share, then a point from its normal."""
        weights = torch.from_numpy(self.weights)
        components = torch.multinomial(weights, n_samples, replacement=True, generator=generator)
        noise = torch.randn(n_samples, self.means.shape[1], generator=generator, dtype=dtype)

        means = torch.from_numpy(self.means).to(dtype)[components]
        factors = torch.from_numpy(self.factors).to(dtype)[components]

        return means + torch.einsum("nij,nj->ni", factors, noise)

    @on_one_thread
    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """Log density of latent points: see `LatentDensity.log_prob`."""
        weights = torch.from_numpy(self.weights).to(z)
        means = torch.from_numpy(self.means).to(z)
        factors = torch.from_numpy(self.factors).to(z)
        n_components, latent_dim = means.shape

        # log det of a covariance is twice the sum over the logarithms of its factor's diagonal
        constant = torch.log(weights) - torch.log(torch.diagonal(factors, dim1=1, dim2=2)).sum(1)
        constant -= 0.5 * latent_dim * math.log(2 * math.pi)

        # whitened deviations from all means by one product, whose rows are ordered by unit, then by component
        inverses = torch.linalg.inv(factors)
        slopes = inverses.transpose(0, 1).reshape(-1, latent_dim)
        offsets = torch.einsum("cij,cj->ic", inverses, means).flatten()

        log_prob = []
        for points in z.reshape(-1, latent_dim).split(max(1, POINTS_PER_CHUNK // n_components)):
            whitened = torch.addmm(-offsets, points, slopes.t()).view(-1, latent_dim, n_components)
            squares = whitened.square().sum(1)  # squared Mahalanobis distances, (len(points), n_components)
            log_prob.append(torch.logsumexp(constant - 0.5 * squares, dim=1))

        return torch.cat(log_prob).view(z.shape[:-1])


class Gaussian(Mixture):
    """The normal density with the mean and the covariance of the aggregated posterior: a mixture of one component."""

    name: ClassVar[str] = "gaussian"

    @classmethod
    @on_one_thread
    def fit(cls, z_mean: np.ndarray, z_std: np.ndarray, weight: np.ndarray | None = None, seed: int = 0) -> "Gaussian":
        """Compute the moments, by the law of total variance: covariance of the means plus mean of the variances."""
        shares = _shares(z_mean, weight)
        means = z_mean.astype(np.float64)
        variances = z_std.astype(np.float64) ** 2

        mean = shares @ means
        centred = means - mean
        covariance = (centred * shares[:, None]).T @ centred + np.diag(shares @ variances + RIDGE)

        return cls(np.ones(1), mean[None], np.linalg.cholesky(covariance)[None])


LATENT_DENSITIES: dict[str, type[LatentDensity]] = {
    density.name: density for density in (Prior, AggregatedPosterior, Gaussian, Mixture)
}
"""The classes by the names that users call them."""


def _shares(z_mean: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Weights of the rows divided by their sum, ndarray of float64 of shape (n,)."""
    if weight is None:
        return np.full(len(z_mean), 1 / len(z_mean))

    return np.asarray(weight, np.float64) / np.sum(weight)


def _draws(
    z_mean: np.ndarray, z_std: np.ndarray, shares: np.ndarray, n_draws: int, rng: np.random.RandomState
) -> np.ndarray:
    """Draw points from the posteriors, ndarray of shape (n_draws, latent_dim).

    Posteriors are chosen by their shares through systematic sampling: evenly spaced points on the cumulated shares, from a
    random start, so that a posterior of share s gives n_draws * s points, plus or minus one.
    """
    points = (rng.uniform() + np.arange(n_draws)) / n_draws * shares.sum()
    # the last point may lie beyond the last cumulated share by a rounding error
    rows = np.searchsorted(np.cumsum(shares), points).clip(max=len(shares) - 1)

    return z_mean[rows] + z_std[rows] * rng.standard_normal((n_draws, z_mean.shape[1]))


def _choose(
    z: np.ndarray, z_held_out: np.ndarray, largest: int, *, n_independent: int, rng: np.random.RandomState
) -> Mixture:
    """Choose a mixture by its number of components and held-out log density.

    The largest number is chosen whose mean log density is not lower than the best by more than a standard error: too few
    components lose rare kinds of row, which a mean density hardly shows.

    Parameters
    ----------
    z : ndarray of shape (n, latent_dim)
        Points to fit to.
    z_held_out : ndarray of shape (n_held_out, latent_dim)
        Points to compare by.
    largest : int
        Largest number of components; its half, its quarter and 1 are tried as well.
    n_independent : int
        Number of posteriors that the held-out points were drawn from: points of the same posterior are not independent.
    rng : RandomState
        Source of the random numbers.

    Returns
    -------
    mixture : Mixture
        Fitted to the points.
    """
    sizes = sorted({1, largest // 4, largest // 2, largest} - {0})
    mixtures = []
    scores = []
    for size in sizes:
        mixtures.append(_normal_mixture(z, size, rng))
        scores.append(mixtures[-1].log_prob(torch.from_numpy(z_held_out)))

    # differences at the same points have a smaller error than the two means have; shape (n_sizes, n_held_out)
    log_prob = torch.stack(scores)
    behind = log_prob[log_prob.mean(1).argmax()] - log_prob
    error = behind.std(1) / min(len(z_held_out), n_independent) ** 0.5

    ties = behind.mean(1) <= error
    return mixtures[int(torch.nonzero(ties).max())]


def _normal_mixture(
    z: np.ndarray, n_components: int, rng: np.random.RandomState, start: Mixture | None = None
) -> Mixture:
    """Fit a `Mixture` of normals to points by expectation maximisation (Dempster, Laird & Rubin, 1977).

    Parameters
    ----------
    z : ndarray of shape (n, latent_dim)
    n_components : int
    rng : RandomState
        Source of the random numbers of a start by k-means++ (Arthur & Vassilvitskii, 2007).
    start : Mixture, default=None
        A mixture of as many components to start from.

    Returns
    -------
    mixture : Mixture
    """
    if start is None:
        latent_dim = z.shape[1]
        centres, _ = kmeans_plusplus(z, n_components, random_state=rng)
        # so narrow that every point belongs to its nearest centre
        factors = np.tile(RIDGE**0.5 * np.eye(latent_dim), (n_components, 1, 1))
        start = Mixture(np.full(n_components, 1 / n_components), centres, factors)

    mixture = start
    points = torch.from_numpy(np.asarray(z, np.float64))
    last = -math.inf
    for _ in range(MAX_STEPS):
        mixture, log_density = _improved(mixture, points)
        if log_density - last < SMALLEST_GAIN:
            break
        last = log_density

    return mixture


def _improved(mixture: Mixture, points: torch.Tensor) -> tuple[Mixture, float]:
    """One step of expectation maximisation.

    The log density of a normal is linear in the features 1, x_i and x_i x_j of a point, and its moments are means of them: a
    product with the features of all points gives the one, another gives the other.

    Parameters
    ----------
    mixture : Mixture
    points : tensor of float64 of shape (n, latent_dim)

    Returns
    -------
    mixture : Mixture
        The improved one.
    log_density : float
        Mean log density of the points before the step, in nats.
    """
    latent_dim = points.shape[1]
    rows, columns = torch.triu_indices(latent_dim, latent_dim)
    coefficients = _coefficients(mixture, rows, columns)
    moments = torch.zeros_like(coefficients)  # (n_components, n_features)
    total = 0.0

    for chunk in points.split(POINTS_PER_STEP):
        x = chunk.t()
        features = torch.cat([x.new_ones(1, x.shape[1]), x, x[rows] * x[columns]])
        shares = coefficients @ features  # (n_components, len(chunk)), log densities at first
        total += float(softmax_(shares).sum())
        moments.addmm_(shares, features.t())

    # a component that no point belongs to has a weight, too
    weights = moments[:, 0] + 10 * torch.finfo(moments.dtype).eps
    means = moments[:, 1 : 1 + latent_dim] / weights[:, None]
    squares = moments.new_empty(len(moments), latent_dim, latent_dim)
    squares[:, rows, columns] = moments[:, 1 + latent_dim :] / weights[:, None]
    squares[:, columns, rows] = squares[:, rows, columns]

    covariances = squares - means[:, :, None] * means[:, None] + RIDGE * torch.eye(latent_dim, dtype=moments.dtype)
    factors = torch.linalg.cholesky(covariances)
    weights /= weights.sum()

    return Mixture(weights.numpy(), means.numpy(), factors.numpy()), total / len(points)


def _coefficients(mixture: Mixture, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Coefficients of 1, x_i and x_i x_j in each component's log density with its weight, shape (n_components, n_features).

    ``log w - log det(L) - d/2 log(2 pi) - 1/2 (x - m)' P (x - m)`` is multiplied out, with the precision P = (L L')^-1.
    """
    weights = torch.from_numpy(mixture.weights)
    means = torch.from_numpy(mixture.means)
    factors = torch.from_numpy(mixture.factors)
    precisions = torch.cholesky_inverse(factors)

    slopes = torch.einsum("cij,cj->ci", precisions, means)
    constant = torch.log(weights) - torch.log(torch.diagonal(factors, dim1=1, dim2=2)).sum(1)
    constant -= 0.5 * means.shape[1] * math.log(2 * math.pi) + 0.5 * (slopes * means).sum(1)

    # a product of two different coordinates stands for two equal terms
    halves = torch.where(rows == columns, 0.5, 1.0).to(means)

    return torch.cat([constant[:, None], slopes, -halves * precisions[:, rows, columns]], dim=1)
