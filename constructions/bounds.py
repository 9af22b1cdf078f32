"""Right-hand sides: how far a constructed EM step can be from an EM step.

Notation: w and w^ responsibilities of EM and of the network at the same parameters, pi+ and mu+ the
weights and means that EM finds, pi^ and mu^ the network's; p_i = w_ik / sum_i w_ik.

Proposition (sharpening Theorems C.6, C.7; no factor N, no R_max, no 1/pi_min in the main terms).
Let every logit of the E-layer be within eta of its true value, up to a constant per token, and the
approximate log f be non-decreasing and within eps of log on [1/A, 1], up to one constant.  With
t = 2 eta + eps, s_k = sum_i p_i |X_i - mu_k+| and m_k = (1/N) sum_i |X_i - mu_k+|,

    |pi^_k / pi+_k - 1| <= e^{2 eta} - 1,
    |mu^_k - mu+_k| <= e^t [ (e^t - 1) s_k + max(e^eps, e^{2 eta}) m_k / (A pi+_k) ]
                       / (1 - e^{2 eta} / (A pi+_k))          where e^{2 eta} < A pi+_k.

Proof.  w^/w = e^d / sum_k w_k e^{d_k} with |d| <= eta lies in [e^{-2 eta}, e^{2 eta}]; averaging
over tokens gives the first line.  The network's mean is sum_i v_i X_i / sum_i v_i, v_i = e^{f(w^_i)}.
Where w^_i >= 1/A, v_i / w_i = e^{theta_i} with |theta_i| <= t.  Elsewhere v_i <= e^eps / A, as f does
not decrease, and w_i <= e^{2 eta} / A.  Since sum_i w_i (X_i - mu+) = 0,
mu^ - mu+ = sum_i (v_i - w_i)(X_i - mu+) / sum_i v_i.  In the numerator the first kind of token
contributes at most (e^t - 1) N pi+ s and the second at most max(e^eps, e^{2 eta}) N m / A; the
denominator is at least e^{-t} (N pi+ - N e^{2 eta} / A).  QED.

Rounding enters as larger eta and eps and one more term, see `Levels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from constructions.weights import Array


class Levels(NamedTuple):
    """The error levels that the proposition takes.

    eta: sup error of a logit; eps: of a log; log_A: log of the range of the latter; average:
    relative rounding error of a weighted average, times the largest |X_i|.
    """

    eta: float
    eps: float
    log_A: float
    average: float


class StepBound(NamedTuple):
    """Bounds on |pi^_k - pi+_k| and |mu^_k - mu+_k| (Euclidean), each (K,)."""

    weights: Array
    means: Array

    @classmethod
    def none(cls, K: int) -> StepBound:
        """No bound: infinite for every component."""
        return cls(np.full(K, math.inf), np.full(K, math.inf))

    @property
    def largest(self) -> float:
        """The larger of all."""
        return float(max(self.weights.max(), self.means.max()))


def em_step_bound(X: Array, responsibilities: Array, levels: Levels) -> StepBound:
    """The proposition at the parameters whose exact responsibilities (N, K) are given.

    Infinite for a component with A pi+ <= e^{2 eta}: then every one of its tokens may lie below
    the range of the logarithm.
    """
    eta, eps, log_A, average = levels
    weights = responsibilities.mean(axis=0)
    bound_weights = weights * math.expm1(2 * eta) + average
    bound_means = np.full(len(weights), math.inf)
    t, largest = 2 * eta + eps, float(np.linalg.norm(X, axis=1).max())
    for k, weight in enumerate(weights):
        outside = math.exp(2 * eta - log_A) / weight if weight > 0 else math.inf
        if outside >= 1:
            continue
        share = responsibilities[:, k] / responsibilities[:, k].sum()
        distance = np.linalg.norm(X - share @ X, axis=1)
        main = math.expm1(t) * (share @ distance)
        cut = math.exp(max(eps, 2 * eta) - log_A) * distance.mean() / weight
        bound_means[k] = math.exp(t) * (main + cut) / (1 - outside) + average * largest
    return StepBound(bound_weights, bound_means)


def propagate(jacobians: Sequence[Array], steps: Sequence[StepBound]) -> list[StepBound]:
    """First-order bound on the gap between two runs that differ by `steps` at each iteration.

    jacobians: derivative of the EM map at the start of each iteration, (K + K d, K + K d) in the
    order pi, mu_1, ..., mu_K.  steps: what each iteration adds.  After iteration L the gap is, to
    first order, sum_l J_L ... J_{l+1} delta_l with delta_l within steps[l]; block norms of the
    products bound each part of it.  Unbounded from the first unbounded step on.
    """
    if len(jacobians) != len(steps):
        raise ValueError(f"got {len(jacobians)} Jacobians for {len(steps)} steps")
    K = len(steps[0].weights)
    bounds: list[StepBound] = []
    products: list[Array] = []
    for number, (jacobian, step) in enumerate(zip(jacobians, steps, strict=True), start=1):
        if not np.isfinite(step.largest):
            return bounds + [StepBound.none(K)] * (len(steps) - number + 1)
        products = [jacobian @ product for product in products] + [np.eye(len(jacobian))]
        total = np.zeros(2 * K)
        for product, earlier in zip(products, steps[:number], strict=True):
            total += _block_norms(product, K) @ np.concatenate(earlier)
        bounds.append(StepBound(total[:K], total[K:]))
    return bounds


def _block_norms(matrix: Array, K: int) -> Array:
    """Spectral norms of the blocks of a matrix over (pi_1, ..., pi_K, mu_1, ..., mu_K)."""
    d = (len(matrix) - K) // K
    edges = [*range(K + 1), *range(K + d, K + K * d + 1, d)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    return np.array([[np.linalg.norm(matrix[rows, cols], 2) for cols in parts] for rows in parts])
