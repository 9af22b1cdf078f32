"""The spectral algorithm where it can be done by hand, and at the exact ends of what it accepts."""

import math

import numpy as np
import pytest

from gmm import SpectralEstimate, common_variance, fit_spectral, spectral_from_data, spectral_from_moments
from gmm.tensor import unit


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def axes(*entries):
    """The tensor with these entries on its diagonal."""
    d = len(entries)
    T = np.zeros((d, d, d))
    for j, entry in enumerate(entries):
        T[j, j, j] = entry
    return T


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


# ---- by hand


@pytest.mark.parametrize(("m1", "m2", "m3"), [(0.7, 2.3, 5.1), (-1.9, 0.6, -0.8), (0.7, 2.3, 1.3)])
def test_one_dimension_in_numbers(m1, m2, m3):
    """lambda = |m3| / m2^(3/2), v = +-1, mu = m3 / m2, pi = m2^3 / m3^2, and the gap |pi mu - m1|."""
    found = spectral_from_moments([m1], [[m2]], [[[m3]]], 1, starts=[[[0.3]]])
    assert close(found.eigenvalues[0], abs(m3) / m2**1.5)
    assert close(found.weights[0], m2**3 / m3**2)
    assert close(found.means[0, 0], m3 / m2)
    assert close(found.mean_gap, abs(m2 * m2 / m3 - m1))
    assert found.spectrum.tolist() == [m2]
    assert found.variance == 1.0
    assert found.scales is None


def test_means_along_the_axes_in_numbers():
    """Each axis for itself; the starts decide the order."""
    m1, sizes, entries = (0.4, -0.9, 0.2), (2.3, 5.9, 1.1), (4.7, 3.1, -2.9)
    order = (2, 0, 1)
    starts = [[np.eye(3)[j]] for j in order]
    found = spectral_from_moments(m1, np.diag(sizes), axes(*entries), 3, starts=starts)
    gaps = list(m1)
    for k, j in enumerate(order):
        assert close(found.weights[k], sizes[j] ** 3 / entries[j] ** 2)
        for i in range(3):
            want = entries[j] / sizes[j] if i == j else 0.0
            assert abs(found.means[k, i] - want) < 1e-12
        gaps[j] -= sizes[j] ** 2 / entries[j]
    assert close(found.mean_gap, math.hypot(*gaps))
    assert np.allclose(found.spectrum, sorted(sizes, reverse=True), rtol=1e-12)


@pytest.mark.parametrize("variance", [0.37, 1.0, "estimate"])
def test_one_component_of_samples_on_a_line_in_numbers(variance):
    """m2 = E x^2 - s^2 and m3 = E x^3 - 3 s^2 E x, s^2 given or the variance of the samples."""
    x = [2.1, 3.4, 2.9, 5.2, 4.4]
    level = mean(y * y for y in x) - mean(x) ** 2 if variance == "estimate" else variance
    found = spectral_from_data(np.array(x)[:, None], 1, starts=[[[1.0]]], variance=variance)
    m2 = mean(y * y for y in x) - level
    m3 = mean(y**3 for y in x) - 3 * level * mean(x)
    assert close(found.weights[0], m2**3 / m3**2)
    assert close(found.means[0, 0], m3 / m2)
    assert close(found.mean_gap, abs(m2 * m2 / m3 - mean(x)))
    assert close(found.variance, level)
    if level == 1.0:
        assert found.scales is None
    else:
        assert close(found.scales[0, 0], math.sqrt(level))


def test_a_mixture_has_weights_up_to_one_that_sum_to_one():
    estimate = SpectralEstimate(
        np.array([0.3, 1.7, 0.9]), np.arange(6.0).reshape(3, 2), np.ones(3), np.ones(2), 0.0, 6.25
    )
    found = estimate.mixture()
    assert np.allclose(found.weights, [0.3 / 2.2, 1 / 2.2, 0.9 / 2.2], rtol=1e-12)
    assert found.means.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found.scales.tolist() == [[2.5, 2.5]] * 3


