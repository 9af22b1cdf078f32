"""Whitening of matrices whose eigenvalues are written down, at the exact ends of what it accepts."""

import math

import numpy as np
import pytest

from gmm.whitening import CONDITION_LIMIT, NOISELESS, check_components, sampling_noise, whiten

EVEN = 2.0**-35
"""A little more than 2^(-106/3), at which whitening amplifies rounding to one."""


def diagonal(*sizes):
    return np.diag(np.array(sizes, dtype=float))


def refused(m2, K, chance, message):
    with pytest.raises(ValueError, match=message):
        whiten(m2, K, chance)


# ---- sampling_noise


@pytest.mark.parametrize(
    ("n", "d", "K", "variance", "p"),
    [(50, 7, 3, 2.5, 5), (31, 4, 1, 1.0, 4), (400, 6, 6, 0.3, 1), (90, 3, 5, 1.7, 1), (3, 12, 2, 0.6, 11)],
)
def test_sampling_noise_in_numbers(n, d, K, variance, p):
    """sigma^2 (m + q s) / n - sigma^2 in p = d - K + 1 dimensions, one where K exceeds d."""
    root_n, root_p = math.sqrt((2 * n - 1) / 2), math.sqrt((2 * p - 1) / 2)
    m = n + p - 1 + 2 * root_n * root_p
    s = (root_n + root_p) ** (4 / 3) / (root_n * root_p) ** (1 / 3)
    want = variance * m / n + variance * 2.0234 * s / n - variance
    assert math.isclose(sampling_noise(n, d, K, variance), want, rel_tol=1e-9)
    assert math.isclose(sampling_noise(n, d, K), want / variance, rel_tol=1e-9)


# ---- check_components


def test_numbers_of_components_at_their_ends():
    for K, d, best_effort in ((1, 1, False), (3, 3, False), (1, 3, True), (4, 3, True)):
        check_components(K, d, best_effort)
    with pytest.raises(ValueError, match="n_components must be at least 1, got 0"):
        check_components(0, 3, True)
    with pytest.raises(ValueError, match="4 components in dimension 3"):
        check_components(4, 3, False)


# ---- whiten


def test_whitening_in_numbers():
    """M2 = 7 u u^T + 4 v v^T + 0.5 w w^T with u = (2, 2, 1) / 3, v = (-2, 1, 2) / 3, w = (1, -2, 2) / 3."""
    u, v, w = ([2 / 3, 2 / 3, 1 / 3], [-2 / 3, 1 / 3, 2 / 3], [1 / 3, -2 / 3, 2 / 3])
    m2 = np.array([[7 * u[a] * u[b] + 4 * v[a] * v[b] + w[a] * w[b] / 2 for b in range(3)] for a in range(3)])
    found = whiten(m2, 2)
    assert np.allclose(found.spectrum, [7, 4, 0.5], rtol=1e-12)
    assert np.allclose(found.sizes, [7, 4], rtol=1e-12)
    for name, powers in (("basis", (1, 1)), ("W", (7**-0.5, 0.5)), ("B", (7**0.5, 2))):
        array = getattr(found, name)
        assert array.shape == (3, 2)
        for column, (vector, size) in enumerate(zip((u, v), powers, strict=True)):
            sign = 1 if found.basis[1, column] > 0 else -1
            for a in range(3):
                assert math.isclose(array[a, column], sign * size * vector[a], rel_tol=1e-12)


def test_the_largest_condition():
    """Rounding u is amplified by r^(3/2), to one for r = u^(-2/3)."""
    assert math.isclose(CONDITION_LIMIT, 2 ** (106 / 3), rel_tol=1e-12)
    for scale in (1.0, 1e4):
        inside = whiten(scale * diagonal(1, 1.001 * 2 ** (-106 / 3)), 2)
        assert inside.sizes.shape == (2,)
        below = scale * diagonal(1, 0.999 * 2 ** (-106 / 3))
        refused(
            below, 2, 0.0, r"shows 1 directions for 2 components; eigenvalue 2 is .* what rounding explains"
        )
    whiten(diagonal(1, EVEN, -0.5), 2)
    refused(diagonal(1, 0.9 * EVEN, -8), 2, 0.0, "what rounding explains")  # the largest size is that of -8


