import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gmm.moments
import gmm.spectral
import gmm.tensor
import gmm.whitening
from gmm import (
    GaussianMixture,
    empirical_moments,
    fit_spectral,
    match_components,
    spectral_from_data,
    spectral_from_moments,
)
from tests.compare import assert_bound, assert_exact, gap
from tests.gmm.spectral_cases import conditioned_mixture, exact_samples, naive_spectral, population_moments


def assert_recovers(estimate, truth, bound):
    """Means relative to the longest, and weights, within `bound`, up to the order of components."""
    order = match_components(estimate, truth)
    size = np.linalg.norm(truth.means, axis=1).max()
    assert_bound(gap(estimate.means[order], truth.means) / size, bound)
    assert_bound(gap(estimate.weights[order], truth.weights), bound)


def condition(truth):
    sizes = np.linalg.eigvalsh(population_moments(truth).m2)[-truth.n_components :]
    return sizes[-1] / sizes[0]


@pytest.mark.parametrize("d", range(3, 9))
@pytest.mark.parametrize("seed", range(3))
def test_population_moments_give_the_mixture(d, seed):
    """Any K <= d, K = d too, to 1e-12 times the condition number of M2."""
    rng = np.random.default_rng([d, seed])
    for K in range(1, d + 1):
        truth = conditioned_mixture(d, K, rng)
        assert condition(truth) < 10.001
        estimate = spectral_from_moments(*population_moments(truth), K, rng=rng)
        assert_recovers(estimate, truth, 1e-12 * condition(truth))
        assert_recovers(estimate.mixture(), truth, 1e-12 * condition(truth))
        assert_exact(estimate.spectrum[K:], np.zeros(d - K), ulps=64, scale=10) if d > K else None
        assert_bound(estimate.mean_gap, 1e-12 * condition(truth) * np.abs(truth.means).max())
        assert_exact(np.sort(estimate.eigenvalues**-2), np.sort(truth.weights), ulps=1e4)


COUNTS, MEANS = [1, 2, 2, 3], np.array([[4.0, -1, 0.5, 0], [0, 3, 1, 1], [-2, 0, 4, 1], [1, 0, 0, -4]])


@pytest.mark.parametrize("K", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [1.0, 0.2])
@pytest.mark.parametrize("variance", ["given", "estimate"])
def test_exact_samples_give_the_mixture(K, sigma, variance):
    """From data whose moments are exact; with sigma unknown too, K = d included."""
    X, truth = exact_samples(COUNTS[:K], MEANS[:K], sigma, repeats=20)
    level = sigma**2 if variance == "given" else "estimate"
    fit = fit_spectral(X, K, rng=np.random.default_rng(0), variance=level)
    assert_recovers(fit, truth, 1e-12 * condition(truth))
    if level == 1.0:
        assert fit.scales is None
    elif fit.scales is None:  # the estimate is one to the last digit
        assert sigma == 1.0
    else:
        assert_exact(fit.scales, np.full((K, 4), sigma), ulps=1e4)
    if sigma != 1.0 and K > 1:  # taking the variance for one shows
        wrong = spectral_from_data(X, K, rng=np.random.default_rng(0))
        assert gap(wrong.means[match_components(wrong.mixture(), truth)], truth.means) > 1e-4


