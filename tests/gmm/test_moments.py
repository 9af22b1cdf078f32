import tracemalloc

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import gmm.moments
from gmm import GaussianMixture, common_variance, data_power_step, empirical_moments, power_step
from gmm.moments import noise_part
from tests.compare import U, assert_exact, gap
from tests.gmm.spectral_cases import exact_samples, naive_moments, population_moments


def symbolic_mixture(d, K):
    """Symbols pi_k with sum one, means (K, d), and a symmetric covariance (d, d)."""
    free = sympy.symbols(f"pi1:{K}", positive=True) if K > 1 else ()
    weights = [*free, 1 - sum(free)]
    means = np.array(sympy.symbols(f"mu1:{K + 1}_1:{d + 1}", real=True), dtype=object).reshape(K, d)
    S = np.array([[sympy.Symbol(f"s{min(a, b)}{max(a, b)}") for a in range(d)] for b in range(d)])
    return weights, means, S


def gaussian_expectation(mean, S, *indices):
    """E of a product of coordinates of mean + noise: expand, then E noise_a noise_b = S_ab and the
    odd moments of the noise are 0 (Isserlis)."""
    total = 0
    for choice in np.ndindex(*[2] * len(indices)):
        noisy = [i for i, c in zip(indices, choice, strict=True) if c]
        if len(noisy) % 2 == 0:
            pair = S[tuple(noisy)] if noisy else 1
            total += pair * sympy.prod(mean[i] for i, c in zip(indices, choice, strict=True) if not c)
    return total


def difference(weights, means, S, part):
    """E X (x) X (x) X - part - sum pi mu (x) mu (x) mu, entry by entry."""
    d = len(S)
    for abc in np.ndindex(d, d, d):
        raw = sum(w * gaussian_expectation(mu, S, *abc) for w, mu in zip(weights, means, strict=True))
        want = sum(w * sympy.prod(mu[i] for i in abc) for w, mu in zip(weights, means, strict=True))
        yield sympy.expand(raw - part[abc] - want)


@pytest.mark.parametrize(("d", "K"), [(1, 2), (2, 1), (2, 2), (2, 3), (3, 2)])
def test_expected_moments_as_polynomial_identities(d, K):
    """Algorithm A.2, line 1, for any covariance shared by the components: the shipped correction, run
    over symbols, leaves sum pi mu (x) mu and sum pi mu (x) mu (x) mu."""
    weights, means, S = symbolic_mixture(d, K)
    m1 = sum(w * mu for w, mu in zip(weights, means, strict=True))
    for a, b in np.ndindex(d, d):
        raw = sum(w * gaussian_expectation(mu, S, a, b) for w, mu in zip(weights, means, strict=True))
        want = sum(w * mu[a] * mu[b] for w, mu in zip(weights, means, strict=True))
        assert sympy.expand(raw - S[a, b] - want) == 0
    assert set(difference(weights, means, S, noise_part(m1, S))) == {0}
    for term in (m1[:, None, None] * S, m1[None, :, None] * S[:, None, :], m1 * S[:, :, None]):
        assert set(difference(weights, means, S, noise_part(m1, S) - term)) != {0}


@pytest.mark.parametrize("seed", range(6))
def test_moments_agree_with_the_printed_sums(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 40)), 1 + seed % 4
    X = rng.standard_normal((n, d)) + 2
    for sigma in (1.0, 0.3):
        got = empirical_moments(X, sigma**2)
        for name, wanted in zip(got._fields, naive_moments(X, sigma), strict=True):
            assert_exact(getattr(got, name), wanted, ulps=8 * n, scale=np.abs(X).max() ** 3)


def test_blocks_cover_all_samples():
    """More samples than a block holds, in all functions that work block by block."""
    rng = np.random.default_rng(0)
    X, v = rng.standard_normal((70_001, 2)) + 1, rng.standard_normal((9, 2))
    third = np.einsum("na,nb,nc->abc", X, X, X) / len(X) - noise_part(X.mean(axis=0), np.eye(2))
    assert_exact(empirical_moments(X).m3, third, ulps=1e4, scale=100)
    assert_exact(data_power_step(X, v), power_step(third, v), ulps=1e4, scale=1e3)


def test_samples_with_exact_moments_give_the_closed_form():
    means = np.array([[3.0, -1, 0.5], [0, 2, 1], [-2, 0, 2]])
    for sigma in (1.0, 0.25):
        X, mixture = exact_samples([1, 2, 2], means, sigma)
        for got, want in zip(empirical_moments(X, sigma**2), population_moments(mixture), strict=True):
            assert_exact(got, want, ulps=8 * len(X), scale=np.abs(X).max() ** 3)


