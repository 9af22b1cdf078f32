"""How far one step of the diagonal construction can be from one step of EM.

The reference is EM with its variances clipped in the E-step: with vc = clip(v, scale_min^2, scale_max^2),
    log w_ik = log pi_k - sum_j log(vc_kj) / 2 - Q_ik / 2 + const_i,   Q_ik = sum_j (X_ij - mu_kj)^2 / vc_kj,
    pi+_k = mean_i w_ik,   mu+_k = sum_i p_ik X_i,   v+_kj = sum_i p_ik (X_ij - mu+_kj)^2,
p_ik = w_ik / sum_i w_ik; v+ itself is not clipped.  Inside the bounds it is EM.  The network has pi^, mu^
and v^.

Proposition.  Let the square be within the factor e^a of x^2 up to the addend f (`square`, `floor`), the
precisions within e^b of 1/vc, the logs of variances, weights and responsibilities within log_v, log_pi
and eps of their values up to one constant each, the last one non-decreasing and on [1/A, 1].  Put
    eta_ik = log_pi + d log_v / 2 + (e^{a+b} - 1) Q_ik / 2 + e^b sum_j f / (2 vc_kj),
    up_ik = -log(w_ik + sum_{l != k} w_il e^{-eta_il - eta_ik}),
    down_ik = log(w_ik + sum_{l != k} w_il e^{eta_il + eta_ik}),
    D_ik = w_ik max(e^{up_ik + eps} - 1, 1 - e^{-down_ik - eps}),   M_k = sum_i w_ik e^{-down_ik - eps},
the latter two with the changes below for tokens that may lie under 1/A, and G_ik = D_ik / M_k.  Then
    |pi^_k - pi+_k| <= mean_i w_ik max(e^{up_ik} - 1, 1 - e^{-down_ik}),
    |mu^_kj - mu+_kj| <= b_kj = sum_i G_ik |X_ij - mu+_kj|,
    |v^_kj - v+_kj| <= V_kj = max( e^a q + (e^a - 1) v+_kj + f,  e^-a (q + b_kj^2) + (1 - e^-a) v+_kj ),
        q = sum_i G_ik |(X_ij - mu+_kj)^2 - v+_kj|,
and standard deviations differ by what V allows.  Proof in docs/diagonal.md.  All samples must be within
r_max of the old and of the new means, coordinate by coordinate.

A token with w_ik e^{-down_ik} < 1/A may get any weight up to max(e^eps / A, w_ik e^{up_ik + eps}): for it
D_ik is the larger of that weight minus w_ik and of w_ik, and it does not count in M_k.

No N, no r_max and no 1/pi_min: to first order b and V/s are eps s times a mean of d + Q.  Rounding
enters as a larger f in both places, larger a, b and eps, an addend of eta, and weighted averages.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from constructions.weights import Array


class DiagonalLevels(NamedTuple):
    """The error levels that the proposition takes, and the bounds that it needs.

    square, floor: a and f.  precision: b.  log_v, log_pi, log_w: sup errors of logs.  log_A: the range.
    average: relative rounding error of a weighted average, times the largest term.
    score, size: a score that is a sum of Q_ik / 2 and of terms of this size errs by score (size + Q_ik).
    residual: a square at z errs by residual (|z| + 4 sqrt(floor)) (|X_ij| + |mu_kj| + |z|).
    """

    square: float
    floor: float
    precision: float
    log_v: float
    log_pi: float
    log_w: float
    log_A: float
    r_max: float
    pi_min: float
    scale_min: float
    scale_max: float
    average: float = 0.0
    score: float = 0.0
    size: float = 0.0
    residual: float = 0.0


class DiagonalBound(NamedTuple):
    """Bounds on |pi^ - pi+| (K,), on |mu^ - mu+| and on |s^ - s+| (K, d)."""

    weights: Array
    means: Array
    scales: Array


def diagonal_step_bound(X: Array, state: Any, levels: DiagonalLevels) -> DiagonalBound:
    """The proposition for samples `X` (N, d) and a `state` with weights (K,), means and scales (K, d).

    Infinite where a sample is farther than r_max from a mean, where a weight is below pi_min, and for a
    component all of whose tokens may lie below the range of the logarithm.
    """
    weights, means = state.weights, state.means
    d, eps, spread = X.shape[1], levels.log_w, np.abs(X).max(axis=0)
    z = X[:, None, :] - means
    bound = DiagonalBound(*(np.full(np.shape(array), math.inf) for array in (weights, means, means)))
    if np.abs(z).max() > levels.r_max or weights.min() < levels.pi_min:
        return bound
    clipped = np.clip(state.scales, levels.scale_min, levels.scale_max) ** 2
    Q = (z**2 / clipped).sum(axis=2)
    near = levels.floor + _residual(levels, np.abs(z), np.abs(X)[:, None, :] + np.abs(means))
    eta = levels.log_pi + d * levels.log_v / 2 + math.expm1(levels.square + levels.precision) * Q / 2
    eta += math.exp(levels.precision) * (near / clipped).sum(axis=2) / 2 + levels.score * (levels.size + Q)
    logits = np.log(weights) - np.log(clipped).sum(axis=1) / 2 - Q / 2
    log_w = logits - logsumexp(logits, axis=1, keepdims=True)
    for k in range(len(weights)):
        up, down = _moves(log_w, eta, k)
        own, w = log_w[:, k], np.exp(log_w[:, k])
        change = np.maximum(_grown(own, up), -w * np.expm1(-down))
        bound.weights[k] = change.mean() + levels.average
        excess = np.maximum(_grown(own, up + eps), -w * np.expm1(-down - eps))
        least = np.exp(own - down - eps)
        cut = own - down < -levels.log_A
        highest = np.maximum(math.exp(eps - levels.log_A), w + excess)
        excess = np.where(cut, np.maximum(highest - w, w), excess)
        mass = least[~cut].sum()
        if mass == 0:
            continue
        G, p = excess / mass, w / w.sum()
        mean = p @ X
        gaps = X - mean
        variance = p @ gaps**2
        moved = G @ np.abs(gaps)
        bound.means[k] = moved + levels.average * spread
        q = G @ np.abs(gaps**2 - variance) + (levels.average * spread) ** 2
        far = np.abs(gaps) + bound.means[k]
        rounding = (w + excess) @ _residual(levels, far, np.abs(X) + np.abs(mean) + bound.means[k]) / mass
        a = levels.square
        above = math.exp(a) * q + math.expm1(a) * variance + levels.floor
        below = math.exp(-a) * (q + moved**2) - math.expm1(-a) * variance
        V = np.maximum(above, below) + rounding
        V += levels.average * (variance + V)
        within = far.max(axis=0) <= levels.r_max
        bound.scales[k, within] = _of_roots(variance, V)[within]
    return bound


def _moves(log_w: Array, eta: Array, k: int) -> tuple[Array, Array]:
    """How far log w_ik can go up and down, (N,) each, when logit l of token i moves by eta_il at most."""
    shift = eta + eta[:, [k]]
    shift[:, k] = 0
    return -logsumexp(log_w - shift, axis=1), logsumexp(log_w + shift, axis=1)


def _grown(log_w: Array, by: Array) -> Array:
    """w (e^by - 1), without overflow where w e^by is at most e."""
    w = np.exp(log_w)
    return np.where(by < 1, w * np.expm1(np.minimum(by, 1.0)), np.exp(log_w + by) - w)


def _residual(levels: DiagonalLevels, distance: Array, size: Array) -> Array:
    """Rounding error of a square at residuals up to `distance`, of numbers that add up to `size`."""
    return levels.residual * (distance + 4 * math.sqrt(levels.floor)) * (size + distance)


def _of_roots(variance: Array, V: Array) -> Array:
    """The largest |sqrt(v) - sqrt(variance)| for v >= 0 within V of `variance`."""
    root = np.sqrt(variance)
    return np.maximum(np.sqrt(variance + V) - root, root - np.sqrt(np.maximum(variance - V, 0)))
