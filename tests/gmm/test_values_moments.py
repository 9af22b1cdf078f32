"""Moments, steps and variances in scalar loops, and what they accept at the exact ends."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from gmm import common_variance, data_power_step, empirical_moments
from gmm.moments import noise_part
from tests.gmm.spectral_cases import jacobi


def sample(seed, n, d):
    """n points, none of whose coordinates is centred, and a covariance without zeros."""
    rng = np.random.default_rng(seed)
    A = rng.uniform(-1, 1, (d, d))
    return rng.uniform(-1, 2, (n, d)) + np.arange(1, d + 1), A @ A.T + 0.3, rng


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


# ---- moments


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 2), (3, 3), (5, 4)])
def test_moments_in_numbers(n, d):
    """M1_a, E X_a X_b - S_ab, E X_a X_b X_c - M1_a S_bc - M1_b S_ac - M1_c S_ab."""
    X, S, _ = sample(n, n, d)
    m1, m2, m3 = empirical_moments(X, S)
    first = [mean(x[a] for x in X) for a in range(d)]
    for a, b, c in itertools.product(range(d), repeat=3):
        assert math.isclose(m1[a], first[a], rel_tol=1e-12)
        assert math.isclose(m2[a, b], mean(x[a] * x[b] for x in X) - S[a, b], rel_tol=1e-9)
        noise = first[a] * S[b, c] + first[b] * S[a, c] + first[c] * S[a, b]
        assert math.isclose(m3[a, b, c], mean(x[a] * x[b] * x[c] for x in X) - noise, rel_tol=1e-9)
        assert math.isclose(noise_part(np.array(first), S)[a, b, c], noise, rel_tol=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.49, None])
def test_a_variance_stands_for_its_multiple_of_the_identity(noise):
    X, _, _ = sample(0, 6, 3)
    variance = 1.0 if noise is None else noise
    found = empirical_moments(X) if noise is None else empirical_moments(X, noise)
    for got, want in zip(found, empirical_moments(X, np.diag([variance] * 3)), strict=True):
        assert got.tolist() == want.tolist()
    assert math.isclose(found.m2[1, 1], mean(x[1] ** 2 for x in X) - variance, rel_tol=1e-9)
    assert math.isclose(found.m2[0, 2], mean(x[0] * x[2] for x in X), rel_tol=1e-9)


@pytest.mark.parametrize(("n", "d", "shape"), [(7, 2, ()), (3, 3, (2,)), (5, 4, (3, 1))])
def test_a_step_from_data_in_numbers(n, d, shape):
    """E (X v)^2 X_a - (v S v) M1_a - 2 (M1 v) (S v)_a."""
    X, S, rng = sample(n, n, d)
    v = rng.uniform(-1, 2, (*shape, d))
    got = data_power_step(X, v, S)
    assert got.shape == v.shape
    first = [mean(x[a] for x in X) for a in range(d)]
    for row, w in zip(got.reshape(-1, d), v.reshape(-1, d), strict=True):
        spread = [sum(S[a, b] * w[b] for b in range(d)) for a in range(d)]
        along = sum(spread[a] * w[a] for a in range(d))
        level = sum(first[a] * w[a] for a in range(d))
        for a in range(d):
            raw = mean(sum(x[b] * w[b] for b in range(d)) ** 2 * x[a] for x in X)
            assert math.isclose(row[a], raw - along * first[a] - 2 * level * spread[a], rel_tol=1e-9)


@pytest.mark.parametrize("size", [1.0, 100.0, 0.01])
def test_a_noise_may_be_asymmetric_by_a_millionth(size):
    """Of its largest entry, of either sign; the next float is refused."""
    most = 1e-6 * size
    for sign in (1, -1):
        assert empirical_moments([[1.0, 2.0]], [[-size, sign * most], [0, 0]]).m2[0, 0] == 1 + size
        with pytest.raises(ValueError, match="noise must be symmetric, got "):
            empirical_moments([[1.0, 2.0]], [[-size, 0], [sign * math.nextafter(most, 2 * most), 0]])


# ---- blocks


def test_more_directions_than_numbers_that_stay_in_fast_memory():
    """(x v)^2 x - v^2 x - 2 x v v for one sample x = 2: 8 v^2 - 6 v^2."""
    v = np.linspace(0.5, 1.5, 2**18 + 1)[:, None]
    step = data_power_step([[2.0]], v)
    assert step.shape == v.shape
    for at in (0, 1000, 2**17, 2**18):
        assert math.isclose(step[at, 0], 2 * v[at, 0] ** 2, rel_tol=1e-12)


def test_memory_does_not_grow_with_the_number_of_samples():
    """A block of the third moment takes two MiB; all samples at once would take nine."""
    X = np.random.default_rng(0).standard_normal((2**17 + 5, 3))
    centre = data_power_step(X, np.ones(3))
    tracemalloc.start()
    m3 = empirical_moments(X).m3
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * 2**20
    assert np.allclose(m3.sum(axis=(1, 2)), centre, rtol=1e-9)


def test_every_sample_counts_once():
    """Blocks of 29127 rows: the last one partly filled, full, of one row, and one alone."""
    for n in (29_126, 29_127, 29_128, 2 * 29_127, 70_000):
        X = np.random.default_rng(n).integers(-3, 4, (n, 3)).astype(float)
        X[0], X[29_126 % n], X[-1] = 40, 50, 60
        m3 = empirical_moments(X, 0.0).m3
        total = sum(x * x * y for x, y in zip(X[:, 0].tolist(), X[:, 2].tolist(), strict=True))
        assert math.isclose(m3[0, 0, 2], total / n, rel_tol=1e-12)


# ---- common_variance


@pytest.mark.parametrize(("d", "K"), [(1, 1), (3, 1), (4, 2), (4, 3), (4, 4)])
def test_variance_in_numbers(d, K):
    """The mean of the d - K + 1 smallest eigenvalues of the covariance, found by rotations."""
    X, _, _ = sample(d, 9, d)
    centre = [mean(x[a] for x in X) for a in range(d)]
    covariance = [
        [mean((x[a] - centre[a]) * (x[b] - centre[b]) for x in X) for b in range(d)] for a in range(d)
    ]
    sizes = sorted(jacobi(covariance)[0])
    assert math.isclose(common_variance(X, K), mean(sizes[: d - K + 1]), rel_tol=1e-9)


def crosses(b, shift=0.0):
    """Eight points of the plane with covariance diag(1/2, b^2 / 4), moved by `shift`."""
    return np.array([[1, 0], [1, 0], [-1, 0], [-1, 0], [0, b], [0, -b], [0, 0], [0, 0]]) + shift


def test_data_that_are_flat_but_for_rounding():
    """8 d u times the largest eigenvalue: 2^-50 here is refused, and the next float is not."""
    with pytest.raises(ValueError, match=r"the 8 samples do not spread in all 2 dimensions: .* is 8\.88e-16"):
        common_variance(crosses(2.0**-24), 2)
    b = math.nextafter(2.0**-24, 1)
    assert common_variance(crosses(b), 2) == b * b / 4
    for scale in (2.0**-30, 2.0**30):
        with pytest.raises(ValueError, match="do not spread"):
            common_variance(scale * crosses(2.0**-24), 1)
        assert common_variance(scale * crosses(b), 2) == scale * scale * (b * b / 4)


def test_data_that_are_flat_but_for_the_rounding_of_their_distance():
    """8 d u times the mean square 2^12 is 2^-37; b^2 / 4 is 2^-38 or 2^-36."""
    with pytest.raises(ValueError, match="do not spread"):
        common_variance(crosses(2.0**-18, shift=64.0), 2)
    assert common_variance(crosses(2.0**-17, shift=64.0), 2) == 2.0**-36


@pytest.mark.parametrize(("units", "refused"), [(9, True), (16, False)])
def test_the_largest_of_three_eigenvalues_is_the_measure(units, refused):
    """8 d u = 24 u, times 1/2; a third of the trace, or the eigenvalue between, would refuse less."""
    b = 2 * math.sqrt(units * 2.0**-53)
    X = [[1, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0], [0, b, 0], [0, -b, 0], [0, 0, 2 * b], [0, 0, -2 * b]]
    if refused:
        with pytest.raises(ValueError, match="the 8 samples do not spread in all 3 dimensions"):
            common_variance(X, 3)
    else:
        assert math.isclose(common_variance(X, 3), b * b / 4, rel_tol=1e-9)
