"""Gaussian mixtures as values: weights, means, and standard deviations where they are not one.

The paper's model (1) is p(x) = sum_k pi_k phi(x; mu_k) with phi the standard Gaussian density
centred at mu_k: every component has unit variance.  Its anisotropic tasks (section 3.2) have one
standard deviation per component and coordinate, `scales`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]

WEIGHT_SUM_TOLERANCE = 1e-6
"""How far from one the weights may sum: estimates computed in float32 are still mixtures."""


LARGEST = 1e150
"""Squares of larger numbers leave float64."""


def as_numbers(values: ArrayLike, name: str) -> Array:
    """`values` as a float64 array; ValueError unless they are real numbers in rows of equal length."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise ValueError(f"they are of type {array.dtype}")
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None


def as_samples(X: ArrayLike, dim: int | None = None) -> Array:
    """`X` as a float64 array (n, d), n >= 1, of numbers up to `LARGEST`; ValueError otherwise."""
    data = as_numbers(X, "X")
    if data.ndim != 2 or 0 in data.shape:
        raise ValueError(
            f"X must have shape (n, d) with n, d >= 1, got {data.shape}"
            + ("; use X[:, None] for one-dimensional data" if data.ndim == 1 else "")
        )
    if not np.isfinite(data).all():
        row, column = np.argwhere(~np.isfinite(data))[0]
        raise ValueError(f"X must be finite, got {data[row, column]} in row {row}, column {column}")
    largest = max(data.max(), -data.min())
    if largest > LARGEST:
        raise ValueError(
            f"X reaches {largest:.3g}, more than {LARGEST:g}, whose square leaves float64; "
            "divide the data by their scale"
        )
    if dim is not None and data.shape[1] != dim:
        raise ValueError(f"X has {data.shape[1]} columns, the mixture lives in dimension {dim}")
    return data


def _frozen(values: ArrayLike, name: str, shape: tuple[int | None, ...]) -> Array:
    """A read-only float64 copy of `values`, finite and of the given shape (None: any size >= 1)."""
    array = as_numbers(values, name).copy()
    wanted = "(" + ", ".join("?" if n is None else str(n) for n in shape) + ("," * (len(shape) == 1)) + ")"
    fits = array.ndim == len(shape) and all(
        got >= 1 if want is None else got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of K Gaussians in R^d with diagonal covariances.

    weights: (K,), non-negative, sum 1.
    means: (K, d).
    scales: None for the paper's unit-variance model, or (K, d) standard deviations.

    Raises ValueError when a shape, a sign or the sum of the weights is off.
    """

    weights: Array
    means: Array
    scales: Array | None = None

    def __post_init__(self) -> None:
        weights = _frozen(self.weights, "weights", (None,))
        if weights.min() < 0:
            raise ValueError(f"weights must be non-negative, got {weights.min():g}")
        if abs(weights.sum() - 1) > WEIGHT_SUM_TOLERANCE:
            raise ValueError(f"weights must sum to 1, got {weights.sum():.9g}")
        means = _frozen(self.means, "means", (len(weights), None))
        scales = None if self.scales is None else _frozen(self.scales, "scales", means.shape)
        if scales is not None and scales.min() <= 0:
            raise ValueError(f"scales must be positive, got {scales.min():g}")
        for name, value in (("weights", weights), ("means", means), ("scales", scales)):
            object.__setattr__(self, name, value)

    @property
    def n_components(self) -> int:
        """K."""
        return len(self.weights)

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[1]

    def permuted(self, order: ArrayLike) -> GaussianMixture:
        """The same mixture with its components in the given order."""
        order = np.asarray(order)
        scales = None if self.scales is None else self.scales[order]
        return GaussianMixture(self.weights[order], self.means[order], scales)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, NDArray[np.int64]]:
        """`n` independent samples, (n, d), and the component that each came from, (n,)."""
        labels = rng.choice(self.n_components, size=n, p=self.weights / self.weights.sum())
        noise = rng.standard_normal((n, self.dim))
        if self.scales is not None:
            noise *= self.scales[labels]
        return self.means[labels] + noise, labels

    def joint_log_density(self, X: ArrayLike) -> Array:
        """log pi_k + log phi_k(X_i) in nats, (n, K)."""
        data = as_samples(X, self.dim)
        squared = np.empty((len(data), self.n_components))
        log_volume = np.zeros(self.n_components)
        for k, mean in enumerate(self.means):
            centred = data - mean
            if self.scales is not None:
                centred /= self.scales[k]
                log_volume[k] = np.log(self.scales[k]).sum()
            squared[:, k] = np.einsum("ij,ij->i", centred, centred)
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        return log_weights - log_volume - 0.5 * (squared + self.dim * np.log(2 * np.pi))

    def score_samples(self, X: ArrayLike) -> Array:
        """log p(X_i) in nats, (n,)."""
        return np.asarray(logsumexp(self.joint_log_density(X), axis=1))

    def responsibilities(self, X: ArrayLike) -> Array:
        """Posterior probability of each component, (n, K): the E-step of Algorithm A.1."""
        joint = self.joint_log_density(X)
        return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))

    def log_likelihood(self, X: ArrayLike) -> float:
        """Mean log-likelihood per sample, in nats."""
        return float(self.score_samples(X).mean())
