"""Power iteration on third-order tensors: Algorithm A.3, its misprints corrected.

T(I, v, v)_i = sum_jm T_ijm v_j v_m is the step, T(v, v, v) = <v, T(I, v, v)> its value.  An orthogonal
tensor T = sum_k lambda_k v_k (x) v_k (x) v_k with lambda_k > 0 and orthonormal v_k has every v_k as an
attracting fixed point of v <- T(I, v, v) / |T(I, v, v)|, with value lambda_k.

Read with these corrections, Algorithm A.3 finds one pair, in a space of any dimension (the spectral
algorithm calls it in R^K), and is called once per component: lines 10 and 11 read T for the undefined
T~, and each call works on the tensor that the one before has deflated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmm.mixture import Array, as_numbers

ROUNDOFF = 2.0**-53

SMALLEST = float(np.finfo(np.float64).tiny)

ASYMMETRY = 1e-6
"""Largest |T_ijm - T_jim|, relative to the largest entry, that counts as rounding (float32 included)."""


def as_tensor(T: ArrayLike, *, symmetric: bool = False) -> Array:
    """`T` as a finite float64 array (d, d, d), symmetric where that is asked; ValueError otherwise."""
    tensor = np.ascontiguousarray(as_numbers(T, "T"))
    if tensor.ndim != 3:
        raise ValueError(f"T must be a third-order tensor of shape (d, d, d), got shape {tensor.shape}")
    if tensor.shape[0] < 1 or len(set(tensor.shape)) > 1:
        raise ValueError(f"T must be cubic, of shape (d, d, d) with d >= 1, got shape {tensor.shape}")
    if not np.isfinite(tensor).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(tensor))[0])
        raise ValueError(f"T must be finite, got {tensor[where]} at {where}")
    if symmetric:
        # these two swaps generate all six orders of the indices
        worst = max(np.abs(tensor - np.transpose(tensor, order)).max() for order in ((1, 0, 2), (0, 2, 1)))
        if worst > ASYMMETRY * np.abs(tensor).max():
            raise ValueError(
                f"T must be symmetric, but entries with permuted indices differ by up to {worst:.3g}; "
                "average T over the six orders of its indices"
            )
    return tensor


def power_step(T: ArrayLike, v: ArrayLike) -> Array:
    """T(I, v, v): T (d, d, d), symmetric or not, and v (d,) or a batch (..., d); the shape of v.

    ValueError for a T that is not cubic, a v of another dimension or entries that are not finite,
    OverflowError where the result leaves float64.
    """
    tensor = as_tensor(T)
    points = as_directions(v, len(tensor))
    with np.errstate(over="ignore", invalid="ignore"):
        contracted = np.tensordot(points, tensor, axes=(-1, 2))  # (..., i, j)
        step = np.matmul(contracted, points[..., None])[..., 0]
    if not np.isfinite(step).all():
        raise OverflowError(
            f"T(I, v, v) leaves float64: entries of T are up to {np.abs(tensor).max():.3g}, of v up to "
            f"{np.abs(points).max():.3g}; divide v by its norm before each step"
        )
    return step


def as_directions(v: ArrayLike, dim: int) -> Array:
    """`v` as a finite float64 array (..., dim); ValueError otherwise."""
    points = as_numbers(v, "v")
    if points.ndim < 1 or points.shape[-1] != dim or points.size == 0:
        raise ValueError(f"v must have shape (..., {dim}), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"v must be finite, got {points[~np.isfinite(points)][0]}")
    return points


def robust_tensor_power(
    T: ArrayLike,
    n_components: int,
    *,
    n_restarts: int = 20,
    n_iter: int = 30,
    n_polish: int | None = None,
    rng: np.random.Generator | None = None,
    starts: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Eigenvalues (K,) and unit eigenvectors (K, d) of a symmetric T (d, d, d): Algorithm A.3, K times.

    For component k, `n_restarts` starts are iterated `n_iter` times, all at once; the one with the
    largest T(v, v, v) is iterated `n_polish` times more (as often as `n_iter` unless given); then
    lambda_k = T(v_k, v_k, v_k) and T <- T - lambda_k v_k (x) v_k (x) v_k.  Components come in the
    order in which they are found.

    rng: draws the starts, uniform on the unit sphere; not used where `starts` are given.
    starts: (K, R, d) directions of any length, `starts[k]` those of component k; they replace the
        random ones and `n_restarts`.

    ValueError for a T that is not cubic, finite and symmetric, for n_components > d (an orthogonal
    tensor has at most d components), for a zero start, and when nothing but rounding is left of T
    before the last component.
    """
    tensor = as_tensor(T, symmetric=True)
    if not 1 <= n_components <= len(tensor):
        raise ValueError(
            f"n_components must be between 1 and the dimension {len(tensor)} of T, got {n_components}"
        )
    n_polish = n_iter if n_polish is None else n_polish
    directions = draw_starts(n_components, len(tensor), rng, starts, n_restarts, n_iter, n_polish)
    return decompose(tensor, directions, n_iter, n_polish)


