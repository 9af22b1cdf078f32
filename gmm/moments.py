"""Moments of a mixture with the noise of its components taken out (Algorithm A.2, line 1).

Where X comes from sum_k pi_k N(mu_k, S), with one covariance S for all components,

    M1 = E X                                       = sum_k pi_k mu_k,
    M2 = E X (x) X - S                             = sum_k pi_k mu_k (x) mu_k,
    M3 = E X (x) X (x) X - sym(M1, S)              = sum_k pi_k mu_k (x) mu_k (x) mu_k,

with sym(m, S)_abc = m_a S_bc + m_b S_ac + m_c S_ab: the odd moments of the noise vanish, and each
second moment of it meets one mean.  The paper has S = I.  Under a linear map W the data W^T X have
noise W^T S W, so the same formulas give M3(W, W, W) without a tensor of d^3 entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gmm.mixture import Array, as_samples
from gmm.tensor import ASYMMETRY, ROUNDOFF, as_directions


class Moments(NamedTuple):
    """M1 (d,), M2 (d, d) and M3 (d, d, d)."""

    m1: Array
    m2: Array
    m3: Array


def empirical_moments(X: ArrayLike, noise: ArrayLike = 1.0) -> Moments:
    """The moments of the samples X (n, d), averages over n, less the noise.

    noise: covariance of the components, a variance or a symmetric matrix (d, d); the paper's I unless
        given.

    ValueError for data that `GaussianMixture` would not take, or a noise of another shape.
    """
    data = as_samples(X)
    covariance = _covariance(noise, data.shape[1])
    return Moments(data.mean(axis=0), second_moment(data, covariance), third_moment(data, covariance))


def second_moment(data: Array, noise: Array) -> Array:
    """M2 of data (n, d) with noise (d, d)."""
    return np.asarray(data.T @ data / len(data) - noise)


def third_moment(data: Array, noise: Array) -> Array:
    """M3 of data (n, d) with noise (d, d): a tensor of d^3 entries."""
    n, d = data.shape
    total = np.zeros((d * d, d))
    for block in _blocks(data, d * d):
        total += (block[:, :, None] * block[:, None, :]).reshape(-1, d * d).T @ block
    return total.reshape(d, d, d) / n - noise_part(data.mean(axis=0), noise)


def noise_part(m1: Array, noise: Array) -> Array:
    """sym(M1, S) (d, d, d), what the noise adds to the third moment."""
    return np.asarray(
        m1[:, None, None] * noise + m1[None, :, None] * noise[:, None, :] + m1 * noise[:, :, None]
    )


def data_power_step(X: ArrayLike, v: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """M3(I, v, v) from samples X (n, d), for v (d,) or a batch (..., d), without d^3 entries.

    It is mean_i <X_i, v>^2 X_i - (v^T S v) M1 - 2 <M1, v> S v, which costs n d for each v.  T(I, u, u)
    of a whitened tensor T = M3(W, W, W) is W^T M3(I, W u, W u); so is `data_power_step(X @ W, u,
    W.T @ W)`.  `noise` as in `empirical_moments`, with its ValueErrors and those of `power_step`.
    """
    data = as_samples(X)
    n, d = data.shape
    covariance = _covariance(noise, d)
    points = as_directions(v, d)
    rows = points.reshape(-1, d)
    total = np.zeros_like(rows)
    for block in _blocks(data, len(rows)):
        total += ((block @ rows.T) ** 2).T @ block
    m1, spread = data.mean(axis=0), rows @ covariance
    along = np.einsum("rd,rd->r", rows, spread)
    step = total / n - along[:, None] * m1 - 2 * (rows @ m1)[:, None] * spread
    return np.asarray(step.reshape(points.shape))


def common_variance(X: ArrayLike, n_components: int) -> float:
    """The variance sigma^2 of components N(mu_k, sigma^2 I), from samples X (n, d).

    The covariance of such a mixture is sigma^2 I plus a matrix of rank at most K - 1, so its d - K + 1
    smallest eigenvalues are sigma^2 (Hsu and Kakade 2013, Theorem 1, for equal variances).  They take
    the smallest; this is the mean of those d - K + 1, the same number in the population, and in a
    sample without the downward bias of an extreme.  K = d will do.

    ValueError for n_components > d, or data without spread in one of those directions.
    """
    data = as_samples(X)
    n, d = data.shape
    if not 1 <= n_components <= d:
        raise ValueError(
            f"the noise level shows only where n_components is between 1 and the dimension {d}, got "
            f"{n_components}"
        )
    centred = data - data.mean(axis=0)
    spectrum = np.linalg.eigvalsh(centred.T @ centred / n)
    size = max(float(spectrum[-1]), float((data**2).mean()))
    if spectrum[0] <= 8 * d * ROUNDOFF * size:
        raise ValueError(
            f"the {n} samples do not spread in all {d} dimensions: the smallest eigenvalue of their "
            f"covariance is {spectrum[0]:.3g}; give the variance, more samples or fewer dimensions"
        )
    return float(spectrum[: d - n_components + 1].mean())


def _covariance(noise: ArrayLike, dim: int) -> Array:
    """`noise` as a symmetric matrix (dim, dim)."""
    matrix = np.asarray(noise, dtype=np.float64)
    if matrix.ndim == 0:
        matrix = matrix * np.eye(dim)
    if matrix.shape != (dim, dim):
        raise ValueError(f"noise must be a number or have shape ({dim}, {dim}), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"noise must be finite, got {matrix[~np.isfinite(matrix)][0]}")
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * np.abs(matrix).max():
        raise ValueError(f"noise must be symmetric, got {np.abs(matrix - matrix.T).max():.3g} off")
    return matrix


def _blocks(data: Array, width: int) -> Iterator[Array]:
    """Consecutive rows of `data`, so many that `width` numbers for each stay in fast memory."""
    size = max(256, 2**18 // width)
    for first in range(0, len(data), size):
        yield data[first : first + size]
