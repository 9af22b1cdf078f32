"""Random mixture problems: Algorithm 1 of the paper with the distributions of its section 3.1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmm.mixture import Array, GaussianMixture


class Task(NamedTuple):
    """Samples X (n, d), the component of each (n,), and the mixture they came from."""

    X: Array
    labels: NDArray[np.int64]
    mixture: GaussianMixture


@dataclass(frozen=True)
class TaskDistribution:
    """The paper's task distribution in dimension `dim`.

    n_components: K is uniform on these.
    max_samples: N is uniform on the integers from N0/2 to N0.
    mean_range: means are uniform on [-mean_range, mean_range]^d, the whole set drawn again until
        every pairwise cosine is at most `max_cosine`.
    weight_range: each weight is uniform on this interval, then all are divided by their sum.
    mean_perturbation: sigma_p of section 3.2: N(0, sigma_p^2) added to every mean.
    anisotropic: standard deviations softplus(u), u uniform on [-1, 1], for each component and
        coordinate.

    Raises ValueError for impossible settings, among them means on a line (dim 1) of which two
    must point the same way.
    """

    dim: int
    n_components: Sequence[int] = (2, 3, 4, 5)
    max_samples: int = 128
    mean_range: float = 5.0
    max_cosine: float = 0.8
    weight_range: tuple[float, float] = (0.2, 0.8)
    mean_perturbation: float = 0.0
    anisotropic: bool = False

    def __post_init__(self) -> None:
        if self.dim < 1 or not self.n_components or min(self.n_components) < 1:
            raise ValueError(
                f"dim and every n_components must be at least 1, got {self.dim} and "
                f"{tuple(self.n_components)}"
            )
        if self.max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {self.max_samples}")
        counts = (self.dim, *self.n_components, self.max_samples)
        if any(n % 1 != 0 for n in counts):
            raise ValueError(f"dim, n_components and max_samples must be whole numbers, got {counts}")
        if not 0 < self.weight_range[0] <= self.weight_range[1] < math.inf:
            raise ValueError(f"weight_range must be positive and ordered, got {self.weight_range}")
        if not -1 <= self.max_cosine <= 1:
            raise ValueError(f"max_cosine must be between -1 and 1, got {self.max_cosine}")
        if not (0 < self.mean_range < math.inf and 0 <= self.mean_perturbation < math.inf):
            raise ValueError(
                "mean_range must be positive and mean_perturbation non-negative, got "
                f"{self.mean_range} and {self.mean_perturbation}"
            )
        if self.max_cosine < 1 and self.dim == 1 and max(self.n_components) > 2:
            raise ValueError(
                "in dimension 1 more than two means cannot have pairwise cosines at most "
                f"{self.max_cosine}; use max_cosine=1"
            )

    def sample(self, batch: int, rng: np.random.Generator) -> list[Task]:
        """`batch` independent tasks."""
        return [self._sample_one(rng) for _ in range(batch)]

    def sample_mixture(self, n_components: int, rng: np.random.Generator) -> GaussianMixture:
        """One mixture with the given number of components."""
        means = self._sample_means(n_components, rng)
        means += self.mean_perturbation * rng.standard_normal(means.shape)
        weights = rng.uniform(*self.weight_range, size=n_components)
        scales = None
        if self.anisotropic:
            scales = np.logaddexp(0, rng.uniform(-1, 1, size=means.shape))
        return GaussianMixture(weights / weights.sum(), means, scales)

    def _sample_one(self, rng: np.random.Generator) -> Task:
        mixture = self.sample_mixture(int(rng.choice(self.n_components)), rng)
        n = int(rng.integers((self.max_samples + 1) // 2, self.max_samples, endpoint=True))
        X, labels = mixture.sample(n, rng)
        return Task(X, labels, mixture)

    def _sample_means(self, n_components: int, rng: np.random.Generator) -> Array:
        shape = (n_components, self.dim)
        for _ in range(100_000):
            means = rng.uniform(-self.mean_range, self.mean_range, size=shape)
            direction = means / np.linalg.norm(means, axis=1, keepdims=True)
            cosine = direction @ direction.T
            np.fill_diagonal(cosine, -np.inf)
            if cosine.max() <= self.max_cosine:
                return means
        raise ValueError(
            f"no {n_components} means with pairwise cosines at most {self.max_cosine} in dimension "
            f"{self.dim} after 100000 draws; raise max_cosine or dim"
        )
