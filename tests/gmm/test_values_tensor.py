"""Tensors and directions at the exact ends of what is accepted, and iterations that can be done by hand."""

import itertools
import math
import re

import numpy as np
import pytest

from gmm import power_step, robust_tensor_power
from gmm.tensor import ROUNDOFF, as_directions, as_tensor, draw_starts, unit
from tests.gmm.spectral_cases import naive_power, naive_step


def filled(d, **entries):
    """Zeros but for the entries, `_012=x` for T[0, 1, 2]."""
    T = np.zeros((d, d, d))
    for where, entry in entries.items():
        T[tuple(int(digit) for digit in where.strip("_"))] = entry
    return T


def symmetric(d, rng):
    """Symmetric entries, one number for each set of three indices."""
    T = np.empty((d, d, d))
    for index in itertools.combinations_with_replacement(range(d), 3):
        entry = rng.uniform(-1, 1)
        for order in itertools.permutations(index):
            T[order] = entry
    return T


def test_the_unit_of_rounding():
    assert 1.0 + ROUNDOFF == 1.0
    assert 1.0 + math.nextafter(ROUNDOFF, 1) > 1.0


# ---- what is accepted


@pytest.mark.parametrize("size", [1.0, 1000.0, 0.001])
def test_a_tensor_may_be_asymmetric_by_a_millionth(size):
    """Of its largest entry, in the first two indices or the last two; the next float is refused."""
    most = 1e-6 * size
    for at in ("_011", "_110", "_101"):
        for sign in (1, -1):
            assert as_tensor(filled(2, _000=-size, **{at: sign * most}), symmetric=True).shape == (2, 2, 2)
            beyond = filled(2, _000=-size, **{at: sign * math.nextafter(most, 2 * most)})
            with pytest.raises(ValueError, match="T must be symmetric, but entries with permuted indices"):
                as_tensor(beyond, symmetric=True)
            assert as_tensor(beyond).shape == (2, 2, 2)


def test_tensors_of_one_dimension_and_of_zeros():
    assert as_tensor([[[3.0]]], symmetric=True).tolist() == [[[3.0]]]
    assert not as_tensor(np.zeros((2, 2, 2)), symmetric=True).any()
    values, vectors = robust_tensor_power([[[3.0]]], 1, starts=[[[-2.0]]])
    assert values.tolist() == [3.0]
    assert vectors.tolist() == [[1.0]]


def test_the_first_of_several_bad_entries_is_named():
    with pytest.raises(ValueError, match=r"T must be finite, got -inf at \(0, 1, 0\)"):
        as_tensor(filled(2, _010=-math.inf, _111=math.nan))


def test_directions_of_every_shape():
    """The last axis counts, whatever the others are."""
    for shape in ((3,), (1, 3), (3, 3), (2, 3), (3, 2, 3), (2, 1, 4, 3)):
        assert as_directions(np.ones(shape), 3).shape == shape
    for shape in ((2,), (3, 2), (3, 3, 2), (3, 0), (0, 3)):
        with pytest.raises(ValueError, match=r"v must have shape \(\.\.\., 3\), got "):
            as_directions(np.ones(shape), 3)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 3), (2, 3, 3), (2, 2, 1, 3)])
def test_steps_of_batches_in_numbers(shape):
    """T(I, v, v) for T that are not symmetric."""
    rng = np.random.default_rng(0)
    T, v = rng.uniform(-1, 1, (3, 3, 3)), rng.uniform(-1, 1, shape)
    got = power_step(T, v)
    assert got.shape == shape
    for row, want in zip(got.reshape(-1, 3), v.reshape(-1, 3), strict=True):
        assert np.allclose(row, naive_step(T, list(want)), rtol=1e-12, atol=1e-15)


# ---- starts


def test_counts_at_their_ends():
    """One restart, one iteration, none to polish; from e_1 nothing moves."""
    rng = np.random.default_rng(0)
    assert draw_starts(2, 3, rng, None, 1, 1, 0).shape == (2, 1, 3)
    T = filled(3, _000=2.0, _111=5.0, _222=4.0)
    starts = [[[7.0, 0, 0]], [[0, 0.1, 0]], [[0, 0, 1]]]
    for K in (1, 2, 3):
        values, vectors = robust_tensor_power(T, K, starts=starts[:K], n_restarts=1, n_iter=1, n_polish=0)
        assert values.tolist() == [2.0, 5.0, 4.0][:K]
        assert vectors.tolist() == np.eye(3)[:K].tolist()
    (value,), _ = robust_tensor_power(T, 1, n_restarts=1, rng=rng)
    assert min(abs(value - x) for x in (2, 4, 5)) < 1e-12


