import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture

from gmm import (
    GaussianMixture,
    TaskDistribution,
    converge,
    em_jacobian,
    em_step,
    estimate_scale,
    fit_em,
    l2_error,
    run_em,
    start_mixture,
)
from tests.compare import assert_exact, gap, slope
from tests.problems import em_cases


def naive_em_step(X, weights, means):
    """Algorithm A.1 with loops."""
    n, d, K = len(X), len(X[0]), len(weights)
    w = [[0.0] * K for _ in range(n)]
    for i in range(n):
        logs = [
            np.log(weights[k]) - 0.5 * sum((X[i][j] - means[k][j]) ** 2 for j in range(d)) for k in range(K)
        ]
        top = max(logs)
        total = sum(np.exp(value - top) for value in logs)
        for k in range(K):
            w[i][k] = np.exp(logs[k] - top) / total
    new_weights = [sum(w[i][k] for i in range(n)) / n for k in range(K)]
    new_means = [
        [sum(w[i][k] * X[i][j] for i in range(n)) / sum(w[i][k] for i in range(n)) for j in range(d)]
        for k in range(K)
    ]
    return np.array(new_weights), np.array(new_means)


@pytest.mark.parametrize("case", em_cases(12, seed=0, max_samples=120))
def test_step_agrees_with_the_naive_loop(case):
    after = em_step(case.X, case.init)
    weights, means = naive_em_step(case.X.tolist(), case.init.weights, case.init.means)
    scale = np.abs(case.X).max() ** 2 * len(case.X)
    assert_exact(after.weights, weights, ulps=16, scale=scale)
    assert_exact(after.means, means, ulps=16, scale=scale)


