"""The spectral algorithm (Algorithm A.2): a mixture from its first three moments.

    symbol  name          shape      meaning
    U, D    basis, sizes  (d, K)     top eigenvectors and eigenvalues of M2 = sum_k pi_k mu_k mu_k^T
    W       W             (d, K)     U D^(-1/2): W^T M2 W = I, so v_k = pi_k^(1/2) W^T mu_k are orthonormal
    B       B             (d, K)     U D^(1/2): B W^T is the projection on the span of the means
    T       tensor        (K, K, K)  M3(W, W, W) = sum_k pi_k^(-1/2) v_k (x) v_k (x) v_k

Hence lambda_k = pi_k^(-1/2), pi_k = lambda_k^(-2) and mu_k = lambda_k B v_k.  K linearly independent
means are all this needs, so K = d will do, with a known variance or an unknown common one.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmm.mixture import Array, GaussianMixture, as_samples
from gmm.moments import common_variance, second_moment, third_moment
from gmm.tensor import ASYMMETRY, ROUNDOFF, as_tensor, decompose, draw_starts, unit
from gmm.whitening import Whitening, check_components, sampling_noise, whiten


class SpectralEstimate(NamedTuple):
    """What Algorithm A.2 returns, as it returns it: the weights sum to one only in the limit.

    Components are in the order of the tensor power method.
    """

    weights: Array
    """(K,): lambda_k^-2."""
    means: Array
    """(K, d): lambda_k B v_k."""
    eigenvalues: Array
    """(K,): lambda_k; in the population at least one."""
    spectrum: Array
    """(d,): the eigenvalues of M2, largest first; in the population K are positive, the others zero."""
    mean_gap: float
    """|sum_k pi_k mu_k - M1|: the first moment, which the algorithm does not fit."""
    variance: float = 1.0
    """Of every component in every direction."""

    @property
    def scales(self) -> Array | None:
        """Standard deviations (K, d), None where they are one."""
        return None if self.variance == 1 else np.full(self.means.shape, math.sqrt(self.variance))

    def mixture(self) -> GaussianMixture:
        """The estimate as a mixture: weights above one cut to one, then all divided by their sum."""
        weights = np.minimum(self.weights, 1.0)
        return GaussianMixture(weights / weights.sum(), self.means, self.scales)


def fit_spectral(
    X: ArrayLike,
    n_components: int,
    *,
    rng: np.random.Generator | None = None,
    starts: ArrayLike | None = None,
    n_restarts: int = 20,
    n_iter: int = 30,
    n_polish: int = 30,
    variance: float | Literal["estimate"] = 1.0,
    best_effort: bool = False,
) -> GaussianMixture:
    """The mixture that Algorithm A.2 finds in the samples X (n, d): `spectral_from_data(...).mixture()`.

    Arguments and ValueErrors are those of `spectral_from_data`.  The weights are divided by their sum;
    the scales are None, or all equal where the variance is not one.
    """
    return spectral_from_data(
        X,
        n_components,
        rng=rng,
        starts=starts,
        n_restarts=n_restarts,
        n_iter=n_iter,
        n_polish=n_polish,
        variance=variance,
        best_effort=best_effort,
    ).mixture()


def spectral_from_data(
    X: ArrayLike,
    n_components: int,
    *,
    rng: np.random.Generator | None = None,
    starts: ArrayLike | None = None,
    n_restarts: int = 20,
    n_iter: int = 30,
    n_polish: int = 30,
    variance: float | Literal["estimate"] = 1.0,
    best_effort: bool = False,
) -> SpectralEstimate:
    """Algorithm A.2 on the samples X (n, d).  The data are whitened first: no array has d^3 entries.

    rng, starts, n_restarts, n_iter, n_polish, best_effort: as in `spectral_from_moments`.
    variance: of every component in every direction; the paper's one unless given.  "estimate" finds
        it from the smallest eigenvalues of the covariance (`common_variance`).

    ValueErrors as in `spectral_from_moments`, the second moment held against `sampling_noise`, and
    those of `common_variance`.
    """
    data = as_samples(X)
    n, d = data.shape
    check_components(n_components, d, best_effort)
    directions = draw_starts(n_components, d, rng, starts, n_restarts, n_iter, n_polish)
    level = _level(variance, data, n_components)
    noise = level * np.eye(d)
    chance = sampling_noise(n, d, n_components, level)
    whitening = whiten(second_moment(data, noise), n_components, chance, best_effort)
    tensor = third_moment(data @ whitening.W, whitening.W.T @ noise @ whitening.W)
    estimate = _recover(data.mean(axis=0), whitening, tensor, directions, n_iter, n_polish)
    return estimate._replace(variance=level)


def spectral_from_moments(
    m1: ArrayLike,
    m2: ArrayLike,
    m3: ArrayLike,
    n_components: int,
    *,
    rng: np.random.Generator | None = None,
    starts: ArrayLike | None = None,
    n_restarts: int = 20,
    n_iter: int = 30,
    n_polish: int = 30,
    best_effort: bool = False,
) -> SpectralEstimate:
    """Algorithm A.2 from M1 (d,), M2 (d, d) and M3 (d, d, d), the noise taken out of M2 and M3.

    rng: draws directions g, uniform on the unit sphere of R^d; not used where `starts` are given.
    starts: (K, R, d) directions g of any length, in place of random ones: the iteration for component
        k and restart r begins at U^T g / |U^T g| with g = starts[k, r].
    n_restarts, n_iter, n_polish: as in `robust_tensor_power`.
    best_effort: whiten with the directions of positive eigenvalue, however few and however small, and
        warn, where otherwise the fit is refused.  With fewer than K of them the tensor is not
        orthogonal and the result a rough guess.

    ValueError for shapes that do not fit, entries that are not finite, moments that are not
    symmetric, n_components > d, an M2 of numerical rank below K, a start orthogonal to the means,
    and where T has fewer than K components.
    """
    third = as_tensor(m3, symmetric=True)
    d = len(third)
    first, second = np.asarray(m1, dtype=np.float64), np.asarray(m2, dtype=np.float64)
    for name, moment, shape in (("m1", first, (d,)), ("m2", second, (d, d))):
        if moment.shape != shape:
            raise ValueError(f"{name} must have shape {shape} beside m3 {third.shape}, got {moment.shape}")
        if not np.isfinite(moment).all():
            raise ValueError(f"{name} must be finite, got {moment[~np.isfinite(moment)][0]}")
    if np.abs(second - second.T).max() > ASYMMETRY * np.abs(second).max():
        raise ValueError(f"m2 must be symmetric, got {np.abs(second - second.T).max():.3g} off")
    check_components(n_components, d, best_effort)
    directions = draw_starts(n_components, d, rng, starts, n_restarts, n_iter, n_polish)
    whitening = whiten(second, n_components, 0.0, best_effort)
    tensor = third
    for _ in range(3):  # contracts the first index and puts the new one last
        tensor = np.tensordot(tensor, whitening.W, axes=(0, 0))
    return _recover(first, whitening, tensor, directions, n_iter, n_polish)


def _level(variance: float | Literal["estimate"], data: Array, n_components: int) -> float:
    """The variance as a positive number."""
    if variance == "estimate":
        return common_variance(data, min(n_components, data.shape[1]))
    try:
        level = float(variance)
    except (TypeError, ValueError):
        level = math.nan
    if not 0 < level < math.inf:
        raise ValueError(f'variance must be a positive number or "estimate", got {variance!r}')
    return level


def _recover(
    m1: Array, whitening: Whitening, tensor: Array, directions: Array, n_iter: int, n_polish: int
) -> SpectralEstimate:
    """Lines 3 and 4 of Algorithm A.2, from the whitened tensor and unit directions (K, R, d)."""
    inside = directions @ whitening.basis
    lost = np.linalg.norm(inside, axis=-1) <= 8 * directions.shape[-1] * ROUNDOFF
    if lost.any():
        k, r = np.argwhere(lost)[0]
        raise ValueError(
            f"start {r} of component {k} is orthogonal to the top eigenvectors of the second moment"
        )
    eigenvalues, vectors = decompose(tensor, unit(inside), n_iter, n_polish)
    weights, means = eigenvalues**-2.0, eigenvalues[:, None] * (vectors @ whitening.B.T)
    mean_gap = float(np.linalg.norm(weights @ means - m1))
    return SpectralEstimate(weights, means, eigenvalues, whitening.spectrum, mean_gap)
