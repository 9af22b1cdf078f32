"""Expectation-maximisation for Gaussian mixtures (Algorithm A.1), the reference for Appendix C."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gmm.mixture import Array, GaussianMixture, as_samples

Start = Literal["kmeans++", "normal"]


class Init(Protocol):
    """Anything with weights and means can start EM."""

    @property
    def weights(self) -> ArrayLike:
        """(K,)."""

    @property
    def means(self) -> ArrayLike:
        """(K, d)."""


def as_mixture(init: Init) -> GaussianMixture:
    """`init` as a mixture; its `scales`, where it has any, are kept."""
    if isinstance(init, GaussianMixture):
        return init
    return GaussianMixture(np.asarray(init.weights), np.asarray(init.means), getattr(init, "scales", None))


def em_step(X: ArrayLike, mixture: Init) -> GaussianMixture:
    """One EM iteration on `X` (n, d) from `mixture`.

    E-step: w_ik = pi_k phi_k(X_i) / sum_k' pi_k' phi_k'(X_i).
    M-step: pi_k = mean_i w_ik, mu_k = sum_i w_ik X_i / sum_i w_ik and, where the mixture has
    scales, s_kj^2 = sum_i w_ik (X_ij - mu_kj)^2 / sum_i w_ik with the new mean.

    A component whose responsibilities all underflow to zero gets weight 0 and keeps its mean and
    scales.  ValueError if a scale shrinks to zero.
    """
    current = as_mixture(mixture)
    data = as_samples(X, current.dim)
    return _m_step(data, current.responsibilities(data), current)


def _m_step(data: Array, resp: Array, current: GaussianMixture) -> GaussianMixture:
    mass = resp.sum(axis=0)
    alive = mass > 0
    share = resp[:, alive] / mass[alive]
    means = current.means.copy()
    means[alive] = share.T @ data
    scales = None
    if current.scales is not None:
        scales = current.scales.copy()
        for k, column in zip(np.flatnonzero(alive), share.T, strict=True):
            scales[k] = np.sqrt(column @ (data - means[k]) ** 2)
        if scales.min() == 0:
            k, j = np.argwhere(scales == 0)[0]
            raise ValueError(f"component {k} collapsed: its variance in coordinate {j} is 0")
    return GaussianMixture(mass / mass.sum(), means, scales)


def run_em(X: ArrayLike, init: Init, n_iter: int) -> list[GaussianMixture]:
    """`n_iter` EM iterations from `init`: n_iter + 1 mixtures, the first of them `init`."""
    path = [as_mixture(init)]
    for _ in range(n_iter):
        path.append(em_step(X, path[-1]))
    return path


def start_mixture(
    X: ArrayLike, n_components: int, rng: np.random.Generator, start: Start = "kmeans++"
) -> GaussianMixture:
    """A unit-variance start with equal weights.

    "kmeans++": samples drawn one after the other with probability proportional to the squared
    distance to the nearest one drawn before (Arthur and Vassilvitskii 2007); "normal": means drawn
    from N(0, I), the start of the paper's EM baseline.  ValueError unless 1 <= n_components <= n.
    """
    data = as_samples(X)
    if not 1 <= n_components <= len(data):
        raise ValueError(
            f"n_components must be between 1 and the number of samples {len(data)}, got {n_components}"
        )
    if start == "kmeans++":
        means = _spread_out(data, n_components, rng)
    elif start == "normal":
        means = rng.standard_normal((n_components, data.shape[1]))
    else:
        raise ValueError(f'start must be "kmeans++" or "normal", got {start!r}')
    return GaussianMixture(np.full(n_components, 1 / n_components), means)


def _spread_out(data: Array, n_components: int, rng: np.random.Generator) -> Array:
    """k-means++ seeds."""
    chosen = [data[rng.integers(len(data))]]
    nearest = np.full(len(data), np.inf)
    while len(chosen) < n_components:
        nearest = np.minimum(nearest, ((data - chosen[-1]) ** 2).sum(axis=1))
        total = nearest.sum()
        chance = nearest / total if total > 0 else None  # fewer distinct samples than components
        chosen.append(data[rng.choice(len(data), p=chance)])
    return np.array(chosen)


def fit_em(
    X: ArrayLike,
    n_components: int,
    *,
    n_init: int = 10,
    rng: np.random.Generator,
    start: Start = "kmeans++",
    max_iter: int = 500,
    tol: float = 1e-8,
) -> GaussianMixture:
    """The most likely of `n_init` unit-variance EM fits, each from a start of its own.

    An iteration stops when it gains less than `tol` nats per sample, or after `max_iter` steps.
    """
    _check_counts(n_init, max_iter)
    data = as_samples(X)
    fits = [
        converge(data, start_mixture(data, n_components, rng, start), max_iter=max_iter, tol=tol)
        for _ in range(n_init)
    ]
    return max(fits, key=lambda fit: fit.log_likelihood(data))


def converge(X: ArrayLike, init: Init, *, max_iter: int = 2000, tol: float = 1e-12) -> GaussianMixture:
    """EM from `init` until an iteration gains less than `tol` nats per sample."""
    current = as_mixture(init)
    data = as_samples(X, current.dim)
    before = -np.inf
    for _ in range(max_iter):
        score = current.log_likelihood(data)
        if score - before < tol:
            break
        before, current = score, em_step(data, current)
    return current


def em_jacobian(X: ArrayLike, mixture: Init) -> Array:
    """Derivative of the unit-variance EM map at `mixture`, (K + K d, K + K d).

    Rows and columns are (pi_1..pi_K, mu_11..mu_1d, ..., mu_Kd), the weights taken as K free
    numbers.  From d w_ik / d pi_l = (1{k=l} w_ik - w_ik w_il) / pi_l and
    d w_ik / d mu_l = w_ik (1{k=l} - w_il) (X_i - mu_l).  A component whose responsibilities are all
    zero keeps its mean, as in `em_step`.
    """
    current = as_mixture(mixture)
    if current.scales is not None:
        raise ValueError("em_jacobian is for unit-variance mixtures, got one with scales")
    data = as_samples(X, current.dim)
    d, K = data.shape[1], current.n_components
    unweighted = GaussianMixture(np.full(K, 1 / K), current.means).joint_log_density(data)
    density_ratio = np.exp(unweighted + np.log(K) - current.score_samples(data)[:, None])
    w = current.weights * density_ratio
    after = _m_step(data, w, current)
    mass = w.sum(axis=0)
    jacobian = np.zeros((K + K * d, K + K * d))
    for k in range(K):
        rows = slice(K + k * d, K + (k + 1) * d)
        shifted = (data - after.means[k]) / mass[k] if mass[k] > 0 else np.zeros_like(data)
        if mass[k] == 0:
            jacobian[rows, rows] = np.eye(d)
        for m in range(K):
            by_weight = ((k == m) - w[:, k]) * density_ratio[:, m]
            by_mean = (w[:, k] * ((k == m) - w[:, m]))[:, None] * (data - current.means[m])
            columns = slice(K + m * d, K + (m + 1) * d)
            jacobian[k, m] = by_weight.mean()
            jacobian[k, columns] = by_mean.mean(axis=0)
            jacobian[rows, m] = shifted.T @ by_weight
            jacobian[rows, columns] += shifted.T @ by_mean
    return jacobian


def estimate_scale(
    X: ArrayLike,
    n_components: int,
    *,
    n_init: int = 5,
    rng: np.random.Generator,
    max_iter: int = 200,
    tol: float = 1e-6,
) -> float:
    """Maximum-likelihood noise level sigma of a mixture with common covariance sigma^2 I.

    EM with a shared variance from `n_init` k-means++ starts; the most likely fit is kept.
    Dividing the data by the result gives noise of unit variance, the paper's model.
    ValueError if the data have no spread, or for counts below one.
    """
    _check_counts(n_init, max_iter)
    data = as_samples(X)
    n, d = data.shape
    spread = float(np.sqrt(((data - data.mean(axis=0)) ** 2).mean()))
    if spread == 0:
        raise ValueError("cannot estimate a noise level: all samples are equal")
    fits = []
    for _ in range(n_init):
        start = start_mixture(data, n_components, rng)
        weights, means, sigma = start.weights, start.means, spread
        unit = GaussianMixture(weights, means / sigma)
        score = unit.log_likelihood(data / sigma) - d * np.log(sigma)
        for _ in range(max_iter):
            resp, before = unit.responsibilities(data / sigma), score
            fitted = _m_step(data, resp, GaussianMixture(weights, means))
            weights, means = fitted.weights, fitted.means
            residual = sum(resp[:, k] @ ((data - means[k]) ** 2).sum(axis=1) for k in range(n_components))
            sigma = float(np.sqrt(residual / (n * d)))
            if sigma <= 1e-12 * spread:
                raise ValueError(
                    f"cannot estimate a noise level: {n_components} components fit the {n} samples exactly"
                )
            unit = GaussianMixture(weights, means / sigma)
            score = unit.log_likelihood(data / sigma) - d * np.log(sigma)
            if score - before < tol:
                break
        fits.append((score, sigma))
    return max(fits)[1]


def _check_counts(n_init: int, max_iter: int) -> None:
    if n_init < 1 or max_iter < 1:
        raise ValueError(f"n_init and max_iter must be at least 1, got {n_init} and {max_iter}")