def test_an_eigenvalue_at_the_level_of_rounding_is_rounding():
    level = 1 / CONDITION_LIMIT
    refused(diagonal(1, level), 2, 0.0, "shows 1 directions for 2 components")
    assert whiten(diagonal(1, math.nextafter(level, 1)), 2).sizes.shape == (2,)
    with pytest.warns(UserWarning, match="shows 1 directions for 2 components"):
        best = whiten(diagonal(1, level), 2, best_effort=True)
    assert best.sizes.tolist() == [1.0]
    assert best.basis.shape == (2, 1)


def test_an_eigenvalue_at_the_level_of_chance_is_chance():
    for K, sizes in ((2, (4, 1.5, 0.7)), (1, (1.5, 0.7, 0.3)), (3, (9, 4, 1.5))):
        refused(diagonal(*sizes), K, 1.5, f"shows {K - 1} directions .* and 1.5 is what chance explains")
        assert whiten(diagonal(*sizes), K, math.nextafter(1.5, 0)).sizes.tolist() == list(sizes[:K])
        with pytest.warns(UserWarning, match="what chance explains; the estimate is a rough guess"):
            best = whiten(diagonal(*sizes), K, 1.5, best_effort=True)
        assert best.sizes.tolist() == list(sizes[:K])


def test_best_effort_takes_no_more_than_it_is_asked_for():
    with pytest.warns(UserWarning, match="shows 1 directions for 2 components; eigenvalue 2 is 1.5"):
        best = whiten(diagonal(4, 1.5, 0.7, 0.2), 2, 2.0, best_effort=True)
    assert best.sizes.tolist() == [4.0, 1.5]
    assert best.basis.shape == (4, 2)
    assert best.spectrum.tolist() == [4.0, 1.5, 0.7, 0.2]


def test_best_effort_for_more_components_than_dimensions():
    message = "shows 2 directions for 3 components, and 0.5 is what chance explains"
    with pytest.warns(UserWarning, match=message):
        assert whiten(diagonal(4, 1.5), 3, 0.5, best_effort=True).sizes.tolist() == [4.0, 1.5]


def test_nothing_above_rounding_is_refused_whatever_the_effort():
    with pytest.raises(ValueError, match=r"shows 0 directions for 1 components.*or fit_em$"):
        whiten(diagonal(-1, 0, 0), 1, best_effort=True)
    with pytest.raises(ValueError, match=r"or fit_em, or best_effort=True for a rough guess$"):
        whiten(diagonal(4, 1.5, 0.7), 2, 2.0)


@pytest.mark.parametrize(
    ("sizes", "K", "noiseless"),
    [
        ((1.0, NOISELESS), 1, True),
        ((1.0, math.nextafter(NOISELESS, 1)), 1, False),
        ((1.0, -NOISELESS), 1, True),
        ((1.0, -math.nextafter(NOISELESS, 1)), 1, False),
        ((1.5, 0.7, 0.0), 1, False),
        ((1.5, 0.0, -0.7), 1, False),
        ((1.5, 0.7, -1e-9), 1, False),
        ((900.0, 800.0, 6e-4, 0.0), 2, True),
        ((9.0, 8e-3, 6e-9, 0.0), 2, True),
        ((9.0, 8e-3, 1e-7, 0.0), 2, False),
        ((9e6, 1.5, 1.0, 0.0), 2, False),
        ((9.0, 1.5, 1e-7), 2, True),
        ((4.0, 1.5), 2, False),
    ],
)
def test_chance_does_not_explain_what_comes_without_noise(sizes, K, noiseless):
    """Without noise the eigenvalues after the K-th are within a millionth of the K-th."""
    m2 = diagonal(*sizes)
    if noiseless:
        assert whiten(m2, K, 1e3).sizes.tolist() == list(sizes[:K])
    else:
        refused(m2, K, 1e8, "and 1e[+]08 is what chance explains")