TWINS = {
    "one term missing": lambda m1, S: noise_part(m1, S) - m1 * S[:, :, None],
    "half the noise": lambda m1, S: noise_part(m1, S) / 2,
    "no correction": lambda m1, S: 0 * noise_part(m1, S),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_wrong_correction_is_seen(twin, monkeypatch):
    X, mixture = exact_samples([1, 2], [[3.0, -1], [0, 2]])
    monkeypatch.setattr(gmm.moments, "noise_part", TWINS[twin])
    found = gap(empirical_moments(X).m3, population_moments(mixture).m3)
    assert found > 100 * 8 * len(X) * U * np.abs(X).max() ** 3


@given(st.integers(0, 10**6))
def test_steps_from_data_are_steps_on_the_tensor(seed):
    """M3(I, v, v), and W^T M3(I, W u, W u) = M3(W, W, W)(I, u, u), for any noise."""
    rng = np.random.default_rng(seed)
    n, d, K = int(rng.integers(1, 60)), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    X, v = rng.standard_normal((n, d)) + rng.standard_normal(d), rng.standard_normal((2, 3, d))
    A = rng.standard_normal((d, d))
    noise, W, u = A + A.T, rng.standard_normal((d, K)), rng.standard_normal((4, K))
    m3 = empirical_moments(X, noise).m3
    scale = (np.abs(X).sum(axis=1).max() + 1) ** 3 * (1 + np.abs(A).sum()) * 10
    assert_exact(data_power_step(X, v, noise), power_step(m3, v), ulps=4 * n * d, scale=scale)
    whitened = power_step(np.einsum("abc,ap,bq,cr->pqr", m3, W, W, W), u)
    scale *= (1 + np.abs(W).sum()) ** 3
    projected = data_power_step(X @ W, u, W.T @ noise @ W)
    assert_exact(data_power_step(X, u @ W.T, noise) @ W, whitened, ulps=4 * n * d, scale=scale)
    assert_exact(projected, whitened, ulps=4 * n * d, scale=scale)


def test_a_step_from_data_forms_no_tensor():
    X = np.random.default_rng(0).standard_normal((1000, 200))
    tracemalloc.start()
    data_power_step(X, np.ones((3, 200)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 200**3 / 20  # one matrix is 1/200 of it


@pytest.mark.parametrize("sigma", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_variance_is_exact_on_exact_samples(sigma, K):
    """Hsu and Kakade: the covariance less sigma^2 I has rank K - 1, so K = d shows sigma too."""
    means = sigma * np.array([[3.0, -1, 0.5], [0, 2, 1], [-2, 0, 2]])[:K]
    X, _ = exact_samples([1, 2, 2][:K], means, sigma)
    assert_exact(common_variance(X, K), sigma**2, ulps=64, scale=np.abs(X).max() ** 2)
    if K > 1:  # K - 1 components leave the means in one direction too many
        assert gap(common_variance(X, K - 1), sigma**2) > 100 * 64 * U * np.abs(X).max() ** 2


def test_variance_of_a_sample_is_better_by_all_its_directions():
    """The mean of the d - K + 1 smallest eigenvalues against the smallest, over 40 samples."""
    rng = np.random.default_rng(0)
    mixture = GaussianMixture([0.5, 0.5], 3 * rng.standard_normal((2, 10)))
    errors = []
    for _ in range(40):
        X, _ = mixture.sample(1000, rng)
        smallest = np.linalg.eigvalsh(np.cov(X.T, bias=True))[0]
        errors.append((abs(common_variance(X, 2) - 1), abs(smallest - 1)))
    # standard error of a mean of 9 n squares, four of them
    assert np.array(errors)[:, 0].max() < 4 * np.sqrt(2 / (9 * 1000)) + 10 / 1000
    assert np.median([one / other for one, other in errors]) < 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, np.nan]],), "X must be finite, got nan in row 0, column 1"),
        (([[1.0, 2.0]], np.eye(3)), r"noise must be a number or have shape \(2, 2\), got \(3, 3\)"),
        (([[1.0, 2.0]], np.nan), "noise must be finite, got nan"),
        (([[1.0, 2.0]], [[1, 2], [0, 1]]), "noise must be symmetric, got 2 off"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        empirical_moments(*arguments)
    with pytest.raises(ValueError, match=message):
        data_power_step(arguments[0], [1.0, 1.0], *arguments[1:])


def test_bad_directions_are_refused():
    with pytest.raises(ValueError, match=r"v must have shape \(\.\.\., 2\), got \(3,\)"):
        data_power_step([[1.0, 2.0]], np.ones(3))


@pytest.mark.parametrize(
    ("X", "K", "message"),
    [
        (np.ones((5, 2)), 3, "n_components is between 1 and the dimension 2, got 3"),
        (np.ones((5, 2)), 0, "n_components is between 1 and the dimension 2, got 0"),
        (np.arange(10.0).reshape(5, 2), 2, "the 5 samples do not spread in all 2 dimensions"),
    ],
)
def test_data_without_a_noise_level_are_refused(X, K, message):
    with pytest.raises(ValueError, match=message):
        common_variance(X, K)
