"""Random mixture problems that tests share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gmm import GaussianMixture, TaskDistribution, start_mixture


class Case(NamedTuple):
    X: np.ndarray
    truth: GaussianMixture
    init: GaussianMixture


def em_case(rng: np.random.Generator, max_samples: int = 2000) -> Case:
    """d 1..8, K 2..5, N from K to `max_samples` (log-uniform), means within 1, 2.5 or 5 of 0."""
    d, K = int(rng.integers(1, 9)), int(rng.integers(2, 6))
    N = int(np.exp(rng.uniform(np.log(K), np.log(max_samples + 0.99))))
    tasks = TaskDistribution(d, mean_range=float(rng.choice([1.0, 2.5, 5.0])), max_cosine=1.0)
    truth = tasks.sample_mixture(K, rng)
    X, _ = truth.sample(max(N, K), rng)
    return Case(X, truth, start_mixture(X, K, rng))


def em_cases(count: int, seed: int, max_samples: int = 2000) -> list[Case]:
    """`count` independent cases."""
    rng = np.random.default_rng(seed)
    return [em_case(rng, max_samples) for _ in range(count)]
