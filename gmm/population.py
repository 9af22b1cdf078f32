"""The EM map on the whole distribution instead of a sample (Appendix C.3.1).

With w_i(X) the responsibilities of `current` and X drawn from `truth`,
pi_i+ = E w_i(X) and mu_i+ = E[w_i(X) X] / E w_i(X).

w depends on X only through its projection on the span S of the differences of the current means,
of dimension r <= min(d, K - 1).  Given the component that X came from, the part of X orthogonal to
S is independent of w and has that component's mean.  So only r-dimensional integrals are left:
Gauss-Hermite quadrature where r <= 3, Monte Carlo above.
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
from scipy.special import roots_hermitenorm

from gmm.em import Init, as_mixture
from gmm.mixture import Array, GaussianMixture

_NODES = (1, 800, 160, 60)


@overload
def population_em_step(
    truth: Init,
    current: Init,
    *,
    n_nodes: int | None = ...,
    n_samples: int = ...,
    rng: np.random.Generator | None = ...,
    return_error: Literal[False] = ...,
) -> GaussianMixture: ...
@overload
def population_em_step(
    truth: Init,
    current: Init,
    *,
    n_nodes: int | None = ...,
    n_samples: int = ...,
    rng: np.random.Generator | None = ...,
    return_error: Literal[True],
) -> tuple[GaussianMixture, float]: ...


def population_em_step(
    truth: Init,
    current: Init,
    *,
    n_nodes: int | None = None,
    n_samples: int = 1_000_000,
    rng: np.random.Generator | None = None,
    return_error: bool = False,
) -> GaussianMixture | tuple[GaussianMixture, float]:
    """One population-EM step from `current` when the data come from `truth` (unit variances).

    n_nodes: quadrature nodes per dimension, used where r <= 3; 800, 160, 60 for r = 1, 2, 3 unless
        given.
    n_samples, rng: size and generator of the Monte Carlo sample, needed where r > 3.
    return_error: also return an estimate of the largest absolute error of any weight or mean
        coordinate: the change from 2/3 of the nodes, or four standard errors.

    ValueError for mixtures with scales, unequal dimensions, or r > 3 without a generator.
    """
    target, mixture = as_mixture(truth), as_mixture(current)
    if target.scales is not None or mixture.scales is not None:
        raise ValueError("population_em_step is for unit-variance mixtures, got one with scales")
    if target.dim != mixture.dim:
        raise ValueError(f"truth has dimension {target.dim}, current {mixture.dim}")
    basis = _span(mixture.means)
    if basis.shape[1] <= 3:
        nodes = _NODES[basis.shape[1]] if n_nodes is None else n_nodes
        after = _by_quadrature(target, mixture, basis, nodes)
        error = 0.0
        if return_error:
            coarse = _by_quadrature(target, mixture, basis, max(1, 2 * nodes // 3))
            error = _largest_change(after, coarse)
    else:
        if rng is None:
            raise ValueError(
                f"the {mixture.n_components} current means span {basis.shape[1]} dimensions, too "
                "many for quadrature: give rng for Monte Carlo"
            )
        after, error = _by_sampling(target, mixture, basis, n_samples, rng)
    return (after, error) if return_error else after


def _span(means: Array) -> Array:
    """Orthonormal basis (d, r) of the span of the differences of the means."""
    differences = means[1:] - means[0]
    _, size, directions = np.linalg.svd(differences, full_matrices=False)
    rank = int((size > 1e-12 * max(1.0, np.abs(means).max())).sum())
    return directions[:rank].T


def _weigh(mixture: GaussianMixture, basis: Array, points: Array) -> Array:
    """Responsibilities at points given by their coordinates in `basis`."""
    return GaussianMixture(mixture.weights, mixture.means @ basis).responsibilities(points)


def _by_quadrature(
    target: GaussianMixture, mixture: GaussianMixture, basis: Array, n_nodes: int
) -> GaussianMixture:
    K, rank = mixture.n_components, basis.shape[1]
    if rank == 0:
        return GaussianMixture(mixture.weights, np.tile(target.weights @ target.means, (K, 1)))
    node, weight = roots_hermitenorm(n_nodes)
    nodes = np.stack(np.meshgrid(*[node] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    product = np.stack(np.meshgrid(*[weight] * rank, indexing="ij"), axis=-1).reshape(-1, rank)
    density = product.prod(axis=1)  # up to a factor, which cancels
    mass, moment = np.zeros(K), np.zeros((K, target.dim))
    for share, mean in zip(target.weights, target.means, strict=True):
        resp = _weigh(mixture, basis, nodes + mean @ basis) * (share * density)[:, None]
        mass += resp.sum(axis=0)
        moment += resp.sum(axis=0)[:, None] * mean + (resp.T @ nodes) @ basis.T
    return GaussianMixture(mass / mass.sum(), _divided(moment, mass, mixture))


def _by_sampling(
    target: GaussianMixture,
    mixture: GaussianMixture,
    basis: Array,
    n_samples: int,
    rng: np.random.Generator,
) -> tuple[GaussianMixture, float]:
    labels = rng.choice(target.n_components, size=n_samples, p=target.weights / target.weights.sum())
    noise = rng.standard_normal((n_samples, basis.shape[1]))
    resp = _weigh(mixture, basis, (target.means @ basis)[labels] + noise)
    X = target.means[labels] + noise @ basis.T
    mass = resp.mean(axis=0)
    means = _divided(resp.T @ X / n_samples, mass, mixture)
    spread = [resp.std(axis=0).max()]
    for k, mean in enumerate(means):
        if mass[k] > 0:
            spread.append((resp[:, k, None] * (X - mean)).std(axis=0).max() / mass[k])
    return GaussianMixture(mass, means), float(4 * max(spread) / np.sqrt(n_samples))


def _divided(moment: Array, mass: Array, before: GaussianMixture) -> Array:
    """Means (K, d); a component without mass keeps the one it had, as in `em_step`."""
    empty = mass <= 0
    return np.where(empty[:, None], before.means, moment / np.where(empty, 1.0, mass)[:, None])


def _largest_change(one: GaussianMixture, other: GaussianMixture) -> float:
    return float(max(np.abs(one.weights - other.weights).max(), np.abs(one.means - other.means).max()))