def draw_starts(
    n_components: int,
    dim: int,
    rng: np.random.Generator | None,
    starts: ArrayLike | None,
    n_restarts: int,
    n_iter: int,
    n_polish: int,
) -> Array:
    """Unit directions (K, R, dim): the given ones, or some drawn uniformly from the sphere.

    ValueError for bad starts, where there is nothing to draw from, and for counts below their least.
    """
    if n_restarts < 1 or n_iter < 1 or n_polish < 0:
        raise ValueError(
            "n_restarts and n_iter must be at least 1 and n_polish at least 0, got "
            f"{n_restarts}, {n_iter} and {n_polish}"
        )
    if starts is None:
        if rng is None:
            raise ValueError("give rng to draw starts from, or the starts themselves")
        return unit(rng.standard_normal((n_components, n_restarts, dim)))
    given = as_numbers(starts, "starts")
    if given.ndim != 3 or given.shape != (n_components, given.shape[1], dim) or given.size == 0:
        raise ValueError(f"starts must have shape ({n_components}, R, {dim}), got {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError(f"starts must be finite, got {given[~np.isfinite(given)][0]}")
    if not given.any(axis=-1).all():
        k, r = np.argwhere(~given.any(axis=-1))[0]
        raise ValueError(f"start {r} of component {k} is zero; give it a direction")
    return unit(given)


def unit(v: Array) -> Array:
    """`v` (..., d) divided by its norms, which are not zero; also where their squares leave float64."""
    near_one = v / np.abs(v).max(axis=-1, keepdims=True)
    return np.asarray(near_one / np.linalg.norm(near_one, axis=-1, keepdims=True))


def decompose(tensor: Array, starts: Array, n_iter: int, n_polish: int) -> tuple[Array, Array]:
    """`robust_tensor_power` without its checks, from unit starts (K, R, d), for any K."""
    K, _, d = starts.shape
    # a power of two brings the entries near one, so that squares neither overflow nor vanish
    exponent = int(np.frexp(np.abs(tensor).max())[1])
    left = pack(np.ldexp(tensor, -exponent))
    values, vectors = np.empty(K), np.empty((K, d))
    for k, first in enumerate(starts):
        candidates = _iterate(left, np.ascontiguousarray(first.T), n_iter)
        scores = _values(left, candidates)
        best = _iterate(left, candidates[:, [scores.argmax()]], n_polish)
        value = _values(left, best)[0]
        if abs(value) <= 64 * d**1.5 * ROUNDOFF:
            raise ValueError(
                f"T has only {k} of {K} components: with those subtracted, the largest T(v, v, v) found "
                f"is {np.ldexp(value, exponent):.3g}, which is rounding; ask for fewer"
            )
        values[k], vectors[k] = value, best[:, 0]
        left = deflate(left, value, best[:, 0])
    return np.ldexp(values, exponent), vectors


class Packed(NamedTuple):
    """What v -> T(I, v, v) needs of T: T_ijj and, for j < m, T_ijm + T_imj; half the entries of T."""

    entries: Array
    """(d, d (d + 1) / 2), one column for each j <= m."""
    j: NDArray[np.intp]
    m: NDArray[np.intp]


def pack(tensor: Array) -> Packed:
    """T (d, d, d), symmetric or not, as a `Packed`."""
    j, m = np.triu_indices(len(tensor))
    return Packed(tensor[:, j, m] + np.where(j < m, tensor[:, m, j], 0.0), j, m)


def deflate(packed: Packed, value: float, vector: Array) -> Packed:
    """Line 11 of Algorithm A.3: T - lambda v (x) v (x) v."""
    pairs = vector[packed.j] * vector[packed.m] * np.where(packed.j < packed.m, 2.0, 1.0)
    return packed._replace(entries=packed.entries - value * np.multiply.outer(vector, pairs))


def _iterate(packed: Packed, v: Array, n_iter: int) -> Array:
    """Lines 3 to 6 for all columns of v (d, R); one that the tensor maps to zero stays zero."""
    pairs, factor = np.empty((2, len(packed.j), v.shape[1]))
    for _ in range(n_iter):
        # into the same memory each time, which "clip" allows: fresh pages would cost more than the sum
        v.take(packed.j, axis=0, out=pairs, mode="clip")
        v.take(packed.m, axis=0, out=factor, mode="clip")
        v = packed.entries @ np.multiply(pairs, factor, out=pairs)  # T(I, v, v) for all columns at once
        v /= np.sqrt(np.maximum(np.einsum("dr,dr->r", v, v), SMALLEST))
    return v


def _values(packed: Packed, v: Array) -> Array:
    """T(v, v, v) for each column of v (d, R)."""
    return np.einsum("dr,dr->r", packed.entries @ (v[packed.j] * v[packed.m]), v)