def sklearn_step(X, model):
    """One EM step of scikit-learn with diagonal covariances and no regularisation."""
    peer = SklearnMixture(
        model.n_components,
        covariance_type="diag",
        max_iter=1,
        reg_covar=0,
        weights_init=model.weights,
        means_init=model.means,
        precisions_init=model.scales**-2.0,
        init_params="random_from_data",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return peer.fit(X)


@pytest.mark.parametrize("seed", range(8))
def test_diagonal_step_agrees_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    truth = TaskDistribution(1 + seed % 5, max_cosine=1.0, anisotropic=True).sample_mixture(2 + seed % 4, rng)
    X, _ = truth.sample(400, rng)
    model = GaussianMixture(truth.weights, truth.means + 0.1, truth.scales * 1.1)
    peer, ours = sklearn_step(X, model), em_step(X, model)
    # scikit-learn computes variances as E x^2 - (E x)^2, which costs (range / scale)^2
    scale = len(X) * (np.abs(X).max() / ours.scales.min()) ** 2
    assert_exact(ours.weights, peer.weights_, ulps=32, scale=scale)
    assert_exact(ours.means, peer.means_, ulps=32, scale=scale)
    assert_exact(ours.scales**2, peer.covariances_, ulps=32, scale=scale)


@given(st.integers(0, 10**6))
def test_likelihood_never_falls(seed):
    (case,) = em_cases(1, seed, max_samples=300)
    values = [model.log_likelihood(case.X) for model in run_em(case.X, case.init, 8)]
    assert min(np.diff(values)) >= -1e-12 * max(1, np.abs(values).max())


@given(st.integers(0, 10**6), st.floats(-50, 50))
def test_translation_moves_the_means(seed, shift):
    (case,) = em_cases(1, seed, max_samples=100)
    moved = GaussianMixture(case.init.weights, case.init.means + shift)
    before, after = em_step(case.X, case.init), em_step(case.X + shift, moved)
    scale = (np.abs(case.X).max() + abs(shift)) ** 2 * len(case.X)
    assert_exact(after.means - shift, before.means, ulps=16, scale=scale)
    assert_exact(after.weights, before.weights, ulps=16, scale=scale)


def test_run_starts_with_init():
    (case,) = em_cases(1, 3, max_samples=50)
    path = run_em(case.X, case.init, 4)
    assert len(path) == 5
    assert path[0] is case.init
    assert gap(path[2].means, em_step(case.X, em_step(case.X, case.init)).means) == 0


def test_a_dead_component_keeps_its_mean():
    after = em_step([[0.0], [1.0]], GaussianMixture([0.5, 0.5], [[0.5], [500.0]]))
    assert after.weights.tolist() == [1.0, 0.0]
    assert after.means.tolist() == [[0.5], [500.0]]


def test_a_collapsed_scale_is_an_error():
    model = GaussianMixture([1.0], [[0.0]], [[1.0]])
    with pytest.raises(ValueError, match="component 0 collapsed: its variance in coordinate 0 is 0"):
        em_step([[2.0], [2.0]], model)


@pytest.mark.parametrize("case", em_cases(6, seed=5, max_samples=200))
def test_jacobian_is_the_derivative(case):
    """Central differences: the error falls as the square of the step."""
    K, d = case.init.means.shape
    point = np.concatenate([case.init.weights, case.init.means.ravel()])

    def em_map(x):
        joint = np.exp(-0.5 * ((case.X[:, None] - x[K:].reshape(K, d)) ** 2).sum(axis=2)) * x[:K]
        w = joint / joint.sum(axis=1, keepdims=True)
        return np.concatenate([w.mean(axis=0), (w.T @ case.X / w.sum(axis=0)[:, None]).ravel()])

    exact = em_jacobian(case.X, case.init)
    steps = [1e-2, 3e-3, 1e-3]
    errors = []
    for step in steps:
        columns = [
            (em_map(point + step * e) - em_map(point - step * e)) / (2 * step) for e in np.eye(len(point))
        ]
        errors.append(gap(np.array(columns).T, exact))
    assert abs(slope(steps, errors) - 2) < 0.1 or max(errors) < 1e-9


def test_jacobian_of_a_dead_component():
    jacobian = em_jacobian([[0.0], [1.0]], GaussianMixture([0.5, 0.5], [[0.5], [500.0]]))
    assert np.isfinite(jacobian).all()
    assert jacobian[3].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_fit_finds_separated_clusters_from_kmeans_starts():
    rng = np.random.default_rng(0)
    for task in TaskDistribution(8, max_samples=128).sample(20, rng):
        fit = fit_em(task.X, task.mixture.n_components, rng=rng)
        oracle = converge(task.X, task.mixture)
        assert l2_error(fit, oracle) < 1e-4


def test_one_normal_start_misses_clusters_that_ten_seeded_ones_find():
    """The start of the paper's EM baseline, N(0, I) for means from [-5, 5]^d, is what fails."""
    rng = np.random.default_rng(1)
    tasks = TaskDistribution(8, n_components=(5,), max_samples=128).sample(20, rng)
    normal = [l2_error(fit_em(t.X, 5, n_init=1, start="normal", rng=rng), t.mixture) for t in tasks]
    seeded = [l2_error(fit_em(t.X, 5, n_init=10, rng=rng), t.mixture) for t in tasks]
    assert np.mean(normal) > 10 * np.mean(seeded)


def test_fit_keeps_the_most_likely_start():
    rng = np.random.default_rng(4)
    task = TaskDistribution(2, n_components=(5,)).sample(1, rng)[0]
    one = [fit_em(task.X, 5, n_init=1, rng=np.random.default_rng(s)).log_likelihood(task.X) for s in range(8)]
    ten = fit_em(task.X, 5, n_init=10, rng=np.random.default_rng(0)).log_likelihood(task.X)
    assert max(one) > min(one)
    assert ten > np.median(one)


def test_seeding_uses_distinct_samples_while_there_are_any():
    X = np.repeat([[0.0], [5.0], [9.0]], 4, axis=0)
    for seed in range(20):
        means = start_mixture(X, 3, np.random.default_rng(seed)).means
        assert sorted(means[:, 0]) == [0.0, 5.0, 9.0]
    assert start_mixture(X, 5, np.random.default_rng(0)).means.shape == (5, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": 0}, "n_components must be between 1 and the number of samples 2, got 0"),
        ({"n_components": 3}, "n_components must be between 1 and the number of samples 2, got 3"),
        ({"n_components": 1, "start": "random"}, 'start must be "kmeans\\+\\+" or "normal", got \'random\''),
        ({"n_components": 1, "n_init": 0}, "n_init and max_iter must be at least 1, got 0 and 500"),
    ],
)
def test_bad_fits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_em([[0.0], [1.0]], rng=np.random.default_rng(0), **arguments)


@pytest.mark.parametrize("sigma", [0.02, 1.0, 300.0])
def test_scale_of_the_noise_is_found(sigma):
    """Standard error of sigma is sigma / sqrt(2 n d); four of them, for three values."""
    rng = np.random.default_rng(7)
    truth = GaussianMixture([0.3, 0.3, 0.4], [[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
    X, _ = truth.sample(4000, rng)
    found = estimate_scale(sigma * X, 3, rng=rng)
    assert abs(found / sigma - 1) < 4 / np.sqrt(2 * 4000 * 2)


def test_scale_of_data_without_noise_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="all samples are equal"):
        estimate_scale([[1.0], [1.0]], 1, rng=rng)
    with pytest.raises(ValueError, match="2 components fit the 2 samples exactly"):
        estimate_scale([[1.0], [2.0]], 2, rng=rng)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((3, 2), 1e300), "X reaches 1e\\+300, more than 1e\\+150, whose square leaves float64"),
        (np.full((3, 2), 1j), "X must be a rectangular array of numbers: they are of type complex128"),
        ([["1", "2"]], "X must be a rectangular array of numbers: they are of type <U1"),
        ([[1.0], [1.0, 2.0]], "X must be a rectangular array of numbers"),
    ],
)
def test_data_that_are_no_samples(data, message):
    with pytest.raises(ValueError, match=message):
        em_step(data, GaussianMixture([1.0], [[0.0, 0.0]]))
