"""What tests of the diagonal construction share: a network, a naive reference, and steps held to bounds."""

import math
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np

from constructions.diagonal import DiagonalEMTransformer
from constructions.diagonal_bounds import DiagonalBound, diagonal_step_bound
from gmm import GaussianMixture, em_step
from tests.compare import assert_bound

BOUNDS = {"r_max": 60.0, "pi_min": 1e-3, "scale_min": 0.05, "scale_max": 20.0}


@cache
def network(eps=1e-2, d0=8, K0=5, **options):
    return DiagonalEMTransformer(d0, K0, **({"eps": eps} | BOUNDS | options))


def quiet_run(em, X, init, n_iter, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bound that is left, which the tests look at themselves
        return em.run(X, init, n_iter, **options)


class Step(NamedTuple):
    """One step from the network's own state: EM's next mixture, the network's distances, their bounds."""

    after: GaussianMixture
    error: DiagonalBound
    bound: DiagonalBound

    @property
    def shares(self):
        """The largest error as a share of its bound: of weights, means, scales."""
        return [float((e / b).max()) for e, b in zip(self.error, self.bound, strict=True)]


def distances(one, other):
    pairs = zip((one.weights, one.means, one.scales), (other.weights, other.means, other.scales), strict=True)
    return DiagonalBound(*(np.abs(a - b) for a, b in pairs))


def steps(em, X, init, estimates):
    """A `Step` for each estimate, until a weight leaves pi_min."""
    state = init
    for estimate in estimates:
        if state.weights.min() < em.pi_min:
            return
        scales = np.clip(state.scales, em.scale_min, em.scale_max)
        after = em_step(X, GaussianMixture(state.weights / state.weights.sum(), state.means, scales))
        yield Step(after, distances(estimate, after), diagonal_step_bound(X, state, em.levels(X)))
        state = estimate


def check_steps(em, X, init, estimates):
    """Every step under its bound; returns them."""
    found = list(steps(em, X, init, estimates))
    assert found
    for step in found:
        for error, bound in zip(step.error, step.bound, strict=True):
            assert_bound(error, bound)
    return found


def naive_clipped_step(X, weights, means, scales, low, high):
    """One EM step with loops, scales clipped to [low, high] in the E-step: (weights, means, scales)."""
    (N, d), K = X.shape, len(weights)
    w = np.zeros((N, K))
    for i in range(N):
        logs = []
        for k in range(K):
            total = math.log(weights[k])
            for j in range(d):
                s = min(max(scales[k][j], low), high)
                total -= math.log(s) + ((X[i, j] - means[k][j]) / s) ** 2 / 2
            logs.append(total)
        top = max(logs)
        mass = sum(math.exp(value - top) for value in logs)
        w[i] = [math.exp(value - top) / mass for value in logs]
    new_means, new_scales = np.zeros((K, d)), np.zeros((K, d))
    for k in range(K):
        mass = sum(w[:, k])
        for j in range(d):
            new_means[k, j] = sum(w[i, k] * X[i, j] for i in range(N)) / mass
            variance = sum(w[i, k] * (X[i, j] - new_means[k, j]) ** 2 for i in range(N)) / mass
            new_scales[k, j] = math.sqrt(variance)
    return w.mean(axis=0), new_means, new_scales
