"""Where the spectral algorithm ends: samples, ranks, numbers of components; and its rate before that."""

import warnings

import numpy as np
import pytest
from scipy.stats import beta

from gmm import (
    GaussianMixture,
    empirical_moments,
    fit_spectral,
    l2_error,
    match_components,
    spectral_from_data,
    spectral_from_moments,
)
from gmm.whitening import sampling_noise, whiten
from tests.compare import assert_exact, gap, slope
from tests.gmm.spectral_cases import conditioned_mixture, exact_samples, population_moments


def at_least(successes, trials, level=0.01):
    """Clopper-Pearson: a lower bound on the probability of success, wrong with probability `level`."""
    return 0.0 if successes == 0 else float(beta.ppf(level, successes, trials - successes + 1))


def top_by_size(m2, K):
    """The K leading singular vectors of a symmetric matrix, as the paper prints it."""
    U, sizes, _ = np.linalg.svd(m2)
    return U[:, :K], sizes[:K]


@pytest.mark.parametrize(("d", "K", "N", "radius"), [(8, 3, 24, 1.0), (16, 4, 64, 1.5)])
def test_singular_vectors_are_the_wrong_ones_in_most_small_samples(d, K, N, radius):
    """Erratum A7: among the K largest singular values there is a negative eigenvalue, which whitens to
    -1; the K largest eigenvalues are positive all but always.  Means of length `radius`."""
    rng = np.random.default_rng(0)
    wrong = positive = 0
    for _ in range(200):
        means = rng.standard_normal((K, d))
        means *= radius / np.linalg.norm(means, axis=1, keepdims=True)
        X, _ = GaussianMixture(np.full(K, 1 / K), means).sample(N, rng)
        m2 = empirical_moments(X).m2
        U, sizes = top_by_size(m2, K)
        W = U / np.sqrt(sizes)
        signs = np.diag(W.T @ m2 @ W)
        assert_exact(np.abs(signs), np.ones(K), ulps=1e3)
        wrong += signs.min() < 0
        if np.linalg.eigvalsh(m2)[-K] > 1e-3:
            positive += 1
            W = whiten(m2, K).W
            assert_exact(W.T @ m2 @ W, np.eye(K), ulps=1e3, scale=1e3)
    assert at_least(wrong, 200) > 0.5
    assert at_least(positive, 200) > 0.9


def test_svd_twin_disagrees_with_the_algorithm(monkeypatch):
    """On one such sample, from its moments, the result is another by far."""
    rng = np.random.default_rng(1)
    starts = rng.standard_normal((3, 2, 8))
    for _ in range(20):
        X, _ = GaussianMixture(np.full(3, 1 / 3), rng.standard_normal((3, 8)) / 8**0.5).sample(24, rng)
        moments = empirical_moments(X)
        U, sizes = top_by_size(moments.m2, 3)
        if np.diag(U.T @ moments.m2 @ U).min() < 0:
            break
    ours = spectral_from_moments(*moments, 3, starts=starts)
    monkeypatch.setattr(
        "gmm.spectral.whiten", lambda *_: whiten(moments.m2, 3)._replace(basis=U, sizes=sizes)
    )
    twin = spectral_from_moments(*moments, 3, starts=starts)
    assert gap(twin.means, ours.means) > 1e-2