@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_noise_level_for_more_components_than_dimensions(K):
    """Of d = 2 there are no more than two to find; with best effort a third one is asked for."""
    rng = np.random.default_rng(0)
    X = np.array([[9.0, 0], [1, 7]])[rng.integers(0, 2, 600)] + 0.5 * rng.standard_normal((600, 2))
    options = {"starts": rng.standard_normal((K, 2, 2)), "variance": "estimate"}
    if K < 3:
        found = spectral_from_data(X, K, **options)
    else:
        with pytest.warns(UserWarning, match="shows 2 directions for 3 components"):
            found = spectral_from_data(X, K, best_effort=True, **options)
    assert found.variance == common_variance(X, min(K, 2))


# ---- at the ends


@pytest.mark.parametrize("size", [1.0, 100.0, 0.01])
def test_a_second_moment_may_be_asymmetric_by_a_millionth(size):
    """Of its largest entry, of either sign; the next float is refused."""
    most = 1e-6 * size
    for sign in (1, -1):
        m2 = np.array([[size, sign * most], [0.0, size / 2]])
        assert spectral_from_moments([1.0, 0.0], m2, axes(2.0, 1.0), 1, starts=[[[1, 0]]]).means.shape == (
            1,
            2,
        )
        m2[0, 1] = sign * math.nextafter(most, 2 * most)
        with pytest.raises(ValueError, match=r"m2 must be symmetric, got \S+ off"):
            spectral_from_moments([1.0, 0.0], m2, axes(2.0, 1.0), 1, starts=[[[1, 0]]])


@pytest.mark.parametrize("d", [2, 4])
def test_a_start_that_is_orthogonal_but_for_rounding(d):
    """The top eigenvector is e_1, and the start e_2 with 8 d u or less of it; the next float is enough."""
    m2, m3 = np.diag([4.0] + [0.0] * (d - 1)), axes(8.0, *[0.0] * (d - 1))
    level = 8 * d * 2.0**-53
    fine, close_to = np.zeros((2, d))
    fine[:2] = math.nextafter(level, 1), 1.0
    close_to[:2] = level, 1.0
    for start in (fine, close_to):
        assert unit(start).tolist() == start.tolist()
    for R in (1, 3):
        starts = np.array([[fine] * R])
        assert close(spectral_from_moments(m2[0] / 2, m2, m3, 1, starts=starts).weights[0], 1.0)
        starts[0, R - 1] = -close_to
        message = f"start {R - 1} of component 0 is orthogonal to the top eigenvectors"
        with pytest.raises(ValueError, match=message):
            spectral_from_moments(m2[0] / 2, m2, m3, 1, starts=starts)


def test_starts_with_one_coordinate_inside():
    """A coordinate that is zero for all restarts, or a restart that lacks some, loses no start."""
    starts = [[[1, 0, 0], [3, 0, 7]], [[0, 1, 9], [0, 2, 0]]]
    m2, m3 = np.diag([4.0, 2.0, 0.0]), axes(9.0, 3.0, 0.0)
    found = spectral_from_moments([1.0, 1.0, 0.0], m2, m3, 2, starts=starts)
    assert np.allclose(found.means, [[9 / 4, 0, 0], [0, 3 / 2, 0]], atol=1e-12)
    starts[1][0] = [0, 0, 5]
    starts[1][1] = [0, 0, 1]
    with pytest.raises(ValueError, match="start 0 of component 1 is orthogonal to the top eigenvectors"):
        spectral_from_moments([1.0, 1.0, 0.0], m2, m3, 2, starts=starts)


def test_the_least_and_the_largest_variance():
    X = [[2.1], [3.4], [2.9], [5.2]]
    assert spectral_from_data(X, 1, starts=[[[1.0]]], variance=5e-324).variance == 5e-324
    for bad in (0, -0.0, math.inf, -5e-324):
        with pytest.raises(ValueError, match='variance must be a positive number or "estimate", got '):
            fit_spectral(X, 1, starts=[[[1.0]]], variance=bad)