def test_starts_in_numbers():
    """Each divided by its length; also where R and d are equal, and where coordinates vanish."""
    rng = np.random.default_rng(1)
    for K, R in ((2, 4), (1, 3), (3, 1)):
        given = rng.uniform(-3, 3, (K, R, 3))
        given[0, 0] = [0.0, -2.0, 0.0]
        found = draw_starts(K, 3, None, given, 20, 30, 30)
        drawn = draw_starts(K, 3, np.random.default_rng(5), None, R, 30, 30)
        normals = np.random.default_rng(5).standard_normal((K, R, 3))
        for k in range(K):
            for r in range(R):
                for got, v in ((found, given), (drawn, normals)):
                    length = math.hypot(*v[k, r])
                    for j in range(3):
                        assert math.isclose(got[k, r, j], v[k, r, j] / length, rel_tol=1e-12)


def test_unit_of_one_vector_and_of_numbers_whose_squares_leave_float64():
    assert unit(np.array([0.0, 3e200, -4e200])).tolist() == [0.0, 0.6, -0.8]
    assert unit(np.array([[3e-200, 4e-200], [0.0, -5e-324]])).tolist() == [[0.6, 0.8], [0.0, -1.0]]


@pytest.mark.parametrize(("k", "r"), [(0, 2), (1, 0), (1, 1)])
def test_a_zero_start_is_named(k, r):
    starts = np.array([[[1.0, 0], [2, 0], [1, 1]], [[0, 1.0], [0, 5], [0, 2]]])
    draw_starts(2, 2, None, starts, 20, 30, 30)  # a coordinate that is zero in all restarts will do
    starts[k, r] = 0
    with pytest.raises(ValueError, match=f"start {r} of component {k} is zero; give it a direction"):
        draw_starts(2, 2, None, starts, 20, 30, 30)


# ---- iterations


@pytest.mark.parametrize(
    ("d", "K", "R", "n_iter", "n_polish"), [(3, 1, 3, 1, 0), (3, 2, 4, 2, 1), (4, 4, 2, 3, 2)]
)
def test_pairs_in_numbers(d, K, R, n_iter, n_polish):
    """Tensors far from orthogonal, long before convergence, every restart close to another pair."""
    rng = np.random.default_rng([d, K])
    T, starts = symmetric(d, rng), rng.uniform(-1, 1, (K, R, d))
    values, vectors = robust_tensor_power(T, K, starts=starts, n_iter=n_iter, n_polish=n_polish)
    lengths = np.sqrt((starts * starts).sum(axis=2, keepdims=True))
    want_values, want_vectors = naive_power(T, starts / lengths, n_iter, n_polish)
    assert np.allclose(values, want_values, rtol=1e-9)
    assert np.allclose(vectors, want_vectors, rtol=1e-9)


@pytest.mark.parametrize("power", [-600, -1, 0, 600])
@pytest.mark.parametrize("d", [4, 9])
def test_a_component_at_the_level_of_rounding_is_none(d, power):
    """64 d^(3/2) u times the power of two above the largest entry, so that this lies in [1/2, 1)."""
    level = 64 * d * math.isqrt(d) * 2.0**-53
    starts = [[[1.0] + [0.0] * (d - 1)], [[0.0, 1.0] + [0.0] * (d - 2)]]
    for sign in (1, -1):  # (-lambda, v) is the pair (lambda, -v)
        T = filled(d, _000=0.5, _111=sign * level) * 2.0**power
        found = re.escape(f"found is {level * 2.0**power:.3g}, which is rounding")
        with pytest.raises(ValueError, match="T has only 1 of 2 components: .* " + found):
            robust_tensor_power(T, 2, starts=starts)
        least = math.nextafter(level, 1)
        T = filled(d, _000=0.5, _111=sign * least) * 2.0**power
        values, vectors = robust_tensor_power(T, 2, starts=starts)
        assert values.tolist() == [0.5 * 2.0**power, least * 2.0**power]
        assert vectors[1, 1] == sign


def test_a_start_that_the_tensor_maps_to_zero_stays_zero():
    """T(I, e_3, e_3) = 0; beside it e_1 wins."""
    T = filled(3, _000=1.5, _111=2.0)
    values, vectors = robust_tensor_power(T, 1, starts=[[[0, 0, 1.0], [1.0, 0, 0]]])
    assert values.tolist() == [1.5]
    assert vectors.tolist() == [[1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="T has only 0 of 1 components"):
        robust_tensor_power(T, 1, starts=[[[0, 0, 1.0]]])