def errors_by_size(sizes, tasks, seed, variance=1.0):
    """Root of the l2 error of tasks whose M2 has condition at most 10, for each sample size."""
    rng = np.random.default_rng(seed)
    table = np.empty((tasks, len(sizes)))
    for row in table:
        d = int(rng.integers(3, 9))
        truth = conditioned_mixture(d, int(rng.integers(2, min(d, 4) + 1)), rng)
        truth = GaussianMixture(truth.weights, 2 * truth.means)
        for i, n in enumerate(sizes):
            X, _ = truth.sample(n, rng)
            row[i] = l2_error(fit_spectral(X, truth.n_components, rng=rng, variance=variance), truth) ** 0.5
    return np.median(table, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("variance", [1.0, "estimate"])
def test_sample_error_falls_as_the_root_of_the_size(variance):
    sizes = [2000, 4000, 8000, 16_000, 30_000]
    assert abs(slope(sizes, errors_by_size(sizes, 100, 0, variance)) + 0.5) < 0.08


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("variance", [1.0, "estimate"])
def test_sample_error_falls_as_the_root_of_the_size_up_to_a_million(variance):
    sizes = [10_000, 30_000, 100_000, 300_000, 1_000_000]
    found = slope(sizes, errors_by_size(sizes, 20, 1, variance))
    print(f"variance {variance}: slope {found:.3f}")
    assert abs(found + 0.5) < 0.08


def dependent(d, K, rng):
    """K means that span K - 1 dimensions, one of them in between two others or beyond."""
    truth = conditioned_mixture(d, K, rng)
    means = 3 * truth.means.copy()
    means[-1] = rng.uniform(-1, 1, K - 1) @ means[:-1]
    return GaussianMixture(truth.weights, means)


@pytest.mark.parametrize(("d", "N"), [(1, 100), (2, 30), (6, 24), (8, 500)])
def test_chance_is_as_large_as_it_is_said_to_be(d, N):
    """Pure noise exceeds `sampling_noise` in no more than one of 100 samples, 0.8 times it in more."""
    rng = np.random.default_rng(d)
    noise = rng.standard_normal((4000, N, d))
    largest = np.linalg.eigvalsh(noise.transpose(0, 2, 1) @ noise / N)[:, -1] - 1
    chance = sampling_noise(N, d, 1)
    assert at_least((largest > chance).sum(), 4000) <= 0.01
    assert at_least((largest > 0.8 * chance).sum(), 4000) > 0.01
    assert_exact(sampling_noise(N, d, 1, 0.25), chance / 4, ulps=8, scale=chance)
    assert_exact(sampling_noise(N, d + 3, 4), chance, ulps=8, scale=chance)


@pytest.mark.parametrize(("d", "K", "N"), [(3, 2, 30), (8, 3, 200), (8, 8, 2000), (20, 4, 100)])
def test_dependent_means_are_refused(d, K, N):
    """The K-th eigenvalue exceeds `sampling_noise` in no more than one of 100 samples."""
    rng = np.random.default_rng([d, K])
    chance = sampling_noise(N, d, K)
    above = 0
    for _ in range(400):
        X, _ = dependent(d, K, rng).sample(N, rng)
        above += np.linalg.eigvalsh(X.T @ X / N - np.eye(d))[-K] > chance
    assert at_least(above, 400) <= 0.01
    with pytest.raises(ValueError, match=rf"shows {K - 1} directions for {K} components; eigenvalue {K} is"):
        fit_spectral(dependent(d, K, rng).sample(10 * N, rng)[0], K, rng=rng)


def test_dependent_population_moments_are_refused():
    rng = np.random.default_rng(0)
    for d, K in [(3, 3), (4, 2), (6, 5)]:
        moments = population_moments(dependent(d, K, rng))
        with pytest.raises(ValueError, match=rf"shows {K - 1} directions .* is what rounding explains"):
            spectral_from_moments(*moments, K, rng=rng)


def test_more_components_than_dimensions():
    """Refused; with best_effort a warning, and a result that more data do not make right (claim 13)."""
    rng = np.random.default_rng(0)
    message = "3 components in dimension 2: the spectral method tells at most as many apart"
    guesses, fits = [], []
    for _ in range(20):
        truth = GaussianMixture(np.full(3, 1 / 3), 3 * rng.standard_normal((3, 2)))
        X, _ = truth.sample(10_000, rng)
        with pytest.raises(ValueError, match=message):
            fit_spectral(X, 3, rng=rng)
        with pytest.warns(UserWarning, match=r"shows \d directions for 3 components.*rough guess"):
            guess = fit_spectral(X, 3, rng=rng, best_effort=True)
        assert guess.means.shape == (3, 2)
        guesses.append(l2_error(guess, truth))
        flat = GaussianMixture(np.full(2, 1 / 2), 3 * np.eye(2))
        fits.append(l2_error(fit_spectral(flat.sample(10_000, rng)[0], 2, rng=rng), flat))
    assert np.median(guesses) > 0.1
    assert np.median(fits) < 0.01


def test_best_effort_is_silent_where_nothing_is_wrong():
    rng = np.random.default_rng(0)
    X, _ = GaussianMixture([0.5, 0.5], 4 * np.eye(3)[:2]).sample(1000, rng)
    starts = rng.standard_normal((2, 3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = fit_spectral(X, 2, starts=starts, best_effort=True)
    assert gap(best.means, fit_spectral(X, 2, starts=starts).means) == 0


def test_best_effort_takes_small_positive_eigenvalues():
    """A sample too small to trust, fitted as the algorithm says."""
    rng = np.random.default_rng(3)
    X, _ = GaussianMixture([0.5, 0.5], np.eye(4)[:2]).sample(40, rng)
    starts = rng.standard_normal((2, 3, 4))
    with pytest.raises(ValueError, match=r"what chance explains.* or best_effort=True for a rough guess"):
        fit_spectral(X, 2, starts=starts)
    with pytest.warns(UserWarning, match="the estimate is a rough guess"):
        guess = spectral_from_data(X, 2, starts=starts, best_effort=True)
    plain = spectral_from_moments(*empirical_moments(X), 2, starts=starts)
    assert_exact(guess.means, plain.means, ulps=1e6, scale=np.abs(plain.means).max())


def test_no_effort_helps_without_a_positive_eigenvalue():
    with pytest.raises(ValueError, match=r"shows 0 directions for 1 components.*fewer components or fit_em$"):
        fit_spectral(np.zeros((50, 3)), 1, rng=np.random.default_rng(0), best_effort=True)
    with (
        pytest.warns(UserWarning, match="shows 1 directions for 2 components"),
        pytest.raises(ValueError, match="T has only 1 of 2 components"),
    ):
        fit_spectral([[3.0], [4.0], [9.0]], 2, rng=np.random.default_rng(0), best_effort=True)


X, _ = GaussianMixture([0.5, 0.5], 5 * np.eye(3)[:2]).sample(500, np.random.default_rng(0))
GOOD = {"rng": np.random.default_rng(0)}
BOTH = [
    ({"n_components": 0}, "n_components must be at least 1, got 0"),
    ({"n_components": 4}, "4 components in dimension 3: .* use fit_em, or best_effort=True"),
    ({"rng": None}, "give rng to draw starts from, or the starts themselves"),
    ({"n_restarts": 0}, "n_restarts and n_iter must be at least 1"),
    ({"starts": np.ones((2, 4, 2))}, r"starts must have shape \(2, R, 3\), got \(2, 4, 2\)"),
    ({"starts": np.zeros((2, 1, 3))}, "start 0 of component 0 is zero"),
]


@pytest.mark.parametrize(("arguments", "message"), BOTH)
def test_bad_arguments_are_refused(arguments, message):
    arguments = {"n_components": 2} | GOOD | arguments
    with pytest.raises(ValueError, match=message):
        fit_spectral(X, **arguments)
    with pytest.raises(ValueError, match=message):
        spectral_from_moments(*empirical_moments(X), **arguments)


@pytest.mark.parametrize("variance", [0.0, -1.0, np.inf, np.nan, "unknown", None])
def test_bad_variances_are_refused(variance):
    with pytest.raises(ValueError, match='variance must be a positive number or "estimate", got '):
        fit_spectral(X, 2, variance=variance, **GOOD)


def test_a_start_orthogonal_to_the_means_is_refused():
    truth = GaussianMixture([0.5, 0.5], [[2.0, 0, 0], [0, 3, 0]])
    starts = [[[1, 1, 0], [1, 0, 0]], [[0, 1, 5], [0, 0, 1]]]
    with pytest.raises(ValueError, match="start 1 of component 1 is orthogonal to the top eigenvectors"):
        spectral_from_moments(*population_moments(truth), 2, starts=starts)


M1, M2, M3 = empirical_moments(X)
SKEW = M2 + np.triu(np.ones((3, 3)), 1)
SKEW3 = M3 + np.arange(27.0).reshape(3, 3, 3)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ((M1[:2], M2, M3), r"m1 must have shape \(3,\) beside m3 \(3, 3, 3\), got \(2,\)"),
        ((M1, M2[:2, :2], M3), r"m2 must have shape \(3, 3\) beside m3 \(3, 3, 3\), got \(2, 2\)"),
        ((M1, M2, M3[0]), r"T must be a third-order tensor of shape \(d, d, d\), got shape \(3, 3\)"),
        ((np.nan * M1, M2, M3), "m1 must be finite, got nan"),
        ((M1, M2 - np.inf, M3), "m2 must be finite, got -inf"),
        ((M1, M2, np.nan * M3), "T must be finite, got nan"),
        ((M1, SKEW, M3), "m2 must be symmetric, got 1 off"),
        ((M1, M2, SKEW3), "T must be symmetric"),
    ],
)
def test_bad_moments_are_refused(moments, message):
    with pytest.raises(ValueError, match=message):
        spectral_from_moments(*moments, 2, **GOOD)


def test_few_points_with_exact_moments_are_no_accident():
    """Eigenvalues after the K-th are zero then: small samples of noise never look so."""
    rng = np.random.default_rng(0)
    for d, K in ((8, 1), (8, 3), (5, 2)):
        X, truth = exact_samples([1] * K, 1.5 * np.eye(d)[:K])
        assert np.linalg.eigvalsh(X.T @ X / len(X))[-K] - 1 < sampling_noise(len(X), d, K)
        found = fit_spectral(X, K, rng=rng)
        assert_exact(found.means[match_components(found, truth)], truth.means, ulps=1e4)
        with pytest.raises(ValueError, match="chance explains"):
            fit_spectral(X + 1e-3 * rng.standard_normal(X.shape), K, rng=rng)
