"""Mixtures with separation C sqrt(log K), and starts on the boundary of what (A1) and D_a allow."""

import numpy as np

from gmm import GaussianMixture, parameter_distance, population_em_step


def separated(d, K, C):
    """Equal weights; means on a line (K = 2) or at the corners of a regular polygon, nearest ones R_min =
    C sqrt(log K) apart."""
    distance = C * np.sqrt(np.log(K))
    means = np.zeros((K, d))
    if d == 1 or K == 2:
        means[:, 0] = distance * (np.arange(K) - (K - 1) / 2)
    else:
        angles = 2 * np.pi * np.arange(K) / K
        means[:, :2] = distance / (2 * np.sin(np.pi / K)) * np.c_[np.cos(angles), np.sin(angles)]
    return GaussianMixture(np.full(K, 1 / K), means)


def smallest_distance(truth):
    between = np.linalg.norm(truth.means[:, None] - truth.means[None], axis=2)
    return between[np.triu_indices(truth.n_components, 1)].min()


def directions(truth, rng):
    """Unit vectors that the means move along: to the centre, outwards, to a neighbour, alike, at random."""
    mu = truth.means - truth.means.mean(axis=0)
    K, d = mu.shape
    moves = [
        -mu,
        mu,
        np.roll(mu, 1, axis=0) - mu,
        np.tile(mu[0] - mu[1], (K, 1)),
        rng.standard_normal((K, d)),
    ]
    for move in moves:
        yield move / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12)


def weights(K, size, rng):
    """Weights off by up to `size` of 1/K, alternately up and down, and at random within that; sum 1."""
    pattern = np.where(np.arange(K) % 2 == 0, 1.0, -1.0)
    for factors in (pattern, rng.uniform(-1, 1, K)):
        factors = factors - factors.mean()
        factors = size * factors / max(1.0, np.abs(factors).max())
        yield (1 + factors) / K


def starts(truth, mean_shift, weight_shift, rng):
    """Starts with |d mu_k| = mean_shift and |d pi_k| <= weight_shift pi*_k."""
    for move in directions(truth, rng):
        for pi in weights(truth.n_components, weight_shift, rng):
            yield GaussianMixture(pi, truth.means + mean_shift * move)


def step(truth, start):
    """Population EM with as many nodes as these mixtures need: 64 in each direction of a plane."""
    return population_em_step(truth, start, n_nodes=400 if truth.n_components == 2 else 64)


def worst_ratio(truth, D, rng):
    """Largest D+ / D of one population step over starts at distance D."""
    return max(parameter_distance(step(truth, start), truth) / D for start in starts(truth, D, D, rng))
