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


def diagonal_case(rng: np.random.Generator, samples: tuple[int, int] = (100, 2000)) -> Case:
    """d 1..8, K 2..5, N log-uniform, scales 0.3..3, mean spread 0.7..6, a start 0.3 scales from the truth."""
    d, K = int(rng.integers(1, 9)), int(rng.integers(2, 6))
    return diagonal_case_of(d, K, int(np.exp(rng.uniform(*np.log([samples[0], samples[1] + 0.99])))), rng)


def diagonal_case_of(d: int, K: int, N: int, rng: np.random.Generator) -> Case:
    """As `diagonal_case`, of given sizes."""
    spread = float(rng.choice([0.7, 1.5, 3.0, 6.0]))
    scales = np.exp(rng.uniform(np.log(0.3), np.log(3), (K, d)))
    truth = GaussianMixture(rng.dirichlet(np.full(K, 5.0)), spread * rng.standard_normal((K, d)), scales)
    X, _ = truth.sample(N, rng)
    means = truth.means + 0.3 * scales * rng.standard_normal((K, d))
    init = GaussianMixture(truth.weights, means, scales * np.exp(0.3 * rng.standard_normal((K, d))))
    return Case(X, truth, init)