def case(seed):
    """A sample, and starts (K, R, d) that none of its components is sure to win."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 5))
    K = int(rng.integers(1, d + 1))
    truth = conditioned_mixture(d, K, rng)
    X, _ = GaussianMixture(truth.weights, 2 * truth.means).sample(int(rng.integers(200, 400)), rng)
    return X, rng.standard_normal((K, (1, 4, 8)[seed % 3], d))


TOLERANCE = 1e-10


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("n_iter", "n_polish"), [(2, 1), (12, 6), (1, 5)])
def test_agreement_with_loops_from_the_same_starts(seed, n_iter, n_polish):
    """Before convergence and after it, in the same order, raw weights and means."""
    X, starts = case(seed)
    got = spectral_from_data(X, len(starts), starts=starts, n_iter=n_iter, n_polish=n_polish)
    weights, means = naive_spectral(X, starts, n_iter, n_polish)
    assert_bound(gap(got.weights, weights), TOLERANCE * weights.max())
    assert_bound(gap(got.means, means), TOLERANCE * np.abs(means).max())
    fit = fit_spectral(X, len(starts), starts=starts, n_iter=n_iter, n_polish=n_polish)
    assert gap(fit.means, got.means) == 0
    assert_exact(fit.weights, np.minimum(weights, 1) / np.minimum(weights, 1).sum(), ulps=TOLERANCE * 2**53)
    moments = spectral_from_moments(
        *empirical_moments(X), len(starts), starts=starts, n_iter=n_iter, n_polish=n_polish
    )
    assert_bound(gap(moments.means, means), TOLERANCE * np.abs(means).max())


def divided_by(shift):
    """`third_moment` with 1 / (N + shift) for 1 / N."""
    original = gmm.moments.third_moment

    def twin(data, noise):
        raw = original(data, 0 * noise) * len(data) / (len(data) + shift)
        return raw - gmm.moments.noise_part(data.mean(axis=0), noise)

    return twin


def missing_term(data, noise):
    return gmm.moments.third_moment(data, noise) + data.mean(axis=0) * noise[:, :, None]


TWINS = {
    "no deflation": (gmm.tensor, "deflate", lambda packed, value, v: packed),
    "half a deflation": (
        gmm.tensor, "deflate", lambda packed, value, v, whole=gmm.tensor.deflate: whole(packed, value / 2, v)
    ),
    "one term of the correction missing": (gmm.spectral, "third_moment", missing_term),
    "noise of the third moment not whitened": (
        gmm.spectral, "third_moment", lambda data, noise: gmm.moments.third_moment(data, np.eye(len(noise)))
    ),
    "third moment over N - 1": (gmm.spectral, "third_moment", divided_by(-1)),
    "second moment over N - 1": (
        gmm.spectral, "second_moment", lambda data, noise: data.T @ data / (len(data) - 1) - noise
    ),
}  # fmt: skip


@pytest.mark.parametrize("twin", TWINS)
def test_broken_twins_disagree(twin, monkeypatch):
    """Each mistake moves the result by at least 100 times the tolerance of the agreement."""
    monkeypatch.setattr(*TWINS[twin])
    X, starts = case(6)
    assert len(starts) > 1
    got = spectral_from_data(X, len(starts), starts=starts, n_iter=12, n_polish=6)
    weights, means = naive_spectral(X, starts, 12, 6)
    assert gap(got.weights, weights) > 100 * TOLERANCE * weights.max()
    assert gap(got.means, means) > 100 * TOLERANCE * np.abs(means).max()


@given(st.integers(0, 10**6))
def test_laws(seed):
    """Rotating data and starts rotates the means; order and repetition of samples do not matter;
    scaling data and noise, known or estimated, scales the means; starts matter by their directions alone."""
    X, starts = case(seed)
    rng, (K, R, d) = np.random.default_rng(seed), starts.shape
    Q, _ = np.linalg.qr(rng.standard_normal((d, d)))

    def fit(X, starts, **options):
        return spectral_from_data(X, K, starts=starts, n_iter=3, n_polish=2, **options)

    plain, rotated = fit(X, starts), fit(X @ Q, starts @ Q)
    shuffled, repeated = fit(rng.permutation(X), starts), fit(np.tile(X, (3, 1)), starts)
    longer = fit(X, starts * rng.uniform(0.1, 9, (K, R, 1)))
    estimated, scaled = fit(X, starts, variance="estimate"), fit(7 * X, starts, variance="estimate")
    smaller = fit(X / 64, starts, variance=2.0**-12)
    size = np.abs(plain.means).max()
    for other in (shuffled, repeated, longer):
        assert_exact(other.means, plain.means, ulps=1e6, scale=size)
        assert_exact(other.weights, plain.weights, ulps=1e6, scale=plain.weights.max())
    assert_exact(rotated.means, plain.means @ Q, ulps=1e6, scale=size)
    assert_exact(64 * smaller.means, plain.means, ulps=1e4, scale=size)
    assert_exact(smaller.weights, plain.weights, ulps=1e4, scale=plain.weights.max())
    assert_exact(scaled.means, 7 * estimated.means, ulps=1e6, scale=7 * size)
    assert_exact(scaled.variance, 49 * estimated.variance, ulps=1e4, scale=49)


def test_whitening_comes_before_the_third_moment():
    """d = 128: nothing of d^3 entries, while the moments themselves are."""
    rng = np.random.default_rng(0)
    X, _ = GaussianMixture([0.4, 0.6], 3 * rng.standard_normal((2, 128))).sample(10_000, rng)
    tracemalloc.start()
    fit_spectral(X, 2, rng=rng)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 128**3 / 3


def test_the_first_moment_shows_a_wrong_number_of_components():
    """mean_gap is zero for the true K alone."""
    truth = conditioned_mixture(5, 4, np.random.default_rng(1))
    gaps = {}
    for K in (2, 3, 4):
        gaps[K] = spectral_from_moments(*population_moments(truth), K, rng=np.random.default_rng(0)).mean_gap
    assert gaps[4] < 1e-12
    assert min(gaps[2], gaps[3]) > 1e-2


def test_weights_of_a_mixture_are_cut_and_divided():
    estimate = gmm.SpectralEstimate(
        np.array([4.0, 0.5]), np.ones((2, 3)), np.array([0.5, 2**0.5]), np.ones(3), 0.0, 0.25
    )
    mixture = estimate.mixture()
    assert_exact(mixture.weights, [2 / 3, 1 / 3], ulps=2)
    assert mixture.scales.tolist() == [[0.5] * 3] * 2
    assert estimate._replace(variance=1.0).mixture().scales is None
